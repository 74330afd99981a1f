//! What the runs of the ledger hold: by whom a chunk is held, and how that changed; and what the newest run says of the ledger.
//!
//!     record = id: 32 | change: i32 | by a delta: u8 | delta: 32, only by a delta
//!     names  = sequence: u64 | looked: u64 | sources: u64 | again: u64 | below: u64 | (sources, again, below) × 32

use std::collections::BTreeSet;

use crate::Digest;
use crate::chunk::ChunkId;
use crate::format::{Malformed, split_pieces, split_u32, split_u64};
use crate::runs::{Names, Record};

/// How often a chunk came to be held by something, less how often it ceased to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: ChunkId,
    /// The delta that stands on it; none: a backup's refs name it.
    pub(crate) by: Option<ChunkId>,
    pub(crate) change: i32,
}

impl Record for Held {
    type Key = (ChunkId, Option<ChunkId>);
    type Names = Account;

    fn id(&self) -> &ChunkId {
        &self.id
    }

    fn key(&self) -> Self::Key {
        (self.id, self.by)
    }

    fn encode(&self, page: &mut Vec<u8>) {
        page.extend(self.id.0);
        page.extend(self.change.to_le_bytes());
        page.push(self.by.is_some().into());
        page.extend(self.by.iter().flat_map(|delta| delta.0));
    }

    fn encoded_length(&self) -> usize {
        37 + self.by.map_or(0, |delta| delta.0.len())
    }

    fn decode(bytes: &[u8], _: u32) -> Result<(Self, &[u8]), Malformed> {
        let (id, rest) = split_pieces::<32>(bytes, 1)?;
        let (change, rest) = split_u32(rest)?;
        let (is_by_delta, rest) = rest.split_first().ok_or(Malformed("the object ends too early"))?;
        let (by, rest) = split_pieces::<32>(rest, (*is_by_delta).into())?;
        let by = by.first().map(|delta| ChunkId(*delta));
        Ok((Self { id: ChunkId(id[0]), by, change: change.cast_signed() }, rest))
    }
}

/// What a run says that ends a state of the ledger. Others, which only stand below such a one, say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// The highest counts. 0: it ends no state.
    pub(super) sequence: u64,
    /// When everything was looked at last, in milliseconds since 1970.
    pub(super) looked_ms: u64,
    /// What is counted.
    pub(super) sources: BTreeSet<Digest>,
    /// Packs that the next prune must look at again.
    pub(super) again: BTreeSet<Digest>,
    /// The salts of the runs that count together with this one.
    pub(super) below: Vec<[u8; 32]>,
}

impl Names for Account {
    fn encode(&self) -> Vec<u8> {
        let Self { sequence, looked_ms, sources, again, below } = self;
        let mut out = Vec::with_capacity(40 + (sources.len() + again.len() + below.len()) * 32);
        for number in [*sequence, *looked_ms, sources.len() as u64, again.len() as u64, below.len() as u64] {
            out.extend(number.to_le_bytes());
        }
        sources.iter().chain(again).for_each(|digest| out.extend(digest.0));
        below.iter().for_each(|salt| out.extend(salt));
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (sequence, rest) = split_u64(bytes)?;
        let (looked_ms, rest) = split_u64(rest)?;
        let (sources, rest) = split_u64(rest)?;
        let (again, rest) = split_u64(rest)?;
        let (below, rest) = split_u64(rest)?;
        let (sources, rest) = split_pieces(rest, sources)?;
        let (again, rest) = split_pieces(rest, again)?;
        let (below, rest) = split_pieces(rest, below)?;
        if !rest.is_empty() {
            return Err(Malformed("bytes follow the end"));
        }
        let digests = |pieces: &[[u8; 32]]| pieces.iter().map(|piece| Digest(*piece)).collect();
        Ok(Self { sequence, looked_ms, sources: digests(sources), again: digests(again), below: below.to_vec() })
    }

    fn count(&self) -> u32 {
        0
    }
}
