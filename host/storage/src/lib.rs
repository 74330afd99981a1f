//! Places that keep bytes: the [`Storage`] trait, its implementations, and the wrappers around them.
//!
//! This room sees bytes only: it knows nothing of chunks, keys or backups. A write that returned is durable.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod conformance;
mod error;
pub mod faulty;
mod local;
mod path;
mod probe;
mod random;
mod retrying;
mod s3;
mod spelling;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{Attempt, Denial, Error, Operation};
pub use local::Local;
pub use probe::probe;
pub use retrying::{Patience, Retrying};
pub use s3::S3;

/// Longest object that is written or read, in bytes: no store can make us hold more in memory for one answer.
pub const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// What a place that keeps a repository owes its callers. Paths are relative, with `/` between parts, made of
/// `[A-Za-z0-9._/-]` only; `tmp/` is reserved, and no object lies below another one. Objects are small (packs
/// have at most 17 MiB) and written whole. Calls run on tokio; a dropped call may still come to its end.
#[async_trait]
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Reads an object, or the given byte range of it (cut at the object's end).
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error>;
    /// Writes an object, replacing what was there. Durable when it returns.
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error>;
    /// Writes an object unless one is there: `false` where one was. Atomic between writers where
    /// [`Traits::conditional_writes`].
    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error>;
    /// Length of an object, `None` where there is none.
    async fn head(&self, path: &str) -> Result<Option<u64>, Error>;
    /// All objects whose path begins with `prefix`, sorted by path. May lag behind writes: never a reason to delete.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error>;
    /// Removes an object; it is no error if there is none.
    async fn delete(&self, path: &str) -> Result<(), Error>;
    /// What this place can do, found by [`probe`]; before that, what is certain without trying.
    fn traits(&self) -> Traits;
    /// Where this is, for people: the URL without any secret.
    fn location(&self) -> String;
    /// Finds out whether writers are kept apart here, with objects below `scratch` that it removes again, and
    /// remembers it for [`Self::traits`]. A place that is certain of its traits has nothing to try.
    async fn try_conditional_writes(&self, scratch: &str) -> Result<bool, Error> {
        let _ = scratch;
        Ok(self.traits().conditional_writes)
    }
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

/// Credentials and options that are not part of a URL: `access-key`, `secret-key`, `session-token` (S3).
pub type Settings = std::collections::BTreeMap<String, String>;

/// Opens `file:///path` or `s3://bucket/prefix?endpoint=…&region=…&style=path|virtual&checksum=…`, without
/// touching the network or the disk. S3 comes wrapped in [`Retrying`].
///
/// Errors: [`Error::BadUrl`], [`Error::BadSetting`].
pub fn open(url: &str, settings: &Settings) -> Result<Arc<dyn Storage>, Error> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("file") => Ok(Arc::new(Local::open(url, settings)?)),
        Some("s3") => {
            let store = S3::open(url, settings)?;
            Ok(Arc::new(Retrying::new(Arc::new(store), Patience::default())))
        }
        _ => Err(Error::bad_url(url, "its scheme is not one of `file`, `s3`")),
    }
}
