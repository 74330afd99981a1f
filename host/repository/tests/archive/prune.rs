//! Prune takes what is dead, later, and nothing else: whoever writes, copies, reads, crashes or runs out of room meanwhile.

use std::future::ready;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use holdfast_repository::{
    BackupId, BackupPlan, BackupRecord, Clock, Compression, ContentClass, Error, GRACE_MS, Hold, Keyring, PruneOptions,
    Pruned, Repository, SharedKeyring, Why, WriterId,
};
use holdfast_storage::{Local, Storage as _};
use holdfast_tests::disk::SmallDisk;

use crate::deltas::days;
use crate::index::caching;
use crate::memory::{Meanwhile, Memory};
use crate::setting::{Appliance, Files, damages, file, files, noise, read, record, run};

const LATER: PruneOptions = PruneOptions { dry_run: false, now: false };
const NOW: PruneOptions = PruneOptions { dry_run: false, now: true };

impl Appliance {
    async fn prune(&self, options: PruneOptions) -> Result<Pruned, Error> {
        self.repository.prune(self.domain, options, &|_, _, _| {}).await
    }

    async fn remove(&self, record: &BackupRecord) {
        self.repository.remove_backup(self.domain, record.backup, self.storage.now_ms()).await.unwrap();
    }

    /// Prunes, waits for the grace period to end, and prunes again.
    async fn prune_twice(&self) -> (Pruned, Pruned) {
        let first = self.prune(LATER).await.unwrap();
        self.storage.wait(GRACE_MS);
        (first, self.prune(LATER).await.unwrap())
    }

    /// Nothing that heads name is damaged or gone.
    async fn must_be_sound(&self) {
        let structure = self.repository.check_structure(self.domain, &|_, _| {}).await.unwrap();
        assert_eq!(structure.damages, []);
        let packs = self.repository.read_packs(self.domain, None, u64::MAX, None, &|_| {}).await.unwrap();
        assert_eq!(packs.damages, []);
    }

    /// Objects of the archive, without heads.
    fn stored(&self) -> usize {
        let paths = self.storage.paths("domains/");
        paths.iter().filter(|path| !path.contains("/heads/")).count() + self.storage.paths("plugins/").len()
    }
}

/// Files of so many megabytes that do not compress.
fn large(seed: u64, megabytes: usize) -> Files {
    [("large".to_owned(), (ContentClass::Pages(8192), noise(seed, megabytes << 20)))].into()
}

#[test]
fn the_dead_are_condemned_first_and_deleted_after_the_grace_period() {
    run(async {
        let appliance = Appliance::new().await;
        let kept = appliance.back_up(&files(1)).await.unwrap();
        let before = appliance.stored();
        let gone = appliance.back_up(&large(2, 3)).await.unwrap();
        let (added, bytes) = (appliance.stored() - before, appliance.storage.bytes());
        assert_eq!(appliance.prune(LATER).await.unwrap(), Pruned::default(), "nothing died yet");

        appliance.remove(&gone).await;
        let condemned = appliance.prune(LATER).await.unwrap();
        assert_eq!(condemned.condemned.objects, added as u64);
        assert_eq!(condemned.deleted.objects, 0);
        let waits = condemned.kept[&Why::Condemned];
        assert_eq!(waits.tally, condemned.condemned);
        assert_eq!(waits.until_ms, Some(appliance.storage.now_ms() + GRACE_MS));
        assert_eq!(appliance.stored(), before + added);
        appliance.storage.wait(GRACE_MS - 1);
        assert_eq!(appliance.prune(LATER).await.unwrap().deleted.objects, 0);
        appliance.storage.wait(1);
        let deleted = appliance.prune(LATER).await.unwrap();
        assert_eq!((deleted.deleted, deleted.kept.len()), (condemned.condemned, 0));
        assert_eq!(appliance.stored(), before);
        assert!(appliance.storage.bytes() < bytes - (3 << 20));
        assert_eq!(appliance.prune(LATER).await.unwrap(), Pruned::default());

        appliance.must_be_sound().await;
        let again = appliance.restarted().await;
        assert!(again.holds(&kept, &files(1)).await.unwrap());
        again.must_be_sound().await;
    });
}

#[test]
fn what_other_backups_share_stays() {
    run(async {
        let appliance = Appliance::new().await;
        let mut both = files(1);
        both.extend(large(2, 3));
        let first = appliance.back_up(&both).await.unwrap();
        let second = appliance.back_up(&both).await.unwrap();
        appliance.remove(&first).await;
        let (condemned, _) = appliance.prune_twice().await;
        // The first backup's own objects: refs, keys, manifest.
        assert_eq!(condemned.condemned.objects, 3);
        assert!(appliance.holds(&second, &both).await.unwrap());
        appliance.must_be_sound().await;
        appliance.remove(&second).await;
        appliance.prune_twice().await;
        assert_eq!(appliance.storage.paths("/packs/").len() + appliance.storage.paths("/indexes/").len(), 0);
        appliance.storage.wait(GRACE_MS);
        appliance.repository.collect_garbage(LATER).await.unwrap();
        assert_eq!(appliance.stored(), 0);
    });
}

/// A backup of which little is left: what `kept` holds lies in a pack that is dead for the most part.
async fn half_dead(appliance: &Appliance) -> (BackupRecord, Files) {
    let mut both = files(1);
    both.extend(large(2, 6));
    let first = appliance.back_up(&both).await.unwrap();
    let kept = appliance.back_up(&files(1)).await.unwrap();
    appliance.remove(&first).await;
    (kept, files(1))
}

#[test]
fn what_lives_in_half_dead_packs_is_moved_as_it_is() {
    run(async {
        let appliance = Appliance::new().await;
        let (kept, contents) = half_dead(&appliance).await;
        let packs = appliance.storage.paths("/packs/");
        let (first, second) = appliance.prune_twice().await;
        assert!(first.repacked.objects > 0 && first.repacked.bytes > 6 << 20, "{first:?}");
        assert!(first.moved_bytes > 0 && first.moved_bytes < 2 << 20, "{first:?}");
        assert!(second.deleted.bytes > 6 << 20, "{second:?}");
        assert!(packs.iter().any(|pack| !appliance.storage.paths("/packs/").contains(pack)));
        assert!(appliance.storage.bytes() < 4 << 20);
        appliance.must_be_sound().await;
        let again = appliance.restarted().await;
        assert!(again.holds(&kept, &contents).await.unwrap());
        // It can be copied, and read without its indexes.
        let there = Appliance::at(Memory::new(), appliance.keyring.clone()).await.unwrap();
        there.repository.copy_backup(&again.repository, there.domain, kept.backup, &|_, _| {}).await.unwrap();
        assert!(there.holds(&kept, &contents).await.unwrap());
        for index in again.storage.paths("/indexes/") {
            again.storage.change(&index, |bytes| bytes[20] ^= 1);
        }
        assert!(again.restarted().await.holds(&kept, &contents).await.unwrap());
    });
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    run(async {
        for now in [false, true] {
            let appliance = Appliance::new().await;
            half_dead(&appliance).await;
            let before = appliance.storage.objects.lock().unwrap().clone();
            let dry = appliance.prune(PruneOptions { dry_run: true, now }).await.unwrap();
            assert_eq!(*appliance.storage.objects.lock().unwrap(), before);
            let wet = appliance.prune(PruneOptions { dry_run: false, now }).await.unwrap();
            assert_eq!(dry.condemned, wet.condemned);
            assert_eq!((dry.repacked, dry.moved_bytes), (wet.repacked, wet.moved_bytes));
            assert_eq!(dry.deleted, wet.deleted);
            assert!(dry.condemned.bytes > 3 << 20 && (dry.deleted.bytes > 3 << 20) == now);
            appliance.storage.wait(GRACE_MS);
            let dry = appliance.prune(PruneOptions { dry_run: true, now: false }).await.unwrap();
            assert_eq!(dry.deleted, appliance.prune(LATER).await.unwrap().deleted);
        }
    });
}

#[test]
fn without_grace_everything_dead_is_gone_at_once() {
    run(async {
        let appliance = Appliance::new().await;
        let (kept, contents) = half_dead(&appliance).await;
        let pruned = appliance.prune(NOW).await.unwrap();
        assert_eq!((pruned.deleted, pruned.kept.len()), (pruned.condemned, 0));
        assert!(appliance.storage.bytes() < 3 << 20);
        assert!(appliance.holds(&kept, &contents).await.unwrap());
        appliance.must_be_sound().await;
    });
}

#[test]
fn without_grace_another_writer_is_in_the_way() {
    run(async {
        let appliance = Appliance::new().await;
        let other = appliance.restarted().await;
        other.back_up(&files(3)).await.unwrap();
        let gone = appliance.back_up(&files(1)).await.unwrap();
        appliance.remove(&gone).await;
        let error = appliance.prune(NOW).await.unwrap_err();
        assert!(error.code() == "other-writer" && error.hint().is_some(), "{error}");
        let error = appliance.repository.collect_garbage(NOW).await.unwrap_err();
        assert_eq!(error.code(), "other-writer");
        appliance.storage.wait(GRACE_MS);
        appliance.prune(NOW).await.unwrap();
        // A writer that keeps its id over a restart knows itself.
        let id = WriterId::random();
        let storage = appliance.storage.clone();
        let one = || async {
            let (repository, clock) =
                (Repository::open_existing(storage.clone(), appliance.keyring.clone()).await.unwrap(), storage.clone());
            repository.with_writer(id).with_clock(Clock::of(move || clock.now_ms()))
        };
        appliance.storage.wait(GRACE_MS);
        one().await.take_over().await.unwrap();
        one().await.prune(appliance.domain, NOW, &|_, _, _| {}).await.unwrap();
    });
}

#[test]
fn a_backup_that_found_known_what_was_then_condemned_fails_and_is_whole_the_next_time() {
    run(async {
        let appliance = Appliance::new().await;
        let other = appliance.restarted().await;
        let gone = appliance.back_up(&files(1)).await.unwrap();
        let writer = other.begin().await.unwrap();
        for (path, (class, bytes)) in files(1) {
            let mut entry = writer.begin_entry(file(&path), class).await.unwrap();
            entry.write(&bytes).await.unwrap();
            entry.finish().await.unwrap();
        }
        appliance.remove(&gone).await;
        appliance.prune(LATER).await.unwrap();
        let error = writer.commit(record("late"), "{}".into()).await.unwrap_err();
        assert!(error.code() == "condemned-object" && !error.is_permanent() && error.hint().is_some());
        let whole = other.back_up(&files(1)).await.unwrap();
        other.prune_twice().await;
        other.must_be_sound().await;
        assert!(other.holds(&whole, &files(1)).await.unwrap());
    });
}

#[test]
fn a_backup_that_found_known_what_was_then_moved_is_whole() {
    run(async {
        let appliance = Appliance::new().await;
        let other = appliance.restarted().await;
        half_dead(&appliance).await;
        let writer = other.begin().await.unwrap();
        for (path, (class, bytes)) in files(1) {
            let mut entry = writer.begin_entry(file(&path), class).await.unwrap();
            entry.write(&bytes).await.unwrap();
            entry.finish().await.unwrap();
        }
        let pruned = appliance.prune(LATER).await.unwrap();
        assert!(pruned.repacked.objects > 0);
        let adopted = writer.commit(record("late"), "{}".into()).await.unwrap();
        appliance.storage.wait(GRACE_MS);
        appliance.prune(LATER).await.unwrap();
        appliance.must_be_sound().await;
        assert!(appliance.restarted().await.holds(&adopted, &files(1)).await.unwrap());
    });
}

#[test]
fn a_backup_that_took_too_long_does_not_commit() {
    run(async {
        let appliance = Appliance::new().await;
        let writer = appliance.begin().await.unwrap();
        appliance.storage.wait(GRACE_MS / 2 + 1);
        let error = writer.commit(record("late"), "{}".into()).await.unwrap_err();
        assert!(error.code() == "too-late" && error.hint().is_some());
    });
}

#[test]
fn a_copy_comes_under_new_names_where_its_packs_are_condemned() {
    run(async {
        let here = Appliance::new().await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let copy = async |record: &BackupRecord| {
            there.repository.copy_backup(&here.repository, here.domain, record.backup, &|_, _| {}).await
        };
        let first = here.back_up(&files(1)).await.unwrap();
        copy(&first).await.unwrap();
        there.remove(&first).await;
        there.prune(LATER).await.unwrap();
        // The second backup needs the same chunks, and the index that tells of them.
        let second = here.back_up(&files(1)).await.unwrap();
        copy(&second).await.unwrap();
        assert!(there.holds(&second, &files(1)).await.unwrap());
        assert_eq!(copy(&first).await.unwrap_err().code(), "condemned-object");
        there.storage.wait(GRACE_MS);
        there.prune(LATER).await.unwrap();
        there.must_be_sound().await;
        assert!(there.restarted().await.holds(&second, &files(1)).await.unwrap());
        copy(&first).await.unwrap();
        assert!(there.holds(&first, &files(1)).await.unwrap());
    });
}

#[test]
fn a_removed_backup_can_be_copied_again_before_it_is_condemned() {
    run(async {
        let here = Appliance::new().await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let first = here.back_up(&files(1)).await.unwrap();
        for _ in 0..2 {
            there.repository.copy_backup(&here.repository, here.domain, first.backup, &|_, _| {}).await.unwrap();
            assert!(there.holds(&first, &files(1)).await.unwrap());
            there.remove(&first).await;
        }
    });
}

#[test]
fn a_clock_that_cannot_be_trusted_deletes_nothing() {
    run(async {
        let appliance = Appliance::new().await;
        let gone = appliance.back_up(&files(1)).await.unwrap();
        appliance.remove(&gone).await;
        appliance.prune(LATER).await.unwrap();
        let paths = appliance.storage.paths("");
        for skew in [2 * GRACE_MS as i64, -600_000] {
            let storage = appliance.storage.clone();
            let wrong = Repository::open_existing(storage.clone(), appliance.keyring.clone()).await.unwrap();
            let wrong = wrong.with_clock(Clock::of(move || storage.now_ms().saturating_add_signed(skew)));
            let error = wrong.prune(appliance.domain, LATER, &|_, _, _| {}).await.unwrap_err();
            assert!(error.code() == "clock-skew" && error.hint().is_some());
            assert_eq!(wrong.collect_garbage(LATER).await.unwrap_err().code(), "clock-skew");
        }
        assert_eq!(appliance.storage.paths(""), paths);
    });
}

#[test]
fn who_was_taken_over_deletes_nothing() {
    run(async {
        let old = Appliance::new().await;
        let gone = old.back_up(&files(1)).await.unwrap();
        old.remove(&gone).await;
        old.prune(LATER).await.unwrap();
        old.storage.wait(GRACE_MS);
        old.restarted().await.repository.take_over().await.unwrap();
        let paths = old.storage.paths("");
        assert_eq!(old.prune(LATER).await.unwrap_err().code(), "superseded");
        assert_eq!(old.repository.collect_garbage(LATER).await.unwrap_err().code(), "superseded");
        assert_eq!(old.storage.paths(""), paths);
    });
}

#[test]
fn a_domain_whose_refs_cannot_be_read_is_not_pruned() {
    run(async {
        let appliance = Appliance::new().await;
        let gone = appliance.back_up(&files(1)).await.unwrap();
        let kept = appliance.back_up(&files(2)).await.unwrap();
        appliance.remove(&gone).await;
        let refs = appliance.storage.paths(&format!("{}/refs.", kept.backup)).remove(0);
        appliance.storage.change(&refs, |bytes| bytes[9] ^= 1);
        let paths = appliance.storage.paths("");
        assert_eq!(appliance.prune(LATER).await.unwrap_err().code(), "wrong-digest");
        assert_eq!(appliance.storage.paths(""), paths);
    });
}

#[test]
fn garbage_is_deleted_once_it_is_old_and_named_by_nobody() {
    run(async {
        let appliance = Appliance::new().await;
        let kept = appliance.back_up(&files(1)).await.unwrap();
        // What a backup leaves that is cut before its head.
        let cut = appliance.copy().await;
        let large = Files::from([("a".to_owned(), (ContentClass::Pages(8192), noise(1, 40 << 20)))]);
        cut.back_up(&large).await.unwrap();
        let objects = cut.storage.objects.lock().unwrap().clone();
        for (path, bytes) in objects {
            if path.contains("/packs/") && appliance.storage.paths(&path).is_empty() {
                appliance.storage.put(&path, bytes).await.unwrap();
            }
        }
        let domain = format!("domains/{}", appliance.domain);
        let foreign =
            ["notes.txt", &format!("{domain}/packs/aa/notes"), "plugins/notes", &format!("{domain}/logs/a/1")];
        for path in foreign {
            appliance.storage.put(path, "somebody's".into()).await.unwrap();
        }
        let packs = appliance.storage.paths("/packs/").len();
        assert!(packs > 3);
        let young = appliance.repository.collect_garbage(LATER).await.unwrap();
        assert_eq!(young.deleted.objects, 0);
        assert!(young.kept[&Why::Young].tally.bytes > 16 << 20);
        appliance.storage.wait(GRACE_MS);
        let dry = appliance.repository.collect_garbage(PruneOptions { dry_run: true, now: false }).await.unwrap();
        let old = appliance.repository.collect_garbage(LATER).await.unwrap();
        assert_eq!((old.deleted, dry.deleted), (young.kept[&Why::Young].tally, young.kept[&Why::Young].tally));
        assert!(foreign.iter().all(|path| appliance.storage.paths(path).len() == 1));
        assert!(appliance.restarted().await.holds(&kept, &files(1)).await.unwrap());
        appliance.must_be_sound().await;
    });
}

#[test]
fn a_component_goes_with_the_last_backup_that_needs_it() {
    run(async {
        let appliance = Appliance::new().await;
        let [first, second] =
            [appliance.back_up(&files(1)).await.unwrap(), appliance.back_up(&files(2)).await.unwrap()];
        appliance.remove(&first).await;
        appliance.prune_twice().await;
        appliance.repository.collect_garbage(LATER).await.unwrap();
        assert_eq!(appliance.repository.component(second.component).await.unwrap(), b"a component");
        appliance.remove(&second).await;
        appliance.prune(LATER).await.unwrap();
        let running = appliance.begin().await.unwrap();
        appliance.repository.collect_garbage(LATER).await.unwrap();
        assert!(appliance.storage.paths("plugins/").is_empty());
        let third = running.commit(record("third"), "{}".into()).await.unwrap();
        assert_eq!(appliance.repository.component(third.component).await.unwrap(), b"a component");
    });
}

/// So many small files, each a chunk that no other seed's backup has.
fn small(seed: u64, count: u64) -> Files {
    let small = |number: u64| (format!("{number}"), (ContentClass::Bytes, noise(seed * 100_000 + number, 600)));
    (0..count).map(small).collect()
}

/// Bytes that a prune gets where a backup of ten chunks died beside so many backups of a thousand, and how many all refs and indexes have.
async fn fetched_beside(others: u64) -> (u64, u64) {
    let appliance = Appliance::new().await;
    let first = appliance.back_up(&small(1, 1000)).await.unwrap();
    for seed in 2..=others {
        appliance.back_up(&small(seed, 1000)).await.unwrap();
    }
    appliance.remove(&first).await;
    // The first prune counts everything.
    appliance.prune_twice().await;
    let gone = appliance.back_up(&small(99, 10)).await.unwrap();
    appliance.remove(&gone).await;
    let before = appliance.storage.fetched.load(Ordering::SeqCst);
    let pruned = appliance.prune(LATER).await.unwrap();
    let fetched = appliance.storage.fetched.load(Ordering::SeqCst) - before;
    // Its refs, keys and manifest, its pack and index.
    assert_eq!(pruned.condemned.objects, 5, "{pruned:?}");
    let objects = appliance.storage.objects.lock().unwrap();
    let told = objects.iter().filter(|(path, _)| path.contains("/refs.") || path.contains("/indexes/"));
    (fetched, told.map(|(_, bytes)| bytes.len() as u64).sum())
}

#[test]
fn a_prune_reads_what_died_and_not_what_lives() {
    run(async {
        let (few, _) = fetched_beside(4).await;
        let (many, told) = fetched_beside(12).await;
        assert!(many * 20 < told, "{many} bytes read, of {told}");
        // Lengths of compressed and sealed objects differ by a little.
        assert!(many < few + 1024, "{many} bytes beside twelve backups, {few} beside four");
    });
}

/// Backups of the second and third files, after prunes that counted them and took off the first.
async fn counted_once(appliance: &Appliance) -> (BackupRecord, BackupRecord) {
    let first = appliance.back_up(&files(1)).await.unwrap();
    let second = appliance.back_up(&files(2)).await.unwrap();
    let kept = appliance.back_up(&files(3)).await.unwrap();
    appliance.remove(&first).await;
    appliance.prune_twice().await;
    (second, kept)
}

#[test]
fn refs_that_were_counted_need_not_be_read_again() {
    run(async {
        let appliance = Appliance::new().await;
        let (second, kept) = counted_once(&appliance).await;
        let refs = appliance.storage.paths(&format!("{}/refs.", kept.backup)).remove(0);
        appliance.storage.change(&refs, |bytes| bytes[9] ^= 1);
        appliance.remove(&second).await;
        let (condemned, _) = appliance.prune_twice().await;
        assert!(condemned.condemned.objects > 3, "{condemned:?}");
        assert!(appliance.holds(&kept, &files(3)).await.unwrap());
    });
}

#[test]
fn what_cannot_be_taken_off_any_more_has_everything_counted_anew() {
    run(async {
        let appliance = Appliance::new().await;
        let (second, kept) = counted_once(&appliance).await;
        // Another appliance prunes until the refs are gone.
        let other = appliance.restarted().await;
        other.remove(&second).await;
        other.prune_twice().await;
        appliance.remove(&kept).await;
        let again = appliance.back_up(&files(3)).await.unwrap();
        let (condemned, _) = appliance.prune_twice().await;
        assert!(condemned.condemned.objects >= 3, "{condemned:?}");
        assert!(appliance.holds(&again, &files(3)).await.unwrap());
        appliance.must_be_sound().await;
    });
}

/// An appliance with a ledger: its first prune, which looks at everything, is over.
async fn pruned_once(appliance: Appliance) -> Appliance {
    let first = appliance.back_up(&files(70)).await.unwrap();
    appliance.back_up(&files(80)).await.unwrap();
    appliance.remove(&first).await;
    appliance.prune_twice().await;
    appliance
}

/// Packs and indexes that lie at a place after prunes that go by the ledger.
async fn left_by_the_ledger(appliance: &Appliance) -> Vec<String> {
    for _ in 0..3 {
        appliance.prune(LATER).await.unwrap();
        appliance.storage.wait(GRACE_MS);
    }
    [appliance.storage.paths("/packs/"), appliance.storage.paths("/indexes/")].concat()
}

/// What another appliance does before some of the next heads are put: the first before the next one.
fn meanwhile(appliance: &Appliance, works: impl IntoIterator<Item = BoxFuture<'static, ()>>) {
    appliance.storage.meanwhile.lock().unwrap().extend(works.into_iter().map(Meanwhile));
}

#[test]
fn what_dies_in_packs_that_a_prune_stores_goes_with_the_next() {
    run(async {
        let appliance = pruned_once(Appliance::new().await).await;
        let before = [appliance.storage.paths("/packs/"), appliance.storage.paths("/indexes/")].concat();
        let (kept, _) = half_dead(&appliance).await;
        let other = appliance.restarted().await;
        // The first head condemns what is dead, the second what was moved.
        let remove = async move { other.remove(&kept).await };
        meanwhile(&appliance, [ready(()).boxed(), remove.boxed()]);
        let pruned = appliance.prune(LATER).await.unwrap();
        assert!(pruned.repacked.objects > 0, "{pruned:?}");
        appliance.storage.wait(GRACE_MS);
        assert_eq!(left_by_the_ledger(&appliance).await, before);
    });
}

#[test]
fn what_comes_and_goes_while_a_prune_runs_leaves_nothing_behind() {
    run(async {
        let appliance = pruned_once(Appliance::new().await).await;
        let before = [appliance.storage.paths("/packs/"), appliance.storage.paths("/indexes/")].concat();
        let gone = appliance.back_up(&files(1)).await.unwrap();
        appliance.remove(&gone).await;
        let (other, backup) = (Arc::new(appliance.restarted().await), Arc::new(Mutex::new(None)));
        let (came, then) = (Arc::clone(&backup), Arc::clone(&other));
        let come = async move { *came.lock().unwrap() = Some(other.back_up(&large(2, 3)).await.unwrap()) };
        let go = async move {
            let record = backup.lock().unwrap().take().unwrap();
            then.remove(&record).await;
        };
        meanwhile(&appliance, [come.boxed(), go.boxed()]);
        appliance.prune(LATER).await.unwrap();
        assert!(appliance.storage.meanwhile.lock().unwrap().is_empty());
        appliance.storage.wait(GRACE_MS);
        assert_eq!(left_by_the_ledger(&appliance).await, before);
    });
}

#[test]
fn an_index_none_of_whose_packs_are_here_goes() {
    run(async {
        let here = Appliance::new().await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let copy = async |record: &BackupRecord| {
            there.repository.copy_backup(&here.repository, here.domain, record.backup, &|_, _| {}).await.unwrap();
        };
        let mut both = large(2, 3);
        both.extend(files(1));
        let [first, second] = [here.back_up(&both).await.unwrap(), here.back_up(&files(9)).await.unwrap()];
        copy(&first).await;
        copy(&second).await;
        there.remove(&second).await;
        there.prune_twice().await;
        there.remove(&first).await;
        there.prune(LATER).await.unwrap();
        // Its chunks come under new names, and so does the index that tells of their former packs.
        let third = here.back_up(&both).await.unwrap();
        copy(&third).await;
        there.storage.wait(GRACE_MS);
        there.prune(LATER).await.unwrap();
        let told = there.storage.paths("/indexes/").len();
        assert!(told > 1);
        for _ in 0..2 {
            let gone = there.back_up(&files(50)).await.unwrap();
            there.remove(&gone).await;
            there.prune_twice().await;
        }
        assert!(there.storage.paths("/indexes/").len() < told, "{told} indexes");
        assert!(there.restarted().await.holds(&third, &both).await.unwrap());
        there.must_be_sound().await;
    });
}

#[test]
fn where_the_ledger_cannot_be_written_a_prune_looks_at_everything() {
    run(async {
        let data = tempfile::tempdir().unwrap();
        let appliance = pruned_once(caching(Appliance::new().await, data.path())).await;
        // Whatever is to be written there is refused from here on.
        std::fs::remove_dir_all(data.path().join(format!("{}.ledger", appliance.domain))).unwrap();
        for seed in [10, 20] {
            let gone = appliance.back_up(&files(seed)).await.unwrap();
            appliance.remove(&gone).await;
            let (condemned, deleted) = appliance.prune_twice().await;
            assert!(condemned.condemned.objects > 3 && deleted.deleted.objects > 3, "{condemned:?} {deleted:?}");
        }
        appliance.must_be_sound().await;
    });
}

/// What may happen at a target between two prunes.
#[derive(Clone, Copy, Debug)]
enum Between {
    Restart,
    Rotation,
    TakeOver,
    Shredding,
    RefsMadeAgain,
    PackMended,
    Copy,
    OtherPruner,
}

impl Between {
    /// Lets it happen, by the same data directory or beside it. Backups that it removes leave the list.
    async fn happen(
        self,
        appliance: Appliance,
        vault: &Appliance,
        data: &Path,
        kept: &mut Vec<(BackupRecord, Files)>,
    ) -> Appliance {
        let domain = appliance.domain;
        let heal = async |damage: &dyn Fn(&Appliance)| {
            damage(&appliance);
            let found = damages(&appliance.repository, domain).await;
            assert!(!found.is_empty());
            let sources = std::slice::from_ref(&vault.repository);
            assert_eq!(appliance.repository.heal(domain, sources, found).await.unwrap().left, []);
        };
        match self {
            Self::Restart => {
                let again = (appliance.storage.clone(), appliance.keyring.clone());
                drop(appliance);
                return caching(Appliance::at(again.0, again.1).await.unwrap(), data);
            }
            Self::Rotation => {
                let keyring = appliance.keyring.current();
                appliance.keyring.replace(keyring.with_new_organization_keys(&keyring.domains()));
                assert!(appliance.repository.rewrap(domain, None, &|_, _| {}).await.unwrap().rewrapped > 0);
            }
            Self::TakeOver => appliance.repository.take_over().await.unwrap(),
            Self::Shredding => {
                let (shredded, _) = kept.remove(0);
                appliance.repository.shred_backup(domain, shredded.backup, 9).await.unwrap();
            }
            Self::RefsMadeAgain => {
                let refs = appliance.storage.paths(&format!("{}/refs.", kept[0].0.backup)).remove(0);
                // No target has them any more.
                vault.storage.objects.lock().unwrap().remove(&refs);
                let before = appliance.storage.objects.lock().unwrap()[&refs].clone();
                heal(&|appliance| drop(appliance.storage.objects.lock().unwrap().remove(&refs))).await;
                assert!(appliance.storage.objects.lock().unwrap()[&refs] != before);
            }
            Self::PackMended => {
                let pack = appliance.storage.paths("/packs/").remove(0);
                // It is whole nowhere: there only what it says of itself is damaged.
                let end = appliance.storage.objects.lock().unwrap()[&pack].len() - 10;
                vault.storage.change(&pack, |bytes| bytes[end] ^= 1);
                heal(&|appliance| appliance.storage.change(&pack, |bytes| bytes[100] ^= 1)).await;
            }
            Self::Copy => {
                let (copied, _) = &kept[0];
                appliance.remove(copied).await;
                appliance.prune(LATER).await.unwrap();
                appliance.storage.wait(GRACE_MS);
                appliance.prune(LATER).await.unwrap();
                appliance.repository.copy_backup(&vault.repository, domain, copied.backup, &|_, _| {}).await.unwrap();
            }
            Self::OtherPruner => {
                let (removed, _) = kept.remove(0);
                let other = appliance.restarted().await;
                other.remove(&removed).await;
                other.prune_twice().await;
            }
        }
        appliance
    }
}

#[test]
fn whatever_happens_between_prunes_the_next_takes_what_is_dead_and_nothing_else() {
    run(async {
        let all = [
            Between::Restart,
            Between::Rotation,
            Between::TakeOver,
            Between::Shredding,
            Between::RefsMadeAgain,
            Between::PackMended,
            Between::Copy,
            Between::OtherPruner,
        ];
        for between in all {
            let data = tempfile::tempdir().unwrap();
            let mut appliance = caching(Appliance::new().await, data.path());
            let vault = Appliance::at(Memory::new(), appliance.keyring.clone()).await.unwrap();
            let mut kept = days(&appliance, 6).await;
            for (record, _) in &kept {
                let copy = vault.repository.copy_backup(&appliance.repository, vault.domain, record.backup, &|_, _| {});
                copy.await.unwrap();
            }
            appliance.remove(&kept.remove(0).0).await;
            appliance.prune_twice().await;
            appliance = between.happen(appliance, &vault, data.path(), &mut kept).await;
            while !kept.is_empty() {
                appliance.remove(&kept.remove(0).0).await;
                appliance.prune_twice().await;
                appliance.must_be_sound().await;
                let again = appliance.restarted().await;
                for (record, files) in &kept {
                    assert!(again.holds(record, files).await.unwrap(), "{between:?}");
                }
            }
            appliance.storage.wait(GRACE_MS);
            appliance.prune(LATER).await.unwrap();
            let left = [appliance.storage.paths("/packs/"), appliance.storage.paths("/indexes/")].concat();
            let named = appliance.repository.check_structure(appliance.domain, &|_, _| {}).await.unwrap();
            assert_eq!((left, named.backups), (vec![], 0), "{between:?}");
        }
    });
}

/// Prunes with a place that is cut off after so many operations; whether it was.
async fn cut(appliance: &Appliance, operations: u64, answers_are_lost: bool, options: PruneOptions) -> bool {
    appliance.storage.cut_off_after(operations, answers_are_lost);
    let result = match appliance.prune(options).await {
        Ok(_) => appliance.repository.collect_garbage(options).await,
        error => error,
    };
    let was_cut = appliance.storage.mend();
    assert!(result.is_err() || !was_cut);
    was_cut
}

#[test]
fn a_kill_at_any_operation_costs_nothing_and_the_next_prune_goes_on() {
    run(async {
        let base = Appliance::new().await;
        let (kept, contents) = half_dead(&base).await;
        let clean = base.copy().await;
        clean.prune_twice().await;
        let expected = clean.stored();
        for (now, answers_are_lost) in [(false, false), (false, true), (true, false), (true, true)] {
            let options = if now { NOW } else { LATER };
            let mut kills = 0;
            for operations in 0.. {
                let appliance = base.copy().await;
                let mut was_cut = cut(&appliance, operations, answers_are_lost, options).await;
                if !now {
                    appliance.storage.wait(GRACE_MS);
                    let again = appliance.restarted().await;
                    was_cut |= cut(&again, operations, answers_are_lost, options).await;
                }
                let again = appliance.restarted().await;
                again.must_be_sound().await;
                assert!(again.holds(&kept, &contents).await.unwrap(), "{operations}");
                for _ in 0..3 {
                    again.prune(LATER).await.unwrap();
                    again.storage.wait(GRACE_MS);
                }
                again.repository.collect_garbage(LATER).await.unwrap();
                again.must_be_sound().await;
                assert!(again.holds(&kept, &contents).await.unwrap(), "{operations}");
                assert_eq!(again.stored(), expected, "{operations}: {:?}", again.storage.paths(""));
                kills += u64::from(was_cut);
                if !was_cut {
                    break;
                }
            }
            assert!(kills > 20, "{kills}");
        }
    });
}

#[test]
fn a_full_place_at_any_step_costs_nothing() {
    run(async {
        let base = Appliance::new().await;
        let (kept, contents) = half_dead(&base).await;
        for now in [false, true] {
            let options = if now { NOW } else { LATER };
            for room in (0..400_000).step_by(1_999) {
                let appliance = base.copy().await;
                appliance.storage.room.store(appliance.storage.bytes() + room, Ordering::SeqCst);
                // Whether there was room for all of it or not.
                let _ = appliance.prune(options).await;
                appliance.storage.room.store(u64::MAX, Ordering::SeqCst);
                let again = appliance.restarted().await;
                again.must_be_sound().await;
                assert!(again.holds(&kept, &contents).await.unwrap(), "{room}");
            }
        }
    });
}

#[test]
fn deleting_works_where_nothing_is_free() {
    run(async {
        let appliance = Appliance::new().await;
        let (first, contents) = (appliance.back_up(&files(1)).await.unwrap(), files(1));
        let second = appliance.back_up(&large(2, 3)).await.unwrap();
        let full = appliance.storage.bytes();
        appliance.storage.room.store(full, Ordering::SeqCst);
        assert_eq!(appliance.back_up(&files(3)).await.unwrap_err().code(), "storage-full");
        appliance.remove(&second).await;
        let pruned = appliance.prune(NOW).await.unwrap();
        assert!(pruned.deleted.bytes > 3 << 20, "{pruned:?}");
        assert!(appliance.storage.bytes() < full - (2 << 20));
        assert!(!appliance.storage.paths("reserve").is_empty(), "there is room again for the next time");
        let again = appliance.restarted().await;
        assert!(again.holds(&first, &contents).await.unwrap());
        again.back_up(&files(3)).await.unwrap();
        again.must_be_sound().await;
    });
}

#[test]
fn deleting_works_on_a_real_file_system_without_a_free_byte() {
    run(async {
        let scratch = tempfile::tempdir().unwrap();
        let Some(disk) = SmallDisk::mount(&scratch.path().join("disk"), 24).unwrap() else {
            return eprintln!("SKIPPED: deleting on a full file system: no tmpfs can be mounted here");
        };
        let keyring = SharedKeyring::new(Keyring::generate().with_domain("acme"));
        let domain = keyring.current().domain_of("acme").unwrap();
        let storage = Arc::new(Local::new(disk.path().join("repository")));
        let repository = Repository::open_or_create(storage.clone(), keyring.clone()).await.unwrap();
        let back_up = async |seed, megabytes: usize| {
            let plan = BackupPlan {
                backup: BackupId::random(),
                domain,
                parent: None,
                component: None,
                started_ms: 1,
                compression: Compression::default(),
            };
            let writer = repository.begin_backup(plan).await?;
            let mut entry = writer.begin_entry(file("large"), ContentClass::Pages(8192)).await?;
            entry.write(&noise(seed, megabytes << 20)).await?;
            entry.finish().await?;
            writer.commit(record("one"), "{}".into()).await
        };
        let kept = back_up(1, 4).await.unwrap();
        let gone = back_up(2, 8).await.unwrap();
        disk.fill().unwrap();
        assert_eq!(back_up(3, 1).await.unwrap_err().code(), "storage-full");
        repository.remove_backup(domain, gone.backup, 1).await.unwrap();
        let pruned = repository.prune(domain, NOW, &|_, _, _| {}).await.unwrap();
        assert!(pruned.deleted.bytes > 8 << 20, "{pruned:?}");
        back_up(3, 4).await.unwrap();
        let structure = repository.check_structure(domain, &|_, _| {}).await.unwrap();
        assert_eq!((structure.backups, structure.damages), (2, vec![]));
        let reader = repository.open_backup(domain, kept.backup).await.unwrap();
        assert_eq!(read(&reader, "large", 0, None).await.unwrap(), noise(1, 4 << 20));
    });
}

#[test]
fn what_somebody_holds_is_not_removed() {
    run(async {
        let here = Appliance::new().await;
        let there = Appliance::at(Memory::new(), here.keyring.clone()).await.unwrap();
        let held = here.back_up(&files(1)).await.unwrap();
        let hold = Hold { name: "alice".into(), reason: "audit".into(), at_ms: 5 };
        here.repository.set_holds(here.domain, held.backup, vec![hold.clone()]).await.unwrap();
        here.repository.amend(here.domain, vec![held.clone()]).await.unwrap();
        there.repository.copy_backup(&here.repository, here.domain, held.backup, &|_, _| {}).await.unwrap();
        for place in [&here, &there.restarted().await] {
            let error = place.repository.remove_backup(place.domain, held.backup, 6).await.unwrap_err();
            assert!(error.code() == "backup-held" && error.hint().is_some(), "{error}");
            let holds = place.repository.holds(place.domain).await.unwrap();
            assert_eq!(holds[&held.backup], std::slice::from_ref(&hold));
            place.repository.set_holds(place.domain, held.backup, vec![]).await.unwrap();
            assert!(place.repository.holds(place.domain).await.unwrap().is_empty());
            place.remove(&held).await;
        }
    });
}
