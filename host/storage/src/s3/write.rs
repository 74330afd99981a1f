//! Writing: one PUT an object, with a checksum, on a condition or without.
//!
//! Invariant: a write is acknowledged only if the store answered with the object's ETag, or shows the object at
//! its length.

use std::sync::atomic::Ordering;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::address::Checksum;
use super::{S3, client, failure, versions};
use crate::error::{Attempt, Error};
use crate::{OBJECT_BYTES_MAX, Retention, Storage};

/// What became of a PUT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Stored,
    /// An object is there, and may not be replaced.
    Occupied,
}

impl S3 {
    /// One PUT.
    pub(super) async fn send(
        &self,
        attempt: &Attempt,
        bytes: Bytes,
        only_if_absent: bool,
        retention: Option<Retention>,
    ) -> Result<Sent, Error> {
        let length = bytes.len() as u64;
        if length > OBJECT_BYTES_MAX {
            return Err(Error::TooLarge { attempt: attempt.clone(), length });
        }
        let request = self.client.put_object().bucket(&self.address.bucket).key(self.key(&attempt.path));
        let request = match self.address.checksum {
            Checksum::Crc64Nvme => request.checksum_algorithm(ChecksumAlgorithm::Crc64Nvme),
            Checksum::Crc32 => request.checksum_algorithm(ChecksumAlgorithm::Crc32),
            // The oldest checksum is the one that every store checks.
            Checksum::WhenRequired => request.content_md5(aws_smithy_types::base64::encode(Md5::digest(&bytes))),
            // A lock is not taken without one.
            Checksum::None if retention.is_some() => {
                request.content_md5(aws_smithy_types::base64::encode(Md5::digest(&bytes)))
            }
            Checksum::None => request,
        };
        let request = request.set_storage_class(self.terms.storage_class.clone());
        let request = match retention {
            Some(Retention { mode, until_ms }) => request
                .object_lock_mode(versions::lock_mode(mode))
                .object_lock_retain_until_date(versions::date(until_ms)),
            None => request,
        };
        let request = if only_if_absent { request.if_none_match("*") } else { request };
        let request = request.body(ByteStream::from(bytes)).customize().config_override(client::for_writing());
        match request.send().await {
            Ok(output) if output.e_tag().is_some() => Ok(Sent::Stored),
            Ok(_) => self.confirm(attempt, length).await,
            Err(error) => match failure::status(&error) {
                Some(412) if only_if_absent => Ok(Sent::Occupied),
                Some(409) if only_if_absent => self.settle(attempt).await,
                _ => Err(self.asked(attempt.clone()).failed(&error)),
            },
        }
    }

    /// An acknowledgement without an ETag could be a proxy's; the object itself decides.
    async fn confirm(&self, attempt: &Attempt, length: u64) -> Result<Sent, Error> {
        match self.head(&attempt.path).await? {
            Some(found) if found == length => Ok(Sent::Stored),
            _ => Err(Error::Protocol {
                attempt: attempt.clone(),
                detail: "the write was acknowledged, but the object is not there".to_owned(),
            }),
        }
    }

    /// A conflict means that another request for this object was under way: either it wrote, or nobody did.
    async fn settle(&self, attempt: &Attempt) -> Result<Sent, Error> {
        match self.head(&attempt.path).await? {
            Some(_) => Ok(Sent::Occupied),
            None => Err(Error::Busy {
                attempt: attempt.clone(),
                detail: "another request for this object was under way".to_owned(),
            }),
        }
    }

    /// A PUT on the condition that nothing is there, as far as the store knows conditions.
    pub(super) async fn send_if_absent(&self, attempt: &Attempt, bytes: Bytes) -> Result<Sent, Error> {
        if !self.unconditional.load(Ordering::Relaxed) {
            match self.send(attempt, bytes.clone(), true, self.retention_of(&attempt.path)).await {
                Err(Error::Unsupported { .. }) => self.unconditional.store(true, Ordering::Relaxed),
                outcome => return outcome,
            }
        }
        self.send(attempt, bytes, false, self.retention_of(&attempt.path)).await
    }
}
