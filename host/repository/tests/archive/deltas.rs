//! Changed pages are stored as deltas to what was there before: small, read back whole, at other targets too, and whatever is lost with
//! a base is said.

use std::collections::BTreeSet;

use holdfast_repository::{BackupRecord, ContentClass, PruneOptions, Repository};

use crate::memory::Memory;
use crate::setting::{Appliance, CHUNK, Files, damages, file, noise, read, record, run};

const CHUNKS: usize = 40;

/// Files of pages that a database may have.
fn pages() -> Files {
    let class = ContentClass::Pages(8192);
    Files::from([
        ("base/1".to_owned(), (class, noise(1, CHUNKS * CHUNK + 8192))),
        ("base/2".to_owned(), (class, noise(2, 8192))),
        ("wal/1".to_owned(), (ContentClass::Bytes, noise(3, 300_000))),
    ])
}

/// Changes a few bytes of every page but each third chunk's, other ones each day.
fn change(files: &mut Files, day: usize) {
    let (_, bytes) = files.get_mut("base/1").unwrap();
    for (number, page) in bytes.chunks_mut(8192).enumerate() {
        if (number * 8192 / CHUNK).is_multiple_of(3) {
            continue;
        }
        page[(day * 100 + number) % 8_000..][..100].copy_from_slice(&noise((day * 1000 + number) as u64, 100));
    }
}

/// Backups of so many days, each the parent of the next, with the files of each.
pub async fn days(appliance: &Appliance, count: usize) -> Vec<(BackupRecord, Files)> {
    let mut files = pages();
    let mut days = vec![(appliance.back_up(&files).await.unwrap(), files.clone())];
    for day in 1..count {
        change(&mut files, day);
        let parent = days.last().map(|(record, _)| record);
        days.push((appliance.back_up_after(parent, &files).await.unwrap(), files.clone()));
    }
    days
}

#[test]
fn scattered_changes_are_stored_as_deltas() {
    run(async {
        let appliance = Appliance::new().await;
        let days = days(&appliance, 15).await;
        let first = days[0].0.stored_bytes;
        for (record, files) in &days {
            assert!(appliance.holds(record, files).await.unwrap());
        }
        let restarted = appliance.restarted().await;
        assert!(restarted.holds(&days[14].0, &days[14].1).await.unwrap());
        let later: u64 = days[1..].iter().map(|(record, _)| record.stored_bytes).sum();
        assert!(later / 14 < first / 15, "{} a day after {first}", later / 14);
    });
}

#[test]
fn entries_that_grow_shrink_come_and_go_are_stored() {
    run(async {
        let appliance = Appliance::new().await;
        let mut files = pages();
        let mut parent = appliance.back_up(&files).await.unwrap();
        for (length, page) in [(3 * CHUNK + 1, 8192), (50 * CHUNK, 8192), (CHUNK - 8192, 8192), (5 * CHUNK, 4096)] {
            let (class, bytes) = files.get_mut("base/1").unwrap();
            *class = ContentClass::Pages(page);
            bytes.resize(length, 7);
            bytes[10] ^= 1;
            let name = format!("base/new {length}");
            files.insert(name, (ContentClass::Pages(8192), noise(length as u64, 100_000)));
            files.remove("base/2");
            parent = appliance.back_up_after(Some(&parent), &files).await.unwrap();
            assert!(appliance.holds(&parent, &files).await.unwrap());
        }
    });
}

#[test]
fn a_parent_that_is_gone_or_damaged_costs_its_deltas_only() {
    run(async {
        let appliance = Appliance::new().await;
        let mut files = pages();
        let parent = appliance.back_up(&files).await.unwrap();
        change(&mut files, 1);
        let lost = appliance.copy().await;
        for path in lost.storage.paths("manifest") {
            lost.storage.change(&path, |bytes| bytes[100] ^= 1);
        }
        let next = lost.back_up_after(Some(&parent), &files).await.unwrap();
        assert!(next.stored_bytes > parent.stored_bytes / 2 && lost.holds(&next, &files).await.unwrap());
        // No chunk of the parent opens: what changed is whole, what did not is lost.
        let damaged = appliance.copy().await;
        for path in damaged.storage.paths("packs/") {
            damaged.storage.change(&path, |bytes| bytes.iter_mut().step_by(5_000).for_each(|byte| *byte ^= 1));
        }
        let next = damaged.back_up_after(Some(&parent), &files).await.unwrap();
        assert!(next.stored_bytes > parent.stored_bytes / 2);
        let reader = damaged.reader(&next).await;
        let changed = read(&reader, "base/1", CHUNK as u64, Some(2 * CHUNK as u64)).await.unwrap();
        assert!(changed == files["base/1"].1[CHUNK..3 * CHUNK]);
        appliance.repository.remove_backup(appliance.domain, parent.backup, 1).await.unwrap();
        let next = appliance.back_up_after(Some(&parent), &files).await.unwrap();
        assert!(appliance.holds(&next, &files).await.unwrap());
    });
}

#[test]
fn a_delta_that_outlived_its_base_hides_no_other_copy() {
    run(async {
        let here = Appliance::new().await;
        let prune = async || {
            let now = PruneOptions { now: true, ..PruneOptions::default() };
            here.repository.prune(here.domain, now, &|_, _, _| {}).await.unwrap()
        };
        let class = ContentClass::Pages(8192);
        let version = |number: u64| {
            let mut bytes = noise(1, CHUNK);
            bytes[..100].copy_from_slice(&noise(number, 100));
            (class, bytes)
        };
        let with = |number| {
            let lasting = ("base/2".to_owned(), (class, noise(2, 10 * CHUNK)));
            Files::from([("base/1".to_owned(), version(number)), lasting])
        };
        // The second version is a delta to the first, in a pack of which most lives on.
        let first = here.back_up(&Files::from([("base/1".to_owned(), version(10))])).await.unwrap();
        let second = here.back_up_after(Some(&first), &with(20)).await.unwrap();
        let third = here.back_up(&with(30)).await.unwrap();
        for gone in [&first, &second] {
            here.repository.remove_backup(here.domain, gone.backup, 1).await.unwrap();
        }
        assert!(prune().await.deleted.objects > 0);
        // It comes back, as a delta to the third.
        let fourth = here.back_up_after(Some(&third), &with(20)).await.unwrap();
        assert!(fourth.stored_bytes < CHUNK as u64 / 2);
        assert!(here.holds(&fourth, &with(20)).await.unwrap());
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        there.repository.copy_backup(&here.repository, here.domain, fourth.backup, &|_, _| {}).await.unwrap();
        assert!(there.holds(&fourth, &with(20)).await.unwrap());
        for _ in 0..2 {
            prune().await;
            assert!(here.restarted().await.holds(&fourth, &with(20)).await.unwrap());
        }
    });
}

#[test]
fn a_copy_brings_along_what_its_chunks_stand_on_at_the_source_whatever_its_refs_say() {
    run(async {
        let here = Appliance::new().await;
        let mut files = pages();
        let first = here.back_up(&files).await.unwrap();
        change(&mut files, 1);
        // Two writers side by side store the same chunks, one of them whole.
        let whole = here.begin().await.unwrap();
        for (path, (class, bytes)) in &files {
            let mut entry = whole.begin_entry(file(path), *class).await.unwrap();
            entry.write(bytes).await.unwrap();
            entry.finish().await.unwrap();
        }
        let deltas = here.back_up_after(Some(&first), &files).await.unwrap();
        let vault = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let copy = async |from: &Appliance, to: &Appliance, record: &BackupRecord| {
            to.repository.copy_backup(&from.repository, from.domain, record.backup, &|_, _| {}).await.unwrap();
        };
        copy(&here, &vault, &deltas).await;
        let whole = whole.commit(record("whole"), "{}".into()).await.unwrap();
        // There its chunks are deltas, of which its refs know nothing.
        copy(&here, &vault, &whole).await;
        assert_eq!(damages(&vault.repository, vault.domain).await, []);
        vault.repository.remove_backup(vault.domain, deltas.backup, 1).await.unwrap();
        vault.repository.prune(vault.domain, PruneOptions::default(), &|_, _, _| {}).await.unwrap();
        let third = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        copy(&vault, &third, &whole).await;
        for place in [&vault, &third] {
            let again = place.restarted().await;
            assert!(again.holds(&whole, &files).await.unwrap());
            assert_eq!(damages(&again.repository, again.domain).await, []);
        }
    });
}

#[test]
fn a_copy_brings_the_bases_along_and_heads_say_that_there_are_deltas() {
    run(async {
        let appliance = Appliance::new().await;
        let days = days(&appliance, 8).await;
        let vault = Memory::new();
        let there = Repository::open_or_create(vault.clone(), appliance.keyring.clone()).await.unwrap();
        // The last one alone, then one in the middle.
        for number in [7, 4] {
            let (record, files) = &days[number];
            there.copy_backup(&appliance.repository, appliance.domain, record.backup, &|_, _| {}).await.unwrap();
            let other = Appliance::at(vault.clone(), appliance.keyring.clone()).await.unwrap();
            assert!(other.holds(record, files).await.unwrap());
            let structure = there.check_structure(appliance.domain, &|_, _| {}).await.unwrap();
            assert_eq!((structure.damages, structure.backups), (vec![], if number == 7 { 1 } else { 2 }));
        }
        // The clear part of a head is a map that begins with field 1; field 6 is the features.
        for (storage, heads) in [(&appliance.storage, [0, 3, 3, 3, 3, 3, 3, 3].as_slice()), (&vault, &[3, 3])] {
            let features: Vec<u8> = storage.paths("heads/").iter().map(|path| features(storage, path)).collect();
            assert_eq!(features, heads);
        }
    });
}

/// The incompatible features of a head, which are below 24: the byte behind the key 6, which the time of writing, 9 bytes, comes before.
fn features(storage: &Memory, path: &str) -> u8 {
    let bytes = storage.objects.lock().unwrap()[path].clone();
    let time = bytes.windows(2).position(|two| two == [0x05, 0x1b]).unwrap();
    assert_eq!(bytes[time + 10], 6);
    bytes[time + 11]
}

#[test]
fn what_is_lost_with_a_base_is_said() {
    run(async {
        let appliance = Appliance::new().await;
        let days = days(&appliance, 2).await;
        let packs: BTreeSet<String> = appliance.storage.paths("packs/").into_iter().collect();
        let mut losses_of = Vec::new();
        for path in packs {
            let other = appliance.copy().await;
            other.storage.change(&path, |bytes| bytes[5_000] ^= 1);
            let read = other.repository.read_packs(other.domain, None, u64::MAX, None, &|_| {}).await.unwrap();
            assert_eq!(read.damages.len(), 1);
            let losses = other.repository.losses(other.domain, &read.damages).await.unwrap();
            let backups: BTreeSet<_> = losses.iter().map(|loss| loss.backup).collect();
            losses_of.push(backups.len());
            for loss in &losses {
                let files = &days.iter().find(|(record, _)| record.backup == loss.backup).unwrap().1;
                let entry = loss.entry.as_ref().unwrap();
                assert!(loss.start < loss.end && loss.end <= files[entry].1.len() as u64);
            }
        }
        losses_of.sort_unstable();
        assert_eq!(losses_of, [1, 2], "a damaged delta touches the second backup, a damaged base both");
    });
}

#[test]
fn a_writer_cut_off_at_any_operation_leaves_all_that_there_was() {
    run(async {
        let appliance = Appliance::new().await;
        let mut files = pages();
        let first = appliance.back_up(&files).await.unwrap();
        let before = files.clone();
        change(&mut files, 1);
        for operations in 0.. {
            let other = appliance.copy().await;
            other.storage.cut_off_after(operations, operations % 2 == 0);
            let second = other.back_up_after(Some(&first), &files).await;
            let was_cut = other.storage.mend();
            let again = other.restarted().await;
            assert!(again.holds(&first, &before).await.unwrap(), "cut after {operations}");
            if let Ok(second) = second {
                assert!(again.holds(&second, &files).await.unwrap(), "cut after {operations}");
            } else {
                assert!(was_cut);
            }
            if !was_cut {
                break;
            }
        }
    });
}
