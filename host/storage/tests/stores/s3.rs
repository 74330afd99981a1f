//! S3 as a store, against a server in this process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use holdfast_storage::conformance::conformance;
use holdfast_storage::{Denial, Error, Patience, Retrying, S3, Settings, Storage, Traits, open, probe};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::server::{Conditions, Server, keys};
use crate::settings;

/// The store without retries, so that a fault is seen as it is.
fn plain(url: &str, settings: &Settings) -> Arc<dyn Storage> {
    Arc::new(S3::open(url, settings).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_a_store_that_keeps_writers_apart() {
    let server = Server::start(Conditions::Atomic).await;
    let storage = open(&server.url("bucket/pre/fix"), &keys()).unwrap();
    assert!(!storage.traits().conditional_writes, "nothing is certain before it was tried");
    assert_eq!(probe(&*storage).await.unwrap().traits, Traits { conditional_writes: true });
    assert!(storage.traits().conditional_writes, "the store remembers");
    assert_eq!(storage.list("").await.unwrap(), [], "the probe leaves nothing");
    let before = server.control.pages.load(Ordering::SeqCst);
    conformance(Arc::clone(&storage)).await;
    assert!(server.control.pages.load(Ordering::SeqCst) > before + 10, "long listings come in pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_a_store_that_looks_and_then_writes() {
    let server = Server::start(Conditions::AsTheyCome).await;
    let storage = open(&server.url("bucket"), &keys()).unwrap();
    probe(&*storage).await.unwrap();
    // Whether two writers met in the probe is chance, so only what holds for one writer is asked for here.
    let one_writer: Arc<dyn Storage> = Arc::new(Unproven(storage));
    conformance(one_writer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_a_store_that_ignores_conditions_and_the_probe_says_so() {
    let server = Server::start(Conditions::Ignored).await;
    let storage = open(&server.url("bucket"), &keys()).unwrap();
    assert_eq!(probe(&*storage).await.unwrap().traits, Traits { conditional_writes: false });
    assert!(!storage.traits().conditional_writes);
    conformance(storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_on_a_store_that_refuses_conditions_and_the_probe_says_so() {
    let server = Server::start(Conditions::NotImplemented).await;
    let storage = open(&server.url("bucket"), &keys()).unwrap();
    assert_eq!(probe(&*storage).await.unwrap().traits, Traits { conditional_writes: false });
    conformance(storage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_checksum_is_accepted() {
    let server = Server::start(Conditions::Atomic).await;
    for checksum in ["crc64nvme", "crc32", "when-required", "none"] {
        let url = format!("{}&checksum={checksum}", server.url("bucket/checked"));
        let storage = plain(&url, &keys());
        let bytes = Bytes::from(vec![7; 1 << 20]);
        storage.put("object", bytes.clone()).await.unwrap();
        assert_eq!(storage.get("object", None).await.unwrap(), bytes, "{checksum}");
        assert_eq!(storage.get("object", Some(5..9)).await.unwrap(), bytes[5..9], "{checksum}");
    }
}

#[tokio::test]
async fn wrong_keys_are_told_apart_from_a_missing_bucket() {
    let server = Server::start(Conditions::Atomic).await;
    for wrong in [
        settings(&[("access-key", "AK"), ("secret-key", "topsecret")]),
        settings(&[("access-key", "KA"), ("secret-key", "topsecret")]),
    ] {
        let storage = open(&server.url("bucket"), &wrong).unwrap();
        let error = storage.put("object", Bytes::from_static(b"1")).await.unwrap_err();
        assert!(matches!(error, Error::Denied { denial: Denial::Credentials, .. }), "{error:?}");
        assert!(error.is_permanent());
        assert!(error.hint().unwrap().contains("`secret-key`"));
        assert!(
            error.to_string().starts_with("cannot write object at s3://bucket?endpoint=http://127.0.0.1:"),
            "{error}"
        );
        assert!(!format!("{error} {error:?} {storage:?}").contains("topsecret"));
    }
    let storage = open(&server.url("nosuch"), &keys()).unwrap();
    let error = storage.list("").await.unwrap_err();
    assert!(matches!(&error, Error::NoBucket { bucket, .. } if bucket == "nosuch"), "{error:?}");
    assert!(error.hint().unwrap().contains("nosuch"));
}

#[tokio::test]
async fn what_stores_say_is_understood() {
    for (status, code, expected, permanent) in [
        ("404 Not Found", "NoSuchBucket", "bucket-not-found", true),
        ("404 Not Found", "Gone", "bucket-not-found", true),
        ("403 Forbidden", "AccessDenied", "access-denied", true),
        ("403 Forbidden", "InvalidAccessKeyId", "credentials-refused", true),
        ("403 Forbidden", "SignatureDoesNotMatch", "credentials-refused", true),
        ("403 Forbidden", "RequestTimeTooSkewed", "clock-skew", true),
        ("301 Moved Permanently", "PermanentRedirect", "wrong-region", true),
        ("400 Bad Request", "QuotaExceeded", "storage-full", true),
        ("507 Insufficient Storage", "XMinioStorageFull", "storage-full", true),
        ("400 Bad Request", "BadDigest", "transfer-corrupt", false),
        ("400 Bad Request", "InvalidArgument", "storage-refused", true),
        ("501 Not Implemented", "NotImplemented", "storage-unsupported", true),
        ("503 Service Unavailable", "SlowDown", "storage-busy", false),
        ("500 Internal Server Error", "InternalError", "storage-busy", false),
        ("429 Too Many Requests", "Throttled", "storage-busy", false),
    ] {
        let body = format!("<Error><Code>{code}</Code><Message>said\n so</Message></Error>");
        let head = format!("HTTP/1.1 {status}\r\nx-amz-bucket-region: eu-9\r\ncontent-length: {}", body.len());
        let endpoint = answering(format!("{head}\r\n\r\n{body}")).await;
        let storage = plain(&format!("s3://bucket?endpoint={endpoint}"), &keys());
        let error = storage.put("object", Bytes::from_static(b"1")).await.unwrap_err();
        assert_eq!((error.code(), error.is_permanent()), (expected, permanent), "{code}: {error:?}");
        assert!(!error.to_string().contains('\n'));
        if expected == "wrong-region" {
            assert_eq!(error.hint().unwrap(), "Put `region=eu-9` into the URL.");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_nobody_listens_at_is_named() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let storage = plain(&format!("s3://bucket?endpoint=http://{free}"), &keys());
    let error = storage.get("object", None).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(!error.is_permanent());
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    assert!(error.hint().unwrap().contains("endpoint"));
}

#[tokio::test]
async fn an_unknown_host_is_unreachable() {
    let storage = plain("s3://bucket?endpoint=http://no-such-host.invalid:9000", &keys());
    let error = storage.list("").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_busy_store_is_waited_for_but_not_for_ever() {
    let server = Server::start(Conditions::Atomic).await;
    let inner = plain(&server.url("bucket"), &keys());
    let patience = Patience { attempts: 3, first_wait: std::time::Duration::from_millis(1), ..Patience::default() };
    let storage = Retrying::new(inner, patience);
    server.control.busy.store(2, Ordering::SeqCst);
    storage.put("object", Bytes::from_static(b"1")).await.unwrap();
    server.control.busy.store(u32::MAX, Ordering::SeqCst);
    let before = server.control.requests.load(Ordering::SeqCst);
    let error = storage.get("object", None).await.unwrap_err();
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
    assert_eq!(server.control.requests.load(Ordering::SeqCst) - before, 3);
}

#[tokio::test]
async fn a_lost_acknowledgement_does_not_lose_the_race() {
    let server = Server::start(Conditions::Atomic).await;
    let storage = open(&server.url("bucket"), &keys()).unwrap();
    probe(&*storage).await.unwrap();
    server.control.forgetful.store(1, Ordering::SeqCst);
    assert!(storage.put_if_absent("heads/1", Bytes::from_static(b"ours")).await.unwrap(), "the first attempt wrote it");
    server.control.forgetful.store(1, Ordering::SeqCst);
    server.control.busy.store(1, Ordering::SeqCst);
    assert!(!storage.put_if_absent("heads/1", Bytes::from_static(b"theirs")).await.unwrap());
    assert_eq!(storage.get("heads/1", None).await.unwrap(), "ours");
}

#[tokio::test]
async fn an_answer_that_is_no_s3_is_not_believed() {
    let url = format!("s3://bucket?endpoint={}", answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await);
    let storage = plain(&url, &keys());
    let error = storage.put("object", Bytes::from_static(b"123")).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "a 200 without an ETag gave {error:?}");
    assert!(storage.list("").await.is_err());
}

#[tokio::test]
async fn an_error_inside_a_success_is_an_error() {
    let body = "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>We failed</Message></Error>";
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let storage = plain(&format!("s3://bucket?endpoint={}", answering(answer).await), &keys());
    let bytes = Bytes::from_static(b"longer than nothing");
    for error in [storage.put("object", bytes).await.unwrap_err(), storage.list("").await.unwrap_err()] {
        assert!(!error.is_permanent(), "{error:?}");
    }
}

#[tokio::test]
async fn a_connection_that_is_half_open_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inner = plain(&format!("s3://bucket?endpoint=http://{}", silent.local_addr().unwrap()), &keys());
    let patience = Patience { attempts: 2, attempt: std::time::Duration::from_millis(100), ..Patience::default() };
    let error = Retrying::new(inner, patience).head("object").await.unwrap_err();
    assert!(matches!(error, Error::Stalled { .. }), "{error:?}");
}

#[tokio::test]
async fn a_body_that_ends_early_is_an_error() {
    let url = format!(
        "s3://bucket?endpoint={}",
        answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\netag: \"a\"\r\n\r\nhalf").await
    );
    let error = plain(&url, &keys()).get("object", None).await.unwrap_err();
    assert!(!error.is_permanent(), "{error:?}");
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_collected() {
    let url = format!(
        "s3://bucket?endpoint={}",
        answering("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\netag: \"a\"\r\n\r\n").await
    );
    let error = plain(&url, &keys()).get("object", None).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}

#[tokio::test]
async fn a_store_that_does_not_know_ranges_is_cut_by_us() {
    let url = format!(
        "s3://bucket?endpoint={}",
        answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"a\"\r\n\r\n0123456789").await
    );
    let storage = plain(&url, &keys());
    assert_eq!(storage.get("object", Some(2..5)).await.unwrap(), "234");
    assert_eq!(storage.get("object", Some(8..20)).await.unwrap(), "89");
    assert_eq!(storage.get("object", Some(10..20)).await.unwrap(), "");
}

#[tokio::test]
async fn a_store_that_keeps_nothing_fails_the_probe() {
    // It acknowledges everything and shows the same ten bytes under every name.
    let url = format!(
        "s3://bucket?endpoint={}",
        answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\netag: \"a\"\r\n\r\n0123456789").await
    );
    let error = probe(&*plain(&url, &keys())).await.unwrap_err();
    assert!(matches!(error, Error::Misbehaves { .. }), "{error:?}");
    assert!(error.is_permanent());
}

#[tokio::test]
async fn a_certificate_of_nobody_is_not_trusted() {
    // A plain HTTP server is no TLS server: the handshake fails, and no request is sent in clear.
    let endpoint = answering("HTTP/1.1 200 OK\r\n\r\n").await.replace("http://", "https://");
    let error = plain(&format!("s3://bucket?endpoint={endpoint}"), &keys()).list("").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. } | Error::Untrusted { .. }), "{error:?}");
}

#[test]
fn bad_urls_and_settings_are_refused_before_any_network() {
    let code = |url: &str, settings: &Settings| open(url, settings).unwrap_err().code();
    assert_eq!(code("ftp://host/x", &keys()), "bad-url");
    assert_eq!(code("bucket", &keys()), "bad-url");
    assert_eq!(code("s3://bucket?endpont=http://a", &keys()), "bad-url");
    assert_eq!(code("s3://bucket", &settings(&[])), "bad-setting");
    assert_eq!(code("s3://bucket", &settings(&[("access-key", "a"), ("secret", "b")])), "bad-setting");
    assert_eq!(code("file:///srv", &keys()), "bad-setting");
    assert!(open("ftp://host/x", &keys()).unwrap_err().hint().is_some());
}

/// A server that gives one answer to every request, and then closes: its endpoint.
async fn answering(answer: impl Into<String>) -> String {
    let answer = answer.into();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 64 << 10];
                let _ = stream.read(&mut request).await?;
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await?;
                // Until the client hangs up: a reset would take unread bytes of the answer with it.
                while stream.read(&mut request).await? > 0 {}
                io::Result::Ok(())
            });
        }
    });
    endpoint
}

/// A store that does not claim to keep writers apart.
#[derive(Debug)]
struct Unproven(Arc<dyn Storage>);

#[async_trait::async_trait]
impl Storage for Unproven {
    async fn get(&self, path: &str, range: Option<std::ops::Range<u64>>) -> Result<Bytes, Error> {
        self.0.get(path, range).await
    }
    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.0.put(path, bytes).await
    }
    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        self.0.put_if_absent(path, bytes).await
    }
    async fn head(&self, path: &str) -> Result<Option<u64>, Error> {
        self.0.head(path).await
    }
    async fn list(&self, prefix: &str) -> Result<Vec<holdfast_storage::Listed>, Error> {
        self.0.list(prefix).await
    }
    async fn delete(&self, path: &str) -> Result<(), Error> {
        self.0.delete(path).await
    }
    fn traits(&self) -> Traits {
        Traits { conditional_writes: false }
    }
    fn location(&self) -> String {
        self.0.location()
    }
}
