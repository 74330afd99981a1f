//! The end of a backup: all that it consists of, in the order of FORMAT §8, and the head last.
//!
//! Each object is durable before one that needs it is written; a kill in between leaves garbage, never a broken backup.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::BackupWriter;
use super::pipeline::Settled;
use super::table::{self, Table};
use crate::envelope::seal_envelope;
use crate::format::cbor::{self, Blob};
use crate::format::directory::StoredRecord;
use crate::format::head::{DELTAS, Object};
use crate::format::manifest::{BackupClear, Manifest};
use crate::format::{Kind, path};
use crate::heads::Change;
use crate::keyring::Keyring;
use crate::repack::Reliance;
use crate::repository::Repository;
use crate::slots::seal_keys;
use crate::{BackupRecord, Digest, Error};

/// Generation of the keys that a new backup gets.
const FIRST_KEYS: u64 = 1;

/// Objects written for a backup, on their way into its head.
struct Written<'a> {
    repository: &'a Repository,
    objects: Vec<Object>,
}

/// A backup's slots, durable and not committed yet.
struct Slots {
    generation: u64,
    /// What they were made by.
    keyring: Arc<Keyring>,
    object: Object,
}

impl Written<'_> {
    async fn put(&mut self, path: String, bytes: Bytes) -> Result<Digest, Error> {
        let (length, digest) = (bytes.len() as u64, Digest::of(&bytes));
        self.repository.inner.place.put(&path, bytes).await?;
        self.objects.push((path, length, digest));
        Ok(digest)
    }
}

impl BackupWriter {
    /// Waits for all bytes to be durable, then writes index, refs, keys, manifest and the head: the backup exists only from here.
    /// `record` becomes the directory's record, its totals filled in by the writer; `document` is the plugin's inventory (JSON).
    /// A `finished_ms` of 0 becomes now.
    pub async fn commit(self, record: BackupRecord, document: String) -> Result<BackupRecord, Error> {
        let entries = std::mem::take(&mut *self.entries.lock());
        let table = table::write(&self.pipeline, entries).await?;
        let Settled { durable, held } = self.pipeline.settle().await?;
        let keyring = self.repository.inner.keyring.current();
        let mut written = Written { repository: &self.repository, objects: durable.objects };

        let component = self.put_component().await?;
        let domain = self.plan.domain;
        let mut reliance = Reliance { packs: held.relied_on, indexes: held.indexes, incompatible: held.incompatible };
        if durable.has_deltas {
            reliance.incompatible |= DELTAS;
        }
        reliance.indexes.extend(durable.indexes);
        let indexes: Vec<_> = reliance.indexes.iter().copied().collect();
        let (added, adopted) = (held.added.into_sorted(), held.adopted.into_sorted());
        written.objects.extend(self.repository.put_refs(domain, self.plan.backup, added, adopted).await?);
        let mut slots = self.put_keys(FIRST_KEYS).await?;
        let record = self.complete(record, &table);
        self.put_manifest(&keyring, &mut written, &record, document, table, indexes).await?;

        let own: u64 = written.objects.iter().map(|(_, length, _)| length).sum();
        let record = BackupRecord { stored_bytes: own + slots.object.1, ..record };
        written.objects.extend(component);
        let mut change = Change {
            added: written.objects,
            records: vec![StoredRecord::replacing(record.clone(), None)],
            began_ms: Some(self.began_ms),
            ..Change::default()
        };
        loop {
            self.repository.publish_new_keyring().await?;
            change.relied_on.clone_from(&reliance.packs);
            change.incompatible = reliance.incompatible;
            match self.put_head(&change, &reliance.indexes, &slots).await {
                // Slots by a former keyring would be missed by the rotation that came meanwhile.
                Err(Error::KeysRotated { .. }) => slots = self.put_keys(slots.generation + 1).await?,
                // A prune moved what this backup found known: it is taken from its new place, if it has one.
                Err(Error::Condemned { object }) => {
                    let own = &change.added;
                    let again = self.repository.rely_again(domain, own).await?.ok_or(Error::Condemned { object })?;
                    reliance = Reliance { incompatible: reliance.incompatible | again.incompatible, ..again };
                }
                committed => {
                    committed?;
                    break;
                }
            }
        }
        if let Some(component) = self.plan.component.as_deref() {
            self.repository.look_after_component(record.component, async { Ok(component.to_vec()) }).await;
        }
        Ok(record)
    }

    async fn put_head(&self, change: &Change, indexes: &BTreeSet<Digest>, slots: &Slots) -> Result<(), Error> {
        let (domain, backup) = (self.plan.domain, self.plan.backup);
        self.repository
            .commit(self.plan.domain, |state| {
                if state.backups.contains_key(&backup) {
                    return Err(Error::BackupExists { backup });
                }
                // Asked while no other head can be written: who rotates replaces the keyring first, and looks at the heads then.
                if !self.repository.inner.keyring.current().makes_slots_as(&slots.keyring, domain)? {
                    return Err(Error::KeysRotated { domain });
                }
                let objects = change.added.iter().chain([&slots.object]);
                Ok(Some(Change {
                    added: objects.filter(|object| !state.has(domain, object)).cloned().collect(),
                    committed: vec![(backup, indexes.iter().copied().collect(), slots.generation)],
                    ..change.clone()
                }))
            })
            .await
    }

    /// The record with what only the writer knows; stored bytes come last.
    fn complete(&self, record: BackupRecord, table: &Table) -> BackupRecord {
        let finished_ms = if record.finished_ms == 0 { self.repository.now_ms() } else { record.finished_ms };
        BackupRecord {
            backup: self.plan.backup,
            component: Digest::of(self.plan.component.as_deref().unwrap_or_default()),
            started_ms: self.plan.started_ms,
            finished_ms,
            entries: table.entries,
            logical_bytes: table.logical_bytes,
            ..record
        }
    }

    async fn put_component(&self) -> Result<Option<Object>, Error> {
        let Some(component) = &self.plan.component else { return Ok(None) };
        let (length, digest) = (component.len() as u64, Digest::of(component));
        let (place, path) = (&self.repository.inner.place, path::component(digest));
        if place.length(&path).await? != Some(length) {
            place.put(&path, Bytes::copy_from_slice(component)).await?;
        }
        Ok(Some((path, length, digest)))
    }

    /// Writes a generation of slots by the keyring of now.
    async fn put_keys(&self, generation: u64) -> Result<Slots, Error> {
        let (domain, backup, keyring) = (self.plan.domain, self.plan.backup, self.repository.inner.keyring.current());
        let (path, bytes) = seal_keys(&keyring, domain, backup, generation, &self.data_key)?;
        let object = (path.clone(), bytes.len() as u64, Digest::of(&bytes));
        self.repository.inner.place.put(&path, bytes).await?;
        Ok(Slots { generation, keyring, object })
    }

    async fn put_manifest(
        &self,
        keyring: &Keyring,
        written: &mut Written<'_>,
        record: &BackupRecord,
        document: String,
        table: Table,
        indexes: Vec<Digest>,
    ) -> Result<(), Error> {
        let (domain, backup) = (self.plan.domain, self.plan.backup);
        let keys = keyring.domain(domain)?;
        let secrets = keys.chunk_secrets();
        let manifest = Manifest {
            backup,
            domain,
            secrets: (secrets.data, secrets.list, secrets.table),
            index_key: keys.index_key().clone(),
            plugin: record.plugin.clone(),
            component: record.component,
            method: record.method.clone(),
            backup_type: record.backup_type.clone(),
            document,
            table: (table.tree.level.into(), Blob(table.tree.root), table.tree.bytes),
            entries: table.entries,
            logical_bytes: table.logical_bytes,
            parent: record.parent,
            engine: record.engine.clone(),
            started_ms: record.started_ms,
            finished_ms: record.finished_ms,
            indexes,
            extra: Default::default(),
        };
        let clear = BackupClear { domain, backup, extra: Default::default() };
        let (path, plaintext) = (path::manifest(domain, backup), Zeroizing::new(cbor::encode(&manifest)));
        let bytes = seal_envelope(Kind::Manifest, &path, &clear, Some((&self.data_key, &plaintext)), keyring);
        written.put(path, bytes).await.map(drop)
    }
}
