//! Runs engine plugins: the only room that knows wasmtime. One guest, one store, one thread, one job's grants.
//!
//! A guest can do only what its [`Grants`] name, within its [`Limits`]; a trap, a loop or a lie fails its job and nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_repository::{BackupReader, BackupWriter, Digest};

/// The WASM engine, its epoch clock and the authenticated cache of compiled code. One for each process.
#[derive(Clone)]
pub struct Runtime {}

/// Where compiled code is kept, and what authenticates it before it is loaded.
pub struct RuntimeOptions {
    pub cache_directory: PathBuf,
    pub cache_key: [u8; 32],
}

impl Runtime {
    pub fn new(options: RuntimeOptions) -> Result<Self, Failure> { todo!() }
    /// Compiles a component (or takes it from the cache), checks its imports, and asks it to describe itself.
    pub async fn load(&self, component: Arc<[u8]>) -> Result<Plugin, Failure> { todo!() }
}

/// A loaded plugin. Cheap to clone.
#[derive(Clone)]
pub struct Plugin {}

/// What a plugin says of itself (`describe`, JSON, camelCase).
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    pub name: String,
    pub version: String,
    /// The engine's id as in `--engine`, such as `postgres`.
    pub engine: String,
    /// For people, such as `PostgreSQL`.
    pub title: String,
    /// The first is the default.
    pub methods: Vec<Method>,
    /// In the order in which a form would ask.
    pub settings: Vec<Setting>,
    /// Port when `port` is not set.
    pub default_port: u16,
}
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Method {
    pub name: String,
    pub types: Vec<String>,
    /// `directory` (physical: restores to files) or `server`.
    pub restores_to: String,
    pub description: String,
}
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    pub key: String,
    pub description: String,
    #[serde(default)]
    pub secret: bool,
    #[serde(default)]
    pub required: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Allowed values, where they are few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Plugin {
    pub fn description(&self) -> &Description { todo!() }
    pub fn digest(&self) -> Digest { todo!() }
    pub fn component(&self) -> Arc<[u8]> { todo!() }
    /// Runs one export on a thread of its own, to its end, its limits or its cancellation. Returns the export's JSON document.
    pub async fn run(&self, call: Call, grants: Grants, watch: Watch) -> Result<serde_json::Value, Failure> { todo!() }
}

/// Which export, with its request document.
pub enum Call {
    Probe,
    Dump(serde_json::Value),
    Restore(serde_json::Value),
    Verify(serde_json::Value),
}

/// All that one job may touch.
#[derive(Default)]
pub struct Grants {
    pub members: Vec<Member>,
    pub tls: TlsPolicy,
    /// Settings the guest may read, secrets not among them.
    pub settings: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, zeroize::Zeroizing<Vec<u8>>>,
    /// `archive` write side.
    pub writer: Option<Arc<BackupWriter>>,
    pub current: Option<BackupReader>,
    pub parent: Option<BackupReader>,
    pub destination: Option<Destination>,
    pub limits: Limits,
    /// Networks that are never dialled besides link-local and metadata addresses.
    pub denied: Vec<IpAddr>,
}

/// One server of the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    Tcp { host: String, port: u16 },
    /// A Unix socket's full path, such as `/var/run/postgresql/.s.PGSQL.5432`.
    Unix(PathBuf),
}

/// How `start-tls` behaves; decided by the host, never by the guest.
#[derive(Clone, Debug)]
pub struct TlsPolicy {
    pub mode: TlsMode,
    /// PEM; the system's roots without it.
    pub ca: Option<String>,
    /// PEM chain and key.
    pub client: Option<(String, zeroize::Zeroizing<String>)>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode { VerifyFull, VerifyCa, Require, Off }
impl Default for TlsPolicy {
    fn default() -> Self { Self { mode: TlsMode::VerifyFull, ca: None, client: None } }
}

/// Where a restore may write: named roots ("" is the main one), each an existing empty directory.
#[derive(Clone, Debug)]
pub struct Destination {
    pub roots: Vec<(String, PathBuf)>,
    /// uid and gid for all that is created.
    pub owner: Option<(u32, u32)>,
}

/// Bounds on one run.
#[derive(Clone, Debug)]
pub struct Limits {
    pub memory_bytes: usize,
    pub table_elements: usize,
    pub handles: usize,
    /// Bytes handed over in one host call.
    pub hostcall_bytes: usize,
    /// All bytes a guest may write to archive and destination.
    pub output_bytes: u64,
    pub wall: Duration,
    /// Guest code between two host calls.
    pub cpu: Duration,
    pub idle: Duration,
    pub connect: Duration,
}

/// Hears what a guest does while it runs, and can stop it.
#[derive(Clone)]
pub struct Watch {
    pub events: Arc<dyn Events>,
    pub cancel: tokio_util::sync::CancellationToken,
}
/// Called from the guest's thread; must not block.
pub trait Events: Send + Sync {
    /// `level` is `debug`, `info`, `warn` or `error`; control characters are already escaped.
    fn log(&self, level: &str, message: &str);
    fn progress(&self, phase: &str, done: u64, total: Option<u64>, unit: &str);
}

/// Why a run ended without its document.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The plugin's own error.
    #[error("{message}")]
    Reported { code: String, message: String, hint: Option<String>, retryable: bool },
    #[error("the plugin crashed: {message}")]
    Trapped { message: String },
    /// `limit` is a name an operator finds in the docs: `memory`, `wall-time`, `cpu`, `idle`, `output`, `handles`, ...
    #[error("the plugin exceeded its limit: {limit} ({detail})")]
    Limit { limit: &'static str, detail: String },
    #[error("cancelled")]
    Cancelled,
    /// The component cannot be run here at all.
    #[error("not a usable plugin: {0}")]
    Unusable(String),
    /// The host's own side of a host call failed (storage, disk), in words already fit for people.
    #[error("{message}")]
    Host { code: String, message: String, hint: Option<String>, retryable: bool },
}
