//! Receives one entry's bytes: fills a buffer, cuts it into chunks, and puts their hashes back in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::chunker::{CONTENT_MAX, cut_by_content, cut_of};
use super::delta::{Ancestor, Origin};
use super::pipeline::{Pipeline, RUN};
use super::{Entries, Slot};
use crate::chunk::{ChunkHash, ChunkKind};
use crate::format::entry::{Content, EntryRecord};
use crate::tree::{Cut, TreeBuilder};
use crate::{ContentClass, Entry, EntryKind, Error};

/// Contents up to so many bytes lie in their record.
pub const INLINE_MAX: u64 = 512;
/// Chunks up to so many bytes are hashed by who brings them.
const SHORT: usize = 64 << 10;
/// First and largest buffer of content that is cut by content, in bytes.
const CONTENT_BUFFER: std::ops::RangeInclusive<usize> = 64 << 10..=2 * CONTENT_MAX;

/// Receives one entry's bytes. Dropped unfinished, the entry is not in the backup.
pub struct EntryWriter {
    pipeline: Arc<Pipeline>,
    entries: Arc<Entries>,
    entry: Entry,
    class: ContentClass,
    cut: Cut,
    buffer: BytesMut,
    filled: usize,
    received: u64,
    /// Bytes that were sent on their way.
    sent: u64,
    /// What its chunks may be deltas to.
    ancestor: Option<Arc<Ancestor>>,
    builder: TreeBuilder,
    pending: VecDeque<Pending>,
    has_chunks: bool,
    /// A call was dropped in the middle: a chunk may be missing.
    is_torn: bool,
    is_finished: bool,
}

/// Chunks whose hashes have not come yet.
struct Pending {
    hashes: oneshot::Receiver<Vec<ChunkHash>>,
    /// Bytes of each but the last.
    cut: usize,
    /// Bytes of all.
    length: usize,
}

impl std::fmt::Debug for EntryWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("EntryWriter")
            .field("path", &self.entry.path)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl EntryWriter {
    pub(super) fn new(pipeline: Arc<Pipeline>, entries: Arc<Entries>, entry: Entry, class: ContentClass) -> Self {
        let cut = cut_of(class);
        let ancestor = pipeline.ancestor(&entry.path, cut);
        Self {
            pipeline,
            entries,
            entry,
            class,
            cut,
            buffer: BytesMut::new(),
            filled: 0,
            received: 0,
            sent: 0,
            ancestor,
            builder: TreeBuilder::new(cut),
            pending: VecDeque::new(),
            has_chunks: false,
            is_torn: false,
            is_finished: false,
        }
    }

    /// Room for bytes to be read into directly (at least 1 byte); then [`Self::advance`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = self.pipeline.buffer(match self.cut {
                Cut::Fixed(chunk) => chunk as usize * (RUN / chunk as usize).max(1),
                Cut::Variable => *CONTENT_BUFFER.start(),
            });
        }
        &mut self.buffer[self.filled..]
    }

    /// Says that `count` bytes of the space were filled. Waits while the pipeline is full.
    ///
    /// Errors: more bytes than declared; bytes for a directory or link; the backup has failed. A future that is dropped
    /// before it is ready leaves an entry that cannot be finished.
    pub async fn advance(&mut self, count: usize) -> Result<(), Error> {
        if self.is_torn {
            return Err(Error::WorkerStopped);
        }
        let count = count.min(self.buffer.len() - self.filled);
        if count == 0 {
            return Ok(());
        }
        if self.entry.kind != EntryKind::File {
            return Err(Error::NotAFile { path: self.entry.path.clone() });
        }
        self.received += count as u64;
        self.entries.received.fetch_add(count as u64, Ordering::AcqRel);
        if self.entry.size.is_some_and(|declared| self.received > declared) {
            // What is too much is not kept: there is always space, so that whoever writes on is told again.
            return Err(self.size_mismatch());
        }
        self.filled += count;
        if self.filled == self.buffer.len() { self.flush(false).await } else { Ok(()) }
    }

    /// Copies bytes in. Waits while the pipeline is full.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            let (now, later) = bytes.split_at(count);
            space[..count].copy_from_slice(now);
            self.advance(count).await?;
            bytes = later;
        }
        Ok(())
    }

    /// Ends the entry: its size in bytes. An error where a declared size was not met.
    pub async fn finish(mut self) -> Result<u64, Error> {
        self.pipeline.check()?;
        let is_file = self.entry.kind == EntryKind::File;
        if is_file && self.entry.size.is_some_and(|declared| self.received != declared) {
            return Err(self.size_mismatch());
        }
        let content = if !self.has_chunks && self.received <= INLINE_MAX {
            Content::Inline(self.buffer[..self.filled].to_vec())
        } else {
            self.flush(true).await?;
            self.finish_tree().await?
        };
        let record = EntryRecord::new(self.entry.clone(), content);
        self.entries.lock().insert(self.entry.path.clone(), Slot::Done(Box::new(record)));
        self.entries.finished.fetch_add(1, Ordering::AcqRel);
        self.is_finished = true;
        Ok(self.received)
    }

    fn size_mismatch(&self) -> Error {
        let declared = self.entry.size.unwrap_or_default();
        Error::SizeMismatch { path: self.entry.path.clone(), declared, received: self.received }
    }

    /// Sends what is filled on its way; what is not certain to be a chunk yet stays unless this is the end.
    async fn flush(&mut self, is_end: bool) -> Result<(), Error> {
        if std::mem::replace(&mut self.is_torn, true) {
            return Err(Error::WorkerStopped);
        }
        let mut filled = std::mem::take(&mut self.buffer);
        match self.cut {
            Cut::Fixed(chunk) => {
                let length = std::mem::take(&mut self.filled);
                if length > 0 {
                    let run = self.cut_off(filled, length);
                    self.send(run, chunk as usize).await?;
                }
            }
            Cut::Variable if !is_end && filled.len() < *CONTENT_BUFFER.end() => {
                // Small entries stay small in memory.
                filled.resize((filled.len() * 4).min(*CONTENT_BUFFER.end()), 0);
                self.buffer = filled;
            }
            Cut::Variable => self.flush_by_content(filled, is_end).await?,
        }
        self.is_torn = false;
        Ok(())
    }

    /// The chunks that a buffer begins with. Few bytes, the end of an entry, do not hold a whole buffer's memory.
    fn cut_off(&self, mut filled: BytesMut, length: usize) -> Bytes {
        if length <= filled.len() / 2 {
            let run = Bytes::copy_from_slice(&filled[..length]);
            self.pipeline.keep_spare(filled);
            return run;
        }
        filled.truncate(length);
        filled.freeze()
    }

    async fn flush_by_content(&mut self, mut filled: BytesMut, is_end: bool) -> Result<(), Error> {
        filled.truncate(self.filled);
        let lengths = cut_by_content(&filled, self.pipeline.chunker_seed, is_end);
        let mut rest = filled.freeze();
        let chunks: Vec<_> = lengths.into_iter().map(|length| rest.split_to(length)).collect();
        self.filled = rest.len();
        if !is_end {
            self.buffer = BytesMut::zeroed(*CONTENT_BUFFER.end());
            self.buffer[..rest.len()].copy_from_slice(&rest);
        }
        for chunk in chunks {
            let length = chunk.len();
            self.send(chunk, length).await?;
        }
        Ok(())
    }

    /// Sends chunks of `cut` bytes on their way.
    async fn send(&mut self, run: Bytes, cut: usize) -> Result<(), Error> {
        let length = run.len();
        let origin = self.ancestor.clone().map(|ancestor| Origin { ancestor, offset: self.sent });
        self.sent += length as u64;
        let hashes = if length <= cut.min(SHORT) {
            // To hash it here takes less time than to hear of it from a worker, for whom a short entry would have to wait.
            let hash = self.pipeline.hash(ChunkKind::Data, &run);
            self.pipeline.store(hash, run, origin).await?;
            let (sender, hashes) = oneshot::channel();
            let _ = sender.send(vec![hash]);
            hashes
        } else {
            self.pipeline.store_run(run, cut, origin).await?
        };
        self.has_chunks = true;
        self.pending.push_back(Pending { hashes, cut, length });
        // Hashes that have come are taken now, so that what waits here is bounded like the pipeline is.
        let mut lists = Vec::new();
        while let Some(first) = self.pending.front_mut() {
            let Ok(hashes) = first.hashes.try_recv() else { break };
            let (cut, length) = (first.cut, first.length);
            self.pending.pop_front();
            self.push_all(&hashes, cut, length, &mut lists);
        }
        store_lists(&self.pipeline, lists).await
    }

    async fn finish_tree(&mut self) -> Result<Content, Error> {
        let mut lists = Vec::new();
        while let Some(Pending { hashes, cut, length }) = self.pending.pop_front() {
            let Ok(hashes) = hashes.await else {
                self.pipeline.check()?;
                return Err(Error::WorkerStopped);
            };
            self.push_all(&hashes, cut, length, &mut lists);
        }
        let builder = std::mem::replace(&mut self.builder, TreeBuilder::new(self.cut));
        let tree = builder.finish(&mut |list| keep(&self.pipeline, list, &mut lists));
        store_lists(&self.pipeline, lists).await?;
        let page = match self.class {
            ContentClass::Pages(page) => page,
            ContentClass::Bytes => 0,
        };
        Ok(Content::Tree(page, tree))
    }

    /// Adds the chunks of a run to the tree.
    fn push_all(&mut self, hashes: &[ChunkHash], cut: usize, mut length: usize, lists: &mut Vec<List>) {
        for hash in hashes {
            let chunk = length.min(cut);
            push(&mut self.builder, &self.pipeline, *hash, chunk as u64, lists);
            length -= chunk;
        }
    }
}

/// A complete list that is to be stored.
pub(super) type List = (ChunkHash, Bytes);

pub(super) async fn store_lists(pipeline: &Arc<Pipeline>, lists: Vec<List>) -> Result<(), Error> {
    for (hash, list) in lists {
        pipeline.store(hash, list, None).await?;
    }
    Ok(())
}

/// Adds a leaf; lists that became complete are put into `lists`.
pub(super) fn push(
    builder: &mut TreeBuilder,
    pipeline: &Pipeline,
    hash: ChunkHash,
    length: u64,
    lists: &mut Vec<List>,
) {
    builder.push(hash, length, &mut |list| keep(pipeline, list, lists));
}

/// Keeps a complete list to be stored, and says its hash.
pub(super) fn keep(pipeline: &Pipeline, list: Vec<u8>, lists: &mut Vec<List>) -> ChunkHash {
    let hash = pipeline.hash(ChunkKind::List, &list);
    lists.push((hash, list.into()));
    hash
}

impl Drop for EntryWriter {
    fn drop(&mut self) {
        self.pipeline.keep_spare(std::mem::take(&mut self.buffer));
        if !self.is_finished {
            self.entries.lock().remove(&self.entry.path);
            self.entries.received.fetch_sub(self.received, Ordering::AcqRel);
        }
    }
}
