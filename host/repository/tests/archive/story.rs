//! One story over two places, which a fault may end at any call: backups with deltas, copies, a deletion, a prune, a rotation.
//!
//! What it has promised is noted elsewhere the moment it is. A fault costs nothing of that, and the story can be told again, to its end. It tells the
//! truth: where it says that it came to its end, all of it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, Compression, ContentClass, DomainId, Error, Keyring, PruneOptions, RecoveryKit,
    Repository, SharedKeyring, UnlockKey, UnlockMethod, WriterId, recover_keyring,
};
use holdfast_storage::{Settings, Storage, open};

use crate::setting::{Files, damages, file, noise, read, record};

/// Backups in their order, each the parent of the next. The first is deleted, the last is made after the rotation.
const BACKUPS: [&str; 4] = ["first", "second", "third", "last"];
/// Names of the two places.
pub const PLACES: [&str; 2] = ["here", "there"];

/// Why a telling ended early.
#[derive(Debug)]
pub enum Failure {
    /// A step failed.
    Step(Error),
    /// A step left something behind, and said so.
    Kept(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Step(error)
    }
}

/// The two places, and where it is noted what they were promised to hold.
#[derive(Clone)]
pub struct Story {
    places: BTreeMap<&'static str, Arc<dyn Storage>>,
    notes: PathBuf,
}

/// Where a story in directories takes place; gone with the value.
pub struct Stage(tempfile::TempDir);

impl Stage {
    /// In memory where there is a file system for that: the calls are the same, and syncing costs nothing.
    pub fn new() -> Self {
        let memory = Some(Path::new("/dev/shm")).filter(|path| path.is_dir()).map(Path::to_owned);
        let stage = Self(tempfile::tempdir_in(memory.unwrap_or_else(std::env::temp_dir)).unwrap());
        fs::create_dir(stage.notes()).unwrap();
        stage
    }

    /// The directory of the places, which is not there yet.
    pub fn places(&self) -> PathBuf {
        self.0.path().join("places")
    }

    /// The directory of the notes.
    pub fn notes(&self) -> PathBuf {
        self.0.path().join("notes")
    }

    /// What strace writes.
    pub fn log(&self) -> PathBuf {
        self.0.path().join("log")
    }

    /// The image of a file system.
    pub fn image(&self) -> PathBuf {
        self.0.path().join("image")
    }

    pub fn story(&self) -> Story {
        Story::in_directories(&self.places(), &self.notes())
    }
}

/// What was promised.
#[derive(Default)]
struct Promises {
    /// (place, backup): acknowledged as durable there.
    kept: BTreeSet<(String, String)>,
    /// The same, of which a deletion has begun.
    released: BTreeSet<(String, String)>,
}

/// What a backup consists of. Pages of the table change a little each time, and the first has something that no other shares.
fn files(name: &str) -> Files {
    let number = BACKUPS.iter().position(|one| *one == name).unwrap();
    let mut table = noise(1, 150_000);
    // Smaller changes each time, so that the delta to the newest version is the one that pays.
    for (change, length) in (0..number).zip([500, 200, 60]) {
        for page in table.chunks_mut(8192).filter(|page| page.len() == 8192) {
            page[change * 700..][..length].copy_from_slice(&noise(100 + change as u64, length));
        }
    }
    let mut files = Files::from([
        ("base/1".to_owned(), (ContentClass::Pages(8192), table)),
        ("log".to_owned(), (ContentClass::Bytes, noise(10 + number as u64, 2_000))),
        ("version".to_owned(), (ContentClass::Bytes, b"17".to_vec())),
    ]);
    if number == 0 {
        files.insert("old".to_owned(), (ContentClass::Pages(8192), noise(9, 200_000)));
    }
    files
}

impl Story {
    /// In two directories below `places`, which need not be there yet, with its notes in another directory.
    pub fn in_directories(places: &Path, notes: &Path) -> Self {
        let storage = |name: &&str| open(&format!("file://{}", places.join(name).display()), &Settings::new()).unwrap();
        Self::over(PLACES.iter().map(storage), notes)
    }

    /// Over two stores, in the order of [`PLACES`].
    pub fn over(stores: impl Iterator<Item = Arc<dyn Storage>>, notes: &Path) -> Self {
        Self { places: PLACES.into_iter().zip(stores).collect(), notes: notes.to_owned() }
    }

    /// The organization's domain.
    pub fn domain(&self) -> DomainId {
        self.keyring().current().domain_of("acme").unwrap()
    }

    /// Tells it from wherever it stands.
    pub async fn tell(&self) -> Result<(), Failure> {
        let keyring = self.keyring();
        let (here, there) = (self.open("here", &keyring).await?, self.open("there", &keyring).await?);
        for (number, name) in BACKUPS[..3].iter().enumerate() {
            let parent = number.checked_sub(1).map(|before| BACKUPS[before]);
            self.back_up(&here, &keyring, name, parent).await?;
            self.copy(&here, &there, &keyring, name).await?;
        }
        self.delete(&here, &keyring).await?;
        self.rotate(&here, &there, &keyring).await?;
        self.back_up(&here, &keyring, "last", Some("third")).await?;
        self.copy(&here, &there, &keyring, "last").await
    }

    async fn open(&self, place: &'static str, keyring: &SharedKeyring) -> Result<Repository, Error> {
        let repository = Repository::open_or_create(Arc::clone(&self.places[place]), keyring.clone()).await?;
        Ok(repository.with_writer(WriterId([7; 16])))
    }

    /// The repository at a place, as a new process of one more writer sees it.
    pub async fn writer(&self, place: &'static str, writer: u8) -> Result<Repository, Error> {
        let repository = Repository::open_existing(Arc::clone(&self.places[place]), self.keyring()).await?;
        Ok(repository.with_writer(WriterId([writer; 16])))
    }

    /// The repository at a place, as a recovery by the kit opens it.
    pub async fn reborn(&self, place: &'static str) -> Result<Repository, Error> {
        let kit = RecoveryKit::parse(&fs::read_to_string(self.notes.join("kit")).unwrap())?;
        let keyring = recover_keyring(Arc::clone(&self.places[place]), &kit, false).await?;
        Repository::open_read_only(Arc::clone(&self.places[place]), SharedKeyring::new(keyring)).await
    }

    async fn back_up(
        &self,
        here: &Repository,
        keyring: &SharedKeyring,
        name: &str,
        parent: Option<&str>,
    ) -> Result<(), Failure> {
        let domain = keyring.current().domain_of("acme").unwrap();
        let there_are = named(here.backups(domain).await?);
        if self.promises().released.contains(&pair("here", name)) {
            return Ok(());
        }
        if !there_are.contains_key(name) {
            let plan = BackupPlan {
                backup: BackupId::random(),
                domain,
                parent: parent.and_then(|parent| there_are.get(parent)).map(|record| record.backup),
                component: Some(b"a component".as_slice().into()),
                started_ms: 1,
                compression: Compression::default(),
            };
            let writer = here.begin_backup(plan).await?;
            for (path, (class, bytes)) in files(name) {
                let mut entry = writer.begin_entry(file(&path), class).await?;
                entry.write(&bytes).await?;
                entry.finish().await?;
            }
            writer.commit(record(name), "{}".into()).await?;
        }
        self.note("here", "has", name);
        Ok(())
    }

    async fn copy(
        &self,
        here: &Repository,
        there: &Repository,
        keyring: &SharedKeyring,
        name: &str,
    ) -> Result<(), Failure> {
        let domain = keyring.current().domain_of("acme").unwrap();
        if !named(there.backups(domain).await?).contains_key(name) {
            let (backups, is_released) =
                (named(here.backups(domain).await?), self.promises().released.contains(&pair("here", name)));
            let Some(record) = backups.get(name).filter(|_| !is_released) else {
                assert!(is_released, "{name} is gone here");
                return Ok(());
            };
            there.copy_backup(here, domain, record.backup, &|_, _| {}).await?;
        }
        self.note("there", "has", name);
        Ok(())
    }

    /// Deletes the first backup here, whatever else there is.
    pub async fn delete_first(&self) -> Result<(), Failure> {
        let keyring = self.keyring();
        self.delete(&self.open("here", &keyring).await?, &keyring).await
    }

    async fn delete(&self, here: &Repository, keyring: &SharedKeyring) -> Result<(), Failure> {
        let domain = keyring.current().domain_of("acme").unwrap();
        self.note("here", "releases", BACKUPS[0]);
        if let Some(record) = named(here.backups(domain).await?).get(BACKUPS[0]) {
            here.remove_backup(domain, record.backup, 1).await?;
        }
        let now = PruneOptions { dry_run: false, now: true };
        let mut pruned = here.prune(domain, now, &|_, _, _| {}).await?;
        pruned.add(here.collect_garbage(now).await?);
        if pruned.kept.is_empty() { Ok(()) } else { Err(Failure::Kept(format!("{:?}", pruned.kept))) }
    }

    /// New organization keys, and the slots of all backups at both places wrapped by them.
    async fn rotate(&self, here: &Repository, there: &Repository, keyring: &SharedKeyring) -> Result<(), Failure> {
        let before = keyring.current();
        let domain = before.domain_of("acme").unwrap();
        if before.newest_key_version(domain)? == 1 {
            let next = before.with_new_organization_keys(&before.domains());
            self.save(&next);
            keyring.replace(next);
        }
        for (place, source) in [(here, None), (there, Some(here))] {
            let seen = place.rewrap(domain, source, &|_, _| {}).await?;
            let kept = [seen.unreadable, seen.kept, place.retire_former_keyrings().await?].concat();
            if !kept.is_empty() {
                return Err(Failure::Kept(format!("{kept:?}")));
            }
        }
        Ok(())
    }

    /// Fails unless all that was promised is there, and all that is there is whole.
    pub async fn must_hold(&self) {
        let (keyring, promises) = (self.keyring(), self.promises());
        let domain = keyring.current().domain_of("acme").unwrap();
        for (name, storage) in &self.places {
            let promised: Vec<&String> =
                promises.kept.iter().filter(|(place, _)| place == name).map(|(_, backup)| backup).collect();
            let repository = match Repository::open_read_only(Arc::clone(storage), keyring.clone()).await {
                Err(error) if error.code() == "no-repository" && promised.is_empty() => continue,
                opened => opened.unwrap(),
            };
            let backups = named(repository.backups(domain).await.unwrap());
            for backup in promised {
                let is_released = promises.released.contains(&pair(name, backup));
                assert!(is_released || backups.contains_key(backup), "{backup} is gone {name}");
            }
            for record in backups.values() {
                must_be_whole(&repository, domain, record).await;
            }
            assert_eq!(damages(&repository, domain).await, [], "{name}");
            if !backups.is_empty() {
                self.reborn(name).await.unwrap();
            }
        }
    }

    /// Fails unless the places hold what they hold once all was told.
    pub async fn must_be_at_its_end(&self) {
        let keyring = self.keyring();
        let domain = keyring.current().domain_of("acme").unwrap();
        assert_eq!(keyring.current().newest_key_version(domain).unwrap(), 2);
        for (name, storage) in &self.places {
            let repository = Repository::open_read_only(Arc::clone(storage), keyring.clone()).await.unwrap();
            let found: BTreeSet<String> = named(repository.backups(domain).await.unwrap()).into_keys().collect();
            let promised = self.promises().kept;
            let has_first = *name == "there" && promised.contains(&pair("there", BACKUPS[0]));
            let expected = BACKUPS.iter().skip(usize::from(!has_first)).map(|backup| (*backup).to_owned());
            assert_eq!(found, expected.collect(), "{name}");
        }
    }

    /// The keyring of now: it is durable before anything is sealed with a key of it.
    fn keyring(&self) -> SharedKeyring {
        if let Ok(sealed) = fs::read(self.notes.join("keyring")) {
            return SharedKeyring::new(Keyring::open(&sealed, &unlock_key()).unwrap());
        }
        let mut kit = RecoveryKit::generate();
        let keyring = Keyring::generate().with_domain("acme").with_recipient("alice", &kit.recipient(), 1).unwrap();
        kit.pin(keyring.repository(), keyring.verify_key(), Vec::new());
        fs::write(self.notes.join("kit"), kit.to_text().as_bytes()).unwrap();
        self.save(&keyring);
        SharedKeyring::new(keyring)
    }

    fn save(&self, keyring: &Keyring) {
        // In one go: every fault strikes a call on a place, and now there is none.
        fs::write(self.notes.join("keyring"), keyring.seal(&unlock_key())).unwrap();
    }

    fn note(&self, place: &str, verb: &str, backup: &str) {
        let mut notes = fs::OpenOptions::new().create(true).append(true).open(self.notes.join("promises")).unwrap();
        writeln!(notes, "{place} {verb} {backup}").unwrap();
    }

    fn promises(&self) -> Promises {
        let mut promises = Promises::default();
        for line in fs::read_to_string(self.notes.join("promises")).unwrap_or_default().lines() {
            let [place, verb, backup] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let of_verb = if verb == "has" { &mut promises.kept } else { &mut promises.released };
            of_verb.insert(pair(place, backup));
        }
        promises
    }
}

/// A backup gives back what it was made of, and nothing else.
async fn must_be_whole(repository: &Repository, domain: DomainId, record: &BackupRecord) {
    let (reader, files) = (repository.open_backup(domain, record.backup).await.unwrap(), files(&record.name));
    let entries = reader.entries("", "", usize::MAX).await.unwrap();
    assert!(entries.iter().map(|entry| &entry.path).eq(files.keys()), "{}", record.name);
    for (path, (_, bytes)) in &files {
        assert!(read(&reader, path, 0, None).await.unwrap() == *bytes, "{path} of {}", record.name);
    }
}

fn pair(place: &str, backup: &str) -> (String, String) {
    (place.to_owned(), backup.to_owned())
}

fn named(records: Vec<BackupRecord>) -> BTreeMap<String, BackupRecord> {
    records.into_iter().map(|record| (record.name.clone(), record)).collect()
}

/// Opens the notes' keyring. What it protects is made up.
fn unlock_key() -> UnlockKey {
    UnlockKey::parse(&"ab".repeat(32), UnlockMethod::default()).unwrap()
}
