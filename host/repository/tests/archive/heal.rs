//! Healing: whatever is damaged at one of two targets comes back, whole or chunk by chunk, in both directions; what is damaged at both
//! is lost to the backups that it touches and to nobody else.

use std::slice::from_ref;

use holdfast_repository::{
    BackupRecord, ContentClass, Damage, GRACE_MS, Healed, Keyring, Loss, PruneOptions, RecoveryKit,
};

use crate::check::damages;
use crate::deltas::days;
use crate::memory::Memory;
use crate::setting::{Appliance, CHUNK, Files, files, noise, run};

impl Appliance {
    /// Another target of the same repository that holds these backups.
    pub async fn vault(&self, backups: &[&BackupRecord]) -> Self {
        let vault = Self::at(Memory::new(), self.keyring.clone()).await.unwrap();
        for backup in backups {
            vault.repository.copy_backup(&self.repository, self.domain, backup.backup, &|_, _| ()).await.unwrap();
        }
        vault
    }

    /// Checks everything, and heals it from another target.
    async fn heal_from(&self, source: &Self) -> Healed {
        let root = self.repository.check_root().await.unwrap();
        self.repository.heal_root(&root).await.unwrap();
        let found = damages(self).await;
        self.repository.heal(self.domain, from_ref(&source.repository), found).await.unwrap()
    }

    async fn must_be_whole(&self, backups: &[(BackupRecord, Files)]) {
        let again = self.restarted().await;
        assert_eq!(again.repository.check_root().await.unwrap(), []);
        assert_eq!(damages(&again).await, []);
        for (record, files) in backups {
            assert!(again.holds(record, files).await.unwrap());
        }
    }

    /// Forgets a backup, and lets all go that it alone needed.
    async fn forget(&self, record: &BackupRecord) {
        self.repository.remove_backup(self.domain, record.backup, self.storage.now_ms()).await.unwrap();
        for _ in 0..2 {
            self.repository.prune(self.domain, PruneOptions::default(), &|_, _, _| ()).await.unwrap();
            self.storage.wait(GRACE_MS);
        }
    }

    async fn losses(&self) -> Vec<Loss> {
        let found = damages(self).await;
        self.repository.losses(self.domain, &found).await.unwrap()
    }

    /// Changes one bit of an object.
    fn flip(&self, path: &str, position: usize) {
        self.storage.change(path, |bytes| bytes[position] ^= 1);
    }
}

fn large(seed: u64, chunks: usize) -> Files {
    Files::from([("large".to_owned(), (ContentClass::Pages(8192), noise(seed, chunks * CHUNK)))])
}

#[test]
fn every_kind_of_damage_at_one_of_two_targets_is_healed() {
    run(async {
        let kit = RecoveryKit::generate();
        let keyring = Keyring::generate().with_domain("acme").with_recipient("alice", &kit.recipient(), 1).unwrap();
        let here = Appliance::with(keyring).await;
        let mut backups = Vec::new();
        for seed in [1, 9] {
            backups.push((here.back_up(&files(seed)).await.unwrap(), files(seed)));
        }
        let there = here.vault(&[&backups[0].0, &backups[1].0]).await;
        for (hurt, whole) in [(&here, &there), (&there, &here)] {
            assert!(hurt.repository.copy_heads(hurt.domain).await.unwrap() > 0);
            let mut paths = hurt.storage.paths("domains/");
            paths.extend(["plugins/", "keyring/", "repository.json"].iter().flat_map(|part| hurt.storage.paths(part)));
            for kind in ["/packs/", "/indexes/", "/refs.", "/manifest", "/keys.", "/heads/", "/twins/", ".age", ".sig"]
            {
                assert!(paths.iter().any(|path| path.contains(kind)), "{kind}");
            }
            for path in paths {
                for damage in ["flip", "truncate", "lose"] {
                    let good = hurt.storage.objects.lock().unwrap()[&path].clone();
                    match damage {
                        "flip" => hurt.flip(&path, good.len() / 2),
                        "truncate" => hurt.storage.change(&path, |bytes| bytes.truncate(bytes.len() / 2)),
                        _ => drop(hurt.storage.objects.lock().unwrap().remove(&path)),
                    }
                    let healed = hurt.heal_from(whole).await;
                    assert_eq!(healed.left, [], "{damage} {path}");
                    hurt.repository.copy_heads(hurt.domain).await.unwrap();
                    let found = hurt.storage.objects.lock().unwrap()[&path].clone();
                    assert!(found == good || path.starts_with("keyring/"), "{damage} {path}: {healed:?}");
                }
            }
            hurt.must_be_whole(&backups).await;
        }
    });
}

#[test]
fn a_head_that_is_damaged_costs_no_restart() {
    run(async {
        let appliance = Appliance::new().await;
        let mut backups = Vec::new();
        for seed in [1, 2, 3] {
            backups.push((appliance.back_up(&files(seed)).await.unwrap(), files(seed)));
        }
        assert_eq!(appliance.storage.paths("/twins/").len(), 0, "a commit is one head");
        assert_eq!(appliance.repository.copy_heads(appliance.domain).await.unwrap(), 3);
        assert_eq!(appliance.repository.copy_heads(appliance.domain).await.unwrap(), 0);
        for head in appliance.storage.paths("/heads/") {
            for is_gone in [true, false] {
                let hurt = Appliance::at(appliance.storage.copy(), appliance.keyring.clone()).await.unwrap();
                match is_gone {
                    true => drop(hurt.storage.objects.lock().unwrap().remove(&head)),
                    false => hurt.flip(&head, 40),
                }
                let again = hurt.restarted().await;
                assert_eq!(again.repository.backups(again.domain).await.unwrap().len(), 3);
                again.repository.newest_heads().await.unwrap();
                let next = again.back_up(&files(4)).await.unwrap();
                assert!(again.holds(&next, &files(4)).await.unwrap());
                assert_eq!(again.heal_from(&appliance).await.paths, from_ref(&head));
                again.must_be_whole(&backups).await;
            }
        }
    });
}

#[test]
fn a_new_head_gets_its_second_copy_without_a_look_at_those_before_it() {
    run(async {
        let appliance = Appliance::new().await;
        let (repository, storage) = (&appliance.repository, &appliance.storage);
        for seed in [1, 2, 3] {
            appliance.back_up(&files(seed)).await.unwrap();
        }
        assert_eq!(repository.copy_new_heads().await.unwrap(), 3);
        appliance.back_up(&files(4)).await.unwrap();
        let before = storage.operations();
        assert_eq!(repository.copy_new_heads().await.unwrap(), 1);
        // The reserve is there, the head is read, its copy is written.
        assert_eq!(storage.operations() - before, 3);
        assert_eq!(repository.copy_heads(appliance.domain).await.unwrap(), 0, "all of them have one");
        for head in storage.paths("/heads/") {
            let objects = storage.objects.lock().unwrap();
            assert_eq!(objects[&head], objects[&head.replace("/heads/", "/twins/")]);
        }
    });
}

#[test]
fn a_second_copy_that_fails_is_left_to_the_scrub() {
    run(async {
        let appliance = Appliance::new().await;
        let (repository, storage) = (&appliance.repository, &appliance.storage);
        appliance.back_up(&files(1)).await.unwrap();
        storage.cut_off_after(2, false);
        repository.copy_new_heads().await.unwrap_err();
        assert!(storage.mend());
        appliance.back_up(&files(2)).await.unwrap();
        storage.objects.lock().unwrap().remove("reserve");
        assert_eq!(repository.copy_new_heads().await.unwrap(), 0, "what room there is is for deleting");
        assert_eq!(storage.paths("/twins/").len(), 0);
        assert_eq!(repository.copy_heads(appliance.domain).await.unwrap(), 2);
    });
}

#[test]
fn what_a_target_repacked_heals_another_chunk_by_chunk() {
    run(async {
        let here = Appliance::new().await;
        let mut both = files(1);
        both.extend(large(2, 64));
        let first = here.back_up(&both).await.unwrap();
        let second = (here.back_up(&files(1)).await.unwrap(), files(1));
        let there = here.vault(&[&first, &second.0]).await;
        there.forget(&first).await;
        here.repository.remove_backup(here.domain, first.backup, here.storage.now_ms()).await.unwrap();
        let packs = here.storage.paths("/packs/");
        assert!(packs.iter().any(|pack| !there.storage.paths("/packs/").contains(pack)), "nothing was repacked");
        for pack in &packs {
            here.storage.objects.lock().unwrap().remove(pack);
        }
        let healed = here.heal_from(&there).await;
        assert!(healed.mended.chunks > 0 && healed.mended.lost == 0, "{healed:?}");
        here.must_be_whole(from_ref(&second)).await;
        // The damaged packs go the way of all that is dead.
        here.storage.wait(GRACE_MS);
        here.repository.prune(here.domain, PruneOptions::default(), &|_, _, _| ()).await.unwrap();
        here.must_be_whole(from_ref(&second)).await;
        // And back: what was mended here heals there.
        for pack in there.storage.paths("/packs/") {
            there.flip(&pack, 100);
        }
        assert_eq!(there.heal_from(&here).await.mended.lost, 0);
        there.must_be_whole(from_ref(&second)).await;
    });
}

#[test]
fn deltas_are_healed_together_with_their_bases() {
    run(async {
        let here = Appliance::new().await;
        let days = days(&here, 6).await;
        let records: Vec<&BackupRecord> = days.iter().map(|(record, _)| record).collect();
        let there = here.vault(&records).await;
        // The other target keeps fewer of them, and moved what is left.
        for (record, _) in &days[..2] {
            there.forget(record).await;
            here.repository.remove_backup(here.domain, record.backup, here.storage.now_ms()).await.unwrap();
        }
        for pack in here.storage.paths("/packs/") {
            let hurt = Appliance::at(here.storage.copy(), here.keyring.clone()).await.unwrap();
            hurt.storage.objects.lock().unwrap().remove(&pack);
            let healed = hurt.heal_from(&there).await;
            assert_eq!((healed.mended.lost, healed.left), (0, vec![]), "{pack}");
            hurt.must_be_whole(&days[2..]).await;
        }
        // All of them at once.
        for pack in here.storage.paths("/packs/") {
            here.flip(&pack, 200);
        }
        for index in here.storage.paths("/indexes/") {
            here.storage.objects.lock().unwrap().remove(&index);
        }
        assert_eq!(here.heal_from(&there).await.mended.lost, 0);
        here.must_be_whole(&days[2..]).await;
    });
}

#[test]
fn damage_at_both_targets_in_different_chunks_is_healed_from_each_other() {
    run(async {
        let here = Appliance::new().await;
        let backup = (here.back_up(&large(1, 40)).await.unwrap(), large(1, 40));
        let there = here.vault(&[&backup.0]).await;
        let pack = here.storage.paths("/packs/").remove(0);
        let length = here.storage.objects.lock().unwrap()[&pack].len();
        here.flip(&pack, length / 4);
        there.flip(&pack, length / 2);
        let healed = here.heal_from(&there).await;
        assert_eq!((healed.mended.packs, healed.mended.lost, healed.left), (1, 0, vec![]));
        here.must_be_whole(from_ref(&backup)).await;
        assert_eq!(there.heal_from(&here).await.mended.lost, 0);
        there.must_be_whole(from_ref(&backup)).await;
    });
}

#[test]
fn damage_of_one_chunk_at_both_targets_is_lost_to_the_backups_that_hold_it_alone() {
    run(async {
        let here = Appliance::new().await;
        let (mut touched, untouched) = (large(1, 40), large(2, 40));
        let hit = (here.back_up(&touched).await.unwrap(), touched.clone());
        let spared = (here.back_up(&untouched).await.unwrap(), untouched);
        touched.insert("more".into(), (ContentClass::Bytes, noise(3, 5_000)));
        let shares = (here.back_up(&touched).await.unwrap(), touched);
        let there = here.vault(&[&hit.0, &spared.0, &shares.0]).await;
        let pack = largest_pack_of(&here, &hit.0).await;
        for place in [&here, &there] {
            place.flip(&pack, 20 * CHUNK);
        }
        for (place, other) in [(&here, &there), (&there, &here)] {
            let healed = place.heal_from(other).await;
            assert_eq!((healed.mended.lost, healed.left), (1, vec![]));
            let losses = place.losses().await;
            let mut backups: Vec<_> = losses.iter().map(|loss| loss.backup).collect();
            backups.sort_unstable();
            let mut expected = [hit.0.backup, shares.0.backup];
            expected.sort_unstable();
            assert_eq!(backups, expected);
            for loss in losses {
                assert_eq!((loss.entry.as_deref(), loss.end - loss.start), (Some("large"), CHUNK as u64));
            }
            assert!(place.holds(&spared.0, &spared.1).await.unwrap());
            assert!(place.holds(&hit.0, &hit.1).await.is_err());
        }
        // Nobody relies on what is lost: the next backup that holds it stores it anew, and then nothing is lost any more.
        let next = (here.back_up(&hit.1).await.unwrap(), hit.1.clone());
        assert_eq!(here.losses().await, []);
        here.must_be_whole(&[hit.clone(), spared.clone(), shares.clone(), next]).await;
        assert_eq!(there.heal_from(&here).await.mended.lost, 0);
        there.must_be_whole(&[hit, spared, shares]).await;
    });
}

/// The pack that holds most of a backup's bytes, of those that the first backup brought.
async fn largest_pack_of(appliance: &Appliance, record: &BackupRecord) -> String {
    let alone = appliance.vault(&[record]).await;
    let packs = alone.storage.paths("/packs/");
    let length = |path: &&String| alone.storage.objects.lock().unwrap()[*path].len();
    packs.iter().max_by_key(length).unwrap().clone()
}

#[test]
fn a_pack_with_one_flipped_bit_loses_one_chunk_where_there_is_no_other_target() {
    run(async {
        let appliance = Appliance::new().await;
        let backup = appliance.back_up(&large(1, 60)).await.unwrap();
        let pack = appliance.storage.paths("/packs/").remove(0);
        appliance.flip(&pack, 10 * CHUNK);
        let found = damages(&appliance).await;
        let healed = appliance.repository.heal(appliance.domain, &[], found).await.unwrap();
        assert_eq!((healed.mended.packs, healed.mended.lost), (1, 1));
        assert!(healed.mended.chunks > 50);
        let losses = appliance.losses().await;
        assert_eq!((losses.len(), losses[0].end - losses[0].start), (1, CHUNK as u64));
        // A prune does not take what may still be looked into for what is lost.
        appliance.forget(&appliance.back_up(&files(3)).await.unwrap()).await;
        assert!(appliance.storage.paths("/packs/").contains(&pack));
        assert_eq!(appliance.losses().await, losses);
        appliance.repository.open_backup(appliance.domain, backup.backup).await.unwrap();
    });
}

#[test]
fn what_is_intact_nowhere_but_at_a_target_that_is_away_is_healed_when_it_is_back() {
    run(async {
        let here = Appliance::new().await;
        let backup = (here.back_up(&large(1, 40)).await.unwrap(), large(1, 40));
        let there = here.vault(&[&backup.0]).await;
        here.flip(&here.storage.paths("/packs/")[0], 5 * CHUNK);
        there.storage.cut_off_after(0, false);
        assert_eq!(here.heal_from(&there).await.mended.lost, 1);
        there.storage.mend();
        assert_eq!(here.losses().await.len(), 1);
        assert_eq!(here.heal_from(&there).await.mended.lost, 0);
        here.must_be_whole(from_ref(&backup)).await;
    });
}

#[test]
fn an_index_that_is_nowhere_else_is_made_again() {
    run(async {
        let appliance = Appliance::new().await;
        let mut backups = Vec::new();
        for seed in [1, 20] {
            backups.push((appliance.back_up(&files(seed)).await.unwrap(), files(seed)));
        }
        for index in appliance.storage.paths("/indexes/") {
            appliance.flip(&index, 30);
        }
        let hurt = appliance.restarted().await;
        let found = damages(&hurt).await;
        assert_eq!(hurt.repository.heal(hurt.domain, &[], found).await.unwrap().left, []);
        hurt.must_be_whole(&backups).await;
        let next = hurt.back_up(&files(1)).await.unwrap();
        assert!(next.stored_bytes < 50_000, "what is there is known again: {}", next.stored_bytes);
        let (gone, _) = backups.pop().unwrap();
        hurt.forget(&gone).await;
        hurt.must_be_whole(&backups).await;
        let there = hurt.vault(&[&backups[0].0]).await;
        there.must_be_whole(&backups).await;
    });
}

#[test]
fn refs_that_are_nowhere_are_made_again_from_the_trees() {
    run(async {
        let appliance = Appliance::new().await;
        let days = days(&appliance, 3).await;
        for refs in appliance.storage.paths("/refs.") {
            appliance.storage.objects.lock().unwrap().remove(&refs);
        }
        let found = damages(&appliance).await;
        assert_eq!(appliance.repository.heal(appliance.domain, &[], found).await.unwrap().left, []);
        appliance.must_be_whole(&days).await;
        assert_eq!(appliance.repository.compare_refs(appliance.domain, &|_, _| ()).await.unwrap(), []);
        appliance.forget(&days[0].0).await;
        appliance.must_be_whole(&days[1..]).await;
    });
}

#[test]
fn a_backup_that_is_lost_whole_stands_in_no_other_s_way() {
    run(async {
        let appliance = Appliance::new().await;
        let lost = appliance.back_up(&large(1, 4)).await.unwrap();
        let kept = (appliance.back_up(&large(2, 40)).await.unwrap(), large(2, 40));
        for path in appliance.storage.paths(&format!("/backups/{}/", lost.backup)) {
            appliance.storage.objects.lock().unwrap().remove(&path);
        }
        let there = Appliance::at(appliance.storage.copy(), appliance.keyring.clone()).await.unwrap();
        appliance.flip(&largest_pack_of(&there, &kept.0).await, 20 * CHUNK);
        let healed = appliance.heal_from(&there).await;
        assert!(healed.left.iter().all(|damage| damage.path.contains(&lost.backup.to_string())), "{healed:?}");
        let losses = appliance.losses().await;
        assert!(losses.iter().all(|loss| loss.backup == lost.backup && loss.entry.is_none()), "{losses:?}");
        assert!(appliance.holds(&kept.0, &kept.1).await.unwrap());
    });
}

#[test]
fn a_heal_may_be_killed_at_any_operation_and_run_again() {
    run(async {
        let whole = Appliance::new().await;
        let mut both = files(1);
        both.extend(large(2, 64));
        let first = whole.back_up(&both).await.unwrap();
        let second = (whole.back_up(&files(1)).await.unwrap(), files(1));
        let source = Appliance::at(whole.storage.copy(), whole.keyring.clone()).await.unwrap();
        source.forget(&first).await;
        whole.repository.remove_backup(whole.domain, first.backup, whole.storage.now_ms()).await.unwrap();
        let packs = whole.storage.paths("/packs/");
        assert!(packs.iter().any(|pack| !source.storage.paths("/packs/").contains(pack)), "nothing was repacked");
        packs.iter().for_each(|pack| whole.flip(pack, 100));
        for operations in (0..).step_by(3) {
            let hurt = Appliance::at(whole.storage.copy(), whole.keyring.clone()).await.unwrap();
            let found: Vec<Damage> = damages(&hurt).await;
            hurt.storage.cut_off_after(operations, operations % 2 == 0);
            let heal = hurt.repository.heal(hurt.domain, from_ref(&source.repository), found).await;
            let was_cut = hurt.storage.mend();
            assert!(heal.is_ok() || was_cut);
            let again = hurt.restarted().await;
            assert_eq!(again.heal_from(&source).await.mended.lost, 0);
            again.must_be_whole(from_ref(&second)).await;
            if !was_cut {
                break;
            }
        }
    });
}

#[test]
fn a_backup_that_runs_meanwhile_takes_what_was_mended_from_its_new_place() {
    run(async {
        let here = Appliance::new().await;
        let backup = (here.back_up(&large(1, 40)).await.unwrap(), large(1, 40));
        let there = here.vault(&[&backup.0]).await;
        let writer = here.begin().await.unwrap();
        let mut entry = writer.begin_entry(crate::setting::file("large"), ContentClass::Pages(8192)).await.unwrap();
        entry.write(&backup.1["large"].1).await.unwrap();
        entry.finish().await.unwrap();
        let pack = here.storage.paths("/packs/").remove(0);
        here.flip(&pack, 5 * CHUNK);
        there.storage.objects.lock().unwrap().remove(&pack);
        let healed = here.heal_from(&there).await;
        assert_eq!(healed.mended.packs, 1);
        // One chunk is gone for good, so the running backup must not be committed upon it; unless it can have all the others only.
        let committed = writer.commit(crate::setting::record("beside"), "{}".into()).await;
        assert_eq!(committed.unwrap_err().code(), "condemned-object");
        let next = (here.back_up(&backup.1).await.unwrap(), backup.1.clone());
        here.must_be_whole(&[backup, next]).await;
    });
}
