//! A repository at one target: opening it, its domains' heads and indexes, and the small changes that are one head each.

use std::collections::HashMap;
use std::ops::DerefMut;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures_util::future::ready;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_storage::Storage;
use tokio::sync::{OwnedMappedMutexGuard, OwnedMutexGuard};

use crate::envelope::Envelope;
use crate::format::directory::StoredRecord;
use crate::format::index::{Index, IndexClear};
use crate::format::{Kind, path};
use crate::heads::{Change, DomainState, SingleHeads, Tip, read_on};
use crate::holds::must_not_be_held;
use crate::index::{IndexTable, Indexes};
use crate::keyring::{Keyring, SharedKeyring, newest_generation, publish, sealed_of};
use crate::layout::{RepositoryFile, recover_text};
use crate::ledger::Ledger;
use crate::locks::Locks;
use crate::place::Place;
use crate::pool::Pool;
use crate::seal;
use crate::{BackupId, BackupRecord, Clock, Digest, DomainId, Error, HeadSeen, RepositoryId, Stats, WriterId};

/// Indexes, or the heads of domains, that are read at once.
const FETCHES: usize = 8;

/// Bytes of the reserve: room for many heads.
const RESERVE: usize = 1 << 20;

/// A repository at one target. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) place: Place,
    pub(crate) keyring: SharedKeyring,
    pub(crate) pool: Pool,
    /// Names who writes in the heads that it writes.
    writer: OnceLock<WriterId>,
    /// The epoch that this process writes in.
    pub(crate) epoch: AtomicU64,
    is_read_only: bool,
    clock: OnceLock<Clock>,
    /// Where the indexes of its domains are cached.
    index_cache: OnceLock<PathBuf>,
    /// Generation of the keyring that this process saw published here.
    published: AtomicU64,
    /// What is known of locks here.
    pub(crate) locks: Locks,
    /// Heads that this process wrote and that have no second copy yet.
    pub(crate) single_heads: SingleHeads,
    domains: Mutex<HashMap<DomainId, Arc<DomainCell>>>,
}

/// What is known of one domain.
#[derive(Debug, Default)]
pub(crate) struct DomainCell {
    pub(crate) heads: tokio::sync::Mutex<Arc<DomainState>>,
    /// Opened when it is first needed.
    indexes: Arc<tokio::sync::Mutex<Option<Indexes>>>,
    /// The same. Whoever prunes has it until he is done.
    ledger: Arc<tokio::sync::Mutex<Option<Ledger>>>,
}

/// The ledger of a domain, for one prune.
pub(crate) type LedgerGuard = OwnedMappedMutexGuard<Option<Ledger>, Ledger>;

impl Repository {
    /// Opens the repository at `storage`, or creates it where the place is empty.
    ///
    /// Errors: another repository lies there; the newest signed keyring does not fit; the store does not answer.
    pub async fn open_or_create(storage: Arc<dyn Storage>, keyring: SharedKeyring) -> Result<Self, Error> {
        let repository = Self::new(storage, keyring, false)?;
        repository.create_if_empty().await?;
        repository.read_everything().await?;
        repository.keep_reserve().await?;
        Ok(repository)
    }

    /// Opens a repository that must be there: for a place that held backups before.
    ///
    /// Errors: nothing lies there; and those of [`Self::open_or_create`].
    pub async fn open_existing(storage: Arc<dyn Storage>, keyring: SharedKeyring) -> Result<Self, Error> {
        let repository = Self::new(storage, keyring, false)?;
        repository.must_be_here().await?;
        repository.read_everything().await?;
        repository.keep_reserve().await?;
        Ok(repository)
    }

    /// Opens without writing anything, not even `repository.json` (recovery, offline restore).
    pub async fn open_read_only(storage: Arc<dyn Storage>, keyring: SharedKeyring) -> Result<Self, Error> {
        let repository = Self::new(storage, keyring, true)?;
        repository.must_be_here().await?;
        repository.read_everything().await?;
        Ok(repository)
    }

    fn new(storage: Arc<dyn Storage>, keyring: SharedKeyring, is_read_only: bool) -> Result<Self, Error> {
        let inner = Inner {
            place: Place::new(storage)?,
            keyring,
            pool: Pool::start().map_err(|_| Error::WorkerStopped)?,
            writer: OnceLock::new(),
            epoch: AtomicU64::new(0),
            is_read_only,
            clock: OnceLock::new(),
            index_cache: OnceLock::new(),
            published: AtomicU64::new(0),
            locks: Locks::default(),
            single_heads: SingleHeads::default(),
            domains: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The same repository, which tells the time by `clock`. Only the first call counts.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        // A clock that was set stays: grace periods are told by one clock.
        let _ = self.inner.clock.set(clock);
        self
    }

    /// The same repository, which writes under this id: one that stays the same over restarts tells others from oneself. Only the
    /// first call counts, and none after the first head.
    #[must_use]
    pub fn with_writer(self, writer: WriterId) -> Self {
        // An id that was used stays.
        let _ = self.inner.writer.set(writer);
        self
    }

    /// The same repository, which keeps what it read of the indexes in this directory of its own, for the next process too. Without one it
    /// uses temporary files. Only the first call counts, and none after the first backup was begun or opened.
    #[must_use]
    pub fn with_index_cache(self, directory: PathBuf) -> Self {
        // A directory that is in use stays.
        let _ = self.inner.index_cache.set(directory);
        self
    }

    /// Who writes.
    pub(crate) fn writer(&self) -> WriterId {
        *self.inner.writer.get_or_init(WriterId::random)
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        self.inner.clock.get().map_or_else(|| Clock::default().now_ms(), Clock::now_ms)
    }

    /// The repository that lies here; an error if it is another than ours.
    async fn found_here(&self) -> Result<Option<RepositoryId>, Error> {
        let expected = self.inner.keyring.current().repository();
        let is_ours = |bytes: &Bytes| RepositoryFile::parse(bytes).is_ok_and(|found| found == expected);
        let Some(bytes) = self.inner.place.find_genuine(path::REPOSITORY, is_ours).await? else { return Ok(None) };
        let found = RepositoryFile::parse(&bytes)?;
        if found == expected {
            Ok(Some(found))
        } else {
            Err(Error::OtherRepository { location: self.location(), found, expected })
        }
    }

    pub(crate) async fn must_be_here(&self) -> Result<(), Error> {
        match self.found_here().await? {
            Some(_) => Ok(()),
            None => Err(Error::NoRepository { location: self.location() }),
        }
    }

    async fn create_if_empty(&self) -> Result<(), Error> {
        let (place, repository) = (&self.inner.place, self.inner.keyring.current().repository());
        if self.found_here().await?.is_none() {
            let is_ours = |path: &str| path == path::RECOVER || path.starts_with("probe/");
            if place.list("").await?.iter().any(|one| !is_ours(&one.path)) {
                return Err(Error::NotARepository { location: self.location() });
            }
            if !place.put_if_absent(path::REPOSITORY, RepositoryFile::text(repository).into()).await? {
                self.found_here().await?;
            }
        }
        if place.length(path::RECOVER).await?.is_none() {
            place.put(path::RECOVER, recover_text(repository, &self.location()).into()).await?;
        }
        Ok(())
    }

    /// Keeps some room that nobody else can take, so that deleting works on a full disk; as soon as there is room for it.
    pub(crate) async fn keep_reserve(&self) -> Result<(), Error> {
        match self.require_reserve().await {
            Err(error) if error.is_full() => Ok(()),
            kept => kept,
        }
    }

    /// The same for who is about to take room: without the reserve nothing may be added that could not be deleted again.
    pub(crate) async fn require_reserve(&self) -> Result<(), Error> {
        let place = &self.inner.place;
        if place.length(path::RESERVE).await?.is_some() {
            return Ok(());
        }
        // Bytes that no file system makes smaller.
        let mut reserve = vec![0; RESERVE];
        blake3::Hasher::new_keyed(&seal::random()).finalize_xof().fill(&mut reserve);
        place.put(path::RESERVE, reserve.into()).await
    }

    /// Gives that room up.
    pub(crate) async fn release_reserve(&self) -> Result<(), Error> {
        tracing::warn!(location = %self.location(), "it is full: giving up the reserve, so that something can be deleted");
        self.inner.place.delete(path::RESERVE).await
    }

    /// Reads the heads of all domains: what is wrong here shows now, and the epoch is known.
    async fn read_everything(&self) -> Result<(), Error> {
        let keyring = self.inner.keyring.current();
        let own = keyring.generation();
        if let Some(found) = newest_generation(&self.inner.place, &keyring).await?
            && found > own
        {
            return Err(Error::OlderKeyring { location: self.location(), found, own });
        }
        // Most of it is decoding and verifying: a task for each, for all cores.
        let read = |domain| {
            let repository = self.clone();
            self.inner.place.runtime().spawn(async move { repository.state(domain).await })
        };
        let mut states = stream::iter(keyring.domains()).map(read).buffer_unordered(FETCHES);
        while let Some(state) = states.next().await {
            let state = state.map_err(|_| Error::RuntimeStopped)??;
            if state.keyring > own {
                return Err(Error::LostKeyring { location: self.location(), needed: state.keyring, own });
            }
            self.inner.epoch.fetch_max(state.epoch, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Where it is: the URL without any secret.
    pub fn location(&self) -> String {
        self.inner.place.location()
    }

    /// Live backups of a domain by the newest heads (re-read at each call, cheaply: only heads not seen yet).
    pub async fn backups(&self, domain: DomainId) -> Result<Vec<BackupRecord>, Error> {
        let state = self.state(domain).await?;
        let live = state.records.values().filter(|stored| state.backups.contains_key(&stored.record.backup));
        Ok(live.map(|stored| stored.record.clone()).collect())
    }

    /// The newest head of each domain that has one.
    ///
    /// Errors: a head that was read before is gone or another one, which no writer of ours ever does.
    pub async fn newest_heads(&self) -> Result<Vec<HeadSeen>, Error> {
        let domains = stream::iter(self.inner.keyring.current().domains());
        let seen = domains.map(|domain| self.newest_head(domain)).buffered(FETCHES);
        seen.try_filter_map(|seen| ready(Ok(seen))).try_collect().await
    }

    async fn newest_head(&self, domain: DomainId) -> Result<Option<HeadSeen>, Error> {
        let state = self.state(domain).await?;
        let Some(Tip { sequence, digest, written_ms }) = state.tip else { return Ok(None) };
        self.must_hold_head(domain, sequence, digest).await?;
        Ok(Some(HeadSeen { domain, sequence, digest, written_ms, epoch: state.epoch }))
    }

    /// Whether a domain's chain still holds a head that was seen before. Heads are never removed: without it an older state lies here, or
    /// another chain.
    pub async fn holds_head(&self, domain: DomainId, sequence: u64, digest: Digest) -> Result<bool, Error> {
        match self.must_hold_head(domain, sequence, digest).await {
            Ok(()) => Ok(true),
            Err(Error::Lost { .. } | Error::Exchanged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Refuses where a head lies in neither of its two places as it was.
    async fn must_hold_head(&self, domain: DomainId, sequence: u64, digest: Digest) -> Result<(), Error> {
        match self.inner.place.committed(&path::head(domain, sequence), digest).await {
            Err(error @ (Error::Lost { .. } | Error::Exchanged { .. })) => {
                self.inner.place.committed(&path::twin(domain, sequence), digest).await.map(drop).map_err(|_| error)
            }
            head => head.map(drop),
        }
    }

    /// Totals of all organizations' domains.
    pub async fn stats(&self) -> Result<Stats, Error> {
        let keyring = self.inner.keyring.current();
        let mut stats = Stats::default();
        for domain in keyring.domains().into_iter().filter(|domain| !keyring.is_system(*domain)) {
            let state = self.state(domain).await?;
            let live = state.records.values().filter(|stored| state.backups.contains_key(&stored.record.backup));
            stats.backups += state.backups.len() as u64;
            stats.chunks += self.index(domain, &state).await?.chunks()?;
            stats.packs += state.live_packs().count() as u64;
            stats.logical_bytes += live.map(|stored| stored.record.logical_bytes).sum::<u64>();
            stats.stored_bytes += state.stored_bytes();
        }
        Ok(stats)
    }

    /// The plugin's component, checked against its digest.
    pub async fn component(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        self.inner.place.committed(&path::component(digest), digest).await.map(Vec::from)
    }

    /// Records changed facts about backups (verifications, labels ...) in a new head.
    ///
    /// Errors: a backup is not here (any more).
    pub async fn amend(&self, domain: DomainId, records: Vec<BackupRecord>) -> Result<(), Error> {
        self.commit(domain, |state| {
            let amended = records.iter().map(|record| {
                self.require(state, record.backup)?;
                Ok(StoredRecord::replacing(record.clone(), state.records.get(&record.backup).map(Arc::as_ref)))
            });
            let records: Vec<_> = amended.collect::<Result<_, Error>>()?;
            Ok((!records.is_empty()).then(|| Change { records, ..Change::default() }))
        })
        .await
    }

    /// Forgets a backup: a head with a tombstone. Its chunks stay until prune. It is no error if it is forgotten already.
    ///
    /// Errors: somebody holds it.
    pub async fn remove_backup(&self, domain: DomainId, backup: BackupId, now_ms: u64) -> Result<(), Error> {
        self.commit(domain, |state| {
            must_not_be_held(state, backup)?;
            let is_here = state.backups.contains_key(&backup);
            Ok(is_here.then(|| Change { removed: vec![(backup, now_ms)], ..Change::default() }))
        })
        .await
    }

    /// Writes the current keyring for its recipients at this target, if it is not there yet.
    pub async fn publish_keyring(&self) -> Result<(), Error> {
        self.writable()?;
        let keyring = self.inner.keyring.current();
        publish(&self.inner.place, &keyring).await?;
        self.inner.published.fetch_max(keyring.generation(), Ordering::AcqRel);
        Ok(())
    }

    /// The same before a commit, without asking the place again and again.
    pub(crate) async fn publish_new_keyring(&self) -> Result<(), Error> {
        let is_known = self.inner.published.load(Ordering::Acquire) >= self.inner.keyring.current().generation();
        if is_known { Ok(()) } else { self.publish_keyring().await }
    }

    /// The sealed (age) bytes of the newest keyring at this target.
    pub async fn sealed_keyring(&self) -> Result<Option<Vec<u8>>, Error> {
        let keyring = self.inner.keyring.current();
        let Some(generation) = newest_generation(&self.inner.place, &keyring).await? else { return Ok(None) };
        sealed_of(&self.inner.place, &keyring, generation).await.map(|sealed| sealed.map(Vec::from))
    }

    /// Becomes the writer: writes, in every domain, a head with an epoch above all that are there.
    pub async fn take_over(&self) -> Result<(), Error> {
        self.writable()?;
        self.read_everything().await?;
        self.inner.epoch.fetch_add(1, Ordering::AcqRel);
        for domain in self.inner.keyring.current().domains() {
            self.commit(domain, |_| Ok(Some(Change::default()))).await?;
        }
        Ok(())
    }

    pub(crate) fn writable(&self) -> Result<(), Error> {
        if self.inner.is_read_only { Err(Error::ReadOnly { location: self.location() }) } else { Ok(()) }
    }

    pub(crate) fn require(&self, state: &DomainState, backup: BackupId) -> Result<(), Error> {
        if state.backups.contains_key(&backup) {
            Ok(())
        } else {
            Err(Error::NoSuchBackup { backup, location: self.location() })
        }
    }

    pub(crate) fn cell(&self, domain: DomainId) -> Arc<DomainCell> {
        let mut domains = self.inner.domains.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(domains.entry(domain).or_default())
    }

    /// What the newest heads of a domain add up to.
    pub(crate) async fn state(&self, domain: DomainId) -> Result<Arc<DomainState>, Error> {
        let keyring = self.inner.keyring.current();
        keyring.domain(domain)?;
        let cell = self.cell(domain);
        let mut state = cell.heads.lock().await;
        read_on(&self.inner.place, &keyring, domain, &mut state).await?;
        Ok(Arc::clone(&state))
    }

    /// Where the domain's chunks are, by all indexes that the state names.
    pub(crate) async fn index(&self, domain: DomainId, state: &DomainState) -> Result<IndexTable, Error> {
        let keyring = self.inner.keyring.current();
        let cell = self.cell(domain);
        let mut held = Arc::clone(&cell.indexes).lock_owned().await;
        if held.is_none() {
            let directory = self.inner.index_cache.get().map(|directory| directory.join(domain.to_string()));
            *held = Some(Indexes::open(directory.as_deref(), keyring.domain(domain)?.index_key())?);
        }
        let mut indexes = OwnedMutexGuard::try_map(held, Option::as_mut).map_err(|_| Error::WorkerStopped)?;
        let missing = indexes.missing(state);
        let mut fetched = stream::iter(missing)
            .map(|digest| {
                let keyring = &keyring;
                async move { Ok::<_, Error>((digest, self.read_index(keyring, domain, digest).await?)) }
            })
            .buffer_unordered(FETCHES);
        while let Some((digest, index)) = fetched.try_next().await? {
            // Who asked may go away meanwhile: what was settled then is not lost.
            indexes = self.take_in(indexes, digest, index).await?;
        }
        Ok(indexes.table(state))
    }

    /// Who holds the domain's chunks, as the last prune that came to its end left it.
    pub(crate) async fn ledger(&self, domain: DomainId) -> Result<LedgerGuard, Error> {
        let keyring = self.inner.keyring.current();
        let mut held = Arc::clone(&self.cell(domain).ledger).lock_owned().await;
        if held.is_none() {
            let directory = self.inner.index_cache.get().map(|directory| directory.join(format!("{domain}.ledger")));
            *held = Some(Ledger::open(directory.as_deref(), keyring.domain(domain)?.index_key())?);
        }
        let mut ledger = OwnedMutexGuard::try_map(held, Option::as_mut).map_err(|_| Error::WorkerStopped)?;
        ledger.rewind();
        Ok(ledger)
    }

    /// Takes an index in; merging files, which takes a while, is for a worker.
    pub(crate) async fn take_in<I>(&self, mut indexes: I, digest: Digest, index: Index) -> Result<I, Error>
    where
        I: DerefMut<Target = Indexes> + Send + 'static,
    {
        indexes.add(digest, index);
        if indexes.is_unsettled() {
            indexes = self.inner.pool.run(move |_| indexes.settle().map(|()| indexes)).await??;
        }
        Ok(indexes)
    }

    pub(crate) async fn read_index(&self, keyring: &Keyring, domain: DomainId, digest: Digest) -> Result<Index, Error> {
        let bytes = self.inner.place.committed(&path::index(domain, digest), digest).await?;
        let envelope = Envelope::<IndexClear>::open(Kind::Index, &path::indexes(domain), bytes, keyring)?;
        let plaintext = envelope.unseal(keyring.domain(domain)?.index_key())?;
        Index::decode(&plaintext).map_err(envelope.damaged())
    }
}
