//! A store that is sent no more bytes a second than its operator allows. What is read is not slowed: a restore is never late
//! because of a limit that was meant for copies.
//!
//! Invariant: over any time, no more was sent than the limit allows for it, and one object.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::Error;
use crate::{Listed, Storage, Traits};

/// A store behind a narrow way.
#[derive(Debug)]
pub struct Throttled {
    inner: Arc<dyn Storage>,
    bytes_per_second: u64,
    /// When what was let through will have been sent.
    free_at: Mutex<Instant>,
}

impl Throttled {
    /// Wraps a store. It stands outside of [`crate::Retrying`], so that waiting counts as no attempt's time.
    pub fn new(inner: Arc<dyn Storage>, bytes_per_second: u64) -> Self {
        Self { inner, bytes_per_second: bytes_per_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Takes the way for this many bytes, from when it is free on.
    async fn take(&self, bytes: u64) -> Instant {
        let mut free_at = self.free_at.lock().await;
        let begin = (*free_at).max(Instant::now());
        *free_at = begin + self.takes(bytes);
        begin
    }

    /// How long the way is taken for this many bytes.
    fn takes(&self, bytes: u64) -> Duration {
        let microseconds = u128::from(bytes) * 1_000_000 / u128::from(self.bytes_per_second);
        Duration::from_micros(u64::try_from(microseconds).unwrap_or(u64::MAX))
    }
}

#[async_trait]
impl Storage for Throttled {
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        self.inner.get(path, range).await
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        tokio::time::sleep_until(self.take(bytes.len() as u64).await).await;
        self.inner.put(path, bytes).await
    }

    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        tokio::time::sleep_until(self.take(bytes.len() as u64).await).await;
        self.inner.put_if_absent(path, bytes).await
    }

    async fn head(&self, path: &str) -> Result<Option<u64>, Error> {
        self.inner.head(path).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        self.inner.list(prefix).await
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        self.inner.delete(path).await
    }

    fn wrapped(&self) -> Option<&dyn Storage> {
        Some(self.inner.as_ref())
    }

    fn traits(&self) -> Traits {
        self.inner.traits()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Local;

    #[tokio::test]
    async fn what_is_sent_waits_for_what_was_sent_before() {
        let scratch = tempfile::tempdir().unwrap();
        // So slow that the test's own time is nothing beside it.
        let storage = Throttled::new(Arc::new(Local::new(scratch.path())), 10);
        let first = storage.take(10_000).await;
        let others = [storage.take(0).await, storage.take(5_000).await, storage.take(1).await];
        assert_eq!(others.map(|begin| (begin - first).as_secs()), [1_000, 1_000, 1_500]);
    }
}
