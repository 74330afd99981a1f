//! The index cache, as a whole appliance uses it.

use std::path::{Path, PathBuf};

use holdfast_repository::{ContentClass, Digest};

use crate::setting::{Appliance, Files, noise, run};

/// Backups, and so indexes: more than stay in memory.
const BACKUPS: u64 = 300;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("holdfast-test-{}", holdfast_repository::BackupId::random())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An appliance whose indexes are cached in a directory.
pub fn caching(appliance: Appliance, directory: &Path) -> Appliance {
    let repository = appliance.repository.clone().with_index_cache(directory.to_owned());
    Appliance { repository, ..appliance }
}

fn files(number: u64) -> Files {
    Files::from([("file".to_owned(), (ContentClass::Bytes, noise(number, 600)))])
}

#[test]
fn a_restart_reads_few_indexes_again_and_a_damaged_cache_costs_no_backup() {
    run(async {
        let scratch = Scratch::new();
        let appliance = caching(Appliance::new().await, &scratch.0);
        let mut records = Vec::new();
        for number in 0..BACKUPS {
            records.push(appliance.back_up(&files(number)).await.unwrap());
        }
        let (storage, keyring) = (appliance.storage.clone(), appliance.keyring.clone());
        drop(appliance);

        let again = caching(Appliance::at(storage.clone(), keyring.clone()).await.unwrap(), &scratch.0);
        let before = storage.operations();
        assert!(again.holds(&records[0], &files(0)).await.unwrap());
        let needed = storage.operations() - before;
        assert!(needed < BACKUPS / 2, "{needed} operations");
        let known = again.back_up(&files(7)).await.unwrap();
        assert!(again.holds(&known, &files(7)).await.unwrap());
        drop(again);

        let domain = scratch.0.join(keyring.current().domain_of("acme").unwrap().to_string());
        let runs = std::fs::read_dir(&domain).unwrap().map(|entry| entry.unwrap().path());
        let runs: Vec<_> = runs.filter(|path| !path.ends_with("lock")).collect();
        assert!(!runs.is_empty());
        for run in &runs {
            let mut bytes = std::fs::read(run).unwrap();
            bytes[2000] ^= 1;
            std::fs::write(run, bytes).unwrap();
        }
        let again = caching(Appliance::at(storage.clone(), keyring.clone()).await.unwrap(), &scratch.0);
        // A page that was changed is refused by whoever comes to it, and then the indexes are read instead.
        let mut refused = None;
        for number in 0..BACKUPS {
            refused = again.back_up(&files(number)).await.err();
            if refused.is_some() {
                break;
            }
        }
        let refused = refused.unwrap();
        assert!(refused.code() == "index-cache" && !refused.is_permanent() && refused.hint().is_some());
        let damages = again.repository.check_structure(again.domain, &|_, _| {}).await.unwrap().damages;
        assert!(damages.is_empty(), "the cache is no part of the repository: {damages:?}");
        let record = again.back_up(&files(1)).await.unwrap();
        assert_eq!(record.component, Digest::of(b"a component"));
        for (record, number) in records.iter().zip(0..).step_by(37) {
            assert!(again.holds(record, &files(number)).await.unwrap());
        }
    });
}
