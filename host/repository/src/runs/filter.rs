//! Says of nearly every id that is not in a run that it is not, without a look at the disk: 10 bits an id, about one false "perhaps" in a
//! hundred, and never a false "no". Ids are digests, so their own bits are as good as any hash of them.

use crate::chunk::ChunkId;

/// Bits for each id.
const BITS: usize = 10;
/// Words of a block: a line of the processor's cache, in which all bits of an id lie.
const BLOCK: usize = 8;
/// Bits that are set for an id.
const PROBES: u32 = 6;

/// A Bloom filter in blocks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// An empty one for so many ids.
    pub(super) fn new(ids: usize) -> Self {
        Self { words: vec![0; (ids * BITS).div_ceil(BLOCK * 64).max(1) * BLOCK] }
    }

    /// One that was stored; none where that is no whole number of blocks.
    pub(super) fn of_words(words: Vec<u64>) -> Option<Self> {
        (!words.is_empty() && words.len().is_multiple_of(BLOCK)).then_some(Self { words })
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    pub(super) fn add(&mut self, id: &ChunkId) {
        let block = self.block(id);
        for bit in bits(id) {
            self.words[block + bit / 64] |= 1 << (bit % 64);
        }
    }

    /// `false`: it was not added.
    pub(super) fn may_hold(&self, id: &ChunkId) -> bool {
        let block = self.block(id);
        bits(id).all(|bit| self.words[block + bit / 64] & 1 << (bit % 64) != 0)
    }

    /// The first word of an id's block. Ids in order have blocks in order.
    fn block(&self, id: &ChunkId) -> usize {
        let blocks = (self.words.len() / BLOCK) as u128;
        ((u128::from(prefix(id)) * blocks) >> 64) as usize * BLOCK
    }
}

/// What an id begins with, as a number in the order of ids.
pub(super) fn prefix(id: &ChunkId) -> u64 {
    number(&id.0, 0)
}

/// Where the bits of an id are within its block.
fn bits(id: &ChunkId) -> impl Iterator<Item = usize> + use<> {
    let source = number(&id.0, 8);
    (0..PROBES).map(move |probe| (source >> (9 * probe)) as usize % (BLOCK * 64))
}

fn number(bytes: &[u8; 32], from: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[from..from + 8]);
    u64::from_be_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> ChunkId {
        ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    #[test]
    fn what_was_added_is_never_denied_and_little_else_is_affirmed() {
        let mut filter = Filter::new(50_000);
        (0..50_000).for_each(|number| filter.add(&id(number)));
        assert!((0..50_000).all(|number| filter.may_hold(&id(number))));
        let wrong = (50_000..100_000).filter(|number| filter.may_hold(&id(*number))).count();
        assert!(wrong < 1_000, "{wrong} of 50,000");
        assert_eq!(filter.words().len() * 64 / 50_000, BITS);
    }

    #[test]
    fn an_empty_one_denies_everything() {
        let filter = Filter::new(0);
        assert!(!filter.may_hold(&id(1)));
        assert_eq!(Filter::of_words(filter.words().to_vec()), Some(filter));
        assert_eq!(Filter::of_words(vec![0; 9]), None);
    }
}
