//! The ledger of references: by how many backups each chunk of a domain is held, and which deltas stand on it. By it a prune knows what died
//! without a look at what lives.
//!
//! It counts *sources*: parts of refs, which hold the chunks that they name, and indexes, each of whose deltas holds its base. Both are
//! known by their digests alone, so a source adds the same whenever, wherever and under whatever name it is read, and takes the same off when
//! it goes: a ledger that says what it counts is right, however old it is and whoever wrote heads meanwhile. What went and can be read no
//! more cannot be taken off; then the ledger is made anew from all that there is.
//!
//! What is counted is *pending* until it is published, together with the sources, by the name of one file: a stop leaves the state before or the state
//! after. What came and went since the last state left no trace in the sums, though something fell with it; so it is not published, and
//! whoever counts next sees it neither come nor go. It lies in runs ([`crate::runs`]) beside the index cache, and is a cache as that one is: whatever anybody changed is refused.

mod held;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use held::Account;
pub(crate) use held::Held;

use crate::chunk::ChunkId;
use crate::runs::{Cache, Near, Record as _, Records, Run, kept_as_they_are, merged};
use crate::seal::Secret;
use crate::{Digest, Error};

/// Records that are in memory at most, but for those of one source: 18 MiB.
const YOUNG_RECORDS: usize = 262_144;

/// Who holds the chunks of a domain.
#[derive(Debug)]
pub(crate) struct Ledger {
    cache: Cache,
    /// Published, the longest first.
    runs: Vec<Run<Held>>,
    published: Account,
    /// Counted since: runs, and what is in no run yet, in order.
    pending: Vec<Run<Held>>,
    young: Vec<Held>,
    /// What is counted, the pending too.
    sources: BTreeSet<Digest>,
    /// Something came and went since the last state.
    is_traceless: bool,
    /// It said something that cannot be.
    is_wrong: AtomicBool,
}

/// Asks a ledger for many chunks in order.
pub(crate) struct Look<'l> {
    ledger: &'l Ledger,
    near: Vec<Near<Held>>,
}

/// Who holds a chunk.
struct Holders {
    is_in_refs: bool,
    deltas: Vec<ChunkId>,
}

impl Ledger {
    /// The state that was published last in `directory`; an empty ledger where there is none, and without one.
    pub(crate) fn open(directory: Option<&Path>, index_key: &Secret) -> Result<Self, Error> {
        let cache = Cache::open(
            directory,
            Secret(blake3::derive_key("holdfast v1 2026-11 ledger of references", &index_key.0)),
        )?;
        let found = cache.runs::<Held>()?;
        let salts: HashSet<[u8; 32]> = found.iter().map(|(run, _)| run.salt).collect();
        let is_whole = |account: &Account| account.sequence > 0 && account.below.iter().all(|it| salts.contains(it));
        let states = found.iter().filter(|(_, account)| is_whole(account));
        let newest = states.max_by_key(|(_, account)| account.sequence);
        let (counted, published) = match newest {
            Some((last, account)) => ([&account.below[..], &[last.salt]].concat(), account.clone()),
            None => (Vec::new(), Account::default()),
        };
        let mut found: HashMap<[u8; 32], Run<Held>> = found.into_iter().map(|(run, _)| (run.salt, run)).collect();
        let runs = counted.iter().filter_map(|salt| found.remove(salt)).collect();
        // What a kill left: runs that were merged, or never published.
        found.values().for_each(Run::discard);
        let sources = published.sources.clone();
        let (pending, young, is_wrong) = (Vec::new(), Vec::new(), AtomicBool::new(false));
        Ok(Self { cache, runs, published, pending, young, sources, is_traceless: false, is_wrong })
    }

    /// Goes back to what was published: whoever counted since did not come to his end. What turned out to be damaged is given up.
    pub(crate) fn rewind(&mut self) {
        let is_damaged = |run: &Run<Held>| run.is_damaged();
        if self.is_wrong.load(Ordering::Acquire) || self.runs.iter().any(is_damaged) {
            self.forget();
        }
        self.pending.drain(..).for_each(|run| run.discard());
        self.young = Vec::new();
        self.sources.clone_from(&self.published.sources);
        self.is_traceless = false;
    }

    /// Counts nothing any more.
    pub(crate) fn forget(&mut self) {
        self.runs.drain(..).chain(self.pending.drain(..)).for_each(|run| run.discard());
        self.young = Vec::new();
        self.sources.clear();
        self.published = Account { sequence: self.published.sequence, ..Account::default() };
        self.is_traceless = false;
        self.is_wrong = AtomicBool::new(false);
    }

    /// When everything was looked at last; 0 where it counts nothing.
    pub(crate) fn looked_ms(&self) -> u64 {
        self.published.looked_ms
    }

    pub(crate) fn counts(&self, source: &Digest) -> bool {
        self.sources.contains(source)
    }

    pub(crate) fn sources(&self) -> impl Iterator<Item = &Digest> {
        self.sources.iter()
    }

    /// Packs that whoever published asked to be looked at again.
    pub(crate) fn again(&self) -> &BTreeSet<Digest> {
        &self.published.again
    }

    /// Counts what a source that came holds, once. Its records come in any order.
    pub(crate) fn add(
        &mut self,
        source: Digest,
        held: impl Iterator<Item = (ChunkId, Option<ChunkId>)>,
    ) -> Result<(), Error> {
        if self.sources.insert(source) { self.change(held, 1) } else { Ok(()) }
    }

    /// Takes what a source that went held off again.
    pub(crate) fn take_off(
        &mut self,
        source: Digest,
        held: impl Iterator<Item = (ChunkId, Option<ChunkId>)>,
    ) -> Result<(), Error> {
        self.is_traceless |= !self.published.sources.contains(&source);
        if self.sources.remove(&source) { self.change(held, -1) } else { Ok(()) }
    }

    fn change(&mut self, held: impl Iterator<Item = (ChunkId, Option<ChunkId>)>, change: i32) -> Result<(), Error> {
        self.young.extend(held.map(|(id, by)| Held { id, by, change }));
        // Parts in order behind each other: this sort only merges them.
        self.young.sort_by_key(Held::key);
        if self.young.len() <= YOUNG_RECORDS {
            return Ok(());
        }
        let lengths: Vec<u64> = self.pending.iter().map(|run| run.count).collect();
        let (first, records) = kept_as_they_are(&lengths, self.young.len());
        let all = summed(layers(self.pending[first..].iter(), &self.young));
        let run = self.cache.write(&Account::default(), records, all)?;
        self.pending.drain(first..).for_each(|merged| merged.discard());
        self.pending.push(run);
        self.young.clear();
        Ok(())
    }

    /// Chunks of which something let go since the last state, and which nothing needs now, in order.
    pub(crate) fn fallen(&self) -> impl Iterator<Item = Result<ChunkId, Error>> {
        let (mut look, mut last) = (self.look(), None);
        summed(layers(self.pending.iter(), &self.young)).filter_map(move |next| {
            let fallen = next.and_then(|held| {
                let is_new = held.change < 0 && last.replace(held.id) != Some(held.id);
                Ok((is_new && !look.is_needed(&held.id)?).then_some(held.id))
            });
            fallen.transpose()
        })
    }

    pub(crate) fn look(&self) -> Look<'_> {
        let near = self.runs.iter().chain(&self.pending).map(|_| Near::default()).collect();
        Look { ledger: self, near }
    }

    /// Makes all that is pending the state, with the packs that the next prune must look at again, and when everything was looked at last.
    pub(crate) fn publish(&mut self, again: BTreeSet<Digest>, looked_ms: u64) -> Result<(), Error> {
        if self.is_traceless {
            self.rewind();
            return Ok(());
        }
        let is_same = self.published.sequence > 0
            && (&self.sources, &again, looked_ms)
                == (&self.published.sources, &self.published.again, self.published.looked_ms);
        if is_same && self.pending.is_empty() && self.young.is_empty() {
            return Ok(());
        }
        // What was counted since becomes one run, so the ones behind each other stay few.
        let counted = self.pending.iter().map(|run| run.count).sum::<u64>() as usize + self.young.len();
        let lengths: Vec<u64> = self.runs.iter().map(|run| run.count).collect();
        let (first, records) = kept_as_they_are(&lengths, counted);
        let all: Vec<&Run<Held>> = self.runs.iter().chain(&self.pending).collect();
        let account = Account {
            sequence: self.published.sequence + 1,
            looked_ms,
            sources: self.sources.clone(),
            again,
            below: all[..first].iter().map(|run| run.salt).collect(),
        };
        let merged = summed(layers(all[first..].iter().copied(), &self.young));
        let run = self.cache.write(&account, records, merged)?;
        self.runs.append(&mut self.pending);
        self.runs.drain(first..).for_each(|merged| merged.discard());
        self.runs.push(run);
        self.published = account;
        self.young = Vec::new();
        Ok(())
    }

    /// Who holds a chunk, by all layers together.
    fn holders(&self, id: &ChunkId, near: &mut [Near<Held>]) -> Result<Holders, Error> {
        let mut sums: BTreeMap<Option<ChunkId>, i32> = BTreeMap::new();
        let mut sum = |held: &Held| *sums.entry(held.by).or_default() += held.change;
        for (run, near) in self.runs.iter().chain(&self.pending).zip(near) {
            run.find_near(id, near, &mut sum)?;
        }
        let first = self.young.partition_point(|held| held.id < *id);
        self.young[first..].iter().take_while(|held| held.id == *id).for_each(sum);
        if sums.values().any(|sum| *sum < 0) {
            self.is_wrong.store(true, Ordering::Release);
            let source = io::Error::new(io::ErrorKind::InvalidData, "the ledger counts less than nothing");
            return Err(Error::IndexCache { step: "reading", source });
        }
        let is_in_refs = sums.get(&None).is_some_and(|sum| *sum > 0);
        let deltas = sums.into_iter().filter(|(_, sum)| *sum > 0).filter_map(|(by, _)| by).collect();
        Ok(Holders { is_in_refs, deltas })
    }
}

impl Look<'_> {
    /// Whether refs name a chunk, or one that stands on it, directly or on another such delta.
    pub(crate) fn is_needed(&mut self, id: &ChunkId) -> Result<bool, Error> {
        self.is_needed_by(id, |_| Ok(true))
    }

    /// The same, where of those that refs name only some count.
    pub(crate) fn is_needed_by(
        &mut self,
        id: &ChunkId,
        mut counts: impl FnMut(&ChunkId) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let Holders { is_in_refs, deltas: mut next } = self.ledger.holders(id, &mut self.near)?;
        if is_in_refs && counts(id)? {
            return Ok(true);
        }
        if next.is_empty() {
            return Ok(false);
        }
        // Of copies one may stand on a chunk that itself, elsewhere, stands on the other.
        let mut seen = HashSet::from([*id]);
        let mut others = self.ledger.look();
        while let Some(delta) = next.pop() {
            if seen.insert(delta) {
                let Holders { is_in_refs, deltas } = self.ledger.holders(&delta, &mut others.near)?;
                if is_in_refs && counts(&delta)? {
                    return Ok(true);
                }
                next.extend(deltas);
            }
        }
        Ok(false)
    }
}

/// Runs, and what is in none.
fn layers<'a>(runs: impl Iterator<Item = &'a Run<Held>>, young: &'a [Held]) -> impl Iterator<Item = Records<'a, Held>> {
    let runs = runs.map(|run| Box::new(run.records()) as Records<'a, Held>);
    runs.chain([Box::new(young.iter().map(|held| Ok(*held))) as Records<'a, Held>])
}

/// The records of several layers, those of one kind together: those that come to nothing are left out.
fn summed<'a>(layers: impl Iterator<Item = Records<'a, Held>>) -> impl Iterator<Item = Result<Held, Error>> {
    let mut all = merged(layers).map(|next| next.map(|(_, held)| held)).peekable();
    std::iter::from_fn(move || {
        loop {
            let mut sum = match all.next()? {
                Ok(held) => held,
                error => return Some(error),
            };
            while let Some(Ok(other)) = all.next_if(|next| next.as_ref().is_ok_and(|next| next.key() == sum.key())) {
                sum.change += other.change;
            }
            if sum.change != 0 {
                return Some(Ok(sum));
            }
        }
    })
}
