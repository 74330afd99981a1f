//! What the runs of the index hold: where a chunk is, as one index says, and which packs and indexes their records name by number.
//!
//!     record  = id: 32 | pack: u32 | offset: u32 | length and depth: u32 | base: 32, only at a depth above 0
//!     sources = indexes: u64 | packs: u64 | indexes × 32 | packs × (digest: 32 | index: u32)

use crate::Digest;
use crate::chunk::{ChunkId, DEPTH_MAX};
use crate::format::index::LENGTH_MAX;
use crate::format::{Malformed, split_pieces, split_u32, split_u64};
use crate::runs::{Names, Record};

/// Where one index says that a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) id: ChunkId,
    /// Number in [`Sources::packs`].
    pub(super) source: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) depth: u8,
    /// What it is a delta to.
    pub(super) base: Option<ChunkId>,
}

impl Record for Located {
    type Key = ChunkId;
    type Names = Sources;

    fn id(&self) -> &ChunkId {
        &self.id
    }

    fn key(&self) -> ChunkId {
        self.id
    }

    fn encode(&self, page: &mut Vec<u8>) {
        page.extend(self.id.0);
        for number in [self.source, self.offset, self.length | u32::from(self.depth) << 24] {
            page.extend(number.to_le_bytes());
        }
        page.extend(self.base.iter().flat_map(|base| base.0));
    }

    fn encoded_length(&self) -> usize {
        44 + self.base.map_or(0, |base| base.0.len())
    }

    fn decode(bytes: &[u8], named: u32) -> Result<(Self, &[u8]), Malformed> {
        let (id, rest) = split_pieces::<32>(bytes, 1)?;
        let (source, rest) = split_u32(rest)?;
        let (offset, rest) = split_u32(rest)?;
        let (length, rest) = split_u32(rest)?;
        let depth = (length >> 24) as u8;
        let (base, rest) = split_pieces::<32>(rest, u64::from(depth > 0))?;
        if depth > DEPTH_MAX {
            return Err(Malformed("a record is deeper than any"));
        }
        if source >= named {
            return Err(Malformed("a record names what is not there"));
        }
        let base = base.first().map(|base| ChunkId(*base));
        Ok((Self { id: ChunkId(id[0]), source, offset, length: length & LENGTH_MAX, depth, base }, rest))
    }
}

/// The packs that records name by number, and the indexes that told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    pub(super) indexes: Vec<Digest>,
    /// Each with the number of its index.
    pub(super) packs: Vec<(Digest, u32)>,
}

impl Sources {
    /// Adds others: what is to be added to the numbers of their packs.
    pub(super) fn append(&mut self, others: &Self) -> u32 {
        let (packs, indexes) = (self.packs.len() as u32, self.indexes.len() as u32);
        self.indexes.extend(&others.indexes);
        self.packs.extend(others.packs.iter().map(|(pack, index)| (*pack, indexes + index)));
        packs
    }
}

impl Names for Sources {
    fn encode(&self) -> Vec<u8> {
        let Self { indexes, packs } = self;
        let mut out = Vec::with_capacity(16 + indexes.len() * 32 + packs.len() * 36);
        for count in [indexes.len(), packs.len()] {
            out.extend((count as u64).to_le_bytes());
        }
        indexes.iter().for_each(|index| out.extend(index.0));
        for (pack, index) in packs {
            out.extend(pack.0);
            out.extend(index.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (indexes, rest) = split_u64(bytes)?;
        let (packs, rest) = split_u64(rest)?;
        let (indexes, rest) = split_pieces::<32>(rest, indexes)?;
        let (packs, rest) = split_pieces::<36>(rest, packs)?;
        if !rest.is_empty() {
            return Err(Malformed("bytes follow the end"));
        }
        let source = |bytes: &[u8; 36]| {
            let (pack, rest) = split_pieces::<32>(bytes, 1)?;
            let (index, _) = split_u32(rest)?;
            let is_there = (index as usize) < indexes.len();
            is_there.then_some((Digest(pack[0]), index)).ok_or(Malformed("a pack names what is not there"))
        };
        let packs = packs.iter().map(source).collect::<Result<_, _>>()?;
        Ok(Self { indexes: indexes.iter().map(|index| Digest(*index)).collect(), packs })
    }

    fn count(&self) -> u32 {
        self.packs.len() as u32
    }
}
