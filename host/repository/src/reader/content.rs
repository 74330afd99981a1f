//! A stream of plaintext: chunks are located ahead, fetched in coalesced ranges of their packs, opened on the pool, and
//! handed out in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::chunks::Chunks;
use crate::chunk::{ChunkHash, ChunkKind};
use crate::index::Location;
use crate::tree::{Node, Tree};
use crate::{Error, Malformed};

/// Plain bytes that are on their way at most, but for one chunk.
const AHEAD: u64 = 8 << 20;
/// Sealed bytes that are fetched at once, but for one chunk.
const RUN: u32 = 4 << 20;
/// Bytes between two chunks of a pack that are fetched rather than skipped.
const GAP: u32 = 32 << 10;

/// A stream of plaintext, read ahead and checked chunk by chunk.
pub struct ContentReader {
    chunks: Arc<Chunks>,
    source: Source,
    /// What was asked for and not handed out yet.
    range: Range<u64>,
}

enum Source {
    Inline(Bytes),
    Tree(Box<ReadAhead>),
}

struct ReadAhead {
    tree: Tree,
    /// Up to here, chunks are on their way.
    scheduled: u64,
    coming: VecDeque<(Node, Coming)>,
    last: Option<(ChunkHash, Bytes)>,
}

enum Coming {
    Chunk(oneshot::Receiver<Result<Bytes, Error>>),
    /// The same chunk as the one before.
    Repeat,
}

/// Where a chunk that is coming, or the reason why it is not, is put.
type Answer = oneshot::Sender<Result<Bytes, Error>>;

/// Chunks that one range of a pack holds.
struct Run {
    first: Location,
    end: u32,
    chunks: Vec<(Location, ChunkHash, Answer)>,
}

impl std::fmt::Debug for ContentReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ContentReader").field("range", &self.range).finish_non_exhaustive()
    }
}

impl ContentReader {
    pub(super) fn inline(chunks: &Arc<Chunks>, bytes: Vec<u8>, range: Range<u64>) -> Self {
        Self { chunks: Arc::clone(chunks), source: Source::Inline(bytes.into()), range }
    }

    pub(super) fn tree(chunks: &Arc<Chunks>, tree: Tree, range: Range<u64>) -> Self {
        let ahead = ReadAhead { tree, scheduled: range.start, coming: VecDeque::new(), last: None };
        Self { chunks: Arc::clone(chunks), source: Source::Tree(Box::new(ahead)), range }
    }

    /// The next piece, at most a chunk; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let (bytes, start) = match &mut self.source {
            Source::Inline(bytes) => (bytes.clone(), 0),
            Source::Tree(ahead) => ahead.next(&self.chunks, &self.range).await?,
        };
        let from = (self.range.start - start) as usize;
        let to = (self.range.end - start).min(bytes.len() as u64) as usize;
        let piece = bytes.slice(from..to);
        self.range.start += piece.len() as u64;
        Ok(Some(piece))
    }
}

impl ReadAhead {
    /// The chunk that holds the first byte of `range`, and where it begins.
    async fn next(&mut self, chunks: &Arc<Chunks>, range: &Range<u64>) -> Result<(Bytes, u64), Error> {
        // Half a window is scheduled at once, so that neighbours in a pack are fetched together.
        if self.scheduled < range.end && self.scheduled - range.start.min(self.scheduled) < AHEAD / 2 {
            self.schedule(chunks, range).await?;
        }
        let Some((node, coming)) = self.coming.pop_front() else { return Err(Error::WorkerStopped) };
        let bytes = match (coming, &self.last) {
            (Coming::Chunk(receiver), _) => receiver.await.map_err(|_| Error::WorkerStopped)??,
            (Coming::Repeat, Some((hash, bytes))) if *hash == node.hash => bytes.clone(),
            (Coming::Repeat, _) => return Err(Error::WorkerStopped),
        };
        if bytes.len() as u64 != node.end - node.start {
            let id = hex::encode(node.hash.id().0);
            return Err(Error::damaged(id)(Malformed("a chunk is not as long as its list says")));
        }
        self.last = Some((node.hash, bytes.clone()));
        Ok((bytes, node.start))
    }

    async fn schedule(&mut self, chunks: &Arc<Chunks>, range: &Range<u64>) -> Result<(), Error> {
        let mut runs: Vec<Run> = Vec::new();
        let mut before = self.coming.back().map(|(node, _)| node.hash).or(self.last.as_ref().map(|(hash, _)| *hash));
        while self.scheduled < range.end && self.scheduled < range.start.saturating_add(AHEAD) {
            let node = chunks.leaf(&self.tree, self.scheduled).await?;
            self.scheduled = node.end;
            let coming = if before == Some(node.hash) {
                Coming::Repeat
            } else {
                let (sender, receiver) = oneshot::channel();
                add_to_runs(&mut runs, chunks.locate(&node.hash)?, node.hash, sender);
                Coming::Chunk(receiver)
            };
            before = Some(node.hash);
            self.coming.push_back((node, coming));
        }
        for run in runs {
            chunks.place().runtime().spawn(run.fetch(Arc::clone(chunks)));
        }
        Ok(())
    }
}

fn add_to_runs(runs: &mut Vec<Run>, location: Location, hash: ChunkHash, sender: Answer) {
    let end = location.offset.saturating_add(location.length);
    let follows = |run: &&mut Run| {
        run.first.pack == location.pack
            && location.offset >= run.end
            && location.offset - run.end <= GAP
            && end - run.first.offset <= RUN
    };
    match runs.last_mut().filter(follows) {
        Some(run) => {
            run.end = end;
            run.chunks.push((location, hash, sender));
        }
        None => runs.push(Run { first: location, end, chunks: vec![(location, hash, sender)] }),
    }
}

impl Run {
    /// Fetches the range and has every chunk in it opened.
    async fn fetch(self, chunks: Arc<Chunks>) {
        let start = self.first.offset;
        let fetched = chunks.sealed(&self.first, start.into()..self.end.into()).await;
        let bytes = match fetched {
            Ok(bytes) => bytes,
            Err(error) => {
                // The first chunk tells the reader, who takes them in order.
                if let Some((_, _, sender)) = self.chunks.into_iter().next() {
                    drop(sender.send(Err(error)));
                }
                return;
            }
        };
        for (location, hash, sender) in self.chunks {
            let from = (location.offset - start) as usize;
            // A pack that is shorter than its index says gives a chunk that does not open.
            let sealed = bytes.slice(from.min(bytes.len())..bytes.len().min(from + location.length as usize));
            let opener = Arc::clone(&chunks);
            chunks.pool().submit(move |codec| {
                drop(sender.send(opener.open(codec, ChunkKind::Data, &hash, &sealed)));
            });
        }
    }
}
