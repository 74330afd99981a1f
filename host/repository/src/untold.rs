//! Packs that are durable, until there are enough of them for an index. A pack is told of by one index only, so that a backup knows which
//! indexes it needs.

use crate::Digest;
use crate::chunk::ChunkId;
use crate::format::index::{Index, NO_BASE, Record};

/// Records in one index: 1.5 MiB.
const INDEX_RECORDS: usize = 32_768;

/// A pack that is durable.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) digest: Digest,
    /// In the order of the chunks.
    pub(crate) records: Vec<Record>,
    pub(crate) bases: Vec<ChunkId>,
}

/// Packs that no index tells of yet.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    packs: Vec<Packed>,
    records: usize,
}

impl Untold {
    /// Takes a pack in; gives an index of those before it if it would not fit in there.
    pub(crate) fn add(&mut self, pack: Packed) -> Option<Index> {
        let full = if self.records + pack.records.len() > INDEX_RECORDS { self.take() } else { None };
        self.records += pack.records.len();
        self.packs.push(pack);
        full
    }

    /// One index of all that are left, if there are any.
    pub(crate) fn take(&mut self) -> Option<Index> {
        self.records = 0;
        let packs = std::mem::take(&mut self.packs);
        (!packs.is_empty()).then(|| index_of(packs))
    }
}

fn index_of(packs: Vec<Packed>) -> Index {
    let mut index = Index::default();
    for (pack, number) in packs.into_iter().zip(0..) {
        let first_base = index.bases.len() as u32;
        let base = |base| if base == NO_BASE { NO_BASE } else { first_base + base };
        index.records.extend(pack.records.iter().map(|it| Record { pack: number, base: base(it.base), ..*it }));
        index.bases.extend(pack.bases);
        index.packs.push(pack.digest);
    }
    index.records.sort_unstable_by_key(|record| record.id);
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pack of so many chunks, the last of which is a delta.
    fn packed(number: u32, chunks: u32) -> Packed {
        let id = |chunk: u32| ChunkId(*blake3::hash(&(number << 20 | chunk).to_le_bytes()).as_bytes());
        let record = |chunk: u32| {
            let (depth, base) = if chunk + 1 == chunks { (1, 0) } else { (0, NO_BASE) };
            Record { id: id(chunk), pack: 0, offset: chunk, length: 9, depth, base }
        };
        let digest = Digest::of(&number.to_le_bytes());
        Packed { digest, records: (0..chunks).map(record).collect(), bases: vec![id(0)] }
    }

    #[test]
    fn every_pack_is_told_of_by_one_index() {
        let mut untold = Untold::default();
        let mut indexes: Vec<Index> = (0..10).filter_map(|number| untold.add(packed(number, 10_000))).collect();
        indexes.extend(untold.take());
        assert_eq!(untold.take(), None);
        let packs: Vec<Digest> = indexes.iter().flat_map(|index| index.packs.clone()).collect();
        assert_eq!(packs, (0..10_u32).map(|number| Digest::of(&number.to_le_bytes())).collect::<Vec<_>>());
        for index in indexes {
            assert_eq!(
                (index.records.len(), index.packs.len() * 10_000),
                (index.packs.len() * 10_000, index.records.len())
            );
            assert!(index.records.len() <= INDEX_RECORDS && index.records.is_sorted_by_key(|record| record.id));
            for record in index.records.iter().filter(|record| record.base != NO_BASE) {
                assert_eq!(record.base, record.pack, "each pack has one base");
            }
        }
    }

    #[test]
    fn a_pack_that_is_too_full_for_an_index_has_one_of_its_own() {
        let mut untold = Untold::default();
        assert!(untold.add(packed(1, 10)).is_none());
        assert_eq!(untold.add(packed(2, INDEX_RECORDS as u32 + 1)).unwrap().records.len(), 10);
        assert_eq!(untold.add(packed(3, 1)).unwrap().records.len(), INDEX_RECORDS + 1);
        assert_eq!(untold.take().unwrap().records.len(), 1);
    }
}
