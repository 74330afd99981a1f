//! SFTP as a store, against OpenSSH's own server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdfast_storage::conformance::conformance;
use holdfast_storage::{Denial, Error, Patience, Retrying, Settings, Sftp, Storage, Traits, open, probe};

use holdfast_tests::sshd::{PASSPHRASE, Sshd};
use tempfile::TempDir;

/// A server with its directory, which ends before it.
struct Server {
    sshd: Sshd,
    _directory: TempDir,
}

impl Server {
    fn start() -> Self {
        Self::without(&[])
    }

    fn without(requests: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { sshd: Sshd::without(directory.path(), requests).unwrap(), _directory: directory }
    }

    fn url(&self) -> String {
        self.sshd.url("backups").unwrap()
    }

    fn settings(&self) -> Settings {
        self.sshd.settings().unwrap()
    }

    fn root(&self) -> PathBuf {
        self.sshd.root().join("backups")
    }

    fn files(&self) -> Vec<String> {
        self.sshd.files().unwrap()
    }

    /// A file of somebody else's, as old as this.
    #[allow(clippy::disallowed_methods)] // Files are dated by the server's clock, which is ours.
    fn put_file(&self, path: &str, age_days: u64) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "not ours").unwrap();
        let file = std::fs::File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age_days * 86_400)).unwrap();
    }
}

fn plain(server: &Server, settings: &Settings) -> Arc<dyn Storage> {
    Arc::new(Sftp::open(&server.url(), settings).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_and_keeps_writers_apart_by_links() {
    let server = Server::start();
    let storage = open(&server.url(), &server.settings()).unwrap();
    assert!(!storage.traits().conditional_writes, "nothing is certain before it was tried");
    assert_eq!(probe(&*storage).await.unwrap().traits, Traits { conditional_writes: true });
    assert_eq!(storage.list("").await.unwrap(), [], "the probe leaves nothing");
    conformance(storage).await;
    assert_eq!(server.files(), Vec::<String>::new(), "neither objects nor temporary files are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_links_does_not_claim_to_keep_writers_apart() {
    let server = Server::without(&["hardlink"]);
    let storage = open(&server.url(), &server.settings()).unwrap();
    assert_eq!(probe(&*storage).await.unwrap().traits, Traits { conditional_writes: false });
    conformance(storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_replace_fails_the_probe() {
    let server = Server::without(&["posix-rename"]);
    let error = probe(&*plain(&server, &server.settings())).await.unwrap_err();
    assert!(error.is_permanent(), "{error:?}");
    assert!(error.to_string().contains("renaming"), "{error}");
    assert_eq!(server.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_not_pinned_is_refused_before_anything_is_said() {
    let server = Server::start();
    let mut settings = server.settings();
    let right = settings.remove("host-key").unwrap();
    let error = plain(&server, &settings).list("").await.unwrap_err();
    assert!(matches!(&error, Error::UnknownServer { seen, is_pinned: false, .. } if *seen == right), "{error:?}");
    assert!(error.to_string().contains(&right) && error.hint().unwrap().contains(&right), "{error}");

    settings.insert("host-key".to_owned(), format!("SHA256:{}", "A".repeat(43)));
    let error = plain(&server, &settings).list("").await.unwrap_err();
    assert!(matches!(&error, Error::UnknownServer { seen, is_pinned: true, .. } if *seen == right), "{error:?}");
    assert!(error.is_permanent());

    settings.insert("host-key".to_owned(), format!("SHA256:{}, {right}", "A".repeat(43)));
    plain(&server, &settings).list("").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_trusted_at_first_sight_is_remembered() {
    let server = Server::start();
    let mut settings = server.settings();
    let right = settings.insert("host-key".to_owned(), "first-seen".to_owned()).unwrap();
    let storage = open(&server.url(), &settings).unwrap();
    assert!(storage.learned().is_empty(), "nothing was seen yet");
    storage.list("").await.unwrap();
    assert_eq!(storage.learned()["host-key"], right);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_not_let_in_and_hears_why() {
    let server = Server::start();
    for (name, value) in [("private-key", text(server.sshd.strangers_key())), ("password", "topsecret".to_owned())] {
        let mut settings = server.settings();
        settings.retain(|name, _| name == "host-key");
        settings.insert(name.to_owned(), value);
        let storage = plain(&server, &settings);
        let error = storage.put("object", Bytes::from_static(b"1")).await.unwrap_err();
        assert!(matches!(error, Error::Denied { denial: Denial::Login, .. }), "{error:?}");
        assert!(error.is_permanent() && error.hint().unwrap().contains("authorized keys"));
        assert!(!format!("{error} {error:?} {storage:?}").contains("topsecret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_key_opens_with_its_passphrase() {
    let server = Server::start();
    let mut settings = server.settings();
    settings.insert("private-key".to_owned(), text(server.sshd.encrypted_key()));
    let error = Sftp::open(&server.url(), &settings).unwrap_err();
    assert!(error.to_string().contains("give its `passphrase`"), "{error}");
    settings.insert("passphrase".to_owned(), PASSPHRASE.to_owned());
    plain(&server, &settings).list("").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_cut_is_made_anew() {
    let server = Server::start();
    let storage = open(&server.url(), &server.settings()).unwrap();
    storage.put("object", Bytes::from_static(b"one")).await.unwrap();
    server.sshd.cut_sessions().unwrap();
    assert_eq!(storage.get("object", None).await.unwrap(), "one");
    server.sshd.cut_sessions().unwrap();
    assert!(!storage.put_if_absent("object", Bytes::from_static(b"two")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_may_come_back() {
    let server = Server::start();
    let storage = plain(&server, &server.settings());
    drop(server);
    let error = storage.list("").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }) && !error.is_permanent(), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_is_permanent_and_leaves_no_object() {
    let server = Server::start();
    let storage = open(&server.url(), &server.settings()).unwrap();
    // Something of somebody else's lies where a directory must be.
    server.put_file("packs", 0);
    let error = storage.put("packs/aa/object", Bytes::from_static(b"1")).await.unwrap_err();
    assert!(matches!(error, Error::Remote { .. }) && error.is_permanent(), "{error:?}");
    assert_eq!(server.files(), ["backups/packs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_on_the_server_is_never_tried_again() {
    let mut server = Server::start();
    server.sshd.fail("fsync", "EIO").unwrap();
    server.sshd.pause().unwrap();
    server.sshd.resume().unwrap();
    let storage = open(&server.url(), &server.settings()).unwrap();
    let error = storage.put("object", Bytes::from_static(b"1")).await.unwrap_err();
    assert!(matches!(error, Error::Remote { step: "syncing", .. }) && error.is_permanent(), "{error:?}");
    assert_eq!(server.files(), Vec::<String>::new(), "nothing is there that is not durable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("sftp://keeper@{}/srv", silent.local_addr().unwrap());
    let inner = Arc::new(Sftp::open(&url, &Settings::from([("password".to_owned(), "x".to_owned())])).unwrap());
    let patience = Patience { attempts: 2, attempt: Duration::from_millis(100), ..Patience::default() };
    let error = Retrying::new(inner, patience).head("object").await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_not_objects() {
    let server = Server::start();
    let storage = open(&server.url(), &server.settings()).unwrap();
    storage.put("object", Bytes::from_static(b"1")).await.unwrap();
    std::os::unix::fs::symlink("object", server.root().join("link")).unwrap();
    assert_eq!(storage.head("link").await.unwrap(), None);
    assert_eq!(storage.list("").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_leftovers_of_the_dead_are_swept() {
    let server = Server::start();
    let name = |digit: &str| format!("tmp/write-{}", digit.repeat(32));
    for (path, age_days) in [(name("a"), 2), (name("b"), 0), ("tmp/notes.txt".to_owned(), 2)] {
        server.put_file(&path, age_days);
    }
    open(&server.url(), &server.settings()).unwrap().put("object", Bytes::from_static(b"1")).await.unwrap();
    let left = ["object", "tmp/notes.txt", &name("b")].map(|path| format!("backups/{path}"));
    assert_eq!(server.files(), left);
}

fn text(file: PathBuf) -> String {
    std::fs::read_to_string(file).unwrap().trim_end().to_owned()
}
