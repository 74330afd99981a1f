//! The catalog: what the appliance knows about instances, targets, backups, their copies, jobs and tokens. The only SQL.
//!
//! Its interface is by intent and free of SQL and of SQLite's types: another implementation may stand behind it. It knows rows and what
//! must hold between them (one running backup an instance, one name a backup, no job lost); it knows no policy, keys or clock: times are
//! given by the caller in milliseconds since 1970, secrets come sealed.
//!
//! A change is durable when its call returns. A change that was asked for is made even if its caller stops waiting.

mod audit;
mod backups;
mod copies;
mod counts;
mod database;
mod error;
mod idempotency;
mod instances;
mod job_log;
mod jobs;
mod lifecycle;
mod losses;
mod meta;
mod migrations;
mod page;
mod plugins;
mod policies;
mod queue;
mod retention;
mod rows;
mod scope;
mod snapshot;
mod states;
mod targets;
mod tokens;

#[cfg(test)]
mod fixtures;

use std::path::Path;
use std::sync::Arc;

pub use audit::AuditRow;
pub use backups::{BackupRow, BackupSuccess, HoldRow, InsertedBackup};
pub use copies::{CopyRow, OffsiteRow, TargetCounts};
pub use counts::Counts;
pub use error::Error;
pub use idempotency::IdempotencyKey;
pub use instances::InstanceRow;
pub use job_log::{JOB_LOG_LINES_MAX, LogRow};
pub use jobs::{JobCounts, JobError, JobFilter, JobProgress, JobRow, NewJob};
pub use lifecycle::BackupEdit;
pub use losses::{LossRow, LostRangeRow};
pub use page::Page;
pub use plugins::PluginRow;
pub use policies::{FormerSpec, PolicyRow, PolicySpec, RetentionRules};
pub use queue::{JobOutcome, LaneLimits};
pub use retention::RetentionRow;
pub use scope::Scope;
pub use snapshot::{SNAPSHOT_VERSION, Snapshot};
pub use states::{BackupState, CopyState, JobState, TargetRole, UnknownWord};
pub use targets::TargetRow;
pub use tokens::TokenRow;

use tokio::sync::watch;

/// The catalog. Cheap to clone; dropping the last clone waits for the changes under way and closes the file.
#[derive(Clone, Debug)]
pub struct Catalog(Arc<database::Database>);

impl Catalog {
    /// Opens the catalog file (0600), making it where it is absent and bringing an older one up to date after copying it to
    /// `catalog-before-N.db` beside it. A file that a newer program wrote is refused.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self(Arc::new(database::Database::open(path).await?)))
    }

    /// A number that grows with each commit, for those who wait for news.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }
}
