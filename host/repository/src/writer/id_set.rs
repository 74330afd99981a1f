//! A set of many ids that takes little more memory than they do: nearly all lie in one sorted list, and those that came lately are hashed.

use std::collections::HashSet;

use crate::chunk::ChunkId;

/// Ids that came lately at least, before they are sorted in.
const RECENT: usize = 8192;
/// They may be one in so many of all: so often each id is moved.
const SHARE: usize = 8;

#[derive(Debug, Default)]
pub(super) struct IdSet {
    sorted: Vec<ChunkId>,
    recent: HashSet<ChunkId>,
}

impl IdSet {
    pub(super) fn contains(&self, id: &ChunkId) -> bool {
        self.recent.contains(id) || self.sorted.binary_search(id).is_ok()
    }

    /// Whether it was not there.
    pub(super) fn insert(&mut self, id: ChunkId) -> bool {
        let is_new = !self.contains(&id) && self.recent.insert(id);
        if self.recent.len() > RECENT.max(self.sorted.len() / SHARE) {
            self.sort_in();
        }
        is_new
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.recent.len()
    }

    /// All of them in order.
    pub(super) fn into_sorted(mut self) -> Vec<ChunkId> {
        self.sort_in();
        self.sorted
    }

    /// Merges from the end, in place: the list is never there twice.
    fn sort_in(&mut self) {
        let mut recent: Vec<ChunkId> = self.recent.drain().collect();
        recent.sort_unstable();
        let mut old = self.sorted.len();
        self.sorted.reserve_exact(recent.len());
        self.sorted.resize(old + recent.len(), ChunkId([0; 32]));
        for place in (0..self.sorted.len()).rev() {
            let Some(last) = recent.last().copied() else { return };
            match old.checked_sub(1).filter(|before| self.sorted[*before] > last) {
                Some(before) => {
                    self.sorted[place] = self.sorted[before];
                    old = before;
                }
                None => {
                    self.sorted[place] = last;
                    recent.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn it_holds_what_a_plain_set_holds() {
        let id = |number: u64| ChunkId(*blake3::hash(&(number % 70_000).to_le_bytes()).as_bytes());
        let (mut ids, mut plain) = (IdSet::default(), BTreeSet::new());
        for number in 0..100_000_u64 {
            let id = id(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
            assert_eq!(ids.insert(id), plain.insert(id));
            assert!(ids.contains(&id));
        }
        assert_eq!(ids.len(), plain.len());
        assert!((70_000..71_000).all(|number| ids.contains(&id(number)) == plain.contains(&id(number))));
        assert!(!ids.contains(&ChunkId([0; 32])));
        assert_eq!(ids.into_sorted(), Vec::from_iter(plain));
    }
}
