//! Prune: takes back what no live backup needs, in two phases.
//!
//! A head *condemns* what is dead: packs, indexes, the objects of removed backups. From then on nobody relies on it, and after
//! the grace period it is deleted; only then a head drops it from what is present. Half-dead packs are condemned once what lives in them
//! was moved, as it is, into new ones. No data key is needed: refs tell what lives.
//!
//! What died since the last prune the ledger ([`crate::ledger`]) tells, and only packs in which something died are looked at ([`follow`]). Where
//! it cannot tell, everything is looked at, and so it is once in thirty days: what lives is marked then by the refs of all backups.
//!
//! Invariants. Nothing that a head names is deleted unless a head condemned it, whatever a listing shows. A head condemns only
//! what was dead in the very state that it follows: if another writer's head came between, it is looked at again. What was condemned is never
//! relied on again under its name, neither by writers nor by replication. A kill between any two steps costs nothing: what was deleted and
//! is still named is condemned, so nobody asks for it, and the next prune goes on.

mod census;
mod delete;
mod follow;
mod garbage;
mod mend;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeMap;

use crate::heads::DomainState;
use crate::repository::Repository;
use crate::{DomainId, Error};
pub use mend::Mended;
use work::Work;

/// How long something stays after it was condemned, or after it was stored without being named by a head: longer than any job may run.
pub const GRACE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How long a writer's work may take from its first object to its head.
pub(crate) const WORK_MS_MAX: u64 = GRACE_MS / 2;
/// Clocks that differ by more tell no grace period.
const SKEW_MS_MAX: u64 = 5 * 60 * 1000;

/// How a prune is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Nothing is written: it says what would be done.
    pub dry_run: bool,
    /// There is no grace period. For the one who is the only writer, and knows that nobody reads here meanwhile.
    pub now: bool,
}

impl PruneOptions {
    /// Milliseconds for which the dead are kept.
    fn grace_ms(self) -> u64 {
        if self.now { 0 } else { GRACE_MS }
    }
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Their stored bytes.
    pub bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }

    fn merge(&mut self, other: Self) {
        self.objects += other.objects;
        self.bytes += other.bytes;
    }
}

/// Why something dead stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It was condemned, and its grace period is not over.
    Condemned,
    /// No head names it, and it may be a part of a backup that is on its way.
    Young,
    /// The place does not let it be deleted, and does not say until when.
    Refused,
    /// The place lets nobody delete it before a time.
    Locked,
    /// A half-dead pack that is not as it was committed: what lives in it cannot be moved.
    Damaged,
    /// A half-dead pack, and there is no room to move what lives in it.
    NoRoom,
}

/// What stays for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Objects and bytes.
    pub tally: Tally,
    /// When the first of it may be deleted, in milliseconds since 1970, where that is known.
    pub until_ms: Option<u64>,
}

/// What a prune did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Dead objects that a head of this prune condemned.
    pub condemned: Tally,
    /// Half-dead packs whose living chunks were moved; they are among the condemned too.
    pub repacked: Tally,
    /// Bytes of those chunks.
    pub moved_bytes: u64,
    /// Objects deleted.
    pub deleted: Tally,
    /// What is dead and stays.
    pub kept: BTreeMap<Why, Kept>,
}

impl Pruned {
    /// Adds what another prune did.
    pub fn add(&mut self, other: Self) {
        self.condemned.merge(other.condemned);
        self.repacked.merge(other.repacked);
        self.moved_bytes += other.moved_bytes;
        self.deleted.merge(other.deleted);
        for (why, kept) in other.kept {
            let all = self.kept.entry(why).or_default();
            all.tally.merge(kept.tally);
            all.until_ms = [all.until_ms, kept.until_ms].into_iter().flatten().min();
        }
    }

    fn keep(&mut self, why: Why, bytes: u64, until_ms: Option<u64>) {
        let kept = self.kept.entry(why).or_default();
        kept.tally.add(bytes);
        kept.until_ms = [kept.until_ms, until_ms].into_iter().flatten().min();
    }
}

/// What a prune tells while it runs: a step, how much of it is done, and of how much.
pub type Progress<'a> = &'a (dyn Fn(&'static str, u64, u64) + Send + Sync);

impl Repository {
    /// Prunes one domain. Safe beside writers, readers and other prunes, and to run again after a kill at any point; without a grace
    /// period (`now`) only where nobody reads here and the caller is the only writer.
    ///
    /// Errors: refs or indexes that cannot be read, so that it is not known what lives; a clock that is not to be trusted; another
    /// writer, where there is no grace; a target that does not answer.
    pub async fn prune(
        &self,
        domain: DomainId,
        options: PruneOptions,
        progress: Progress<'_>,
    ) -> Result<Pruned, Error> {
        if !options.dry_run {
            self.writable()?;
        }
        let state = self.state(domain).await?;
        self.must_be_ours(domain, &state)?;
        let now_ms = self.trusted_now(&state).await?;
        if options.now {
            self.must_be_alone(domain, &state, now_ms).await?;
        }
        let mut work = Work::new(self, domain, options, now_ms, progress);
        match self.ledger(domain).await {
            Ok(ledger) => work.go_by(ledger),
            Err(error @ Error::IndexCache { .. }) => {
                tracing::warn!(%domain, %error, "the ledger of references cannot be opened: looking at everything");
            }
            Err(error) => return Err(error),
        }
        if !options.now && !work.is_due(&state) {
            // Nothing died: it costs no look at what lives.
            return Ok(work.waiting(&state));
        }
        work.follow().await?;
        if options.dry_run {
            return work.foresee().await;
        }
        work.sweep().await?;
        work.condemn().await?;
        work.sweep().await?;
        work.repack().await?;
        work.sweep().await?;
        work.remember().await?;
        self.keep_reserve().await?;
        Ok(work.done())
    }

    /// The time, if all clocks at hand agree about it.
    async fn trusted_now(&self, state: &DomainState) -> Result<u64, Error> {
        let own_ms = self.now_ms();
        if let Some(other_ms) = self.inner.place.clock_ms().await?.filter(|other| own_ms.abs_diff(*other) > SKEW_MS_MAX)
        {
            return Err(Error::ClockSkew { own_ms, other_ms, witness: "the target's clock" });
        }
        match state.tip {
            Some(tip) if tip.written_ms > own_ms.saturating_add(SKEW_MS_MAX) => {
                Err(Error::ClockSkew { own_ms, other_ms: tip.written_ms, witness: "the newest head" })
            }
            _ => Ok(own_ms),
        }
    }
}
