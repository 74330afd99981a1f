//! The archive store: chunks, packs, indexes, manifests, keys, and the signed heads that make a backup exist.
//!
//! The stored form is `FORMAT.md`, which is the law. This room can restore with no catalog, no server and no appliance;
//! it knows nothing of axum, SQL or wasmtime. All storage calls run on the runtime that was current when the
//! repository was opened, so callers may poll from any other one (a guest's thread has its own).

mod ids;
mod keyring;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use ids::{BackupId, Digest, DomainId, InstanceId, RepositoryId, WriterId};
pub use keyring::{Keyring, RecoveryKit, SharedKeyring, UnlockKey, VerifyKey};

use holdfast_storage::Storage;

/// A repository at one target. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {}

/// What the chunker sees in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentClass {
    /// Cut at fixed sizes, aligned to this page size in bytes.
    Pages(u32),
    /// Cut by content.
    Bytes,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    /// A symbolic link and its target.
    Symlink(String),
}

/// One named byte stream inside a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, `/` between parts, no empty, `.` or `..` part.
    pub path: String,
    pub kind: EntryKind,
    /// Declared size in bytes; enforced when given. Always there in what is read back (files).
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
    pub annotations: BTreeMap<String, String>,
}

/// What a backup is before its first byte.
#[derive(Clone, Debug)]
pub struct BackupPlan {
    /// Chosen by the caller, so that a retried job can tell its attempts apart.
    pub backup: BackupId,
    pub domain: DomainId,
    /// Earlier backup of the same instance at this target, whose unchanged chunks are asked for first.
    pub parent: Option<BackupId>,
    /// The plugin's component: stored at the target if it is not there yet.
    pub component: Arc<[u8]>,
    /// Milliseconds since 1970.
    pub started_ms: u64,
}

/// All that the head's directory says about a backup (FORMAT §8). Times in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRecord {
    pub backup: BackupId,
    pub instance: InstanceId,
    pub organization: String,
    pub project: String,
    pub instance_name: String,
    pub name: String,
    pub description: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub engine: String,
    pub method: String,
    /// `full`, `incremental` or `log`.
    pub backup_type: String,
    /// `name@version`.
    pub plugin: String,
    pub component: Digest,
    pub created_ms: u64,
    pub started_ms: u64,
    pub finished_ms: u64,
    pub entries: u64,
    pub logical_bytes: u64,
    pub stored_bytes: u64,
    pub parent: Option<BackupId>,
    pub warnings: Vec<String>,
    pub verifications: Vec<Verification>,
    pub site: String,
}

/// One proof, or failed proof, of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// `bytes`, `engine` or `drill`.
    pub level: String,
    pub target: String,
    pub at_ms: u64,
    pub passed: bool,
    pub detail: String,
}

/// What `repository stats` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub backups: u64,
    pub chunks: u64,
    pub packs: u64,
    pub logical_bytes: u64,
    pub stored_bytes: u64,
}

/// The newest head of one domain, for the rollback check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadSeen {
    pub domain: DomainId,
    pub sequence: u64,
    pub digest: Digest,
    pub written_ms: u64,
    pub epoch: u64,
}

/// What a copy to another target moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub objects: u64,
    pub bytes: u64,
}

impl Repository {
    /// Opens the repository at `storage`, or creates it where the place is empty.
    ///
    /// Errors: another repository lies there; the newest signed keyring does not fit; the store does not answer.
    pub async fn open_or_create(storage: Arc<dyn Storage>, keyring: SharedKeyring) -> Result<Self, Error> { todo!() }
    /// Opens without writing anything, not even `repository.json` (recovery, offline restore).
    pub async fn open_read_only(storage: Arc<dyn Storage>, keyring: SharedKeyring) -> Result<Self, Error> { todo!() }
    pub fn location(&self) -> String { todo!() }

    /// Live backups of a domain by the newest heads (re-read at each call, cheaply: only heads not seen yet).
    pub async fn backups(&self, domain: DomainId) -> Result<Vec<BackupRecord>, Error> { todo!() }
    pub async fn newest_heads(&self) -> Result<Vec<HeadSeen>, Error> { todo!() }
    pub async fn stats(&self) -> Result<Stats, Error> { todo!() }

    /// Begins a backup. Nothing is visible before [`BackupWriter::commit`]; a dropped writer leaves garbage only.
    pub async fn begin_backup(&self, plan: BackupPlan) -> Result<BackupWriter, Error> { todo!() }
    /// Opens a backup's manifest.
    pub async fn open_backup(&self, domain: DomainId, backup: BackupId) -> Result<BackupReader, Error> { todo!() }
    /// The plugin's component, checked against its digest.
    pub async fn component(&self, digest: Digest) -> Result<Vec<u8>, Error> { todo!() }

    /// Records changed facts about backups (verifications, labels ...) in a new head.
    pub async fn amend(&self, domain: DomainId, records: Vec<BackupRecord>) -> Result<(), Error> { todo!() }
    /// Forgets a backup: a head with a tombstone. Its chunks stay until prune.
    pub async fn remove_backup(&self, domain: DomainId, backup: BackupId, now_ms: u64) -> Result<(), Error> { todo!() }

    /// Makes a backup of `source` exist here: copies, verbatim and checked by digest, what it needs and this target lacks, then writes
    /// this target's own head. Safe to run again; done work is not repeated. `progress` is told (done, total) bytes.
    pub async fn copy_backup(&self, source: &Repository, domain: DomainId, backup: BackupId, progress: &(dyn Fn(u64, u64) + Send + Sync)) -> Result<Copied, Error> { todo!() }

    /// Writes the current keyring for its recipients at this target, if it is not there yet.
    pub async fn publish_keyring(&self) -> Result<(), Error> { todo!() }
    /// The sealed (age) bytes of the newest keyring at this target.
    pub async fn sealed_keyring(&self) -> Result<Option<Vec<u8>>, Error> { todo!() }
    /// Becomes the writer: writes, in every domain, a head with an epoch above all that are there.
    pub async fn take_over(&self) -> Result<(), Error> { todo!() }
}

/// Opens the keyring at a target with a recovery identity. Without a pin in the kit, only if `trust` is set.
///
/// Errors: no keyring there; no recipient fits this identity; the signature does not lead to the pinned verify key; another repository.
pub async fn recover_keyring(storage: &dyn Storage, kit: &RecoveryKit, trust: bool) -> Result<Keyring, Error> { todo!() }

/// Writes one backup. Shared by reference: several entries may be open at once.
#[derive(Debug)]
pub struct BackupWriter {}

impl BackupWriter {
    /// Begins a file's bytes; directories and links need no bytes: `finish` the writer at once. A path may come once only.
    pub async fn begin_entry(&self, entry: Entry, class: ContentClass) -> Result<EntryWriter, Error> { todo!() }
    /// Adds an annotation to an entry that was finished.
    pub async fn annotate(&self, path: &str, key: &str, value: &str) -> Result<(), Error> { todo!() }
    /// Entries finished and bytes received so far.
    pub fn totals(&self) -> (u64, u64) { todo!() }
    /// Bytes stored (sealed) so far.
    pub fn stored_bytes(&self) -> u64 { todo!() }
    /// Waits for all bytes to be durable, then writes index, refs, keys, manifest and the head: the backup exists only from here.
    /// `record` becomes the directory's record, its totals filled in by the writer; `document` is the plugin's inventory (JSON).
    pub async fn commit(self, record: BackupRecord, document: String) -> Result<BackupRecord, Error> { todo!() }
}

/// Receives one entry's bytes. Dropped unfinished, the entry is not in the backup.
#[derive(Debug)]
pub struct EntryWriter {}

impl EntryWriter {
    /// Room for bytes to be read into directly (at least 1 byte, up to the rest of the chunk); then [`Self::advance`].
    pub fn space(&mut self) -> &mut [u8] { todo!() }
    /// Says that `count` bytes of the space were filled. Waits while the pipeline is full.
    pub async fn advance(&mut self, count: usize) -> Result<(), Error> { todo!() }
    /// Copies bytes in. Waits while the pipeline is full.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> { todo!() }
    /// Ends the entry: its size in bytes. An error where a declared size was not met.
    pub async fn finish(self) -> Result<u64, Error> { todo!() }
}

/// Reads one backup from one target. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BackupReader {}

impl BackupReader {
    /// The plugin's inventory (JSON).
    pub fn document(&self) -> &str { todo!() }
    pub fn component(&self) -> Digest { todo!() }
    /// Entries whose path begins with `prefix` and comes after `after`, sorted by path, at most `limit`.
    pub async fn entries(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<Entry>, Error> { todo!() }
    /// Opens a range of an entry's bytes, to its end without a length.
    pub async fn open(&self, path: &str, offset: u64, length: Option<u64>) -> Result<ContentReader, Error> { todo!() }
    /// Digest of a whole entry by `sha256`, `crc32c` or `blake3`; hashed while read, on the worker pool.
    pub async fn digest(&self, path: &str, algorithm: &str) -> Result<Vec<u8>, Error> { todo!() }
}

/// A stream of plaintext, read ahead and checked chunk by chunk.
#[derive(Debug)]
pub struct ContentReader {}

impl ContentReader {
    /// The next piece, at most a chunk; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, Error> { todo!() }
}

/// Why a repository operation failed. `Display` names the failed step and the object; [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Storage(#[from] holdfast_storage::Error),
}

impl Error {
    /// A stable code, `kebab-case`.
    pub fn code(&self) -> &'static str { todo!() }
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> { todo!() }
    /// Trying again cannot help.
    pub fn is_permanent(&self) -> bool { todo!() }
}
