//! Writes one backup: entries are cut into chunks, chunks go through the [`pipeline`] into packs, and the head comes last.
//!
//! Nothing is visible before the commit. A writer that is dropped, or whose upload failed, leaves garbage only.

mod chunker;
mod commit;
mod delta;
mod entry;
mod held;
mod id_set;
mod packer;
mod pipeline;
mod pressure;
mod table;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use entry::{EntryWriter, INLINE_MAX};
use pipeline::Pipeline;

use crate::format::entry::{EntryRecord, PATH_MAX, is_valid_path};
use crate::reader::BackupReader;
use crate::repository::Repository;
use crate::seal::Secret;
use crate::{BackupId, BackupPlan, ContentClass, DomainId, Entry, EntryKind, Error};

/// Largest page size that chunks are aligned to, in bytes.
const PAGE_MAX: u32 = 1 << 20;
/// Bytes of all annotations of an entry.
const ANNOTATIONS_MAX: usize = 64 << 10;

/// Writes one backup. Shared by reference: several entries may be open at once.
#[derive(Debug)]
pub struct BackupWriter {
    repository: Repository,
    plan: BackupPlan,
    data_key: Secret,
    /// Milliseconds since 1970; before anything was stored.
    began_ms: u64,
    pipeline: Arc<Pipeline>,
    entries: Arc<Entries>,
}

/// The entries of a backup that is being written.
#[derive(Debug, Default)]
struct Entries {
    by_path: Mutex<BTreeMap<String, Slot>>,
    finished: AtomicU64,
    received: AtomicU64,
}

/// An entry's place.
#[derive(Debug)]
enum Slot {
    /// Its bytes are coming.
    Open,
    Done(Box<EntryRecord>),
}

impl Entries {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        self.by_path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repository {
    /// Begins a backup. Nothing is visible before [`BackupWriter::commit`]; a dropped writer leaves garbage only.
    ///
    /// Errors: the backup exists; the keyring has no such domain; the repository was opened for reading.
    pub async fn begin_backup(&self, plan: BackupPlan) -> Result<BackupWriter, Error> {
        self.writable()?;
        let began_ms = self.now_ms();
        let state = self.state(plan.domain).await?;
        if state.backups.contains_key(&plan.backup) {
            return Err(Error::BackupExists { backup: plan.backup });
        }
        self.require_reserve().await?;
        let index = self.index(plan.domain, &state).await?;
        let parent = match plan.parent {
            Some(parent) => self.open_parent(plan.domain, parent).await?,
            None => None,
        };
        let pipeline = Pipeline::new(self, plan.domain, index, parent, plan.compression)?;
        Ok(BackupWriter {
            repository: self.clone(),
            plan,
            data_key: Secret::random(),
            began_ms,
            pipeline: Arc::new(pipeline),
            entries: Arc::default(),
        })
    }
}

impl Repository {
    /// The backup before. One that was deleted meanwhile or is damaged is none: the new one is stored without it.
    async fn open_parent(&self, domain: DomainId, parent: BackupId) -> Result<Option<BackupReader>, Error> {
        match self.open_backup(domain, parent).await {
            Ok(reader) => Ok(Some(reader)),
            Err(error) if self.inner.place.is_damage(&error).await => {
                tracing::warn!(%parent, %error, "the backup before cannot be opened: making no deltas to it");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl BackupWriter {
    /// Begins a file's bytes; directories and links need no bytes: `finish` the writer at once. A path may come once only.
    pub async fn begin_entry(&self, entry: Entry, class: ContentClass) -> Result<EntryWriter, Error> {
        check_entry(&entry, class)?;
        let mut entries = self.entries.lock();
        if entries.contains_key(&entry.path) {
            return Err(Error::DuplicatePath { path: entry.path });
        }
        entries.insert(entry.path.clone(), Slot::Open);
        Ok(EntryWriter::new(Arc::clone(&self.pipeline), Arc::clone(&self.entries), entry, class))
    }

    /// Adds an annotation to an entry that was finished.
    pub async fn annotate(&self, path: &str, key: &str, value: &str) -> Result<(), Error> {
        let mut entries = self.entries.lock();
        let Some(Slot::Done(record)) = entries.get_mut(path) else {
            return Err(Error::NoSuchEntry { path: path.to_owned() });
        };
        if annotations_length(&record.annotations) + key.len() + value.len() > ANNOTATIONS_MAX {
            return Err(Error::AnnotationsTooLong { path: path.to_owned() });
        }
        record.annotations.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// Entries finished and bytes received so far.
    pub fn totals(&self) -> (u64, u64) {
        (self.entries.finished.load(Ordering::Acquire), self.entries.received.load(Ordering::Acquire))
    }

    /// Bytes stored (sealed) so far.
    pub fn stored_bytes(&self) -> u64 {
        self.pipeline.stored_bytes()
    }
}

impl Drop for BackupWriter {
    fn drop(&mut self) {
        self.pipeline.stop();
    }
}

fn check_entry(entry: &Entry, class: ContentClass) -> Result<(), Error> {
    let path = || entry.path.clone();
    if !is_valid_path(&entry.path) {
        return Err(Error::InvalidPath { path: path() });
    }
    if let EntryKind::Symlink(target) = &entry.kind
        && (target.is_empty() || target.len() > PATH_MAX || target.contains('\0'))
    {
        return Err(Error::InvalidPath { path: target.clone() });
    }
    if let ContentClass::Pages(page) = class
        && !(1..=PAGE_MAX).contains(&page)
    {
        return Err(Error::InvalidPageSize { path: path(), page });
    }
    if annotations_length(&entry.annotations) > ANNOTATIONS_MAX {
        return Err(Error::AnnotationsTooLong { path: path() });
    }
    Ok(())
}

fn annotations_length(annotations: &BTreeMap<String, String>) -> usize {
    annotations.iter().map(|(key, value)| key.len() + value.len()).sum()
}
