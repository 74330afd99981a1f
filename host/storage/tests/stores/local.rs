//! The directory as a store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::conformance::conformance;
use holdfast_storage::{Error, Local, Settings, Storage, Traits, open, probe};

fn store(root: &Path) -> Arc<dyn Storage> {
    open(&format!("file://{}", root.display()), &Settings::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = store(&scratch.path().join("root"));
    assert_eq!(probe(&*storage).await.unwrap().traits, Traits { conditional_writes: true });
    conformance(storage).await;
}

#[tokio::test]
async fn reading_makes_no_directory() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    let storage = store(&root);
    assert!(matches!(storage.get("repository.json", None).await, Err(Error::NotFound { .. })));
    assert_eq!(storage.list("").await.unwrap(), []);
    storage.delete("repository.json").await.unwrap();
    assert!(!root.exists());
}

#[tokio::test]
async fn objects_are_for_our_user_only_and_leave_no_temporary_files() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    let storage = store(&root);
    storage.put("a/b/object", Bytes::from_static(b"1")).await.unwrap();
    storage.put_if_absent("a/b/object", Bytes::from_static(b"2")).await.unwrap();
    storage.put_if_absent("a/b/other", Bytes::from_static(b"3")).await.unwrap();
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a/b/object"), mode("a/b"), mode("tmp")), (0o600, 0o700, 0o700));
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_not_ours_is_neither_listed_nor_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "outside").unwrap();
    let storage = store(scratch.path());
    storage.put("mine", Bytes::from_static(b"1")).await.unwrap();
    fs::write(scratch.path().join("tmp/write-0123"), "on its way").unwrap();
    fs::write(scratch.path().join("not ours"), "a space").unwrap();
    fs::create_dir(scratch.path().join("lost+found")).unwrap();
    std::os::unix::fs::symlink(outside.path(), scratch.path().join("linked")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), scratch.path().join("link")).unwrap();
    let listed: Vec<String> = storage.list("").await.unwrap().into_iter().map(|object| object.path).collect();
    assert_eq!(listed, ["mine"]);
    assert!(matches!(storage.get("link", None).await, Err(Error::NotFound { .. })));
    assert_eq!(storage.head("link").await.unwrap(), None);
}

#[tokio::test]
async fn a_dead_writer_s_leftovers_go_with_the_next_write() {
    let scratch = tempfile::tempdir().unwrap();
    let left = scratch.path().join(format!("tmp/write-{}", "0a".repeat(16)));
    fs::create_dir(scratch.path().join("tmp")).unwrap();
    fs::write(&left, "half a pack").unwrap();
    let storage = store(scratch.path());
    storage.list("").await.unwrap();
    assert!(left.exists(), "reading changes nothing");
    storage.put("object", Bytes::from_static(b"1")).await.unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn a_directory_that_was_removed_is_made_again() {
    let scratch = tempfile::tempdir().unwrap();
    let root = scratch.path().join("root");
    let storage = store(&root);
    storage.put("a/object", Bytes::from_static(b"1")).await.unwrap();
    fs::remove_dir_all(&root).unwrap();
    assert!(storage.put("a/object", Bytes::from_static(b"2")).await.is_err(), "what it knew is no longer true");
    storage.put("a/object", Bytes::from_static(b"3")).await.unwrap();
    assert_eq!(storage.get("a/object", None).await.unwrap(), "3");
}

#[tokio::test]
async fn a_file_in_the_way_is_an_error_and_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let storage = Local::new(scratch.path());
    storage.put("a", Bytes::from_static(b"1")).await.unwrap();
    let error = storage.put("a/b", Bytes::from_static(b"2")).await.unwrap_err();
    assert!(error.is_permanent());
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot write a/b at {}: making a directory failed", storage.location())),
        "{error}"
    );
    assert_eq!(storage.get("a", None).await.unwrap(), "1");
}
