//! A range of an entry for a taker who opens it: all of it is fetched ahead, and opened on the taker's thread into one buffer, so that
//! the bytes are still in the core's cache when they are written.
//!
//! Memory: the range's sealed bytes, and the [`Opener`]'s buffers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::chunks::Chunks;
use super::plan::{Fetches, Plan, Planned};
use crate::Error;
use crate::opener::ChunkOpener;
use crate::tree::Tree;

/// A thread's contexts and buffers for opening parts, one after the other.
pub struct Opener(ChunkOpener);

impl Opener {
    /// Makes the contexts. Errors: the decompressor has no memory.
    pub fn new() -> Result<Self, Error> {
        ChunkOpener::new().map(Self).map_err(|_| Error::WorkerStopped)
    }
}

/// A range of an entry that is on its way.
pub struct PartReader {
    chunks: Arc<Chunks>,
    source: Source,
    /// What was not handed out yet.
    range: Range<u64>,
}

enum Source {
    Inline(Bytes),
    Chunks { coming: VecDeque<Planned>, fetches: Fetches },
}

impl std::fmt::Debug for PartReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PartReader").field("range", &self.range).finish_non_exhaustive()
    }
}

impl PartReader {
    pub(super) fn inline(chunks: Arc<Chunks>, bytes: Bytes, range: Range<u64>) -> Self {
        Self { chunks, source: Source::Inline(bytes), range }
    }

    pub(super) async fn tree(chunks: Arc<Chunks>, tree: &Tree, range: Range<u64>) -> Result<Self, Error> {
        let (coming, fetches) = Plan::of(&chunks, tree, range.clone()).await?.start(&chunks);
        Ok(Self { chunks, source: Source::Chunks { coming: coming.into(), fetches }, range })
    }

    /// The next bytes, at most a chunk; `None` at the end.
    pub async fn next<'o>(&mut self, opener: &'o mut Opener) -> Result<Option<&'o [u8]>, Error> {
        if self.range.is_empty() {
            return Ok(None);
        }
        let Opener(opener) = opener;
        let start = match &mut self.source {
            Source::Inline(bytes) => {
                opener.put(bytes);
                0
            }
            Source::Chunks { coming, fetches } => {
                let planned = coming.front().ok_or(Error::WorkerStopped)?;
                let opened = match fetches.chain(planned).await {
                    Ok(chain) => self.chunks.open_leaf(opener, &planned.node, &chain),
                    Err(error) => Err(error),
                };
                if let Err(reason) = opened {
                    opener.put(&self.chunks.look_elsewhere_for_leaf(&planned.node, reason).await?);
                }
                let start = planned.node.start;
                coming.pop_front();
                start
            }
        };
        let bytes = opener.plaintext();
        let end = self.range.end.min(start + bytes.len() as u64);
        let piece = &bytes[(self.range.start - start) as usize..(end - start) as usize];
        self.range.start = end;
        Ok(Some(piece))
    }
}
