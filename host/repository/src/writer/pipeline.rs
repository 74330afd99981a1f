//! One chunk's way: hash, known?, compress, seal, pack, upload. Bounded by bytes, not by the backup. A chunk that is new where an earlier
//! version may be takes a turn before it is compressed: the version is fetched, and what it becomes a delta to is chosen ([`super::delta`]).
//!
//! In memory are at most [`WORK`] bytes of plaintext, a pack that is being filled, and [`UPLOADS`] that are on their way;
//! their buffers are used again and again. Whoever brings chunks waits; workers never do. The first failure is kept: after
//! it nothing is accepted any more, and the backup can never commit.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::delta::{Ancestor, Changed, Origin, choose};
use super::held::Held;
use super::packer::Packer;
use super::pressure::Pressure;
use crate::chunk::{ChunkCodec, ChunkError, ChunkHash, ChunkId, ChunkKind, ChunkSecrets};
use crate::format::head::Object;
use crate::format::index::Index;
use crate::format::path;
use crate::index::IndexTable;
use crate::keyring::DomainKeys;
use crate::opener::{ChunkOpener, Version};
use crate::pack::{Base, Pack, PackBuilder};
use crate::reader::{BackupReader, Chain};
use crate::repository::Repository;
use crate::seal::Secret;
use crate::tree::Cut;
use crate::untold::{Packed, Untold};
use crate::{Compression, Digest, DomainId, Error};

/// Plaintext that waits for a worker or is at work, in bytes: less than a pack, so that nobody can fill a second one while
/// all uploads are busy.
const WORK: usize = 8 << 20;
/// Plaintext that a worker takes up at once, in bytes: waking one for every chunk would cost more than hashing it does.
pub(super) const RUN: usize = 256 << 10;
/// Full packs that are on their way before no more chunks are taken.
const UPLOADS: usize = 2;
/// Runs whose earlier versions are fetched, or here and not compared yet.
const FETCHES: usize = 8;
/// Lengths of buffers that are kept for the next run: whole ones of the usual size.
const SPARE: std::ops::RangeInclusive<usize> = RUN / 2..=RUN;
/// Buffers that are kept.
const SPARES_MAX: usize = WORK / RUN;

/// What every entry of a backup shares.
#[derive(Debug)]
pub(super) struct Pipeline {
    repository: Repository,
    domain: DomainId,
    secrets: ChunkSecrets,
    index_key: Secret,
    pub(super) chunker_seed: u64,
    pressure: Pressure,
    index: IndexTable,
    /// The backup whose chunks new ones may be deltas to.
    parent: Option<BackupReader>,
    /// Chunks that this backup holds.
    held: Mutex<Held>,
    packer: Mutex<Packer>,
    durable: Mutex<Durable>,
    /// Bytes of plaintext that may come.
    work: Arc<Semaphore>,
    /// Packs that may be sent on their way.
    uploads: Arc<Semaphore>,
    /// Runs whose earlier versions may be in memory.
    fetches: Arc<Semaphore>,
    /// Chunks and packs on their way, and who waits for there to be none.
    outstanding: AtomicUsize,
    all_arrived: Notify,
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
        pipeline.outstanding.fetch_add(1, Ordering::AcqRel);
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
        if self.pipeline.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.pipeline.all_arrived.notify_waiters();
        }
    }
}

impl Pipeline {
    pub(super) fn new(
        repository: &Repository,
        domain: DomainId,
        index: IndexTable,
        parent: Option<BackupReader>,
        compression: Compression,
    ) -> Result<Self, Error> {
        let keyring = repository.inner.keyring.current();
        let keys: DomainKeys<'_> = keyring.domain(domain)?;
        Ok(Self {
            repository: repository.clone(),
            domain,
            secrets: keys.chunk_secrets(),
            index_key: keys.index_key().clone(),
            chunker_seed: keys.chunker_seed(),
            pressure: Pressure::new(compression),
            index,
            parent,
            held: Mutex::default(),
            packer: Mutex::default(),
            durable: Mutex::default(),
            work: Arc::new(Semaphore::new(WORK)),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            outstanding: AtomicUsize::new(0),
            all_arrived: Notify::new(),
            failure: Mutex::default(),
            has_failed: AtomicBool::new(false),
            stored: AtomicU64::new(0),
            spares: Mutex::default(),
        })
    }

    /// What the chunks of an entry may be deltas to: of pages alone, which stay at their offsets.
    pub(super) fn ancestor(&self, path: &str, cut: Cut) -> Option<Arc<Ancestor>> {
        let Cut::Fixed(cut) = cut else { return None };
        let parent = self.parent.clone()?;
        Some(Arc::new(Ancestor::new(parent, path.to_owned(), cut)))
    }

    /// A chunk's hash.
    pub(super) fn hash(&self, kind: ChunkKind, plaintext: &[u8]) -> ChunkHash {
        self.secrets.hash(kind, plaintext)
    }

    /// Takes data chunks of `cut` bytes, the last of which may be shorter; their hashes come when a worker got to them.
    /// Waits while there is too much to do.
    pub(super) async fn store_run(
        self: &Arc<Self>,
        run: Bytes,
        cut: usize,
        origin: Option<Origin>,
    ) -> Result<oneshot::Receiver<Vec<ChunkHash>>, Error> {
        let (sender, receiver) = oneshot::channel();
        self.submit(run.len(), move |pipeline, codec| {
            let hashes: Vec<_> = run.chunks(cut).map(|chunk| pipeline.hash(ChunkKind::Data, chunk)).collect();
            let places = (0..run.len()).step_by(cut).map(|start| start..run.len().min(start + cut));
            let chunks = hashes.iter().copied().zip(places).collect();
            // An entry that was aborted does not wait for its hashes; its chunks stay, another may hold them too.
            let _ = sender.send(hashes);
            pipeline.keep_new(codec, run, chunks, origin)
        })
        .await?;
        Ok(receiver)
    }

    /// Takes a chunk whose hash is known. Nobody waits for it: a failure stops the whole backup. Waits while there is too
    /// much to do.
    pub(super) async fn store(
        self: &Arc<Self>,
        hash: ChunkHash,
        plaintext: Bytes,
        origin: Option<Origin>,
    ) -> Result<(), Error> {
        self.submit(plaintext.len(), move |pipeline, codec| {
            let chunks = vec![(hash, 0..plaintext.len())];
            pipeline.keep_new(codec, plaintext, chunks, origin)
        })
        .await
    }

    /// Queues work on so many bytes of plaintext, once there is room for them. It may leave chunks to be kept later, when
    /// what they are deltas to was fetched.
    async fn submit(
        self: &Arc<Self>,
        length: usize,
        work: impl FnOnce(&Arc<Self>, &mut ChunkCodec) -> Result<Option<Changed>, Error> + Send + 'static,
    ) -> Result<(), Error> {
        self.check()?;
        let permit = self.admit(length).await;
        // Nothing is admitted after a failure, which is then what to tell.
        self.check()?;
        let permit = permit.map_err(|_| Error::WorkerStopped)?;
        let ticket = Ticket::new(self);
        self.pressure.wait(length);
        self.repository.inner.pool.submit(move |codec| {
            let pipeline = Arc::clone(&ticket.pipeline);
            pipeline.pressure.taken_up(length);
            if pipeline.has_failed.load(Ordering::Acquire) {
                return;
            }
            match work(&pipeline, codec) {
                Ok(None) => ticket.arrive(),
                Ok(Some(changed)) => pipeline.keep_later(changed, (ticket, permit)),
                Err(error) => pipeline.fail(error),
            }
        });
        Ok(())
    }

    /// Fetches what was at the places of changed chunks, then has a worker keep them. What holds their room is given back last.
    fn keep_later(self: &Arc<Self>, changed: Changed, (ticket, permit): (Ticket, OwnedSemaphorePermit)) {
        let pipeline = Arc::clone(self);
        self.repository.inner.place.runtime().spawn(async move {
            let Ok(fetch) = Arc::clone(&pipeline.fetches).acquire_owned().await else { return };
            let chains = changed.fetch().await;
            pipeline.repository.inner.pool.clone().submit(move |codec| {
                let kept = changed.chunks.iter().zip(chains).try_for_each(|((hash, place), chain)| {
                    pipeline.keep_changed(codec, hash, &changed.run[place.clone()], chain)
                });
                match kept {
                    Ok(()) => {
                        pipeline.take_back(changed.run);
                        ticket.arrive();
                    }
                    Err(error) => pipeline.fail(error),
                }
                drop((permit, fetch));
            });
        });
    }

    /// Waits until there is room for so many bytes of plaintext, and for the pack that they may fill.
    async fn admit(&self, length: usize) -> Result<OwnedSemaphorePermit, AcquireError> {
        let permit = Arc::clone(&self.work).acquire_many_owned(length.min(WORK) as u32).await?;
        drop(self.uploads.acquire().await?);
        Ok(permit)
    }

    /// Keeps those chunks of a run that are not there yet; or says which they are, where they may be deltas to what was there before.
    fn keep_new(
        self: &Arc<Self>,
        codec: &mut ChunkCodec,
        run: Bytes,
        all: Vec<(ChunkHash, Range<usize>)>,
        origin: Option<Origin>,
    ) -> Result<Option<Changed>, Error> {
        let mut chunks = Vec::with_capacity(all.len());
        for (hash, place) in all {
            if self.claim(hash.id())? {
                chunks.push((hash, place));
            }
        }
        if let Some(origin) = origin.filter(|_| !chunks.is_empty()) {
            return Ok(Some(Changed { run, chunks, origin }));
        }
        for (hash, place) in chunks {
            self.keep(codec, &hash, &run[place])?;
        }
        self.take_back(run);
        Ok(None)
    }

    /// Keeps a chunk as a delta to an earlier version of it, if there is one that it resembles; else whole.
    fn keep_changed(
        self: &Arc<Self>,
        codec: &mut ChunkCodec,
        hash: &ChunkHash,
        plaintext: &[u8],
        chain: Option<Chain>,
    ) -> Result<(), Error> {
        let Some(chain) = chain else { return self.keep(codec, hash, plaintext) };
        let ChunkCodec { sealer, opener } = codec;
        let chosen = match self.choose(opener, plaintext, &chain) {
            Ok(chosen) => chosen,
            Err(reason) => {
                tracing::warn!(chunk = ?chain.hash, %reason, "an earlier version does not open: storing its successor whole");
                None
            }
        };
        let Some((base, depth)) = chosen else { return self.keep(codec, hash, plaintext) };
        let sealed = sealer
            .seal_delta(hash, plaintext, (&base.hash, &base.plaintext), self.pressure.level())
            .map_err(Error::broken(hash))?;
        // What it stands on is held as well.
        self.claim(base.hash.id())?;
        self.pack(hash.id(), sealed, Some(Base { id: base.hash.id(), depth: depth + 1 }));
        Ok(())
    }

    /// The version of a chain that a chunk becomes a delta to, and its depth.
    fn choose(
        &self,
        opener: &mut ChunkOpener,
        plaintext: &[u8],
        chain: &Chain,
    ) -> Result<Option<(Version, u8)>, ChunkError> {
        let mut versions = opener.open_all(&chain.hash, &chain.sealed)?;
        let known: Vec<_> =
            chain.depths.iter().copied().zip(versions.iter().map(|one| one.plaintext.as_slice())).collect();
        let Some(number) = choose(plaintext, &known) else { return Ok(None) };
        let chosen = versions.swap_remove(number);
        chosen.verify(&self.secrets)?;
        Ok(Some((chosen, chain.depths[number])))
    }

    /// Compresses, seals and packs a whole chunk.
    fn keep(self: &Arc<Self>, codec: &mut ChunkCodec, hash: &ChunkHash, plaintext: &[u8]) -> Result<(), Error> {
        let sealed = codec.sealer.seal(hash, plaintext, self.pressure.level()).map_err(Error::broken(hash))?;
        self.pack(hash.id(), sealed, None);
        Ok(())
    }

    fn pack(self: &Arc<Self>, id: ChunkId, sealed: &[u8], base: Option<Base>) {
        let full = lock(&self.packer).add(id, sealed, base);
        if let Some(full) = full {
            self.close(full);
        }
    }

    /// Whether this chunk is new: neither met in this backup nor to be read in the repository.
    fn claim(&self, id: ChunkId) -> Result<bool, Error> {
        if lock(&self.held).holds(&id) {
            return Ok(false);
        }
        // The index is asked while nobody waits for what is held; of two who ask for one chunk the first holds it.
        let known = self.index.known_chain(&id)?;
        Ok(lock(&self.held).hold(id, known))
    }

    /// Completes a pack and sends it on its way.
    fn close(self: &Arc<Self>, full: PackBuilder) {
        // There is one: what was admitted while an upload was free cannot fill more than one pack.
        let upload = Arc::clone(&self.uploads).try_acquire_owned();
        let pack = full.finish(&self.index_key);
        let ticket = Ticket::new(self);
        self.repository.inner.place.runtime().spawn(async move {
            match ticket.pipeline.put_pack(pack).await {
                Ok(()) => ticket.arrive(),
                Err(error) => ticket.pipeline.fail(error),
            }
            drop(upload);
        });
    }

    /// Makes a pack durable, and then an index if the packs before it fill one: what is told is not kept until the end.
    async fn put_pack(&self, pack: Pack) -> Result<(), Error> {
        let Pack { digest, bytes, records, bases } = pack;
        let (path, length) = (path::pack(self.domain, digest), bytes.len() as u64);
        self.repository.inner.place.put(&path, bytes.clone()).await?;
        lock(&self.packer).reuse(bytes);
        self.stored.fetch_add(length, Ordering::AcqRel);
        let full = lock(&self.durable).add((path, length, digest), Packed { digest, records, bases });
        self.put_index(full).await
    }

    async fn put_index(&self, index: Option<Index>) -> Result<(), Error> {
        let Some(index) = index else { return Ok(()) };
        let object = self.repository.put_index(self.domain, &index).await?;
        let mut durable = lock(&self.durable);
        durable.indexes.insert(object.2);
        durable.objects.push(object);
        Ok(())
    }

    /// Waits until every chunk is durable; gives what was stored and what is held.
    pub(super) async fn settle(self: &Arc<Self>) -> Result<Settled, Error> {
        self.idle().await?;
        lock(&self.spares).clear();
        let last = lock(&self.packer).last();
        if let Some(last) = last {
            let pipeline = Arc::clone(self);
            self.repository.inner.pool.run(move |_| pipeline.close(last)).await?;
        }
        self.idle().await?;
        let rest = lock(&self.durable).untold.take();
        self.put_index(rest).await?;
        let durable = std::mem::take(&mut *lock(&self.durable));
        let held = std::mem::take(&mut *lock(&self.held));
        // Every chunk that was claimed must be in a pack that is durable, or the backup would miss it.
        if durable.records == held.added.len() { Ok(Settled { durable, held }) } else { Err(Error::WorkerStopped) }
    }

    /// Waits until nothing is on its way.
    async fn idle(&self) -> Result<(), Error> {
        loop {
            let all_arrived = self.all_arrived.notified();
            if self.outstanding.load(Ordering::Acquire) == 0 {
                return self.check();
            }
            all_arrived.await;
        }
    }

    /// Nothing is accepted from here.
    pub(super) fn stop(&self) {
        self.fail(Error::WorkerStopped);
    }

    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert_with(|| Arc::new(error));
        self.has_failed.store(true, Ordering::Release);
        self.work.close();
        self.uploads.close();
        self.fetches.close();
    }

    /// The first failure, if there was one.
    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
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
        let spare = lock(&self.spares).pop();
        spare.filter(|spare| spare.len() == length).unwrap_or_else(|| BytesMut::zeroed(length))
    }

    /// Takes back the memory of what was stored, if nobody else holds it.
    fn take_back(&self, plaintext: Bytes) {
        if let Ok(spare) = plaintext.try_into_mut() {
            self.keep_spare(spare);
        }
    }

    /// Keeps a buffer that is not needed any more for [`Self::buffer`].
    pub(super) fn keep_spare(&self, spare: BytesMut) {
        let is_whole = spare.len() == spare.capacity() && SPARE.contains(&spare.len());
        let mut spares = lock(&self.spares);
        if is_whole && spares.len() < SPARES_MAX {
            spares.push(spare);
        }
    }
}

/// What a settled pipeline has.
pub(super) struct Settled {
    pub(super) durable: Durable,
    pub(super) held: Held,
}

/// What was stored so far.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// Packs, and the indexes that tell of them.
    pub(super) objects: Vec<Object>,
    pub(super) indexes: BTreeSet<Digest>,
    pub(super) has_deltas: bool,
    untold: Untold,
    /// Chunks in all packs.
    records: usize,
}

impl Durable {
    /// Takes a pack in; gives an index that is to be stored, if there is one.
    fn add(&mut self, object: Object, pack: Packed) -> Option<Index> {
        self.objects.push(object);
        self.has_deltas |= !pack.bases.is_empty();
        self.records += pack.records.len();
        self.untold.add(pack)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
