//! Places that keep bytes: the [`Storage`] trait, its implementations, and the wrappers around them.
//!
//! This room sees bytes only: it knows nothing of chunks, keys or backups. A write that returned is durable.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addresses;
mod clock;
pub mod conformance;
mod contest;
mod error;
pub mod faulty;
mod local;
mod locking;
mod path;
mod probe;
mod random;
mod retrying;
mod s3;
mod sftp;
mod spelling;
mod throttled;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use error::{Attempt, Denial, Error, Operation};
pub use local::Local;
pub use locking::{Lock, LockMode, Retention};
pub use probe::{Finding, Found, probe};
pub use retrying::{Patience, Retrying};
pub use s3::S3;
pub use sftp::Sftp;
pub use throttled::Throttled;

/// Longest object that is written or read, in bytes: no store can make us hold more in memory for one answer.
pub const OBJECT_BYTES_MAX: u64 = 128 << 20;

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
    /// The store that this one wraps, if it is a wrapper: it answers whatever the wrapper does not answer itself.
    fn wrapped(&self) -> Option<&dyn Storage> {
        None
    }
    /// When an object was written last, in milliseconds since 1970 by the store's own clock; `None` where there is none, or
    /// where the store cannot tell.
    async fn written_ms(&self, path: &str) -> Result<Option<u64>, Error> {
        match self.wrapped() {
            Some(store) => store.written_ms(path).await,
            None => Ok(None),
        }
    }
    /// What time it is by the store's own clock, in milliseconds since 1970; `None` where the store cannot tell. Needs no
    /// free space.
    async fn clock_ms(&self) -> Result<Option<u64>, Error> {
        match self.wrapped() {
            Some(store) => store.clock_ms().await,
            None => Ok(None),
        }
    }
    /// Finds out whether writers are kept apart here, with objects below `scratch` that it removes again, and
    /// remembers it for [`Self::traits`]. A place that is certain of its traits has nothing to try.
    async fn try_conditional_writes(&self, scratch: &str) -> Result<bool, Error> {
        match self.wrapped() {
            Some(store) => store.try_conditional_writes(scratch).await,
            None => Ok(self.traits().conditional_writes),
        }
    }
    /// What else is worth knowing of this place, found with objects below `scratch` that it removes again: what its
    /// acknowledgements are worth, and what of its settings the store really does.
    async fn examine(&self, scratch: &str) -> Result<Vec<Finding>, Error> {
        match self.wrapped() {
            Some(store) => store.examine(scratch).await,
            None => Ok(Vec::new()),
        }
    }
    /// What this place stands and falls with, in words: a disk, a server, a service. Two places of one holder burn together.
    async fn holder(&self) -> Result<String, Error> {
        match self.wrapped() {
            Some(store) => store.holder().await,
            None => Ok(self.location()),
        }
    }
    /// How what is written here is locked, if it is: every object from its writing on.
    fn lock(&self) -> Option<Lock> {
        self.wrapped().and_then(Storage::lock)
    }
    /// Whether objects that were overwritten or deleted are kept here, for [`Self::versions`] to find.
    async fn keeps_versions(&self) -> Result<bool, Error> {
        match self.wrapped() {
            Some(store) => store.keeps_versions().await,
            None => Ok(false),
        }
    }
    /// All versions of the objects whose path begins with `prefix`, sorted by path, the newest of each first. Deleted
    /// objects have versions too.
    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        match self.wrapped() {
            Some(store) => store.versions(prefix).await,
            None => Err(self.without_versions(Operation::List, prefix)),
        }
    }
    /// Reads one version of an object, or a range of it as [`Self::get`] does.
    async fn get_version(&self, path: &str, version: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        match self.wrapped() {
            Some(store) => store.get_version(path, version, range).await,
            None => Err(self.without_versions(Operation::Get, path)),
        }
    }
    /// How a version is locked, if it is.
    async fn retention(&self, path: &str, version: &str) -> Result<Option<Retention>, Error> {
        match self.wrapped() {
            Some(store) => store.retention(path, version).await,
            None => Err(self.without_versions(Operation::Lock, path)),
        }
    }
    /// Locks a version, or for longer.
    async fn set_retention(&self, path: &str, version: &str, retention: Retention) -> Result<(), Error> {
        match self.wrapped() {
            Some(store) => store.set_retention(path, version, retention).await,
            None => Err(self.without_versions(Operation::Lock, path)),
        }
    }
    /// What a place says that keeps no versions.
    fn without_versions(&self, operation: Operation, path: &str) -> Error {
        let attempt = Attempt::new(operation, path, self.location());
        Error::Unsupported { attempt, detail: "this kind of place keeps no versions".to_owned() }
    }
    /// Settings that this store learned by use and wants to be given the next time: the key of a server that the
    /// operator allowed to be trusted when it is first seen.
    fn learned(&self) -> Settings {
        self.wrapped().map(Storage::learned).unwrap_or_default()
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

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Path relative to the storage's root.
    pub path: String,
    /// The store's own name of it.
    pub id: String,
    /// Length in bytes.
    pub length: u64,
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// `put_if_absent` is atomic between writers.
    pub conditional_writes: bool,
}

/// Credentials and options that are not part of a URL: `access-key`, `secret-key`, `session-token`, `checksum`, `style`, `ca`,
/// `storage-class`, `lock`, `lock-days` (S3); `host-key`, `private-key`, `passphrase`, `password` (SFTP).
pub type Settings = std::collections::BTreeMap<String, String>;

/// Opens `file:///path`, `s3://bucket/prefix?endpoint=…&region=…&style=path|virtual&checksum=…` or
/// `sftp://user@host:22/path`, without touching the network, or more of the disk than a named certificate. What is remote comes wrapped in [`Retrying`].
///
/// Errors: [`Error::BadUrl`], [`Error::BadSetting`].
pub fn open(url: &str, settings: &Settings) -> Result<Arc<dyn Storage>, Error> {
    match url.split_once("://").map(|(scheme, _)| scheme) {
        Some("file") => Ok(Arc::new(Local::open(url, settings)?)),
        Some("s3") => Ok(patient(S3::open(url, settings)?)),
        Some("sftp") => Ok(patient(Sftp::open(url, settings)?)),
        _ => Err(Error::bad_url(url, "its scheme is not one of `file`, `s3`, `sftp`")),
    }
}

/// A store whose passing faults are waited out.
fn patient(store: impl Storage + 'static) -> Arc<dyn Storage> {
    Arc::new(Retrying::new(Arc::new(store), Patience::default()))
}
