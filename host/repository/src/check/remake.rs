//! What can be made again from what it was made of: indexes from the footers of packs, refs from the trees of their backup.

use std::collections::{BTreeSet, HashSet};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use super::{Damage, Healed, LOST_CHUNK};
use crate::chunk::ChunkId;
use crate::format::index::Index;
use crate::format::path;
use crate::heads::Change;
use crate::reader::Reach;
use crate::repack::Repacker;
use crate::repository::Repository;
use crate::stock::Stocks;
use crate::{BackupId, Digest, DomainId, Error};

/// Footers that are fetched at once.
const FETCHES: usize = 8;

impl Repository {
    /// Makes new indexes in the place of damaged ones, of all packs that no other index tells of; gives the damages that are left. A pack
    /// that cannot describe itself any more is damaged too, and what it held is mended.
    pub(super) async fn remake_indexes(
        &self,
        domain: DomainId,
        damages: Vec<Damage>,
        healed: &mut Healed,
    ) -> Result<Vec<Damage>, Error> {
        let state = self.state(domain).await?;
        let index_of =
            |damage: &Damage| path::index_digest(domain, &damage.path).filter(|index| state.is_index_live(index));
        let (damaged, left): (Vec<Damage>, Vec<Damage>) =
            damages.into_iter().partition(|damage| index_of(damage).is_some());
        let indexes: BTreeSet<Digest> = damaged.iter().filter_map(index_of).collect();
        if indexes.is_empty() {
            return Ok(left);
        }
        let mut repacker = Repacker::new(self, domain)?;
        self.untold(domain, &indexes).await?.into_iter().for_each(|index| repacker.tell_of(index));
        let superseded: Vec<Digest> = indexes.iter().copied().collect();
        let fresh = repacker.finish(&superseded).await?;
        let (began_ms, new) = (self.now_ms(), fresh.indexes.iter().map(|(digest, _)| *digest));
        let new: Vec<Digest> = new.collect();
        self.commit(domain, |state| {
            let named = state.backups.iter().filter(|(_, live)| live.indexes.iter().any(|it| indexes.contains(it)));
            let committed = named.map(|(backup, live)| {
                let kept = live.indexes.iter().filter(|index| !indexes.contains(index));
                (*backup, kept.chain(&new).copied().collect(), live.keys)
            });
            let condemned = indexes.iter().filter(|index| state.is_index_live(index));
            Ok(Some(Change {
                added: fresh.objects.clone(),
                committed: committed.collect(),
                condemned: condemned.map(|index| (*index, began_ms)).collect(),
                began_ms: Some(began_ms),
                ..Change::default()
            }))
        })
        .await?;
        healed.paths.extend(damaged.into_iter().map(|damage| damage.path));
        Ok(left)
    }

    /// What the packs say of themselves that no index tells of but these.
    async fn untold(&self, domain: DomainId, damaged: &BTreeSet<Digest>) -> Result<Vec<Index>, Error> {
        let (state, keyring) = (self.state(domain).await?, self.inner.keyring.current());
        let mut told = HashSet::new();
        for digest in state.live_indexes().filter(|index| !damaged.contains(index)) {
            told.extend(self.read_index(&keyring, domain, *digest).await?.packs);
        }
        let keys = keyring.domain(domain)?;
        let untold = state.live_packs().filter(|pack| !told.contains(*pack)).copied();
        let reads = untold.map(|pack| self.read_footer(domain, &state, pack, keys.index_key()).boxed());
        let read: Vec<Option<Index>> =
            stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(FETCHES).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// Makes refs again that are damaged here, of backups whose trees can be seen whole; gives the damages that are left.
    pub(super) async fn remake_lost_refs(
        &self,
        domain: DomainId,
        sources: &[Self],
        damages: Vec<Damage>,
        healed: &mut Healed,
    ) -> Result<Vec<Damage>, Error> {
        let mut made: BTreeSet<BackupId> = BTreeSet::new();
        let lost: BTreeSet<BackupId> =
            damages.iter().filter_map(|damage| path::refs_backup(domain, &damage.path)).collect();
        for backup in lost {
            if self.remake_refs(domain, sources, backup).await? {
                made.insert(backup);
            }
        }
        let (whole, left): (Vec<Damage>, Vec<Damage>) = damages
            .into_iter()
            .partition(|damage| path::refs_backup(domain, &damage.path).is_some_and(|backup| made.contains(&backup)));
        healed.paths.extend(whole.into_iter().map(|damage| damage.path));
        Ok(left)
    }

    /// Lets refs name lost chunks no longer that nothing reaches: those of entries that were begun anew. Nobody loses them.
    pub(super) async fn forget_idle_refs(&self, domain: DomainId, sources: &[Self]) -> Result<(), Error> {
        for damage in self.check_structure(domain, &|_, _| ()).await?.damages {
            let backup = path::backup_object(domain, &damage.path).map(|(backup, _)| backup);
            if let Some(backup) = backup.filter(|_| damage.code == LOST_CHUNK) {
                self.remake_refs(domain, sources, backup).await?;
            }
        }
        Ok(())
    }

    /// Writes what a backup's trees reach as its refs: `false` where they cannot be seen whole, or name just that.
    async fn remake_refs(&self, domain: DomainId, sources: &[Self], backup: BackupId) -> Result<bool, Error> {
        let stocks = Stocks::open(self, sources, domain).await?;
        let Some(reader) = stocks.backup(backup).await else { return Ok(false) };
        let mut reach = Reach::strict(stocks.chunks());
        if let Err(error) = reach.walk(&reader).await {
            tracing::warn!(%backup, %error, "refs cannot be made again: the backup's trees cannot be seen whole");
            return Ok(false);
        }
        let mut ids = reach.reached;
        let mut bases: Vec<ChunkId> = Vec::new();
        for id in &ids {
            bases.extend(stocks.bases(id)?);
        }
        ids.extend(bases);
        let state = self.state(domain).await?;
        if let Ok(named) = self.chunks_of(&state, domain, backup).await
            && named.into_iter().collect::<HashSet<_>>() == ids
        {
            return Ok(false);
        }
        let began_ms = self.now_ms();
        let mut adopted: Vec<ChunkId> = ids.into_iter().collect();
        adopted.sort_unstable();
        let objects = self.put_refs(domain, backup, Vec::new(), adopted).await?;
        self.commit(domain, |state| {
            if !state.backups.contains_key(&backup) {
                return Ok(None);
            }
            let is_kept = |path: &String| objects.iter().any(|(own, ..)| own == path);
            let former = state.objects_below(path::refs_prefix(domain, backup)).map(|(path, _)| path);
            Ok(Some(Change {
                added: objects.clone(),
                dropped: former.filter(|path| !is_kept(path)).cloned().collect(),
                began_ms: Some(began_ms),
                ..Change::default()
            }))
        })
        .await?;
        Ok(true)
    }
}
