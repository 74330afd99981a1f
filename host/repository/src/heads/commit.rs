//! The commit: one head, put only if absent. Of two writers one loses, reads the new heads, and tries the next number.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_storage::OBJECT_BYTES_MAX;

use super::chain::{self, CHECKPOINT_EVERY, OwnHead};
use super::{DomainState, Tip, read_on};
use crate::envelope::seal_envelope;
use crate::format::directory::{DirectoryChange, StoredRecord};
use crate::format::head::{COMPATIBLE_KNOWN, Committed, Head, Object};
use crate::format::{Kind, cbor, path};
use crate::keyring::Keyring;
use crate::prune::WORK_MS_MAX;
use crate::repository::Repository;
use crate::{BackupId, Digest, DomainId, Error};

/// A checkpoint may be so long for each head since the last one, in bytes, and is left out else; readers then walk back further. So
/// checkpoints take their share of the room however many backups there are, and reading them takes its share of the time.
const CHECKPOINT_SHARE: u64 = 32 << 10;

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
    /// Objects condemned, and when.
    pub(crate) condemned: Vec<(Digest, u64)>,
    /// When the work began whose objects this head names first.
    pub(crate) began_ms: Option<u64>,
}

impl Change {
    /// Whether room comes of it, now or later: such a head must fit also where there is none.
    fn frees(&self) -> bool {
        !(self.removed.is_empty() && self.condemned.is_empty() && self.dropped.is_empty())
    }
}

impl Repository {
    /// Commits what `change` says of the newest state: `None` if there is nothing to do any more. It is asked again after a lost race.
    ///
    /// Errors: a higher epoch; something that it relies on is condemned; its work took too long; the store does not answer.
    pub(crate) async fn commit(
        &self,
        domain: DomainId,
        change: impl Fn(&DomainState) -> Result<Option<Change>, Error> + Send + Sync,
    ) -> Result<(), Error> {
        self.writable()?;
        let cell = self.cell(domain);
        let mut state = cell.heads.lock().await;
        loop {
            self.read_own(domain, &mut state).await?;
            let Some(change) = change(&state)? else { return Ok(()) };
            if self.put_change(domain, &mut state, change).await? {
                return Ok(());
            }
        }
    }

    /// Commits `change` if `tip` is still the newest head: `false` if another one is.
    ///
    /// Errors: those of [`Self::commit`].
    pub(crate) async fn commit_upon(&self, domain: DomainId, tip: Option<Tip>, change: Change) -> Result<bool, Error> {
        self.writable()?;
        let cell = self.cell(domain);
        let mut state = cell.heads.lock().await;
        self.read_own(domain, &mut state).await?;
        Ok(state.tip == tip && self.put_change(domain, &mut state, change).await?)
    }

    /// Reads the newest heads. A domain that was taken over is refused.
    async fn read_own(&self, domain: DomainId, state: &mut Arc<DomainState>) -> Result<(), Error> {
        let keyring = self.inner.keyring.current();
        read_on(&self.inner.place, &keyring, domain, state).await?;
        self.must_be_ours(domain, state)
    }

    /// Refuses a domain whose epoch is above ours.
    pub(crate) fn must_be_ours(&self, domain: DomainId, state: &DomainState) -> Result<(), Error> {
        let own = self.inner.epoch.load(Ordering::Acquire);
        if state.epoch > own { Err(Error::Superseded { domain, found: state.epoch, own }) } else { Ok(()) }
    }

    /// Puts the next head: `false` if another writer's is in its place.
    async fn put_change(&self, domain: DomainId, state: &mut Arc<DomainState>, change: Change) -> Result<bool, Error> {
        self.must_hold(state, &change)?;
        let (keyring, frees) = (self.inner.keyring.current(), change.frees());
        self.inner.locks.extend(&self.inner.place, &keyring, domain, state, &change).await?;
        let mut is_tight = false;
        loop {
            let sequence = state.next_sequence();
            let bytes = self.seal_head(&keyring, domain, state, change.clone(), is_tight)?;
            // Read before it is written: a head that we could not read ourselves must never become the newest one.
            let head = OwnHead::open(&keyring, domain, sequence, bytes.clone())?;
            head.must_follow(domain, state)?;
            match self.put_head(&keyring, domain, sequence, bytes).await {
                Ok(true) => {
                    self.inner.single_heads.add(domain, sequence, head.digest);
                    head.apply(domain, state);
                    return Ok(true);
                }
                // What frees room must not fail for want of it.
                Err(error) if frees && !is_tight && error.is_full() => {
                    self.release_reserve().await?;
                    is_tight = true;
                }
                other => return other,
            }
        }
    }

    /// Whether all that a change needs is there to stay.
    fn must_hold(&self, state: &DomainState, change: &Change) -> Result<(), Error> {
        let began_ms = change.began_ms.unwrap_or(u64::MAX);
        if self.now_ms() > began_ms.saturating_add(WORK_MS_MAX) {
            return Err(Error::TooLate { began_ms });
        }
        if let Some(pack) = change.relied_on.iter().find(|pack| !state.is_live(pack)) {
            return Err(Error::Condemned { object: *pack });
        }
        let added: BTreeSet<Digest> = change.added.iter().map(|(_, _, digest)| *digest).collect();
        // Whoever deletes it may be about to: what was condemned never comes back under its name.
        if let Some(object) = added.iter().find(|object| state.is_condemned(object)) {
            return Err(Error::Condemned { object: *object });
        }
        let needed = change.committed.iter().flat_map(|(_, indexes, _)| indexes);
        match needed.into_iter().find(|index| !state.is_index_live(index) && !added.contains(index)) {
            Some(index) => Err(Error::Condemned { object: *index }),
            None => Ok(()),
        }
    }

    /// Makes the next head's bytes; where room is tight, no checkpoint.
    fn seal_head(
        &self,
        keyring: &Keyring,
        domain: DomainId,
        state: &DomainState,
        change: Change,
        is_tight: bool,
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
            epoch: self.inner.epoch.load(Ordering::Acquire),
            writer: self.writer(),
            written_ms: self.now_ms(),
            incompatible: change.incompatible,
            compatible: 0,
            checkpoint: false,
            added: change.added,
            condemned: change.condemned,
            removed: change.dropped,
            keyring: keyring.generation(),
            committed: change.committed,
            backups_removed: removed,
            extra: Default::default(),
        };
        let records = change.records.into_iter().map(Arc::new).collect();
        let directory = DirectoryChange { records, deleted, extra: Default::default() };
        let key = keyring.domain(domain)?;
        let seal = |head: &Head, directory: &DirectoryChange| {
            seal_envelope(Kind::Head, &path, head, Some((key.index_key(), &cbor::encode(directory))), keyring)
        };
        let bytes_max = state.heads_since_checkpoint().saturating_mul(CHECKPOINT_SHARE).min(OBJECT_BYTES_MAX);
        let is_due = sequence > 0 && sequence.is_multiple_of(CHECKPOINT_EVERY);
        if is_due && !is_tight && state.checkpoint_bytes_least() <= bytes_max {
            let (head, directory) = checkpoint(domain, state, plain.clone(), directory.clone());
            let bytes = seal(&head, &directory);
            if bytes.len() as u64 <= bytes_max {
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
            // Of all versions: one read that went wrong must not make a stranger of another writer's head.
            && let Some(found) = chain::find(place, keyring, domain, sequence).await?
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
    (head, DirectoryChange { records: all.records.into_values().collect(), deleted, extra: Default::default() })
}
