//! Pages of relation files: their checksum, and whether a copied page may be judged by it.
//!
//! The algorithm is that of PostgreSQL's `storage/checksum_impl.h`: 32 lanes of a modified FNV-1a, folded by XOR. Little
//! endian servers only.

use crate::lsn::Lsn;

const LANES: usize = 32;
const PRIME: u32 = 16_777_619;

/// Where each lane begins.
const OFFSETS: [u32; LANES] = [
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C, 0xF8D4474F,
    0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB, 0xE58F764B, 0x187636BC,
    0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4, 0x783125BB, 0x6CA8EAA2, 0xE407EAC6,
    0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
];

/// Bytes of a page's header before the part that depends on what the page is.
pub const HEADER: usize = 24;

/// What a page of a backup turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Its checksum fits.
    Good,
    /// It was never initialized: it has no checksum.
    New,
    /// It was changed after the backup began: replaying the log replaces it.
    Replaced,
    /// Its checksum does not fit.
    Damaged,
}

/// Judges one whole page, which is block `block` of its relation, in a backup that began at `start`.
pub fn judge(page: &[u8], block: u32, start: Lsn) -> Verdict {
    let Some(header) = page.first_chunk::<HEADER>() else { return Verdict::Damaged };
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    // The header has the log position in two halves, the stored checksum and the end of free space.
    let lsn = Lsn(u64::from(word(0)) << 32 | u64::from(word(4)));
    let (stored, upper) = (half(8), half(14));
    if upper == 0 {
        Verdict::New
    } else if lsn >= start {
        Verdict::Replaced
    } else if checksum(page, block) == stored {
        Verdict::Good
    } else {
        Verdict::Damaged
    }
}

/// The checksum of a page as block `block` of its relation, its own checksum field counted as zero.
pub fn checksum(page: &[u8], block: u32) -> u16 {
    let mut lanes = OFFSETS;
    let (rows, _) = page.as_chunks::<{ 4 * LANES }>();
    for (number, row) in rows.iter().enumerate() {
        let (words, _) = row.as_chunks::<4>();
        for (place, (lane, word)) in lanes.iter_mut().zip(words).enumerate() {
            let mut word = u32::from_le_bytes(*word);
            if number == 0 && place == 2 {
                word &= 0xFFFF_0000; // The checksum field: bytes 8 and 9.
            }
            *lane = mix(*lane, word);
        }
    }
    for _ in 0..2 {
        for lane in &mut lanes {
            *lane = mix(*lane, 0);
        }
    }
    let folded = lanes.iter().fold(0, |sum, lane| sum ^ lane) ^ block;
    (folded % 65_535) as u16 + 1
}

fn mix(sum: u32, value: u32) -> u32 {
    let mixed = sum ^ value;
    mixed.wrapping_mul(PRIME) ^ mixed >> 17
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8_192;

    /// A page of a pattern that is easy to give to the server's own `page_checksum`.
    fn page(lsn: u64) -> Vec<u8> {
        let mut page: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
        page[0..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page
    }

    #[test]
    fn agrees_with_the_server() {
        // From pageinspect of PostgreSQL 15: page_checksum(page, 0), page_checksum(page, 131073).
        let page = page(0x1_0000_0010);
        assert_eq!(checksum(&page, 0), 17_794);
        assert_eq!(checksum(&page, 131_073), 17_791);
    }

    #[test]
    fn judges_only_pages_that_were_there_before_the_backup() {
        let mut page = page(100);
        let sum = checksum(&page, 7);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(judge(&page, 7, Lsn(101)), Verdict::Good);
        assert_eq!(judge(&page, 8, Lsn(101)), Verdict::Damaged, "a page at the wrong place");
        page[4_000] ^= 1;
        assert_eq!(judge(&page, 7, Lsn(101)), Verdict::Damaged);
        assert_eq!(judge(&page, 7, Lsn(100)), Verdict::Replaced);
        assert_eq!(judge(&vec![0; SIZE], 7, Lsn(101)), Verdict::New);
        assert_eq!(judge(&page[..10], 7, Lsn(101)), Verdict::Damaged, "cut short");
    }
}
