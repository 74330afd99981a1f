//! A full disk: writes fail with a reason, what is there stays, and deleting works. Needs the right to mount.

use bytes::Bytes;
use holdfast_storage::{Error, Local, Storage};
use holdfast_tests::disk::SmallDisk;

#[tokio::test]
async fn a_full_disk_fails_the_write_and_deleting_frees_it() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&scratch.path().join("disk"), 1).unwrap() else {
        eprintln!("SKIPPED: a_full_disk_fails_the_write_and_deleting_frees_it needs the right to mount a tmpfs");
        return;
    };
    let storage = Local::new(disk.path());
    let quarter = Bytes::from(vec![1; 250 << 10]);
    let mut written = Vec::new();
    let error = loop {
        let path = format!("packs/{}", written.len());
        match storage.put_if_absent(&path, quarter.clone()).await {
            Ok(true) => written.push(path),
            Ok(false) => panic!("nothing was at {path}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert!(error.is_permanent() && error.hint().is_some());
    // What the failed write left is gone; the last bytes are taken by somebody else.
    disk.fill().unwrap();
    assert!(matches!(storage.put("packs/more", quarter.clone()).await, Err(Error::Full { .. })));
    let listed: Vec<String> = storage.list("packs/").await.unwrap().into_iter().map(|object| object.path).collect();
    assert_eq!(listed, written, "old objects are intact, and the failed one is not there");
    assert_eq!(storage.get(&written[0], None).await.unwrap(), quarter);
    storage.delete(&written[0]).await.unwrap();
    storage.put("packs/more", quarter).await.unwrap();
}
