//! Standbys: servers that follow another one, until they are promoted.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::cluster::{Cluster, finished};

impl Cluster {
    /// A standby of a running cluster, in a new directory; it runs, and has caught up.
    pub fn standby_of(primary: &Self, root: &Path) -> Result<Self> {
        let data = root.join("data");
        let mut standby = primary.sibling(root, &data)?;
        let mut copy = primary.client("pg_basebackup");
        copy.args(["--checkpoint=fast", "--wal-method=stream", "--no-sync", "--write-recovery-conf"]);
        finished(copy.arg("--pgdata").arg(&data))?;
        // Debian keeps the configuration elsewhere.
        fs::write(data.join("postgresql.conf"), "fsync = off\n")?;
        standby.admit("host")?;
        // What the client wrote down may have words that an older server does not know.
        standby.set(format!(
            "primary_conninfo=host={} port={} user=postgres",
            primary.socket_directory().display(),
            primary.port()
        ));
        standby.start()?;
        standby.catch_up(primary)?;
        Ok(standby)
    }

    /// Returns once this standby has replayed all that the primary has written until now.
    pub fn catch_up(&self, primary: &Self) -> Result {
        let written = primary.sql("postgres", "SELECT pg_current_wal_flush_lsn()")?;
        self.until(&format!("pg_last_wal_replay_lsn() >= '{written}'"))
    }

    /// Makes this standby a primary; returns once it is.
    pub fn promote(&self) -> Result {
        self.sql("postgres", "SELECT pg_promote()").map(drop)
    }
}
