//! The log from the backup's start to its end: every segment there, whole, and of this cluster.

use holdfast_sdk::Result;
use holdfast_sdk::document::Check;
use holdfast_sdk::io::MAX_LIST;

use super::{Findings, Subject, judged};
use crate::lsn::{Lsn, segment_name, segments};
use crate::manifest::WalRange;
use crate::names;
use crate::wal::{self, Segment};

/// Checks the log of all `ranges` of the manifest, which must cover what the inventory names; without a manifest, of that
/// alone.
pub fn check(subject: &Subject, ranges: Option<&[WalRange]>) -> Result<Check> {
    let needed = &subject.needed;
    let covers =
        |range: &WalRange| range.timeline == needed.timeline && range.start <= needed.start && range.end >= needed.end;
    let mut findings = Findings::default();
    let ranges = ranges.unwrap_or(std::slice::from_ref(needed));
    if !ranges.iter().any(covers) {
        findings.add(format!("the manifest does not name the log from {} to {}", needed.start, needed.end));
    }
    let mut count = 0;
    for range in ranges {
        for segment in segments(range.start, range.end, subject.details.wal_segment_size) {
            check_segment(subject, range, segment, &mut findings)?;
            count += 1;
            if findings.more > 0 {
                // A range that lies could name a million segments.
                return Ok(judged("log", String::new(), findings.into_lines()));
            }
        }
    }
    let good = format!("whole from {} to {}, in {count} segments", needed.start, needed.end);
    Ok(judged("log", good, findings.into_lines()))
}

fn check_segment(subject: &Subject, range: &WalRange, segment: u64, findings: &mut Findings) -> Result<()> {
    let size = subject.details.wal_segment_size;
    let name = segment_name(range.timeline, segment, size);
    let path = format!("{}{}{name}", names::DATA, names::LOG);
    match subject.find(&path)?.map(|entry| entry.size) {
        None => findings.add(format!("{name} is missing")),
        Some(actual) if actual != Some(size) => findings.add(format!("{name} has not {size} bytes")),
        Some(_) => {
            if let Err(finding) = check_pages(subject, &path, Lsn(segment * size), range.end)? {
                findings.add(format!("{name}: {finding}"));
            }
        }
    }
    Ok(())
}

/// Checks every page of a segment that begins at `start`, up to `end`.
///
/// Where the server switched to the next segment early, the rest is zeros: that is good only after the record that says so.
fn check_pages(subject: &Subject, path: &str, start: Lsn, end: Lsn) -> Result<Result<(), String>> {
    let size = subject.details.wal_segment_size;
    let used = end.0.saturating_sub(start.0).min(size);
    let source = subject.backup.open(path, 0, None)?;
    let mut bytes = source.read_exact(MAX_LIST as u32)?;
    let segment = match judge_segment(subject, &bytes) {
        Ok(segment) => segment,
        Err(finding) => return Ok(Err(finding)),
    };
    let mut at = 0;
    let mut switched = false;
    let mut last = Vec::new();
    loop {
        for page in bytes.chunks_exact(segment.page_size as usize) {
            if at >= used {
                return Ok(Ok(()));
            }
            let here = Lsn(start.0 + at);
            let unused = page.iter().all(|byte| *byte == 0);
            switched |= unused && wal::ends_with_switch(&last);
            if switched != unused || !(unused || segment.has_page(page, here)) {
                return Ok(Err(format!("the page at {here} is not of the log")));
            }
            last.clear();
            last.extend_from_slice(page);
            at += u64::from(segment.page_size);
        }
        if at >= size {
            return Ok(Ok(()));
        }
        bytes = source.read_exact(MAX_LIST as u32)?;
    }
}

/// What the first page of a segment says, if it is of this cluster.
fn judge_segment(subject: &Subject, bytes: &[u8]) -> Result<Segment, String> {
    let segment = Segment::parse(bytes).ok_or("it does not begin like a segment of the log")?;
    if segment.system_identifier.to_string() != subject.system_identifier {
        return Err(format!("it is of the cluster {}", segment.system_identifier));
    }
    if u64::from(segment.size) != subject.details.wal_segment_size {
        return Err(format!("it says that segments have {} bytes", segment.size));
    }
    if !segment.page_size.is_power_of_two() || !(1_024..=MAX_LIST as u32).contains(&segment.page_size) {
        return Err(format!("it says that pages have {} bytes", segment.page_size));
    }
    Ok(segment)
}
