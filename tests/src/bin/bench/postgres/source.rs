//! The cluster that everybody backs up: half of it pgbench's rows, which compress about 40:1, half rows with half-random text,
//! about 3:1. Nothing changes it but what is measured.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use holdfast_tests::cluster::Cluster;
use holdfast_tests::content::Content;
use holdfast_tests::{Account, Failure, PASSWORD, ROLE, Result};

use crate::postgres::Work;
use crate::postgres::options::Options;
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
    /// One of the size that is asked for.
    pub fn open(options: &Options, scratch: &Scratch) -> Result<Self> {
        let cluster = scratch.cluster(&format!("{} GiB", options.gib), |root| fill(root, options.gib))?;
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
        match work {
            Work::Clustered => {
                // Another hundredth each time.
                let part = self.number_of_change()? * 37 % 99;
                let edge = |key: &str, table: &str, part| format!("(SELECT max({key}) * {part} / 100 FROM {table})");
                self.update(|key, table| {
                    format!("{key} > {} AND {key} <= {}", edge(key, table, part), edge(key, table, part + 1))
                })
            }
            Work::Scattered | Work::Daily => {
                let seed = self.number_of_change()?;
                self.update(|key, _| format!("mod(hashint8extended({key}, {seed}), 100) = 0"))
            }
            _ => Ok(()),
        }
    }

    fn number_of_change(&self) -> Result<u64> {
        Ok(self.query("SELECT nextval('changes')")?.parse()?)
    }

    /// Updates the rows of both tables for which a condition holds, given the key and the table.
    fn update(&self, which: impl Fn(&str, &str) -> String) -> Result {
        self.content.replace(None);
        let (accounts, documents) = (which("aid", "pgbench_accounts"), which("id", "documents"));
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
