//! A store that fails on purpose, for the tests of every room: deterministic, by rules, with a record of calls.
//!
//! ```
//! # use std::sync::Arc;
//! # use holdfast_storage::{Local, Storage, Operation, faulty::{Fault, Faults, Rule, Kind}};
//! # async fn example() {
//! let (store, faults) = Faults::over(Arc::new(Local::new("/srv/backups")));
//! // The third pack does not fit any more.
//! faults.add(Rule::on(Operation::PutIfAbsent, "domains/").skipping(2).once(Fault::Fail(Kind::Full)));
//! # }
//! ```
//!
//! The first rule that matches a call and is not used up decides; a call without one goes through. It injects
//! nothing by itself, and no product code uses it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;

use crate::error::{Attempt, Denial, Error, Operation};
use crate::{Listed, Retention, Storage, Traits};

/// Which error a fault ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Error::Unreachable`], which may pass.
    Unreachable,
    /// [`Error::Busy`], which may pass.
    Busy,
    /// [`Error::Stalled`], which may pass.
    Stalled,
    /// [`Error::Denied`] for the credentials: permanent.
    Denied,
    /// [`Error::Full`]: permanent.
    Full,
    /// [`Error::Io`] with EIO: permanent.
    Io,
}

impl Kind {
    fn error(self, attempt: Attempt) -> Error {
        let detail = "injected fault".to_owned();
        match self {
            Self::Unreachable => Error::Unreachable { attempt, detail },
            Self::Busy => Error::Busy { attempt, detail },
            Self::Stalled => Error::Stalled { attempt, limit: Duration::ZERO },
            Self::Denied => Error::Denied { attempt, denial: Denial::Credentials, detail },
            Self::Full => Error::Full { attempt, detail },
            Self::Io => Error::Io { attempt, step: "injected fault", source: rustix::io::Errno::IO.into() },
        }
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done, and it fails.
    Fail(Kind),
    /// It is done, and it fails: a lost acknowledgement.
    FailAfterwards(Kind),
    /// A write keeps only this many of its bytes, and fails: a store that shows torn objects. Other calls just fail.
    Tear(usize, Kind),
    /// A read's bytes come with one bit flipped, in the middle. Other calls go through.
    Flip,
    /// The objects are not shown: `get` finds nothing, `head` and `list` neither. Other calls go through.
    Hide,
    /// It waits until [`Faults::release`], and then goes through.
    Block,
}

/// Which calls meet which fault.
#[derive(Debug, Clone)]
pub struct Rule {
    operation: Option<Operation>,
    prefix: String,
    skip: u64,
    times: u64,
    fault: Fault,
}

impl Rule {
    /// Calls of one operation on paths that begin with `prefix`.
    pub fn on(operation: Operation, prefix: &str) -> Matching {
        Matching { operation: Some(operation), prefix: prefix.to_owned(), skip: 0 }
    }

    /// Calls of any operation on paths that begin with `prefix`.
    pub fn any(prefix: &str) -> Matching {
        Matching { operation: None, prefix: prefix.to_owned(), skip: 0 }
    }

    /// A listing meets a rule if it could show objects with the rule's prefix.
    fn matches(&self, operation: Operation, path: &str) -> bool {
        let meets = match operation {
            Operation::List => path.starts_with(&self.prefix) || self.prefix.starts_with(path),
            _ => path.starts_with(&self.prefix),
        };
        meets && self.operation.is_none_or(|wanted| wanted == operation)
    }
}

/// A rule without its fault yet.
#[derive(Debug, Clone)]
pub struct Matching {
    operation: Option<Operation>,
    prefix: String,
    skip: u64,
}

impl Matching {
    /// Lets the first `count` matching calls through.
    #[must_use]
    pub fn skipping(self, count: u64) -> Self {
        Self { skip: count, ..self }
    }

    /// The fault strikes one call.
    pub fn once(self, fault: Fault) -> Rule {
        self.times(1, fault)
    }

    /// The fault strikes this many calls.
    pub fn times(self, times: u64, fault: Fault) -> Rule {
        Rule { operation: self.operation, prefix: self.prefix, skip: self.skip, times, fault }
    }

    /// The fault strikes until [`Faults::clear`].
    pub fn always(self, fault: Fault) -> Rule {
        self.times(u64::MAX, fault)
    }
}

/// The handle of a faulty store, shared between a test and the store. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    rules: Arc<Mutex<Vec<Rule>>>,
    calls: Arc<Mutex<Vec<(Operation, String)>>>,
    gate: Arc<watch::Sender<Gate>>,
}

/// Blocked calls, and how often they were released.
#[derive(Debug, Clone, Copy, Default)]
struct Gate {
    waiting: usize,
    releases: u64,
}

impl Faults {
    /// Wraps a store: the faulty one, and the handle that says how.
    pub fn over(inner: Arc<dyn Storage>) -> (Arc<dyn Storage>, Self) {
        let faults = Self::default();
        (Arc::new(Faulty { inner, faults: faults.clone() }), faults)
    }

    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        lock(&self.rules).push(rule);
    }

    /// Forgets all rules and releases all blocked calls.
    pub fn clear(&self) {
        lock(&self.rules).clear();
        self.release();
    }

    /// Lets all blocked calls go on.
    pub fn release(&self) {
        self.gate.send_modify(|gate| gate.releases += 1);
    }

    /// Waits until at least `count` calls are blocked.
    pub async fn blocked(&self, count: usize) {
        // It ends with an error only if the sender is gone, and we hold it.
        let _ = self.gate.subscribe().wait_for(|gate| gate.waiting >= count).await;
    }

    /// All calls so far, in the order in which they began.
    pub fn calls(&self) -> Vec<(Operation, String)> {
        lock(&self.calls).clone()
    }

    /// Records a call and finds what strikes it.
    fn strike(&self, operation: Operation, path: &str) -> Option<Strike> {
        lock(&self.calls).push((operation, path.to_owned()));
        // Read under the rules' lock: a release that comes after the rule struck is never missed.
        let mut rules = lock(&self.rules);
        let releases = self.gate.borrow().releases;
        rules.iter_mut().filter(|rule| rule.matches(operation, path)).find_map(|rule| {
            if rule.skip > 0 {
                rule.skip -= 1;
                return None;
            }
            rule.times = rule.times.checked_sub(1)?;
            Some(Strike { fault: rule.fault, prefix: rule.prefix.clone(), releases })
        })
    }

    /// Waits for a release after the given one.
    async fn wait(&self, releases: u64) {
        let _waiting = Waiting::new(self);
        let _ = self.gate.subscribe().wait_for(|gate| gate.releases > releases).await;
    }
}

/// A fault that struck a call.
#[derive(Debug)]
struct Strike {
    fault: Fault,
    /// The rule's prefix: what a listing hides.
    prefix: String,
    /// Releases before it struck.
    releases: u64,
}

/// A blocked call: counted until it goes on or is dropped.
struct Waiting<'a>(&'a Faults);

impl<'a> Waiting<'a> {
    fn new(faults: &'a Faults) -> Self {
        faults.gate.send_modify(|gate| gate.waiting += 1);
        Self(faults)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.gate.send_modify(|gate| gate.waiting -= 1);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store that [`Faults::over`] makes.
#[derive(Debug)]
struct Faulty {
    inner: Arc<dyn Storage>,
    faults: Faults,
}

impl Faulty {
    fn attempt(&self, operation: Operation, path: &str) -> Attempt {
        Attempt::new(operation, path, self.inner.location())
    }

    /// Meets the faults that are alike for all operations: what is left to do, if anything is, is the caller's.
    async fn enter(&self, operation: Operation, path: &str) -> Result<Option<Strike>, Error> {
        let strike = self.faults.strike(operation, path);
        match &strike {
            Some(Strike { fault: Fault::Fail(kind), .. }) => Err(kind.error(self.attempt(operation, path))),
            Some(Strike { fault: Fault::Block, releases, .. }) => {
                self.faults.wait(*releases).await;
                Ok(None)
            }
            _ => Ok(strike),
        }
    }

    /// Loses the acknowledgement of what was done, if that is the fault.
    fn leave<T>(&self, operation: Operation, path: &str, strike: Option<Strike>, done: T) -> Result<T, Error> {
        match strike.map(|strike| strike.fault) {
            Some(Fault::FailAfterwards(kind) | Fault::Tear(_, kind)) => Err(kind.error(self.attempt(operation, path))),
            _ => Ok(done),
        }
    }
}

/// What a write keeps of its bytes.
fn torn(bytes: Bytes, strike: Option<&Strike>) -> Bytes {
    match strike {
        Some(Strike { fault: Fault::Tear(kept, _), .. }) => bytes.slice(..(*kept).min(bytes.len())),
        _ => bytes,
    }
}

fn is_hidden(strike: Option<&Strike>) -> bool {
    strike.is_some_and(|strike| strike.fault == Fault::Hide)
}

/// One bit in the middle is flipped, if there is a middle.
fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes.into()
}

#[async_trait]
impl Storage for Faulty {
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        let strike = self.enter(Operation::Get, path).await?;
        if is_hidden(strike.as_ref()) {
            return Err(Error::NotFound { location: self.location(), path: path.to_owned() });
        }
        let bytes = self.inner.get(path, range).await?;
        match &strike {
            Some(Strike { fault: Fault::Flip, .. }) => Ok(flipped(&bytes)),
            _ => self.leave(Operation::Get, path, strike, bytes),
        }
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let strike = self.enter(Operation::Put, path).await?;
        self.inner.put(path, torn(bytes, strike.as_ref())).await?;
        self.leave(Operation::Put, path, strike, ())
    }

    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        let strike = self.enter(Operation::PutIfAbsent, path).await?;
        let written = self.inner.put_if_absent(path, torn(bytes, strike.as_ref())).await?;
        self.leave(Operation::PutIfAbsent, path, strike, written)
    }

    async fn head(&self, path: &str) -> Result<Option<u64>, Error> {
        let strike = self.enter(Operation::Head, path).await?;
        if is_hidden(strike.as_ref()) {
            return Ok(None);
        }
        let length = self.inner.head(path).await?;
        self.leave(Operation::Head, path, strike, length)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let strike = self.enter(Operation::List, prefix).await?;
        let mut listed = self.inner.list(prefix).await?;
        if let Some(Strike { fault: Fault::Hide, prefix, .. }) = &strike {
            listed.retain(|object| !object.path.starts_with(prefix));
        }
        self.leave(Operation::List, prefix, strike, listed)
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        let strike = self.enter(Operation::Delete, path).await?;
        self.inner.delete(path).await?;
        self.leave(Operation::Delete, path, strike, ())
    }

    async fn written_ms(&self, path: &str) -> Result<Option<u64>, Error> {
        let strike = self.enter(Operation::Head, path).await?;
        let written = if is_hidden(strike.as_ref()) { None } else { self.inner.written_ms(path).await? };
        self.leave(Operation::Head, path, strike, written)
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

    async fn retention(&self, path: &str, version: &str) -> Result<Option<Retention>, Error> {
        let strike = self.enter(Operation::Lock, path).await?;
        let found = self.inner.retention(path, version).await?;
        self.leave(Operation::Lock, path, strike, found)
    }

    async fn set_retention(&self, path: &str, version: &str, retention: Retention) -> Result<(), Error> {
        let strike = self.enter(Operation::Lock, path).await?;
        self.inner.set_retention(path, version, retention).await?;
        self.leave(Operation::Lock, path, strike, ())
    }
}
