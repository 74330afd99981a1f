//! What reading a chain asks a store for: nothing twice, nothing that a checkpoint repeats, and side by side what it can.

use std::sync::Arc;
use std::time::Duration;

use holdfast_repository::{ContentClass, Error, Repository};
use holdfast_storage::faulty::{Fault, Faults, Rule};
use holdfast_storage::{Operation, Storage};

use crate::setting::{Appliance, Files, run};

/// Heads from one checkpoint to the next.
const CHECKPOINT_EVERY: u64 = 256;
/// How many heads are asked for at once.
const AT_ONCE: usize = 32;

fn tiny() -> Files {
    Files::from([("file".to_owned(), (ContentClass::Bytes, b"a few bytes".to_vec()))])
}

/// So many backups, and a store over them that notes what it is asked.
async fn backups(count: u64) -> (Appliance, Arc<dyn Storage>, Faults) {
    let appliance = Appliance::new().await;
    for _ in 0..count {
        appliance.back_up(&tiny()).await.unwrap();
    }
    let (store, faults) = Faults::over(appliance.storage.clone());
    (appliance, store, faults)
}

fn head(appliance: &Appliance, sequence: u64) -> String {
    format!("domains/{}/heads/{sequence:016x}", appliance.domain)
}

#[test]
fn opening_asks_for_the_last_checkpoint_and_what_is_behind_it_once() {
    run(async {
        let count = 2_000;
        let (appliance, store, faults) = backups(count).await;
        let repository = Repository::open_read_only(store, appliance.keyring.clone()).await.unwrap();
        let calls = faults.calls();

        let folder = format!("domains/{}/heads/", appliance.domain);
        let is_head =
            |(operation, path): &&(Operation, String)| *operation == Operation::Get && path.starts_with(&folder);
        let mut heads: Vec<&String> = calls.iter().filter(is_head).map(|(_, path)| path).collect();
        heads.sort_unstable();
        // The last one is not there: a listing may lag.
        let expected: Vec<String> =
            (count - count % CHECKPOINT_EVERY..=count).map(|sequence| head(&appliance, sequence)).collect();
        assert_eq!(heads, expected.iter().collect::<Vec<_>>());
        // The repository itself, its keyring, and two listings for each of its two domains, whose other one has no heads.
        let others = calls.len() - heads.len();
        assert!(
            others <= 12,
            "{others} other calls: {:?}",
            calls.iter().filter(|call| !is_head(call)).collect::<Vec<_>>()
        );
        assert_eq!(repository.backups(appliance.domain).await.unwrap().len() as u64, count);
    });
}

#[test]
fn heads_behind_a_checkpoint_are_asked_for_side_by_side() {
    run(async {
        let (appliance, store, faults) = backups(AT_ONCE as u64 + 8).await;
        // The first head of all is asked for alone, for it might be a checkpoint.
        let heads = Rule::on(Operation::Get, &format!("domains/{}/heads/", appliance.domain));
        faults.add(heads.skipping(1).always(Fault::Block));
        let opening = tokio::spawn(Repository::open_read_only(store, appliance.keyring.clone()));
        tokio::time::timeout(Duration::from_secs(120), faults.blocked(AT_ONCE)).await.unwrap();
        faults.clear();
        let repository = opening.await.unwrap().unwrap();
        assert_eq!(repository.backups(appliance.domain).await.unwrap().len(), AT_ONCE + 8);
    });
}

#[test]
fn a_chain_with_a_hole_is_refused_each_time() {
    run(async {
        let reader = Appliance::new().await;
        let writer = reader.restarted().await;
        for _ in 0..4 {
            writer.back_up(&tiny()).await.unwrap();
        }
        let bytes = reader.storage.objects.lock().unwrap().remove(&head(&reader, 2)).unwrap();
        for _ in 0..2 {
            let refused = reader.repository.backups(reader.domain).await;
            assert!(matches!(refused, Err(Error::ChainBroken { .. })), "{refused:?}");
        }
        reader.storage.objects.lock().unwrap().insert(head(&reader, 2), bytes);
        assert_eq!(reader.repository.backups(reader.domain).await.unwrap().len(), 4);
    });
}
