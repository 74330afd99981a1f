//! A stream of plaintext for one taker: chunks are located and fetched ahead, opened on the worker pool, and handed out in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::chunks::Chunks;
use super::plan::{Fetches, Plan, Planned};
use crate::Error;
use crate::tree::{Node, Tree};

/// Plain bytes that are on their way at most, but for one chunk.
const AHEAD: u64 = 8 << 20;

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
    coming: VecDeque<(Node, oneshot::Receiver<Result<Bytes, Error>>)>,
}

/// Where a chunk that is coming, or the reason why it is not, is put.
type Answer = oneshot::Sender<Result<Bytes, Error>>;

impl std::fmt::Debug for ContentReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ContentReader").field("range", &self.range).finish_non_exhaustive()
    }
}

impl ContentReader {
    pub(super) fn inline(chunks: Arc<Chunks>, bytes: Bytes, range: Range<u64>) -> Self {
        Self { chunks, source: Source::Inline(bytes), range }
    }

    pub(super) fn tree(chunks: Arc<Chunks>, tree: Tree, range: Range<u64>) -> Self {
        let ahead = ReadAhead { tree, scheduled: range.start, coming: VecDeque::new() };
        Self { chunks, source: Source::Tree(Box::new(ahead)), range }
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
        let bytes = match coming.await.map_err(|_| Error::WorkerStopped)? {
            Err(reason) => chunks.look_elsewhere_for_leaf(&node, reason).await?,
            bytes => bytes?,
        };
        Ok((bytes, node.start))
    }

    async fn schedule(&mut self, chunks: &Arc<Chunks>, range: &Range<u64>) -> Result<(), Error> {
        let end = range.end.min(range.start.saturating_add(AHEAD));
        let (planned, fetches) = Plan::of(chunks, &self.tree, self.scheduled..end).await?.start(chunks);
        let mut waiting = Vec::with_capacity(planned.len());
        for planned in planned {
            let (sender, receiver) = oneshot::channel();
            self.scheduled = planned.node.end;
            self.coming.push_back((planned.node, receiver));
            waiting.push((planned, sender));
        }
        chunks.place().runtime().spawn(open(Arc::clone(chunks), fetches, waiting));
        Ok(())
    }
}

/// Has chunks opened in order, each when its bytes are here.
async fn open(chunks: Arc<Chunks>, mut fetches: Fetches, waiting: Vec<(Planned, Answer)>) {
    for (planned, sender) in waiting {
        let chain = match fetches.chain(&planned).await {
            Ok(chain) => chain,
            Err(error) => {
                // Its taker ends with it, or goes on with what is found elsewhere.
                drop(sender.send(Err(error)));
                continue;
            }
        };
        let opener = Arc::clone(&chunks);
        chunks.pool().submit(move |codec| {
            // Whoever went away does not want it any more.
            if !sender.is_closed() {
                let opened = opener.open_leaf(&mut codec.opener, &planned.node, &chain);
                drop(sender.send(opened.map(|()| Bytes::copy_from_slice(codec.opener.plaintext()))));
            }
        });
    }
}
