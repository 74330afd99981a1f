//! Replication: makes a backup exist at another target. Objects are copied as they are, and checked by digest; the head
//! is the target's own.
//!
//! Safe to run again: what is at the target with the right length is not sent twice, and a backup that exists there is done.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use crate::chunk::ChunkId;
use crate::envelope::Envelope;
use crate::format::directory::StoredRecord;
use crate::format::head::{DELTAS, Object};
use crate::format::manifest::BackupClear;
use crate::format::refs::Refs;
use crate::format::{Kind, path};
use crate::heads::{Change, DomainState};
use crate::repack::{Chunk, Repacker};
use crate::repository::Repository;
use crate::{BackupId, Copied, Digest, DomainId, Error};

/// Objects that are on their way at once: at most 17 MiB each.
const COPIES: usize = 3;

/// What a copy has to do.
struct Plan {
    /// Objects that the target lacks, in the order in which they are sent.
    objects: Vec<Object>,
    /// Objects that the target has, other than packs and indexes.
    known: Vec<Object>,
    /// Packs that the target holds and the backup relies on.
    relied_on: BTreeSet<Digest>,
    /// Indexes that tell where its chunks lie here.
    indexes: BTreeSet<Digest>,
    /// Chunks, and indexes of the source, that lie here in objects that are going to be deleted: they come under new names.
    condemned_chunks: Vec<Chunk>,
    condemned_indexes: Vec<Digest>,
    /// Feature bits that a reader must know.
    incompatible: u64,
}

impl Repository {
    /// Makes a backup of `source` exist here: copies, verbatim and checked by digest, what it needs and this target lacks, then writes
    /// this target's own head. Safe to run again; done work is not repeated. `progress` is told (done, total) bytes.
    ///
    /// Errors: the source has no such backup, or lost or damaged a part of it.
    pub async fn copy_backup(
        &self,
        source: &Repository,
        domain: DomainId,
        backup: BackupId,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Copied, Error> {
        let copied = self.copy_backup_while(source, domain, backup, progress, &|| true).await?;
        Ok(copied.unwrap_or_default())
    }

    /// The same for as long as `goes_on` says so, which is asked after each object: `None` where it was stopped before all of them were sent. Those
    /// that are on their way then arrive, and are not sent again by the next copy.
    pub async fn copy_backup_while(
        &self,
        source: &Repository,
        domain: DomainId,
        backup: BackupId,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
        goes_on: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Option<Copied>, Error> {
        self.writable()?;
        let from = source.state(domain).await?;
        source.require(&from, backup)?;
        let here = self.state(domain).await?;
        if here.backups.contains_key(&backup) {
            return Ok(Some(Copied::default()));
        }
        self.require_reserve().await?;
        let began_ms = self.now_ms();
        let plan = self.plan(source, &from, &here, domain, backup).await?;
        let Some(copied) = self.send(source, &plan.objects, progress, goes_on).await? else { return Ok(None) };
        let (fresh, indexes) = self.send_under_new_names(source, domain, &plan).await?;
        self.publish_new_keyring().await?;
        let record = from.records.get(&backup).ok_or(Error::NoSuchBackup { backup, location: source.location() })?;
        let live = from.backups.get(&backup).ok_or(Error::NoSuchBackup { backup, location: source.location() })?;
        self.commit(domain, |state| {
            if state.backups.contains_key(&backup) {
                return Ok(None);
            }
            let is_component = |path: &str| path::component_digest(path).is_some();
            let mut known = plan.known.iter();
            if let Some(gone) = known.find(|object| !state.has(domain, object) && !is_component(&object.0)) {
                return Err(Error::Condemned { object: gone.2 });
            }
            let added = plan.objects.iter().chain(&plan.known).chain(&fresh);
            Ok(Some(Change {
                added: added.filter(|object| !state.has(domain, object)).cloned().collect(),
                committed: vec![(backup, indexes.clone(), live.keys)],
                records: vec![StoredRecord::clone(record)],
                relied_on: plan.relied_on.clone(),
                incompatible: plan.incompatible,
                began_ms: Some(began_ms),
                ..Change::default()
            }))
        })
        .await?;
        let component = record.record.component;
        if component != Digest::of(&[]) {
            self.look_after_component(component, source.component(component)).await;
        }
        Ok(Some(copied))
    }

    async fn plan(
        &self,
        source: &Repository,
        from: &DomainState,
        here: &DomainState,
        domain: DomainId,
        backup: BackupId,
    ) -> Result<Plan, Error> {
        let (there, present) = (source.index(domain, from).await?, self.index(domain, here).await?);
        let live = from.backups.get(&backup).ok_or(Error::NoSuchBackup { backup, location: source.location() })?;
        // Not those that the source names for it, which may be more than it needs.
        let mut packs = BTreeMap::new();
        let mut relied_on = BTreeSet::new();
        let mut indexes: BTreeSet<Digest> = BTreeSet::new();
        let mut told_by: BTreeSet<Digest> = BTreeSet::new();
        let (mut incompatible, mut condemned_chunks) = (0, Vec::new());
        for id in source.chunks_of(from, domain, backup).await? {
            // Refs name what the chunks of the writer stood on. Those of the source may be others, and stand on something else.
            let mut next = Some(id);
            while let Some(id) = next {
                let is_delta = if let Some(chain) = present.known_chain(&id)? {
                    // Here the chunk may lie in another pack than there, told of by another index, and stand on another base.
                    relied_on.extend(chain.iter().map(|location| location.pack));
                    indexes.extend(chain.iter().map(|location| location.index));
                    next = None;
                    chain.len() > 1
                } else {
                    let location = there.find(&id)?.ok_or_else(|| Error::ChunkLost { id: hex::encode(id.0) })?;
                    told_by.insert(location.index);
                    next = location.base;
                    if here.is_condemned(&location.pack) {
                        condemned_chunks.push((id, location));
                    } else {
                        packs.insert(location.pack, from.pack_length(&location.pack).unwrap_or_default());
                    }
                    next.is_some()
                };
                if is_delta {
                    incompatible |= DELTAS;
                }
            }
        }
        // A base comes with each of its deltas.
        condemned_chunks.sort_unstable_by_key(|(id, _)| *id);
        condemned_chunks.dedup_by_key(|(id, _)| *id);
        let mut objects: Vec<Object> =
            packs.into_iter().map(|(digest, length)| (path::pack(domain, digest), length, digest)).collect();
        let (condemned_indexes, others): (Vec<Digest>, Vec<Digest>) =
            told_by.iter().partition(|digest| here.is_condemned(digest));
        indexes.extend(&others);
        for digest in others.iter().filter(|digest| !here.indexes.contains_key(digest)) {
            let path = path::index(domain, *digest);
            let length = from.indexes.get(digest).copied();
            let length = length.ok_or_else(|| Error::Lost { path: path.clone(), location: source.location() })?;
            objects.push((path, length, *digest));
        }
        let record = from.records.get(&backup).ok_or(Error::NoSuchBackup { backup, location: source.location() })?;
        let refs = from.objects_below(path::refs_prefix(domain, backup)).map(|(path, _)| path.clone());
        let component = record.record.component;
        let component = (component != Digest::of(&[])).then(|| path::component(component));
        let mut known = Vec::new();
        let single = [path::keys(domain, backup, live.keys), path::manifest(domain, backup)];
        for path in refs.chain(component).chain(single) {
            let lost = || Error::Lost { path: path.clone(), location: source.location() };
            let (length, digest) = from.object(&path).ok_or_else(lost)?;
            let object = (path, length, digest);
            if here.has(domain, &object) { known.push(object) } else { objects.push(object) }
        }
        Ok(Plan { objects, known, relied_on, indexes, condemned_chunks, condemned_indexes, incompatible })
    }

    /// Sends what a name stands in the way of, and gives it with all indexes that then tell where the chunks lie here.
    async fn send_under_new_names(
        &self,
        source: &Repository,
        domain: DomainId,
        plan: &Plan,
    ) -> Result<(Vec<Object>, Vec<Digest>), Error> {
        let mut repacker = Repacker::new(self, domain)?;
        repacker.take(source, &plan.condemned_chunks).await?;
        let fresh = repacker.finish(&[]).await?;
        let mut indexes = plan.indexes.clone();
        indexes.extend(fresh.indexes.iter().map(|(digest, _)| *digest));
        let mut objects = fresh.objects;
        let keyring = self.inner.keyring.current();
        for digest in &plan.condemned_indexes {
            let index = source.read_index(&keyring, domain, *digest).await?;
            let object = self.put_index(domain, &index).await?;
            indexes.insert(object.2);
            objects.push(object);
        }
        Ok((objects, indexes.into_iter().collect()))
    }

    /// All chunks that a backup holds, by its refs.
    pub(crate) async fn chunks_of(
        &self,
        state: &DomainState,
        domain: DomainId,
        backup: BackupId,
    ) -> Result<Vec<ChunkId>, Error> {
        let mut ids = Vec::new();
        for (path, digest) in self.refs_of(state, domain, backup)? {
            let refs = self.read_refs(domain, backup, &path, digest).await?;
            ids.extend(refs.added);
            ids.extend(refs.adopted);
        }
        Ok(ids)
    }

    /// Paths and digests of the parts of a backup's refs.
    pub(crate) fn refs_of(
        &self,
        state: &DomainState,
        domain: DomainId,
        backup: BackupId,
    ) -> Result<Vec<(String, Digest)>, Error> {
        let parts = state.objects_below(path::refs_prefix(domain, backup));
        let parts: Vec<_> = parts.map(|(path, (_, digest))| (path.clone(), *digest)).collect();
        if parts.is_empty() {
            return Err(Error::Lost { path: path::refs(domain, backup, 0), location: self.location() });
        }
        Ok(parts)
    }

    /// One part of a backup's refs.
    pub(crate) async fn read_refs(
        &self,
        domain: DomainId,
        backup: BackupId,
        path: &str,
        digest: Digest,
    ) -> Result<Refs, Error> {
        let keyring = self.inner.keyring.current();
        let bytes = self.inner.place.committed(path, digest).await?;
        let envelope = Envelope::<BackupClear>::open(Kind::Refs, path, bytes, &*keyring)?;
        let plaintext = envelope.unseal(keyring.domain(domain)?.index_key())?;
        let refs = Refs::decode(&plaintext).map_err(envelope.damaged())?;
        if refs.parent.is_some() { Err(Error::DependentRefs { backup }) } else { Ok(refs) }
    }

    /// Sends objects, a few at a time, for as long as that goes on.
    async fn send(
        &self,
        source: &Repository,
        objects: &[Object],
        progress: &(dyn Fn(u64, u64) + Send + Sync),
        goes_on: &(dyn Fn() -> bool + Send + Sync),
    ) -> Result<Option<Copied>, Error> {
        let total = objects.iter().map(|(_, length, _)| length).sum();
        let (mut done, mut copied) = (0, Copied::default());
        progress(done, total);
        let mut sends = Vec::with_capacity(objects.len());
        for object in objects {
            // Boxed, so that callers on any runtime can see that the whole is `Send`.
            sends.push(async { Ok::<_, Error>((object.1, self.send_one(source, object).await?)) }.boxed());
        }
        let mut sending = stream::iter(sends).buffer_unordered(COPIES);
        while let Some((length, was_sent)) = sending.try_next().await? {
            done += length;
            if was_sent {
                copied.objects += 1;
                copied.bytes += length;
            }
            progress(done, total);
            if done < total && !goes_on() {
                return Ok(None);
            }
        }
        Ok(Some(copied))
    }

    /// Whether the object had to be sent.
    async fn send_one(&self, source: &Repository, (path, length, digest): &Object) -> Result<bool, Error> {
        // Only a path that is the digest of what lies there says what it is; a killed attempt may have left it.
        let names_its_bytes = path.ends_with(&digest.to_string());
        if names_its_bytes && self.inner.place.length(path).await? == Some(*length) && self.is_fresh(path).await? {
            return Ok(false);
        }
        let bytes = source.inner.place.committed(path, *digest).await?;
        self.inner.place.put(path, bytes).await?;
        Ok(true)
    }
}
