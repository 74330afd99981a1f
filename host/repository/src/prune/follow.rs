//! Following the heads by the ledger: what came is counted, what went is taken off, and packs in which something died are looked at.
//!
//! What lives is not looked at, so nothing is concluded about it. A pack goes only if nothing in it is needed: neither named by the refs of a live backup, nor
//! what a delta that is needed stands on, by any index that counts. So whatever chain of copies opens a chunk that a backup holds, no
//! pack of it goes, or what is needed of that pack was moved as it is. Chunks that lie twice, and what a copy of a delta stands on that nobody reads, stay
//! until everything is looked at again, as the first prune does and then, where anything comes or goes, one in thirty days ([`LOOK_MS`]).
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

/// How long prunes go by the ledger until one looks at everything again.
const LOOK_MS: u64 = 30 * 24 * 60 * 60 * 1000;
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
    /// Goes by a ledger from here on, unless it is time to look at everything.
    pub(super) fn go_by(&mut self, ledger: LedgerGuard) {
        let since_ms = self.now_ms.checked_sub(ledger.looked_ms());
        self.is_whole = since_ms.is_none_or(|since_ms| since_ms >= LOOK_MS);
        self.touched.clone_from(ledger.again());
        self.ledger = Some(ledger);
    }

    /// Whether the ledger counts just what this state names, and nothing was left to be looked at again: then nothing died since. Without a ledger that
    /// is not known.
    pub(super) fn is_current(&self, state: &DomainState) -> bool {
        let Some(ledger) = &self.ledger else { return true };
        let below = state.objects_below(path::backups(self.domain));
        let refs = below.filter(|(path, _)| {
            path::refs_backup(self.domain, path).is_some_and(|backup| state.backups.contains_key(&backup))
        });
        let named: BTreeSet<Digest> =
            refs.map(|(_, (_, digest))| *digest).chain(state.live_indexes().copied()).collect();
        ledger.again().is_empty() && ledger.sources().eq(&named)
    }

    /// Brings what is known up to this state. `false` if the ledger cannot tell what died, or something that was condemned is needed: everything must
    /// be looked at.
    pub(super) async fn follow_ledger(&mut self, state: Arc<DomainState>) -> Result<bool, Error> {
        match self.look_at_what_died(state).await {
            Err(error @ Error::IndexCache { .. }) => {
                // Where there is no room, a prune must not fail for want of it.
                tracing::warn!(domain = %self.domain, %error, "the ledger of references cannot be gone by: looking at everything");
                Ok(false)
            }
            looked => looked,
        }
    }

    async fn look_at_what_died(&mut self, state: Arc<DomainState>) -> Result<bool, Error> {
        if state.tip.is_some() && state.tip == self.state.tip && !self.has_fresh {
            return Ok(true);
        }
        self.state = state;
        self.table = self.repository.index(self.domain, &self.state).await?;
        if !self.count().await? || !self.is_free_of_need().await? {
            return Ok(false);
        }
        self.look_at_touched().await?;
        self.census.heed(&self.state);
        self.mark_needed().await?;
        self.has_fresh = false;
        Ok(true)
    }

    /// Has the ledger count what the state names as live, and nothing else. `false` if some of what it counts can be read no more.
    async fn count(&mut self) -> Result<bool, Error> {
        let named = self.sources()?;
        let ledger = self.ledger()?;
        let gone: Vec<Digest> = ledger.sources().filter(|source| !named.contains_key(source)).copied().collect();
        if !self.take_off(&gone).await? {
            tracing::info!(domain = %self.domain, "what the ledger of references counts is not here any more: looking at everything");
            return Ok(false);
        }
        self.count_new(named, true).await?;
        if !gone.is_empty() {
            self.touch_fallen().await?;
        }
        Ok(true)
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
                Ok(held) => {
                    self.with_ledger(move |ledger| ledger.take_off(digest, held.into_iter())).await?;
                }
                Err(error) if self.repository.inner.place.is_damage(&error).await => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Counts those of the sources that are not counted yet; where what died is to be found, packs of new indexes in which nobody needs
    /// something are to be looked at.
    async fn count_new(&mut self, mut sources: Sources, is_looking: bool) -> Result<(), Error> {
        let ledger = self.ledger()?;
        sources.retain(|source, _| !ledger.counts(source));
        let (indexes, refs): (Sources, Sources) =
            sources.into_iter().partition(|(_, source)| matches!(source, Source::Index));
        if !refs.is_empty() {
            // Whoever needs something that was condemned broke the rules; then is the time to notice.
            self.let_go.clear();
        }
        self.count_refs(refs).await?;
        // What an index tells of is looked at by what refs say: they were counted first.
        for index in indexes.into_keys() {
            self.count_index(index, is_looking).await?;
        }
        Ok(())
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
            self.with_ledger(move |ledger| ledger.add(digest, held.into_iter())).await?;
            done += 1;
        }
        Ok(())
    }

    /// Counts what an index's deltas stand on.
    async fn count_index(&mut self, digest: Digest, is_looking: bool) -> Result<(), Error> {
        let keyring = self.repository.inner.keyring.current();
        let index = self.repository.read_index(&keyring, self.domain, digest).await?;
        if is_looking && !index.packs.iter().any(|pack| self.state.is_live(pack)) {
            // Nothing in it will ever be touched. It is not needed.
            self.census.take(digest, &index, false, |_| false);
        }
        let counted = self.with_ledger(move |ledger| {
            ledger.add(digest, bases_of(&index))?;
            if is_looking { unneeded_of(&index, &mut ledger.look()) } else { Ok(BTreeSet::new()) }
        });
        let unneeded = counted.await?;
        self.touched.extend(unneeded);
        Ok(())
    }

    /// Packs in which something is that fell are to be looked at.
    async fn touch_fallen(&mut self) -> Result<(), Error> {
        let table = self.table.clone();
        let touched = self.with_ledger(move |ledger| packs_of_fallen(ledger, &table)).await?;
        self.touched.extend(touched);
        Ok(())
    }

    /// Takes the chunks of touched packs into the census.
    async fn look_at_touched(&mut self) -> Result<(), Error> {
        let keyring = self.repository.inner.keyring.current();
        for (digest, packs) in self.table.telling_of(&self.touched) {
            if self.census.has_index(&digest) && packs.iter().all(|pack| self.census.knows(pack)) {
                continue;
            }
            let index = self.repository.read_index(&keyring, self.domain, digest).await?;
            self.census.take(digest, &index, false, |pack| packs.contains(pack));
        }
        Ok(())
    }

    /// Looks once more at what is about to be deleted for good. Nothing in it is needed that cannot be opened without it, unless somebody broke the
    /// rules, and this is the time to notice: `false` then.
    async fn is_free_of_need(&mut self) -> Result<bool, Error> {
        let (repository, domain, state) = (self.repository, self.domain, Arc::clone(&self.state));
        let keyring = repository.inner.keyring.current();
        let keys = keyring.domain(domain)?;
        let index_key = keys.index_key();
        let is_due = |pack: &&Digest| {
            let since = state.condemned().get(pack);
            since.is_some_and(|since| self.is_over(*since)) && !self.let_go.contains(*pack)
        };
        let due: Vec<Digest> = state.packs().filter(is_due).copied().collect();
        let read = |pack| {
            let state = &state;
            async move { Ok::<_, Error>((pack, repository.read_footer(domain, state, pack, index_key).await?)) }.boxed()
        };
        let reads: Vec<_> = due.into_iter().map(read).collect();
        let mut reading = stream::iter(reads).buffer_unordered(FETCHES);
        while let Some((pack, index)) = reading.try_next().await? {
            let table = self.table.clone();
            let is_needed = move |ledger: &mut Ledger| {
                let mut look = ledger.look();
                for record in index.iter().flat_map(|index| &index.records) {
                    // A delta may have outlived its base, and be stored another way since.
                    if look.is_needed_by(&record.id, |id| Ok(table.known_chain(id)?.is_none()))? {
                        return Ok(true);
                    }
                }
                Ok(false)
            };
            if self.with_ledger(is_needed).await? {
                tracing::warn!(%pack, %domain, "chunks of live backups are in a condemned pack alone: looking at everything");
                return Ok(false);
            }
            self.let_go.insert(pack);
        }
        Ok(true)
    }

    /// Marks, of what is looked at, what is needed.
    async fn mark_needed(&mut self) -> Result<(), Error> {
        (self.progress)("marking", 0, 1);
        let mut census = std::mem::take(&mut self.census);
        let marked = self.with_ledger(move |ledger| {
            let mut look = ledger.look();
            census.mark_all(|id| look.is_needed(id))?;
            Ok(census)
        });
        self.census = marked.await?;
        Ok(())
    }

    /// Publishes what the ledger counts now; anew, where everything was looked at. What is dead for the most part and stays is looked at again by
    /// the next prune. Where it cannot be written, that one has more to do.
    pub(super) async fn remember(&mut self) -> Result<(), Error> {
        match self.publish().await {
            Err(error @ Error::IndexCache { .. }) => {
                tracing::warn!(domain = %self.domain, %error, "the ledger of references cannot be written");
                Ok(())
            }
            published => published,
        }
    }

    async fn publish(&mut self) -> Result<(), Error> {
        let Some(ledger) = &mut self.ledger else { return Ok(()) };
        let mut looked_ms = ledger.looked_ms();
        if self.is_whole {
            // What condemned by the ledger, and had to look at everything after that, left to the next prune what only such a look finds.
            looked_ms = if self.has_looked { self.now_ms } else { 0 };
            ledger.forget();
            let sources = self.sources()?;
            self.count_new(sources, false).await?;
        }
        let again = self.census.left_over().map(|pack| pack.digest).collect();
        self.with_ledger(move |ledger| ledger.publish(again, looked_ms)).await
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

/// Packs of an index with a chunk that nothing needs.
fn unneeded_of(index: &Index, look: &mut Look<'_>) -> Result<BTreeSet<Digest>, Error> {
    let mut packs = BTreeSet::new();
    for record in &index.records {
        if !look.is_needed(&record.id)? {
            packs.insert(index.packs[record.pack as usize]);
        }
    }
    Ok(packs)
}

/// Packs in which a chunk lies that fell, or one that only such a chunk stood on.
fn packs_of_fallen(ledger: &Ledger, table: &IndexTable) -> Result<BTreeSet<Digest>, Error> {
    let (mut packs, mut seen, mut look) = (BTreeSet::new(), HashSet::new(), ledger.look());
    for fallen in ledger.fallen() {
        let mut next = vec![fallen?];
        while let Some(id) = next.pop() {
            if !seen.insert(id) || look.is_needed(&id)? {
                continue;
            }
            packs.extend(table.copies(&id)?.into_iter().map(|copy| copy.pack));
            // The ledger counts what an index tells of condemned packs too.
            next.extend(table.bases(&id)?);
        }
    }
    Ok(packs)
}
