//! The commit: one head, put only if absent. Of two writers one loses, reads the new heads, and tries the next number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::chain::{self, CHECKPOINT_EVERY};
use super::{DomainState, read_on};
use crate::clock::now_ms;
use crate::envelope::seal_envelope;
use crate::format::directory::{DirectoryChange, StoredRecord};
use crate::format::head::{COMPATIBLE_KNOWN, Committed, Head, Object};
use crate::format::{Kind, cbor, path};
use crate::keyring::Keyring;
use crate::repository::Repository;
use crate::{BackupId, Digest, DomainId, Error};

/// A checkpoint beyond this is left out, in bytes; readers then walk back further.
const CHECKPOINT_MAX: usize = 8 << 20;

/// What a head changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) added: Vec<Object>,
    pub(crate) committed: Vec<Committed>,
    pub(crate) records: Vec<StoredRecord>,
    /// Backups forgotten, and when.
    pub(crate) removed: Vec<(BackupId, u64)>,
    /// Objects that are present no more, by path.
    pub(crate) dropped: Vec<String>,
    /// Packs that must not be condemned meanwhile.
    pub(crate) relied_on: BTreeSet<Digest>,
    /// Feature bits that readers of its backups must know.
    pub(crate) incompatible: u64,
}

impl Repository {
    /// Commits what `change` says of the newest state: `None` if there is nothing to do any more. It is asked again after a lost race.
    ///
    /// Errors: a higher epoch; a pack relied on is condemned; the store does not answer.
    pub(crate) async fn commit(
        &self,
        domain: DomainId,
        change: impl Fn(&DomainState) -> Result<Option<Change>, Error> + Send + Sync,
    ) -> Result<(), Error> {
        self.writable()?;
        let keyring = self.inner.keyring.current();
        let cell = self.cell(domain);
        let mut state = cell.heads.lock().await;
        loop {
            read_on(&self.inner.place, &keyring, domain, Arc::make_mut(&mut state)).await?;
            let own = self.inner.epoch.load(Ordering::Acquire);
            if state.epoch > own {
                return Err(Error::Superseded { domain, found: state.epoch, own });
            }
            let Some(change) = change(&state)? else { return Ok(()) };
            if let Some(pack) = change.relied_on.iter().find(|pack| !state.is_live(pack)) {
                return Err(Error::Condemned { pack: *pack });
            }
            let sequence = state.next_sequence();
            self.inner.locks.extend(&self.inner.place, &keyring, domain, &state, &change).await?;
            let bytes = self.seal_head(&keyring, domain, &state, change, own)?;
            // Read before it is written: a head that we could not read ourselves must never become the newest one.
            let mut next = DomainState::clone(&state);
            chain::apply(&keyring, domain, &mut next, sequence, bytes.clone())?;
            if self.put_head(&keyring, domain, sequence, bytes).await? {
                *state = Arc::new(next);
                return Ok(());
            }
        }
    }

    /// Makes the next head's bytes.
    fn seal_head(
        &self,
        keyring: &Keyring,
        domain: DomainId,
        state: &DomainState,
        change: Change,
        epoch: u64,
    ) -> Result<Bytes, Error> {
        let sequence = state.next_sequence();
        let path = path::head(domain, sequence);
        let unknown = state.compatible & !COMPATIBLE_KNOWN;
        if unknown != 0 {
            return Err(Error::NewerFormat { path, bits: unknown });
        }
        let (removed, deleted) = (change.removed.iter().map(|(backup, _)| *backup).collect(), change.removed);
        let plain = Head {
            sequence,
            previous: state.tip.map(|tip| tip.digest),
            epoch,
            writer: self.inner.writer,
            written_ms: now_ms(),
            incompatible: change.incompatible,
            compatible: 0,
            checkpoint: false,
            added: change.added,
            condemned: Vec::new(),
            removed: change.dropped,
            keyring: keyring.generation(),
            committed: change.committed,
            backups_removed: removed,
            extra: Default::default(),
        };
        let directory = DirectoryChange { records: change.records, deleted, extra: Default::default() };
        let key = keyring.domain(domain)?;
        let seal = |head: &Head, directory: &DirectoryChange| {
            seal_envelope(Kind::Head, &path, head, Some((key.index_key(), &cbor::encode(directory))), keyring)
        };
        if sequence > 0 && sequence.is_multiple_of(CHECKPOINT_EVERY) {
            let (head, directory) = checkpoint(domain, state, plain.clone(), directory.clone());
            let bytes = seal(&head, &directory);
            if bytes.len() <= CHECKPOINT_MAX {
                return Ok(bytes);
            }
        }
        Ok(seal(&plain, &directory))
    }

    /// Whether the head is in its place now: `false` if another writer's is.
    async fn put_head(&self, keyring: &Keyring, domain: DomainId, sequence: u64, bytes: Bytes) -> Result<bool, Error> {
        let (path, place) = (path::head(domain, sequence), &self.inner.place);
        let mut put = place.put_if_absent(&path, bytes.clone()).await;
        if matches!(put, Ok(false))
            && place.keeps_versions().await?
            && let Some(found) = place.find(&path).await?
            && chain::is_strange(place, keyring, domain, sequence, &found).await?
        {
            // What a stranger put there makes way; the place keeps it as an older version.
            place.delete(&path).await?;
            put = place.put_if_absent(&path, bytes.clone()).await;
        }
        if matches!(put, Ok(true)) {
            return Ok(true);
        }
        // The answer may have been lost, or the put sent twice: then the head that is there is ours, byte for byte.
        match (self.inner.place.find(&path).await, put) {
            (Ok(Some(found)), _) => Ok(found == bytes),
            (_, Err(error)) | (Err(error), _) => Err(error),
            (Ok(None), Ok(_)) => Err(Error::ChainBroken { path, reason: "it is there and it is missing" }),
        }
    }
}

/// Makes a head stand for all before it.
fn checkpoint(domain: DomainId, state: &DomainState, plain: Head, change: DirectoryChange) -> (Head, DirectoryChange) {
    let mut all = state.clone();
    let deleted = change.deleted.clone();
    all.apply(domain, plain.clone(), Digest([0; 32]), change);
    let head = Head {
        checkpoint: true,
        incompatible: all.incompatible,
        added: all.all_objects(domain),
        condemned: all.all_condemned(),
        committed: all.all_committed(),
        ..plain
    };
    let records: BTreeMap<BackupId, StoredRecord> = all.records;
    (head, DirectoryChange { records: records.into_values().collect(), deleted, extra: Default::default() })
}
