//! What the tests share: a runtime, a repository in memory, and backups of made-up files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_repository::{
    BackupId, BackupPlan, BackupReader, BackupRecord, BackupWriter, Clock, Compression, ContentClass, Damage, DomainId,
    Entry, EntryKind, Error, InstanceId, Keyring, Repository, SharedKeyring, WriterId,
};

use crate::memory::Memory;

/// The files of a backup: path, class, bytes.
pub type Files = BTreeMap<String, (ContentClass, Vec<u8>)>;

/// Runs a test on a runtime whose threads have a name, so that the storage can tell where it is called.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("repository")
        .enable_all()
        .build()
        .unwrap();
    // The test itself polls from a thread that is none of the runtime's, as a guest's thread does.
    runtime.block_on(test)
}

pub struct Appliance {
    pub storage: Arc<Memory>,
    pub keyring: SharedKeyring,
    pub repository: Repository,
    pub domain: DomainId,
    pub writer: WriterId,
}

impl Appliance {
    pub async fn new() -> Self {
        Self::with(Keyring::generate().with_domain("acme")).await
    }

    pub async fn with(keyring: Keyring) -> Self {
        Self::at(Memory::new(), SharedKeyring::new(keyring)).await.unwrap()
    }

    pub async fn at(storage: Arc<Memory>, keyring: SharedKeyring) -> Result<Self, Error> {
        Self::writing_as(WriterId::random(), storage, keyring).await
    }

    async fn writing_as(writer: WriterId, storage: Arc<Memory>, keyring: SharedKeyring) -> Result<Self, Error> {
        let repository = Repository::open_or_create(storage.clone(), keyring.clone()).await?;
        let clock = storage.clone();
        let repository = repository.with_writer(writer).with_clock(Clock::of(move || clock.now_ms()));
        let domain = keyring.current().domain_of("acme").unwrap();
        Ok(Self { storage, keyring, repository, domain, writer })
    }

    /// The same appliance after a restart.
    pub async fn restarted(&self) -> Self {
        Self::at(self.storage.clone(), self.keyring.clone()).await.unwrap()
    }

    /// The same appliance, knowing itself for the same, on a copy of the place.
    pub async fn copy(&self) -> Self {
        Self::writing_as(self.writer, self.storage.copy(), self.keyring.clone()).await.unwrap()
    }

    pub async fn begin(&self) -> Result<BackupWriter, Error> {
        self.begin_after(None).await
    }

    pub async fn begin_after(&self, parent: Option<BackupId>) -> Result<BackupWriter, Error> {
        let plan = BackupPlan {
            backup: BackupId::random(),
            domain: self.domain,
            parent,
            component: Some(b"a component".as_slice().into()),
            started_ms: 1,
            compression: Compression::default(),
        };
        self.repository.begin_backup(plan).await
    }

    pub async fn back_up(&self, files: &Files) -> Result<BackupRecord, Error> {
        self.back_up_after(None, files).await
    }

    /// A backup whose chunks may be deltas to those of an earlier one.
    pub async fn back_up_after(&self, parent: Option<&BackupRecord>, files: &Files) -> Result<BackupRecord, Error> {
        self.back_up_as("one", parent, files).await
    }

    /// The same under a name.
    pub async fn back_up_as(
        &self,
        name: &str,
        parent: Option<&BackupRecord>,
        files: &Files,
    ) -> Result<BackupRecord, Error> {
        let writer = self.begin_after(parent.map(|record| record.backup)).await?;
        for (path, (class, bytes)) in files {
            let mut entry = writer.begin_entry(file(path), *class).await?;
            entry.write(bytes).await?;
            entry.finish().await?;
        }
        writer.commit(record(name), r#"{"entries":1}"#.into()).await
    }

    pub async fn reader(&self, record: &BackupRecord) -> BackupReader {
        self.repository.open_backup(self.domain, record.backup).await.unwrap()
    }

    /// Whether a backup gives these files back, all of them and nothing else.
    pub async fn holds(&self, record: &BackupRecord, files: &Files) -> Result<bool, Error> {
        let reader = self.repository.open_backup(self.domain, record.backup).await?;
        let entries = reader.entries("", "", usize::MAX).await?;
        let paths: Vec<_> = entries.iter().map(|entry| &entry.path).collect();
        let mut is_same = paths == files.keys().collect::<Vec<_>>();
        for (path, (_, bytes)) in files {
            is_same &= read(&reader, path, 0, None).await? == *bytes;
        }
        Ok(is_same)
    }
}

/// All that a check which reads the data finds.
pub async fn damages(repository: &Repository, domain: DomainId) -> Vec<Damage> {
    let mut found = repository.check_structure(domain, &|_, _| ()).await.unwrap().damages;
    let packs = repository.read_packs(domain, None, u64::MAX, None, &|_| ()).await.unwrap();
    assert_eq!(packs.next, None);
    found.extend(packs.damages);
    found.extend(repository.check_refs(domain, &|_, _| ()).await.unwrap());
    found
}

/// Of each pack, how many backups lose something with it.
pub async fn losers(repository: &Repository, domain: DomainId, storage: &Memory) -> Vec<usize> {
    let mut losers = Vec::new();
    for path in storage.paths("/packs/") {
        let pack = storage.objects.lock().unwrap().remove(&path).unwrap();
        let read = repository.read_packs(domain, None, u64::MAX, None, &|_| ()).await.unwrap();
        let losses = repository.losses(domain, &read.damages).await.unwrap();
        losers.push(losses.iter().map(|loss| loss.backup).collect::<BTreeSet<_>>().len());
        storage.objects.lock().unwrap().insert(path, pack);
    }
    losers
}

pub async fn read(reader: &BackupReader, path: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, Error> {
    let mut content = reader.open(path, offset, length).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = content.next().await? {
        assert!(!piece.is_empty());
        bytes.extend(piece);
    }
    Ok(bytes)
}

pub fn file(path: &str) -> Entry {
    let annotations = BTreeMap::from([("checked".to_owned(), "yes".to_owned())]);
    Entry { path: path.into(), kind: EntryKind::File, size: None, mode: 0o600, modified: 1_700_000_000, annotations }
}

pub fn record(name: &str) -> BackupRecord {
    BackupRecord {
        organization: "acme".into(),
        project: "shop".into(),
        instance_name: "customers".into(),
        name: name.into(),
        description: Some("before the move".into()),
        labels: BTreeMap::from([("tier".to_owned(), "gold".to_owned())]),
        engine: "postgres".into(),
        method: "basebackup".into(),
        plugin: "postgres@0.1.0".into(),
        site: "here".into(),
        ..BackupRecord::new(BackupId([0; 16]), InstanceId([1; 16]), 1)
    }
}

/// Bytes that do not compress and are the same each time.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    // A small xorshift generator: nothing secret.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Bytes of a chunk of pages.
pub const CHUNK: usize = 256 << 10;

/// Files of every class and awkward length.
pub fn files(seed: u64) -> Files {
    let mut files = Files::new();
    for (number, length) in [0, 1, 511, 512, 513, 8192, CHUNK - 1, CHUNK, CHUNK + 1, 300_000].into_iter().enumerate() {
        let bytes = noise(seed + number as u64, length);
        files.insert(format!("base/{length}"), (ContentClass::Pages(8192), bytes.clone()));
        files.insert(format!("stream/{length}"), (ContentClass::Bytes, bytes));
    }
    files
}
