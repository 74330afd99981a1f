//! A storage whose calls all run on the runtime that was current when the repository was opened.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::{Listed, Storage};
use tokio::runtime::Handle;

use crate::format::path;
use crate::{Digest, Error};

/// A storage and its runtime. Callers may poll from any other one.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    storage: Arc<dyn Storage>,
    runtime: Handle,
}

impl Place {
    /// Takes the current runtime. Errors: there is none.
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Result<Self, Error> {
        let runtime = Handle::try_current().map_err(|_| Error::RuntimeStopped)?;
        Ok(Self { storage, runtime })
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

    pub(crate) async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
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
        let found = self.find(path).await?;
        let bytes = found.ok_or_else(|| Error::Lost { path: path.to_owned(), location: self.location() })?;
        if Digest::of(&bytes) == digest {
            Ok(bytes)
        } else {
            Err(Error::Exchanged { path: path.to_owned(), expected: digest })
        }
    }

    /// Whether an error tells of an object's damage or loss, and not of an outage: of one object at a place that answers otherwise.
    pub(crate) async fn is_damage(&self, error: &Error) -> bool {
        match error {
            Error::RuntimeStopped | Error::WorkerStopped => false,
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

    pub(crate) async fn length(&self, path: &str) -> Result<Option<u64>, Error> {
        let path = path.to_owned();
        self.run(|storage| async move { storage.head(&path).await }).await
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
