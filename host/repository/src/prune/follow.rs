//! Following the heads by the ledger: what came is counted, what went is taken off, and packs in which something died are looked at.
//!
//! Invariant: when it is done, the ledger counts just what the newest state names as live, and every pack is looked at that holds a chunk which
//! something let go since the last prune that came to its end, and which nothing needs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use super::work::Work;
use crate::chunk::ChunkId;
use crate::format::index::Index;
use crate::format::path;
use crate::heads::DomainState;
use crate::index::IndexTable;
use crate::ledger::{Ledger, Look};
use crate::repository::{LedgerGuard, Repository};
use crate::{BackupId, Digest, DomainId, Error};

/// Refs, or footers of packs, that are read at once.
const FETCHES: usize = 8;

/// What the ledger counts, besides its digest.
#[derive(Clone, Debug)]
enum Source {
    /// A part of a backup's refs, and its path.
    Refs(BackupId, String),
    Index,
}

type Sources = BTreeMap<Digest, Source>;

impl Work<'_> {
    /// Brings what is known up to this state.
    pub(super) async fn follow_ledger(&mut self, state: Arc<DomainState>) -> Result<(), Error> {
        if state.tip.is_some() && state.tip == self.state.tip && !self.has_fresh {
            return Ok(());
        }
        self.state = state;
        self.table = self.repository.index(self.domain, &self.state).await?;
        let has_changed = self.count().await?;
        let has_more = self.look_at_touched().await? | self.look_at_due().await?;
        let is_sound = self.census.heed(&self.state);
        if has_changed || has_more || self.has_fresh || !is_sound {
            self.mark_needed().await?;
        }
        self.has_fresh = false;
        Ok(())
    }

    /// Has the ledger count what the state names as live, and nothing else. Whether anything came or went.
    async fn count(&mut self) -> Result<bool, Error> {
        let named = self.sources()?;
        let gone: Vec<Digest> =
            self.ledger()?.sources().filter(|source| !named.contains_key(source)).copied().collect();
        if !self.take_off(&gone).await? {
            tracing::info!(domain = %self.domain, "what the ledger counts is not here any more: making it anew");
            self.ledger()?.forget();
        }
        let mut came = named;
        let ledger = self.ledger()?;
        came.retain(|source, _| !ledger.counts(source));
        let has_changed = !gone.is_empty() || !came.is_empty();
        let (indexes, refs): (Sources, Sources) =
            came.into_iter().partition(|(_, source)| matches!(source, Source::Index));
        if !refs.is_empty() {
            // Whoever needs something that was condemned broke the rules; then is the time to notice.
            self.let_go.clear();
        }
        self.count_refs(refs).await?;
        // What an index tells of is looked at by what refs say: they were counted first.
        for index in indexes.into_keys() {
            self.count_index(index).await?;
        }
        if !gone.is_empty() {
            self.touch_fallen().await?;
        }
        Ok(has_changed)
    }

    fn ledger(&mut self) -> Result<&mut LedgerGuard, Error> {
        self.ledger.as_mut().ok_or(Error::WorkerStopped)
    }

    /// What the ledger is to count: the refs of live backups, and live indexes.
    fn sources(&self) -> Result<Sources, Error> {
        let mut sources = Sources::new();
        for backup in self.state.backups.keys() {
            let parts = self.repository.refs_of(&self.state, self.domain, *backup)?;
            sources.extend(parts.into_iter().map(|(path, digest)| (digest, Source::Refs(*backup, path))));
        }
        sources.extend(self.state.live_indexes().map(|index| (*index, Source::Index)));
        Ok(sources)
    }

    /// Takes off what went. `false` if some of it cannot be read any more: how much it held is not known then.
    async fn take_off(&mut self, gone: &[Digest]) -> Result<bool, Error> {
        let wanted: HashSet<Digest> = gone.iter().copied().collect();
        let sources = left_of(self.domain, &self.state, &wanted);
        if sources.len() < wanted.len() {
            return Ok(false);
        }
        for (digest, source) in sources {
            match held_by(self.repository, self.domain, digest, source).await {
                Ok(held) => self.ledger()?.take_off(digest, held.into_iter())?,
                Err(error) if self.repository.inner.place.is_damage(&error).await => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn count_refs(&mut self, refs: Sources) -> Result<(), Error> {
        let (repository, domain, total) = (self.repository, self.domain, refs.len() as u64);
        let read = |(digest, source)| {
            async move { Ok::<_, Error>((digest, held_by(repository, domain, digest, source).await?)) }.boxed()
        };
        let reads: Vec<_> = refs.into_iter().map(read).collect();
        let (mut reading, mut done) = (stream::iter(reads).buffer_unordered(FETCHES), 0);
        while let Some((digest, held)) = reading.try_next().await? {
            (self.progress)("counting", done, total);
            let add = move |ledger: &mut Ledger| ledger.add(digest, held.into_iter());
            self.with_ledger(add).await?;
            done += 1;
        }
        Ok(())
    }

    /// Counts what an index's deltas stand on. Packs of it in which something is held by no backup, or that lies elsewhere too, are to be
    /// looked at.
    async fn count_index(&mut self, digest: Digest) -> Result<(), Error> {
        let keyring = self.repository.inner.keyring.current();
        let index = self.repository.read_index(&keyring, self.domain, digest).await?;
        let table = self.table.clone();
        let counted = self.with_ledger(move |ledger| {
            let touched = touched_by(ledger, &table, &index)?;
            ledger.add(digest, bases_of(&index))?;
            Ok(touched)
        });
        let touched = counted.await?;
        self.touched.extend(touched);
        Ok(())
    }

    /// Packs in which something is that fell are to be looked at.
    async fn touch_fallen(&mut self) -> Result<(), Error> {
        let table = self.table.clone();
        let touched = self.with_ledger(move |ledger| {
            let (mut touched, mut others) = (BTreeSet::new(), ledger.look());
            for id in ledger.fallen() {
                touch(id?, &table, &mut others, &mut touched)?;
            }
            Ok(touched)
        });
        let touched = touched.await?;
        self.touched.extend(touched);
        Ok(())
    }

    /// Takes the chunks of touched packs into the census. Whether there were any that it does not know.
    async fn look_at_touched(&mut self) -> Result<bool, Error> {
        let keyring = self.repository.inner.keyring.current();
        let mut has_more = false;
        for (digest, packs) in self.table.telling_of(&self.touched) {
            if self.census.has_index(&digest) && packs.iter().all(|pack| self.census.knows(pack)) {
                continue;
            }
            let index = self.repository.read_index(&keyring, self.domain, digest).await?;
            self.census.take(digest, &index, false, |pack| packs.contains(pack));
            has_more = true;
        }
        Ok(has_more)
    }

    /// Looks once more at what is about to be deleted for good. Nothing in it is needed and nowhere else unless somebody broke the rules, and
    /// this is the time to notice.
    async fn look_at_due(&mut self) -> Result<bool, Error> {
        let (repository, domain, state) = (self.repository, self.domain, Arc::clone(&self.state));
        let keyring = repository.inner.keyring.current();
        let keys = keyring.domain(domain)?;
        let index_key = keys.index_key();
        let is_due = |pack: &&Digest| {
            let is_over = state.condemned().get(pack).is_some_and(|since| self.is_over(*since));
            is_over && !self.let_go.contains(*pack) && !self.census.knows(pack)
        };
        let due: Vec<Digest> = state.packs().filter(is_due).copied().collect();
        let read = |pack| {
            let state = &state;
            async move { Ok::<_, Error>((pack, repository.read_footer(domain, state, pack, index_key).await?)) }.boxed()
        };
        let reads: Vec<_> = due.into_iter().map(read).collect();
        let (mut reading, mut has_more) = (stream::iter(reads).buffer_unordered(FETCHES), false);
        while let Some((pack, index)) = reading.try_next().await? {
            self.let_go.insert(pack);
            let Some(index) = index else { continue };
            let (ledger, table) = (self.ledger.as_ref().ok_or(Error::WorkerStopped)?, &self.table);
            let mut look = ledger.look();
            let mut is_lost = false;
            for record in &index.records {
                is_lost |= look.is_needed(&record.id)? && table.find(&record.id)?.is_none();
            }
            if is_lost {
                tracing::warn!(%pack, %domain, "chunks of live backups are in a condemned pack alone: they are moved");
                self.census.take(pack, &index, false, |_| true);
                has_more = true;
            }
        }
        Ok(has_more)
    }

    /// Marks, of what is looked at, what is needed.
    async fn mark_needed(&mut self) -> Result<(), Error> {
        (self.progress)("marking", 0, 1);
        let (mut census, table) = (std::mem::take(&mut self.census), self.table.clone());
        self.census = self
            .with_ledger(move |ledger| {
                census.forget_marks();
                census.note_elsewhere(|id| Ok::<_, Error>(table.find(id)?.is_some()))?;
                let mut look = ledger.look();
                census.mark_all(|id| look.is_needed(id))?;
                Ok(census)
            })
            .await?;
        Ok(())
    }

    /// Publishes what the ledger counts now. What is dead and stays is looked at again by the next prune.
    pub(super) async fn remember(&mut self) -> Result<(), Error> {
        let stays = self.census.dead().chain(self.census.half_dead()).map(|pack| pack.digest).collect();
        self.with_ledger(move |ledger| ledger.publish(stays)).await
    }

    /// Works with the ledger where it holds up nobody.
    async fn with_ledger<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Ledger) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let mut ledger = self.ledger.take().ok_or(Error::WorkerStopped)?;
        let (ledger, result) = self
            .repository
            .inner
            .pool
            .run(move |_| {
                let result = work(&mut ledger);
                (ledger, result)
            })
            .await?;
        self.ledger = Some(ledger);
        result
    }
}

/// Where those of these sources lie that are not deleted yet.
fn left_of(domain: DomainId, state: &DomainState, wanted: &HashSet<Digest>) -> Sources {
    let mut sources = Sources::new();
    if wanted.is_empty() {
        return sources;
    }
    for (path, (_, digest)) in state.objects_below(path::backups(domain)).filter(|(_, (_, it))| wanted.contains(it)) {
        if let Some(backup) = path::refs_backup(domain, path) {
            sources.insert(*digest, Source::Refs(backup, path.clone()));
        }
    }
    let indexes = wanted.iter().filter(|index| state.indexes.contains_key(index));
    sources.extend(indexes.map(|index| (*index, Source::Index)));
    sources
}

/// What a source holds, and by which delta.
async fn held_by(
    repository: &Repository,
    domain: DomainId,
    digest: Digest,
    source: Source,
) -> Result<Vec<(ChunkId, Option<ChunkId>)>, Error> {
    match source {
        Source::Refs(backup, path) => {
            let refs = repository.read_refs(domain, backup, &path, digest).await?;
            Ok(refs.added.into_iter().chain(refs.adopted).map(|id| (id, None)).collect())
        }
        Source::Index => {
            let keyring = repository.inner.keyring.current();
            Ok(bases_of(&repository.read_index(&keyring, domain, digest).await?).collect())
        }
    }
}

/// What an index's deltas stand on, each with its delta.
fn bases_of(index: &Index) -> impl Iterator<Item = (ChunkId, Option<ChunkId>)> {
    let bases = index.records.iter().filter_map(|record| Some((*index.bases.get(record.base as usize)?, record.id)));
    bases.map(|(base, delta)| (base, Some(delta)))
}

/// Packs that are to be looked at because of what an index tells: those with a chunk that no backup holds, and all that have one in common.
fn touched_by(ledger: &Ledger, table: &IndexTable, index: &Index) -> Result<BTreeSet<Digest>, Error> {
    let (mut touched, mut look) = (BTreeSet::new(), ledger.look());
    for record in &index.records {
        if !look.is_in_refs(&record.id)? {
            touched.insert(index.packs[record.pack as usize]);
        }
        let mut packs = Vec::new();
        table.copies(&record.id, &mut |copy| packs.push(copy.pack))?;
        if packs.iter().any(|pack| *pack != packs[0]) {
            touched.extend(packs);
        }
    }
    Ok(touched)
}

/// Adds the packs in which a chunk lies that nothing needs, and in which the chunks lie that only it stood on.
fn touch(id: ChunkId, table: &IndexTable, look: &mut Look<'_>, touched: &mut BTreeSet<Digest>) -> Result<(), Error> {
    let (mut seen, mut next) = (HashSet::new(), vec![id]);
    while let Some(id) = next.pop() {
        if !seen.insert(id) || look.is_needed(&id)? {
            continue;
        }
        table.copies(&id, &mut |copy| {
            touched.insert(copy.pack);
            next.extend(copy.base);
        })?;
    }
    Ok(())
}
