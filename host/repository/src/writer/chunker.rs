//! Where chunks end. The writer's policy, not the format: readers do not depend on it.

use fastcdc::v2020::{FastCDC, Normalization};

use crate::ContentClass;
use crate::tree::Cut;

/// Chunk size of pages, in bytes, before it is rounded to whole pages. A changed chunk costs what changed, whatever its size, and each chunk
/// takes its share of indexes, refs, look-ups and tables of compressors: daily changes of a database store about a third less than with
/// 64 KiB, and are restored in less time.
const PAGES_CHUNK: u32 = 256 << 10;
const CONTENT_MIN: usize = 128 << 10;
const CONTENT_AVERAGE: usize = 512 << 10;
/// Longest chunk cut by content, in bytes.
pub(super) const CONTENT_MAX: usize = 2 << 20;

/// The chunk size of a content class.
pub(super) fn cut_of(class: ContentClass) -> Cut {
    match class {
        ContentClass::Pages(page) => Cut::Fixed(page.max(PAGES_CHUNK / page * page)),
        ContentClass::Bytes => Cut::Variable,
    }
}

/// Lengths of the chunks that `bytes` begin with. Without `is_end`, only those that no further byte can change.
pub(super) fn cut_by_content(bytes: &[u8], seed: u64, is_end: bool) -> Vec<usize> {
    let cutter =
        FastCDC::with_level_and_seed(bytes, CONTENT_MIN, CONTENT_AVERAGE, CONTENT_MAX, Normalization::Level1, seed);
    let mut lengths = Vec::new();
    let mut start = 0;
    while start < bytes.len() && (is_end || bytes.len() - start >= CONTENT_MAX) {
        let (_, end) = cutter.cut(start, bytes.len() - start);
        lengths.push(end - start);
        start = end;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that look random and are the same everywhere.
    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn pages_are_never_split() {
        for (page, chunk) in
            [(1, 262_144), (4096, 262_144), (8192, 262_144), (5000, 260_000), (65536, 262_144), (1 << 20, 1 << 20)]
        {
            assert_eq!(cut_of(ContentClass::Pages(page)), Cut::Fixed(chunk));
        }
    }

    #[test]
    fn cut_points_are_these() {
        assert_eq!(cut_by_content(&noise(4 << 20), 0x1234_5678_9abc_def0, true), CUTS);
    }
    const CUTS: [usize; 8] = [737_079, 492_460, 783_228, 307_573, 442_505, 598_864, 736_997, 95_598];

    #[test]
    fn cut_points_do_not_depend_on_how_the_bytes_came() {
        let bytes = noise(12 << 20);
        let whole = cut_by_content(&bytes, 7, true);
        let (mut pieces, mut start) = (Vec::new(), 0);
        for end in (0..bytes.len()).step_by(3_000_000) {
            let cut = cut_by_content(&bytes[start..end.max(start)], 7, false);
            start += cut.iter().sum::<usize>();
            pieces.extend(cut);
        }
        pieces.extend(cut_by_content(&bytes[start..], 7, true));
        assert_eq!(pieces, whole);
        assert_eq!(whole.iter().sum::<usize>(), bytes.len());
        assert_ne!(whole, cut_by_content(&bytes, 8, true));
    }

    #[test]
    fn an_insertion_moves_few_cut_points() {
        let bytes = noise(16 << 20);
        let shifted = [b"inserted", &bytes[..]].concat();
        let ends = |bytes: &[u8], shift: usize| -> Vec<usize> {
            let mut end = 0;
            cut_by_content(bytes, 7, true)
                .iter()
                .map(|length| {
                    end += length;
                    end - shift
                })
                .collect()
        };
        let (before, after) = (ends(&bytes, 0), ends(&shifted, 8));
        assert!(before.iter().filter(|end| !after.contains(end)).count() <= 3);
    }
}
