//! A copy at another target: complete in itself, sent once, and enough to be reborn from.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use holdfast_repository::{Keyring, RecoveryKit, Repository, SharedKeyring, Verification, recover_keyring};

use crate::memory::Memory;
use crate::setting::{Appliance, files, noise, run};

/// A kit and a keyring that it opens.
fn kit_and_keyring() -> (RecoveryKit, Keyring) {
    let mut kit = RecoveryKit::generate();
    let keyring = Keyring::generate().with_domain("acme").with_recipient("alice", &kit.recipient(), 1).unwrap();
    kit.pin(keyring.repository(), keyring.verify_key(), vec!["there memory:".into()]);
    (kit, keyring)
}

#[test]
fn a_copy_alone_and_a_kit_bring_everything_back() {
    run(async {
        let (kit, keyring) = kit_and_keyring();
        let here = Appliance::with(keyring).await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let first = here.back_up(&files(1)).await.unwrap();
        let mut contents = files(2);
        contents.extend(files(1).into_iter().map(|(path, file)| (format!("same/{path}"), file)));
        let second = here.back_up(&contents).await.unwrap();

        let told = Mutex::new(Vec::new());
        let progress = |done, total| told.lock().unwrap().push((done, total));
        let copied =
            there.repository.copy_backup(&here.repository, here.domain, second.backup, &progress).await.unwrap();
        let told = told.into_inner().unwrap();
        assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0) && told.last().unwrap().0 == told[0].1);
        assert!(copied.bytes >= second.stored_bytes && copied.objects > 5);

        // The first place burns.
        here.storage.objects.lock().unwrap().clear();
        let parsed = RecoveryKit::parse(&kit.to_text()).unwrap();
        let recovered = recover_keyring(there.storage.clone(), &parsed, false).await.unwrap();
        assert_eq!(recovered.generation(), here.keyring.current().generation());
        let before = there.storage.objects.lock().unwrap().clone();
        let keyring = SharedKeyring::new(recovered);
        let repository = Repository::open_read_only(there.storage.clone(), keyring.clone()).await.unwrap();
        let reborn =
            Appliance { storage: there.storage.clone(), keyring, repository, domain: here.domain, writer: here.writer };
        assert_eq!(reborn.repository.backups(reborn.domain).await.unwrap(), std::slice::from_ref(&second));
        assert!(reborn.holds(&second, &contents).await.unwrap());
        assert!(reborn.repository.open_backup(reborn.domain, first.backup).await.is_err());
        assert_eq!(*there.storage.objects.lock().unwrap(), before);
    });
}

#[test]
fn what_is_at_the_target_is_not_sent_again() {
    run(async {
        let here = Appliance::new().await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let mut contents = files(1);
        contents.insert("big".into(), (holdfast_repository::ContentClass::Pages(8192), noise(3, 4 << 20)));
        let first = here.back_up(&contents).await.unwrap();
        contents.get_mut("big").unwrap().1[1_000_000] ^= 1;
        let second = here.back_up(&contents).await.unwrap();
        let copy = async |backup| {
            there.repository.copy_backup(&here.repository, here.domain, backup, &|_, _| {}).await.unwrap()
        };
        copy(first.backup).await;
        let copied = copy(second.backup).await;
        assert!(copied.bytes < 400_000, "{copied:?}");
        let again = copy(second.backup).await;
        assert_eq!((again.objects, again.bytes), (0, 0));
        assert!(there.holds(&second, &contents).await.unwrap());
        // A backup made there deduplicates against what was copied.
        let third = there.back_up(&contents).await.unwrap();
        assert!(third.stored_bytes < 50_000, "{}", third.stored_bytes);
        assert!(there.holds(&third, &contents).await.unwrap());
    });
}

#[test]
fn an_index_that_names_packs_elsewhere_is_not_believed() {
    run(async {
        let here = Appliance::new().await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        // The second backup adopts one entry of the first, so it needs the first one's index, which names more packs.
        let first = here.back_up(&files(1)).await.unwrap();
        let one = files(1).into_iter().filter(|(path, _)| path == "base/300000").collect();
        let second = here.back_up(&one).await.unwrap();
        there.repository.copy_backup(&here.repository, here.domain, second.backup, &|_, _| {}).await.unwrap();
        assert!(there.holds(&second, &one).await.unwrap());
        let third = there.back_up(&files(5)).await.unwrap();
        assert!(there.holds(&third, &files(5)).await.unwrap());
        there.repository.copy_backup(&here.repository, here.domain, first.backup, &|_, _| {}).await.unwrap();
        assert!(there.holds(&first, &files(1)).await.unwrap());
    });
}

#[test]
fn a_copy_may_be_killed_at_any_operation_and_run_again() {
    run(async {
        let here = Appliance::new().await;
        let record = here.back_up(&files(1)).await.unwrap();
        for operations in 0.. {
            let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
            there.storage.cut_off_after(operations, operations % 2 == 0);
            let result = there.repository.copy_backup(&here.repository, here.domain, record.backup, &|_, _| {}).await;
            let was_cut_off = there.storage.mend();
            let again = there.restarted().await;
            let visible = again.repository.backups(again.domain).await.unwrap();
            assert!(result.is_err() || visible.len() == 1);
            if !visible.is_empty() {
                assert!(again.holds(&record, &files(1)).await.unwrap());
            }
            again.repository.copy_backup(&here.repository, here.domain, record.backup, &|_, _| {}).await.unwrap();
            assert!(again.holds(&record, &files(1)).await.unwrap());
            if !was_cut_off {
                break;
            }
        }
    });
}

#[test]
fn a_killed_copy_does_not_send_packs_twice() {
    run(async {
        let here = Appliance::new().await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let contents = [("big".to_owned(), (holdfast_repository::ContentClass::Bytes, noise(1, 8 << 20)))].into();
        let record = here.back_up(&contents).await.unwrap();
        for path in here.storage.paths("/packs/") {
            let pack = here.storage.objects.lock().unwrap()[&path].clone();
            there.storage.objects.lock().unwrap().insert(path, pack);
        }
        there.storage.sent.store(0, Ordering::SeqCst);
        there.repository.copy_backup(&here.repository, here.domain, record.backup, &|_, _| {}).await.unwrap();
        assert!(there.storage.sent.load(Ordering::SeqCst) < 100_000);
        assert!(there.holds(&record, &contents).await.unwrap());
    });
}

#[test]
fn a_damaged_object_is_not_copied() {
    run(async {
        let here = Appliance::new().await;
        let record = here.back_up(&files(1)).await.unwrap();
        for part in ["/packs/", "/indexes/", "/manifest", "/refs.", "/keys.", "plugins/"] {
            let damaged = Appliance::at(here.storage.copy(), here.keyring.clone()).await.unwrap();
            let path = damaged.storage.paths(part).remove(0);
            damaged.storage.change(&path, |bytes| bytes[9] ^= 1);
            let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
            let copy = there.repository.copy_backup(&damaged.repository, here.domain, record.backup, &|_, _| {}).await;
            assert_eq!(copy.unwrap_err().code(), "wrong-digest", "{part}");
            assert!(there.repository.backups(there.domain).await.unwrap().is_empty());
        }
    });
}

#[test]
fn a_keyring_is_recovered_by_whom_it_is_for_alone() {
    run(async {
        let (kit, keyring) = kit_and_keyring();
        let next = keyring.with_domain("other");
        let here = Appliance::with(keyring).await;
        here.repository.publish_keyring().await.unwrap();
        here.keyring.replace(next);
        here.back_up(&files(1)).await.unwrap();
        assert_eq!(here.storage.paths("keyring/").len(), 4);
        let sealed = here.repository.sealed_keyring().await.unwrap().unwrap();
        let newest = here.keyring.current().generation();
        assert_eq!(kit.open_keyring(&sealed).unwrap().generation(), newest);
        assert_eq!(recover_keyring(here.storage.clone(), &kit, false).await.unwrap().generation(), newest);

        let code = async |storage: &Arc<Memory>, kit: &RecoveryKit, trust| {
            recover_keyring(storage.clone(), kit, trust).await.map_or_else(|error| error.code(), |_| "opened")
        };
        let mut eve = RecoveryKit::generate();
        assert_eq!(code(&here.storage, &eve, false).await, "not-pinned");
        assert_eq!(code(&here.storage, &eve, true).await, "wrong-identity");
        eve.pin(here.keyring.current().repository(), here.keyring.current().verify_key(), vec![]);
        assert_eq!(code(&here.storage, &eve, false).await, "wrong-identity");
        // A forger has a signing key of his own.
        let mut pinned_elsewhere = RecoveryKit::parse(&kit.to_text()).unwrap();
        pinned_elsewhere.pin(here.keyring.current().repository(), Keyring::generate().verify_key(), vec![]);
        assert_eq!(code(&here.storage, &pinned_elsewhere, false).await, "untrusted-keyring");
        let (other_kit, _) = kit_and_keyring();
        assert_eq!(code(&here.storage, &other_kit, false).await, "other-repository");
        assert_eq!(code(&Memory::new(), &kit, false).await, "no-repository");
        // Damage of the newest generation is not taken for the newest one.
        let damaged = here.storage.copy();
        damaged.change(&format!("keyring/{newest}.age"), |bytes| bytes[200] ^= 1);
        assert_eq!(recover_keyring(damaged.clone(), &kit, false).await.unwrap().generation(), newest - 1);
        // Nor does an older one open backups that need the newest.
        damaged.change(&format!("keyring/{newest}.sig"), |bytes| bytes[100] ^= 1);
        let older = SharedKeyring::new(recover_keyring(damaged.clone(), &kit, false).await.unwrap());
        assert_eq!(Repository::open_read_only(damaged, older).await.unwrap_err().code(), "lost-keyring");
        // An appliance whose data directory is older than the repository must not write.
        let (_, stale) = (0, kit.open_keyring(&here.storage.objects.lock().unwrap()["keyring/3.age"]).unwrap());
        let error = Appliance::at(here.storage.clone(), SharedKeyring::new(stale)).await.err().unwrap();
        assert_eq!(error.code(), "older-keyring");
    });
}

#[test]
fn amended_facts_are_kept_and_read_by_all() {
    run(async {
        let appliance = Appliance::new().await;
        let other = appliance.restarted().await;
        let mut record = appliance.back_up(&files(1)).await.unwrap();
        record.verifications.push(Verification {
            level: "engine".into(),
            target: "primary".into(),
            at_ms: 7,
            passed: true,
            detail: "42 checks".into(),
        });
        appliance.repository.amend(appliance.domain, vec![record.clone()]).await.unwrap();
        assert_eq!(other.repository.backups(other.domain).await.unwrap(), std::slice::from_ref(&record));
        other.repository.remove_backup(other.domain, record.backup, 9).await.unwrap();
        other.repository.remove_backup(other.domain, record.backup, 9).await.unwrap();
        assert!(appliance.repository.backups(appliance.domain).await.unwrap().is_empty());
        let error = appliance.repository.amend(appliance.domain, vec![record]).await.unwrap_err();
        assert_eq!(error.code(), "no-such-backup");
    });
}

#[test]
fn a_job_may_run_anywhere() {
    fn is_send<T: Send>(_: T) {}
    run(async {
        let here = Appliance::new().await;
        let (repository, domain, record) = (&here.repository, here.domain, here.back_up(&files(1)).await.unwrap());
        // Futures that control's jobs await; that this compiles is the test.
        is_send(repository.copy_backup(repository, domain, record.backup, &|_, _| {}));
        is_send(repository.open_backup(domain, record.backup));
        is_send(repository.stats());
        is_send(here.begin());
        is_send(here.back_up(&files(1)));
        is_send(here.holds(&record, &files(1)));
    });
}
