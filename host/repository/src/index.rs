//! Where the chunks of a domain are: all its indexes in memory, 48 bytes a chunk, in a few sorted runs.
//!
//! A record counts only if the heads say that its pack is present and not condemned, so an index copied to another target
//! may name packs which that target does not hold.

use std::collections::HashSet;
use std::sync::Arc;

use crate::Digest;
use crate::chunk::{ChunkId, DEPTH_MAX};
use crate::format::index::{Index, LENGTH_MAX, NO_BASE};
use crate::heads::DomainState;

/// Where a sealed chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: Digest,
    /// The index that says so.
    pub(crate) index: Digest,
    pub(crate) offset: u32,
    pub(crate) length: u32,
    /// The chunk that this one is a delta to.
    pub(crate) base: Option<ChunkId>,
    /// Deltas below this one.
    pub(crate) depth: u8,
}

#[derive(Clone, Copy, Debug)]
struct Located {
    id: ChunkId,
    source: u32,
    offset: u32,
    /// As in a stored record: the depth is in the upper byte.
    length_and_depth: u32,
    /// Number in the table of bases.
    base: u32,
}

impl Located {
    fn depth(&self) -> u8 {
        (self.length_and_depth >> 24) as u8
    }
}

/// A pack as one index tells of it.
#[derive(Clone, Copy, Debug)]
struct Source {
    pack: Digest,
    index: Digest,
    is_live: bool,
}

/// An immutable view; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexTable {
    sources: Vec<Source>,
    /// The bases that indexes name, one behind the other.
    bases: Arc<Vec<ChunkId>>,
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
        state.live_indexes().filter(|index| !self.loaded.contains(index)).copied().collect()
    }

    /// Takes an index in.
    pub(crate) fn add(&mut self, digest: Digest, index: Index) {
        let first = self.sources.len() as u32;
        let source = |pack: &Digest| Source { pack: *pack, index: digest, is_live: false };
        self.sources.extend(index.packs.iter().map(source));
        let first_base = self.bases.len() as u32;
        Arc::make_mut(&mut self.bases).extend(&index.bases);
        let located = index.records.iter().map(|record| Located {
            id: record.id,
            source: first + record.pack,
            offset: record.offset,
            length_and_depth: record.length | u32::from(record.depth) << 24,
            base: if record.base == NO_BASE { NO_BASE } else { first_base + record.base },
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

    /// Asks the heads which packs count. What a condemned index tells is told by another one, or not needed.
    pub(crate) fn refresh(&mut self, state: &DomainState) {
        let counts = |source: &Source| state.is_live(&source.pack) && !state.is_condemned(&source.index);
        self.sources.iter_mut().for_each(|source| source.is_live = counts(source));
    }

    /// Where a chunk is, if a pack that counts holds it: the copy of the least depth, which is read the fastest.
    pub(crate) fn find(&self, id: &ChunkId) -> Option<Location> {
        let copies = self.runs.iter().flat_map(|run| {
            let first = run.partition_point(|located| located.id < *id);
            run[first..].iter().take_while(|located| located.id == *id)
        });
        copies.filter(|located| self.is_live(located)).min_by_key(|located| located.depth()).map(|it| self.locate(it))
    }

    /// Where a chunk is and, behind it, each base that it takes to open it.
    ///
    /// Errors: the id of a chunk that is in no pack that counts, or of one that begins too long a chain.
    pub(crate) fn find_chain(&self, id: &ChunkId) -> Result<Vec<Location>, ChunkId> {
        let mut chain = Vec::with_capacity(1);
        let mut next = Some(*id);
        while let Some(id) = next {
            let location = self.find(&id).filter(|_| chain.len() <= DEPTH_MAX.into()).ok_or(id)?;
            next = location.base;
            chain.push(location);
        }
        Ok(chain)
    }

    fn is_live(&self, located: &Located) -> bool {
        self.sources[located.source as usize].is_live
    }

    fn locate(&self, located: &Located) -> Location {
        let Source { pack, index, .. } = self.sources[located.source as usize];
        Location {
            pack,
            index,
            offset: located.offset,
            length: located.length_and_depth & LENGTH_MAX,
            base: self.bases.get(located.base as usize).copied(),
            depth: located.depth(),
        }
    }

    /// The packs that its indexes tell of, whether they count or not.
    pub(crate) fn packs(&self) -> impl Iterator<Item = Digest> {
        self.sources.iter().map(|source| source.pack)
    }

    /// How many different chunks are in packs that count.
    pub(crate) fn chunks(&self) -> u64 {
        let live = self.runs.iter().flat_map(|run| run.iter()).filter(|located| self.is_live(located));
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
    fn the_shallowest_copy_is_found_and_a_chain_ends() {
        let id = |number: u8| ChunkId([number; 32]);
        let record = |chunk: u8, depth: u8, base: u32| Record {
            id: id(chunk),
            pack: 0,
            offset: chunk.into(),
            length: 9,
            depth,
            base,
        };
        let index = |pack: u8, bases: Vec<ChunkId>, records: Vec<Record>| Index {
            packs: vec![Digest([pack; 32])],
            bases,
            records,
            ..Index::default()
        };
        let mut table = IndexTable::default();
        table.add(Digest([101; 32]), index(1, vec![id(9)], vec![record(5, 0, NO_BASE), record(7, 1, 0)]));
        table.add(Digest([102; 32]), index(2, vec![id(7), id(8)], vec![record(4, 2, 0), record(5, 2, 0)]));
        table.add(Digest([103; 32]), index(3, vec![id(9), id(8)], vec![record(8, 1, 0), record(9, 1, 1)]));
        table.refresh(&state(&[1, 2, 3]));
        assert_eq!(table.find(&id(5)).unwrap().depth, 0);
        assert_eq!(table.find(&id(4)).unwrap().base, Some(id(7)));
        assert_eq!(table.find_chain(&id(8)), Err(id(9)), "8 and 9 are each the other's base");
        table.refresh(&state(&[2]));
        assert_eq!(table.find(&id(5)).unwrap().base, Some(id(7)), "the copy that is left is a delta");
        assert_eq!(table.find_chain(&id(5)), Err(id(7)));
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
