//! A storage in memory that can be cut off after a number of operations, whose listings can lag, and that can be slow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use holdfast_storage::{Attempt, Error, Listed, Operation, Storage, Traits};

/// What a place holds, and how it fails.
#[derive(Debug, Default)]
pub struct Memory {
    pub objects: Mutex<BTreeMap<String, Bytes>>,
    /// Operations so far, how many are allowed before the place is cut off, and how many fail then.
    operations: AtomicU64,
    allowed: AtomicU64,
    outage: AtomicU64,
    /// The operation at which the place was cut off takes effect, but its answer is lost.
    answers_are_lost: AtomicBool,
    /// Listings do not show the newest heads.
    pub listing_lags: AtomicBool,
    /// The only clock: of this place, and of whoever works with it. Milliseconds since 1970.
    now_ms: AtomicU64,
    /// When objects were put.
    written: Mutex<BTreeMap<String, u64>>,
    /// Bytes for which there is room.
    pub room: AtomicU64,
    /// Bytes that were put, and bytes that were got.
    pub sent: AtomicU64,
    pub fetched: AtomicU64,
    /// How long putting an object takes.
    pub slowness: Mutex<Duration>,
    /// Packs that are being put, and the most that ever were at once.
    packs: AtomicU64,
    pub packs_at_once: AtomicU64,
    /// Threads that operations ran on.
    pub threads: Mutex<BTreeSet<Option<String>>>,
    /// What somebody else does just before the next heads are put, one for each.
    pub meanwhile: Mutex<VecDeque<Meanwhile>>,
}

/// What somebody else does.
pub struct Meanwhile(pub BoxFuture<'static, ()>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

impl Memory {
    pub fn new() -> Arc<Self> {
        let memory = Self::default();
        memory.allowed.store(u64::MAX, Ordering::SeqCst);
        memory.room.store(u64::MAX, Ordering::SeqCst);
        memory.now_ms.store(1_700_000_000_000, Ordering::SeqCst);
        Arc::new(memory)
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    /// Lets time go by.
    pub fn wait(&self, milliseconds: u64) {
        self.now_ms.fetch_add(milliseconds, Ordering::SeqCst);
    }

    /// Bytes that lie here.
    pub fn bytes(&self) -> u64 {
        self.objects.lock().unwrap().values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Takes a write, if there is room.
    fn write(&self, objects: &mut BTreeMap<String, Bytes>, attempt: Attempt, bytes: Bytes) -> Result<(), Error> {
        let others = objects.iter().filter(|(path, _)| **path != attempt.path);
        let used: u64 = others.map(|(_, bytes)| bytes.len() as u64).sum();
        if used + bytes.len() as u64 > self.room.load(Ordering::SeqCst) {
            return Err(Error::Full { attempt, detail: "no room".into() });
        }
        self.written.lock().unwrap().insert(attempt.path.clone(), self.now_ms());
        objects.insert(attempt.path, bytes);
        Ok(())
    }

    /// Cuts the place off after so many more operations.
    pub fn cut_off_after(&self, operations: u64, answers_are_lost: bool) {
        self.fail_after(operations, u64::MAX, answers_are_lost);
    }

    /// Lets so many operations through and fails the next ones.
    pub fn fail_after(&self, operations: u64, outage: u64, answers_are_lost: bool) {
        self.outage.store(outage, Ordering::SeqCst);
        self.operations.store(0, Ordering::SeqCst);
        self.allowed.store(operations, Ordering::SeqCst);
        self.answers_are_lost.store(answers_are_lost, Ordering::SeqCst);
    }

    /// Whether the place was cut off before the work was done.
    pub fn mend(&self) -> bool {
        self.allowed.swap(u64::MAX, Ordering::SeqCst) < self.operations.load(Ordering::SeqCst)
    }

    /// Operations since the last cut was arranged, or ever.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::SeqCst)
    }

    pub fn paths(&self, part: &str) -> Vec<String> {
        self.objects.lock().unwrap().keys().filter(|path| path.contains(part)).cloned().collect()
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.objects.lock().unwrap();
        let mut bytes = objects[path].to_vec();
        change(&mut bytes);
        objects.insert(path.to_owned(), bytes.into());
    }

    pub fn copy(&self) -> Arc<Self> {
        let copy = Self::new();
        *copy.objects.lock().unwrap() = self.objects.lock().unwrap().clone();
        *copy.written.lock().unwrap() = self.written.lock().unwrap().clone();
        copy.now_ms.store(self.now_ms(), Ordering::SeqCst);
        copy
    }

    /// Runs an operation's effect, unless the place is cut off.
    fn operate<T>(
        &self,
        operation: Operation,
        path: &str,
        effect: impl FnOnce(&mut BTreeMap<String, Bytes>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.threads.lock().unwrap().insert(std::thread::current().name().map(str::to_owned));
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        let allowed = self.allowed.load(Ordering::SeqCst);
        let lost =
            || Error::Unreachable { attempt: Attempt::new(operation, path, self.location()), detail: "cut off".into() };
        let is_over = number >= allowed.saturating_add(self.outage.load(Ordering::SeqCst));
        if !is_over && (number > allowed || number == allowed && !self.answers_are_lost.load(Ordering::SeqCst)) {
            return Err(lost());
        }
        let result = effect(&mut self.objects.lock().unwrap());
        if number == allowed { Err(lost()) } else { result }
    }
}

#[async_trait]
impl Storage for Memory {
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        self.operate(Operation::Get, path, |objects| {
            let found = objects.get(path).cloned();
            let bytes = found.ok_or_else(|| Error::NotFound { location: self.location(), path: path.to_owned() })?;
            let length = bytes.len() as u64;
            let range = range.unwrap_or(0..length);
            let bytes = bytes.slice(range.start.min(length) as usize..range.end.min(length) as usize);
            self.fetched.fetch_add(bytes.len() as u64, Ordering::SeqCst);
            Ok(bytes)
        })
    }
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        assert!(bytes.len() <= 17 << 20, "{path} has {} bytes", bytes.len());
        self.sent.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        let is_pack = u64::from(path.contains("/packs/"));
        let packs = self.packs.fetch_add(is_pack, Ordering::SeqCst) + is_pack;
        self.packs_at_once.fetch_max(packs, Ordering::SeqCst);
        let slowness = *self.slowness.lock().unwrap();
        // Even no sleep at all would last until the next tick.
        if !slowness.is_zero() {
            tokio::time::sleep(slowness).await;
        }
        self.packs.fetch_sub(is_pack, Ordering::SeqCst);
        let attempt = Attempt::new(Operation::Put, path, self.location());
        self.operate(Operation::Put, path, |objects| self.write(objects, attempt, bytes))
    }
    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        if path.contains("/heads/") {
            // Nothing happens before the heads that are put meanwhile.
            let mut next = std::mem::take(&mut *self.meanwhile.lock().unwrap());
            if let Some(Meanwhile(work)) = next.pop_front() {
                work.await;
            }
            *self.meanwhile.lock().unwrap() = next;
        }
        self.operate(Operation::PutIfAbsent, path, |objects| {
            let is_absent = !objects.contains_key(path);
            if is_absent {
                self.write(objects, Attempt::new(Operation::PutIfAbsent, path, self.location()), bytes)?;
            }
            Ok(is_absent)
        })
    }
    async fn head(&self, path: &str) -> Result<Option<u64>, Error> {
        self.operate(Operation::Head, path, |objects| Ok(objects.get(path).map(|bytes| bytes.len() as u64)))
    }
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        self.operate(Operation::List, prefix, |objects| {
            let below = objects.iter().filter(|(path, _)| path.starts_with(prefix));
            let listed = below.map(|(path, bytes)| Listed { path: path.clone(), length: bytes.len() as u64 });
            let mut listed: Vec<_> = listed.collect();
            if self.listing_lags.load(Ordering::SeqCst) {
                listed.truncate(listed.len() / 2);
            }
            Ok(listed)
        })
    }
    async fn delete(&self, path: &str) -> Result<(), Error> {
        self.operate(Operation::Delete, path, |objects| {
            objects.remove(path);
            Ok(())
        })
    }
    async fn written_ms(&self, path: &str) -> Result<Option<u64>, Error> {
        self.operate(Operation::Head, path, |objects| {
            let written = self.written.lock().unwrap().get(path).copied();
            Ok(written.filter(|_| objects.contains_key(path)))
        })
    }
    async fn clock_ms(&self) -> Result<Option<u64>, Error> {
        self.operate(Operation::Head, "", |_| Ok(Some(self.now_ms())))
    }
    fn traits(&self) -> Traits {
        Traits { conditional_writes: true }
    }
    fn location(&self) -> String {
        "memory:".to_owned()
    }
}
