//! Every byte of every object of a small repository with deltas, damaged in turn: found by a check that reads the data, never delivered, and healed from
//! what is good elsewhere.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use holdfast_repository::{BackupRecord, ContentClass, Damage, Keyring, RecoveryKit, recover_keyring};

use crate::memory::Memory;
use crate::setting::{Appliance, Files, damages, losers, noise, read, run};

/// Words for people, and room that is given up on a full disk: nobody relies on a byte of them.
const MEANINGLESS: [&str; 2] = ["RECOVER.txt", "reserve"];

/// What a whole target may be refused for, because everything else is read by it.
const REFUSED: [&str; 2] = ["repository.json", "/heads/"];

/// Three days at one place, the later ones deltas of depths 1 and 2, and the same at another.
struct Sound {
    here: Appliance,
    vault: Appliance,
    days: Vec<(BackupRecord, Files)>,
    kit: RecoveryKit,
}

impl Sound {
    async fn new() -> Self {
        let mut kit = RecoveryKit::generate();
        let keyring = Keyring::generate().with_domain("acme").with_recipient("alice", &kit.recipient(), 1).unwrap();
        kit.pin(keyring.repository(), keyring.verify_key(), Vec::new());
        let here = Appliance::with(keyring).await;
        let vault = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let mut days: Vec<(BackupRecord, Files)> = Vec::new();
        for day in 0..3 {
            let files = files(day);
            let parent = days.last().map(|(record, _)| record);
            let record = here.back_up_after(parent, &files).await.unwrap();
            vault.repository.copy_backup(&here.repository, here.domain, record.backup, &|_, _| {}).await.unwrap();
            days.push((record, files));
        }
        let mut losers = losers(&here.repository, here.domain, &here.storage).await;
        losers.sort_unstable();
        assert_eq!(losers, [1, 2, 3], "a delta to a delta, a delta, and what they stand on");
        Self { here, vault, days, kit }
    }

    /// All bytes that anybody relies on.
    fn bytes(&self) -> Vec<(String, usize)> {
        let objects = self.here.storage.objects.lock().unwrap();
        let relied_on = objects.iter().filter(|(path, _)| !MEANINGLESS.contains(&path.as_str()));
        relied_on.flat_map(|(path, bytes)| (0..bytes.len()).map(|position| (path.clone(), position))).collect()
    }
}

/// A table, whose pages change a little each day; a stream; and what lies in its record.
fn files(day: usize) -> Files {
    let mut table = noise(1, 1536);
    // Smaller changes each time, so that the delta to the newest version is the one that pays.
    for (change, length) in (0..day).zip([440, 10]) {
        table[change * 500..][..length].copy_from_slice(&noise(100 + change as u64, length));
    }
    Files::from([
        ("base/1".to_owned(), (ContentClass::Pages(512), table)),
        ("log".to_owned(), (ContentClass::Bytes, noise(2, 600))),
        ("version".to_owned(), (ContentClass::Bytes, b"17".to_vec())),
    ])
}

/// One bit of the byte, each time another one.
fn flip(storage: &Memory, path: &str, position: usize) {
    storage.change(path, |bytes| bytes[position] ^= 1 << (position % 8));
}

/// A process that has the repository open since before the damage, and a place that it alone uses.
struct Process<'a> {
    sound: &'a Sound,
    appliance: Appliance,
    vault: Appliance,
}

impl<'a> Process<'a> {
    async fn new(sound: &'a Sound) -> Self {
        Self { sound, appliance: sound.here.copy().await, vault: sound.vault.copy().await }
    }

    /// Damages one byte, and says what is not as it must be then.
    async fn survives(&self, path: &str, position: usize) -> Result<(), String> {
        flip(&self.appliance.storage, path, position);
        if path.starts_with("keyring/") {
            self.publish_again().await?;
        } else if self.delivers_nothing_wrong().await? {
            self.heal(self.find(path).await?).await?;
        } else if !REFUSED.iter().any(|part| path.contains(part)) {
            return Err("the whole target is refused".to_owned());
        }
        // Sealed anew, a keyring has other bytes; and what is refused nobody has healed.
        self.appliance.storage.objects.lock().unwrap().clone_from(&self.sound.here.storage.objects.lock().unwrap());
        Ok(())
    }

    /// What a check which reads the data finds, and this object among it.
    async fn find(&self, path: &str) -> Result<Vec<Damage>, String> {
        let Appliance { repository, domain, .. } = &self.appliance;
        let mut found = repository.read_packs(*domain, None, u64::MAX, None, &|_| ()).await.unwrap().damages;
        if found.is_empty() {
            found = repository.check_structure(*domain, &|_, _| ()).await.unwrap().damages;
        }
        let is_found = found.iter().any(|damage| damage.path == path);
        if is_found { Ok(found) } else { Err(format!("not found, but {found:?}")) }
    }

    /// A reader that comes now gets what was backed up, or an error. Whether it can come at all.
    async fn delivers_nothing_wrong(&self) -> Result<bool, String> {
        let Ok(reader) = Appliance::at(self.appliance.storage.copy(), self.appliance.keyring.clone()).await else {
            return Ok(false);
        };
        for (record, files) in &self.sound.days {
            let Ok(backup) = reader.repository.open_backup(reader.domain, record.backup).await else { continue };
            for (name, (_, expected)) in files {
                if read(&backup, name, 0, None).await.is_ok_and(|bytes| bytes != *expected) {
                    return Err(format!("{name} of {} was delivered with other bytes", record.backup));
                }
            }
            if let Ok(entries) = backup.entries("", "", usize::MAX).await {
                let paths: Vec<_> = entries.iter().map(|entry| &entry.path).collect();
                if paths != files.keys().collect::<Vec<_>>() {
                    return Err(format!("{} was delivered with other entries", record.backup));
                }
            }
        }
        Ok(true)
    }

    async fn heal(&self, found: Vec<Damage>) -> Result<(), String> {
        let Appliance { repository, domain, storage, .. } = &self.appliance;
        let healed = repository.heal(*domain, std::slice::from_ref(&self.vault.repository), found).await.unwrap();
        let is_whole = *storage.objects.lock().unwrap() == *self.sound.here.storage.objects.lock().unwrap();
        if is_whole { Ok(()) } else { Err(format!("not healed, but {healed:?}")) }
    }

    /// The keyring is in the process itself. With the damaged one nobody is reborn, with the new one everybody.
    async fn publish_again(&self) -> Result<(), String> {
        let Appliance { repository, storage, keyring, .. } = &self.appliance;
        let recover = async || recover_keyring(storage.clone(), &self.sound.kit, false).await;
        if recover().await.is_ok() {
            return Err("a damaged keyring was taken".to_owned());
        }
        repository.publish_keyring().await.unwrap();
        let recovered = recover().await.map_err(|error| format!("not published again: {error}"))?;
        let is_it = recovered.verify_key() == keyring.current().verify_key();
        if is_it { Ok(()) } else { Err("another keyring was recovered".to_owned()) }
    }
}

#[test]
fn every_flipped_byte_is_found_never_delivered_and_healed() {
    let sound = run(Sound::new());
    let (bytes, next, failures) = (sound.bytes(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = thread::available_parallelism().map_or(2, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    let process = Process::new(&sound).await;
                    while let Some((path, position)) = bytes.get(next.fetch_add(1, Ordering::SeqCst)) {
                        if let Err(failure) = process.survives(path, *position).await {
                            failures.lock().unwrap().push(format!("{path} at {position}: {failure}"));
                            return;
                        }
                    }
                    assert_eq!(damages(&process.appliance.repository, sound.here.domain).await, []);
                });
            });
        }
    });
    assert_eq!(failures.into_inner().unwrap(), Vec::<String>::new());
    let kinds = [
        "repository.json",
        ".age",
        ".sig",
        "plugins/",
        "/packs/",
        "/indexes/",
        "/manifest",
        "/refs.",
        "/keys.",
        "/heads/",
    ];
    for kind in kinds {
        assert!(bytes.iter().any(|(path, _)| path.contains(kind)), "no {kind}");
    }
    eprintln!("{} bytes were flipped", bytes.len());
}

#[test]
fn a_target_that_is_refused_is_begun_anew_from_the_other() {
    run(async {
        let (sound, mut refused) = (Sound::new().await, Vec::new());
        for path in sound.bytes().into_iter().map(|(path, _)| path).collect::<BTreeSet<_>>() {
            let damaged = sound.here.storage.copy();
            flip(&damaged, &path, 5);
            if Appliance::at(damaged, sound.here.keyring.clone()).await.is_ok() {
                continue;
            }
            let anew = Appliance::at(Memory::new(), sound.here.keyring.clone()).await.unwrap();
            for (record, files) in &sound.days {
                let (source, backup) = (&sound.vault.repository, record.backup);
                anew.repository.copy_backup(source, anew.domain, backup, &|_, _| {}).await.unwrap();
                assert!(anew.holds(record, files).await.unwrap(), "{path}");
            }
            refused.push(path);
        }
        assert!(refused.iter().any(|path| path == "repository.json"), "{refused:?}");
    });
}
