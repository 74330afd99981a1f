//! Kills, lost answers, damage, races: never a visible incomplete backup, never a wrong byte.

use std::sync::atomic::Ordering;

use holdfast_repository::{ContentClass, Repository, SharedKeyring};

use crate::setting::{Appliance, CHUNK, Files, file, files, noise, read, record, run};

#[test]
fn a_kill_at_any_operation_leaves_no_incomplete_backup() {
    run(async {
        for answers_are_lost in [false, true] {
            let appliance = Appliance::new().await;
            let first = (appliance.back_up(&files(0)).await.unwrap(), files(0));
            let mut kills = 0;
            for operations in 0.. {
                let attempt = appliance.copy().await;
                let contents = files(100 * (operations + 1));
                attempt.storage.cut_off_after(operations, answers_are_lost);
                let result = attempt.back_up(&contents).await;
                let was_cut_off = attempt.storage.mend();
                let after = attempt.restarted().await;
                let visible = after.repository.backups(after.domain).await.unwrap();
                assert!(after.holds(&first.0, &first.1).await.unwrap());
                // The head is the commit point: it may be there although its writer did not live to know, and then the
                // backup is complete.
                if let Some(new) = visible.iter().find(|record| record.backup != first.0.backup) {
                    assert!(result.is_ok() || answers_are_lost);
                    assert!(after.holds(new, &contents).await.unwrap());
                } else {
                    assert!(result.is_err());
                }
                kills += u64::from(was_cut_off);
                if !was_cut_off {
                    break;
                }
            }
            assert!(kills > 8, "{kills}");
        }
    });
}

#[test]
fn a_commit_whose_answer_was_lost_is_recognised() {
    run(async {
        let appliance = Appliance::new().await;
        let (mut failed, mut committed) = (0, 0);
        for operations in 0.. {
            let attempt = appliance.copy().await;
            let before = attempt.repository.backups(attempt.domain).await.unwrap().len();
            // One answer is lost, and then the place answers again: so success and existence are the same.
            attempt.storage.fail_after(operations, 1, true);
            let result = attempt.back_up(&files(operations)).await;
            let was_hit = attempt.storage.mend();
            let after = attempt.repository.backups(attempt.domain).await.unwrap().len();
            assert_eq!(after - before, usize::from(result.is_ok()), "{operations}");
            failed += u64::from(result.is_err());
            committed += u64::from(result.is_ok() && was_hit);
            if !was_hit {
                break;
            }
        }
        // The head's answer, and that of the look at the component behind it.
        assert!(failed > 8 && committed == 2, "{failed} {committed}");
    });
}

#[test]
fn a_dropped_writer_leaves_no_backup() {
    run(async {
        let appliance = Appliance::new().await;
        let writer = appliance.begin().await.unwrap();
        let mut entry = writer.begin_entry(file("a"), ContentClass::Pages(8192)).await.unwrap();
        entry.write(&noise(1, 40 << 20)).await.unwrap();
        drop(writer);
        assert!(entry.write(&noise(2, 1 << 20)).await.is_err());
        assert!(entry.finish().await.is_err());
        assert!(appliance.repository.backups(appliance.domain).await.unwrap().is_empty());
        let record = appliance.back_up(&files(1)).await.unwrap();
        assert!(appliance.holds(&record, &files(1)).await.unwrap());
    });
}

#[test]
fn a_failed_upload_stops_the_backup_for_good() {
    run(async {
        let appliance = Appliance::new().await;
        let writer = appliance.begin().await.unwrap();
        let mut entry = writer.begin_entry(file("a"), ContentClass::Pages(8192)).await.unwrap();
        appliance.storage.cut_off_after(0, false);
        let mut result = Ok(());
        for step in 0..200 {
            result = entry.write(&noise(step, 1 << 20)).await;
            if result.is_err() {
                break;
            }
        }
        // More than the pipeline holds was offered, so the failure has shown, and it is the store's own.
        assert_eq!(result.unwrap_err().code(), "storage-unreachable");
        appliance.storage.mend();
        drop(entry);
        let error = writer.commit(record("broken"), "{}".into()).await.unwrap_err();
        assert_eq!(error.code(), "storage-unreachable");
        assert!(appliance.repository.backups(appliance.domain).await.unwrap().is_empty());
    });
}

#[test]
fn damage_of_any_object_is_found() {
    run(async {
        let appliance = Appliance::new().await;
        let mut contents = files(1);
        // Long enough for a list chunk.
        contents.insert("long".into(), (ContentClass::Pages(8192), noise(7, 20 * CHUNK)));
        let record = appliance.back_up(&contents).await.unwrap();
        // What indexes say, packs say too: `check` looks after those.
        for part in ["repository.json", "/packs/", "/manifest", "/keys.", "/heads/"] {
            let path = appliance.storage.paths(part).remove(0);
            let length = appliance.storage.objects.lock().unwrap()[&path].len();
            // In a pack every byte of the chunks counts; of the footer, readers need nothing.
            let end = if part == "/packs/" { length - 4096 } else { length };
            for position in (0..end).step_by(1 + end / 40) {
                let damaged = appliance.storage.copy();
                damaged.change(&path, |bytes| bytes[position] ^= 0x10);
                let found = match Appliance::at(damaged, appliance.keyring.clone()).await {
                    Ok(reader) => reader.holds(&record, &contents).await,
                    Err(error) => Err(error),
                };
                let preamble = part == "/packs/" && position < 8;
                assert!(found.is_err() || preamble, "{path} at {position}");
            }
            let lost = appliance.storage.copy();
            lost.objects.lock().unwrap().remove(&path);
            let found = match Appliance::at(lost, appliance.keyring.clone()).await {
                Ok(reader) => reader.holds(&record, &contents).await,
                Err(error) => Err(error),
            };
            assert!(found.is_err(), "{path}");
            let cut = appliance.storage.copy();
            cut.change(&path, |bytes| bytes.truncate(bytes.len() / 2));
            let found = match Appliance::at(cut, appliance.keyring.clone()).await {
                Ok(reader) => reader.holds(&record, &contents).await,
                Err(error) => Err(error),
            };
            assert!(found.is_err(), "{path}");
        }
    });
}

#[test]
fn objects_cannot_change_places() {
    run(async {
        let appliance = Appliance::new().await;
        let first = appliance.back_up(&files(1)).await.unwrap();
        let second = appliance.back_up(&files(2)).await.unwrap();
        for part in ["manifest", "keys.1"] {
            let swapped = appliance.storage.copy();
            let path = |backup| format!("domains/{}/backups/{backup}/{part}", appliance.domain);
            let other = swapped.objects.lock().unwrap()[&path(second.backup)].clone();
            swapped.objects.lock().unwrap().insert(path(first.backup), other);
            let reader = Appliance::at(swapped, appliance.keyring.clone()).await.unwrap();
            assert!(reader.holds(&first, &files(1)).await.is_err());
        }
        // A head that is taken away breaks the chain; the newest one can only be hidden.
        let head = |sequence| format!("domains/{}/heads/{sequence:016x}", appliance.domain);
        let gap = appliance.storage.copy();
        gap.objects.lock().unwrap().remove(&head(0));
        let error = Appliance::at(gap, appliance.keyring.clone()).await.err().unwrap();
        assert_eq!(error.code(), "broken-chain");
        appliance.storage.objects.lock().unwrap().remove(&head(1));
        assert_eq!(appliance.repository.newest_heads().await.unwrap_err().code(), "lost-object");
    });
}

#[test]
fn a_listing_that_lags_hides_nothing() {
    run(async {
        let appliance = Appliance::new().await;
        for seed in 0..5 {
            appliance.back_up(&files(seed)).await.unwrap();
        }
        appliance.storage.listing_lags.store(true, Ordering::SeqCst);
        let again = appliance.restarted().await;
        assert_eq!(again.repository.backups(again.domain).await.unwrap().len(), 5);
        let record = again.back_up(&files(9)).await.unwrap();
        assert!(appliance.holds(&record, &files(9)).await.unwrap());
    });
}

#[test]
fn writers_that_race_both_commit() {
    run(async {
        let appliance = Appliance::new().await;
        let other = appliance.restarted().await;
        let mut tasks = Vec::new();
        for number in 0..6 {
            let (repository, domain) = if number % 2 == 0 {
                (appliance.repository.clone(), appliance.domain)
            } else {
                (other.repository.clone(), other.domain)
            };
            let (storage, keyring) = (appliance.storage.clone(), appliance.keyring.clone());
            let racer = Appliance { storage, keyring, repository, domain, writer: appliance.writer };
            tasks.push(tokio::spawn(async move { racer.back_up(&files(number)).await.unwrap() }));
        }
        for (number, task) in tasks.into_iter().enumerate() {
            let record = task.await.unwrap();
            assert!(appliance.holds(&record, &files(number as u64)).await.unwrap());
        }
        assert_eq!(appliance.storage.paths(&format!("{}/heads/", appliance.domain)).len(), 6);
        assert_eq!(other.repository.backups(other.domain).await.unwrap().len(), 6);
    });
}

#[test]
fn a_writer_that_was_taken_over_stops() {
    run(async {
        let old = Appliance::new().await;
        old.back_up(&files(1)).await.unwrap();
        let running = old.begin().await.unwrap();
        let new = old.restarted().await;
        new.repository.take_over().await.unwrap();
        let record_of_new = new.back_up(&files(2)).await.unwrap();
        let error = running.commit(record("late"), "{}".into()).await.unwrap_err();
        assert!(error.code() == "superseded" && error.is_permanent() && error.hint().is_some());
        assert_eq!(old.repository.amend(old.domain, vec![record_of_new]).await.unwrap_err().code(), "superseded");
        assert_eq!(new.repository.backups(new.domain).await.unwrap().len(), 2);
        assert!(new.repository.newest_heads().await.unwrap().iter().all(|head| head.epoch == 1));
    });
}

#[test]
fn hundreds_of_heads_are_read_from_a_checkpoint() {
    run(async {
        let appliance = Appliance::new().await;
        let first = appliance.back_up(&files(1)).await.unwrap();
        let gone = appliance.back_up(&files(2)).await.unwrap();
        appliance.repository.remove_backup(appliance.domain, gone.backup, 5).await.unwrap();
        for number in 0..600 {
            let mut amended = first.clone();
            amended.name = format!("name {number}");
            appliance.repository.amend(appliance.domain, vec![amended]).await.unwrap();
        }
        let last = appliance.back_up(&files(3)).await.unwrap();
        // Heads before the checkpoint are not needed any more.
        for sequence in 0..512 {
            let path = format!("domains/{}/heads/{sequence:016x}", appliance.domain);
            assert!(appliance.storage.objects.lock().unwrap().remove(&path).is_some());
        }
        let again = appliance.restarted().await;
        let backups = again.repository.backups(again.domain).await.unwrap();
        assert_eq!(backups.len(), 2);
        assert!(backups.iter().any(|record| record.name == "name 599"));
        assert!(again.holds(&first, &files(1)).await.unwrap() && again.holds(&last, &files(3)).await.unwrap());
        let error = again.repository.open_backup(again.domain, gone.backup).await.unwrap_err();
        assert_eq!(error.code(), "no-such-backup");
    });
}

#[test]
fn a_checkpoint_that_is_too_long_waits_for_more_heads() {
    run(async {
        let appliance = Appliance::new().await;
        let mut long = appliance.back_up(&files(1)).await.unwrap();
        let short = appliance.back_up(&files(2)).await.unwrap();
        long.description = Some("a long story ".repeat(700_000));
        appliance.repository.amend(appliance.domain, vec![long.clone()]).await.unwrap();
        for _ in 0..510 {
            appliance.repository.amend(appliance.domain, vec![short.clone()]).await.unwrap();
        }
        let head = |sequence: u64| format!("domains/{}/heads/{sequence:016x}", appliance.domain);
        let length = |sequence| appliance.storage.objects.lock().unwrap()[&head(sequence)].len();
        assert!(length(256) < 8 << 10, "9 MB are more than 32 KiB for each of 256 heads");
        assert!(length(512) > 8 << 20);
        for sequence in 0..512 {
            appliance.storage.objects.lock().unwrap().remove(&head(sequence));
        }
        let again = appliance.restarted().await;
        let found = again.repository.backups(again.domain).await.unwrap();
        assert!(found.iter().any(|record| record.description == long.description) && found.len() == 2);
    });
}

#[test]
fn another_repository_and_foreign_files_are_refused() {
    run(async {
        let appliance = Appliance::new().await;
        let other = SharedKeyring::new(holdfast_repository::Keyring::generate().with_domain("acme"));
        let error = Appliance::at(appliance.storage.clone(), other.clone()).await.err().unwrap();
        assert!(error.code() == "other-repository" && error.is_permanent() && error.hint().is_some());
        let foreign = crate::memory::Memory::new();
        foreign.objects.lock().unwrap().insert("letters.doc".into(), "hello".into());
        let error = Appliance::at(foreign, other.clone()).await.err().unwrap();
        assert_eq!(error.code(), "not-a-repository");
        let empty = crate::memory::Memory::new();
        let error = Repository::open_read_only(empty.clone(), other).await.unwrap_err();
        assert_eq!(error.code(), "no-repository");
        assert!(empty.objects.lock().unwrap().is_empty());
        let reader = Repository::open_read_only(appliance.storage.clone(), appliance.keyring.clone()).await.unwrap();
        assert_eq!(reader.take_over().await.unwrap_err().code(), "read-only");
        assert!(appliance.storage.objects.lock().unwrap()["RECOVER.txt"].starts_with(b"This place holds backups"));
    });
}

#[test]
fn nothing_stored_shows_names_or_contents() {
    run(async {
        let appliance = Appliance::new().await;
        let needle = b"a very secret sentence of a customer, repeated often enough to be found".repeat(40);
        let contents = Files::from([
            ("customers/salaries.table".to_owned(), (ContentClass::Bytes, needle.clone())),
            ("short".to_owned(), (ContentClass::Bytes, b"inline secret sentence".to_vec())),
            ("long".to_owned(), (ContentClass::Pages(8192), needle.repeat(300))),
        ]);
        let record = appliance.back_up(&contents).await.unwrap();
        assert!(appliance.holds(&record, &contents).await.unwrap());
        let needles: [&[u8]; 9] = [
            b"secret sentence",
            b"salaries",
            b"customers",
            b"acme",
            b"shop",
            b"postgres",
            b"basebackup",
            b"before the move",
            b"gold",
        ];
        for (path, bytes) in appliance.storage.objects.lock().unwrap().iter() {
            for needle in needles {
                let is_found = bytes.windows(needle.len()).any(|window| window == needle);
                assert!(!is_found && !path.contains("acme"), "{path} shows {}", String::from_utf8_lossy(needle));
            }
        }
        // Equal contents in another organization make other chunks.
        let reader = appliance.reader(&record).await;
        assert!(read(&reader, "short", 0, None).await.is_ok());
    });
}
