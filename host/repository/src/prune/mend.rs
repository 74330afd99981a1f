//! Mending: what lives in damaged packs goes into new ones chunk by chunk, as what lives in half-dead packs does.
//!
//! Each chunk is taken from the damaged pack itself where it is intact, else from another target, in whatever pack it lies there. Then the
//! damaged pack is condemned, whatever could not be had: from then on nobody relies on it, reads find what was mended, and the next backup that
//! holds what is lost stores it anew. What is lost is what a later mending looks for first.
//!
//! Invariant: no chunk becomes deeper than it was, and each delta that is taken stands on a base that is here and shallower.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::PruneOptions;
use super::work::Work;
use crate::chunk::ChunkId;
use crate::format::head::DELTAS;
use crate::index::Location;
use crate::pack::Base;
use crate::repack::{Fresh, Repacker};
use crate::repository::Repository;
use crate::stock::Stocks;
use crate::{BackupId, Digest, DomainId, Error};

/// What a mending did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Damaged packs that nobody relies on any more.
    pub packs: u64,
    /// Chunks that were put into new packs.
    pub chunks: u64,
    /// Their sealed bytes.
    pub bytes: u64,
    /// Chunks that are intact nowhere.
    pub lost: u64,
}

impl Mended {
    /// Adds what a later mending did: what is lost is what it did not find.
    fn add(&mut self, later: Self) {
        self.packs += later.packs;
        self.chunks += later.chunks;
        self.bytes += later.bytes;
        self.lost = later.lost;
    }
}

impl Repository {
    /// Takes what lives in damaged packs, and what is in no pack at all, from wherever it is intact.
    ///
    /// Errors: another writer took over; this target does not answer, or has no room.
    pub(crate) async fn mend(
        &self,
        domain: DomainId,
        sources: &[Self],
        damaged: BTreeSet<Digest>,
    ) -> Result<Mended, Error> {
        let quiet = |_: &'static str, _: u64, _: u64| {};
        let mut all = Mended::default();
        loop {
            let mut work = Work::new(self, domain, PruneOptions::default(), self.now_ms(), &quiet);
            work.is_mending = true;
            work.census.distrust(damaged.clone());
            let mended = work.mend(sources).await?;
            all.add(mended);
            // Somebody may have relied meanwhile on what nobody needed when it was looked at.
            let is_all = work.census.take_lost().len() as u64 <= mended.lost;
            if is_all || mended.chunks == 0 {
                return Ok(all);
            }
        }
    }
}

impl Work<'_> {
    async fn mend(&mut self, sources: &[Repository]) -> Result<Mended, Error> {
        self.follow().await?;
        let mut packs = self.census.unfit();
        packs.retain(|pack| self.state.pack_length(pack).is_some());
        let lost = self.census.take_lost().into_iter().map(|id| (id, None));
        let living = self.census.living(&packs).into_iter().map(|(id, location)| (id, Some(location)));
        let mut needed: Vec<(ChunkId, Option<Location>)> = living.chain(lost).collect();
        if packs.is_empty() && needed.is_empty() {
            return Ok(Mended::default());
        }
        // Bases come before what stands on them, and neighbours together.
        needed.sort_unstable_by_key(|(id, here)| (here.map(|it| (it.depth, it.pack, it.offset)), *id));
        let mut stocks = Stocks::open(self.repository, sources, self.domain).await?;
        self.learn(&mut stocks, &needed).await?;
        let mut repacker = Repacker::new(self.repository, self.domain)?;
        match self.refill(&mut repacker, &mut stocks, needed).await {
            Ok((mended, fresh)) => {
                self.census.give_up(&packs);
                self.settle(packs.clone(), fresh).await?;
                Ok(Mended { packs: packs.len() as u64, ..mended })
            }
            Err(error) => {
                if error.is_full() {
                    repacker.abandon().await?;
                }
                Err(error)
            }
        }
    }

    /// Learns the hashes by which needed chunks are known, from the backups that hold them and from the deltas that stand on them.
    async fn learn(&mut self, stocks: &mut Stocks, needed: &[(ChunkId, Option<Location>)]) -> Result<(), Error> {
        let mut wanted: HashSet<ChunkId> = needed.iter().map(|(id, _)| *id).collect();
        let deltas = self.census.standing_on(wanted.clone());
        wanted.extend(deltas.iter().map(|(id, _)| *id));
        let own = needed.iter().filter_map(|(id, here)| here.filter(|it| it.depth > 0).map(|it| (*id, it)));
        let deltas = deltas.iter().copied().chain(own).collect();
        let mut backups: Vec<BackupId> = Vec::new();
        for backup in self.state.backups.keys() {
            let ids = self.chunks_of(*backup).await?;
            if ids.is_none_or(|ids| ids.iter().any(|id| wanted.contains(id))) {
                backups.push(*backup);
            }
        }
        stocks.learn(wanted, &backups, deltas).await
    }

    /// Puts into new packs what can be had of all that is needed.
    async fn refill(
        &mut self,
        repacker: &mut Repacker<'_>,
        stocks: &mut Stocks,
        needed: Vec<(ChunkId, Option<Location>)>,
    ) -> Result<(Mended, Fresh), Error> {
        let mut mended = Mended::default();
        let mut depths: HashMap<ChunkId, u8> = HashMap::new();
        for (id, here) in needed {
            let census = &self.census;
            let stands = |base: &Base| {
                let depth = depths.get(&base.id).copied().into_iter().chain(census.depth(&base.id)).min();
                depth.is_some_and(|depth| depth < base.depth)
            };
            let Some(taken) = stocks.take(&id, here, stands).await? else {
                tracing::warn!(chunk = ?id, domain = %self.domain, "a chunk is intact nowhere");
                mended.lost += 1;
                continue;
            };
            depths.insert(id, taken.base.map_or(0, |base| base.depth));
            if taken.base.is_some() {
                self.incompatible |= DELTAS;
            }
            repacker.add(id, &taken.sealed, taken.base).await?;
            mended.chunks += 1;
            mended.bytes += taken.sealed.len() as u64;
        }
        let fresh = repacker.finish(&[]).await?;
        for (digest, index) in &fresh.indexes {
            self.census.take(*digest, index, true, |_| true);
        }
        Ok((mended, fresh))
    }
}
