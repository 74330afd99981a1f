//! A directory on an SFTP server as a store: `sftp://user@host:22/absolute/path`.
//!
//! It speaks SFTP version 3 over SSH, with OpenSSH's extensions where the server offers them: sync, hard link, rename
//! that replaces. It refuses servers whose key is not the one that the operator pinned, and RSA keys. A session that
//! broke is made anew by the next call; trying again is [`crate::Retrying`]'s work. Invariant: a write is acknowledged
//! only after the server synced the file and its name, as far as it offers that.

mod address;
mod failure;
mod listing;
mod login;
mod session;
mod write;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};

use crate::contest::{self, Contestant};
use crate::error::{Attempt, Error, Operation};
use crate::{Finding, Listed, OBJECT_BYTES_MAX, Settings, Storage, Traits, path};
use address::{Address, Credentials};
use failure::Failure;
use login::Login;
use session::{Node, Session};
use write::{Placing, Writer};

/// Operations at a time: the server works on one request after the other, and each holds up to a megabyte on its way.
const OPERATIONS_AT_ONCE: usize = 8;

/// A directory on a server.
pub struct Sftp {
    location: String,
    root: String,
    login: Login,
    session: Mutex<Option<Arc<Session>>>,
    turns: Semaphore,
    writer: Writer,
    /// The server was seen to keep writers apart, by links.
    proven: AtomicBool,
}

impl std::fmt::Debug for Sftp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sftp").field("location", &self.location).finish_non_exhaustive()
    }
}

/// A session, and the right to use it.
struct Turn<'a> {
    session: Arc<Session>,
    _permit: SemaphorePermit<'a>,
}

impl Sftp {
    /// A client for the place that `url` names. Touches no network.
    ///
    /// Errors: [`Error::BadUrl`], [`Error::BadSetting`].
    pub fn open(url: &str, settings: &Settings) -> Result<Self, Error> {
        let address = Address::parse(url)?;
        let credentials = Credentials::parse(settings)?;
        Ok(Self {
            location: address.location(),
            root: address.root.clone(),
            writer: Writer::new(&address.root),
            login: Login::new(address, credentials),
            session: Mutex::default(),
            turns: Semaphore::new(OPERATIONS_AT_ONCE),
            proven: AtomicBool::new(false),
        })
    }

    fn attempt(&self, operation: Operation, path: &str) -> Result<Attempt, Error> {
        let attempt = Attempt::new(operation, path, &self.location);
        match operation {
            Operation::List => path::check_prefix(&attempt)?,
            _ => path::check(&attempt)?,
        }
        Ok(attempt)
    }

    fn full(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }

    /// Waits for a turn, and for a session where there is none.
    async fn turn(&self, attempt: &Attempt) -> Result<Turn<'_>, Error> {
        let stopped = |_| Error::Stopped { attempt: attempt.clone() };
        let permit = self.turns.acquire().await.map_err(stopped)?;
        let mut current = self.session.lock().await;
        let session = match current.as_ref().filter(|session| session.is_open()) {
            Some(session) => Arc::clone(session),
            None => {
                let session = Arc::new(self.login.open(attempt).await?);
                *current = Some(Arc::clone(&session));
                session
            }
        };
        Ok(Turn { session, _permit: permit })
    }

    /// Ends an operation: a session that is of no use is forgotten, so that the next one makes another.
    async fn settle<T>(&self, turn: &Turn<'_>, attempt: Attempt, outcome: Result<T, Failure>) -> Result<T, Error> {
        if outcome.as_ref().is_err_and(Failure::ends_the_session) {
            let mut current = self.session.lock().await;
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &turn.session)) {
                *current = None;
            }
        }
        outcome.map_err(|failure| failure.of(attempt))
    }

    async fn write(&self, attempt: Attempt, bytes: Bytes, placing: Placing) -> Result<bool, Error> {
        let turn = self.turn(&attempt).await?;
        let outcome = self.writer.write(&turn.session, &attempt.path, &bytes, placing).await;
        self.settle(&turn, attempt, outcome).await
    }
}

/// Reads a file, or a range of it cut at its end.
async fn read(session: &Session, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Failure> {
    let handle = session.open(path).await?;
    let bytes = read_open(session, &handle, range).await;
    session.close(&handle).await?;
    bytes?.ok_or(Failure::absence())
}

/// `None` where it is no file.
async fn read_open(session: &Session, handle: &str, range: Option<Range<u64>>) -> Result<Option<Bytes>, Failure> {
    let Node::File(size) = Node::of(&session.attributes(handle).await?) else { return Ok(None) };
    let range = range.unwrap_or(0..size);
    let length = range.end.min(size).saturating_sub(range.start);
    if length > OBJECT_BYTES_MAX {
        return Err(Failure::TooLarge(length));
    }
    session.read(handle, range.start, length).await.map(Some)
}

#[async_trait]
impl Storage for Sftp {
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        let attempt = self.attempt(Operation::Get, path)?;
        let turn = self.turn(&attempt).await?;
        let outcome = read(&turn.session, &self.full(path), range).await;
        self.settle(&turn, attempt, outcome).await
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.write(self.attempt(Operation::Put, path)?, bytes, Placing::Replacing).await.map(|_| ())
    }

    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        self.write(self.attempt(Operation::PutIfAbsent, path)?, bytes, Placing::OnlyIfAbsent).await
    }

    async fn head(&self, path: &str) -> Result<Option<u64>, Error> {
        let attempt = self.attempt(Operation::Head, path)?;
        let turn = self.turn(&attempt).await?;
        let outcome = match turn.session.look_up(&self.full(path)).await {
            Ok(found) => Ok(match Node::of(&found) {
                Node::File(size) => Some(size),
                Node::Directory | Node::Other => None,
            }),
            Err(failure) if failure.is_absence() => Ok(None),
            Err(failure) => Err(failure),
        };
        self.settle(&turn, attempt, outcome).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let attempt = self.attempt(Operation::List, prefix)?;
        let turn = self.turn(&attempt).await?;
        let outcome = listing::list(&turn.session, &self.root, prefix).await;
        self.settle(&turn, attempt, outcome).await
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        let attempt = self.attempt(Operation::Delete, path)?;
        let turn = self.turn(&attempt).await?;
        let outcome = self.writer.remove(&turn.session, path).await;
        self.settle(&turn, attempt, outcome).await
    }

    fn traits(&self) -> Traits {
        Traits { conditional_writes: self.proven.load(Ordering::Relaxed) }
    }

    fn location(&self) -> String {
        self.location.clone()
    }

    async fn try_conditional_writes(&self, scratch: &str) -> Result<bool, Error> {
        let proven = contest::keeps_writers_apart(self, scratch).await? && !self.writer.renames();
        self.proven.store(proven, Ordering::Relaxed);
        Ok(proven)
    }

    async fn examine(&self, scratch: &str) -> Result<Vec<Finding>, Error> {
        let attempt = self.attempt(Operation::Put, scratch)?;
        let turn = self.turn(&attempt).await?;
        let offers = turn.session.offers;
        let synced = turn.session.sync_directory(&self.root).await;
        let names_are_synced = self.settle(&turn, attempt, synced).await?;
        Ok(vec![
            match (offers.sync, names_are_synced) {
                (true, true) => Finding::new("sync", true, "files and directories are synced before a write counts"),
                (true, false) => Finding::new(
                    "sync",
                    false,
                    "files are synced, but not their directories: a power cut there may take new names away",
                ),
                (false, _) => Finding::new(
                    "sync",
                    false,
                    "the server cannot sync: a power cut there may take away what it acknowledged",
                ),
            },
            match offers.link && !self.writer.renames() {
                true => Finding::new("hard-link", true, "new objects get their names by a link, which never replaces"),
                false => Finding::new("hard-link", false, "new objects get their names by a rename, which may replace"),
            },
        ])
    }

    async fn holder(&self) -> Result<String, Error> {
        Ok(format!("the server {}", self.login.server()))
    }

    fn learned(&self) -> Settings {
        self.login.learned().as_deref().map(address::pinned).unwrap_or_default()
    }
}

#[async_trait]
impl Contestant for Sftp {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        self.put_if_absent(path, bytes).await
    }
}
