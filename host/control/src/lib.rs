//! Operations by noun, which API, UI and jobs call; jobs, a verb a file; the pure rules of policy. No axum, no clap, no SQL.

pub mod resources;
mod error;

pub use error::{Error, ErrorKind};

use resources::*;
use std::path::PathBuf;

/// The appliance: all operations. Cheap to clone.
#[derive(Clone)]
pub struct Appliance {}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the token, or `local socket`.
    pub name: String,
}

/// Name of an instance, `organization/project/instance`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceName { pub organization: String, pub project: String, pub instance: String }

/// What to list.
#[derive(Clone, Debug, Default)]
pub struct ListQuery {
    /// `organization[/project[/instance]]`.
    pub scope: Option<String>,
    /// Only this state.
    pub state: Option<String>,
    /// 1 to 1000, 100 by default.
    pub limit: Option<u32>,
    /// Cursor: `next` of the page before.
    pub after: Option<String>,
}

/// How an appliance starts.
#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    /// Components that came with the binary.
    pub components: Vec<std::sync::Arc<[u8]>>,
    /// `[repository] url`; `file://DATA-DIR/repository` by default.
    pub primary_url: Option<String>,
    /// `[repository] site`; `local` by default.
    pub primary_site: Option<String>,
    /// Backups, restores and verifications that run side by side.
    pub workers: usize,
}

#[allow(unused_variables)]
impl Appliance {
    /// Opens the data directory (making keys, catalog, primary and admin token at first start), heals what a crash left, starts the queue.
    /// The admin token is written to `DATA-DIR/admin-token` (0600) once.
    pub async fn start(options: Options) -> Result<Self, Error> { todo!() }
    /// Stops taking jobs, cancels running ones back to the queue, closes the catalog.
    pub async fn stop(&self) { todo!() }
    /// Whose bearer token this is. Constant time.
    pub async fn authenticate(&self, token: &str) -> Option<Principal> { todo!() }

    pub async fn status(&self) -> Result<Status, Error> { todo!() }
    pub async fn plugins(&self) -> Vec<PluginInfo> { todo!() }

    pub async fn create_instance(&self, who: &Principal, request: CreateInstance) -> Result<Instance, Error> { todo!() }
    pub async fn instances(&self, query: ListQuery) -> Result<Page<Instance>, Error> { todo!() }
    pub async fn instance(&self, name: &InstanceName) -> Result<Instance, Error> { todo!() }
    pub async fn check_instance(&self, name: &InstanceName) -> Result<InstanceCheck, Error> { todo!() }
    pub async fn remove_instance(&self, who: &Principal, name: &InstanceName) -> Result<(), Error> { todo!() }

    /// 422 while another backup of the instance runs; a repeated `idempotency_key` gets its first answer.
    pub async fn create_backup(&self, who: &Principal, name: &InstanceName, request: CreateBackup, idempotency_key: Option<&str>) -> Result<Backup, Error> { todo!() }
    pub async fn backups(&self, query: ListQuery) -> Result<Page<Backup>, Error> { todo!() }
    /// `backup`: a name, a uid or `latest`.
    pub async fn backup(&self, name: &InstanceName, backup: &str) -> Result<Backup, Error> { todo!() }
    pub async fn backup_entries(&self, name: &InstanceName, backup: &str, prefix: &str, after: &str, limit: u32) -> Result<Page<BackupEntry>, Error> { todo!() }
    pub async fn verify_backup(&self, who: &Principal, name: &InstanceName, backup: &str, request: CreateVerification) -> Result<Job, Error> { todo!() }
    pub async fn delete_backup(&self, who: &Principal, name: &InstanceName, backup: &str) -> Result<(), Error> { todo!() }

    pub async fn create_restore(&self, who: &Principal, request: CreateRestore) -> Result<Job, Error> { todo!() }

    pub async fn jobs(&self, query: ListQuery) -> Result<Page<Job>, Error> { todo!() }
    pub async fn job(&self, id: &str) -> Result<Job, Error> { todo!() }
    /// Lines with a sequence above `after`, at most 1000.
    pub async fn job_log(&self, id: &str, after: u64) -> Result<Page<LogLine>, Error> { todo!() }
    pub async fn cancel_job(&self, who: &Principal, id: &str) -> Result<Job, Error> { todo!() }
    /// Told whenever a job or a backup changed: for server-sent events and for waiting.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> { todo!() }

    /// Tests write, read, list, delete and conditional writes there; refuses a prefix with another repository.
    pub async fn create_target(&self, who: &Principal, request: CreateTarget) -> Result<Target, Error> { todo!() }
    pub async fn targets(&self) -> Result<Page<Target>, Error> { todo!() }
    pub async fn target(&self, name: &str) -> Result<Target, Error> { todo!() }
    pub async fn remove_target(&self, who: &Principal, name: &str) -> Result<(), Error> { todo!() }
    /// Queues replication of all that the target lacks, now.
    pub async fn sync_target(&self, who: &Principal, name: &str) -> Result<Target, Error> { todo!() }

    pub async fn add_recipient(&self, who: &Principal, request: CreateRecipient) -> Result<RecipientAdded, Error> { todo!() }
    pub async fn recipients(&self) -> Result<Page<Recipient>, Error> { todo!() }

    pub async fn repository_stats(&self) -> Result<RepositoryStats, Error> { todo!() }
    /// Becomes the writer of a recovered repository; `repository` must be its id.
    pub async fn take_over(&self, who: &Principal, repository: &str) -> Result<Status, Error> { todo!() }
}

/// Makes a data directory from a target and a recovery kit's text. Writes nothing to the target.
pub async fn recover(request: RecoverRequest) -> Result<Recovered, Error> { let _ = request; todo!() }
/// Restores straight from a target with a recovery kit, without any appliance.
pub async fn restore_offline(request: OfflineRestore, watch: holdfast_sandbox::Watch) -> Result<serde_json::Value, Error> { let _ = (request, watch); todo!() }

/// What `recover` needs. `from` takes its credentials from `settings` (`access-key`, `secret-key`).
#[derive(Clone)]
pub struct RecoverRequest { pub from: String, pub settings: holdfast_storage::Settings, pub kit: String, pub data_dir: PathBuf, pub trust_keyring: bool, pub components: Vec<std::sync::Arc<[u8]>> }
/// What `recover` found.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    pub repository: String,
    pub instances: u64,
    pub backups: u64,
    /// `catalog export` or `heads`: what the catalog was made from.
    pub source: String,
    /// Newest head by domain: sequence, time, digest.
    pub heads: Vec<serde_json::Value>,
}
/// An offline restore.
#[derive(Clone)]
pub struct OfflineRestore { pub from: String, pub settings: holdfast_storage::Settings, pub kit: String, pub trust_keyring: bool, pub restore: CreateRestore, pub components: Vec<std::sync::Arc<[u8]>> }
