//! Positions in the write-ahead log, and the names of the segments that hold them.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use holdfast_sdk::{Error, Result};
use serde::{Deserialize, Serialize};

/// A byte position in the write-ahead log, written as PostgreSQL does: `16/B374D848`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let half = |digits: &str| {
            let plain = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let halves = text.split_once('/').and_then(|(high, low)| Some((half(high)?, half(low)?)));
        let (high, low) =
            halves.ok_or_else(|| Error::new("protocol-error", format!("not a log position: {text:?}")))?;
        Ok(Self(high << 32 | low))
    }
}

impl TryFrom<String> for Lsn {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Whether a cluster can have segments of this many bytes.
pub fn is_segment_size(bytes: u64) -> bool {
    bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)
}

/// The numbers of the segments that hold the bytes from `from` up to, and without, `to`.
///
/// `size` is a segment's bytes and must be one that [`is_segment_size`] accepts.
pub fn segments(from: Lsn, to: Lsn, size: u64) -> RangeInclusive<u64> {
    from.0 / size..=to.0.saturating_sub(1).max(from.0) / size
}

/// The file name of a segment.
pub fn segment_name(timeline: u32, segment: u64, size: u64) -> String {
    let in_a_file_of_4_gib = (1 << 32) / size;
    format!("{timeline:08X}{:08X}{:08X}", segment / in_a_file_of_4_gib, segment % in_a_file_of_4_gib)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    #[test]
    fn reads_and_writes_what_postgres_does() {
        let lsn: Lsn = "16/B374D848".parse().expect("valid");
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("0/0".parse::<Lsn>().expect("valid").to_string(), "0/0");
    }

    #[test]
    fn refuses_what_is_no_position() {
        for text in ["", "/", "1", "1/", "/1", "0/123456789", "g/1", "+1/1", "1/2/3", " 1/2"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn names_segments_by_timeline_and_size() {
        assert_eq!(segment_name(1, Lsn(0x200_0028).0 / SIZE, SIZE), "000000010000000000000002");
        assert_eq!(segment_name(0x1A, 0x100, SIZE), "0000001A0000000100000000");
        assert_eq!(segment_name(1, 4, 1 << 30), "000000010000000100000000");
    }

    #[test]
    fn a_range_that_ends_at_a_border_does_not_touch_the_next_segment() {
        assert_eq!(segments(Lsn(SIZE), Lsn(2 * SIZE), SIZE), 1..=1);
        assert_eq!(segments(Lsn(SIZE), Lsn(2 * SIZE + 1), SIZE), 1..=2);
        assert_eq!(segments(Lsn(SIZE), Lsn(SIZE), SIZE), 1..=1);
    }
}
