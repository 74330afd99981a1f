//! Tries again what may succeed the next time: bounded, ever more patiently, and never for ever.
//!
//! It never repeats what is permanent ([`Error::is_permanent`]), and gives every attempt a limit, so that a
//! connection that is half open cannot hold a job. All operations are safe to repeat; the one whose answer
//! a lost acknowledgement would falsify, `put_if_absent`, is settled by reading back.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::error::{Attempt, Error, Operation};
use crate::{Finding, Listed, OBJECT_BYTES_MAX, Retention, Storage, Traits, Version, random};

/// How long and how often to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Attempts in all, at least 1.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles from attempt to attempt, less a random part of up to a half.
    pub first_wait: Duration,
    /// Longest wait.
    pub longest_wait: Duration,
    /// What one attempt may take, besides the time for its bytes.
    pub attempt: Duration,
    /// The slowest transfer that counts as one, in bytes per second.
    pub slowest_bytes_per_second: u64,
    /// What one attempt of a listing may take, of however many requests.
    pub listing: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 6,
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(8),
            attempt: Duration::from_secs(30),
            slowest_bytes_per_second: 64 << 10,
            listing: Duration::from_secs(900),
        }
    }
}

impl Patience {
    /// What an attempt that moves this many bytes may take.
    fn limit(&self, bytes: u64) -> Duration {
        self.attempt.saturating_add(Duration::from_secs(bytes / self.slowest_bytes_per_second.max(1)))
    }

    /// Wait after the given attempt, counted from 1, before jitter.
    fn wait(&self, attempt: u32) -> Duration {
        self.first_wait.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(self.longest_wait)
    }
}

/// A store whose passing faults are waited out.
#[derive(Debug)]
pub struct Retrying {
    inner: Arc<dyn Storage>,
    patience: Patience,
}

impl Retrying {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Storage>, patience: Patience) -> Self {
        Self { inner, patience }
    }

    /// Calls until it succeeds, fails for good, or patience ends.
    async fn persist<'a, T>(
        &self,
        attempt: Attempt,
        limit: Duration,
        call: impl Fn() -> BoxFuture<'a, Result<T, Error>> + Send + Sync,
    ) -> Result<T, Error> {
        let mut tried = 0;
        loop {
            tried += 1;
            let error = match tokio::time::timeout(limit, call()).await {
                Ok(Ok(value)) => return Ok(value),
                Ok(Err(error)) => error,
                Err(_) => Error::Stalled { attempt: attempt.clone(), limit },
            };
            if error.is_permanent() || tried >= self.patience.attempts {
                return Err(error);
            }
            let wait = random::jittered(self.patience.wait(tried));
            tracing::debug!(%error, attempt = tried, wait_ms = wait.as_millis() as u64, "storage operation failed, trying again");
            tokio::time::sleep(wait).await;
        }
    }

    fn attempt(&self, operation: Operation, path: &str) -> Attempt {
        Attempt::new(operation, path, self.inner.location())
    }
}

#[async_trait]
impl Storage for Retrying {
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        let expected = range
            .as_ref()
            .map_or(OBJECT_BYTES_MAX, |range| range.end.saturating_sub(range.start).min(OBJECT_BYTES_MAX));
        let limit = self.patience.limit(expected);
        let call = || self.inner.get(path, range.clone());
        self.persist(self.attempt(Operation::Get, path), limit, call).await
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let limit = self.patience.limit(bytes.len() as u64);
        let call = || self.inner.put(path, bytes.clone());
        self.persist(self.attempt(Operation::Put, path), limit, call).await
    }

    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        let limit = self.patience.limit(bytes.len() as u64);
        let attempts = AtomicU32::new(0);
        let call = || {
            attempts.fetch_add(1, Ordering::Relaxed);
            self.inner.put_if_absent(path, bytes.clone())
        };
        let written = self.persist(self.attempt(Operation::PutIfAbsent, path), limit, call).await?;
        if written || attempts.into_inner() == 1 {
            return Ok(written);
        }
        // An earlier attempt may have written it without our hearing of it: then the object is ours.
        match self.get(path, None).await {
            Ok(found) => Ok(found == bytes),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn head(&self, path: &str) -> Result<Option<u64>, Error> {
        let call = || self.inner.head(path);
        self.persist(self.attempt(Operation::Head, path), self.patience.attempt, call).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let call = || self.inner.list(prefix);
        self.persist(self.attempt(Operation::List, prefix), self.patience.listing, call).await
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        let call = || self.inner.delete(path);
        self.persist(self.attempt(Operation::Delete, path), self.patience.attempt, call).await
    }

    async fn written_ms(&self, path: &str) -> Result<Option<u64>, Error> {
        let call = || self.inner.written_ms(path);
        self.persist(self.attempt(Operation::Head, path), self.patience.attempt, call).await
    }

    async fn clock_ms(&self) -> Result<Option<u64>, Error> {
        let call = || self.inner.clock_ms();
        self.persist(self.attempt(Operation::Head, ""), self.patience.attempt, call).await
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

    async fn try_conditional_writes(&self, scratch: &str) -> Result<bool, Error> {
        let call = || self.inner.try_conditional_writes(scratch);
        self.persist(self.attempt(Operation::PutIfAbsent, scratch), self.patience.listing, call).await
    }

    async fn examine(&self, scratch: &str) -> Result<Vec<Finding>, Error> {
        let call = || self.inner.examine(scratch);
        self.persist(self.attempt(Operation::Put, scratch), self.patience.listing, call).await
    }

    async fn holder(&self) -> Result<String, Error> {
        let call = || self.inner.holder();
        self.persist(self.attempt(Operation::Head, ""), self.patience.attempt, call).await
    }

    async fn keeps_versions(&self) -> Result<bool, Error> {
        let call = || self.inner.keeps_versions();
        self.persist(self.attempt(Operation::Head, ""), self.patience.attempt, call).await
    }

    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let call = || self.inner.versions(prefix);
        self.persist(self.attempt(Operation::List, prefix), self.patience.listing, call).await
    }

    async fn get_version(&self, path: &str, version: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        let call = || self.inner.get_version(path, version, range.clone());
        self.persist(self.attempt(Operation::Get, path), self.patience.limit(OBJECT_BYTES_MAX), call).await
    }

    async fn retention(&self, path: &str, version: &str) -> Result<Option<Retention>, Error> {
        let call = || self.inner.retention(path, version);
        self.persist(self.attempt(Operation::Lock, path), self.patience.attempt, call).await
    }

    async fn set_retention(&self, path: &str, version: &str, retention: Retention) -> Result<(), Error> {
        let call = || self.inner.set_retention(path, version, retention);
        self.persist(self.attempt(Operation::Lock, path), self.patience.attempt, call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let patience = Patience {
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(5),
            ..Patience::default()
        };
        let waits: Vec<u64> = (1..=5).map(|attempt| patience.wait(attempt).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
        assert_eq!(patience.wait(u32::MAX), Duration::from_secs(5));
    }

    #[test]
    fn an_attempt_gets_time_for_its_bytes() {
        let patience =
            Patience { attempt: Duration::from_secs(10), slowest_bytes_per_second: 1000, ..Patience::default() };
        assert_eq!(patience.limit(5000), Duration::from_secs(15));
    }
}
