//! Reads one backup from one target, and what is damaged there from others, if there are any to look at. Every byte that leaves was authenticated and
//! compared with its hash.

mod bases;
mod chunks;
mod content;
mod digest;
mod elsewhere;
mod entry;
mod open;
mod part;
mod plan;
mod reach;
mod table;
mod walk;
mod windows;

use std::sync::Arc;

pub(crate) use bases::{Bases, Chain};
pub(crate) use chunks::Chunks;
pub use content::ContentReader;
use digest::Hasher;
pub use entry::EntryReader;
pub use part::{Opener, PartReader};
pub(crate) use reach::Reach;
use table::Table;

use crate::{Digest, Entry, Error};

/// Reads one backup from one target. Cheap to clone.
#[derive(Clone)]
pub struct BackupReader {
    inner: Arc<Inner>,
}

struct Inner {
    document: String,
    component: Digest,
    chunks: Arc<Chunks>,
    table: Table,
}

impl std::fmt::Debug for BackupReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("BackupReader").field("component", &self.inner.component).finish_non_exhaustive()
    }
}

impl BackupReader {
    /// The plugin's inventory (JSON).
    pub fn document(&self) -> &str {
        &self.inner.document
    }

    /// The digest of the plugin's component.
    pub fn component(&self) -> Digest {
        self.inner.component
    }

    /// Entries whose path begins with `prefix` and comes after `after`, sorted by path, at most `limit`.
    pub async fn entries(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<Entry>, Error> {
        self.inner.table.entries(&self.inner.chunks, prefix, after, limit).await
    }

    /// Finds a file.
    ///
    /// Errors: no such entry; it is a directory or a link.
    pub async fn entry(&self, path: &str) -> Result<EntryReader, Error> {
        let chunks = &self.inner.chunks;
        let record = self.inner.table.find(chunks, path).await?;
        let record = record.ok_or_else(|| Error::NoSuchEntry { path: path.to_owned() })?;
        let entry = record.entry().map_err(Error::damaged(path))?;
        let Some(size) = entry.size else { return Err(Error::NotAFile { path: path.to_owned() }) };
        Ok(EntryReader::new(Arc::clone(chunks), record.content().map_err(Error::damaged(path))?, size))
    }

    /// Opens a range of a file's bytes, to its end without a length. Beyond the end there are no bytes.
    ///
    /// Errors: no such entry; it is a directory or a link.
    pub async fn open(&self, path: &str, offset: u64, length: Option<u64>) -> Result<ContentReader, Error> {
        let end = length.map_or(u64::MAX, |length| offset.saturating_add(length));
        Ok(self.entry(path).await?.stream(offset..end))
    }

    /// Digest of a whole file by `sha256`, `crc32c` or `blake3`. The pool opens its chunks while the caller's thread hashes.
    pub async fn digest(&self, path: &str, algorithm: &str) -> Result<Vec<u8>, Error> {
        let mut hasher = Hasher::new(algorithm)?;
        let mut content = self.open(path, 0, None).await?;
        while let Some(piece) = content.next().await? {
            hasher.update(&piece);
        }
        Ok(hasher.finish())
    }
}
