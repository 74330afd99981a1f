//! What a range of an entry needs: its chunks in order, and the ranges of packs that hold them and their bases. Neighbours in a pack
//! are fetched together, and what several chunks need is fetched once.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

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
#[derive(Default)]
pub(super) struct Plan {
    chunks: Vec<Planned>,
    runs: Vec<Run>,
}

/// A chunk, and which runs hold it and its bases.
pub(super) struct Planned {
    pub(super) node: Node,
    chain: Vec<(usize, Location)>,
}

/// A range of a pack.
#[derive(Clone, Copy)]
struct Run {
    first: Location,
    end: u32,
}

impl Plan {
    /// Locates the chunks that hold `range`, which is within the tree.
    pub(super) async fn of(chunks: &Arc<Chunks>, tree: &Tree, range: Range<u64>) -> Result<Self, Error> {
        let mut plan = Self::default();
        let mut at = range.start;
        while at < range.end {
            let node = chunks.leaf(tree, at).await?;
            at = node.end;
            plan.add(chunks, node)?;
        }
        Ok(plan)
    }

    /// Locates one more chunk, and its bases.
    pub(super) fn add(&mut self, chunks: &Chunks, node: Node) -> Result<(), Error> {
        if node.end - node.start > PLAIN_MAX as u64 {
            let id = hex::encode(node.hash.id().0);
            return Err(Error::damaged(id)(Malformed("its list says that it is longer than a chunk may be")));
        }
        let chain = match chunks.locate(&node.hash) {
            // Without a chain it does not open, and is looked for elsewhere when its turn comes.
            Err(Error::ChunkLost { .. }) if chunks.looks_elsewhere() => Vec::new(),
            located => located?,
        };
        let chain = chain.into_iter().map(|location| (self.run_of(location), location)).collect();
        self.chunks.push(Planned { node, chain });
        Ok(())
    }

    /// The run that holds this place, or that grows to hold it; a new one if there is none.
    fn run_of(&mut self, location: Location) -> usize {
        self.runs.iter_mut().rposition(|run| run.takes(&location)).unwrap_or_else(|| {
            self.runs.push(Run { first: location, end: location.offset.saturating_add(location.length) });
            self.runs.len() - 1
        })
    }

    /// Sends for all runs; the chunks are for the caller to ask for.
    pub(super) fn start(self, chunks: &Arc<Chunks>) -> (Vec<Planned>, Fetches) {
        let fetch = |run: Run| {
            let chunks = Arc::clone(chunks);
            let coming = chunks.place().runtime().clone().spawn(async move { run.fetch(&chunks).await });
            (run, Fetch::Coming(coming))
        };
        (self.chunks, Fetches(self.runs.into_iter().map(fetch).collect()))
    }
}

/// Runs that are on their way, or here.
pub(super) struct Fetches(Vec<(Run, Fetch)>);

enum Fetch {
    Coming(JoinHandle<Result<Bytes, Error>>),
    Here(Bytes),
}

impl Fetches {
    /// The sealed bytes of a chunk and of its bases, once they are here.
    pub(super) async fn chain(&mut self, planned: &Planned) -> Result<Vec<Bytes>, Error> {
        let mut chain = Vec::with_capacity(planned.chain.len());
        for (number, location) in &planned.chain {
            let (run, fetch) = &mut self.0[*number];
            chain.push(run.cut(location, fetch.bytes().await?));
        }
        Ok(chain)
    }
}

impl Fetch {
    async fn bytes(&mut self) -> Result<&Bytes, Error> {
        if let Self::Coming(coming) = self {
            let fetched = coming.await.unwrap_or(Err(Error::RuntimeStopped));
            // After a failure there are no bytes: who asks again has nothing that opens.
            let (bytes, failure) = fetched.map_or_else(|error| (Bytes::new(), Err(error)), |bytes| (bytes, Ok(())));
            *self = Self::Here(bytes);
            failure?;
        }
        match self {
            Self::Here(bytes) => Ok(bytes),
            Self::Coming(_) => Err(Error::RuntimeStopped),
        }
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
    async fn fetch(&self, chunks: &Chunks) -> Result<Bytes, Error> {
        chunks.sealed(&self.first, self.first.offset.into()..self.end.into()).await
    }

    /// A chunk's sealed bytes in those of the run. A pack that is shorter than its index says gives a chunk that does not open.
    fn cut(&self, location: &Location, fetched: &Bytes) -> Bytes {
        let from = (location.offset - self.first.offset) as usize;
        fetched.slice(from.min(fetched.len())..fetched.len().min(from + location.length as usize))
    }
}

impl Planned {
    /// The depth of each chunk of its chain.
    pub(super) fn depths(&self) -> impl Iterator<Item = u8> {
        self.chain.iter().map(|(_, location)| location.depth)
    }
}
