//! Versions of objects in a bucket that keeps them, and their locks.

use aws_sdk_s3::types::{BucketVersioningStatus, ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
use aws_smithy_types::DateTime;
use bytes::Bytes;

use super::{PAGES_MAX, S3, must_be_whole};
use crate::error::{Attempt, Error, Operation};
use crate::{Finding, Lock, LockMode, Retention, Storage, Version, clock, path};

/// How long the probe's object stays locked, in milliseconds: longer than the trial, and a leftover for a moment only.
const TRIAL_MS: u64 = 60_000;
/// What the probe writes is not locked: it is to be deleted.
const PROBES: &str = "probe/";

pub(super) fn lock_mode(mode: LockMode) -> ObjectLockMode {
    match mode {
        LockMode::Governance => ObjectLockMode::Governance,
        LockMode::Compliance => ObjectLockMode::Compliance,
    }
}

pub(super) fn date(ms: u64) -> DateTime {
    DateTime::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

impl S3 {
    /// How what is written under a path now is locked.
    pub(super) fn retention_of(&self, path: &str) -> Option<Retention> {
        self.terms.lock.filter(|_| !path.starts_with(PROBES)).map(|lock| lock.extended())
    }

    /// Whether the bucket says that it keeps versions. A store that does not know the question, or may not answer it to these
    /// keys, says no.
    pub(super) async fn is_versioned(&self) -> Result<bool, Error> {
        if self.terms.lock.is_some() {
            return Ok(true);
        }
        let ask = || async {
            match self.client.get_bucket_versioning().bucket(&self.address.bucket).send().await {
                Ok(answer) => Ok(answer.status().cloned()),
                Err(error) => match self.asked(self.attempt_on_bucket()).failed(&error) {
                    error if error.is_permanent() => Ok(None),
                    error => Err(error),
                },
            }
        };
        let status = self.versioning.get_or_try_init(ask).await?;
        Ok(matches!(status, Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended)))
    }

    fn attempt_on_bucket(&self) -> Attempt {
        Attempt::new(Operation::Head, "", &self.location)
    }

    /// All versions below a prefix that are no delete markers, sorted by path, the newest of each first.
    pub(super) async fn list_versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        let attempt = self.attempt(Operation::List, prefix)?;
        let (mut found, mut key, mut id): (Vec<Version>, Option<String>, Option<String>) = Default::default();
        for _ in 0..PAGES_MAX {
            let request = self.client.list_object_versions().bucket(&self.address.bucket).prefix(self.key(prefix));
            let request = request.set_key_marker(key.clone()).set_version_id_marker(id.clone());
            let page = request.send().await.map_err(|error| self.asked(attempt.clone()).failed(&error))?;
            must_be_whole(&attempt, page.is_truncated(), None, page.versions().len())?;
            found.extend(page.versions().iter().filter_map(|version| self.version(version)));
            let next = (page.next_key_marker().map(str::to_owned), page.next_version_id_marker().map(str::to_owned));
            if page.is_truncated() != Some(true) {
                // A stable sort: within a path they come the newest first.
                found.sort_by(|a, b| a.path.cmp(&b.path));
                return Ok(found);
            }
            if next.0.is_none() || next == (key, id) {
                break;
            }
            (key, id) = next;
        }
        Err(Error::Protocol { attempt, detail: "the listing does not come to an end".to_owned() })
    }

    /// A version of an object of ours.
    fn version(&self, version: &aws_sdk_s3::types::ObjectVersion) -> Option<Version> {
        let path = version.key()?.strip_prefix(&self.address.prefix)?;
        let (id, length) = (version.version_id()?.to_owned(), u64::try_from(version.size()?).ok()?);
        path::is_valid(path).then(|| Version { path: path.to_owned(), id, length })
    }

    pub(super) async fn read_retention(&self, path: &str, version: &str) -> Result<Option<Retention>, Error> {
        let attempt = self.attempt(Operation::Head, path)?;
        let request = self.client.head_object().bucket(&self.address.bucket).key(self.key(path)).version_id(version);
        let found = request.send().await.map_err(|error| self.asked(attempt).failed(&error))?;
        let mode = match found.object_lock_mode() {
            Some(ObjectLockMode::Compliance) => LockMode::Compliance,
            Some(ObjectLockMode::Governance) => LockMode::Governance,
            _ => return Ok(None),
        };
        let until = found.object_lock_retain_until_date().and_then(|date| u64::try_from(date.secs()).ok());
        Ok(until.map(|seconds| Retention { mode, until_ms: seconds.saturating_mul(1000) }))
    }

    pub(super) async fn write_retention(&self, path: &str, version: &str, new: Retention) -> Result<(), Error> {
        let attempt = self.attempt(Operation::Lock, path)?;
        let mode = match new.mode {
            LockMode::Governance => ObjectLockRetentionMode::Governance,
            LockMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let retention = ObjectLockRetention::builder().mode(mode).retain_until_date(date(new.until_ms)).build();
        let request = self.client.put_object_retention().bucket(&self.address.bucket).key(self.key(path));
        let request = request.version_id(version).retention(retention);
        request.send().await.map(drop).map_err(|error| self.asked(attempt).failed(&error))
    }

    /// Tries whether a locked version stays, whoever deletes it. Its last version is left behind, locked for a minute.
    pub(super) async fn try_lock(&self, lock: Lock, scratch: &str) -> Result<Finding, Error> {
        let path = format!("{scratch}/locked");
        let attempt = self.attempt(Operation::Lock, &path)?;
        let trial = Retention { mode: lock.mode, until_ms: clock::now_ms() + TRIAL_MS };
        self.send(&attempt, Bytes::from_static(b"holdfast probe, locked"), false, Some(trial)).await?;
        let kept = self.list_versions(&path).await?.into_iter().find(|version| version.path == path);
        let misbehaves = |detail: &str| Error::Misbehaves { location: self.location(), detail: detail.to_owned() };
        let version = kept.ok_or_else(|| misbehaves("a version that was just written is not listed"))?;
        let found = self.read_retention(&path, &version.id).await?;
        if !found.is_some_and(|found| found.mode == lock.mode && found.until_ms + 1000 >= trial.until_ms) {
            return Err(misbehaves("a lock that was acknowledged is not there; the bucket needs object lock"));
        }
        let request = self.client.delete_object().bucket(&self.address.bucket).key(self.key(&path));
        if request.version_id(&version.id).send().await.is_ok() {
            return Err(misbehaves("a locked version could be deleted"));
        }
        self.delete(&path).await?;
        self.get_version(&path, &version.id, None).await?;
        let detail = match lock.mode {
            LockMode::Compliance => "nobody can delete a version before its time",
            LockMode::Governance => "only who may bypass governance can delete a version before its time",
        };
        Ok(Finding::new("lock", true, format!("{detail}; objects are locked for {} days and more", lock.days)))
    }
}
