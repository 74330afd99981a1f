//! What can go wrong with the catalog, told by the step that failed and without SQLite's types.

use std::error::Error as StdError;

use rusqlite::ErrorCode;

use crate::{BackupState, JobState};

type Source = Box<dyn StdError + Send + Sync>;

/// An error of the catalog.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A live instance has this name.
    #[error("there is an instance '{name}' already")]
    InstanceExists {
        /// `organization/project/instance`.
        name: String,
    },
    /// A removed instance had this name, and adopting it was not asked for.
    #[error("the name '{name}' belonged to an instance that was removed")]
    NameUsed {
        /// `organization/project/instance`.
        name: String,
    },
    /// A live target has this name.
    #[error("there is a target '{name}' already")]
    TargetExists {
        /// The target's name.
        name: String,
    },
    /// There is a primary target.
    #[error("the target '{name}' is the primary already")]
    PrimaryExists {
        /// Name of the primary.
        name: String,
    },
    /// The instance is being backed up.
    #[error("the backup '{name}' of this instance is still running")]
    BackupRunning {
        /// Uid of the backup that runs.
        uid: String,
        /// Its name.
        name: String,
    },
    /// The instance has a backup of this name, in whatever state.
    #[error("the instance has a backup '{name}' already")]
    NameTaken {
        /// The backup's name.
        name: String,
    },
    /// A token has this name.
    #[error("there is a token '{name}' already")]
    TokenExists {
        /// The token's name.
        name: String,
    },
    /// An installed plugin has this name, or serves this engine.
    #[error("the plugin '{name}' for the engine '{engine}' is installed already")]
    PluginExists {
        /// Name of the installed plugin.
        name: String,
        /// Its engine.
        engine: String,
    },
    /// A live policy has this name.
    #[error("there is a policy '{name}' already")]
    PolicyExists {
        /// The policy's name.
        name: String,
    },
    /// Live instances need the plugin of this engine.
    #[error("{instances} instances have the engine '{engine}'")]
    EngineInUse {
        /// The engine.
        engine: String,
        /// How many instances.
        instances: u64,
    },
    /// An idempotency key came again with another request.
    #[error("the idempotency key '{key}' was used for another request")]
    KeyReused {
        /// The key.
        key: String,
    },
    /// The row is no longer as its editor saw it.
    #[error("{what} '{uid}' was changed meanwhile: it is at version {found}")]
    Stale {
        /// `instance`, `target`, `backup`, `policy`.
        what: &'static str,
        /// Its uid.
        uid: String,
        /// Its version now.
        found: u64,
    },
    /// There is no such row.
    #[error("there is no {what} '{id}'")]
    NotFound {
        /// `instance`, `target`, `backup`, `job`, `token`, `installed plugin`, `policy`.
        what: &'static str,
        /// What it was looked up by.
        id: String,
    },
    /// The backup's state does not allow the change.
    #[error("the backup '{uid}' is {state}")]
    BackupState {
        /// Uid of the backup.
        uid: String,
        /// The state it is in.
        state: BackupState,
    },
    /// Somebody holds the backup.
    #[error("the backup is held by {name}: {reason}")]
    Held {
        /// Uid of the backup.
        uid: String,
        /// Who holds it, or for what.
        name: String,
        /// Why.
        reason: String,
    },
    /// The job's state does not allow the change.
    #[error("the job '{id}' is {state}")]
    JobState {
        /// Id of the job.
        id: String,
        /// The state it is in.
        state: JobState,
    },
    /// The cursor is none that a page ended with.
    #[error("'{0}' is not a cursor of this list")]
    BadCursor(String),
    /// Rows are imported only where there are none.
    #[error("the catalog has rows already")]
    NotEmpty,
    /// The snapshot was written by a newer program.
    #[error("the snapshot has version {found}; this program knows up to {known}")]
    NewerSnapshot {
        /// Its version.
        found: u32,
        /// The newest that this program reads.
        known: u32,
    },
    /// The file was written by a newer program.
    #[error("the catalog has schema {found}; this program knows up to {known}")]
    NewerSchema {
        /// Schema of the file.
        found: u32,
        /// The newest schema that this program knows.
        known: u32,
    },
    /// The file system with the catalog is full. Nothing of the change was made.
    #[error("{step} failed: the file system of the catalog is full")]
    Full {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: Source,
    },
    /// Another process holds the file.
    #[error("{step} failed: another process holds the catalog")]
    Busy {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: Source,
    },
    /// The file, or a row of it, is not what was written.
    #[error("{step} failed: the catalog is damaged")]
    Corrupt {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: Source,
    },
    /// The file could not be read or written.
    #[error("{step} failed")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The cause.
        #[source]
        source: Source,
    },
    /// The catalog was closed, or broke in an earlier call.
    #[error("{step} failed: the catalog has stopped")]
    Stopped {
        /// What was being done.
        step: &'static str,
    },
}

impl Error {
    /// Stable, `kebab-case`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InstanceExists { .. } => "instance-exists",
            Self::NameUsed { .. } => "name-used",
            Self::TargetExists { .. } => "target-exists",
            Self::PrimaryExists { .. } => "primary-exists",
            Self::BackupRunning { .. } => "backup-running",
            Self::NameTaken { .. } => "name-taken",
            Self::TokenExists { .. } => "token-exists",
            Self::PluginExists { .. } => "plugin-exists",
            Self::PolicyExists { .. } => "policy-exists",
            Self::EngineInUse { .. } => "engine-in-use",
            Self::KeyReused { .. } => "idempotency-key-reused",
            Self::Stale { .. } => "changed-meanwhile",
            Self::NotFound { .. } => "not-found",
            Self::BackupState { .. } => "backup-state",
            Self::Held { .. } => "backup-held",
            Self::JobState { .. } => "job-state",
            Self::BadCursor(_) => "bad-cursor",
            Self::NotEmpty => "catalog-not-empty",
            Self::NewerSnapshot { .. } => "newer-snapshot",
            Self::NewerSchema { .. } => "newer-catalog",
            Self::Full { .. } => "disk-full",
            Self::Busy { .. } => "catalog-busy",
            Self::Corrupt { .. } => "catalog-damaged",
            Self::Io { .. } => "catalog-failed",
            Self::Stopped { .. } => "catalog-stopped",
        }
    }

    /// Whether the same change cannot succeed later either. What is full may have room again, and a disk may answer again.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Full { .. } | Self::Busy { .. } | Self::Io { .. })
    }

    /// What to do, where the catalog knows it: a full sentence.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::InstanceExists { .. }
            | Self::TargetExists { .. }
            | Self::NameTaken { .. }
            | Self::TokenExists { .. } => "Choose another name.",
            Self::NameUsed { .. } => {
                "Its backups are still kept. Add the instance with --adopt to go on with them, or choose another name."
            }
            Self::BackupRunning { .. } => "Wait until it has finished, or cancel its job.",
            Self::Held { .. } => "Release it first with `holdfast backup release`, if it is not needed any more.",
            Self::PluginExists { .. } => "Remove that plugin first.",
            Self::PolicyExists { .. } => "Change it with `holdfast policy edit`, or choose another name.",
            Self::EngineInUse { .. } => {
                "Remove those instances first; `holdfast instance list` shows them. Their backups stay, and can be restored without the plugin installed."
            }
            Self::KeyReused { .. } => "Use a new Idempotency-Key for each new request.",
            Self::Stale { .. } => "Read it again and repeat the change on what it is now.",
            Self::BadCursor(_) => "Use `next` of the page before, from the same list.",
            Self::NewerSnapshot { .. } => "Use the version of holdfast that wrote it, or a newer one.",
            Self::NewerSchema { .. } => {
                "Start the newer holdfast again. To go back, stop it and put the copy catalog-before-N.db in the place of catalog.db; what happened since is lost from the catalog."
            }
            Self::Full { .. } => "Free space on the file system of the data directory, then try again.",
            Self::Busy { .. } => "Stop the other process that has the catalog open.",
            Self::Corrupt { .. } => {
                "Stop the appliance, check the disk, and put a copy of catalog.db back, or recover into a new data directory from a target."
            }
            Self::Stopped { .. } => "Restart the appliance; its log says what broke first.",
            _ => return None,
        })
    }
}

/// An error within a step: our own as it is, SQLite's before the step is named.
#[derive(Debug)]
pub(crate) enum Fault {
    Own(Error),
    Sql(rusqlite::Error),
    File(std::io::Error),
    Json(serde_json::Error),
}

impl Fault {
    /// The error of the step in which it happened.
    pub(crate) fn at(self, step: &'static str) -> Error {
        match self {
            Self::Own(error) => error,
            Self::Json(error) => Error::Corrupt { step, source: error.into() },
            Self::File(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                Error::Full { step, source: error.into() }
            }
            Self::File(error) => Error::Io { step, source: error.into() },
            Self::Sql(error) => of_sqlite(step, error),
        }
    }
}

fn of_sqlite(step: &'static str, error: rusqlite::Error) -> Error {
    use rusqlite::Error as Sql;
    let code = error.sqlite_error_code();
    let unreadable = matches!(
        error,
        Sql::FromSqlConversionFailure(..) | Sql::InvalidColumnType(..) | Sql::IntegralValueOutOfRange(..)
    );
    let source = error.into();
    match code {
        Some(ErrorCode::DiskFull) => Error::Full { step, source },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::Busy { step, source },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Error::Corrupt { step, source },
        None if unreadable => Error::Corrupt { step, source },
        _ => Error::Io { step, source },
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}
