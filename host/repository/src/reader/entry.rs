//! One entry's bytes: as a stream for one taker, or as parts for several.

use std::ops::Range;
use std::sync::Arc;

use super::chunks::Chunks;
use super::content::ContentReader;
use super::part::PartReader;
use crate::Error;
use crate::format::entry::Content;

/// An entry that was found.
pub struct EntryReader {
    chunks: Arc<Chunks>,
    content: Content,
    size: u64,
}

impl std::fmt::Debug for EntryReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("EntryReader").field("size", &self.size).finish_non_exhaustive()
    }
}

impl EntryReader {
    pub(super) fn new(chunks: Arc<Chunks>, content: Content, size: u64) -> Self {
        Self { chunks, content, size }
    }

    /// Its bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A range of its bytes in order, opened on the worker pool. Beyond the end there are none.
    pub fn stream(&self, range: Range<u64>) -> ContentReader {
        let (chunks, range) = (Arc::clone(&self.chunks), self.cut(range));
        match &self.content {
            Content::Inline(bytes) => ContentReader::inline(chunks, bytes.clone().into(), range),
            Content::Tree(_, tree) => ContentReader::tree(chunks, tree.clone(), range),
        }
    }

    /// A range of its bytes whose taker opens them; all of it is on its way from here on. Beyond the end there are none.
    ///
    /// Errors: a list of chunks is lost or damaged.
    pub async fn part(&self, range: Range<u64>) -> Result<PartReader, Error> {
        let (chunks, range) = (Arc::clone(&self.chunks), self.cut(range));
        match &self.content {
            Content::Inline(bytes) => Ok(PartReader::inline(chunks, bytes.clone().into(), range)),
            Content::Tree(_, tree) => PartReader::tree(chunks, tree, range).await,
        }
    }

    fn cut(&self, range: Range<u64>) -> Range<u64> {
        range.start.min(self.size)..range.end.min(self.size)
    }
}
