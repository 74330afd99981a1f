//! Rotation and shredding: new slots reach every backup at every target, and what is destroyed is destroyed.

use holdfast_repository::{ContentClass, Error, Keyring, RecoveryKit, Repository, SharedKeyring, recover_keyring};

use crate::memory::Memory;
use crate::setting::{Appliance, Files, files, noise, run};

/// One small file.
fn tiny(seed: u64) -> Files {
    [("f".to_owned(), (ContentClass::Bytes, noise(seed, 600)))].into()
}

/// A kit and a keyring that it opens.
fn kit_and_keyring() -> (RecoveryKit, Keyring) {
    let mut kit = RecoveryKit::generate();
    let keyring = Keyring::generate().with_domain("acme").with_recipient("alice", &kit.recipient(), 1).unwrap();
    kit.pin(keyring.repository(), keyring.verify_key(), Vec::new());
    (kit, keyring)
}

fn rotate(appliance: &Appliance) {
    let keyring = appliance.keyring.current();
    appliance.keyring.replace(keyring.with_new_organization_keys(&keyring.domains()));
}

/// What a keyring of before makes of the place.
async fn error_of_former(appliance: &Appliance, former: Keyring) -> Error {
    Repository::open_read_only(appliance.storage.copy(), SharedKeyring::new(former)).await.unwrap_err()
}

#[test]
fn a_rotation_rewraps_every_backup_and_former_keyrings_are_refused() {
    run(async {
        let (kit, keyring) = kit_and_keyring();
        let here = Appliance::with(keyring).await;
        let mut records = Vec::new();
        for seed in 0..5 {
            records.push(here.back_up(&tiny(seed)).await.unwrap());
        }
        let copied = here.storage.copy();
        rotate(&here);
        let heads = here.storage.paths("/heads/").len();
        let seen = here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap();
        assert_eq!((seen.backups, seen.rewrapped), (5, 5));
        assert!(seen.unreadable.is_empty() && seen.kept.is_empty());
        assert_eq!(here.storage.paths("/heads/").len(), heads + 1, "many slots go into one head");
        assert!(here.storage.paths("/keys.").iter().all(|path| path.ends_with("/keys.2")));
        assert_eq!(here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap().rewrapped, 0);
        assert_eq!(here.repository.retire_former_keyrings().await.unwrap(), Vec::<String>::new());
        assert_eq!(here.storage.paths("keyring/"), ["keyring/4.age", "keyring/4.sig"]);

        let again = here.restarted().await;
        for (seed, record) in records.iter().enumerate() {
            assert!(again.holds(record, &tiny(seed as u64)).await.unwrap());
        }
        let recovered = recover_keyring(here.storage.clone(), &kit, false).await.unwrap();
        assert_eq!(recovered.generation(), 4);
        // Whoever kept a keyring of before, or brings it back, opens nothing that came after it.
        let former = recover_keyring(copied.clone(), &kit, false).await.unwrap();
        assert_eq!(error_of_former(&here, former).await.code(), "older-keyring");
    });
}

#[test]
fn a_rotation_may_be_killed_at_any_operation_and_run_again() {
    run(async {
        let here = Appliance::new().await;
        let records = [here.back_up(&tiny(1)).await.unwrap(), here.back_up(&tiny(2)).await.unwrap()];
        rotate(&here);
        for operations in 0.. {
            let there = Appliance::at(here.storage.copy(), here.keyring.clone()).await.unwrap();
            there.storage.cut_off_after(operations, operations % 2 == 0);
            let result = there.repository.rewrap(there.domain, None, &|_, _| {}).await;
            let was_cut_off = there.storage.mend();
            let again = there.restarted().await;
            for (seed, record) in (1..).zip(&records) {
                assert!(again.holds(record, &tiny(seed)).await.unwrap(), "{operations}");
            }
            again.repository.rewrap(again.domain, None, &|_, _| {}).await.unwrap();
            assert_eq!(again.storage.paths("/keys.").len(), 2, "{operations}");
            assert_eq!(again.repository.rewrap(again.domain, None, &|_, _| {}).await.unwrap().rewrapped, 0);
            for (seed, record) in (1..).zip(&records) {
                assert!(again.holds(record, &tiny(seed)).await.unwrap(), "{operations}");
            }
            if !was_cut_off {
                result.unwrap();
                break;
            }
        }
    });
}

#[test]
fn a_second_target_takes_the_same_slots_and_makes_its_own_for_the_rest() {
    run(async {
        let here = Appliance::new().await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let shared = here.back_up(&tiny(1)).await.unwrap();
        there.repository.copy_backup(&here.repository, here.domain, shared.backup, &|_, _| {}).await.unwrap();
        let only_there = there.back_up(&tiny(2)).await.unwrap();
        rotate(&here);
        here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap();
        let seen = there.repository.rewrap(there.domain, Some(&here.repository), &|_, _| {}).await.unwrap();
        assert_eq!((seen.backups, seen.rewrapped), (2, 2));
        let path = here.storage.paths("/keys.2").remove(0);
        let slots = |appliance: &Appliance| appliance.storage.objects.lock().unwrap()[&path].clone();
        assert_eq!(slots(&here), slots(&there));
        assert!(there.holds(&shared, &tiny(1)).await.unwrap() && there.holds(&only_there, &tiny(2)).await.unwrap());
    });
}

#[test]
fn two_who_rewrap_at_once_leave_slots_that_open() {
    run(async {
        let here = Appliance::new().await;
        let record = here.back_up(&files(1)).await.unwrap();
        let other = here.restarted().await;
        rotate(&here);
        let progress = |_, _| {};
        let (first, second) = tokio::join!(
            here.repository.rewrap(here.domain, None, &progress),
            other.repository.rewrap(other.domain, None, &progress)
        );
        assert!(first.unwrap().rewrapped + second.unwrap().rewrapped >= 1);
        assert!(here.restarted().await.holds(&record, &files(1)).await.unwrap());
        assert_eq!(here.storage.paths("/keys.").len(), 1);
    });
}

#[test]
fn no_backup_slips_past_a_rotation_with_former_slots() {
    run(async {
        let here = Appliance::new().await;
        for moment in 0..60_u64 {
            let rotating = async {
                for _ in 0..moment {
                    tokio::task::yield_now().await;
                }
                rotate(&here);
                here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap();
            };
            let contents = tiny(moment);
            let (record, ()) = tokio::join!(here.back_up(&contents), rotating);
            assert!(here.holds(&record.unwrap(), &contents).await.unwrap());
            // Whichever was first: nothing is left for another round.
            let seen = here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap();
            assert_eq!((seen.backups, seen.rewrapped), (moment + 1, 0), "{moment}");
        }
    });
}

#[test]
fn damaged_slots_do_not_keep_the_others_from_rotation() {
    run(async {
        let here = Appliance::new().await;
        let spoilt = here.back_up(&tiny(1)).await.unwrap();
        let sound = here.back_up(&tiny(2)).await.unwrap();
        let path = here.storage.paths(&format!("{}/keys.", spoilt.backup)).remove(0);
        here.storage.change(&path, |bytes| bytes[40] ^= 1);
        rotate(&here);
        let seen = here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap();
        assert_eq!((seen.rewrapped, seen.unreadable.len()), (1, 1));
        assert!(seen.unreadable[0].contains(&spoilt.backup.to_string()));
        assert!(here.holds(&sound, &tiny(2)).await.unwrap());
    });
}

#[test]
fn an_old_kit_leads_to_a_new_signing_key() {
    run(async {
        let (kit, keyring) = kit_and_keyring();
        let here = Appliance::with(keyring).await;
        let before = here.back_up(&tiny(1)).await.unwrap();
        here.keyring.replace(here.keyring.current().with_new_signing_key());
        let after = here.back_up(&tiny(2)).await.unwrap();
        let recovered = recover_keyring(here.storage.clone(), &kit, false).await.unwrap();
        assert_ne!(Some(recovered.verify_key()), kit.verify_key());
        let reborn = Appliance::at(here.storage.copy(), SharedKeyring::new(recovered)).await.unwrap();
        assert!(reborn.holds(&before, &tiny(1)).await.unwrap() && reborn.holds(&after, &tiny(2)).await.unwrap());
    });
}

#[test]
fn a_shredded_backup_has_no_slot_left_and_the_others_stay() {
    run(async {
        let here = Appliance::new().await;
        let shredded = here.back_up(&files(1)).await.unwrap();
        let mut half = files(1);
        half.retain(|path, _| path.starts_with("base/"));
        let other = here.back_up(&half).await.unwrap();
        let overlap = here.repository.overlap(here.domain, shredded.backup).await.unwrap();
        assert!(overlap.shared > 0 && overlap.shared < overlap.chunks, "{overlap:?}");
        for operations in 0.. {
            let there = Appliance::at(here.storage.copy(), here.keyring.clone()).await.unwrap();
            there.storage.cut_off_after(operations, operations % 2 == 0);
            let result = there.repository.shred_backup(there.domain, shredded.backup, 9).await;
            let was_cut_off = there.storage.mend();
            let again = there.restarted().await;
            assert_eq!(
                again.repository.shred_backup(again.domain, shredded.backup, 9).await.unwrap(),
                Vec::<String>::new()
            );
            assert!(again.storage.paths(&format!("{}/keys.", shredded.backup)).is_empty());
            assert_eq!(again.repository.backups(again.domain).await.unwrap().len(), 1);
            assert!(again.holds(&other, &half).await.unwrap());
            if !was_cut_off {
                result.unwrap();
                break;
            }
        }
    });
}

#[test]
fn a_destroyed_domain_leaves_nothing_and_a_living_one_is_refused() {
    run(async {
        let (kit, keyring) = kit_and_keyring();
        let here = Appliance::with(keyring.with_domain("other")).await;
        let kept = here.back_up(&tiny(1)).await.unwrap();
        let doomed = here.keyring.current().domain_of("other").unwrap();
        let other =
            Appliance { domain: doomed, ..Appliance::at(here.storage.clone(), here.keyring.clone()).await.unwrap() };
        other.back_up(&tiny(2)).await.unwrap();
        assert_eq!(here.repository.erase_domain(doomed, &|_, _| {}).await.unwrap_err().code(), "domain-alive");
        let former = recover_keyring(here.storage.clone(), &kit, false).await.unwrap();

        here.keyring.replace(here.keyring.current().without_domain(doomed));
        here.repository.retire_former_keyrings().await.unwrap();
        assert_eq!(here.repository.erase_domain(doomed, &|_, _| {}).await.unwrap(), Vec::<String>::new());
        assert!(here.storage.paths(&doomed.to_string()).is_empty());
        assert_eq!(here.storage.paths("keyring/").len(), 2);
        assert!(recover_keyring(here.storage.clone(), &kit, false).await.unwrap().domain_of("other").is_none());
        assert_eq!(error_of_former(&here, former).await.code(), "older-keyring");
        assert!(here.restarted().await.holds(&kept, &tiny(1)).await.unwrap());
    });
}

#[test]
fn a_tenant_opens_its_own_backups_and_nothing_else() {
    run(async {
        let (_, keyring) = kit_and_keyring();
        let here = Appliance::with(keyring.with_domain("other")).await;
        let before = here.back_up(&files(1)).await.unwrap();
        let other = here.keyring.current().domain_of("other").unwrap();
        let foreign = Appliance { domain: other, ..here.restarted().await };
        foreign.back_up(&tiny(2)).await.unwrap();

        let mut kit = RecoveryKit::generate();
        kit.pin(here.keyring.current().repository(), here.keyring.current().verify_key(), Vec::new());
        assert_eq!(recover_keyring(here.storage.clone(), &kit, false).await.unwrap_err().code(), "wrong-identity");
        let next = here.keyring.current().with_tenant(here.domain, "customer", &kit.recipient(), 5).unwrap();
        assert_eq!(next.with_tenant(here.domain, "customer", &kit.recipient(), 5).unwrap_err().code(), "name-in-use");
        here.keyring.replace(next);
        assert_eq!(here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap().rewrapped, 1);
        assert_eq!(here.repository.rewrap(other, None, &|_, _| {}).await.unwrap().rewrapped, 0);
        let after = here.back_up(&tiny(3)).await.unwrap();

        let opened = recover_keyring(here.storage.clone(), &kit, false).await.unwrap();
        assert!(opened.is_tenants() && opened.domains() == [here.domain]);
        let keyring = SharedKeyring::new(opened);
        let repository = Repository::open_read_only(here.storage.copy(), keyring.clone()).await.unwrap();
        let (storage, domain) = (here.storage.copy(), here.domain);
        let tenant = Appliance { storage, keyring, repository, domain, writer: here.writer };
        assert!(tenant.holds(&before, &files(1)).await.unwrap() && tenant.holds(&after, &tiny(3)).await.unwrap());
        assert!(tenant.repository.backups(other).await.is_err());

        // Removed, it finds no slot any more, neither in what exists nor in what comes.
        let next = here.keyring.current().without_tenant(here.domain, "customer").unwrap();
        assert_eq!(next.without_tenant(here.domain, "customer").unwrap_err().code(), "no-such-recipient");
        here.keyring.replace(next);
        assert_eq!(here.repository.rewrap(here.domain, None, &|_, _| {}).await.unwrap().rewrapped, 2);
        here.back_up(&tiny(4)).await.unwrap();
        assert_eq!(recover_keyring(here.storage.clone(), &kit, false).await.unwrap_err().code(), "wrong-identity");
    });
}
