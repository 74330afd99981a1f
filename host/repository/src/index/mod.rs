//! Where the chunks of a domain are: what all its indexes tell, sorted by id, on disk for the most part.
//!
//! Indexes that come are *young*: their records are in memory, a few MiB at most. Then they become a run ([`crate::runs`]) in a file of the
//! index cache, merged with those before it that are not much longer. So there are few runs, and memory holds about 12 bits a chunk of them:
//! a filter, by which a chunk that is new costs no look at the disk, and the fences, by which a known one costs one page.
//!
//! A record counts only if the heads say that its pack and the index that told of it are present and not condemned, so an index copied to
//! another target may name packs which that target does not hold. What cannot be read is an error, and never an unknown chunk.

mod located;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use located::{Located, Sources};

use crate::chunk::{ChunkId, DEPTH_MAX};
use crate::format::index::Index;
use crate::heads::DomainState;
use crate::runs::{Cache, Records, Run, kept_as_they_are, merged};
use crate::seal::Secret;
use crate::{Digest, Error};

/// Records that are young at most, but for those of one index: 2.5 MiB.
const YOUNG_RECORDS: usize = 32_768;
/// Indexes that are young at most: as many are read again after a restart.
const YOUNG_INDEXES: usize = 256;

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

/// The indexes of a domain that were read.
#[derive(Debug)]
pub(crate) struct Indexes {
    cache: Cache,
    table: IndexTable,
}

/// What they tell, and which of it counts: an immutable view, cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexTable {
    /// The longest first.
    runs: Vec<Layer<Run<Located>>>,
    /// In memory, sorted by id.
    young: Layer<Vec<Located>>,
}

/// Records of some indexes, and which of the packs that they name count.
#[derive(Debug, Default)]
struct Layer<R> {
    records: Arc<R>,
    sources: Arc<Sources>,
    live: Arc<Vec<bool>>,
}

impl Indexes {
    /// Those that lie in the cache in `directory`; none without one.
    pub(crate) fn open(directory: Option<&Path>, index_key: &Secret) -> Result<Self, Error> {
        let key = Secret(blake3::derive_key("holdfast v1 2026-11 index runs", &index_key.0));
        let cache = Cache::open(directory, key)?;
        let mut table = IndexTable::default();
        let mut loaded = HashSet::new();
        for (run, sources) in cache.runs::<Located>()? {
            // A kill leaves runs that were merged into a longer one.
            if sources.indexes.iter().all(|index| loaded.contains(index)) {
                run.discard();
                continue;
            }
            loaded.extend(sources.indexes.iter().copied());
            table.runs.push(Layer::of(run, sources));
        }
        Ok(Self { cache, table })
    }

    /// Indexes that the heads name and that are not in here. A run that turned out to be damaged is given up, and so is one most of whose
    /// indexes are gone: the others of it are missing then.
    pub(crate) fn missing(&mut self, state: &DomainState) -> Vec<Digest> {
        let is_gone = |index: &&Digest| !state.indexes.contains_key(*index);
        let is_idle = |sources: &Sources| sources.indexes.iter().filter(is_gone).count() * 2 > sources.indexes.len();
        self.table.runs.retain(|layer| {
            let is_kept = !layer.records.is_damaged() && !is_idle(&layer.sources);
            if !is_kept {
                layer.records.discard();
            }
            is_kept
        });
        if is_idle(&self.table.young.sources) {
            self.table.young = Layer::default();
        }
        let loaded: HashSet<&Digest> = self.table.sources().flat_map(|sources| &sources.indexes).collect();
        state.live_indexes().filter(|index| !loaded.contains(index)).copied().collect()
    }

    /// Takes an index in.
    pub(crate) fn add(&mut self, digest: Digest, index: Index) {
        let packs = index.packs.iter().map(|pack| (*pack, 0)).collect();
        let first = Arc::make_mut(&mut self.table.young.sources).append(&Sources { indexes: vec![digest], packs });
        let young = Arc::make_mut(&mut self.table.young.records);
        young.extend(index.records.iter().map(|record| Located {
            id: record.id,
            source: first + record.pack,
            offset: record.offset,
            length: record.length,
            depth: record.depth,
            base: index.bases.get(record.base as usize).copied(),
        }));
        // Two sorted parts, behind each other: this sort only merges them.
        young.sort_by_key(|record| record.id);
    }

    /// Whether so much is young that it should become a run: [`Self::settle`].
    pub(crate) fn is_unsettled(&self) -> bool {
        let Layer { records, sources, .. } = &self.table.young;
        records.len() > YOUNG_RECORDS || sources.indexes.len() > YOUNG_INDEXES
    }

    /// Makes a run of what is young, and of the runs that are not much longer: each record is written few times. Takes a while.
    pub(crate) fn settle(&mut self) -> Result<(), Error> {
        let runs = &self.table.runs;
        let lengths: Vec<u64> = runs.iter().map(|layer| layer.records.count).collect();
        let (first, records) = kept_as_they_are(&lengths, self.table.young.records.len());
        let merged = IndexTable { runs: runs[first..].to_vec(), young: self.table.young.clone() };
        let mut sources = Sources::default();
        let offsets: Vec<u32> = merged.sources().map(|others| sources.append(others)).collect();
        let all = merged.records().map(|next| {
            let (layer, record) = next?;
            Ok(Located { source: record.source + offsets[layer], ..record })
        });
        let run = self.cache.write(&sources, records, all)?;
        // From here on the new run is enough.
        self.table.runs.truncate(first);
        self.table.runs.push(Layer::of(run, sources));
        self.table.young = Layer::default();
        merged.runs.iter().for_each(|layer| layer.records.discard());
        Ok(())
    }

    /// All that the heads say counts. What an index told that is condemned or gone is told by another one, or not needed.
    pub(crate) fn table(&mut self, state: &DomainState) -> IndexTable {
        let live = |sources: &Sources| -> Arc<Vec<bool>> {
            let counts: Vec<bool> = sources.indexes.iter().map(|index| state.is_index_live(index)).collect();
            let is_live = |(pack, index): &(Digest, u32)| counts[*index as usize] && state.is_live(pack);
            Arc::new(sources.packs.iter().map(is_live).collect())
        };
        for layer in &mut self.table.runs {
            layer.live = live(&layer.sources);
        }
        self.table.young.live = live(&self.table.young.sources);
        self.table.clone()
    }
}

impl IndexTable {
    /// Where a chunk is, if a pack that counts holds it: of the copies that can be opened the one of the least depth, which is read the fastest.
    ///
    /// A delta may outlive its base, in a pack most of which lives: nothing needed it any more. Stored again, the chunk has another copy,
    /// which that one must not hide.
    ///
    /// Errors: the cache cannot be read.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Option<Location>, Error> {
        let copies = self.copies(id)?;
        if copies.len() > 1 {
            for copy in &copies {
                if self.is_whole(copy, DEPTH_MAX)? {
                    return Ok(Some(*copy));
                }
            }
        }
        Ok(copies.first().copied())
    }

    /// Whether a copy and all that it takes to open it are here: at most so many bases.
    fn is_whole(&self, copy: &Location, bases: u8) -> Result<bool, Error> {
        let Some(base) = copy.base else { return Ok(true) };
        if bases > 0 {
            for copy in self.copies(&base)? {
                if self.is_whole(&copy, bases - 1)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// All copies of a chunk in packs that count, those of the least depth first.
    ///
    /// Errors: the cache cannot be read.
    pub(crate) fn copies(&self, id: &ChunkId) -> Result<Vec<Location>, Error> {
        let mut copies = Vec::new();
        self.each(id, |_, counted| copies.extend(counted))?;
        copies.sort_by_key(|copy| copy.depth);
        Ok(copies)
    }

    /// What a chunk stands on as any index told, whether it counts or not.
    ///
    /// Errors: the cache cannot be read.
    pub(crate) fn bases(&self, id: &ChunkId) -> Result<Vec<ChunkId>, Error> {
        let mut bases = Vec::new();
        self.each(id, |record, _| bases.extend(record.base))?;
        Ok(bases)
    }

    /// Calls `found` with each record of a chunk, and what it says if it counts.
    fn each(&self, id: &ChunkId, mut found: impl FnMut(&Located, Option<Location>)) -> Result<(), Error> {
        for layer in &self.runs {
            layer.records.find(id, &mut |record| found(record, layer.counted(record)))?;
        }
        let young = &self.young.records;
        let first = young.partition_point(|record| record.id < *id);
        let named = young[first..].iter().take_while(|record| record.id == *id);
        named.for_each(|record| found(record, self.young.counted(record)));
        Ok(())
    }

    /// The indexes that tell of any of these packs, each with those of them that it tells of, where both count.
    pub(crate) fn telling_of(&self, packs: &BTreeSet<Digest>) -> BTreeMap<Digest, BTreeSet<Digest>> {
        let mut telling: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
        let runs = self.runs.iter().map(|layer| (&layer.sources, &layer.live));
        for (sources, live) in runs.chain([(&self.young.sources, &self.young.live)]) {
            for ((pack, index), _) in sources.packs.iter().zip(&**live).filter(|(_, is_live)| **is_live) {
                if packs.contains(pack) {
                    telling.entry(sources.indexes[*index as usize]).or_default().insert(*pack);
                }
            }
        }
        telling
    }

    /// Where a chunk is and, behind it, each base that it takes to open it.
    ///
    /// Errors: a chunk that is in no pack that counts ([`Error::ChunkLost`]), or one that begins too long a chain; the cache cannot be read.
    pub(crate) fn find_chain(&self, id: &ChunkId) -> Result<Vec<Location>, Error> {
        let mut chain = Vec::new();
        let mut next = Some(*id);
        while let Some(id) = next {
            let location = self.find(&id)?.filter(|_| chain.len() <= DEPTH_MAX.into());
            let location = location.ok_or_else(|| Error::ChunkLost { id: hex::encode(id.0) })?;
            next = location.base;
            chain.push(location);
        }
        Ok(chain)
    }

    /// The same, for who asks whether the chunk can be read here: `None` if it cannot.
    pub(crate) fn known_chain(&self, id: &ChunkId) -> Result<Option<Vec<Location>>, Error> {
        match self.find_chain(id) {
            Err(Error::ChunkLost { .. }) => Ok(None),
            found => found.map(Some),
        }
    }

    /// How many different chunks are in packs that count. Reads everything.
    pub(crate) fn chunks(&self) -> Result<u64, Error> {
        let live: Vec<&[bool]> = self.runs.iter().map(|layer| &layer.live[..]).chain([&self.young.live[..]]).collect();
        let (mut chunks, mut last) = (0, None);
        for next in self.records() {
            let (layer, record) = next?;
            if live[layer][record.source as usize] && last.replace(record.id) != Some(record.id) {
                chunks += 1;
            }
        }
        Ok(chunks)
    }

    /// What each layer's records name by number, the young ones last.
    fn sources(&self) -> impl Iterator<Item = &Sources> {
        self.runs.iter().map(|layer| &*layer.sources).chain([&*self.young.sources])
    }

    /// All records in the order of their ids, each with the number of its layer.
    fn records(&self) -> impl Iterator<Item = Result<(usize, Located), Error>> {
        let runs = self.runs.iter().map(|layer| Box::new(layer.records.records()) as Records<'_, Located>);
        let young = Box::new(self.young.records.iter().map(|record| Ok(*record))) as Records<'_, Located>;
        merged(runs.chain([young]))
    }
}

impl<R> Layer<R> {
    /// Nothing of it counts before the heads were asked.
    fn of(records: R, sources: Sources) -> Self {
        Self { records: Arc::new(records), sources: Arc::new(sources), live: Arc::default() }
    }

    /// What a record says, if it counts.
    fn counted(&self, record: &Located) -> Option<Location> {
        let source = record.source as usize;
        self.live[source].then(|| {
            let (pack, index) = self.sources.packs[source];
            Location {
                pack,
                index: self.sources.indexes[index as usize],
                offset: record.offset,
                length: record.length,
                base: record.base,
                depth: record.depth,
            }
        })
    }
}

impl<R> Clone for Layer<R> {
    fn clone(&self) -> Self {
        Self { records: Arc::clone(&self.records), sources: Arc::clone(&self.sources), live: Arc::clone(&self.live) }
    }
}
