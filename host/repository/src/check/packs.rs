//! Reading packs whole: each must have the bytes that its name, a digest, says.

use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::{Damage, PacksRead};
use crate::format::path;
use crate::repository::Repository;
use crate::{Digest, DomainId, Error};

/// Packs that are on their way at once: at most 16 MiB each.
const READS: usize = 2;

impl Repository {
    /// Reads the domain's live packs, in the order of their digests, behind `after` and until at least `budget` bytes were read. Not
    /// faster than `bytes_per_second`. `progress` is told the bytes read.
    ///
    /// Errors: a target that does not answer.
    pub async fn read_packs(
        &self,
        domain: DomainId,
        after: Option<Digest>,
        budget: u64,
        bytes_per_second: Option<u64>,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<PacksRead, Error> {
        let state = self.state(domain).await?;
        let mut packs: Vec<Digest> =
            state.live_packs().copied().filter(|pack| after.is_none_or(|after| *pack > after)).collect();
        packs.sort_unstable();
        let length = |pack: &Digest| state.pack_length(pack).unwrap_or_default();
        let mut planned = 0;
        let part = packs.iter().take_while(|pack| {
            let is_due = planned < budget;
            planned += length(pack);
            is_due
        });
        let part: Vec<Digest> = part.copied().collect();
        let mut read =
            PacksRead { next: part.last().filter(|_| part.len() < packs.len()).copied(), ..PacksRead::default() };
        let began = Instant::now();
        let reads = part.iter().map(|pack| async { (*pack, self.read_pack(domain, *pack).await) }.boxed());
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(READS);
        while let Some((pack, damage)) = reads.next().await {
            read.damages.extend(damage?);
            read.packs += 1;
            read.bytes += length(&pack);
            progress(read.bytes);
            hold_back(began, read.bytes, bytes_per_second).await;
        }
        Ok(read)
    }

    /// Reads these packs once more; those that nobody relies on any more are none.
    ///
    /// Errors: a target that does not answer.
    pub async fn read_again(&self, domain: DomainId, packs: &[Digest]) -> Result<Vec<Damage>, Error> {
        let state = self.state(domain).await?;
        let mut damages = Vec::new();
        for pack in packs.iter().filter(|pack| state.is_live(pack)) {
            damages.extend(self.read_pack(domain, *pack).await?);
        }
        Ok(damages)
    }

    /// Bytes of a domain's live packs.
    pub async fn pack_bytes(&self, domain: DomainId) -> Result<u64, Error> {
        let state = self.state(domain).await?;
        Ok(state.live_packs().filter_map(|pack| state.pack_length(pack)).sum())
    }

    async fn read_pack(&self, domain: DomainId, pack: Digest) -> Result<Option<Damage>, Error> {
        let path = path::pack(domain, pack);
        let read = match self.inner.place.find(&path).await {
            Ok(Some(bytes)) => {
                let found = self.inner.pool.run(move |_| Digest::of(&bytes)).await?;
                if found == pack { Ok(()) } else { Err(Error::Exchanged { path: path.clone(), expected: pack }) }
            }
            Ok(None) => Err(Error::Lost { path: path.clone(), location: self.location() }),
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => Ok(None),
            Err(error) => self.finding(domain, &path, error).await.map(Some),
        }
    }
}

/// Waits until so many bytes may have been read since `began`.
async fn hold_back(began: Instant, bytes: u64, bytes_per_second: Option<u64>) {
    let Some(rate) = bytes_per_second.filter(|rate| *rate > 0) else { return };
    let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
    tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
}
