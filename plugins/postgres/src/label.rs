//! `backup_label`: where replay begins. It must say what the inventory says.

use crate::lsn::{self, Lsn};
use crate::manifest::WalRange;

/// What contradicts a backup that needs the log of `needed`.
pub fn objections(text: &str, needed: &WalRange, segment_size: u64) -> Vec<String> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    let mut objections = Vec::new();

    let (start, file) = match value("START WAL LOCATION").and_then(|value| value.split_once(" (file ")) {
        Some((start, file)) => (start.parse::<Lsn>().ok(), file.trim_end_matches(')')),
        None => (None, ""),
    };
    if start != Some(needed.start) {
        objections.push(format!("it does not begin at {}", needed.start));
    }
    if file != lsn::segment_name(needed.timeline, needed.start.0 / segment_size, segment_size) {
        objections.push(format!("it names the segment {file:?}"));
    }
    if value("CHECKPOINT LOCATION").is_none_or(|checkpoint| checkpoint.parse::<Lsn>().is_err()) {
        objections.push("it names no checkpoint".into());
    }
    if value("START TIMELINE") != Some(needed.timeline.to_string().as_str()) {
        objections.push(format!("it is not of timeline {}", needed.timeline));
    }
    objections
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
                         BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2024-10-04 09:56:18 UTC\nLABEL: holdfast 1\nSTART TIMELINE: 1\n";

    #[test]
    fn a_label_must_be_of_this_backup() {
        let needed = WalRange { timeline: 1, start: Lsn(0x200_0028), end: Lsn(0x200_0100) };
        let count = |text: &str| objections(text, &needed, 16 << 20).len();
        assert_eq!(count(LABEL), 0);
        assert_eq!(count(&LABEL.replace("0/2000028", "0/2000029")), 1);
        assert_eq!(count(&LABEL.replace("0000002)", "0000003)")), 1);
        assert_eq!(count(&LABEL.replace("TIMELINE: 1", "TIMELINE: 12")), 1);
        assert_eq!(count(&LABEL.replace("0/2000060", "x")), 1);
        assert_eq!(count(""), 4);
    }
}
