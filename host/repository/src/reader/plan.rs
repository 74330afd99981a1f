//! What a range of an entry needs: its chunks in order, and the ranges of packs that hold them. Neighbours in a pack are fetched
//! together, and what several chunks need is fetched once.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::chunks::Chunks;
use crate::chunk::PLAIN_MAX;
use crate::index::Location;
use crate::tree::{Node, Tree};
use crate::{Error, Malformed};

/// Sealed bytes that are fetched at once, but for one chunk.
const RUN: u32 = 1 << 20;
/// Bytes between two chunks of a pack that are fetched rather than skipped.
const GAP: u32 = 32 << 10;

/// The chunks of a range, and the runs that hold them.
pub(super) struct Plan {
    pub(super) chunks: Vec<Planned>,
    pub(super) runs: Vec<Run>,
}

/// A chunk, and which run holds it.
pub(super) struct Planned {
    pub(super) node: Node,
    pub(super) run: usize,
    location: Location,
}

/// A range of a pack.
#[derive(Clone, Copy)]
pub(super) struct Run {
    first: Location,
    end: u32,
}

impl Plan {
    /// Locates the chunks that hold `range`, which is within the tree.
    pub(super) async fn of(chunks: &Arc<Chunks>, tree: &Tree, range: Range<u64>) -> Result<Self, Error> {
        let mut plan = Self { chunks: Vec::new(), runs: Vec::new() };
        let mut at = range.start;
        while at < range.end {
            let node = chunks.leaf(tree, at).await?;
            if node.end - node.start > PLAIN_MAX as u64 {
                let id = hex::encode(node.hash.id().0);
                return Err(Error::damaged(id)(Malformed("its list says that it is longer than a chunk may be")));
            }
            let location = chunks.locate(&node.hash)?;
            at = node.end;
            let run = plan.run_of(location);
            plan.chunks.push(Planned { node, run, location });
        }
        Ok(plan)
    }

    /// The run that holds this place, or that grows to hold it; a new one if there is none.
    fn run_of(&mut self, location: Location) -> usize {
        self.runs.iter_mut().rposition(|run| run.takes(&location)).unwrap_or_else(|| {
            self.runs.push(Run { first: location, end: location.offset.saturating_add(location.length) });
            self.runs.len() - 1
        })
    }
}

impl Run {
    fn takes(&mut self, location: &Location) -> bool {
        let (start, end) = (self.first.offset, location.offset.saturating_add(location.length));
        let follows = location.offset <= self.end.saturating_add(GAP) && end.saturating_sub(start) <= RUN;
        let takes = self.first.pack == location.pack && location.offset >= start && (end <= self.end || follows);
        if takes {
            self.end = self.end.max(end);
        }
        takes
    }

    /// Reads it.
    pub(super) async fn fetch(&self, chunks: &Chunks) -> Result<Bytes, Error> {
        chunks.sealed(&self.first, self.first.offset.into()..self.end.into()).await
    }
}

impl Planned {
    /// Its plain bytes.
    pub(super) fn length(&self) -> usize {
        (self.node.end - self.node.start) as usize
    }

    /// Its sealed bytes in those of its run. A pack that is shorter than its index says gives a chunk that does not open.
    pub(super) fn sealed(&self, run: &Run, fetched: &Bytes) -> Bytes {
        let from = (self.location.offset - run.first.offset) as usize;
        fetched.slice(from.min(fetched.len())..fetched.len().min(from + self.location.length as usize))
    }
}
