//! The log from the backup's start to its end: every segment there, whole, and of this cluster.

use holdfast_sdk::Result;
use holdfast_sdk::document::Check;
use holdfast_sdk::io::MAX_LIST;

use super::{Findings, Subject, judged};
use crate::lsn::{Lsn, segment_name, segments};
use crate::manifest::WalRange;
use crate::names;

/// Marks a page as the first of a segment, whose header says more.
const LONG_HEADER: u16 = 0x0002;

/// Bytes of the header of a segment's first page.
const LONG_HEADER_SIZE: usize = 40;

/// Checks the log of all `ranges` of the manifest, and at least what the inventory names.
pub fn check(subject: &Subject, ranges: &[WalRange]) -> Result<Check> {
    let mut findings = Findings::default();
    let covers = |range: &WalRange| range.timeline == subject.needed.timeline && range.start <= subject.start();
    if !ranges.iter().any(covers) {
        findings.add(format!("the manifest does not begin the log at {}", subject.start()));
    }
    let mut count = 0;
    for range in ranges.iter().chain([&subject.needed]) {
        for segment in segments(range.start, range.end, subject.details.wal_segment_size) {
            check_segment(subject, range, segment, &mut findings)?;
            count += 1;
            if findings.more > 0 {
                // A range that lies could name a million segments.
                return Ok(judged("log", String::new(), findings.into_lines()));
            }
        }
    }
    let good = format!("{count} segments looked at, from {} to {}", subject.needed.start, subject.needed.end);
    Ok(judged("log", good, findings.into_lines()))
}

fn check_segment(subject: &Subject, range: &WalRange, segment: u64, findings: &mut Findings) -> Result<()> {
    let size = subject.details.wal_segment_size;
    let name = segment_name(range.timeline, segment, size);
    let path = format!("{}pg_wal/{name}", names::DATA);
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

/// Checks the header of every page of a segment that begins at `start`, up to `end`.
fn check_pages(subject: &Subject, path: &str, start: Lsn, end: Lsn) -> Result<Result<(), String>> {
    let used = (end.0 - start.0.min(end.0)).min(subject.details.wal_segment_size);
    let source = subject.backup.open(path, 0, None)?;
    let mut at = 0;
    let mut first = None;
    while at < used {
        let bytes = source.read_exact(MAX_LIST as u32)?;
        let page_size = match &first {
            None => match FirstPage::read(&bytes, subject) {
                Ok(page) => first.insert(page).page_size,
                Err(finding) => return Ok(Err(finding)),
            },
            Some(page) => page.page_size,
        };
        let magic = first.as_ref().map_or(0, |page| page.magic);
        for page in bytes.chunks_exact(page_size) {
            if at >= used {
                break;
            }
            if half(page, 0) != magic || long(page, 8) != start.0 + at {
                return Ok(Err(format!("the page at {} is not of the log", Lsn(start.0 + at))));
            }
            at += page_size as u64;
        }
    }
    Ok(Ok(()))
}

/// What the header of a segment's first page says.
struct FirstPage {
    magic: u16,
    page_size: usize,
}

impl FirstPage {
    fn read(bytes: &[u8], subject: &Subject) -> Result<Self, String> {
        if bytes.len() < LONG_HEADER_SIZE || half(bytes, 2) & LONG_HEADER == 0 || half(bytes, 0) >> 8 != 0xD1 {
            return Err("it does not begin like a segment of the log".into());
        }
        if long(bytes, 24).to_string() != subject.system_identifier {
            return Err(format!("it is of the cluster {}", long(bytes, 24)));
        }
        if u64::from(word(bytes, 32)) != subject.details.wal_segment_size {
            return Err(format!("it says that segments have {} bytes", word(bytes, 32)));
        }
        let page_size = word(bytes, 36) as usize;
        if !page_size.is_power_of_two() || !(1_024..=MAX_LIST).contains(&page_size) {
            return Err(format!("it says that pages have {page_size} bytes"));
        }
        Ok(Self { magic: half(bytes, 0), page_size })
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from(half(bytes, at)) | u32::from(half(bytes, at + 2)) << 16
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}
