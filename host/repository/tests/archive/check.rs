//! Check: every kind of damage is found, and the list of losses is exactly what cannot be read.

use std::collections::BTreeSet;

use holdfast_repository::{BackupRecord, ContentClass, Damage, Digest, Loss};

use crate::memory::Memory;
use crate::setting::{Appliance, Files, files, noise, read, run};

pub async fn damages(appliance: &Appliance) -> Vec<Damage> {
    let repository = &appliance.repository;
    let mut found = repository.check_structure(appliance.domain, &|_, _| ()).await.unwrap().damages;
    let packs = repository.read_packs(appliance.domain, None, u64::MAX, None, &|_| ()).await.unwrap();
    assert_eq!(packs.next, None);
    found.extend(packs.damages);
    found
}

/// The bytes that a reader, asked for each of them, does not get.
async fn unreadable(appliance: &Appliance, record: &BackupRecord, files: &Files) -> BTreeSet<(String, u64)> {
    let mut lost = BTreeSet::new();
    let reader = appliance.reader(record).await;
    for (path, (_, bytes)) in files {
        for offset in (0..bytes.len() as u64).step_by(4096) {
            match read(&reader, path, offset, Some(1)).await {
                Ok(read) => assert_eq!(read, bytes[offset as usize..=offset as usize]),
                Err(_) => drop(lost.insert((path.clone(), offset))),
            }
        }
    }
    lost
}

/// The same of a list of losses.
fn listed(losses: &[Loss], record: &BackupRecord) -> BTreeSet<(String, u64)> {
    let own = losses.iter().filter(|loss| loss.backup == record.backup);
    own.flat_map(|loss| {
        let offsets = (0..loss.end).step_by(4096).filter(|offset| *offset >= loss.start);
        offsets.map(|offset| (loss.entry.clone().unwrap(), offset))
    })
    .collect()
}

#[test]
fn a_sound_repository_has_no_findings() {
    run(async {
        let appliance = Appliance::new().await;
        appliance.back_up(&files(0)).await.unwrap();
        appliance.back_up(&files(5)).await.unwrap();
        let structure = appliance.repository.check_structure(appliance.domain, &|_, _| ()).await.unwrap();
        assert_eq!((structure.backups, structure.damages), (2, vec![]));
        assert!(structure.objects >= 10 && structure.bytes > 1 << 20);
        assert_eq!(damages(&appliance).await, vec![]);
        assert_eq!(appliance.repository.losses(appliance.domain, &[]).await.unwrap(), vec![]);
    });
}

#[test]
fn every_object_that_is_gone_cut_or_changed_is_found_by_its_path() {
    run(async {
        let appliance = Appliance::new().await;
        appliance.back_up(&files(0)).await.unwrap();
        let paths = appliance.storage.paths("domains/").into_iter().filter(|path| !path.contains("/heads/"));
        for path in paths.chain(appliance.storage.paths("plugins/")) {
            let good = appliance.storage.objects.lock().unwrap()[&path].clone();
            for code in ["lost-object", "wrong-length", "wrong-digest"] {
                match code {
                    "lost-object" => drop(appliance.storage.objects.lock().unwrap().remove(&path)),
                    "wrong-length" => appliance.storage.change(&path, |bytes| bytes.truncate(bytes.len() - 1)),
                    _ => appliance.storage.change(&path, |bytes| bytes[9] ^= 1),
                }
                let found = damages(&appliance.restarted().await).await;
                let own = found.iter().filter(|damage| damage.path == path);
                let codes: Vec<_> = own.map(|damage| &*damage.code).collect();
                // Of what is read whole, the digest tells that it was cut.
                let is_cut = code == "wrong-length" && codes.contains(&"wrong-digest");
                let is_found = codes.contains(&code) || is_cut;
                assert!(is_found, "{path} {code} {found:?}");
                appliance.storage.objects.lock().unwrap().insert(path.clone(), good.clone());
            }
        }
        assert_eq!(damages(&appliance.restarted().await).await, vec![]);
    });
}

#[test]
fn losses_are_exactly_what_cannot_be_read() {
    run(async {
        let appliance = Appliance::new().await;
        // Two levels of lists, packs of their own, and a second backup that shares most of the first.
        let mut first = files(0);
        first.insert("base/big".into(), (ContentClass::Pages(8192), noise(9, 40 << 20)));
        let mut second = first.clone();
        second.insert("base/new".into(), (ContentClass::Pages(8192), noise(11, 1 << 20)));
        let one = appliance.back_up(&first).await.unwrap();
        let two = appliance.back_up(&second).await.unwrap();
        let packs = appliance.storage.paths("/packs/");
        assert!(packs.len() >= 4);
        for (number, path) in packs.iter().enumerate() {
            let good = appliance.storage.objects.lock().unwrap()[path].clone();
            if number % 2 == 0 {
                // One bit in the middle: one chunk.
                appliance.storage.change(path, |bytes| {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                });
            } else {
                appliance.storage.objects.lock().unwrap().remove(path);
            }
            let after = appliance.restarted().await;
            let found = damages(&after).await;
            let losses = after.repository.losses(after.domain, &found).await.unwrap();
            if losses.iter().any(|loss| loss.entry.is_none()) {
                // A table is lost, and nobody can say more than that.
                assert!(number % 2 == 1);
            } else {
                for (record, files) in [(&one, &first), (&two, &second)] {
                    assert_eq!(listed(&losses, record), unreadable(&after, record, files).await, "{path}");
                }
                assert!(!losses.is_empty() || number % 2 == 0, "{path}");
            }
            appliance.storage.objects.lock().unwrap().insert(path.clone(), good);
        }
    });
}

#[test]
fn packs_are_read_in_parts_and_each_once() {
    run(async {
        let appliance = Appliance::new().await;
        let big = Files::from([("big".to_owned(), (ContentClass::Pages(8192), noise(1, 70 << 20)))]);
        appliance.back_up(&big).await.unwrap();
        let (mut after, mut packs, mut parts): (Option<Digest>, u64, u64) = (None, 0, 0);
        loop {
            let read = appliance.repository.read_packs(appliance.domain, after, 20 << 20, None, &|_| ()).await.unwrap();
            assert!(read.packs >= 1 && read.damages.is_empty());
            (packs, parts) = (packs + read.packs, parts + 1);
            after = read.next;
            if after.is_none() {
                break;
            }
        }
        assert!(parts >= 2);
        assert_eq!(packs, appliance.storage.paths("/packs/").len() as u64);
    });
}

#[test]
fn an_outage_is_no_damage() {
    run(async {
        let appliance = Appliance::new().await;
        appliance.back_up(&files(0)).await.unwrap();
        let mut failed = 0;
        for operations in 0.. {
            let after = appliance.restarted().await;
            appliance.storage.cut_off_after(operations, false);
            let structure = after.repository.check_structure(after.domain, &|_, _| ()).await;
            let was_cut = appliance.storage.mend();
            if !was_cut {
                assert_eq!(structure.unwrap().damages, vec![]);
                break;
            }
            assert_eq!(structure.unwrap_err().code(), "storage-unreachable");
            failed += 1;
        }
        assert!(failed > 5);
    });
}

#[test]
fn a_lost_index_costs_no_backup_and_is_healed_with_the_rest() {
    run(async {
        let appliance = Appliance::new().await;
        let mut contents = files(0);
        contents.insert("base/big".into(), (ContentClass::Pages(8192), noise(9, 40 << 20)));
        let record = appliance.back_up(&contents).await.unwrap();
        let vault = Appliance::at(Memory::new(), appliance.keyring.clone()).await.unwrap();
        vault.repository.copy_backup(&appliance.repository, appliance.domain, record.backup, &|_, _| ()).await.unwrap();

        // Without any index the packs say where everything is, as long as nothing is written.
        for index in appliance.storage.paths("/indexes/") {
            appliance.storage.change(&index, |bytes| bytes[20] ^= 1);
        }
        let hurt = appliance.restarted().await;
        assert!(hurt.holds(&record, &contents).await.unwrap());
        assert!(hurt.back_up(&files(7)).await.is_err());
        let found = damages(&hurt).await;
        assert_eq!(found.len(), appliance.storage.paths("/indexes/").len(), "{found:?}");
        assert_eq!(hurt.repository.losses(hurt.domain, &found).await.unwrap(), vec![]);

        // Everything else that can be damaged at one place, at once.
        for path in appliance.storage.paths("/packs/").into_iter().chain(appliance.storage.paths("/backups/")) {
            appliance.storage.objects.lock().unwrap().remove(&path);
        }
        appliance.storage.change(&appliance.storage.paths("plugins/")[0], |bytes| bytes[0] ^= 1);
        let hurt = appliance.restarted().await;
        let found = damages(&hurt).await;
        let healed = hurt.repository.heal(hurt.domain, std::slice::from_ref(&vault.repository), found).await.unwrap();
        let objects = |paths: Vec<String>| paths.into_iter().filter(|path| !path.contains("/heads/")).count();
        assert!(healed.paths.len() >= objects(appliance.storage.paths("domains/")) && healed.bytes > 40 << 20);
        let after = appliance.restarted().await;
        assert_eq!(damages(&after).await, vec![]);
        assert!(after.holds(&record, &contents).await.unwrap());
        after.back_up(&files(7)).await.unwrap();
    });
}

#[test]
fn a_source_that_is_damaged_itself_heals_nothing() {
    run(async {
        let appliance = Appliance::new().await;
        let record = appliance.back_up(&files(0)).await.unwrap();
        let vault = Appliance::at(Memory::new(), appliance.keyring.clone()).await.unwrap();
        vault.repository.copy_backup(&appliance.repository, appliance.domain, record.backup, &|_, _| ()).await.unwrap();
        for place in [&appliance, &vault] {
            let manifest = place.storage.paths("/manifest")[0].clone();
            place.storage.change(&manifest, |bytes| bytes[100] ^= 1);
        }
        let found = damages(&appliance).await;
        let healed = appliance
            .repository
            .heal(appliance.domain, std::slice::from_ref(&vault.repository), found.clone())
            .await
            .unwrap();
        assert_eq!((healed.paths.len(), healed.left), (0, found));
        // One that is away is not an error of this place either.
        vault.storage.cut_off_after(0, false);
        let found = damages(&appliance).await;
        let healed = appliance
            .repository
            .heal(appliance.domain, std::slice::from_ref(&vault.repository), found.clone())
            .await
            .unwrap();
        assert_eq!(healed.left, found);
    });
}
