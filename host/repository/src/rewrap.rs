//! New slots for backups that exist: after a rotation every data key is wrapped by the newest organization key, and for the tenant's
//! recipients of now, at every target. Data is never rewritten.
//!
//! A backup keeps its former slots until a head names the new ones, so a stop at any moment leaves each backup with slots that open
//! it. Many slots go into one head. Safe to run again: what is wrapped by the newest key is left alone, and former slots that a stop
//! left behind are removed.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use crate::envelope::Envelope;
use crate::format::head::Object;
use crate::format::keys::Keys;
use crate::format::{Kind, path};
use crate::heads::{Change, DomainState, LiveBackup};
use crate::keyring::{Keyring, retire};
use crate::repository::Repository;
use crate::seal::Secret;
use crate::slots::{is_current, open_keys, seal_keys};
use crate::{BackupId, Digest, DomainId, Error};

/// Small objects that are read, written or removed at once.
pub(crate) const AT_ONCE: usize = 32;
/// Backups whose new slots go into one head: less than 1 MiB of it.
const BACKUPS_A_HEAD: usize = 2_048;

/// What [`Repository::rewrap`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Live backups of the domain here.
    pub backups: u64,
    /// Those that got new slots now.
    pub rewrapped: u64,
    /// Those whose slots cannot be read here, and why: they keep them until they are healed.
    pub unreadable: Vec<String>,
    /// Former slots that the place did not let go, and why: whoever has a former organization key opens them.
    pub kept: Vec<String>,
}

/// New slots of one backup, durable and not committed yet.
struct Rewrap {
    backup: BackupId,
    /// Generation that they follow.
    before: u64,
    generation: u64,
    object: Object,
}

/// Where a rewrap takes place.
struct Rewrapping<'a> {
    here: &'a Repository,
    domain: DomainId,
    keyring: Arc<Keyring>,
    state: Arc<DomainState>,
    source: Option<(&'a Repository, Arc<DomainState>)>,
}

impl Repository {
    /// Brings the slots of every backup here to the newest organization key: those that `source` has in a later generation verbatim,
    /// so that one target can heal another; the others are wrapped anew. `progress` is told (done, total) backups.
    ///
    /// Errors: another writer took over; a place does not answer.
    pub async fn rewrap(
        &self,
        domain: DomainId,
        source: Option<&Repository>,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Rewrapped, Error> {
        self.writable()?;
        self.publish_new_keyring().await?;
        let source = match source {
            Some(source) => Some((source, source.state(domain).await?)),
            None => None,
        };
        let (keyring, state) = (self.inner.keyring.current(), self.state(domain).await?);
        let rewrapping = Rewrapping { here: self, domain, keyring, state, source };
        let backups: Vec<BackupId> = rewrapping.state.backups.keys().copied().collect();
        let mut seen = Rewrapped { backups: backups.len() as u64, ..Rewrapped::default() };
        progress(0, seen.backups);
        for (number, batch) in (1..).zip(backups.chunks(BACKUPS_A_HEAD)) {
            let rewraps = rewrapping.write(batch, &mut seen).await?;
            seen.rewrapped += rewraps.len() as u64;
            self.commit_rewraps(domain, &rewraps).await?;
            progress((number * BACKUPS_A_HEAD as u64).min(seen.backups), seen.backups);
        }
        seen.kept = self.remove_former_slots(domain).await?;
        Ok(seen)
    }

    async fn commit_rewraps(&self, domain: DomainId, rewraps: &[Rewrap]) -> Result<(), Error> {
        self.commit(domain, |state| {
            let mut change = Change::default();
            for one in rewraps {
                // Forgotten or rewrapped by somebody else meanwhile: then these slots are garbage.
                let Some(live) = state.backups.get(&one.backup).filter(|live| live.keys == one.before) else {
                    continue;
                };
                change.added.push(one.object.clone());
                change.dropped.push(path::keys(domain, one.backup, one.before));
                change.committed.push((one.backup, live.indexes.clone(), one.generation));
            }
            Ok((!change.committed.is_empty()).then_some(change))
        })
        .await
    }

    /// Removes slots of generations before those that heads name. The listing only says what is there: the heads say what is former.
    async fn remove_former_slots(&self, domain: DomainId) -> Result<Vec<String>, Error> {
        let listed = self.inner.place.list(&path::backups(domain)).await?;
        let state = self.state(domain).await?;
        let is_former = |path: &str| {
            let named = path::keys_generation(domain, path);
            named.is_some_and(|(backup, generation)| {
                state.backups.get(&backup).is_some_and(|live| generation < live.keys)
            })
        };
        self.remove_all(listed.into_iter().map(|one| one.path).filter(|path| is_former(path)), &|_| {}).await
    }

    /// Removes objects side by side; those that the place does not let go, with its reason. `progress` is told how many are done.
    pub(crate) async fn remove_all(
        &self,
        paths: impl Iterator<Item = String>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Vec<String>, Error> {
        let removals = paths.map(|path| {
            async move {
                match self.inner.place.delete(&path).await {
                    Err(error) if error.is_permanent() => Ok(Some(format!("{path}: {error}"))),
                    removed => removed.map(|()| None),
                }
            }
            .boxed()
        });
        let mut removing = stream::iter(removals.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let (mut kept, mut done) = (Vec::new(), 0);
        while let Some(removed) = removing.try_next().await? {
            kept.extend(removed);
            done += 1;
            progress(done);
        }
        kept.sort_unstable();
        Ok(kept)
    }

    /// Makes the heads here need the current keyring, so that readers refuse every generation before it, and removes those. What the
    /// place does not let go, with its reason.
    pub async fn retire_former_keyrings(&self) -> Result<Vec<String>, Error> {
        self.publish_keyring().await?;
        let keyring = self.inner.keyring.current();
        for domain in keyring.domains() {
            let needs_less = |state: &DomainState| state.tip.is_some() && state.keyring < keyring.generation();
            self.commit(domain, |state| Ok(needs_less(state).then(Change::default))).await?;
        }
        let kept = retire(&self.inner.place, &keyring).await?;
        Ok(kept.into_iter().map(|(path, error)| format!("{path}: {error}")).collect())
    }
}

impl Rewrapping<'_> {
    /// Writes the new slots of these backups, side by side; those that need none are left out.
    async fn write(&self, batch: &[BackupId], seen: &mut Rewrapped) -> Result<Vec<Rewrap>, Error> {
        // Boxed, so that callers on any runtime can see that the whole is `Send`.
        let writes = batch.iter().map(|backup| async { (*backup, self.rewrap_one(*backup).await) }.boxed());
        let mut writing = stream::iter(writes.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let mut rewraps = Vec::new();
        while let Some((backup, rewrap)) = writing.next().await {
            match rewrap {
                Ok(rewrap) => rewraps.extend(rewrap),
                Err(error) if self.here.inner.place.is_damage(&error).await => {
                    seen.unreadable.push(format!("backup {backup}: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(rewraps)
    }

    async fn rewrap_one(&self, backup: BackupId) -> Result<Option<Rewrap>, Error> {
        let Some(live) = self.state.backups.get(&backup) else { return Ok(None) };
        if let Some(later) = self.later_at_source(backup, live) {
            return self.copy(backup, live, later).await.map(Some);
        }
        let path = path::keys(self.domain, backup, live.keys);
        let keys = self.here.object::<Keys>(&self.keyring, &self.state, Kind::Keys, &path).await?.clear;
        if is_current(&self.keyring, self.domain, &keys)? {
            return Ok(None);
        }
        let data_key = open_keys(&self.keyring, self.domain, backup, &keys)?;
        let mut generation = live.keys + 1;
        loop {
            if let Some(object) = self.put(backup, generation, &data_key).await? {
                return Ok(Some(Rewrap { backup, before: live.keys, generation, object }));
            }
            generation += 1;
        }
    }

    /// Writes a generation of slots, or takes the one that lies there if it serves: a path that a head may name is never written twice.
    /// `None`: another rotation, cut off, left something else there.
    async fn put(&self, backup: BackupId, generation: u64, data_key: &Secret) -> Result<Option<Object>, Error> {
        let (path, bytes) = seal_keys(&self.keyring, self.domain, backup, generation, data_key)?;
        let object = |bytes: &Bytes| (path.clone(), bytes.len() as u64, Digest::of(bytes));
        if self.here.inner.place.put_if_absent(&path, bytes.clone()).await? {
            return Ok(Some(object(&bytes)));
        }
        let Some(found) = self.here.inner.place.find(&path).await? else { return Ok(None) };
        let Ok(keys) = Envelope::<Keys>::open(Kind::Keys, &path, found.clone(), &*self.keyring) else {
            return Ok(None);
        };
        let is_current = is_current(&self.keyring, self.domain, &keys.clear)?;
        let opened = open_keys(&self.keyring, self.domain, backup, &keys.clear);
        Ok((is_current && opened.is_ok_and(|opened| opened == *data_key)).then(|| object(&found)))
    }

    /// The generation that the source names, where it is a later one.
    fn later_at_source(&self, backup: BackupId, live: &LiveBackup) -> Option<u64> {
        let (_, there) = self.source.as_ref()?;
        there.backups.get(&backup).map(|there| there.keys).filter(|generation| *generation > live.keys)
    }

    async fn copy(&self, backup: BackupId, live: &LiveBackup, generation: u64) -> Result<Rewrap, Error> {
        let path = path::keys(self.domain, backup, generation);
        let named = self.source.as_ref().and_then(|(source, there)| Some((*source, there.object(&path)?)));
        let lost = || Error::Lost { path: path.clone(), location: self.here.location() };
        let (source, (length, digest)) = named.ok_or_else(lost)?;
        let bytes = source.inner.place.committed(&path, digest).await?;
        self.here.inner.place.put(&path, bytes).await?;
        Ok(Rewrap { backup, before: live.keys, generation, object: (path, length, digest) })
    }
}
