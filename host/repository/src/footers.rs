//! Packs describe themselves: where an index cannot be read, the footers of the packs that it told of say the same.

use std::collections::HashSet;

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use crate::format::index::{Index, decode_footer};
use crate::format::{Kind, path};
use crate::heads::DomainState;
use crate::index::{IndexTable, Indexes};
use crate::repository::Repository;
use crate::seal::{Purpose, Secret, open_part};
use crate::{Digest, DomainId, Error, Malformed};

/// The end of a pack that is read first: the footer of a pack of small pages fits.
const TAIL: u64 = 64 << 10;
/// Footers that are fetched at once.
const FETCHES: usize = 8;

impl Repository {
    /// As [`Repository::index`], for reading alone: what a damaged index told is taken from the packs. Whoever writes needs the indexes
    /// themselves, because heads name them.
    pub(crate) async fn index_or_footers(&self, domain: DomainId, state: &DomainState) -> Result<IndexTable, Error> {
        match self.index(domain, state).await {
            Ok(table) => Ok(table),
            Err(error) if self.inner.place.is_damage(&error).await => {
                tracing::warn!(location = %self.location(), %error, "an index cannot be read: asking the packs");
                self.index_from_footers(domain, state).await
            }
            Err(error) => Err(error),
        }
    }

    async fn index_from_footers(&self, domain: DomainId, state: &DomainState) -> Result<IndexTable, Error> {
        let keyring = self.inner.keyring.current();
        let keys = keyring.domain(domain)?;
        let (mut indexes, mut told, mut damaged) =
            (Box::new(Indexes::open(None, keys.index_key())?), HashSet::new(), None);
        for digest in state.live_indexes() {
            match self.read_index(&keyring, domain, *digest).await {
                Ok(index) => {
                    told.extend(index.packs.iter().copied());
                    indexes = self.take_in(indexes, *digest, index).await?;
                }
                Err(error) if self.inner.place.is_damage(&error).await => damaged = Some(*digest),
                Err(error) => return Err(error),
            }
        }
        let Some(damaged) = damaged else { return Ok(indexes.table(state)) };
        let untold = state.live_packs().filter(|pack| !told.contains(pack)).copied();
        let reads = untold.map(|pack| self.read_footer(domain, state, pack, keys.index_key()).boxed());
        let mut footers = stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(FETCHES);
        while let Some(footer) = footers.try_next().await? {
            if let Some(index) = footer {
                indexes = self.take_in(indexes, damaged, index).await?;
            }
        }
        Ok(indexes.table(state))
    }

    /// What a pack says that it holds; none for one that cannot say it any more.
    pub(crate) async fn read_footer(
        &self,
        domain: DomainId,
        state: &DomainState,
        pack: Digest,
        index_key: &Secret,
    ) -> Result<Option<Index>, Error> {
        let length = state.pack_length(&pack).unwrap_or_default();
        match self.try_footer(&path::pack(domain, pack), length, index_key).await {
            Ok(mut index) => {
                index.packs = vec![pack];
                Ok(Some(index))
            }
            Err(error) if self.inner.place.is_damage(&error).await => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn try_footer(&self, path: &str, length: u64, index_key: &Secret) -> Result<Index, Error> {
        let damaged = |reason| Error::damaged(path)(Malformed(reason));
        let mut tail = self.inner.place.get(path, Some(length.saturating_sub(TAIL)..length)).await?;
        let (_, footer) = tail.split_last_chunk::<4>().ok_or_else(|| damaged("it has no footer"))?;
        let needed = u64::from(u32::from_le_bytes(*footer)) + 4;
        if needed > length {
            return Err(damaged("its footer is longer than itself"));
        }
        if needed > tail.len() as u64 {
            tail = self.inner.place.get(path, Some(length - needed..length)).await?;
        }
        let from = usize::try_from(needed).ok().and_then(|needed| tail.len().checked_sub(needed));
        let sealed = from.and_then(|from| tail.get(from..tail.len() - 4)).ok_or_else(|| damaged("it is cut"))?;
        let purpose = Purpose::object(Kind::Pack, &Kind::Pack.preamble());
        let plaintext = open_part(index_key, &purpose, sealed).map_err(|_| Error::Sealed { path: path.to_owned() })?;
        let (mut records, bases) = decode_footer(&plaintext).map_err(Error::damaged(path))?;
        records.sort_unstable_by_key(|record| record.id);
        Ok(Index { bases, records, ..Index::default() })
    }
}
