//! A random test against a model: backups, deletes, prunes, copies, heals, crashes, two writers and readers at once, in any order. Whatever
//! happens, every backup that a target claims can be read back byte for byte there, and the refs by which prune goes name what the trees reach.
//! Each writer prunes by a ledger of its own, which is lost, damaged, and put back as it was some time before; others write heads while it does.
//! At the end all backups are removed, and then nothing is left.
//!
//! Each sequence of operations has a seed of its own, from 0 on. `HOLDFAST_MODEL_OPERATIONS` asks for more operations than the usual number,
//! `HOLDFAST_MODEL_SEED` begins with another seed: what fails says how it is told again. (Keys are random, and so are names of
//! packs and indexes: where a failure hangs on their order, it takes some repetitions, `HOLDFAST_MODEL_REPETITIONS`.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use holdfast_repository::{
    BackupId, BackupPlan, BackupReader, BackupWriter, Clock, Compression, ContentClass, DomainId, Error, GRACE_MS,
    Keyring, PruneOptions, Pruned, Repository, SharedKeyring, WriterId,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tempfile::TempDir;

use crate::memory::{Meanwhile, Memory};
use crate::setting::{file, noise, read, record};

/// Operations in an ordinary run, and in one sequence of them.
const OPERATIONS: usize = 100_000;
const SEQUENCE: usize = 100;
/// Backups that an expiry leaves at a place.
const BACKUPS: usize = 6;
/// Different files that there are, and versions of each: few, so that backups share them, and changed ones become deltas.
const FILES: u8 = 6;
const VERSIONS: u8 = 4;
/// Bytes of a file. Longer than what lies inline: one chunk each.
const FILE: usize = 640;
const HOUR: u64 = 60 * 60 * 1000;

/// Which files a backup holds, and which version of each.
type Content = BTreeMap<u8, u8>;

#[derive(Clone, Debug)]
enum Operation {
    BackUp {
        writer: usize,
        content: Content,
    },
    /// Begins a backup that goes on while other things happen.
    Begin {
        writer: usize,
        content: Content,
    },
    Commit,
    Abort,
    Delete {
        place: usize,
        which: Index,
    },
    Expire {
        place: usize,
    },
    Prune {
        place: usize,
        writer: usize,
        dry_run: bool,
        now: bool,
        meanwhile: Vec<Other>,
    },
    CollectGarbage {
        place: usize,
        writer: usize,
    },
    Replicate {
        from: usize,
        which: Index,
    },
    /// Damages an object that the other place has too, or whose chunks it has, and heals it.
    Heal {
        place: usize,
        which: Index,
        /// The byte that changes; none where the object is gone.
        flipped: Option<Index>,
    },
    /// Opens a backup to be read later.
    Open {
        place: usize,
        which: Index,
    },
    Read,
    Wait {
        hours: u64,
    },
    /// The next operation is cut off after some calls of the storage, and its writer starts anew.
    Crash {
        place: usize,
        calls: u64,
        answers_are_lost: bool,
    },
    Restart {
        writer: usize,
    },
    /// Something happens to what a writer keeps of the references, and it starts anew.
    Ledger {
        place: usize,
        writer: usize,
        fate: Fate,
    },
}

/// What the other writer does just before a head of a prune.
#[derive(Clone, Debug)]
enum Other {
    Nothing,
    BackUp(Content),
    /// The backup that is being written is committed.
    Commit,
    Remove(Index),
    /// The backup that came last during this prune is removed.
    RemoveLast,
    Prune,
}

#[derive(Clone, Debug)]
enum Fate {
    /// It is copied, as somebody does who saves the data directory.
    Kept,
    /// The copy comes back.
    PutBack,
    Lost,
    Damaged(Index, Index),
}

/// Names and bytes of files.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let content = || btree_map(0..FILES, 0..VERSIONS, 1..5);
    let (place, writer, which) = (|| 0..2_usize, || 0..2_usize, any::<Index>);
    let fate = prop_oneof![
        3 => Just(Fate::Kept),
        3 => Just(Fate::PutBack),
        1 => Just(Fate::Lost),
        1 => any::<(Index, Index)>().prop_map(|(file, byte)| Fate::Damaged(file, byte)),
    ];
    let other = prop_oneof![
        2 => Just(Other::Nothing),
        3 => content().prop_map(Other::BackUp),
        2 => Just(Other::Commit),
        4 => which().prop_map(Other::Remove),
        2 => Just(Other::RemoveLast),
        1 => Just(Other::Prune),
    ];
    let operation = prop_oneof![
        5 => (writer(), content()).prop_map(|(writer, content)| Operation::BackUp { writer, content }),
        2 => (writer(), content()).prop_map(|(writer, content)| Operation::Begin { writer, content }),
        3 => Just(Operation::Commit),
        1 => Just(Operation::Abort),
        5 => (place(), which()).prop_map(|(place, which)| Operation::Delete { place, which }),
        2 => place().prop_map(|place| Operation::Expire { place }),
        // One of the writers prunes more than the other: its ledger gets older.
        8 => (place(), prop::bool::weighted(0.2), prop::bool::weighted(0.1), prop::bool::weighted(0.2), vec(other, 0..4))
            .prop_map(|(place, writer, dry_run, now, meanwhile)| {
                Operation::Prune { place, writer: writer.into(), dry_run, now, meanwhile }
            }),
        2 => (place(), writer()).prop_map(|(place, writer)| Operation::CollectGarbage { place, writer }),
        5 => (place(), which()).prop_map(|(from, which)| Operation::Replicate { from, which }),
        3 => (place(), which(), any::<Option<Index>>())
            .prop_map(|(place, which, flipped)| Operation::Heal { place, which, flipped }),
        2 => (place(), which()).prop_map(|(place, which)| Operation::Open { place, which }),
        2 => Just(Operation::Read),
        6 => prop_oneof![Just(1_u64), Just(20), Just(80), Just(168), Just(200)].prop_map(|hours| Operation::Wait { hours }),
        4 => (place(), 0..24_u64, any::<bool>())
            .prop_map(|(place, calls, answers_are_lost)| Operation::Crash { place, calls, answers_are_lost }),
        1 => writer().prop_map(|writer| Operation::Restart { writer }),
        4 => (place(), writer(), fate).prop_map(|(place, writer, fate)| Operation::Ledger { place, writer, fate }),
    ];
    vec(operation, SEQUENCE)
}

/// A place, the two processes that work on it, and what it must hold.
struct Place {
    storage: Arc<Memory>,
    writers: [Repository; 2],
    ids: [WriterId; 2],
    holds: BTreeMap<BackupId, Content>,
    /// Where each writer keeps what it knows, and what it knew when that was copied.
    scratch: TempDir,
    kept: [Option<Files>; 2],
}

/// A backup that is being written at the first place.
struct Running {
    /// The number of its writer.
    by: usize,
    writer: BackupWriter,
    backup: BackupId,
    content: Content,
}

/// A reader that was opened a while ago.
struct Opened {
    reader: BackupReader,
    content: Content,
    place: usize,
    since_ms: u64,
}

struct World {
    keyring: SharedKeyring,
    domain: DomainId,
    places: [Place; 2],
    /// The newest backup, wherever it is by now: parent of the next.
    newest: Option<BackupId>,
    /// Backups so far: ids are made of it, so that what is picked by its place among them is the same each time.
    backups: u128,
    running: Option<Running>,
    opened: Option<Opened>,
    crash: Option<(usize, u64, bool)>,
    /// What all prunes did: a test in which nothing dies proves nothing.
    pruned: Arc<Mutex<Pruned>>,
}

/// A version differs from the others in its first bytes.
fn bytes(file: u8, version: u8) -> Vec<u8> {
    let mut bytes = noise(file.into(), FILE);
    bytes[..32].copy_from_slice(&noise(100 + u64::from(version), 32));
    bytes
}

async fn open(storage: &Arc<Memory>, keyring: &SharedKeyring, id: WriterId, scratch: &TempDir) -> Repository {
    let clock = storage.clone();
    let repository = Repository::open_or_create(storage.clone(), keyring.clone()).await.unwrap();
    let repository = repository.with_index_cache(scratch.path().join(id.to_string()));
    repository.with_writer(id).with_clock(Clock::of(move || clock.now_ms()))
}

/// A directory in memory, where there is such a place: what is written here is synced thousands of times.
fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The files of a directory; none where it is not there.
fn read_files(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with("lock"));
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

impl Place {
    async fn new(keyring: &SharedKeyring) -> Self {
        let (storage, ids, scratch) = (Memory::new(), [WriterId([1; 16]), WriterId([2; 16])], scratch());
        let writers =
            [open(&storage, keyring, ids[0], &scratch).await, open(&storage, keyring, ids[1], &scratch).await];
        Self { storage, writers, ids, holds: BTreeMap::new(), scratch, kept: [None, None] }
    }

    fn pick(&self, which: &Index) -> Option<(BackupId, Content)> {
        let number = (!self.holds.is_empty()).then(|| which.index(self.holds.len()))?;
        self.holds.iter().nth(number).map(|(backup, content)| (*backup, content.clone()))
    }
}

impl World {
    async fn new(pruned: Arc<Mutex<Pruned>>) -> Self {
        let keyring = SharedKeyring::new(Keyring::generate().with_domain("acme"));
        let domain = keyring.current().domain_of("acme").unwrap();
        let places = [Place::new(&keyring).await, Place::new(&keyring).await];
        Self { keyring, domain, places, newest: None, backups: 0, running: None, opened: None, crash: None, pruned }
    }

    async fn play(mut self, operations: Vec<Operation>) {
        for operation in operations {
            self.perform(operation).await;
        }
        self.end().await;
    }

    async fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::BackUp { writer, content } => self.back_up(writer, content).await,
            Operation::Begin { writer, content } => self.begin(writer, content).await,
            Operation::Commit => self.commit().await,
            Operation::Abort => self.running = None,
            Operation::Delete { place, which } => self.delete(place, &which).await,
            Operation::Expire { place } => self.expire(place).await,
            Operation::Prune { place, writer, dry_run, now, meanwhile } => {
                self.prune(place, writer, PruneOptions { dry_run, now }, meanwhile).await;
            }
            Operation::CollectGarbage { place, writer } => self.collect_garbage(place, writer).await,
            Operation::Replicate { from, which } => self.replicate(from, &which).await,
            Operation::Heal { place, which, flipped } => self.heal(place, &which, flipped).await,
            Operation::Open { place, which } => self.open(place, &which).await,
            Operation::Read => self.read().await,
            Operation::Wait { hours } => self.places.iter().for_each(|place| place.storage.wait(hours * HOUR)),
            Operation::Crash { place, calls, answers_are_lost } => self.crash = Some((place, calls, answers_are_lost)),
            Operation::Restart { writer } => self.restart(0, writer).await,
            Operation::Ledger { place, writer, fate } => self.change_ledger(place, writer, fate).await,
        }
    }

    /// Arranges the crash that was asked for, if it is for this place. What runs beside would crash too.
    fn arm(&mut self, place: usize) {
        if let Some((_, calls, answers_are_lost)) = self.crash.take_if(|(at, ..)| *at == place) {
            self.places[place].storage.cut_off_after(calls, answers_are_lost);
        }
    }

    /// Whether the place was cut off. If so the process starts anew, and finds what there is.
    async fn disarm(&mut self, place: usize, writer: usize) -> bool {
        let was_cut = self.places[place].storage.mend();
        if was_cut {
            self.restart(place, writer).await;
        }
        was_cut
    }

    async fn restart(&mut self, place: usize, writer: usize) {
        if place == 0 {
            self.running = None;
        }
        let at = &mut self.places[place];
        at.writers[writer] = open(&at.storage, &self.keyring, at.ids[writer], &at.scratch).await;
    }

    async fn change_ledger(&mut self, place: usize, writer: usize, fate: Fate) {
        let at = &mut self.places[place];
        let directory = at.scratch.path().join(at.ids[writer].to_string()).join(format!("{}.ledger", self.domain));
        let files = read_files(&directory);
        let wanted = match fate {
            Fate::Kept => {
                at.kept[writer] = Some(files);
                return;
            }
            Fate::PutBack => at.kept[writer].clone().unwrap_or_default(),
            Fate::Lost => Files::new(),
            Fate::Damaged(file, byte) => {
                let mut damaged = files.clone();
                let mut all: Vec<&mut Vec<u8>> = damaged.values_mut().filter(|bytes| !bytes.is_empty()).collect();
                all.sort_unstable_by_key(|bytes| bytes.len());
                if !all.is_empty() {
                    let number = file.index(all.len());
                    let bytes = &mut all[number];
                    let position = byte.index(bytes.len());
                    bytes[position] ^= 1;
                }
                damaged
            }
        };
        files.keys().for_each(|path| fs::remove_file(path).unwrap());
        wanted.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        self.restart(place, writer).await;
    }

    async fn visible(&self, place: usize, backup: BackupId) -> bool {
        let backups = self.places[place].writers[0].backups(self.domain).await.unwrap();
        backups.iter().any(|record| record.backup == backup)
    }

    /// A backup that is to be made.
    fn plan(&mut self) -> BackupPlan {
        self.backups += 1;
        BackupPlan {
            backup: BackupId(self.backups.to_be_bytes()),
            domain: self.domain,
            parent: self.newest,
            component: Some(b"a component".as_slice().into()),
            started_ms: 1,
            compression: Compression::default(),
        }
    }

    async fn fill(writer: &BackupWriter, content: &Content) -> Result<(), Error> {
        for (name, version) in content {
            let mut entry = writer.begin_entry(file(&name.to_string()), ContentClass::Pages(64)).await?;
            entry.write(&bytes(*name, *version)).await?;
            entry.finish().await?;
        }
        Ok(())
    }

    async fn make(repository: &Repository, plan: BackupPlan, content: &Content) -> Result<(), Error> {
        let begun = repository.begin_backup(plan).await?;
        Self::fill(&begun, content).await?;
        begun.commit(record("one"), "{}".into()).await.map(drop)
    }

    async fn back_up(&mut self, writer: usize, content: Content) {
        self.arm(0);
        let plan = self.plan();
        let backup = plan.backup;
        let result = Self::make(&self.places[0].writers[writer], plan, &content).await;
        let was_cut = self.disarm(0, writer).await;
        assert!(result.is_ok() || was_cut, "{result:?}");
        if self.visible(0, backup).await {
            self.places[0].holds.insert(backup, content);
            self.newest = Some(backup);
        } else {
            assert!(result.is_err());
        }
    }

    async fn begin(&mut self, by: usize, content: Content) {
        let plan = self.plan();
        let backup = plan.backup;
        let writer = self.places[0].writers[by].begin_backup(plan).await.unwrap();
        Self::fill(&writer, &content).await.unwrap();
        self.running = Some(Running { by, writer, backup, content });
    }

    async fn commit(&mut self) {
        let Some(Running { writer, backup, content, .. }) = self.running.take() else { return };
        if Self::end_running(writer).await {
            self.places[0].holds.insert(backup, content);
        }
    }

    /// Whether a backup that was written for a while exists now.
    async fn end_running(writer: BackupWriter) -> bool {
        match writer.commit(record("two"), "{}".into()).await {
            Ok(_) => true,
            Err(error) => {
                assert!(matches!(error.code(), "condemned-object" | "too-late"), "{error}");
                false
            }
        }
    }

    async fn delete(&mut self, place: usize, which: &Index) {
        if let Some((backup, _)) = self.places[place].pick(which) {
            self.remove(place, backup).await;
        }
    }

    async fn remove(&mut self, place: usize, backup: BackupId) {
        self.arm(place);
        let at = &self.places[place];
        let result = at.writers[0].remove_backup(self.domain, backup, at.storage.now_ms()).await;
        let was_cut = self.disarm(place, 0).await;
        assert!(result.is_ok() || was_cut, "{result:?}");
        if !self.visible(place, backup).await {
            self.places[place].holds.remove(&backup);
        } else {
            assert!(result.is_err());
        }
    }

    async fn expire(&mut self, place: usize) {
        while self.places[place].holds.len() > BACKUPS {
            let (backup, _) = self.places[place].holds.first_key_value().unwrap();
            self.remove(place, *backup).await;
        }
    }

    /// Arranges what the other writer does during a prune. Backups that may exist afterwards, with what they hold, and those that may not.
    fn arrange(
        &mut self,
        place: usize,
        writer: usize,
        meanwhile: Vec<Other>,
    ) -> (BTreeMap<BackupId, Content>, BTreeSet<BackupId>) {
        let (domain, mut came, mut gone) = (self.domain, BTreeMap::new(), BTreeSet::new());
        for other in meanwhile {
            let repository = self.places[place].writers[1 - writer].clone();
            let now_ms = self.places[place].storage.now_ms();
            let removal = match &other {
                Other::Remove(which) => self.places[place].pick(which).map(|(backup, _)| backup),
                Other::RemoveLast => came.last_key_value().map(|(backup, _)| *backup),
                _ => None,
            };
            let running = match &other {
                Other::Commit if place == 0 => self.running.take_if(|running| running.by != writer),
                _ => None,
            };
            let work: BoxFuture<'static, ()> = match other {
                Other::BackUp(content) if place == 0 => {
                    let plan = self.plan();
                    came.insert(plan.backup, content.clone());
                    async move { Self::make(&repository, plan, &content).await.unwrap() }.boxed()
                }
                Other::Prune => {
                    let prune = async move { repository.prune(domain, PruneOptions::default(), &|_, _, _| {}).await };
                    prune.map(|pruned| assert!(pruned.is_ok() || is_cache(&pruned), "{pruned:?}")).boxed()
                }
                _ => match (removal, running) {
                    (Some(backup), _) => {
                        gone.insert(backup);
                        let remove = async move { repository.remove_backup(domain, backup, now_ms).await };
                        // It may be gone already, or have never come.
                        remove.map(|removed| assert!(removed.is_ok() || is_gone(&removed), "{removed:?}")).boxed()
                    }
                    (None, Some(Running { writer, backup, content, .. })) => {
                        came.insert(backup, content);
                        Self::end_running(writer).map(drop).boxed()
                    }
                    (None, None) => ready(()).boxed(),
                },
            };
            self.places[place].storage.meanwhile.lock().unwrap().push_back(Meanwhile(work));
        }
        (came, gone)
    }

    /// What a place holds after others wrote there too.
    async fn notice(&mut self, place: usize, came: BTreeMap<BackupId, Content>, gone: &BTreeSet<BackupId>) {
        self.places[place].storage.meanwhile.lock().unwrap().clear();
        let backups = self.places[place].writers[0].backups(self.domain).await.unwrap();
        let visible: BTreeSet<BackupId> = backups.iter().map(|record| record.backup).collect();
        let holds = &mut self.places[place].holds;
        holds.retain(|backup, _| visible.contains(backup) || !gone.contains(backup));
        holds.extend(came.into_iter().filter(|(backup, _)| visible.contains(backup)));
    }

    async fn prune(&mut self, place: usize, writer: usize, options: PruneOptions, meanwhile: Vec<Other>) {
        // Without grace is for those who know that nothing else goes on.
        if options.now && !options.dry_run {
            if place == 0 {
                self.running = None;
            }
            self.opened.take_if(|opened| opened.place == place);
        }
        let before = options.dry_run.then(|| self.places[place].storage.objects.lock().unwrap().clone());
        let is_alone = options.now || options.dry_run || self.crash.is_some_and(|(at, ..)| at == place);
        let (came, gone) = if is_alone { Default::default() } else { self.arrange(place, writer, meanwhile) };
        self.arm(place);
        let prune = async || self.places[place].writers[writer].prune(self.domain, options, &|_, _, _| {}).await;
        let result = match prune().await {
            // What was damaged is refused, and made anew by whoever comes next.
            result if is_cache(&result) => prune().await,
            result => result,
        };
        let was_cut = self.disarm(place, writer).await;
        self.notice(place, came, &gone).await;
        match result {
            Ok(pruned) if !options.dry_run => self.pruned.lock().unwrap().add(pruned),
            Ok(_) => {}
            Err(error) if options.now && error.code() == "other-writer" => {}
            Err(error) => assert!(was_cut, "{error}"),
        }
        if let Some(before) = before {
            assert!(before == *self.places[place].storage.objects.lock().unwrap(), "a dry run wrote something");
        }
        self.must_hold(place).await;
    }

    async fn collect_garbage(&mut self, place: usize, writer: usize) {
        self.arm(place);
        let result = self.places[place].writers[writer].collect_garbage(PruneOptions::default()).await;
        let was_cut = self.disarm(place, writer).await;
        assert!(result.is_ok() || was_cut, "{result:?}");
        self.must_hold(place).await;
    }

    async fn replicate(&mut self, from: usize, which: &Index) {
        let to = 1 - from;
        let Some((backup, content)) = self.places[from].pick(which) else { return };
        self.arm(to);
        let source = &self.places[from].writers[0];
        let result = self.places[to].writers[0].copy_backup(source, self.domain, backup, &|_, _| {}).await;
        let was_cut = self.disarm(to, 0).await;
        if let Err(error) = &result {
            // Removed there before, and on its way out.
            assert!(was_cut || error.code() == "condemned-object", "{error}");
        }
        if self.visible(to, backup).await {
            self.places[to].holds.insert(backup, content);
        } else {
            assert!(result.is_err());
        }
    }

    /// Objects of a place whose damage can be healed: those that the other place has too, and, where it holds the same contents, every pack and
    /// index. What a running backup brings is in no head yet: nobody would notice.
    fn can_be_healed(&self, place: usize) -> Vec<String> {
        let (at, other) = (&self.places[place], &self.places[1 - place]);
        let (here, there) = (at.storage.objects.lock().unwrap(), other.storage.objects.lock().unwrap());
        let is_held = |content: &Content| other.holds.values().any(|held| held == content);
        let holds_all = at.holds.values().all(is_held) && (place == 1 || self.running.is_none());
        let can_be = here.iter().filter(|(path, bytes)| {
            let is_stored = path.contains("/packs/") || path.contains("/indexes/");
            path.starts_with("domains/") && (there.get(*path) == Some(bytes) || holds_all && is_stored)
        });
        let mut paths: Vec<(usize, String)> = can_be.map(|(path, bytes)| (bytes.len(), path.clone())).collect();
        // Not in the order of their names, which are random.
        paths.sort_unstable();
        paths.into_iter().map(|(_, path)| path).collect()
    }

    async fn heal(&mut self, place: usize, which: &Index, flipped: Option<Index>) {
        let paths = self.can_be_healed(place);
        if paths.is_empty() {
            return;
        }
        let path = &paths[which.index(paths.len())];
        let (at, other) = (&self.places[place], &self.places[1 - place]);
        let whole = at.storage.objects.lock().unwrap()[path].clone();
        match flipped {
            None => drop(at.storage.objects.lock().unwrap().remove(path)),
            Some(flipped) => at.storage.change(path, |bytes| {
                let position = flipped.index(bytes.len());
                bytes[position] ^= 1;
            }),
        }
        // A reader that was opened before looks for everything where it was.
        self.opened.take_if(|opened| opened.place == place);
        let repository = at.writers[0].clone();
        let damages = async || {
            let mut damages = repository.check_structure(self.domain, &|_, _| {}).await.unwrap().damages;
            damages.extend(repository.read_packs(self.domain, None, u64::MAX, None, &|_| {}).await.unwrap().damages);
            damages.sort_unstable_by(|left, right| left.path.cmp(&right.path));
            damages.dedup_by(|left, right| left.path == right.path);
            damages
        };
        let sources = [other.writers[0].clone()];
        repository.heal(self.domain, &sources, damages().await).await.unwrap();
        assert_eq!(damages().await, [], "{path}");
        // What heads do not name, or condemned, is not healed, and may come back by a copy: then it must be whole.
        if at.storage.objects.lock().unwrap().get(path).is_some_and(|bytes| *bytes != whole) {
            at.storage.objects.lock().unwrap().remove(path);
        }
        self.must_hold(place).await;
    }

    async fn open(&mut self, place: usize, which: &Index) {
        let Some((backup, content)) = self.places[place].pick(which) else { return };
        let at = &self.places[place];
        let reader = at.writers[1].open_backup(self.domain, backup).await.unwrap();
        self.opened = Some(Opened { reader, content, place, since_ms: at.storage.now_ms() });
    }

    /// Whatever was deleted since, a reader has its grace period.
    async fn read(&mut self) {
        let Some(Opened { reader, content, place, since_ms }) = self.opened.take() else { return };
        if self.places[place].storage.now_ms() < since_ms + GRACE_MS {
            Self::must_read(&reader, &content).await;
        }
    }

    async fn must_read(reader: &BackupReader, content: &Content) {
        for (name, version) in content {
            let found = read(reader, &name.to_string(), 0, None).await;
            assert_eq!(found.map_err(|error| error.to_string()), Ok(bytes(*name, *version)), "{name}");
        }
    }

    /// A place claims what it must hold, and can give it back.
    async fn must_hold(&self, place: usize) {
        let at = &self.places[place];
        for writer in &at.writers {
            let mut claimed: Vec<_> =
                writer.backups(self.domain).await.unwrap().into_iter().map(|record| record.backup).collect();
            claimed.sort_unstable();
            assert_eq!(claimed, at.holds.keys().copied().collect::<Vec<_>>());
        }
        for (backup, content) in &at.holds {
            let reader = at.writers[0].open_backup(self.domain, *backup).await.unwrap();
            Self::must_read(&reader, content).await;
        }
    }

    /// All is sound, refs and trees agree, and once everything dead is gone, nothing is left that heads do not name.
    async fn end(mut self) {
        (self.running, self.crash) = (None, None);
        for place in [0, 1] {
            self.must_hold(place).await;
            for _ in 0..3 {
                self.prune(place, 0, PruneOptions::default(), Vec::new()).await;
                self.places[place].storage.wait(GRACE_MS);
            }
            self.collect_garbage(place, 1).await;
            let (repository, storage) = (&self.places[place].writers[1], &self.places[place].storage);
            // Refs may name more: the base of a delta that somebody else stored whole meanwhile.
            let differences = repository.compare_refs(self.domain, &|_, _| {}).await.unwrap();
            assert!(differences.iter().all(|difference| difference.missing == 0), "{differences:?}");
            let structure = repository.check_structure(self.domain, &|_, _| {}).await.unwrap();
            assert_eq!(structure.damages, []);
            let packs = repository.read_packs(self.domain, None, u64::MAX, None, &|_| {}).await.unwrap();
            assert_eq!(packs.damages, []);
            let stored = [storage.paths("domains/"), storage.paths("plugins/")].concat();
            let stored = stored.iter().filter(|path| !path.contains("/heads/")).count() as u64;
            assert_eq!(stored, structure.objects, "something is left that no head names");
            self.remove_all(place).await;
        }
    }

    /// Whatever was, all room comes back in the end.
    async fn remove_all(&mut self, place: usize) {
        for backup in self.places[place].holds.clone().into_keys() {
            self.remove(place, backup).await;
        }
        for _ in 0..3 {
            self.prune(place, 0, PruneOptions::default(), Vec::new()).await;
            self.places[place].storage.wait(GRACE_MS);
        }
        let storage = &self.places[place].storage;
        let left = [storage.paths("/packs/"), storage.paths("/indexes/"), storage.paths("/backups/")].concat();
        assert_eq!(left, Vec::<String>::new(), "nothing needs it");
    }
}

/// Whether what a process keeps for itself was found damaged.
fn is_cache<T>(result: &Result<T, Error>) -> bool {
    result.as_ref().is_err_and(|error| error.code() == "index-cache")
}

/// Whether there is no such backup.
fn is_gone(result: &Result<(), Error>) -> bool {
    result.as_ref().is_err_and(|error| matches!(error, Error::NoSuchBackup { .. }))
}

/// Plays the sequence of a seed.
fn play(seed: u64, pruned: &Arc<Mutex<Pruned>>) {
    let config = Config { cases: 1, failure_persistence: None, ..Config::default() };
    let seeds = [seed.to_le_bytes(), [0; 8], [0; 8], [0; 8]].concat();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seeds));
    // One thread: what runs beside is interleaved by the operations themselves.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runner.run(&operations(), |operations| {
        runtime.block_on(async { World::new(pruned.clone()).await.play(operations).await });
        Ok(())
    });
    result.unwrap_or_else(|failure| {
        panic!("HOLDFAST_MODEL_SEED={seed} HOLDFAST_MODEL_OPERATIONS={SEQUENCE} tells it again: {failure}")
    });
}

#[test]
#[expect(clippy::print_stdout)] // Whoever waits for a long run sees what it is about.
fn whatever_happens_every_claimed_backup_can_be_read_back() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let sequences = asked("HOLDFAST_MODEL_OPERATIONS").unwrap_or(OPERATIONS as u64).div_ceil(SEQUENCE as u64);
    let first = asked("HOLDFAST_MODEL_SEED").unwrap_or_default();
    let repetitions = asked("HOLDFAST_MODEL_REPETITIONS").unwrap_or(1);
    println!("model: {sequences} sequences of {SEQUENCE} operations, seeds from {first} on");
    let (pruned, next) = (Arc::new(Mutex::new(Pruned::default())), AtomicU64::new(first));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::SeqCst)
                    && seed < first + sequences
                {
                    (0..repetitions).for_each(|_| play(seed, &pruned));
                }
            });
        }
    });
    let pruned = pruned.lock().unwrap();
    let is_usual = first == 0 && sequences > 100;
    let has_died = pruned.deleted.objects > 0 && pruned.repacked.objects > 0 && pruned.moved_bytes > 0;
    assert!(has_died || !is_usual, "{pruned:?}");
}
