//! The open file: one thread that writes, a small pool of connections that read.
//!
//! A write runs in a transaction of its own: all of it is durable, or nothing of it happened. A read sees one state of the catalog from
//! its beginning to its end. Nothing else in this crate opens a connection, but for the migrations before the first use.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::error::Fault;
use crate::{Catalog, Error, migrations};

/// Reads that run side by side.
const READERS: usize = 4;
/// How long to wait for a lock that another process holds, before saying so.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

type Write = Box<dyn FnOnce(&mut Connection) + Send>;

/// The open catalog file. The readers are closed first: the writer, closed last, folds the log into the file.
pub(crate) struct Database {
    readers: Readers,
    writer: Writer,
    changes: watch::Sender<u64>,
}

impl Database {
    /// Opens the file and brings its schema up to date.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let step = "opening the catalog";
        let path = path.to_owned();
        let opening = move || Self::open_blocking(path).map_err(|fault| fault.at(step));
        tokio::task::spawn_blocking(opening).await.map_err(|_| Error::Stopped { step })?
    }

    fn open_blocking(path: PathBuf) -> Result<Self, Fault> {
        migrations::create_file(&path)?;
        let mut connection = connect(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        migrations::migrate(&mut connection, &path)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        Ok(Self { readers: Readers::new(path), writer: Writer::start(connection)?, changes: watch::Sender::new(0) })
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("path", &self.readers.path).finish_non_exhaustive()
    }
}

impl Catalog {
    /// Runs `work` on the writer's thread in a transaction, which is committed if it succeeds.
    pub(crate) async fn write<T, F>(&self, step: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, Fault> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let changes = self.0.changes.clone();
        let write: Write = Box::new(move |connection| {
            // Whoever asked may have gone; the change was made all the same.
            let _ = answer.send(transact(connection, &changes, work));
        });
        self.0.writer.send(write).ok_or(Error::Stopped { step })?;
        let result = answered.await.map_err(|_| Error::Stopped { step })?;
        result.map_err(|fault| fault.at(step))
    }

    /// Runs `work` on one unchanging state of the catalog.
    pub(crate) async fn read<T, F>(&self, step: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    {
        let readers = self.0.readers.clone();
        let permit = readers.permits.clone().acquire_owned().await.map_err(|_| Error::Stopped { step })?;
        let reading = move || {
            let _permit = permit;
            readers.with(work)
        };
        let result = tokio::task::spawn_blocking(reading).await.map_err(|_| Error::Stopped { step })?;
        result.map_err(|fault| fault.at(step))
    }
}

fn transact<T>(
    connection: &mut Connection,
    changes: &watch::Sender<u64>,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let rows_before = connection.total_changes();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let value = work(&transaction)?;
    transaction.commit()?;
    if connection.total_changes() != rows_before {
        changes.send_modify(|number| *number += 1);
    }
    Ok(value)
}

/// The thread that writes.
struct Writer {
    /// Present until it is dropped.
    queue: Option<mpsc::Sender<Write>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    fn start(mut connection: Connection) -> Result<Self, Fault> {
        let (queue, writes) = mpsc::channel::<Write>();
        let thread = std::thread::Builder::new().name("catalog".to_owned()).spawn(move || {
            for write in writes {
                write(&mut connection);
            }
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// None if the thread is gone.
    fn send(&self, write: Write) -> Option<()> {
        self.queue.as_ref()?.send(write).ok()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the catalog's writer had panicked");
        }
    }
}

/// Connections that can only read, opened when they are first needed.
#[derive(Clone)]
struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    fn new(path: PathBuf) -> Self {
        Self { path, permits: Arc::new(Semaphore::new(READERS)), idle: Arc::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let pooled = idle().pop();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
        };
        let result = connection.transaction().map_err(Fault::from).and_then(|transaction| work(&transaction));
        idle().push(connection);
        result
    }
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection, Fault> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(128);
    if access.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
        let mode: String = connection.query_row("PRAGMA journal_mode = wal", [], |row| row.get(0))?;
        if mode != "wal" {
            let message = format!("the file system allows no write-ahead log, only '{mode}'");
            return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, message).into());
        }
        // What was said to be recorded survives a power cut.
        connection.pragma_update(None, "synchronous", "full")?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Fixture;

    #[tokio::test]
    async fn each_commit_is_news_and_nothing_else_is() {
        let catalog = Fixture::new().await;
        let mut changes = catalog.changes();
        catalog.set_meta("a", b"1").await.unwrap();
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        catalog.meta("a").await.unwrap();
        catalog.revoke_token("nobody").await.unwrap();
        catalog.heartbeat("no job", 1).await.unwrap_err();
        assert!(!changes.has_changed().unwrap());
    }

    #[tokio::test]
    async fn a_write_that_fails_leaves_nothing() {
        let catalog = Fixture::new().await;
        let result: Result<(), Error> = catalog
            .write("failing", |db| {
                db.execute("INSERT INTO meta VALUES ('half', x'00')", [])?;
                Err(Error::NotEmpty.into())
            })
            .await;
        assert!(matches!(result, Err(Error::NotEmpty)));
        assert_eq!(catalog.meta("half").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_change_is_made_though_its_caller_stops_waiting() {
        let catalog = Fixture::new().await;
        let mut changes = catalog.changes();
        let (proceed, blocked) = mpsc::channel::<()>();
        let write = catalog.write("waiting", move |db| {
            let _ = blocked.recv();
            Ok(db.execute("INSERT INTO meta VALUES ('made', x'01')", [])?)
        });
        // Polled once, the write is with the writer; then its caller goes.
        tokio::select! {
            biased;
            _ = write => panic!("the write cannot have ended"),
            () = std::future::ready(()) => {}
        }
        proceed.send(()).unwrap();
        changes.changed().await.unwrap();
        assert_eq!(catalog.meta("made").await.unwrap(), Some(vec![1]));
    }

    #[tokio::test]
    async fn a_full_disk_is_named_and_the_catalog_goes_on_when_there_is_room() {
        let catalog = Fixture::new().await;
        let limit_pages = |pages: Option<i64>| {
            catalog.write("limiting", move |db| {
                let count: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
                let query = format!("PRAGMA max_page_count = {}", pages.unwrap_or(count));
                Ok(db.query_row(&query, [], |row| row.get::<_, i64>(0))?)
            })
        };
        limit_pages(None).await.unwrap();
        let large = vec![7; 1 << 20];
        let error = catalog.set_meta("large", &large).await.unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error}");
        assert!(error.hint().is_some());
        assert_eq!(catalog.meta("large").await.unwrap(), None);
        limit_pages(Some(1 << 30)).await.unwrap();
        catalog.set_meta("large", &large).await.unwrap();
        assert_eq!(catalog.meta("large").await.unwrap(), Some(large));
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_read_is_called_damage() {
        let catalog = Fixture::new().await;
        catalog.succeeded("b1", "pg", 1_000).await;
        let break_it = "UPDATE backups SET state = 'Sideways'";
        catalog.write("breaking", move |db| Ok(db.execute(break_it, [])?)).await.unwrap();
        let error = catalog.backup_by_uid("b1").await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }

    #[tokio::test]
    async fn more_reads_than_readers_all_end() {
        let catalog = Fixture::new().await;
        catalog.set_meta("a", b"1").await.unwrap();
        let reads: Vec<_> = (0..READERS * 8)
            .map(|_| {
                let catalog = Catalog::clone(&catalog);
                tokio::spawn(async move { catalog.meta("a").await })
            })
            .collect();
        for read in reads {
            assert_eq!(read.await.unwrap().unwrap().as_deref(), Some(&b"1"[..]));
        }
    }

    #[tokio::test]
    async fn a_panic_stops_the_catalog_instead_of_going_on() {
        let catalog = Fixture::new().await;
        let result: Result<(), Error> = catalog.write("breaking", |_| panic!("a test's panic")).await;
        assert!(matches!(result, Err(Error::Stopped { .. })));
        assert!(matches!(catalog.set_meta("a", b"1").await, Err(Error::Stopped { .. })));
    }
}
