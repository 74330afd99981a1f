//! MinIO as a store: the suite on an independent server, real locks, and a certificate of a private authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use holdfast_storage::conformance::conformance;
use holdfast_storage::{Error, Found, LockMode, Retention, Storage, open, probe};
use holdfast_tests::certificates::Authority;
use holdfast_tests::minio::Minio;
use holdfast_tests::s3::{ACCESS_KEY, SECRET_KEY};
use tempfile::TempDir;

use crate::settings;

const DAY: Duration = Duration::from_secs(86_400);

fn start() -> (Minio, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (Minio::start(directory.path()).unwrap(), directory)
}

/// The store at a prefix, with these settings besides the keys.
fn store(url: &str, more: &[(&str, &str)]) -> Result<Arc<dyn Storage>, Error> {
    let mut all = settings(&[("access-key", ACCESS_KEY), ("secret-key", SECRET_KEY)]);
    all.extend(settings(more));
    open(url, &all)
}

fn in_days(days: u32) -> u64 {
    #[allow(clippy::disallowed_methods)] // What the server's clock says too.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from((now + DAY * days).as_millis()).unwrap()
}

fn works(found: &Found, what: &str) -> bool {
    found.findings.iter().find(|finding| finding.what == what).unwrap().works
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_every_checksum_and_keeps_writers_apart() {
    let (minio, _directory) = start();
    for checksum in ["crc64nvme", "crc32", "when-required", "none"] {
        let storage = store(&minio.url(checksum), &[("checksum", checksum)]).unwrap();
        let found = probe(&*storage).await.unwrap();
        assert!(found.traits.conditional_writes, "{checksum}: {found:?}");
        assert!(works(&found, "versions") && !works(&found, "lock"), "{checksum}: {found:?}");
        assert_eq!(works(&found, "checksum"), checksum != "none");
        storage.put("object", Bytes::from_static(b"checked")).await.unwrap();
        assert_eq!(storage.get("object", Some(0..5)).await.unwrap(), "check");
    }
    conformance(store(&minio.url("suite"), &[]).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn conforms_with_locks_and_the_probe_tries_them() {
    let (minio, _directory) = start();
    for lock in ["governance", "compliance"] {
        let storage = store(&minio.url(lock), &[("lock", lock), ("lock-days", "1")]).unwrap();
        let found = probe(&*storage).await.unwrap();
        assert!(works(&found, "lock") && found.traits.conditional_writes, "{found:?}");
        assert_eq!(storage.list("").await.unwrap(), [], "the probe shows nothing any more");
    }
    conformance(store(&minio.url("suite"), &[("lock", "compliance"), ("lock-days", "1")]).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overwritten_and_deleted_objects_are_read_by_their_versions() {
    let (minio, _directory) = start();
    let storage = store(&minio.url("versions"), &[]).unwrap();
    assert!(storage.keeps_versions().await.unwrap());
    for text in ["first", "second, longer", "third"] {
        storage.put("a/object", Bytes::from_static(text.as_bytes())).await.unwrap();
    }
    storage.put("a/object-2", Bytes::from_static(b"beside")).await.unwrap();
    storage.delete("a/object").await.unwrap();
    assert!(matches!(storage.get("a/object", None).await, Err(Error::NotFound { .. })));
    let versions = storage.versions("a/object").await.unwrap();
    let lengths: Vec<_> = versions.iter().map(|version| (version.path.as_str(), version.length)).collect();
    assert_eq!(lengths, [("a/object", 5), ("a/object", 14), ("a/object", 5), ("a/object-2", 6)], "the newest first");
    assert_eq!(storage.get_version("a/object", &versions[0].id, None).await.unwrap(), "third");
    assert_eq!(storage.get_version("a/object", &versions[2].id, None).await.unwrap(), "first");
    assert_eq!(storage.get_version("a/object", &versions[1].id, Some(8..99)).await.unwrap(), "longer");
    assert!(storage.put_if_absent("a/object", Bytes::from_static(b"again")).await.unwrap(), "it was deleted");
}

/// A store that locks by this setting for ten days, and the version of the `object` that it holds, which is locked so.
async fn locked_for_ten_days(minio: &Minio, lock: &str, mode: LockMode) -> (Arc<dyn Storage>, String) {
    let storage = store(&minio.url("locks"), &[("lock", lock), ("lock-days", "10")]).unwrap();
    storage.put("object", Bytes::from_static(b"kept")).await.unwrap();
    let version = storage.versions("object").await.unwrap().remove(0).id;
    let locked = storage.retention("object", &version).await.unwrap().unwrap();
    assert_eq!(locked.mode, mode);
    assert!(locked.until_ms > in_days(11) && locked.until_ms < in_days(13), "10 days and a step of 2: {locked:?}");
    (storage, version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compliance_lock_can_be_extended_and_never_shortened() {
    let (minio, _directory) = start();
    let (storage, version) = locked_for_ten_days(&minio, "compliance", LockMode::Compliance).await;

    let until = |days| Retention { mode: LockMode::Compliance, until_ms: in_days(days) };
    storage.set_retention("object", &version, until(40)).await.unwrap();
    for shorter in [until(20), Retention { mode: LockMode::Governance, ..until(50) }] {
        let error = storage.set_retention("object", &version, shorter).await.unwrap_err();
        assert!(error.is_permanent(), "{error:?}");
    }
    assert!(storage.retention("object", &version).await.unwrap().unwrap().until_ms > in_days(39));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_governance_lock_is_extended_by_us_and_shortened_only_by_who_may_bypass_it() {
    let (minio, _directory) = start();
    let (storage, version) = locked_for_ten_days(&minio, "governance", LockMode::Governance).await;

    let until = |days| Retention { mode: LockMode::Governance, until_ms: in_days(days) };
    storage.set_retention("object", &version, until(40)).await.unwrap();
    // These keys may bypass it; Holdfast never asks for that.
    assert!(storage.set_retention("object", &version, until(20)).await.unwrap_err().is_permanent());
    assert!(storage.retention("object", &version).await.unwrap().unwrap().until_ms > in_days(39));
    storage.delete("object").await.unwrap();
    assert_eq!(storage.get_version("object", &version, None).await.unwrap(), "kept");
    let kept = minio.kept("locks/object").unwrap().into_iter().find(|kept| !kept.is_marker).unwrap();
    assert!((400..500).contains(&minio.destroy_within_the_rules(&kept).unwrap()));
    assert_eq!(minio.destroy(&kept).unwrap(), 204, "who may bypass it can delete what is locked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_where_it_is_named_and_nowhere_else() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(&directory.path().join("authority")).unwrap();
    let server = authority.server(&["127.0.0.1"]).unwrap();
    let minio =
        Minio::start_with_tls(directory.path(), &server.certificate, &server.key, &authority.certificate).unwrap();
    let named = authority.certificate.display().to_string();
    let storage = store(&minio.url("tls"), &[("ca", &named)]).unwrap();
    assert!(probe(&*storage).await.unwrap().traits.conditional_writes);

    let other = Authority::new(&directory.path().join("other")).unwrap().certificate.display().to_string();
    for more in [&[][..], &[("ca", other.as_str())]] {
        let error = store(&minio.url("tls"), more).unwrap().list("").await.unwrap_err();
        assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("--set ca=FILE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_class_that_the_store_does_not_have_is_told() {
    let (minio, _directory) = start();
    let storage = store(&minio.url("class"), &[("storage-class", "REDUCED_REDUNDANCY")]).unwrap();
    storage.put("object", Bytes::from_static(b"1")).await.unwrap();
    let storage = store(&minio.url("class"), &[("storage-class", "NO_SUCH_CLASS")]).unwrap();
    let error = storage.put("object", Bytes::from_static(b"1")).await.unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("torage"), "{error}");
}
