//! Structure: every object that heads name is there with its length; all but the packs are read, their signatures and seals checked; and
//! every chunk that a backup's refs name lies within a pack that is present.

use std::collections::HashMap;

use super::{Damage, LOST_CHUNK, Structure};
use crate::envelope::Envelope;
use crate::format::head::Object;
use crate::format::index::{Index, IndexClear};
use crate::format::keys::Keys;
use crate::format::manifest::BackupClear;
use crate::format::refs::Refs;
use crate::format::{Kind, path};
use crate::heads::DomainState;
use crate::index::IndexTable;
use crate::keyring::Keyring;
use crate::repository::Repository;
use crate::{BackupId, DomainId, Error, Malformed};

impl Repository {
    /// Reads everything of a domain but its packs, and compares what lies there with what the heads say, which are read again too.
    /// `progress` is told (done, total) objects.
    ///
    /// Errors: a broken chain of heads; a target that does not answer.
    pub async fn check_structure(
        &self,
        domain: DomainId,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Structure, Error> {
        let state = self.state(domain).await?;
        let mut objects = state.all_objects(domain);
        // What is condemned is needed by nothing, and may be gone already.
        objects.retain(|(_, _, digest)| !state.is_condemned(digest));
        let mut seen = Structure {
            objects: objects.len() as u64,
            bytes: objects.iter().map(|(_, length, _)| length).sum(),
            backups: state.backups.len() as u64,
            damages: self.check_heads(domain, &state).await?,
        };
        let listed = self.listed_lengths(domain).await?;
        for (number, object) in objects.iter().enumerate() {
            progress(number as u64, seen.objects);
            if let Err(error) = self.check_object(domain, &state, object, &listed).await {
                seen.damages.push(self.finding(domain, &object.0, error).await?);
            }
        }
        let table = self.index_or_footers(domain, &state).await?;
        for backup in state.backups.keys() {
            seen.damages.extend(self.check_chunks(domain, &state, &table, *backup).await?);
        }
        progress(seen.objects, seen.objects);
        Ok(seen)
    }

    /// Lengths by path, as the target lists them: one request for a thousand objects.
    async fn listed_lengths(&self, domain: DomainId) -> Result<HashMap<String, u64>, Error> {
        let listed = self.inner.place.list(&path::domain(domain)).await?;
        Ok(listed.into_iter().map(|one| (one.path, one.length)).collect())
    }

    async fn check_object(
        &self,
        domain: DomainId,
        state: &DomainState,
        object: &Object,
        listed: &HashMap<String, u64>,
    ) -> Result<(), Error> {
        let (path, length, digest) = object;
        if path::pack_digest(domain, path).is_some() {
            return self.check_length(path, *length, listed).await;
        }
        let bytes = self.inner.place.committed(path, *digest).await?;
        let keyring = self.inner.keyring.current();
        let keys = keyring.domain(domain)?;
        if path::index_digest(domain, path).is_some() {
            let envelope = Envelope::<IndexClear>::open(Kind::Index, &path::indexes(domain), bytes, &*keyring)?;
            let index = Index::decode(&envelope.unseal(keys.index_key())?).map_err(envelope.damaged())?;
            return must_lie_within_packs(&index, state).map_err(Error::damaged(path.as_str()));
        }
        check_signature(path, bytes, &keyring)
    }

    /// A listing may lag, so what it does not show is asked for by name.
    async fn check_length(&self, path: &str, length: u64, listed: &HashMap<String, u64>) -> Result<(), Error> {
        let found = match listed.get(path) {
            Some(found) if *found == length => return Ok(()),
            _ => self.inner.place.length(path).await?,
        };
        match found {
            Some(found) if found == length => Ok(()),
            Some(found) => Err(Error::WrongLength { path: path.to_owned(), expected: length, found }),
            None => Err(Error::Lost { path: path.to_owned(), location: self.location() }),
        }
    }

    /// Whether every chunk of a backup has a place; its refs were read before, so here a damaged one is passed over.
    async fn check_chunks(
        &self,
        domain: DomainId,
        state: &DomainState,
        table: &IndexTable,
        backup: BackupId,
    ) -> Result<Option<Damage>, Error> {
        let ids = match self.chunks_of(state, domain, backup).await {
            Ok(ids) => ids,
            Err(error) => {
                let path = path::refs(domain, backup, 0);
                return self.finding(domain, &path, error).await.map(|_| None);
            }
        };
        let mut lost = 0_u64;
        for id in &ids {
            lost += u64::from(table.known_chain(id)?.is_none());
        }
        Ok((lost > 0).then(|| Damage {
            path: path::manifest(domain, backup),
            code: LOST_CHUNK.into(),
            detail: format!("{lost} of the {} chunks of backup {backup} are in no pack that is present", ids.len()),
            pack: None,
        }))
    }
}

/// Records must not point beyond their packs. An index may name packs that are not here: those do not count.
fn must_lie_within_packs(index: &Index, state: &DomainState) -> Result<(), Malformed> {
    let lengths: Vec<_> = index.packs.iter().map(|pack| state.pack_length(pack)).collect();
    let fits = |record: &crate::format::index::Record| match lengths.get(record.pack as usize) {
        Some(Some(length)) => u64::from(record.offset) + u64::from(record.length) <= *length,
        Some(None) => true,
        None => false,
    };
    if index.records.iter().all(fits) { Ok(()) } else { Err(Malformed("a record lies beyond its pack")) }
}

/// Manifests, refs and keys are signed; a component is what its digest says.
fn check_signature(path: &str, bytes: bytes::Bytes, keyring: &Keyring) -> Result<(), Error> {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name.split('.').next() {
        Some("manifest") => Envelope::<BackupClear>::open(Kind::Manifest, path, bytes, keyring).map(drop),
        Some("refs") => {
            let envelope = Envelope::<BackupClear>::open(Kind::Refs, path, bytes, keyring)?;
            let domain = keyring.domain(envelope.clear.domain)?;
            Refs::decode(&envelope.unseal(domain.index_key())?).map_err(envelope.damaged()).map(drop)
        }
        Some("keys") => Envelope::<Keys>::open(Kind::Keys, path, bytes, keyring).map(drop),
        _ => Ok(()),
    }
}
