//! The golden repositories of format 1: what was stored once is read for ever, and each kind of damage in it is told in the same words.
//!
//! Each of `tests/fixtures/format-1*` holds three backups of an organization, the later ones deltas of depths 1 and 2, one of them held; one that was deleted and whose
//! packs are condemned; slots of a tenant's own; organization keys and a signing key that were rotated; and a backup of the system domain. Beside it lie the
//! two kits that open it, `contents` with the digest of every entry, and `damages`: which byte is flipped, and what opening, checking and restoring say
//! then. [`make`] made all of it; a fixture is never made anew. The deltas of the first have the encoding 2, those of the second are patches.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_repository::{
    BackupReader, Clock, ContentClass, Digest, DomainId, Hold, Keyring, PruneOptions, RecoveryKit, Repository,
    SharedKeyring, Why, recover_keyring,
};
use holdfast_tests::reader::Reader;

use crate::memory::Memory;
use crate::setting::{Appliance, Files, damages, losers, noise, read, run};

/// Its backups that live, each the parent of the next.
const NAMES: [&str; 3] = ["whole", "delta", "delta-of-delta"];

/// What was stored, in the order of time.
const FIXTURES: [&str; 2] = ["format-1", "format-1-patches"];

fn fixtures() -> [PathBuf; 2] {
    FIXTURES.map(|name| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name))
}

fn kit(fixture: &Path, name: &str) -> RecoveryKit {
    RecoveryKit::parse(&fs::read_to_string(fixture.join(name)).unwrap()).unwrap()
}

/// A fixture's objects.
fn stored(fixture: &Path) -> Arc<Memory> {
    let (memory, root) = (Memory::new(), fixture.join("repository"));
    let mut pending = vec![root.clone()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                memory.objects.lock().unwrap().insert(name, fs::read(&path).unwrap().into());
            }
        }
    }
    memory
}

/// A fixture as its owner opens it, and the organization's domain.
async fn opened(fixture: &Path, storage: Arc<Memory>) -> Result<(Repository, DomainId), holdfast_repository::Error> {
    let keyring = recover_keyring(storage.clone(), &kit(fixture, "alice.key"), false).await?;
    let domain = keyring.domain_of("acme").unwrap();
    let repository = Repository::open_read_only(storage.clone(), SharedKeyring::new(keyring)).await?;
    Ok((repository.with_clock(Clock::of(move || storage.now_ms())), domain))
}

/// Digests of the entries of a backup, by their paths.
async fn contents(reader: &BackupReader) -> Result<BTreeMap<String, Digest>, holdfast_repository::Error> {
    let mut found = BTreeMap::new();
    for entry in reader.entries("", "", usize::MAX).await? {
        let bytes = read(reader, &entry.path, 0, None).await?;
        found.insert(entry.path, Digest::of(&bytes));
    }
    Ok(found)
}

/// The same as a fixture tells it: of each backup, by name.
fn told_contents(fixture: &Path) -> BTreeMap<String, BTreeMap<String, Digest>> {
    let mut told = BTreeMap::<String, BTreeMap<String, Digest>>::new();
    for line in fs::read_to_string(fixture.join("contents")).unwrap().lines() {
        let [backup, path, digest] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        told.entry(backup.into()).or_default().insert(path.into(), digest.parse().unwrap());
    }
    told
}

#[test]
fn what_format_1_stored_is_read_whole() {
    fixtures().iter().for_each(|fixture| run(is_read_whole(fixture)));
}

async fn is_read_whole(fixture: &Path) {
    let storage = stored(fixture);
    let (repository, domain) = opened(fixture, storage.clone()).await.unwrap();
    assert_eq!(damages(&repository, domain).await, []);
    let backups = repository.backups(domain).await.unwrap();
    let told = told_contents(fixture);
    assert_eq!(backups.len(), 3);
    for record in &backups {
        let reader = repository.open_backup(domain, record.backup).await.unwrap();
        assert_eq!(contents(&reader).await.unwrap(), told[&record.name], "{}", record.name);
    }
    let mut losers = losers(&repository, domain, &storage).await;
    losers.retain(|count| *count > 0);
    losers.sort_unstable();
    assert_eq!(losers, [1, 2, 3], "a delta to a delta, a delta, and what they stand on");
    let holds = repository.holds(domain).await.unwrap();
    let held = backups.iter().find(|record| record.name == "delta").unwrap();
    assert_eq!(holds.keys().collect::<Vec<_>>(), [&held.backup]);
    let waits = repository.prune(domain, PruneOptions { dry_run: true, now: false }, &|_, _, _| {}).await.unwrap();
    assert!(waits.kept[&Why::Condemned].tally.objects > 3, "{waits:?}");
}

#[test]
fn a_tenant_of_format_1_reads_its_own_backups() {
    fixtures().iter().for_each(|fixture| run(a_tenant_reads(fixture)));
}

async fn a_tenant_reads(fixture: &Path) {
    let storage = stored(fixture);
    let keyring = recover_keyring(storage.clone(), &kit(fixture, "tenant.key"), false).await.unwrap();
    assert!(keyring.is_tenants());
    let domain = keyring.domains()[0];
    let repository = Repository::open_read_only(storage, SharedKeyring::new(keyring)).await.unwrap();
    for record in repository.backups(domain).await.unwrap() {
        let reader = repository.open_backup(domain, record.backup).await.unwrap();
        assert_eq!(contents(&reader).await.unwrap(), told_contents(fixture)[&record.name]);
    }
}

#[test]
fn another_program_reads_what_format_1_stored_and_refuses_what_is_damaged() {
    fixtures().iter().for_each(|fixture| another_program_reads(fixture));
}

fn another_program_reads(fixture: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let reader = Reader::new(&fixture.join("repository"), &fixture.join("alice.key")).unwrap();
    let listed = reader.list().unwrap();
    assert_eq!(listed.len(), 4, "three of the organization's, and the catalog's");
    for (backup, name) in &listed {
        let Some(told) = told_contents(fixture).remove(name.rsplit('/').next().unwrap()) else { continue };
        let out = scratch.path().join(backup);
        reader.extract(backup, &out).unwrap();
        for (path, digest) in told {
            assert_eq!(Digest::of(&fs::read(out.join(&path)).unwrap()), digest, "{path} of {name}");
        }
    }
    let (newest, _) = listed.iter().find(|(_, name)| name.ends_with("/delta-of-delta")).unwrap();
    let copy = scratch.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-r").arg(fixture.join("repository")).arg(&copy).status();
    assert!(copied.unwrap().success());
    let reader = Reader::new(&copy, &fixture.join("alice.key")).unwrap();
    for damage in Flipped::told(fixture) {
        let (path, sound) = (copy.join(&damage.path), fs::read(copy.join(&damage.path)).unwrap());
        let mut bytes = sound.clone();
        bytes[damage.offset] ^= 1;
        fs::write(&path, bytes).unwrap();
        reader.must_refuse_to_extract(newest, &scratch.path().join("refused"), &damage.path).unwrap();
        fs::write(&path, sound).unwrap();
    }
}

/// A byte with its lowest bit flipped, and what is said then.
#[derive(Debug, PartialEq, Eq)]
struct Flipped {
    kind: String,
    path: String,
    offset: usize,
    opening: String,
    checking: String,
    restoring: String,
}

/// What is said of what works.
const WORKS: &str = "works";

/// A kind of object, what stands in its path, and which of its bytes is flipped: of how many parts it is behind how many.
const KINDS: [(&str, &str, usize, usize); 11] = [
    ("which repository", "repository.json", 1, 2),
    ("keyring", ".age", 1, 2),
    ("signature of the keyring", ".sig", 1, 2),
    ("component", "plugins/", 1, 2),
    ("chunks of a pack", "/packs/", 1, 8),
    ("footer of a pack", "/packs/", 31, 32),
    ("index", "/indexes/", 1, 2),
    ("refs", "/refs.", 1, 2),
    ("slots", "/keys.", 1, 2),
    ("manifest", "/manifest", 1, 2),
    ("head", "/heads/", 1, 2),
];

impl Flipped {
    fn told(fixture: &Path) -> Vec<Self> {
        let text = fs::read_to_string(fixture.join("damages")).unwrap();
        let mut blocks = Vec::new();
        for block in text.trim_end().split("\n\n") {
            let mut lines = block.lines().map(|line| line.split_once(": ").unwrap().1.to_owned());
            let mut next = || lines.next().unwrap();
            blocks.push(Self {
                kind: next(),
                path: next(),
                offset: next().parse().unwrap(),
                opening: next(),
                checking: next(),
                restoring: next(),
            });
        }
        blocks
    }

    fn tell(&self) -> String {
        let Self { kind, path, offset, opening, checking, restoring } = self;
        format!(
            "kind: {kind}\nobject: {path}\noffset: {offset}\nopening: {opening}\nchecking: {checking}\nrestoring: {restoring}\n"
        )
    }

    /// Flips the bit in a copy, and asks.
    async fn ask(fixture: &Path, kind: &str, path: &str, offset: usize) -> Self {
        let damaged = stored(fixture);
        damaged.change(path, |bytes| bytes[offset] ^= 1);
        let said = |error: holdfast_repository::Error| format!("{}: {error}", error.code());
        let (opening, checking, restoring) = match opened(fixture, damaged).await {
            Err(error) => (said(error), "is not reached".to_owned(), "is not reached".to_owned()),
            Ok((repository, domain)) => {
                let found = damages(&repository, domain).await;
                let found: Vec<String> = found.iter().map(|one| format!("{}: {}", one.code, one.detail)).collect();
                let restored = restore(fixture, &repository, domain).await;
                (WORKS.to_owned(), found.join(" | "), restored.map_or_else(said, |()| WORKS.to_owned()))
            }
        };
        Self { kind: kind.into(), path: path.into(), offset, opening, checking, restoring }
    }
}

/// Reads the newest backup and its component, as a restore does.
async fn restore(fixture: &Path, repository: &Repository, domain: DomainId) -> Result<(), holdfast_repository::Error> {
    let backups = repository.backups(domain).await?;
    let record = backups.iter().find(|record| record.name == NAMES[2]).unwrap();
    let reader = repository.open_backup(domain, record.backup).await?;
    assert_eq!(contents(&reader).await?, told_contents(fixture)[&record.name], "other bytes were delivered");
    repository.component(record.component).await.map(drop)
}

#[test]
fn each_kind_of_damage_is_told_in_its_own_words() {
    fixtures().iter().for_each(|fixture| run(each_damage_is_told(fixture)));
}

async fn each_damage_is_told(fixture: &Path) {
    let told = Flipped::told(fixture);
    assert!(told.iter().map(|one| one.kind.as_str()).eq(KINDS.map(|(kind, ..)| kind)));
    for one in told {
        assert_eq!(Flipped::ask(fixture, &one.kind, &one.path, one.offset).await, one);
        let is_told = one.opening != WORKS || !one.checking.is_empty();
        assert!(is_told, "{} goes unseen", one.path);
    }
}

/// A table whose pages change a little each time, a stream, and what lies in its record; of the first, which is deleted, something else.
fn files(number: usize) -> Files {
    let mut table = noise(1, 70_000);
    // Smaller changes each time, so that the delta to the newest version is the one that pays.
    for (change, length) in (1..number).zip([900, 30]) {
        for page in table.chunks_mut(8192).filter(|page| page.len() == 8192) {
            page[change * 1000..][..length].copy_from_slice(&noise(100 + change as u64, length));
        }
    }
    if number == 0 {
        return Files::from([("base/dropped".to_owned(), (ContentClass::Pages(8192), noise(3, 20_000)))]);
    }
    Files::from([
        ("base/table".to_owned(), (ContentClass::Pages(8192), table)),
        ("log/stream".to_owned(), (ContentClass::Bytes, noise(2, 3_000))),
        ("version".to_owned(), (ContentClass::Bytes, b"17\n".to_vec())),
    ])
}

/// Makes the newest fixture, where there is none: `cargo test --release --workspace --test archive golden::make -- --ignored`.
#[test]
#[ignore = "run by hand, once for each encoding: it writes a fixture"]
fn make() {
    run(async {
        let [.., fixture] = fixtures();
        assert!(!fixture.exists(), "{} exists; a fixture is never made twice", fixture.display());
        let (mut alice, mut tenant) = (RecoveryKit::generate(), RecoveryKit::generate());
        let keyring = Keyring::generate().with_domain("acme").with_recipient("alice", &alice.recipient(), 1).unwrap();
        for kit in [&mut alice, &mut tenant] {
            kit.pin(keyring.repository(), keyring.verify_key(), vec!["here file:///srv/backups".into()]);
        }
        let here = Appliance::with(keyring).await;
        let gone = here.back_up_as("gone", None, &files(0)).await.unwrap();
        let (mut told, mut parent) = (String::new(), None);
        for (number, name) in (1..).zip(NAMES) {
            let record = here.back_up_as(name, parent.as_ref(), &files(number)).await.unwrap();
            for (path, digest) in contents(&here.reader(&record).await).await.unwrap() {
                told += &format!("{name}\t{path}\t{digest}\n");
            }
            parent = Some(record);
        }
        here.repository.remove_backup(here.domain, gone.backup, here.storage.now_ms()).await.unwrap();
        let held =
            here.repository.backups(here.domain).await.unwrap().into_iter().find(|record| record.name == "delta");
        let hold = Hold { name: "alice".into(), reason: "audit".into(), at_ms: here.storage.now_ms() };
        here.repository.set_holds(here.domain, held.unwrap().backup, vec![hold]).await.unwrap();
        let pruned = here.repository.prune(here.domain, PruneOptions::default(), &|_, _, _| {}).await.unwrap();
        assert!(pruned.condemned.objects > 3, "{pruned:?}");

        let before = here.keyring.current();
        let next = before.with_new_signing_key().with_new_organization_keys(&before.domains());
        here.keyring.replace(next.with_tenant(here.domain, "acme's own", &tenant.recipient(), 1).unwrap());
        here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap();
        let catalog = Appliance { domain: here.keyring.current().system_domain(), ..here.restarted().await };
        catalog.back_up_as("catalog", None, &files(1)).await.unwrap();
        here.repository.retire_former_keyrings().await.unwrap();

        for (path, bytes) in here.storage.objects.lock().unwrap().iter().filter(|(path, _)| *path != "reserve") {
            let path = fixture.join("repository").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::write(fixture.join("alice.key"), alice.to_text().as_bytes()).unwrap();
        fs::write(fixture.join("tenant.key"), tenant.to_text().as_bytes()).unwrap();
        fs::write(fixture.join("contents"), told).unwrap();
        fs::write(fixture.join("damages"), told_damages(&fixture, &here).await).unwrap();
    });
}

/// One damage of each kind, of what the newest backup needs.
async fn told_damages(fixture: &Path, here: &Appliance) -> String {
    let newest = here.repository.backups(here.domain).await.unwrap().into_iter().find(|one| one.name == NAMES[2]);
    let (domain, backup) = (here.domain.to_string(), newest.unwrap().backup.to_string());
    let mut told = Vec::new();
    for (kind, part, behind, parts) in KINDS {
        let is_needed = |path: &String| {
            (!path.starts_with("domains/") || path.contains(&domain))
                && (!path.contains("/backups/") || path.contains(&backup))
        };
        let candidates = here.storage.paths(part).into_iter().filter(is_needed);
        let mut found = Vec::new();
        for path in candidates {
            let length = here.storage.objects.lock().unwrap()[&path].len();
            found.push(Flipped::ask(fixture, kind, &path, length * behind / parts).await);
        }
        // Of what is condemned nobody takes notice.
        let of_use = |one: &Flipped| one.opening != WORKS || !one.checking.is_empty();
        told.push(found.into_iter().find(of_use).unwrap().tell());
    }
    told.join("\n")
}
