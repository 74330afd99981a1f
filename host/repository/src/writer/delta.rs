//! What a new chunk becomes a delta to: the chunk at the same place of the same entry in the parent backup, or a base of that.
//!
//! The writer's policy, not the format's. Chunks that change again and again must neither need a long chain to be read nor carry all
//! changes since the first version: of the versions that a chain has, the oldest is taken whose delta is at most [`FORGOTTEN`] times as large as
//! that to the newest one. So most chunks are one delta away from a whole one, none is more than [`DEPTH`], and where a delta would carry too much
//! it is laid upon another one.

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::chunk::ChunkHash;
use crate::reader::{BackupReader, Bases, Chain};

/// Deltas that the writer lays upon each other. One more saves little: cost of reading grows with each.
pub(super) const DEPTH: u8 = 2;
/// How much larger a delta to an older version may be. Room is given for time: 14 daily scattered updates store a third more
/// than with 2, and the last of them is restored with fewer deltas.
const FORGOTTEN: usize = 6;
/// A delta pays if at least one in so many blocks is as it was.
const PAYS: usize = 4;
/// Bytes of a block.
const BLOCK: usize = 64;

/// An entry of the parent backup, looked up when the first of its chunks has changed.
pub(super) struct Ancestor {
    parent: BackupReader,
    path: String,
    cut: u32,
    bases: OnceCell<Option<Bases>>,
}

/// Where a run of chunks lies in its entry, and what was there before.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) ancestor: std::sync::Arc<Ancestor>,
    pub(super) offset: u64,
}

impl Ancestor {
    pub(super) fn new(parent: BackupReader, path: String, cut: u32) -> Self {
        Self { parent, path, cut, bases: OnceCell::new() }
    }

    /// The chunks that were at these offsets. What cannot be had is no base: the new chunk is stored whole then, and what is wrong with the
    /// parent is for a check to say.
    pub(super) async fn fetch(&self, offsets: &[u64]) -> Vec<Option<Chain>> {
        let bases = self.bases.get_or_try_init(|| self.parent.bases(&self.path, self.cut)).await;
        let fetched = match bases {
            Ok(Some(bases)) => bases.fetch(offsets).await,
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error),
        };
        let mut chains = fetched.unwrap_or_else(|error| {
            tracing::debug!(path = %self.path, %error, "an earlier version cannot be read: storing chunks whole");
            Vec::new()
        });
        chains.resize_with(offsets.len(), || None);
        chains
    }
}

/// New chunks of a run, whose earlier versions are to be fetched.
pub(super) struct Changed {
    pub(super) run: Bytes,
    /// The hash of each, and where it lies in the run.
    pub(super) chunks: Vec<(ChunkHash, std::ops::Range<usize>)>,
    pub(super) origin: Origin,
}

impl Changed {
    /// What was at the place of each.
    pub(super) async fn fetch(&self) -> Vec<Option<Chain>> {
        let offsets: Vec<u64> = self.chunks.iter().map(|(_, place)| self.origin.offset + place.start as u64).collect();
        self.origin.ancestor.fetch(&offsets).await
    }
}

/// The number of the version that a delta is made against, if one pays. Versions, with their depths, are in the order of the chain.
pub(super) fn choose(new: &[u8], versions: &[(u8, &[u8])]) -> Option<usize> {
    let total = blocks(new).filter(|block| !is_zero(block)).count();
    let mut chosen: Option<(usize, usize)> = None;
    let mut bound = usize::MAX;
    for (number, (depth, version)) in versions.iter().enumerate() {
        if *depth >= DEPTH {
            continue;
        }
        let changed = changed(new, version);
        if chosen.is_none() {
            bound = changed.saturating_mul(FORGOTTEN);
        }
        if chosen.is_none() || changed <= bound {
            chosen = Some((number, changed));
        }
    }
    let (number, changed) = chosen?;
    (changed <= total - total / PAYS).then_some(number)
}

/// How many blocks are others than they were; zeros cost nothing, whatever was there.
fn changed(new: &[u8], old: &[u8]) -> usize {
    let mut before = blocks(old);
    blocks(new)
        .filter(|block| {
            let was = before.next();
            was != Some(*block) && !is_zero(block)
        })
        .count()
}

fn blocks(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(BLOCK)
}

fn is_zero(block: &[u8]) -> bool {
    block.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: usize = 1_000;

    /// A chunk whose first blocks are those of a version.
    fn version(number: u8, changed: usize) -> Vec<u8> {
        let mut bytes = vec![255; BLOCKS * BLOCK];
        bytes[..changed * BLOCK].fill(number);
        bytes
    }

    #[test]
    fn the_only_version_is_taken_where_it_pays() {
        for (changed, expected) in [(0, Some(0)), (1, Some(0)), (750, Some(0)), (751, None), (1_000, None)] {
            assert_eq!(choose(&version(1, changed), &[(0, &version(0, 0))]), expected, "{changed}");
        }
    }

    #[test]
    fn zeros_are_no_likeness() {
        let mut new = version(1, 100);
        new[200 * BLOCK..].fill(0);
        let mut old = version(2, 100);
        old[149 * BLOCK..].fill(0);
        assert_eq!(choose(&new, &[(0, &old)]), None, "49 of 200 are as they were, zeros aside");
        assert_eq!(choose(&new, &[(0, &version(2, 100))]), Some(0));
    }

    #[test]
    fn no_chain_grows_beyond_its_depth() {
        let versions = [version(3, 3), version(2, 2), version(0, 0)];
        let chain: Vec<_> = [2, 1, 0].into_iter().zip(versions.iter().map(Vec::as_slice)).collect();
        let new = version(4, 5);
        assert_eq!(choose(&new, &chain), Some(2), "the oldest costs no more than the newest that may be taken");
        let chain = [(2, &versions[0][..])];
        assert_eq!(choose(&new, &chain), None);
    }

    #[test]
    fn daily_changes_neither_pile_up_nor_chain_up() {
        // Each day changes other blocks. A chain is what the writer made of the days before.
        let mut chains: Vec<Vec<(u8, Vec<u8>)>> = vec![vec![(0, version(0, 0))]];
        let mut stored = Vec::new();
        for day in 1..=30_u8 {
            let before = chains.last().unwrap();
            let mut new = before[0].1.clone();
            new[usize::from(day) * 10 * BLOCK..][..10 * BLOCK].fill(day);
            let versions: Vec<_> = before.iter().map(|(depth, bytes)| (*depth, &bytes[..])).collect();
            let number = choose(&new, &versions).unwrap();
            stored.push(changed(&new, versions[number].1) / 10);
            let mut chain = before[number..].to_vec();
            chain.insert(0, (before[number].0 + 1, new));
            assert!(chain.len() <= usize::from(DEPTH) + 1);
            chains.push(chain);
        }
        // Days of changes that each day's delta holds.
        assert_eq!(&stored[..16], [1, 2, 3, 4, 5, 6, 1, 8, 1, 10, 1, 12, 1, 2, 15, 1]);
    }
}
