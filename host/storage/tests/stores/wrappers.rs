//! The wrappers: faults come as ordered, and passing ones are waited out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::faulty::{Fault, Faults, Kind, Rule};
use holdfast_storage::{Error, Local, Operation, Patience, Retrying, Storage};
use tempfile::TempDir;

const ONE: Bytes = Bytes::from_static(b"one");

/// A faulty directory, its faults, and the store behind it.
fn faulty() -> (Arc<dyn Storage>, Faults, Arc<dyn Storage>, TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    let inner: Arc<dyn Storage> = Arc::new(Local::new(scratch.path()));
    let (storage, faults) = Faults::over(Arc::clone(&inner));
    (storage, faults, inner, scratch)
}

fn impatient(inner: Arc<dyn Storage>) -> Retrying {
    let patience = Patience {
        attempts: 4,
        first_wait: Duration::from_millis(1),
        attempt: Duration::from_millis(50),
        ..Patience::default()
    };
    Retrying::new(inner, patience)
}

fn count(faults: &Faults, operation: Operation) -> usize {
    faults.calls().iter().filter(|(called, _)| *called == operation).count()
}

#[tokio::test]
async fn the_nth_matching_call_fails_and_no_other() {
    let (storage, faults, _, _scratch) = faulty();
    faults.add(Rule::on(Operation::Put, "packs/").skipping(1).once(Fault::Fail(Kind::Full)));
    storage.put("packs/1", ONE).await.unwrap();
    storage.put("indexes/1", ONE).await.unwrap();
    assert!(matches!(storage.put("packs/2", ONE).await, Err(Error::Full { .. })));
    storage.put("packs/3", ONE).await.unwrap();
    assert_eq!(storage.head("packs/2").await.unwrap(), None);
    let calls: Vec<String> = faults.calls().into_iter().map(|(_, path)| path).collect();
    assert_eq!(calls, ["packs/1", "indexes/1", "packs/2", "packs/3", "packs/2"]);
}

#[tokio::test]
async fn hidden_objects_are_there_and_not_shown() {
    let (storage, faults, inner, _scratch) = faulty();
    storage.put("heads/1", ONE).await.unwrap();
    storage.put("other", ONE).await.unwrap();
    faults.add(Rule::any("heads/").always(Fault::Hide));
    assert_eq!(storage.list("").await.unwrap().len(), 1);
    assert_eq!(storage.list("heads/1").await.unwrap(), []);
    assert_eq!(storage.head("heads/1").await.unwrap(), None);
    assert!(matches!(storage.get("heads/1", None).await, Err(Error::NotFound { .. })));
    assert_eq!(inner.get("heads/1", None).await.unwrap(), ONE);
    faults.clear();
    assert_eq!(storage.get("heads/1", None).await.unwrap(), ONE);
}

#[tokio::test]
async fn torn_and_flipped_bytes_come_as_ordered() {
    let (storage, faults, inner, _scratch) = faulty();
    faults.add(Rule::on(Operation::Put, "").once(Fault::Tear(2, Kind::Unreachable)));
    assert!(matches!(storage.put("torn", ONE).await, Err(Error::Unreachable { .. })));
    assert_eq!(inner.get("torn", None).await.unwrap(), "on");
    storage.put("torn", ONE).await.unwrap();
    faults.add(Rule::on(Operation::Get, "").once(Fault::Flip));
    assert_eq!(storage.get("torn", None).await.unwrap(), "ooe");
    assert_eq!(storage.get("torn", None).await.unwrap(), ONE);
}

#[tokio::test]
async fn a_blocked_call_goes_on_when_released() {
    let (storage, faults, inner, _scratch) = faulty();
    faults.add(Rule::on(Operation::Put, "").once(Fault::Block));
    let blocked = tokio::spawn(async move { storage.put("object", ONE).await });
    faults.blocked(1).await;
    assert_eq!(inner.head("object").await.unwrap(), None);
    faults.release();
    blocked.await.unwrap().unwrap();
    assert_eq!(inner.get("object", None).await.unwrap(), ONE);
}

#[tokio::test]
async fn passing_faults_are_waited_out() {
    let (storage, faults, _, _scratch) = faulty();
    let storage = impatient(storage);
    faults.add(Rule::on(Operation::Put, "").once(Fault::Fail(Kind::Unreachable)));
    faults.add(Rule::on(Operation::Put, "").once(Fault::Fail(Kind::Busy)));
    storage.put("object", ONE).await.unwrap();
    assert_eq!(count(&faults, Operation::Put), 3);
}

#[tokio::test]
async fn permanent_faults_are_not_tried_again() {
    let (storage, faults, _, _scratch) = faulty();
    let storage = impatient(storage);
    for kind in [Kind::Full, Kind::Denied, Kind::Io] {
        faults.add(Rule::on(Operation::Put, "").once(Fault::Fail(kind)));
        assert!(storage.put("object", ONE).await.unwrap_err().is_permanent());
    }
    assert_eq!(count(&faults, Operation::Put), 3);
    assert!(matches!(storage.get("missing", None).await, Err(Error::NotFound { .. })));
    assert_eq!(count(&faults, Operation::Get), 1);
}

#[tokio::test]
async fn patience_ends() {
    let (storage, faults, _, _scratch) = faulty();
    faults.add(Rule::any("").always(Fault::Fail(Kind::Unreachable)));
    let error = impatient(storage).list("packs/").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }));
    assert_eq!(count(&faults, Operation::List), 4);
}

#[tokio::test]
async fn an_attempt_that_stands_still_is_given_up() {
    let (storage, faults, _, _scratch) = faulty();
    let storage = impatient(storage);
    faults.add(Rule::on(Operation::Head, "").once(Fault::Block));
    assert_eq!(storage.head("object").await.unwrap(), None, "the second attempt answers");
    faults.add(Rule::on(Operation::Head, "").always(Fault::Block));
    assert!(matches!(storage.head("object").await, Err(Error::Stalled { .. })));
}

#[tokio::test]
async fn a_lost_acknowledgement_of_a_conditional_write_is_settled_by_reading() {
    let (storage, faults, inner, _scratch) = faulty();
    let storage = impatient(storage);
    faults.add(Rule::on(Operation::PutIfAbsent, "heads/").once(Fault::FailAfterwards(Kind::Unreachable)));
    assert!(storage.put_if_absent("heads/1", ONE).await.unwrap());
    inner.put("heads/2", Bytes::from_static(b"theirs")).await.unwrap();
    faults.add(Rule::on(Operation::PutIfAbsent, "heads/").once(Fault::Fail(Kind::Unreachable)));
    assert!(!storage.put_if_absent("heads/2", ONE).await.unwrap());
}
