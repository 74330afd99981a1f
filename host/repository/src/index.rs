//! Where the chunks of a domain are: all its indexes in memory, 44 bytes a chunk, in a few sorted runs.
//!
//! A record counts only if the heads say that its pack is present and not condemned, so an index copied to another target
//! may name packs which that target does not hold.

use std::collections::HashSet;
use std::sync::Arc;

use crate::Digest;
use crate::chunk::ChunkId;
use crate::format::index::Index;
use crate::heads::DomainState;

/// Where a sealed chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: Digest,
    /// The index that says so.
    pub(crate) index: Digest,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

#[derive(Clone, Copy, Debug)]
struct Located {
    id: ChunkId,
    source: u32,
    offset: u32,
    length: u32,
}

/// A pack as one index tells of it.
#[derive(Clone, Debug)]
struct Source {
    pack: Digest,
    index: Digest,
    is_live: bool,
}

/// An immutable view; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexTable {
    sources: Vec<Source>,
    /// Each sorted by id, the longest first.
    runs: Vec<Arc<Vec<Located>>>,
    loaded: HashSet<Digest>,
}

impl IndexTable {
    /// Indexes that the heads name and that are not in here yet; an empty table if it knows of some that are gone.
    pub(crate) fn missing(&mut self, state: &DomainState) -> Vec<Digest> {
        if !self.loaded.iter().all(|index| state.indexes.contains_key(index)) {
            *self = Self::default();
        }
        state.indexes.keys().filter(|index| !self.loaded.contains(index)).copied().collect()
    }

    /// Takes an index in.
    pub(crate) fn add(&mut self, digest: Digest, index: Index) {
        let first = self.sources.len() as u32;
        let source = |pack: &Digest| Source { pack: *pack, index: digest, is_live: false };
        self.sources.extend(index.packs.iter().map(source));
        let located = index.records.iter().map(|record| Located {
            id: record.id,
            source: first + record.pack,
            offset: record.offset,
            length: record.length,
        });
        self.runs.push(Arc::new(located.collect()));
        self.loaded.insert(digest);
        // Runs shrink geometrically, so there are few and each record is merged few times.
        while let [.., before, last] = &self.runs[..] {
            if before.len() > 2 * last.len() {
                break;
            }
            let merged = merge(before, last);
            self.runs.truncate(self.runs.len() - 2);
            self.runs.push(Arc::new(merged));
        }
    }

    /// Asks the heads which packs count.
    pub(crate) fn refresh(&mut self, state: &DomainState) {
        self.sources.iter_mut().for_each(|source| source.is_live = state.is_live(&source.pack));
    }

    /// Where a chunk is, if a pack that counts holds it.
    pub(crate) fn find(&self, id: &ChunkId) -> Option<Location> {
        self.runs.iter().find_map(|run| {
            let first = run.partition_point(|located| located.id < *id);
            let equal = run[first..].iter().take_while(|located| located.id == *id);
            equal.filter_map(|located| self.locate(located)).next()
        })
    }

    fn locate(&self, located: &Located) -> Option<Location> {
        let source = self.sources.get(located.source as usize).filter(|source| source.is_live)?;
        let (offset, length) = (located.offset, located.length);
        Some(Location { pack: source.pack, index: source.index, offset, length })
    }

    /// The packs that its indexes tell of, whether they count or not.
    pub(crate) fn packs(&self) -> impl Iterator<Item = Digest> {
        self.sources.iter().map(|source| source.pack)
    }

    /// How many different chunks are in packs that count.
    pub(crate) fn chunks(&self) -> u64 {
        let live = self.runs.iter().flat_map(|run| run.iter()).filter(|located| self.locate(located).is_some());
        let mut ids: Vec<_> = live.map(|located| located.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len() as u64
    }
}

fn merge(left: &[Located], right: &[Located]) -> Vec<Located> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        merged.extend(if one.id <= other.id { left.next() } else { right.next() });
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DomainId;
    use crate::format::directory::DirectoryChange;
    use crate::format::head::Head;
    use crate::format::index::{NO_BASE, Record};
    use crate::format::path;

    const DOMAIN: DomainId = DomainId([0; 16]);

    fn state(packs: &[u8]) -> DomainState {
        let mut state = DomainState::default();
        let added = packs.iter().map(|pack| Digest([*pack; 32]));
        let head = Head {
            sequence: 0,
            previous: None,
            epoch: 0,
            writer: crate::WriterId([0; 16]),
            written_ms: 0,
            incompatible: 0,
            compatible: 0,
            checkpoint: false,
            added: added.map(|pack| (path::pack(DOMAIN, pack), 1, pack)).collect(),
            condemned: Vec::new(),
            removed: Vec::new(),
            keyring: 1,
            committed: Vec::new(),
            backups_removed: Vec::new(),
            extra: Default::default(),
        };
        let change = DirectoryChange { records: Vec::new(), deleted: Vec::new(), extra: Default::default() };
        state.apply(DOMAIN, head, Digest([0; 32]), change);
        state
    }

    fn index(pack: u8, ids: std::ops::Range<u32>) -> Index {
        let record = |id: u32| Record {
            id: ChunkId([&id.to_be_bytes()[..], &[0; 28]].concat().try_into().unwrap()),
            pack: 0,
            offset: id,
            length: 1,
            depth: 0,
            base: NO_BASE,
        };
        Index { packs: vec![Digest([pack; 32])], records: ids.map(record).collect(), ..Index::default() }
    }

    #[test]
    fn chunks_are_found_in_packs_that_count() {
        let mut table = IndexTable::default();
        table.add(Digest([101; 32]), index(1, 0..100));
        table.add(Digest([102; 32]), index(2, 50..150));
        table.add(Digest([103; 32]), index(3, 1000..1001));
        table.refresh(&state(&[1, 2]));
        assert_eq!(table.chunks(), 150);
        for record in index(9, 0..150).records {
            let found = table.find(&record.id).unwrap();
            assert_eq!(found.offset, record.offset);
        }
        assert!(table.find(&index(9, 1000..1001).records[0].id).is_none());
        // The second pack is gone, the third has come.
        table.refresh(&state(&[1, 3]));
        assert_eq!(table.chunks(), 101);
        assert_eq!(table.find(&index(9, 60..61).records[0].id).unwrap().pack, Digest([1; 32]));
        assert!(table.find(&index(9, 120..121).records[0].id).is_none());
        assert_eq!(table.find(&index(9, 1000..1001).records[0].id).unwrap().index, Digest([103; 32]));
    }
}
