//! Blocks of zeros need not be written to a new file: what is not written reads as zeros, and takes no room.

use std::ops::Range;

/// What file systems give room to, in bytes.
const BLOCK: usize = 4_096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The parts of `bytes`, which lie at `offset` of a file, that must be written. What is left out are blocks of zeros, the first and the
/// last of which may lie in `bytes` in part only.
pub(crate) fn solid(bytes: &[u8], offset: u64) -> impl Iterator<Item = Range<usize>> {
    // The next block of the file begins here.
    let boundary = move |at: usize| at + BLOCK - (offset as usize).wrapping_add(at) % BLOCK;
    let mut at = 0;
    let mut pass = move |zeros: bool| {
        while at < bytes.len() {
            let end = boundary(at).min(bytes.len());
            if (bytes[at..end] == ZEROS[..end - at]) != zeros {
                break;
            }
            at = end;
        }
        at
    };
    std::iter::from_fn(move || {
        let part = pass(true)..pass(false);
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(bytes: &[u8], offset: u64) -> Vec<(usize, usize)> {
        solid(bytes, offset).map(|part| (part.start, part.end)).collect()
    }

    #[test]
    fn whole_blocks_of_zeros_are_left_out() {
        let mut bytes = vec![0; 5 * BLOCK];
        assert_eq!(parts(&bytes, 0), []);
        bytes[BLOCK] = 1;
        bytes[4 * BLOCK - 1] = 1;
        assert_eq!(parts(&bytes, 0), [(BLOCK, 2 * BLOCK), (3 * BLOCK, 4 * BLOCK)]);
        bytes[2 * BLOCK] = 1;
        assert_eq!(parts(&bytes, 0), [(BLOCK, 4 * BLOCK)]);
        assert_eq!(parts(&[], 7), []);
    }

    #[test]
    fn blocks_are_those_of_the_file() {
        // Two thirds of a block, a whole one of zeros, and one zero more.
        let bytes = [vec![1; 2_731], vec![0; BLOCK], vec![0]].concat();
        assert_eq!(parts(&bytes, 1_365), [(0, 2_731)]);
        // A byte further on, the zeros share their first block with what is before.
        assert_eq!(parts(&bytes, 1_366), [(0, 2_730 + BLOCK)]);
    }
}
