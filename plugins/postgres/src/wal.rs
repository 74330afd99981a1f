//! Pages of the write-ahead log, as far as it takes to say that they are where they belong.
//!
//! Layouts are those of `access/xlog_internal.h` and `access/xlogrecord.h`, of little endian servers.

use crate::lsn::Lsn;

/// Bytes of a page's header, and of that of a segment's first page.
const SHORT_HEADER: usize = 24;
const LONG_HEADER: usize = 40;

/// The header's flags: the page begins in the middle of a record; its header is long.
const CONTINUES: u16 = 0x0001;
const IS_LONG: u16 = 0x0002;

/// Bytes of a record's header.
const RECORD_HEADER: usize = 24;

/// What marks the record after which the rest of a segment is zeros: resource manager and kind.
const SWITCH: (u8, u8) = (0, 0x40);

/// What the first page of a segment says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The same on every page of one version.
    pub magic: u16,
    /// Identifies the cluster.
    pub system_identifier: u64,
    /// Bytes of the segment.
    pub size: u32,
    /// Bytes of a page.
    pub page_size: u32,
}

impl Segment {
    /// Reads the beginning of a segment; none if it is not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..LONG_HEADER)?;
        let magic = half(header, 0);
        // All versions so far have magic numbers 0xD1xx.
        let valid = half(header, 2) & IS_LONG != 0 && magic >> 8 == 0xD1;
        valid.then(|| Self {
            magic,
            system_identifier: long(header, 24),
            size: word(header, 32),
            page_size: word(header, 36),
        })
    }

    /// Whether these bytes are its page at this position.
    pub fn has_page(&self, page: &[u8], at: Lsn) -> bool {
        page.len() >= SHORT_HEADER && half(page, 0) == self.magic && long(page, 8) == at.0
    }
}

/// Whether the last record of a page is the one after which the rest of the segment is not used.
pub fn ends_with_switch(page: &[u8]) -> bool {
    let Some(header) = page.get(..SHORT_HEADER) else { return false };
    let flags = half(header, 2);
    let mut at = if flags & IS_LONG != 0 { LONG_HEADER } else { SHORT_HEADER };
    let mut switched = false;
    if flags & CONTINUES != 0 {
        let rest = word(header, 16) as usize;
        // A record shorter than two headers that began on the page before may be the switch itself.
        switched = rest < RECORD_HEADER;
        at = at.saturating_add(rest).next_multiple_of(8);
    }
    while let Some(record) = page.get(at..).and_then(|rest| rest.get(..RECORD_HEADER)) {
        let length = word(record, 0) as usize;
        if length == 0 {
            break;
        }
        switched = length == RECORD_HEADER && (record[17], record[16]) == SWITCH;
        at = at.saturating_add(length.max(RECORD_HEADER)).next_multiple_of(8);
    }
    switched
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

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 8_192;

    fn page(flags: u16, at: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        page[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
        page[2..4].copy_from_slice(&flags.to_le_bytes());
        page[8..16].copy_from_slice(&at.to_le_bytes());
        page[24..32].copy_from_slice(&7u64.to_le_bytes());
        page[32..36].copy_from_slice(&(16u32 << 20).to_le_bytes());
        page[36..40].copy_from_slice(&(PAGE as u32).to_le_bytes());
        page
    }

    fn put(page: &mut [u8], at: usize, length: u32, manager: u8, kind: u8) {
        page[at..at + 4].copy_from_slice(&length.to_le_bytes());
        (page[at + 16], page[at + 17]) = (kind, manager);
    }

    #[test]
    fn knows_a_segment_and_its_pages() {
        let first = page(IS_LONG, 0x200_0000);
        let segment = Segment::parse(&first).expect("a segment");
        assert_eq!(segment, Segment { magic: 0xD110, system_identifier: 7, size: 16 << 20, page_size: 8_192 });
        assert!(segment.has_page(&page(0, 0x200_2000), Lsn(0x200_2000)));
        assert!(!segment.has_page(&page(0, 0x100_2000), Lsn(0x200_2000)), "left over from an older use of the file");
        assert!(!segment.has_page(&[0; PAGE], Lsn(0x200_2000)));
        for bytes in [&page(0, 0x200_0000)[..], &[0; PAGE], &first[..39]] {
            assert_eq!(Segment::parse(bytes), None);
        }
    }

    #[test]
    fn finds_a_switch_only_as_the_last_record() {
        let mut switched = page(CONTINUES, 0);
        switched[16..20].copy_from_slice(&100u32.to_le_bytes());
        let (manager, kind) = SWITCH;
        put(&mut switched, 128, 61, 10, 0);
        put(&mut switched, 192, 24, manager, kind);
        assert!(ends_with_switch(&switched));
        put(&mut switched, 216, 50, 10, 0);
        assert!(!ends_with_switch(&switched));
        assert!(!ends_with_switch(&page(IS_LONG, 0)));
    }

    #[test]
    fn hostile_lengths_end_the_search() {
        for length in [1, 25, u32::MAX] {
            let mut hostile = page(CONTINUES, 0);
            hostile[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(!ends_with_switch(&hostile));
            let mut hostile = page(IS_LONG, 0);
            put(&mut hostile, 40, length, 0, 0);
            assert!(!ends_with_switch(&hostile));
        }
        assert!(!ends_with_switch(&[]));
    }
}
