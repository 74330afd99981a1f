//! The chunks that a backup holds, and what it relies on for those that were known.

use std::collections::BTreeSet;

use super::id_set::IdSet;
use crate::Digest;
use crate::chunk::ChunkId;
use crate::format::head::DELTAS;
use crate::index::Location;

/// Each chunk once.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Stored by this backup.
    pub(super) added: IdSet,
    /// Found in the repository.
    pub(super) adopted: IdSet,
    /// The indexes that tell where those are, and their packs.
    pub(super) indexes: BTreeSet<Digest>,
    pub(super) relied_on: BTreeSet<Digest>,
    /// Feature bits that a reader of those must know.
    pub(super) incompatible: u64,
}

impl Held {
    pub(super) fn holds(&self, id: &ChunkId) -> bool {
        self.added.contains(id) || self.adopted.contains(id)
    }

    /// Holds one more chunk, which is known where a chain says how it is read: whether it is to be stored.
    pub(super) fn hold(&mut self, id: ChunkId, known: Option<Vec<Location>>) -> bool {
        let Some(chain) = known else { return self.added.insert(id) };
        if self.adopted.insert(id) {
            // What a known delta stands on is held as well.
            for base in chain.iter().filter_map(|location| location.base) {
                self.adopted.insert(base);
            }
            self.indexes.extend(chain.iter().map(|location| location.index));
            self.relied_on.extend(chain.iter().map(|location| location.pack));
            if chain.len() > 1 {
                self.incompatible |= DELTAS;
            }
        }
        false
    }
}
