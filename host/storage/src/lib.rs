//! Places that keep bytes: the [`Storage`] trait, its implementations, and the wrappers around them.
//!
//! This room sees bytes only: it knows nothing of chunks, keys or backups. A write that returned is durable.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// What a place that keeps a repository owes its callers. Paths are relative, with `/` between parts,
/// made of `[a-z0-9._/-]` only. Objects are small (at most 17 MiB) and written whole.
#[async_trait]
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Reads an object, or the given byte range of it (cut at the object's end).
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error>;
    /// Writes an object, replacing what was there. Durable when it returns.
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error>;
    /// Writes an object unless one is there: `false` where one was. Atomic between writers where [`Traits::conditional_writes`].
    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error>;
    /// Length of an object, `None` where there is none.
    async fn head(&self, path: &str) -> Result<Option<u64>, Error>;
    /// All objects whose path begins with `prefix`, sorted by path. May lag behind writes: never a reason to delete.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error>;
    /// Removes an object; it is no error if there is none.
    async fn delete(&self, path: &str) -> Result<(), Error>;
    /// What this place can do, found by [`probe`].
    fn traits(&self) -> Traits;
    /// Where this is, for people: the URL without any secret.
    fn location(&self) -> String;
}

/// One listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path relative to the storage's root.
    pub path: String,
    /// Length in bytes.
    pub length: u64,
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// `put_if_absent` is atomic between writers.
    pub conditional_writes: bool,
}

/// Why a storage operation failed. `Display` says which operation on which path at which place, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such object.
    #[error("{path} is not at {location}")]
    NotFound { location: String, path: String },
}

/// Credentials and options that are not part of a URL: `access-key`, `secret-key` (S3).
pub type Settings = std::collections::BTreeMap<String, String>;

/// Opens `file:///path` or `s3://bucket/prefix?endpoint=…&region=…&style=path|virtual`, without touching the network.
pub fn open(_url: &str, _settings: &Settings) -> Result<Arc<dyn Storage>, Error> {
    todo!()
}

/// Tries write, read, list, conditional write and delete under `probe/`, and says what was found.
pub async fn probe(_storage: &dyn Storage) -> Result<Traits, Error> {
    todo!()
}
