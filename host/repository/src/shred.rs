//! Shredding: destroying the ways to data, so that nobody reads what is left. Of a backup that is its slots; of a domain, once the
//! keyring holds its keys no more, everything.
//!
//! Safe to run again: what is gone is no error. What a place does not let go is said, never passed over.

use std::collections::HashSet;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use crate::chunk::ChunkId;
use crate::format::path;
use crate::heads::Change;
use crate::holds::must_not_be_held;
use crate::repository::Repository;
use crate::{BackupId, DomainId, Error};

/// Backups whose refs are on their way at once.
const REFS_AT_ONCE: usize = 8;

/// How much of a backup others hold too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Different chunks of the backup.
    pub chunks: u64,
    /// Those that another live backup here has too: they stay readable through it.
    pub shared: u64,
}

impl Repository {
    /// How much of a backup would outlive its shredding here, because others hold it too. Nothing of one that is not here.
    pub async fn overlap(&self, domain: DomainId, backup: BackupId) -> Result<Overlap, Error> {
        let state = self.state(domain).await?;
        if !state.backups.contains_key(&backup) {
            return Ok(Overlap::default());
        }
        let own: HashSet<ChunkId> = self.chunks_of(&state, domain, backup).await?.into_iter().collect();
        let others = state.backups.keys().filter(|other| **other != backup);
        let reads = others.map(|other| self.chunks_of(&state, domain, *other).boxed());
        let mut reading = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(REFS_AT_ONCE);
        let mut shared = HashSet::new();
        while let Some(ids) = reading.try_next().await? {
            shared.extend(ids.into_iter().filter(|id| own.contains(id)));
        }
        Ok(Overlap { chunks: own.len() as u64, shared: shared.len() as u64 })
    }

    /// Destroys a backup's slots here: a head forgets the backup and its keys, then every generation of them is removed. Its chunks stay
    /// until prune. Returns what the place did not let go, and why.
    pub async fn shred_backup(&self, domain: DomainId, backup: BackupId, now_ms: u64) -> Result<Vec<String>, Error> {
        let prefix = path::keys_prefix(domain, backup);
        self.commit(domain, |state| {
            must_not_be_held(state, backup)?;
            let is_here = state.backups.contains_key(&backup);
            let dropped: Vec<_> = state.objects_below(prefix.clone()).map(|(path, _)| path.clone()).collect();
            let removed = if is_here { vec![(backup, now_ms)] } else { Vec::new() };
            Ok((is_here || !dropped.is_empty()).then(|| Change { removed, dropped, ..Change::default() }))
        })
        .await?;
        // Former generations too, and what a stop left behind: no head names them any more.
        let listed = self.inner.place.list(&prefix).await?.into_iter().map(|one| one.path);
        self.remove_all(listed.filter(|path| path::keys_generation(domain, path).is_some()), &|_| {}).await
    }

    /// Removes all that is left of a domain whose keys are destroyed, slots first. `progress` is told (done, total) objects. Returns what
    /// the place did not let go, and why.
    ///
    /// Errors: the keyring has its keys; the store does not answer.
    pub async fn erase_domain(
        &self,
        domain: DomainId,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Vec<String>, Error> {
        self.writable()?;
        if self.inner.keyring.current().domain(domain).is_ok() {
            return Err(Error::DomainAlive { domain });
        }
        let listed = self.inner.place.list(&path::domain(domain)).await?;
        let total = listed.len() as u64;
        let is_slot = |path: &String| path::keys_generation(domain, path).is_some();
        let (slots, rest): (Vec<_>, Vec<_>) = listed.into_iter().map(|one| one.path).partition(is_slot);
        let before = slots.len() as u64;
        let mut kept = self.remove_all(slots.into_iter(), &|done| progress(done, total)).await?;
        kept.extend(self.remove_all(rest.into_iter(), &|done| progress(before + done, total)).await?);
        Ok(kept)
    }
}
