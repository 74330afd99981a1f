//! One chunk's way: hash, known?, compress, seal, pack, upload. Bounded by bytes, not by the backup.
//!
//! A chunk's plaintext takes its length from the budget; sealed, it gives back what compression saved; what is left is
//! given back when its pack is durable. The budget exceeds a full pack, so the pipeline always moves. The first failure
//! is kept: after it nothing is accepted any more, and the backup can never commit.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::packer::{FullPack, Packed, Packer};
use crate::chunk::{ChunkCodec, ChunkHash, ChunkId, ChunkKind, ChunkSecrets, OVERHEAD};
use crate::format::path;
use crate::index::{IndexTable, Location};
use crate::keyring::DomainKeys;
use crate::place::Place;
use crate::pool::Pool;
use crate::repository::Repository;
use crate::seal::Secret;
use crate::{DomainId, Error};

/// Bytes of one backup in memory: a pack being filled, one or two on their way, and chunks at work.
const BUDGET: usize = 48 << 20;
/// Buffers that are kept for the next chunk, and their lengths: shorter ones were the ends of entries.
const SPARES_MAX: usize = 64;
const SPARE: std::ops::RangeInclusive<usize> = 32 << 10..=64 << 10;

/// What every entry of a backup shares.
#[derive(Debug)]
pub(super) struct Pipeline {
    pool: Pool,
    place: Place,
    domain: DomainId,
    secrets: ChunkSecrets,
    index_key: Secret,
    pub(super) chunker_seed: u64,
    index: IndexTable,
    /// Chunks that this backup holds, with where those were that were there before.
    held: Mutex<HashMap<ChunkId, Option<Location>>>,
    packer: Mutex<Packer>,
    budget: Arc<Semaphore>,
    /// Chunks and packs on their way.
    outstanding: watch::Sender<usize>,
    failure: Mutex<Option<Arc<Error>>>,
    has_failed: AtomicBool,
    stored: AtomicU64,
    spares: Mutex<Vec<BytesMut>>,
}

/// Counts one thing on its way. Dropped before [`Self::arrive`], it never arrives, and the backup has failed.
struct Ticket {
    pipeline: Arc<Pipeline>,
    has_arrived: bool,
}

impl Ticket {
    fn new(pipeline: &Arc<Pipeline>) -> Self {
        pipeline.outstanding.send_modify(|count| *count += 1);
        Self { pipeline: Arc::clone(pipeline), has_arrived: false }
    }

    fn arrive(mut self) {
        self.has_arrived = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.has_arrived {
            self.pipeline.fail(Error::WorkerStopped);
        }
        self.pipeline.outstanding.send_modify(|count| *count -= 1);
    }
}

impl Pipeline {
    pub(super) fn new(repository: &Repository, domain: DomainId, index: IndexTable) -> Result<Self, Error> {
        let keyring = repository.inner.keyring.current();
        let keys: DomainKeys<'_> = keyring.domain(domain)?;
        Ok(Self {
            pool: repository.inner.pool.clone(),
            place: repository.inner.place.clone(),
            domain,
            secrets: keys.chunk_secrets(),
            index_key: keys.index_key().clone(),
            chunker_seed: keys.chunker_seed(),
            index,
            held: Mutex::default(),
            packer: Mutex::default(),
            budget: Arc::new(Semaphore::new(BUDGET)),
            outstanding: watch::Sender::new(0),
            failure: Mutex::default(),
            has_failed: AtomicBool::new(false),
            stored: AtomicU64::new(0),
            spares: Mutex::default(),
        })
    }

    /// A chunk's hash, for lists, which are few and short.
    pub(super) fn hash(&self, kind: ChunkKind, plaintext: &[u8]) -> ChunkHash {
        self.secrets.hash(kind, plaintext)
    }

    /// Takes a chunk; its hash comes when a worker got to it. Waits while the budget is used up.
    pub(super) async fn store(
        self: &Arc<Self>,
        kind: ChunkKind,
        plaintext: Bytes,
    ) -> Result<oneshot::Receiver<ChunkHash>, Error> {
        self.check()?;
        let need = (plaintext.len() + OVERHEAD) as u32;
        let permit = Arc::clone(&self.budget).acquire_many_owned(need).await;
        // The budget is closed by a failure only, which is then what to tell.
        self.check()?;
        let permit = permit.map_err(|_| Error::WorkerStopped)?;
        let ticket = Ticket::new(self);
        let (sender, receiver) = oneshot::channel();
        self.pool.submit(move |codec| {
            let pipeline = Arc::clone(&ticket.pipeline);
            if pipeline.has_failed.load(Ordering::Acquire) {
                return;
            }
            match pipeline.process(codec, kind, plaintext, permit, sender) {
                Ok(()) => ticket.arrive(),
                Err(error) => pipeline.fail(error),
            }
        });
        Ok(receiver)
    }

    /// The worker's part.
    fn process(
        self: &Arc<Self>,
        codec: &mut ChunkCodec,
        kind: ChunkKind,
        plaintext: Bytes,
        mut permit: OwnedSemaphorePermit,
        sender: oneshot::Sender<ChunkHash>,
    ) -> Result<(), Error> {
        let hash = self.secrets.hash(kind, &plaintext);
        let id = hash.id();
        // An entry that was aborted does not wait for its hashes; its chunks stay, another may hold them too.
        let _ = sender.send(hash);
        if self.claim(id) {
            let sealed =
                codec.seal(&hash, &plaintext).map_err(|reason| Error::Chunk { id: hex::encode(id.0), reason })?;
            drop(permit.split(permit.num_permits().saturating_sub(sealed.len())));
            let full = lock(&self.packer).add(id, &sealed, permit);
            if let Some(full) = full {
                self.close(full);
            }
        }
        if let Ok(spare) = plaintext.try_into_mut() {
            self.keep_spare(spare);
        }
        Ok(())
    }

    /// Whether this chunk is new: neither in the repository nor met in this backup.
    fn claim(&self, id: ChunkId) -> bool {
        match lock(&self.held).entry(id) {
            MapEntry::Occupied(_) => false,
            MapEntry::Vacant(place) => place.insert(self.index.find(&id)).is_none(),
        }
    }

    /// Completes a pack and sends it on its way.
    fn close(self: &Arc<Self>, full: FullPack) {
        let (pack, permit) = full.finish(&self.index_key);
        let (path, length) = (path::pack(self.domain, pack.digest), pack.bytes.len() as u64);
        lock(&self.packer).packed.push(Packed { digest: pack.digest, length, records: pack.records });
        let ticket = Ticket::new(self);
        let place = self.place.clone();
        self.place.runtime().spawn(async move {
            match place.put(&path, pack.bytes.clone()).await {
                Ok(()) => {
                    lock(&ticket.pipeline.packer).reuse(pack.bytes);
                    ticket.pipeline.stored.fetch_add(length, Ordering::AcqRel);
                    ticket.arrive();
                }
                Err(error) => ticket.pipeline.fail(error),
            }
            drop(permit);
        });
    }

    /// Waits until every chunk is durable; gives what was stored and what is held.
    pub(super) async fn settle(self: &Arc<Self>) -> Result<Settled, Error> {
        self.idle().await?;
        let last = lock(&self.packer).take();
        if let Some(last) = last {
            let pipeline = Arc::clone(self);
            self.pool.run(move |_| pipeline.close(last)).await?;
        }
        self.idle().await?;
        let packed = std::mem::take(&mut lock(&self.packer).packed);
        let held = std::mem::take(&mut *lock(&self.held));
        let mut settled = Settled { packed, ..Settled::default() };
        for (id, location) in held {
            match location {
                Some(location) => settled.adopted.push((id, location)),
                None => settled.added.push(id),
            }
        }
        // Every chunk that was claimed must be in a pack that is durable, or the backup would miss it.
        let recorded: usize = settled.packed.iter().map(|pack| pack.records.len()).sum();
        if recorded == settled.added.len() { Ok(settled) } else { Err(Error::WorkerStopped) }
    }

    async fn idle(&self) -> Result<(), Error> {
        let mut outstanding = self.outstanding.subscribe();
        outstanding.wait_for(|count| *count == 0).await.map_err(|_| Error::WorkerStopped)?;
        self.check()
    }

    /// Nothing is accepted from here.
    pub(super) fn stop(&self) {
        self.fail(Error::WorkerStopped);
    }

    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert_with(|| Arc::new(error));
        self.has_failed.store(true, Ordering::Release);
        self.budget.close();
    }

    /// The first failure, if there was one.
    pub(super) fn check(&self) -> Result<(), Error> {
        match &*lock(&self.failure) {
            Some(failure) => Err(Error::BackupBroken(Arc::clone(failure))),
            None => Ok(()),
        }
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored.load(Ordering::Acquire)
    }

    /// A buffer of this length; its bytes are whatever they were.
    pub(super) fn buffer(&self, length: usize) -> BytesMut {
        let mut spares = lock(&self.spares);
        let fitting = spares.iter().rposition(|spare| spare.len() == length);
        let spare = fitting.map(|position| spares.swap_remove(position));
        drop(spares);
        spare.unwrap_or_else(|| BytesMut::zeroed(length))
    }

    /// Keeps a buffer that is not needed any more for [`Self::buffer`].
    pub(super) fn keep_spare(&self, spare: BytesMut) {
        let mut spares = lock(&self.spares);
        if spares.len() < SPARES_MAX && SPARE.contains(&spare.len()) {
            spares.push(spare);
        }
    }
}

/// What a settled pipeline has.
#[derive(Default)]
pub(super) struct Settled {
    pub(super) packed: Vec<Packed>,
    /// Stored by this backup.
    pub(super) added: Vec<ChunkId>,
    /// Found in the repository.
    pub(super) adopted: Vec<(ChunkId, Location)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
