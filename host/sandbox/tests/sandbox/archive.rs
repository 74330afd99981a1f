//! A backup's way out and back through a guest: a server's bytes into an archive, and from there to files and to a server.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use holdfast_repository::{
    BackupId, BackupPlan, BackupReader, BackupRecord, BackupWriter, Compression, ContentClass, DomainId, Entry,
    EntryKind, InstanceId, Keyring, Repository, SharedKeyring,
};
use holdfast_sandbox::{Call, Destination, Failure, Grants, Limits, Member};
use holdfast_storage::Local;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::guest::{CONNECT, DONE, RESULT, Sandbox, code, component, limit, watch};

/// Returns a host call's result where it is an error.
const OR_ERROR: &str = "(if (i32.load8_u (i32.const 64)) (then (return (i32.const 64))))";
/// The same for a result of 64 bits, which has its error four bytes further on.
const OR_WIDE_ERROR: &str = "(if (i32.load8_u (i32.const 64)) (then
    (memory.copy (i32.const 68) (i32.const 72) (i32.const 32)) (return (i32.const 64))))";

/// Sends what `server` sends into the entry `data/file`, declared to have `size` bytes if that is not negative.
fn dump(size: i64) -> Arc<[u8]> {
    let declared = i32::from(size >= 0);
    component(
        "data/file",
        &format!(
            "{CONNECT}
            (call $begin-entry (i32.const 512) (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0)
                (i32.const {declared}) (i64.const {size}) (i32.const 384) (i64.const 1700000000)
                (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const {RESULT})) {OR_ERROR}
            (local.set $sink (i32.load (i32.const 68)))
            (local.set $source (call $input (local.get $connection)))
            (call $read-exact (local.get $source) (i32.const 6) (i32.const {RESULT})) {OR_ERROR}
            (call $write (local.get $sink) (i32.load (i32.const 68)) (i32.const 6) (i32.const {RESULT})) {OR_ERROR}
            (call $transfer (local.get $source) (local.get $sink) (i64.const -1) (i32.const {RESULT})) {OR_WIDE_ERROR}
            (call $finish (local.get $sink) (i32.const {RESULT})) {OR_WIDE_ERROR}
            {DONE}"
        ),
    )
}

/// Extracts `data/file` to `copy` in the main root, and settles or forgets to.
fn extract(settle: bool) -> Arc<[u8]> {
    let settle = if settle { format!("(call $settle (i32.const {RESULT})) {OR_WIDE_ERROR}") } else { String::new() };
    component(
        "data/filecopy",
        &format!(
            "(i32.store (i32.const 640) (i32.const 512)) (i32.store (i32.const 644) (i32.const 9))
            (i32.store (i32.const 648) (i32.const 0)) (i32.store (i32.const 652) (i32.const 0))
            (i32.store (i32.const 656) (i32.const 521)) (i32.store (i32.const 660) (i32.const 4))
            (i32.store (i32.const 664) (i32.const 416))
            (call $extract (i32.const 640) (i32.const 1) (i32.const {RESULT})) {OR_ERROR}
            {settle} {DONE}"
        ),
    )
}

/// Sends `data/file` from its byte 10 on to a server.
fn send() -> Arc<[u8]> {
    component(
        "data/file",
        &format!(
            "{CONNECT}
            (call $current (i32.const {RESULT}))
            (call $open (i32.load (i32.const 68)) (i32.const 512) (i32.const 9) (i64.const 10)
                (i32.const 0) (i64.const 0) (i32.const {RESULT})) {OR_ERROR}
            (local.set $source (i32.load (i32.const 68)))
            (local.set $sink (call $output (local.get $connection)))
            (call $transfer (local.get $source) (local.get $sink) (i64.const -1) (i32.const {RESULT})) {OR_WIDE_ERROR}
            (call $finish (local.get $sink) (i32.const {RESULT})) {OR_WIDE_ERROR}
            {DONE}"
        ),
    )
}

struct Store {
    repository: Repository,
    domain: DomainId,
    directory: tempfile::TempDir,
}

impl Store {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let keyring = Keyring::generate().with_domain("acme");
        let domain = keyring.domain_of("acme").expect("just made");
        let storage = Arc::new(Local::new(directory.path().join("repository")));
        let repository = Repository::open_or_create(storage, SharedKeyring::new(keyring)).await.expect("opens");
        Self { repository, domain, directory }
    }

    async fn begin(&self, backup: BackupId) -> Arc<BackupWriter> {
        let component = Some(Arc::from(&b"component"[..]));
        let plan = BackupPlan {
            backup,
            domain: self.domain,
            parent: None,
            component,
            started_ms: 1,
            compression: Compression::default(),
        };
        Arc::new(self.repository.begin_backup(plan).await.expect("begins"))
    }

    async fn commit(&self, backup: BackupId, writer: Arc<BackupWriter>) -> BackupReader {
        let writer = Arc::try_unwrap(writer).expect("the run has given its writer back");
        writer.commit(record(backup), "{}".to_owned()).await.expect("commits");
        self.repository.open_backup(self.domain, backup).await.expect("opens")
    }
}

fn record(backup: BackupId) -> BackupRecord {
    BackupRecord {
        organization: "acme".to_owned(),
        project: "shop".to_owned(),
        instance_name: "guest".to_owned(),
        name: "now".to_owned(),
        engine: "guest".to_owned(),
        site: "here".to_owned(),
        ..BackupRecord::new(backup, InstanceId::random(), 1)
    }
}

/// More than some chunks, and not a multiple of anything.
fn content() -> Vec<u8> {
    (0..3_000_001_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Runs a dump of `content` against a server on the socket at `path`.
async fn dumped(guest: Arc<[u8]>, mut grants: Grants, path: &Path) -> Result<serde_json::Value, Failure> {
    let listener = UnixListener::bind(path).expect("bound");
    grants.members = vec![Member::Unix(path.to_owned())];
    let plugin = Sandbox::new().load(guest).await;
    let run = tokio::spawn(async move { plugin.run(Call::Probe, grants, watch().0).await });
    let (mut server, _) = listener.accept().await.expect("dialled");
    // A guest that fails hangs up early.
    let _ = server.write_all(&content()).await;
    drop(server);
    run.await.expect("no panic")
}

/// A backup of `content` as `data/file`.
async fn backup(store: &Store) -> BackupReader {
    let id = BackupId::random();
    let writer = store.begin(id).await;
    let grants = Grants { writer: Some(writer.clone()), ..Grants::default() };
    let result = dumped(dump(-1), grants, &store.directory.path().join("server")).await;
    assert!(result.is_ok(), "{result:?}");
    assert_eq!(writer.totals(), (1, content().len() as u64));
    store.commit(id, writer).await
}

#[tokio::test]
async fn bytes_come_back_as_files() {
    let store = Store::new().await;
    let current = Some(backup(&store).await);
    for (settle, name) in [(true, "settled"), (false, "forgotten")] {
        let root = store.directory.path().join(name);
        std::fs::create_dir(&root).expect("created");
        let grants = || Grants {
            current: current.clone(),
            destination: Some(Destination { roots: vec![(String::new(), root.clone())], owner: None }),
            ..Grants::default()
        };
        let sandbox = Sandbox::new();
        let result = sandbox.probe(extract(settle), grants()).await;
        assert!(result.is_ok(), "{result:?}");
        assert!(std::fs::read(root.join("copy")).expect("there") == content(), "the same bytes");
        // Settled or not, what went wrong in the queue is the run's failure.
        assert_eq!(code(sandbox.probe(extract(settle), grants()).await), "already-exists");
        let few = Limits { output_bytes: 1_000_000, ..Limits::default() };
        std::fs::remove_file(root.join("copy")).expect("there");
        assert_eq!(limit(sandbox.probe(extract(settle), Grants { limits: few, ..grants() }).await), "output");
        assert!(!root.join("copy").exists(), "an unfinished file is removed");
    }
}

/// Larger than many parts together, with zeros in the middle and at the end.
fn sparse() -> Vec<u8> {
    let noise = |seed: u32| (0..6_000_000_u32).map(move |at| ((at ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8);
    noise(1).chain(vec![0; 9 << 20]).chain(noise(2)).chain(vec![0; 5_000_001]).collect()
}

/// A backup of these bytes as `data/file`.
async fn kept(store: &Store, bytes: &[u8]) -> BackupReader {
    let id = BackupId::random();
    let writer = store.begin(id).await;
    let entry = Entry {
        path: "data/file".to_owned(),
        kind: EntryKind::File,
        size: None,
        mode: 0o600,
        modified: 1,
        annotations: BTreeMap::new(),
    };
    let mut entry = writer.begin_entry(entry, ContentClass::Pages(8_192)).await.expect("begins");
    entry.write(bytes).await.expect("written");
    entry.finish().await.expect("finished");
    store.commit(id, writer).await
}

fn granted(current: &BackupReader, root: &Path) -> Grants {
    let destination = Some(Destination { roots: vec![(String::new(), root.to_owned())], owner: None });
    Grants { current: Some(current.clone()), destination, ..Grants::default() }
}

#[tokio::test]
async fn a_large_file_comes_back_with_its_holes() {
    let store = Store::new().await;
    let bytes = sparse();
    let current = kept(&store, &bytes).await;
    let root = store.directory.path().join("root");
    std::fs::create_dir(&root).expect("created");
    let result = Sandbox::new().probe(extract(true), granted(&current, &root)).await;
    assert!(result.is_ok(), "{result:?}");
    assert!(std::fs::read(root.join("copy")).expect("there") == bytes, "the same bytes");
    let metadata = std::fs::metadata(root.join("copy")).expect("there");
    assert_eq!((metadata.len(), metadata.mode() & 0o7777), (bytes.len() as u64, 0o640));
    let room = metadata.blocks() * 512;
    assert!(room < 13_000_000, "{room} bytes of room for 12,000,000 that are no zeros");
}

#[tokio::test]
async fn a_file_that_cannot_be_had_whole_is_removed() {
    let store = Store::new().await;
    let current = kept(&store, &sparse()).await;
    let root = store.directory.path().join("root");
    std::fs::create_dir(&root).expect("created");

    let (cancelled, _) = watch();
    cancelled.cancel.cancel();
    let plugin = Sandbox::new().load(extract(true)).await;
    let result = plugin.run(Call::Probe, granted(&current, &root), cancelled).await;
    assert!(matches!(result, Err(Failure::Cancelled)), "{result:?}");
    assert_eq!(std::fs::read_dir(&root).expect("there").count(), 0);

    // Somewhere in the second half: its first parts are written and its last ones are not.
    let packs = store.directory.path().join("repository/domains").join(store.domain.to_string()).join("packs");
    let folder = std::fs::read_dir(packs).expect("there").next().expect("a folder").expect("readable");
    let pack = std::fs::read_dir(folder.path()).expect("there").next().expect("a pack").expect("readable").path();
    let mut sealed = std::fs::read(&pack).expect("there");
    let middle = sealed.len() / 4 * 3;
    sealed[middle] ^= 1;
    std::fs::write(&pack, sealed).expect("written");
    let result = plugin.run(Call::Probe, granted(&current, &root), watch().0).await;
    assert_eq!(code(result), "damaged-chunk");
    assert_eq!(std::fs::read_dir(&root).expect("there").count(), 0);
}

#[tokio::test]
async fn bytes_go_back_to_a_server() {
    let store = Store::new().await;
    let current = Some(backup(&store).await);
    let path = store.directory.path().join("other");
    let listener = UnixListener::bind(&path).expect("bound");
    let grants = Grants { current, members: vec![Member::Unix(path)], ..Grants::default() };
    let plugin = Sandbox::new().load(send()).await;
    let run = tokio::spawn(async move { plugin.run(Call::Probe, grants, watch().0).await });
    let (mut server, _) = listener.accept().await.expect("dialled");
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.expect("closed in order");
    assert!(received == content()[10..], "the same bytes from byte 10 on");
    let result = run.await.expect("no panic");
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test]
async fn a_wrong_size_and_too_much_output_are_refused() {
    let store = Store::new().await;
    let length = i64::try_from(content().len()).expect("small");
    for (size, name) in [(length + 1, "short"), (length - 1, "long")] {
        let grants = Grants { writer: Some(store.begin(BackupId::random()).await), ..Grants::default() };
        let result = dumped(dump(size), grants, &store.directory.path().join(name)).await;
        assert_eq!(code(result), "size-mismatch", "{name}");
    }
    let grants = Grants {
        writer: Some(store.begin(BackupId::random()).await),
        limits: Limits { output_bytes: 1_000_000, ..Limits::default() },
        ..Grants::default()
    };
    assert_eq!(limit(dumped(dump(-1), grants, &store.directory.path().join("much")).await), "output");
    let nothing = dumped(dump(-1), Grants::default(), &store.directory.path().join("nothing")).await;
    assert_eq!(code(nothing), "not-granted");
}

/// Begins the entry `data/file` of `size` bytes.
fn begin(size: u32) -> String {
    format!(
        "(call $begin-entry (i32.const 512) (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 1) (i64.const {size}) (i32.const 384) (i64.const 0)
            (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const {RESULT}))"
    )
}

#[tokio::test]
async fn a_guest_that_writes_on_after_too_much_is_told_again() {
    let store = Store::new().await;
    // The first write fills the buffer to its last byte, one byte beyond what was declared.
    let write = |length: u32| {
        format!("(call $write (local.get $sink) (i32.const 0) (i32.const {length}) (i32.const {RESULT}))")
    };
    let (begin, fill, more) = (begin(65_535), write(65_536), write(1));
    let guest = component(
        "data/file",
        &format!("{begin} {OR_ERROR} (local.set $sink (i32.load (i32.const 68))) {fill} {more} {OR_ERROR} {DONE}"),
    );
    let grants = Grants { writer: Some(store.begin(BackupId::random()).await), ..Grants::default() };
    assert_eq!(code(Sandbox::new().probe(guest, grants).await), "size-mismatch");
}

#[tokio::test]
async fn a_flood_of_entries_ends() {
    let store = Store::new().await;
    let guest = component("data/file", &format!("(loop $again {} (br $again)) unreachable", begin(0)));
    let grants = Grants {
        writer: Some(store.begin(BackupId::random()).await),
        limits: Limits { entries: 100, ..Limits::default() },
        ..Grants::default()
    };
    assert_eq!(limit(Sandbox::new().probe(guest, grants).await), "entries");
}

#[tokio::test]
async fn streams_that_are_never_closed_are_bounded() {
    let store = Store::new().await;
    let open = format!(
        "(call $open (local.get $source) (i32.const 512) (i32.const 9) (i64.const 0) (i32.const 0) (i64.const 0)
            (i32.const {RESULT}))"
    );
    let guest = component(
        "data/file",
        &format!(
            "(call $current (i32.const {RESULT})) (local.set $source (i32.load (i32.const 68)))
            (loop $again {open} {OR_ERROR} (br $again)) unreachable"
        ),
    );
    let grants = Grants { current: Some(backup(&store).await), ..Grants::default() };
    assert_eq!(limit(Sandbox::new().probe(guest, grants).await), "streams");
}
