//! `archive`: the backup being written and the backups that may be read, over the repository's writer and reader.

use std::sync::Arc;

use holdfast_repository::{self as repository, BackupReader, BackupWriter, INLINE_MAX};
use wasmtime::component::Resource;

use super::types::{CallError, misused, refused};
use super::wit::archive::{ContentClass, Entry, EntryKind, Host, HostBackup};
use crate::paths;
use crate::state::State;
use crate::streams::{Content, Sink, SinkSlot, Source};

/// What of the archive is granted.
pub(crate) struct Archive {
    pub(crate) writer: Option<Arc<BackupWriter>>,
    pub(crate) current: Option<BackupReader>,
    pub(crate) parent: Option<BackupReader>,
}

/// Entries and, about, bytes of one page of a listing.
const PAGE_ENTRIES: usize = 1_000;
const PAGE_BYTES: usize = 512 << 10;
/// Bytes of an entry's annotations.
const EXTRA: usize = 16 << 10;

impl Archive {
    fn writer(&self) -> Result<&Arc<BackupWriter>, CallError> {
        self.writer.as_ref().ok_or_else(|| misused("not-granted", "this job writes no backup"))
    }
}

impl Host for State {
    async fn begin_entry(&mut self, entry: Entry, class: ContentClass) -> Result<Resource<SinkSlot>, CallError> {
        let writer = self.archive.writer()?;
        let (entry, class) = (admitted(entry)?, admitted_class(class)?);
        self.entries.record(kept(&entry))?;
        for (key, value) in &entry.annotations {
            self.entries.annotate(key, value)?;
        }
        let place = self.streams.place()?;
        let writer = self.guard.wait(writer.begin_entry(entry, class)).await??;
        Ok(self.table.push(SinkSlot::new(Sink::Entry(Box::new(writer)), Some(place)))?)
    }

    async fn annotate(&mut self, path: String, key: String, value: String) -> Result<(), CallError> {
        let writer = self.archive.writer()?;
        if key.len() + value.len() > EXTRA {
            return Err(misused("invalid-argument", format!("an annotation may have {EXTRA} bytes")));
        }
        self.entries.annotate(&key, &value)?;
        Ok(self.guard.wait(writer.annotate(&path, &key, &value)).await??)
    }

    async fn reuse(&mut self, _: Resource<SinkSlot>, _: String, _: u64, _: u64) -> Result<(), CallError> {
        Err(refused("unsupported", "this version cannot reuse the parent's bytes", "The plugin must send the bytes."))
    }

    async fn current(&mut self) -> wasmtime::Result<Option<Resource<BackupReader>>> {
        let backup = self.archive.current.clone();
        Ok(backup.map(|backup| self.table.push(backup)).transpose()?)
    }

    async fn parent(&mut self) -> wasmtime::Result<Option<Resource<BackupReader>>> {
        let backup = self.archive.parent.clone();
        Ok(backup.map(|backup| self.table.push(backup)).transpose()?)
    }
}

impl HostBackup for State {
    async fn document(&mut self, this: Resource<BackupReader>) -> wasmtime::Result<String> {
        Ok(self.table.get(&this)?.document().to_owned())
    }

    async fn entries(
        &mut self,
        this: Resource<BackupReader>,
        prefix: String,
        after: String,
        limit: u32,
    ) -> Result<Vec<Entry>, CallError> {
        let limit = usize::try_from(limit).unwrap_or(PAGE_ENTRIES).clamp(1, PAGE_ENTRIES);
        let found = self.guard.wait(self.table.get(&this)?.entries(&prefix, &after, limit)).await??;
        let mut bytes = 0;
        let page = found.into_iter().take_while(|entry| {
            // The first entry always fits: an empty page would be the end.
            let fits = bytes < PAGE_BYTES;
            bytes += size(entry);
            fits
        });
        Ok(page.map(shown).collect())
    }

    async fn open(
        &mut self,
        this: Resource<BackupReader>,
        path: String,
        offset: u64,
        length: Option<u64>,
    ) -> Result<Resource<Source>, CallError> {
        let place = self.streams.place()?;
        let content = self.guard.wait(self.table.get(&this)?.open(&path, offset, length)).await??;
        Ok(self.table.push(Source::Content(Content::new(content, place)))?)
    }

    async fn digest(
        &mut self,
        this: Resource<BackupReader>,
        path: String,
        algorithm: String,
    ) -> Result<Vec<u8>, CallError> {
        if !matches!(algorithm.as_str(), "sha256" | "crc32c" | "blake3") {
            return Err(misused("invalid-argument", "a digest is by sha256, crc32c or blake3"));
        }
        Ok(self.guard.wait(self.table.get(&this)?.digest(&path, &algorithm)).await??)
    }

    async fn drop(&mut self, this: Resource<BackupReader>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// A guest's entry, checked.
fn admitted(entry: Entry) -> Result<repository::Entry, CallError> {
    if let Some(objection) = paths::objection(&entry.path) {
        return Err(misused("invalid-path", format!("the entry's path is not usable: {objection}")));
    }
    let (keys, bytes) =
        (entry.extra.len(), entry.extra.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>());
    let annotations: std::collections::BTreeMap<String, String> = entry.extra.into_iter().collect();
    if bytes > EXTRA || annotations.len() < keys {
        return Err(misused(
            "invalid-argument",
            format!("'extra' of {} is over {EXTRA} bytes or repeats a key", entry.path),
        ));
    }
    let kind = match entry.kind {
        EntryKind::File => repository::EntryKind::File,
        EntryKind::Directory => repository::EntryKind::Directory,
        EntryKind::Symlink(target) if target.len() <= paths::LONGEST => repository::EntryKind::Symlink(target),
        EntryKind::Symlink(_) => {
            return Err(misused("invalid-argument", format!("the target of {} is too long", entry.path)));
        }
    };
    Ok(repository::Entry {
        path: entry.path,
        kind,
        size: entry.size,
        mode: entry.mode & 0o777,
        modified: entry.modified,
        annotations,
    })
}

fn admitted_class(class: ContentClass) -> Result<repository::ContentClass, CallError> {
    match class {
        ContentClass::Bytes => Ok(repository::ContentClass::Bytes),
        ContentClass::Pages(size) if size.is_power_of_two() && (512..=65_536).contains(&size) => {
            Ok(repository::ContentClass::Pages(size))
        }
        ContentClass::Pages(size) => {
            Err(misused("invalid-argument", format!("pages of {size} bytes are not possible")))
        }
    }
}

/// An entry as a guest sees it.
fn shown(entry: repository::Entry) -> Entry {
    Entry {
        path: entry.path,
        kind: match entry.kind {
            repository::EntryKind::File => EntryKind::File,
            repository::EntryKind::Directory => EntryKind::Directory,
            repository::EntryKind::Symlink(target) => EntryKind::Symlink(target),
        },
        size: entry.size,
        mode: entry.mode,
        modified: entry.modified,
        extra: entry.annotations.into_iter().collect(),
    }
}

/// About the bytes that an entry takes in a guest's memory.
fn size(entry: &repository::Entry) -> usize {
    names(entry) + 64
}

/// Bytes of all that is text in an entry, and about what holds it together.
fn names(entry: &repository::Entry) -> usize {
    let extra: usize = entry.annotations.iter().map(|(key, value)| key.len() + value.len() + 16).sum();
    entry.path.len() + target(entry) + extra
}

fn target(entry: &repository::Entry) -> usize {
    match &entry.kind {
        repository::EntryKind::Symlink(target) => target.len(),
        _ => 0,
    }
}

/// Bytes that the writer keeps of an entry, annotations aside: its path, which is a key too, and a content that turns out to be short.
/// One that was said to be longer is refused if it is not.
fn kept(entry: &repository::Entry) -> usize {
    let content = match (&entry.kind, entry.size) {
        (repository::EntryKind::File, None) => INLINE_MAX,
        (repository::EntryKind::File, Some(size)) if size <= INLINE_MAX => size,
        _ => 0,
    };
    2 * entry.path.len() + target(entry) + content as usize
}
