//! The cluster that everybody backs up: half of it pgbench's rows, which compress about 40:1, half rows with half-random text,
//! about 3:1. Nothing changes it but what is measured.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use holdfast_tests::cluster::Cluster;
use holdfast_tests::content::Content;
use holdfast_tests::{Account, Failure, PASSWORD, ROLE, Result, ensure};

use crate::Work;
use crate::options::Options;
use crate::scratch::Scratch;

const DATABASE: &str = "bench";

/// The same server for all programs. It keeps the log that a restored cluster needs to become consistent: nobody archives, so
/// that nobody pays for another's archive.
const SETTINGS: &[(&str, &str)] = &[
    ("autovacuum", "off"),
    ("checkpoint_timeout", "1h"),
    ("max_wal_size", "4GB"),
    ("shared_buffers", "256MB"),
    ("wal_keep_size", "1GB"),
    // For filling it: new tables bypass the log.
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
];

/// What it is set to when it is full.
const AS_A_SOURCE: &str = "ALTER SYSTEM SET wal_level = 'replica'; ALTER SYSTEM SET max_wal_senders = 10;";

/// Bytes of pgbench's tables for each unit of scale, indexes included.
const SCALE_BYTES: f64 = 15.0e6;

/// Bytes of a document, with what PostgreSQL adds to a row.
const DOCUMENT_BYTES: f64 = 356.0;

/// A source, with a server that runs.
pub struct Source {
    cluster: Cluster,
    account: Account,
    /// What it holds since the last change, once somebody asked.
    content: RefCell<Option<Content>>,
}

impl Source {
    /// The one that an earlier call kept, or a new one.
    pub fn open(options: &Options, scratch: &Scratch) -> Result<Self> {
        let root = scratch.cluster();
        // Written when it is full, with its size.
        let (mark, size) = (root.join("full"), options.gib.to_string());
        let cluster = match fs::read_to_string(&mark) {
            Ok(found) => {
                ensure(found == size, || {
                    format!("the cluster in {} has {found} GiB; name another directory", root.display())
                })?;
                let mut cluster = Cluster::reopened(root)?;
                cluster.start()?;
                cluster
            }
            Err(_) => {
                if root.exists() {
                    fs::remove_dir_all(root)?;
                }
                eprintln!("filling a cluster of {size} GiB in {}", root.display());
                let cluster = fill(root, options.gib)?;
                fs::write(mark, size)?;
                cluster
            }
        };
        let source = Self { cluster, account: Account::for_databases()?, content: RefCell::new(None) };
        source.read_all()?;
        Ok(source)
    }

    /// Its server's process id.
    pub fn process(&self) -> Result<u32> {
        self.cluster.process()
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whom the server runs as, and all programs that read its files.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Changes what a piece of work begins with.
    pub fn change(&self, work: Work) -> Result {
        let number: u64 = self.query("SELECT nextval('changes')")?.parse()?;
        let which = |key: &str, table: &str| match work {
            Work::Clustered => {
                // Another hundredth each time.
                let part = number * 37 % 99;
                let edge = |part: u64| format!("(SELECT max({key}) * {part} / 100 FROM {table})");
                Some(format!("{key} > {} AND {key} <= {}", edge(part), edge(part + 1)))
            }
            Work::Scattered => Some(format!("mod(hashint8extended({key}, {number}), 100) = 0")),
            Work::First | Work::Unchanged | Work::Restore | Work::Verify => None,
        };
        let (Some(accounts), Some(documents)) = (which("aid", "pgbench_accounts"), which("id", "documents")) else {
            return Ok(());
        };
        self.content.replace(None);
        self.query(&format!(
            "UPDATE pgbench_accounts SET abalance = abalance + 17 WHERE {accounts};
             UPDATE documents SET body = overlay(body placing md5(body) from 40) WHERE {documents};"
        ))?;
        self.read_all()
    }

    /// Readers write down in a page which transactions ended: that happens here, and not while somebody measures.
    fn read_all(&self) -> Result {
        self.query("SELECT count(*) FROM pgbench_accounts; SELECT count(*) FROM documents;").map(drop)
    }

    /// Leaves nothing to be written by anybody while something is measured.
    pub fn settle(&self) -> Result {
        self.query("CHECKPOINT")?;
        rustix::fs::sync();
        Ok(())
    }

    /// Starts a server on a restored data directory and fails unless it holds what the source holds.
    pub fn must_equal(&self, restored: &Path, scratch: &Scratch) -> Result {
        if !restored.join("postgresql.conf").exists() {
            // Debian keeps it elsewhere, so that a copy of the data has none.
            fs::write(restored.join("postgresql.conf"), "")?;
            fs::write(restored.join("pg_hba.conf"), "local all all trust\n")?;
        }
        let mut copy = Cluster::restored(&scratch.empty("copy")?, restored)?;
        copy.set(format!("restore_command=cp '{}/pg_wal/%f' '%p'", self.cluster.data().display()));
        copy.start()?;
        if self.content.borrow().is_none() {
            self.content.replace(Some(Content::of(&self.cluster)?));
        }
        let content = self.content.borrow();
        let content = content.as_ref().ok_or_else(|| Failure::new("the source was not read"))?;
        content.must_equal(&Content::of(&copy)?)?;
        copy.stop()
    }

    fn query(&self, sql: &str) -> Result<String> {
        self.cluster.sql(DATABASE, sql)
    }
}

fn fill(root: &Path, gib: f64) -> Result<Cluster> {
    let mut cluster = Cluster::create(root, SETTINGS)?;
    let half = gib * f64::from(1 << 30) / 2.0;
    cluster.sql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
    cluster.fill(DATABASE, (half / SCALE_BYTES) as u32)?;
    let documents = (half / DOCUMENT_BYTES) as u64;
    cluster.sql(
        DATABASE,
        &format!(
            "CREATE SEQUENCE changes;
             CREATE TABLE documents AS SELECT n AS id,
                 'document ' || n || ' was received by the office in the morning: '
                 || md5(n::text) || ' ' || md5((n + 0.1)::text) || ' ' || md5((n + 0.2)::text) || ' ' || md5((n + 0.3)::text)
                 || ' and it was sent to its readers by the usual way: '
                 || md5((n + 0.4)::text) || ' ' || md5((n + 0.5)::text) AS body
             FROM generate_series(1::bigint, {documents}) n;
             VACUUM FREEZE;
             {AS_A_SOURCE}"
        ),
    )?;
    cluster.stop()?;
    cluster.start()?;
    cluster.create_backup_role(ROLE, PASSWORD)?;
    Ok(cluster)
}
