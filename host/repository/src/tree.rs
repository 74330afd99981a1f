//! Trees of chunk hashes (FORMAT §6): how an entry's or the table's bytes are found from few root items.
//!
//! Pure: a [`TreeBuilder`] says which lists to store, [`Tree::step`] finds the item below which an offset lies.

use crate::chunk::ChunkHash;
use crate::format::Malformed;

/// Items in a full list of a tree with fixed chunk size.
const LIST_FIXED: u64 = 1024;
/// Fewest and most items in a list of a tree cut by content.
const LIST_VARIABLE: std::ops::RangeInclusive<usize> = 64..=2048;
/// Most items that writers leave at the root.
const ROOT_MAX: usize = 16;
/// No tree of 2^64 bytes is deeper.
const LEVEL_MAX: u64 = 8;
const HASH: usize = 32;

/// How the leaves below were cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Every leaf but the last holds so many bytes; items are hashes.
    Fixed(u32),
    /// Leaves end anywhere; items carry the number of bytes below them.
    Variable,
}

impl Cut {
    /// Bytes of an item.
    fn width(self) -> usize {
        match self {
            Self::Fixed(_) => HASH,
            Self::Variable => HASH + 8,
        }
    }
}

/// The root of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) cut: Cut,
    /// 0: the root's items name leaves.
    pub(crate) level: u32,
    pub(crate) root: Vec<u8>,
    /// Plain bytes in all leaves.
    pub(crate) bytes: u64,
}

/// A range of plain bytes and the chunk that holds it: a leaf at level 0, else the list of what is below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) hash: ChunkHash,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Tree {
    pub(crate) fn new(cut: Cut, level: u64, root: Vec<u8>, bytes: u64) -> Result<Self, Malformed> {
        if level > LEVEL_MAX {
            return Err(Malformed("a tree is too deep"));
        }
        if matches!(cut, Cut::Fixed(0)) {
            return Err(Malformed("a chunk size is zero"));
        }
        if (bytes == 0) != root.is_empty() {
            return Err(Malformed("a tree's root does not fit its size"));
        }
        Ok(Self { cut, level: level as u32, root, bytes })
    }

    /// The root's item below which `offset` lies, which must be within the tree.
    pub(crate) fn enter(&self, offset: u64) -> Result<Node, Malformed> {
        self.find(&self.root, self.level, (0, self.bytes), offset)
    }

    /// In the list `items` of `node`, whose items are at `level`, the item below which `offset` lies.
    pub(crate) fn step(&self, node: &Node, items: &[u8], level: u32, offset: u64) -> Result<Node, Malformed> {
        self.find(items, level, (node.start, node.end), offset)
    }

    /// The hashes that a list, or the root, holds.
    pub(crate) fn hashes(&self, items: &[u8]) -> Result<Vec<ChunkHash>, Malformed> {
        let width = self.cut.width();
        if !items.len().is_multiple_of(width) {
            return Err(Malformed("a list does not hold whole items"));
        }
        Ok(items.chunks_exact(width).filter_map(|item| item.first_chunk().copied().map(ChunkHash)).collect())
    }

    fn find(&self, items: &[u8], level: u32, (start, end): (u64, u64), offset: u64) -> Result<Node, Malformed> {
        if !items.len().is_multiple_of(self.cut.width()) {
            return Err(Malformed("a list does not hold whole items"));
        }
        match self.cut {
            Cut::Fixed(chunk) => find_fixed(items, chunk, level, start, end, offset),
            Cut::Variable => find_variable(items, start, end, offset),
        }
    }
}

fn find_fixed(items: &[u8], chunk: u32, level: u32, start: u64, end: u64, offset: u64) -> Result<Node, Malformed> {
    let short = Malformed("a list is shorter than its tree says");
    let span = LIST_FIXED.saturating_pow(level).saturating_mul(chunk.into());
    let number = offset.checked_sub(start).ok_or(short)? / span;
    let hash = usize::try_from(number).ok().and_then(|number| items.as_chunks::<HASH>().0.get(number)).ok_or(short)?;
    let start = start + number * span;
    Ok(Node { hash: ChunkHash(*hash), start, end: start.saturating_add(span).min(end) })
}

fn find_variable(items: &[u8], start: u64, end: u64, offset: u64) -> Result<Node, Malformed> {
    let mut start = start;
    for item in items.as_chunks::<{ HASH + 8 }>().0 {
        let (hash, bytes) = (item.first_chunk(), item.last_chunk());
        let (Some(hash), Some(bytes)) = (hash, bytes) else { break };
        let item_end = start
            .checked_add(u64::from_le_bytes(*bytes))
            .filter(|item_end| *item_end <= end && *item_end > start)
            .ok_or(Malformed("a list's sizes do not fit its tree"))?;
        if offset < item_end {
            return Ok(Node { hash: ChunkHash(*hash), start, end: item_end });
        }
        start = item_end;
    }
    Err(Malformed("a list is shorter than its tree says"))
}

/// Builds a tree from its leaves, in order.
#[derive(Debug)]
pub(crate) struct TreeBuilder {
    cut: Cut,
    /// Items that are in no list yet, by level.
    levels: Vec<Level>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Level {
    items: Vec<u8>,
    bytes: u64,
}

impl TreeBuilder {
    pub(crate) fn new(cut: Cut) -> Self {
        Self { cut, levels: vec![Level::default()], bytes: 0 }
    }

    /// Adds a leaf of `bytes` plain bytes. `store` is given each list that became complete and returns its hash.
    pub(crate) fn push(&mut self, hash: ChunkHash, bytes: u64, store: &mut impl FnMut(Vec<u8>) -> ChunkHash) {
        self.bytes += bytes;
        self.add(0, hash, bytes, store);
    }

    fn add(&mut self, level: usize, hash: ChunkHash, bytes: u64, store: &mut impl FnMut(Vec<u8>) -> ChunkHash) {
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        let place = &mut self.levels[level];
        place.items.extend(hash.0);
        if self.cut == Cut::Variable {
            place.items.extend(bytes.to_le_bytes());
        }
        place.bytes += bytes;
        let count = place.items.len() / self.cut.width();
        let complete = match self.cut {
            Cut::Fixed(_) => count as u64 == LIST_FIXED,
            // Cut where the hash says so, so that lists before and behind a change stay the same.
            Cut::Variable => count >= *LIST_VARIABLE.end() || (count >= *LIST_VARIABLE.start() && hash.0[0] == 0),
        };
        if complete {
            self.close(level, store);
        }
    }

    fn close(&mut self, level: usize, store: &mut impl FnMut(Vec<u8>) -> ChunkHash) {
        let Level { items, bytes } = std::mem::take(&mut self.levels[level]);
        let hash = store(items);
        self.add(level + 1, hash, bytes, store);
    }

    /// Ends the tree; the last lists of each level are given to `store`.
    pub(crate) fn finish(mut self, store: &mut impl FnMut(Vec<u8>) -> ChunkHash) -> Tree {
        let mut level = 0;
        while level + 1 < self.levels.len() || self.levels[level].items.len() > ROOT_MAX * self.cut.width() {
            if !self.levels[level].items.is_empty() {
                self.close(level, store);
            }
            level += 1;
        }
        let root = std::mem::take(&mut self.levels[level].items);
        Tree { cut: self.cut, level: level as u32, root, bytes: self.bytes }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn hash_of(number: u64) -> ChunkHash {
        ChunkHash(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    /// Builds a tree of leaves with these sizes, and finds every leaf's first and last byte in it.
    fn check(cut: Cut, sizes: &[u64]) -> Tree {
        let mut lists = HashMap::new();
        let mut store = |items: Vec<u8>| {
            let hash = ChunkHash(*blake3::hash(&items).as_bytes());
            lists.insert(hash, items);
            hash
        };
        let mut builder = TreeBuilder::new(cut);
        for (number, size) in sizes.iter().enumerate() {
            builder.push(hash_of(number as u64), *size, &mut store);
        }
        let tree = builder.finish(&mut store);
        let tree = Tree::new(tree.cut, tree.level.into(), tree.root, tree.bytes).unwrap();
        let mut start = 0;
        for (number, size) in sizes.iter().enumerate() {
            for offset in [start, start + size - 1] {
                let mut node = tree.enter(offset).unwrap();
                for level in (0..tree.level).rev() {
                    node = tree.step(&node, &lists[&node.hash], level, offset).unwrap();
                }
                assert_eq!(node, Node { hash: hash_of(number as u64), start, end: start + size });
            }
            start += size;
        }
        assert!(tree.bytes == start && tree.root.len() <= ROOT_MAX * cut.width());
        tree
    }

    #[test]
    fn every_offset_of_fixed_trees_is_found() {
        for (chunks, level) in [(1, 0), (16, 0), (17, 1), (1024, 1), (16 * 1024, 1), (16 * 1024 + 1, 2)] {
            let mut sizes = vec![4096; chunks];
            sizes[chunks - 1] = 100;
            assert_eq!(check(Cut::Fixed(4096), &sizes).level, level, "{chunks}");
        }
    }

    #[test]
    fn every_offset_of_variable_trees_is_found() {
        for chunks in [1, 16, 17, 64, 65, 3000, 40_000] {
            let sizes: Vec<u64> = (0..chunks).map(|number| 1 + number * 7919 % 100).collect();
            check(Cut::Variable, &sizes);
        }
    }

    #[test]
    fn a_change_in_the_middle_leaves_other_lists_alone() {
        let lists_of = |from: u64| {
            let mut lists = Vec::new();
            let mut store = |items: Vec<u8>| {
                lists.push(items);
                hash_of(u64::MAX)
            };
            let mut builder = TreeBuilder::new(Cut::Variable);
            (from..20_000).for_each(|number| builder.push(hash_of(number), 1, &mut store));
            lists
        };
        let (before, after) = (lists_of(0), lists_of(1));
        assert!(before.iter().filter(|list| !after.contains(list)).count() <= 2);
    }

    #[test]
    fn trees_that_lie_are_refused() {
        assert!(Tree::new(Cut::Fixed(1), 9, vec![0; 32], 1).is_err());
        assert!(Tree::new(Cut::Fixed(0), 0, vec![0; 32], 1).is_err());
        assert!(Tree::new(Cut::Variable, 0, Vec::new(), 1).is_err());
        let fixed = Tree::new(Cut::Fixed(10), 0, vec![0; 32], 1000).unwrap();
        assert!(fixed.enter(5).is_ok() && fixed.enter(10).is_err());
        let ragged = Tree::new(Cut::Fixed(10), 0, vec![0; 33], 1000).unwrap();
        assert!(ragged.enter(5).is_err());
        for size in [0, 11, u64::MAX] {
            let root = [&[0; 32][..], &u64::to_le_bytes(size)].concat();
            let tree = Tree::new(Cut::Variable, 0, root, 10).unwrap();
            assert!(tree.enter(0).is_err(), "{size}");
        }
    }
}
