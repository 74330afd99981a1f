//! A storage whose calls all run on the runtime that was current when the repository was opened.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use holdfast_storage::{Listed, Lock, Retention, Storage, Version};
use tokio::runtime::Handle;

use crate::format::path;
use crate::{Digest, Error};

/// A storage and its runtime. Callers may poll from any other one.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    storage: Arc<dyn Storage>,
    runtime: Handle,
    versions: Arc<Versions>,
}

impl Place {
    /// Takes the current runtime. Errors: there is none.
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Result<Self, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::RuntimeStopped)?;
        Ok(Self { storage, runtime, versions: Arc::default() })
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn location(&self) -> String {
        self.storage.location()
    }

    /// Runs one call where the storage's connections and timers live.
    async fn run<T, F>(&self, call: impl FnOnce(Arc<dyn Storage>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, holdfast_storage::Error>> + Send + 'static,
    {
        let task = self.runtime.spawn(call(Arc::clone(&self.storage)));
        Ok(task.await.map_err(|_| Error::RuntimeStopped)??)
    }

    /// An object, or a range of it. A range has no digest of its own to be known by: of a pack it is one of the version that is.
    pub(crate) async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        if range.is_some()
            && let Some(version) = self.versions.right(self, path).await?
        {
            return self.get_version(path, &version, range).await;
        }
        let path = path.to_owned();
        self.run(|storage| async move { storage.get(&path, range).await }).await
    }

    /// An object, or `None` where there is none.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<Bytes>, Error> {
        match self.get(path, None).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// An object that a head names; its absence is a loss.
    pub(crate) async fn committed(&self, path: &str, digest: Digest) -> Result<Bytes, Error> {
        let found = self.find_genuine(path, |bytes| Digest::of(bytes) == digest).await?;
        let bytes = found.ok_or_else(|| Error::Lost { path: path.to_owned(), location: self.location() })?;
        if Digest::of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(Error::Exchanged { path: path.to_owned(), expected: digest })
        }
    }

    /// The newest version of an object that is genuine, or, where none is, what lies there now. A place that keeps versions is
    /// read past what a stranger overwrote or deleted.
    pub(crate) async fn find_genuine(
        &self,
        path: &str,
        is_genuine: impl Fn(&Bytes) -> bool,
    ) -> Result<Option<Bytes>, Error> {
        let now = self.find(path).await;
        let is_answered = match &now {
            Ok(found) => found.as_ref().is_some_and(&is_genuine),
            // What cannot be read whoever asks, such as an object beyond all bounds, may stand before one that can be.
            Err(Error::Storage(error)) => !error.is_permanent(),
            Err(_) => true,
        };
        if is_answered || !self.keeps_versions().await? {
            return now;
        }
        for version in self.versions(path).await?.into_iter().filter(|version| version.path == path) {
            match self.get_version(path, &version.id, None).await {
                Ok(bytes) if is_genuine(&bytes) => {
                    let version = version.id;
                    tracing::warn!(path, version, "an older version was read: the object was overwritten or deleted");
                    return Ok(Some(bytes));
                }
                Err(Error::Storage(error)) if !error.is_permanent() => return Err(error.into()),
                Ok(_) | Err(Error::Storage(_)) => {}
                Err(error) => return Err(error),
            }
        }
        now
    }

    /// Paths below a prefix where an object lies, or where one is kept that was deleted.
    pub(crate) async fn paths_ever(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let mut paths: Vec<String> = self.list(prefix).await?.into_iter().map(|one| one.path).collect();
        if self.keeps_versions().await? {
            paths.extend(self.versions(prefix).await?.into_iter().map(|version| version.path));
            paths.sort_unstable();
            paths.dedup();
        }
        Ok(paths)
    }

    /// Whether an error tells of an object's damage or loss, and not of an outage: of one object at a place that answers otherwise.
    pub(crate) async fn is_damage(&self, error: &Error) -> bool {
        match error {
            Error::RuntimeStopped | Error::WorkerStopped | Error::IndexCache { .. } => false,
            Error::Storage(holdfast_storage::Error::NotFound { .. }) => true,
            Error::Storage(storage) => storage.is_permanent() && self.get(path::REPOSITORY, None).await.is_ok(),
            _ => true,
        }
    }

    pub(crate) async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let path = path.to_owned();
        self.run(|storage| async move { storage.put(&path, bytes).await }).await
    }

    pub(crate) async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        let path = path.to_owned();
        self.run(|storage| async move { storage.put_if_absent(&path, bytes).await }).await
    }

    /// How what is written here is locked.
    pub(crate) fn lock(&self) -> Option<Lock> {
        self.storage.lock()
    }

    pub(crate) async fn keeps_versions(&self) -> Result<bool, Error> {
        self.run(|storage| async move { storage.keeps_versions().await }).await
    }

    pub(crate) async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let prefix = prefix.to_owned();
        self.run(|storage| async move { storage.versions(&prefix).await }).await
    }

    async fn get_version(&self, path: &str, version: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        let (path, version) = (path.to_owned(), version.to_owned());
        self.run(|storage| async move { storage.get_version(&path, &version, range).await }).await
    }

    pub(crate) async fn retention(&self, path: &str, version: &str) -> Result<Option<Retention>, Error> {
        let (path, version) = (path.to_owned(), version.to_owned());
        self.run(|storage| async move { storage.retention(&path, &version).await }).await
    }

    /// Until when an object cannot be deleted, if it cannot now. Only asked at a place that locks what is written.
    pub(crate) async fn locked_until(&self, path: &str, now_ms: u64) -> Result<Option<u64>, Error> {
        if self.lock().is_none() {
            return Ok(None);
        }
        let mut locked = None;
        for version in self.versions(path).await?.into_iter().filter(|version| version.path == path) {
            locked = locked.max(self.retention(path, &version.id).await?.map(|retention| retention.until_ms));
        }
        Ok(locked.filter(|until_ms| *until_ms > now_ms))
    }

    /// Deletes an object that no lock keeps; until when one does, if so.
    pub(crate) async fn delete_unlocked(&self, path: &str, now_ms: u64) -> Result<Option<u64>, Error> {
        let locked = self.locked_until(path, now_ms).await?;
        if locked.is_none() {
            self.delete(path).await?;
        }
        Ok(locked)
    }

    pub(crate) async fn set_retention(&self, path: &str, version: &str, retention: Retention) -> Result<(), Error> {
        let (path, version) = (path.to_owned(), version.to_owned());
        self.run(|storage| async move { storage.set_retention(&path, &version, retention).await }).await
    }

    pub(crate) async fn length(&self, path: &str) -> Result<Option<u64>, Error> {
        let path = path.to_owned();
        self.run(|storage| async move { storage.head(&path).await }).await
    }

    /// When an object was written, by the store's clock.
    pub(crate) async fn written_ms(&self, path: &str) -> Result<Option<u64>, Error> {
        let path = path.to_owned();
        self.run(|storage| async move { storage.written_ms(&path).await }).await
    }

    /// What time it is by the store's clock.
    pub(crate) async fn clock_ms(&self) -> Result<Option<u64>, Error> {
        self.run(|storage| async move { storage.clock_ms().await }).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), Error> {
        let path = path.to_owned();
        self.run(|storage| async move { storage.delete(&path).await }).await
    }

    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let prefix = prefix.to_owned();
        self.run(|storage| async move { storage.list(&prefix).await }).await
    }
}

/// Which versions of packs are the ones that their names vouch for, at a place that keeps versions.
#[derive(Debug, Default)]
struct Versions {
    known: Mutex<HashMap<String, String>>,
}

impl Versions {
    /// The version to read a range of a pack from. None: what lies there now.
    async fn right(&self, place: &Place, path: &str) -> Result<Option<String>, Error> {
        let Some(digest) = path::any_pack_digest(path) else { return Ok(None) };
        if !place.keeps_versions().await? {
            return Ok(None);
        }
        let known = self.known().get(path).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let found = Self::find(place, path, digest).await?;
        if let Some(version) = &found {
            self.known().insert(path.to_owned(), version.clone());
        }
        Ok(found)
    }

    /// Of several versions the one with the digest. A single one is read as it is: its chunks are checked anyway.
    async fn find(place: &Place, path: &str, digest: Digest) -> Result<Option<String>, Error> {
        let mut versions = place.versions(path).await?;
        versions.retain(|version| version.path == path);
        if let [only] = versions.as_slice() {
            return Ok(Some(only.id.clone()));
        }
        for version in versions {
            match place.get_version(path, &version.id, None).await {
                Ok(bytes) if Digest::of(&bytes) == digest => return Ok(Some(version.id)),
                Err(Error::Storage(error)) if !error.is_permanent() => return Err(error.into()),
                Ok(_) | Err(Error::Storage(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
