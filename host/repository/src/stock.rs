//! The sealed chunks of a domain wherever they lie: at the target that is healed, and at others that may have what it lacks.
//!
//! A chunk is handed out only if it is known for what it was: its seal opens under its hash, or its pack has the digest that names it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::chunk::{ChunkHash, ChunkId, ChunkKind};
use crate::index::Location;
use crate::pack::Base;
use crate::reader::{BackupReader, Chunks, Reach};
use crate::repository::Repository;
use crate::{BackupId, Digest, DomainId, Error};

/// How hard a chunk is compressed that is sealed anew: it is rare.
const LEVEL: i32 = 3;

/// Several targets' chunks of one domain.
pub(crate) struct Stocks {
    /// The target that is healed comes first.
    chunks: Vec<Arc<Chunks>>,
    repositories: Vec<Repository>,
    domain: DomainId,
    /// What is known of chunks that are looked for.
    hashes: HashMap<ChunkId, (ChunkKind, ChunkHash)>,
    /// The pack that was read whole last, by the number of its stock; none if it is not as it was committed.
    pack: Option<(usize, Digest, Option<Bytes>)>,
}

/// A sealed chunk.
pub(crate) struct Taken {
    pub(crate) sealed: Bytes,
    pub(crate) base: Option<Base>,
}

impl Stocks {
    /// Opens all of them. A source that cannot be read is left out.
    ///
    /// Errors: the target that is healed does not answer.
    pub(crate) async fn open(here: &Repository, sources: &[Repository], domain: DomainId) -> Result<Self, Error> {
        let (mut chunks, mut repositories) = (vec![here.chunks(domain).await?], vec![here.clone()]);
        for source in sources {
            match source.chunks(domain).await {
                Ok(found) => {
                    chunks.push(found);
                    repositories.push(source.clone());
                }
                Err(error) => tracing::info!(source = %source.location(), %error, "cannot heal from here"),
            }
        }
        Ok(Self { chunks, repositories, domain, hashes: HashMap::new(), pack: None })
    }

    /// The target that is healed, then the others.
    pub(crate) fn chunks(&self) -> &[Arc<Chunks>] {
        &self.chunks
    }

    /// What a chunk is a delta to, directly and indirectly, where it was found first.
    pub(crate) fn bases(&self, id: &ChunkId) -> Result<Vec<ChunkId>, Error> {
        for chunks in &self.chunks {
            if let Some(chain) = chunks.chain(id)? {
                return Ok(chain.into_iter().filter_map(|location| location.base).collect());
            }
        }
        Ok(Vec::new())
    }

    /// A backup, from the first target whose manifest of it can be read.
    pub(crate) async fn backup(&self, backup: BackupId) -> Option<BackupReader> {
        for repository in &self.repositories {
            match repository.open_backup(self.domain, backup).await {
                Ok(reader) => return Some(reader),
                Err(error) => tracing::info!(%backup, at = %repository.location(), %error, "cannot be read here"),
            }
        }
        None
    }

    /// Learns the hashes of chunks: from the trees of these backups, then from `deltas`, each of which names its base.
    pub(crate) async fn learn(
        &mut self,
        wanted: HashSet<ChunkId>,
        backups: &[BackupId],
        mut deltas: Vec<(ChunkId, Location)>,
    ) -> Result<(), Error> {
        let chunks = self.chunks.clone();
        let mut reach = Reach::lenient(&chunks, wanted);
        for backup in backups {
            if let Some(reader) = self.backup(*backup).await
                && let Err(error) = reach.walk(&reader).await
            {
                tracing::info!(%backup, %error, "its trees cannot be seen whole");
            }
        }
        self.hashes = reach.hashes;
        // Upper ones first: they tell of those below.
        deltas.sort_unstable_by_key(|(_, location)| std::cmp::Reverse(location.depth));
        for (id, location) in deltas {
            if !self.hashes.contains_key(&id) {
                continue;
            }
            for (number, copy) in self.copies(&id, Some(location))? {
                self.authentic(number, &id, &copy).await?;
            }
        }
        Ok(())
    }

    /// Where a chunk lies: as it is known here, and at the others.
    fn copies(&self, id: &ChunkId, here: Option<Location>) -> Result<Vec<(usize, Location)>, Error> {
        let mut copies = Vec::from_iter(here.map(|location| (0, location)));
        for (number, chunks) in self.chunks.iter().enumerate().skip(1) {
            copies.extend(chunks.find(id)?.map(|location| (number, location)));
        }
        Ok(copies)
    }

    /// A chunk that can stand where one was known to lie at `here`, or is lost: no deeper than that, upon what `stands`, as it is or sealed
    /// anew. If there is none, whatever of it is intact here.
    pub(crate) async fn take(
        &mut self,
        id: &ChunkId,
        here: Option<Location>,
        stands: impl Fn(&Base) -> bool,
    ) -> Result<Option<Taken>, Error> {
        let depth_max = here.map_or(0, |location| location.depth);
        let mut intact = None;
        for (number, location) in self.copies(id, here)? {
            let Some(sealed) = self.authentic(number, id, &location).await? else { continue };
            let taken = Taken { sealed, base: location.base.map(|id| Base { id, depth: location.depth }) };
            if location.depth <= depth_max && taken.base.as_ref().is_none_or(&stands) {
                return Ok(Some(taken));
            }
            intact = intact.or(Some(taken).filter(|_| number == 0));
        }
        Ok(self.sealed_anew(id).await?.or(intact))
    }

    /// The sealed bytes of a chunk, if they are what they were.
    ///
    /// Errors: the target that is healed does not answer.
    async fn authentic(&mut self, number: usize, id: &ChunkId, location: &Location) -> Result<Option<Bytes>, Error> {
        let chunks = Arc::clone(&self.chunks[number]);
        let read = match self.hashes.get(id) {
            Some((_, hash)) => match chunks.authentic(location, *hash).await {
                Ok((sealed, base)) => {
                    self.hashes.extend(base.map(|base| (base.id(), (ChunkKind::Data, base))));
                    Ok(Some(sealed))
                }
                Err(error) => Err(error),
            },
            None => self.committed(number, location).await,
        };
        match read {
            Ok(found) => Ok(found),
            Err(error) if number > 0 || chunks.place().is_damage(&error).await => {
                tracing::debug!(chunk = ?id, %error, "no copy to heal from");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same of a chunk whose hash nobody knows: its pack must be as it was committed.
    async fn committed(&mut self, number: usize, location: &Location) -> Result<Option<Bytes>, Error> {
        if !matches!(&self.pack, Some((at, pack, _)) if (*at, *pack) == (number, location.pack)) {
            let chunks = &self.chunks[number];
            let read = chunks.pack(location.pack).await;
            let bytes = match read {
                Ok(bytes) => Some(bytes),
                Err(error) if chunks.place().is_damage(&error).await => None,
                Err(error) => return Err(error),
            };
            self.pack = Some((number, location.pack, bytes));
        }
        let bytes = self.pack.as_ref().and_then(|(.., bytes)| bytes.as_ref());
        let range = location.offset as usize..location.offset as usize + location.length as usize;
        Ok(bytes.filter(|bytes| range.end <= bytes.len()).map(|bytes| bytes.slice(range)))
    }

    /// A chunk that is opened wherever it opens, and sealed whole: it stands anywhere.
    async fn sealed_anew(&self, id: &ChunkId) -> Result<Option<Taken>, Error> {
        let Some((kind, hash)) = self.hashes.get(id).copied() else { return Ok(None) };
        for chunks in &self.chunks {
            let Ok(plaintext) = chunks.fetch(kind, hash).await else { continue };
            let sealed =
                chunks.pool().run(move |codec| codec.sealer.seal(&hash, &plaintext, LEVEL).map(Bytes::copy_from_slice));
            let sealed = sealed.await?.map_err(Error::broken(&hash))?;
            return Ok(Some(Taken { sealed, base: None }));
        }
        Ok(None)
    }
}

impl Repository {
    /// A domain's chunks at this target.
    pub(crate) async fn chunks(&self, domain: DomainId) -> Result<Arc<Chunks>, Error> {
        let state = self.state(domain).await?;
        let index = self.index_or_footers(domain, &state).await?;
        let secrets = self.inner.keyring.current().domain(domain)?.chunk_secrets();
        Ok(Arc::new(Chunks::new(self.inner.place.clone(), self.inner.pool.clone(), domain, index, secrets)))
    }
}
