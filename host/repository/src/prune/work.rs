//! One prune of one domain, step by step.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use super::census::Census;
use super::{Progress, PruneOptions, Pruned, Tally, Why};
use crate::chunk::ChunkId;
use crate::format::head::{Committed, Object};
use crate::format::path;
use crate::heads::{Change, DomainState};
use crate::index::IndexTable;
use crate::repack::{Fresh, Repacker, by_pack};
use crate::repository::{LedgerGuard, Repository};
use crate::{BackupId, Digest, DomainId, Error};

/// Half-dead packs whose living chunks are looked for in one go through all chunks.
const GROUP: usize = 64;
/// Half-dead packs whose chunks are moved before a head condemns them: 16 GiB, so that a kill costs little work.
const BATCH: usize = 1024;
/// Indexes that the backups of one head name at most, but for those of one backup: 2 MiB.
const NAMED: usize = 65_536;

/// A prune that is under way.
pub(super) struct Work<'a> {
    pub(super) repository: &'a Repository,
    pub(super) domain: DomainId,
    pub(super) options: PruneOptions,
    pub(super) now_ms: u64,
    /// When the first object was stored that no head names yet.
    batch_began_ms: u64,
    pub(super) progress: Progress<'a>,
    pub(super) state: Arc<DomainState>,
    pub(super) census: Census,
    /// All packs are looked at, and what lives is marked by the refs themselves; else those in which something died, as the ledger says.
    pub(super) is_whole: bool,
    /// It was so when it was said what is dead.
    pub(super) has_looked: bool,
    /// Backups whose chunks are marked by their refs.
    marked: BTreeSet<BackupId>,
    /// Who holds chunks; none where damaged packs are mended, or it cannot be opened.
    pub(super) ledger: Option<LedgerGuard>,
    /// Where chunks are, where the ledger is gone by.
    pub(super) table: IndexTable,
    /// Packs that are looked at because of what the ledger says.
    pub(super) touched: BTreeSet<Digest>,
    /// Condemned packs in which nothing was found that is needed and nowhere else.
    pub(super) let_go: HashSet<Digest>,
    /// The census has packs of which no head was asked.
    pub(super) has_fresh: bool,
    pub(super) pruned: Pruned,
    /// What the place did not let go.
    pub(super) refused: BTreeMap<Digest, u64>,
    /// What is locked, and until when.
    pub(super) locked: BTreeMap<Digest, u64>,
    /// Damaged packs are mended: a backup whose refs cannot be read is lost, and stands in nobody's way.
    pub(super) is_mending: bool,
    /// Feature bits that a reader of what this stores must know.
    pub(super) incompatible: u64,
}

/// What a head is to condemn, and what follows from it.
struct Sentence {
    condemned: BTreeSet<Digest>,
    tally: Tally,
    /// Components that nothing here needs any more.
    dropped: Vec<String>,
    /// Backups whose chunks other indexes tell of from now on.
    committed: Vec<Committed>,
}

impl<'a> Work<'a> {
    pub(super) fn new(
        repository: &'a Repository,
        domain: DomainId,
        options: PruneOptions,
        now_ms: u64,
        progress: Progress<'a>,
    ) -> Self {
        Self {
            repository,
            domain,
            options,
            now_ms,
            batch_began_ms: now_ms,
            progress,
            state: Arc::default(),
            census: Census::default(),
            is_whole: true,
            has_looked: false,
            marked: BTreeSet::new(),
            ledger: None,
            table: IndexTable::default(),
            touched: BTreeSet::new(),
            let_go: HashSet::new(),
            has_fresh: false,
            pruned: Pruned::default(),
            refused: BTreeMap::new(),
            locked: BTreeMap::new(),
            is_mending: false,
            incompatible: 0,
        }
    }

    /// Whether anything died since the last prune that came to its end, or was condemned long enough ago.
    pub(super) fn is_due(&self, state: &DomainState) -> bool {
        let died = !orphans(self.domain, state).is_empty() || !unneeded_components(state).is_empty();
        died || !self.is_current(state) || state.condemned().values().any(|since| self.is_over(*since))
    }

    /// Whether the grace period of what was condemned then is over.
    pub(super) fn is_over(&self, since_ms: u64) -> bool {
        since_ms.saturating_add(self.options.grace_ms()) <= self.now_ms
    }

    /// Brings what is known up to the newest head: which packs count, and which chunks live.
    pub(super) async fn follow(&mut self) -> Result<(), Error> {
        let state = self.repository.state(self.domain).await?;
        self.repository.must_be_ours(self.domain, &state)?;
        if !self.is_whole && !self.follow_ledger(Arc::clone(&state)).await? {
            // What was moved and is in no head yet is not known to be so any more: it stays twice until the next look at everything.
            (self.is_whole, self.census) = (true, Census::default());
        }
        if self.is_whole { self.follow_all(state).await } else { Ok(()) }
    }

    /// The same by all indexes, and the refs of all backups.
    async fn follow_all(&mut self, state: Arc<DomainState>) -> Result<(), Error> {
        let (repository, domain) = (self.repository, self.domain);
        self.state = state;
        let keyring = repository.inner.keyring.current();
        for digest in
            self.state.live_indexes().filter(|digest| !self.census.has_index(digest)).copied().collect::<Vec<_>>()
        {
            let index = repository.read_index(&keyring, domain, digest).await?;
            self.census.take(digest, &index, false, |_| true);
        }
        let is_gone = |backup: &BackupId| !self.state.backups.contains_key(backup);
        if !self.census.heed(&self.state) || self.marked.iter().any(is_gone) {
            self.census.forget_marks();
            self.marked.clear();
        }
        self.mark().await?;
        self.find_lost().await
    }

    /// Marks what the backups hold that came since.
    async fn mark(&mut self) -> Result<(), Error> {
        let (state, total) = (Arc::clone(&self.state), self.state.backups.len() as u64);
        for (backup, done) in state.backups.keys().zip(0..) {
            if self.marked.contains(backup) {
                continue;
            }
            (self.progress)("marking", done, total);
            let ids = self.chunks_of(*backup).await?;
            ids.into_iter().flatten().for_each(|id| self.census.mark(id));
            self.marked.insert(*backup);
        }
        Ok(())
    }

    /// The chunks that a backup holds; none where its refs cannot be read, and that is no reason to stop.
    pub(super) async fn chunks_of(&self, backup: BackupId) -> Result<Option<Vec<ChunkId>>, Error> {
        match self.repository.chunks_of(&self.state, self.domain, backup).await {
            Ok(ids) => Ok(Some(ids)),
            Err(error) if self.is_mending && self.repository.inner.place.is_damage(&error).await => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks in condemned packs for chunks that are in no other one. There are none unless somebody broke the rules, and before
    /// anything is deleted for good is the time to notice.
    async fn find_lost(&mut self) -> Result<(), Error> {
        let lost = self.census.take_lost();
        if lost.is_empty() {
            return Ok(());
        }
        tracing::warn!(chunks = lost.len(), domain = %self.domain, "chunks of live backups are in no pack that counts: looking in condemned ones");
        let state = Arc::clone(&self.state);
        let keyring = self.repository.inner.keyring.current();
        let keys = keyring.domain(self.domain)?;
        let condemned = state.packs().filter(|pack| state.is_condemned(pack) && !self.census.knows(pack));
        for pack in condemned.copied().collect::<Vec<_>>() {
            if let Some(index) = self.repository.read_footer(self.domain, &state, pack, keys.index_key()).await? {
                self.census.take(pack, &index, false, |_| true);
            }
        }
        self.census.heed(&state);
        lost.into_iter().for_each(|id| self.census.mark(id));
        Ok(())
    }

    /// Condemns what nothing needs.
    pub(super) async fn condemn(&mut self) -> Result<(), Error> {
        loop {
            self.follow().await?;
            self.has_looked = self.is_whole;
            let dead: BTreeSet<Digest> = self.census.dead().map(|pack| pack.digest).collect();
            let sentence = self.sentence(dead).await?;
            if sentence.condemned.is_empty() && sentence.dropped.is_empty() {
                return Ok(());
            }
            if self.pronounce(sentence, Vec::new()).await? {
                return Ok(());
            }
        }
    }

    /// Moves what lives in half-dead packs into new ones, and condemns those. Where there is no room to do so, they stay.
    pub(super) async fn repack(&mut self) -> Result<(), Error> {
        self.follow().await?;
        let half_dead: Vec<Digest> = self.census.half_dead().map(|pack| pack.digest).collect();
        for (batch, done) in half_dead.chunks(BATCH).zip((0..).step_by(BATCH)) {
            (self.progress)("repacking", done, half_dead.len() as u64);
            self.batch_began_ms = self.repository.now_ms();
            let moved_bytes = self.pruned.moved_bytes;
            let mut repacker = Repacker::new(self.repository, self.domain)?;
            match self.move_living(&mut repacker, batch).await {
                Ok(Some((packs, fresh))) => self.settle(packs, fresh).await?,
                Ok(None) => {}
                Err(error) if error.is_full() => {
                    repacker.abandon().await?;
                    self.pruned.moved_bytes = moved_bytes;
                    let lengths = batch.iter().map(|pack| self.state.pack_length(pack).unwrap_or_default());
                    lengths.for_each(|length| self.pruned.keep(Why::NoRoom, length, None));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Stores what lives in some packs anew: those whose chunks were moved, and what was stored.
    async fn move_living(
        &mut self,
        repacker: &mut Repacker<'_>,
        batch: &[Digest],
    ) -> Result<Option<(BTreeSet<Digest>, Fresh)>, Error> {
        let mut moved = BTreeSet::new();
        for group in batch.chunks(GROUP) {
            let living = self.census.living(&group.iter().copied().collect());
            for (pack, chunks) in by_pack(&living) {
                let bytes: u64 = chunks.iter().map(|(_, location)| u64::from(location.length)).sum();
                match repacker.take_from(self.repository, pack, chunks).await {
                    Ok(()) => {
                        moved.insert(pack);
                        self.pruned.moved_bytes += bytes;
                    }
                    Err(error) if error.is_full() => return Err(error),
                    // What lives in it stays where it is, damaged or not.
                    Err(error) if self.repository.inner.place.is_damage(&error).await => {
                        tracing::warn!(%pack, %error, "a half-dead pack cannot be repacked");
                        self.pruned.keep(Why::Damaged, self.state.pack_length(&pack).unwrap_or_default(), None);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if moved.is_empty() {
            return Ok(None);
        }
        let supersedes: Vec<Digest> = self.census.idle_indexes(&self.state, &moved).collect();
        let fresh = repacker.finish(&supersedes).await?;
        for (digest, index) in &fresh.indexes {
            self.census.take(*digest, index, true, |_| true);
        }
        self.has_fresh = true;
        Ok(Some((moved, fresh)))
    }

    /// Condemns packs whose chunks are in fresh ones now, as often as other writers' heads come between.
    pub(super) async fn settle(&mut self, packs: BTreeSet<Digest>, fresh: Fresh) -> Result<(), Error> {
        loop {
            self.follow().await?;
            if self.is_whole {
                self.census.move_on(&packs)
            } else {
                self.census.leave(&packs)
            }
            // What somebody took to be known meanwhile lives there, and in no fresh pack.
            let empty: BTreeSet<Digest> = packs.iter().filter(|pack| !self.census.lives(pack)).copied().collect();
            let repacked: Vec<u64> = empty.iter().filter_map(|pack| self.state.pack_length(pack)).collect();
            let sentence = self.sentence(empty).await?;
            if self.pronounce(sentence, fresh.objects.clone()).await? {
                repacked.into_iter().for_each(|length| self.pruned.repacked.add(length));
                return Ok(());
            }
        }
    }

    /// What is to be condemned together with these packs.
    async fn sentence(&self, packs: BTreeSet<Digest>) -> Result<Sentence, Error> {
        let state = &self.state;
        // Of what was found in condemned packs, no index that a backup names tells.
        let is_rescue = self.is_mending || packs.iter().any(|pack| state.is_condemned(pack));
        let mut touched = self.census.telling_of(&packs);
        let packs: BTreeSet<Digest> = packs.into_iter().filter(|pack| !state.is_condemned(pack)).collect();
        let mut tally = Tally::default();
        packs.iter().for_each(|pack| tally.add(state.pack_length(pack).unwrap_or_default()));
        let idle: BTreeSet<Digest> = self.census.idle_indexes(state, &packs).collect();
        idle.iter().for_each(|index| tally.add(state.indexes.get(index).copied().unwrap_or_default()));
        let orphans = orphans(self.domain, state);
        orphans.iter().for_each(|(_, length, _)| tally.add(*length));
        touched.extend(&idle);
        let committed = if self.is_whole {
            self.committed_anew(|index| is_rescue || touched.contains(index)).await?
        } else {
            self.committed_on(&idle, &self.census.heirs(&packs))
        };
        let mut condemned = packs;
        condemned.extend(idle);
        condemned.extend(orphans.into_iter().map(|(_, _, digest)| digest));
        Ok(Sentence { condemned, tally, dropped: unneeded_components(state), committed })
    }

    /// Backups that name any of the touched indexes, with the indexes that tell of their chunks now.
    async fn committed_anew(&self, is_touched: impl Fn(&Digest) -> bool) -> Result<Vec<Committed>, Error> {
        let mut committed = Vec::new();
        for (backup, live) in &self.state.backups {
            if !live.indexes.iter().any(&is_touched) {
                continue;
            }
            let mut indexes = BTreeSet::new();
            let Some(ids) = self.chunks_of(*backup).await? else { continue };
            // What is lost is lost; check tells of it.
            indexes.extend(ids.iter().filter_map(|id| self.census.index_of_living(id)));
            committed.push((*backup, indexes.into_iter().collect(), live.keys));
        }
        Ok(committed)
    }

    /// The same without a look at their refs, so that it may be more than they need: they name no idle index any more, and with each
    /// other one those that tell of what was moved of it.
    fn committed_on(&self, idle: &BTreeSet<Digest>, heirs: &BTreeMap<Digest, BTreeSet<Digest>>) -> Vec<Committed> {
        let mut committed = Vec::new();
        for (backup, live) in &self.state.backups {
            let kept = live.indexes.iter().filter(|index| self.state.is_index_live(index) && !idle.contains(*index));
            let inherited = live.indexes.iter().filter_map(|index| heirs.get(index)).flatten();
            let indexes: BTreeSet<Digest> = kept.chain(inherited).copied().collect();
            if !indexes.iter().eq(&live.indexes) {
                committed.push((*backup, indexes.into_iter().collect(), live.keys));
            }
        }
        committed
    }

    /// Commits a sentence: `false` if another writer's head came first. What is too long for one head is told by several, of which the last
    /// one condemns.
    async fn pronounce(&mut self, mut sentence: Sentence, fresh: Vec<Object>) -> Result<bool, Error> {
        // What is known is of the state before, to which the next look comes back.
        let mut state = Arc::clone(&self.state);
        while let Some(committed) = split_off(&mut sentence.committed) {
            let change = Change { committed, ..self.change(&state, &fresh) };
            if !self.repository.commit_upon(self.domain, state.tip, change).await? {
                return Ok(false);
            }
            let next = state.next_sequence();
            state = self.repository.state(self.domain).await?;
            if state.tip.is_none_or(|tip| tip.sequence != next) {
                return Ok(false);
            }
        }
        let change = Change {
            committed: sentence.committed,
            condemned: sentence.condemned.into_iter().map(|digest| (digest, self.now_ms)).collect(),
            dropped: sentence.dropped,
            ..self.change(&state, &fresh)
        };
        let is_done = self.repository.commit_upon(self.domain, state.tip, change).await?;
        if is_done {
            self.pruned.condemned.merge(sentence.tally);
        }
        Ok(is_done)
    }

    /// A head that names what was stored, unless this state does so already.
    fn change(&self, state: &DomainState, fresh: &[Object]) -> Change {
        let unnamed = fresh.iter().filter(|object| !state.has(self.domain, object));
        Change {
            added: unnamed.cloned().collect(),
            incompatible: self.incompatible,
            began_ms: Some(self.batch_began_ms),
            ..Change::default()
        }
    }

    /// What would be done.
    pub(super) async fn foresee(mut self) -> Result<Pruned, Error> {
        let half_dead: Vec<(Digest, u64)> = self.census.half_dead().map(|pack| (pack.digest, pack.live)).collect();
        for (pack, live) in &half_dead {
            self.pruned.repacked.add(self.state.pack_length(pack).unwrap_or_default());
            self.pruned.moved_bytes += live;
        }
        let dead = self.census.dead().map(|pack| pack.digest);
        let packs = dead.chain(half_dead.iter().map(|(pack, _)| *pack).filter(|pack| !self.state.is_condemned(pack)));
        self.pruned.condemned = self.sentence(packs.collect()).await?.tally;
        let state = Arc::clone(&self.state);
        for (path, length, digest) in self.condemned_objects() {
            if !state.condemned().get(&digest).is_some_and(|since| self.is_over(*since)) {
                continue;
            }
            match self.repository.inner.place.locked_until(&path, self.now_ms).await? {
                Some(until_ms) => drop(self.locked.insert(digest, until_ms)),
                None => self.pruned.deleted.add(length),
            }
        }
        if self.options.now {
            let condemned = self.pruned.condemned;
            self.pruned.deleted.merge(condemned);
        }
        Ok(self.done())
    }

    /// Ends it with what stays.
    pub(super) fn done(self) -> Pruned {
        let state = Arc::clone(&self.state);
        self.waiting(&state)
    }

    /// What was done, and what is condemned in this state and waits.
    pub(super) fn waiting(mut self, state: &Arc<DomainState>) -> Pruned {
        self.state = Arc::clone(state);
        for (_, length, digest) in self.condemned_objects() {
            let since = state.condemned().get(&digest).copied().unwrap_or_default();
            if self.refused.contains_key(&digest) {
                self.pruned.keep(Why::Refused, length, None);
            } else if let Some(until_ms) = self.locked.get(&digest) {
                self.pruned.keep(Why::Locked, length, Some(*until_ms));
            } else if !self.is_over(since) {
                self.pruned.keep(Why::Condemned, length, Some(since.saturating_add(self.options.grace_ms())));
            }
        }
        self.pruned
    }

    /// Objects that are condemned and still named.
    pub(super) fn condemned_objects(&self) -> Vec<Object> {
        let mut objects = self.state.all_objects(self.domain);
        objects.retain(|(_, _, digest)| self.state.is_condemned(digest));
        objects
    }
}

/// Takes from backups as many as one head tells, if there are more.
fn split_off(committed: &mut Vec<Committed>) -> Option<Vec<Committed>> {
    let mut named = 0;
    let is_over = |(_, indexes, _): &Committed| {
        named += indexes.len();
        named > NAMED
    };
    let over = committed.iter().position(is_over)?.max(1);
    (over < committed.len()).then(|| committed.drain(..over).collect())
}

/// Objects of backups that were removed, not condemned yet.
fn orphans(domain: DomainId, state: &DomainState) -> Vec<Object> {
    let below = state.objects_below(path::backups(domain));
    let dead = below.filter(|(path, (_, digest))| {
        let owner = path::backup_object(domain, path).map(|(backup, _)| backup);
        owner.is_some_and(|owner| !state.backups.contains_key(&owner)) && !state.is_condemned(digest)
    });
    dead.map(|(path, (length, digest))| (path.clone(), *length, *digest)).collect()
}

/// Components that no live backup of the domain was made with. They have no grace period here: whoever needs one again puts it back, and
/// while any domain names it, or soon after, it is not deleted.
fn unneeded_components(state: &DomainState) -> Vec<String> {
    let needed: BTreeSet<Digest> = state.records.values().map(|stored| stored.record.component).collect();
    let components = state.objects_below(path::COMPONENTS.to_owned());
    let unneeded = components.filter(|(_, (_, digest))| !needed.contains(digest));
    unneeded.map(|(path, _)| path.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_one_head_is_told_by_several() {
        let backup = |number: u8, indexes: usize| (BackupId([number; 16]), vec![Digest([7; 32]); indexes], 1);
        let mut committed = vec![backup(1, NAMED + 1), backup(2, NAMED - 1), backup(3, 1), backup(4, 1)];
        let first = split_off(&mut committed).unwrap();
        assert_eq!(first.iter().map(|(backup, ..)| backup.0[0]).collect::<Vec<_>>(), [1]);
        let second = split_off(&mut committed).unwrap();
        assert_eq!(second.iter().map(|(backup, ..)| backup.0[0]).collect::<Vec<_>>(), [2, 3]);
        assert_eq!((split_off(&mut committed), committed.len()), (None, 1));
        assert_eq!(split_off(&mut vec![backup(1, NAMED + 1)]), None);
    }
}
