//! An S3 bucket, or a part of one, as a store.
//!
//! One PUT writes one object, with a checksum that the store checks; there is no multipart upload. Keys are
//! given, never looked for: this client asks no metadata service and dials no link-local address. It does not
//! try again by itself, which is [`crate::Retrying`]'s work. Invariant: a write is acknowledged only if the store
//! answered with the object's ETag, or shows the object at its length.

mod address;
mod client;
mod failure;
mod resolver;
mod terms;
mod versions;
mod write;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::{BucketVersioningStatus, ChecksumMode};
use bytes::{Bytes, BytesMut};
use tokio::sync::OnceCell;

use crate::contest::{self, Contestant};
use crate::error::{Attempt, Error, Operation};
use crate::{Finding, Listed, Lock, OBJECT_BYTES_MAX, Retention, Settings, Storage, Traits, Version, path};
use address::{Address, Checksum};
use failure::Asked;
use terms::Terms;
use write::Sent;

/// Most pages of a listing, 1,000 objects each: an endless listing ends in an error, not in our memory.
const PAGES_MAX: usize = 20_000;

/// A path at which nobody writes anything.
const CLOCK: &str = "clock";

/// A bucket, or what lies below a prefix in it.
pub struct S3 {
    client: Client,
    address: Address,
    terms: Terms,
    location: String,
    /// What the bucket says of versions, once it was asked.
    versioning: OnceCell<Option<BucketVersioningStatus>>,
    /// The store was seen to keep writers apart.
    proven: AtomicBool,
    /// The store does not know conditional requests.
    unconditional: AtomicBool,
}

impl std::fmt::Debug for S3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3").field("location", &self.location).finish_non_exhaustive()
    }
}

impl S3 {
    /// A client for the place that `url` names, with the keys in `settings`. Touches no network.
    ///
    /// Errors: [`Error::BadUrl`], [`Error::BadSetting`].
    pub fn open(url: &str, settings: &Settings) -> Result<Self, Error> {
        let address = Address::parse(url)?.with(settings)?;
        let terms = Terms::parse(settings)?;
        let client = client::new(&address, &terms, settings)?;
        let location = address.location();
        let (proven, unconditional) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { client, address, terms, location, versioning: OnceCell::new(), proven, unconditional })
    }

    fn attempt(&self, operation: Operation, path: &str) -> Result<Attempt, Error> {
        let attempt = Attempt::new(operation, path, &self.location);
        match operation {
            Operation::List => path::check_prefix(&attempt)?,
            _ => path::check(&attempt)?,
        }
        Ok(attempt)
    }

    fn asked(&self, attempt: Attempt) -> Asked<'_> {
        Asked { attempt, bucket: &self.address.bucket }
    }

    fn key(&self, path: &str) -> String {
        format!("{}{path}", self.address.prefix)
    }

    /// Collects an answer's body, never more than was announced and never more than we hold.
    async fn collect(&self, attempt: &Attempt, output: GetObjectOutput) -> Result<Bytes, Error> {
        let announced = output.content_length().and_then(|length| u64::try_from(length).ok());
        let limit = announced.unwrap_or(OBJECT_BYTES_MAX);
        if limit > OBJECT_BYTES_MAX {
            return Err(Error::TooLarge { attempt: attempt.clone(), length: limit });
        }
        let mut body = output.body;
        let mut bytes = BytesMut::with_capacity(announced.unwrap_or_default() as usize);
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| self.asked(attempt.clone()).broken(&error))?;
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > limit {
                return Err(Error::Protocol {
                    attempt: attempt.clone(),
                    detail: "more bytes came than were announced".to_owned(),
                });
            }
        }
        if announced.is_some_and(|announced| announced != bytes.len() as u64) {
            return Err(Error::Protocol {
                attempt: attempt.clone(),
                detail: "fewer bytes came than were announced".to_owned(),
            });
        }
        Ok(bytes.freeze())
    }

    /// Reads an object or one version of it, or a range of either.
    async fn fetch(&self, path: &str, version: Option<&str>, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        let attempt = self.attempt(Operation::Get, path)?;
        if range.as_ref().is_some_and(Range::is_empty) {
            // HTTP cannot say "no bytes"; whether the object is there still matters.
            let found = self.head(path).await?;
            return found
                .map(|_| Bytes::new())
                .ok_or(Error::NotFound { location: attempt.location, path: attempt.path });
        }
        let header = range.as_ref().map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let request = self.client.get_object().bucket(&self.address.bucket).key(self.key(path)).set_range(header);
        let request = request.set_version_id(version.map(str::to_owned));
        let checked = matches!(self.address.checksum, Checksum::Crc64Nvme | Checksum::Crc32);
        let request = if checked { request.checksum_mode(ChecksumMode::Enabled) } else { request };
        let output = match request.send().await {
            Ok(output) => output,
            // The range begins at or behind the end: cut at the end, nothing is left of it.
            Err(error) if failure::status(&error) == Some(416) && range.is_some() => {
                return Ok(Bytes::new());
            }
            Err(error) => return Err(self.asked(attempt).failed(&error)),
        };
        let cut = output.content_range().map(str::to_owned);
        let bytes = self.collect(&attempt, output).await?;
        match (range, cut) {
            (Some(range), Some(cut)) => address::is_cut_of(&cut, &range, bytes.len())
                .then_some(bytes)
                .ok_or_else(|| Error::Protocol { attempt, detail: "another range came than was asked for".to_owned() }),
            // A store that does not know ranges sends the whole object.
            (Some(range), None) => Ok(bytes.slice(within(&bytes, range.start)..within(&bytes, range.end))),
            (None, _) => Ok(bytes),
        }
    }
}

#[async_trait]
impl Storage for S3 {
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        self.fetch(path, None, range).await
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        let attempt = self.attempt(Operation::Put, path)?;
        let retention = self.retention_of(path);
        self.send(&attempt, bytes, false, retention).await.map(|_| ())
    }

    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        let attempt = self.attempt(Operation::PutIfAbsent, path)?;
        // A store that was not seen to keep writers apart may ignore the condition, so we look first.
        if !self.proven.load(Ordering::Relaxed) && self.head(path).await?.is_some() {
            return Ok(false);
        }
        Ok(self.send_if_absent(&attempt, bytes).await? == Sent::Stored)
    }

    async fn head(&self, path: &str) -> Result<Option<u64>, Error> {
        let attempt = self.attempt(Operation::Head, path)?;
        match self.client.head_object().bucket(&self.address.bucket).key(self.key(path)).send().await {
            Ok(output) => match output.content_length().map(u64::try_from) {
                Some(Ok(length)) => Ok(Some(length)),
                _ => Err(Error::Protocol { attempt, detail: "the object has no length".to_owned() }),
            },
            Err(error) => match self.asked(attempt).failed(&error) {
                Error::NotFound { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        let attempt = self.attempt(Operation::List, prefix)?;
        let mut listed = Vec::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let request = self.client.list_objects_v2().bucket(&self.address.bucket).prefix(self.key(prefix));
            let page = request
                .set_continuation_token(token.clone())
                .send()
                .await
                .map_err(|error| self.asked(attempt.clone()).failed(&error))?;
            must_be_whole(&attempt, page.is_truncated(), page.key_count(), page.contents().len())?;
            listed.extend(page.contents().iter().filter_map(|object| self.listed(object)));
            let next = page.next_continuation_token().filter(|_| page.is_truncated() == Some(true)).map(str::to_owned);
            match next {
                None if page.is_truncated() == Some(true) => break,
                None => {
                    listed.sort_by(|a, b| a.path.cmp(&b.path));
                    // Pages that overlap show an object twice.
                    listed.dedup_by(|a, b| a.path == b.path);
                    return Ok(listed);
                }
                next if next == token => break,
                next => token = next,
            }
        }
        Err(Error::Protocol { attempt, detail: "the listing does not come to an end".to_owned() })
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        let attempt = self.attempt(Operation::Delete, path)?;
        match self.client.delete_object().bucket(&self.address.bucket).key(self.key(path)).send().await {
            Ok(_) => Ok(()),
            Err(error) => match self.asked(attempt).failed(&error) {
                Error::NotFound { .. } => Ok(()),
                error => Err(error),
            },
        }
    }

    async fn written_ms(&self, path: &str) -> Result<Option<u64>, Error> {
        let attempt = self.attempt(Operation::Head, path)?;
        match self.client.head_object().bucket(&self.address.bucket).key(self.key(path)).send().await {
            Ok(output) => Ok(output.last_modified().and_then(milliseconds)),
            Err(error) => match self.asked(attempt).failed(&error) {
                Error::NotFound { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Every answer says when it was given; the SDK shows that of an answer that says no, so an object that nobody writes is
    /// asked for.
    async fn clock_ms(&self) -> Result<Option<u64>, Error> {
        let attempt = self.attempt(Operation::Head, CLOCK)?;
        match self.client.head_object().bucket(&self.address.bucket).key(self.key(CLOCK)).send().await {
            Ok(_) => Ok(None),
            Err(error) => match (failure::date(&error), self.asked(attempt).failed(&error)) {
                (date, Error::NotFound { .. }) => Ok(date.as_ref().and_then(milliseconds)),
                (_, error) => Err(error),
            },
        }
    }

    fn traits(&self) -> Traits {
        Traits { conditional_writes: self.proven.load(Ordering::Relaxed) }
    }

    fn location(&self) -> String {
        self.location.clone()
    }

    async fn try_conditional_writes(&self, scratch: &str) -> Result<bool, Error> {
        self.unconditional.store(false, Ordering::Relaxed);
        let proven = contest::keeps_writers_apart(self, scratch).await?;
        self.proven.store(proven, Ordering::Relaxed);
        Ok(proven)
    }

    async fn examine(&self, scratch: &str) -> Result<Vec<Finding>, Error> {
        let checked = self.address.checksum != Checksum::None;
        let mut findings = vec![Finding::new("checksum", checked, self.address.checksum.detail())];
        if let Some(class) = &self.terms.storage_class {
            findings.push(Finding::new("storage-class", true, format!("objects are of class {}", class.as_str())));
        }
        findings.push(match self.is_versioned().await? {
            true => Finding::new("versions", true, "what is overwritten or deleted is kept, and is read if need be"),
            false => Finding::new("versions", false, "what is overwritten or deleted is gone"),
        });
        findings.push(match self.terms.lock {
            Some(lock) => self.try_lock(lock, scratch).await?,
            None => Finding::new(
                "lock",
                false,
                "whoever has the keys can delete everything; `lock` and `lock-days` prevent that",
            ),
        });
        Ok(findings)
    }

    fn lock(&self) -> Option<Lock> {
        self.terms.lock
    }

    async fn keeps_versions(&self) -> Result<bool, Error> {
        self.is_versioned().await
    }

    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, Error> {
        self.list_versions(prefix).await
    }

    async fn get_version(&self, path: &str, version: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        self.fetch(path, Some(version), range).await
    }

    async fn retention(&self, path: &str, version: &str) -> Result<Option<Retention>, Error> {
        self.read_retention(path, version).await
    }

    async fn set_retention(&self, path: &str, version: &str, retention: Retention) -> Result<(), Error> {
        self.write_retention(path, version, retention).await
    }

    async fn holder(&self) -> Result<String, Error> {
        Ok(self.address.holder())
    }
}

#[async_trait]
impl Contestant for S3 {
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        let attempt = self.attempt(Operation::PutIfAbsent, path)?;
        Ok(self.send_if_absent(&attempt, bytes).await? == Sent::Stored)
    }
}

impl S3 {
    /// A listed object of ours; other people's keys are left alone.
    fn listed(&self, object: &aws_sdk_s3::types::Object) -> Option<Listed> {
        let path = object.key()?.strip_prefix(&self.address.prefix)?;
        let length = u64::try_from(object.size()?).ok()?;
        path::is_valid(path).then(|| Listed { path: path.to_owned(), length })
    }
}

/// Refuses a page that was cut on its way: what is left of one reads as a shorter page.
fn must_be_whole(
    attempt: &Attempt,
    is_truncated: Option<bool>,
    announced: Option<i32>,
    found: usize,
) -> Result<(), Error> {
    let is_cut = is_truncated.is_none() || announced.is_some_and(|announced| found < announced.unsigned_abs() as usize);
    match is_cut {
        true => {
            Err(Error::Protocol { attempt: attempt.clone(), detail: "a page of the listing is not whole".to_owned() })
        }
        false => Ok(()),
    }
}

fn milliseconds(time: &DateTime) -> Option<u64> {
    time.to_millis().ok().and_then(|time| u64::try_from(time).ok())
}

/// An offset cut at the end of the bytes.
fn within(bytes: &Bytes, offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len())
}
