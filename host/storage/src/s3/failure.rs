//! What the SDK's errors, HTTP statuses and S3's error codes mean to an operator.
//!
//! Of the SDK's errors only texts are kept: their `Debug` forms hold whole requests, and so signatures.

use std::error::Error as StdError;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::error::{Attempt, Denial, Error, Operation, printable, without_secrets};

/// What was asked of which bucket.
pub(super) struct Asked<'a> {
    pub(super) attempt: Attempt,
    pub(super) bucket: &'a str,
}

/// The HTTP status of the answer, if there was one.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// When the answer was given, by the store's clock.
pub(super) fn date<E>(error: &SdkError<E, HttpResponse>) -> Option<DateTime> {
    let date = error.raw_response()?.headers().get("date")?;
    DateTime::from_str(date, DateTimeFormat::HttpDate).ok()
}

impl Asked<'_> {
    /// The error of a request that failed.
    pub(super) fn failed<E>(self, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let attempt = self.attempt.clone();
        match error {
            SdkError::ServiceError(_) => self.answered(error),
            SdkError::TimeoutError(_) => Error::Unreachable { attempt, detail: "no answer in time".to_owned() },
            SdkError::DispatchFailure(_) => self.broken(error),
            SdkError::ResponseError(_) => Error::Protocol { attempt, detail: chain(error) },
            _ => Error::Refused { attempt, detail: chain(error) },
        }
    }

    /// The error of a connection that was not made, or broke.
    pub(super) fn broken(self, error: &(dyn StdError + 'static)) -> Error {
        let (attempt, detail) = (self.attempt, chain(error));
        if detail.contains("certificate") {
            return Error::Untrusted { attempt, detail };
        }
        if detail.contains("checksum mismatch") {
            return Error::Corrupt { attempt, detail };
        }
        Error::Unreachable { attempt, detail }
    }

    /// The error of a request that the store answered with one: by its code, and where that says nothing by the status.
    fn answered<E>(self, error: &SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let status = status(error).unwrap_or_default();
        let code = error.code().unwrap_or_default();
        let detail = said(status, code, error.message().unwrap_or_default());
        let attempt = self.attempt;
        match code {
            "NoSuchKey" => {
                return Error::NotFound { location: attempt.location, path: attempt.path };
            }
            "NoSuchBucket" => {
                return Error::NoBucket { attempt, bucket: self.bucket.to_owned() };
            }
            "RequestTimeTooSkewed" => {
                return Error::Denied { attempt, denial: Denial::Clock, detail };
            }
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "NotSignedUp"
            | "TokenRefreshRequired" => {
                return Error::Denied { attempt, denial: Denial::Credentials, detail };
            }
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => {
                return Error::WrongRegion { attempt, detail, region: region(error) };
            }
            "QuotaExceeded"
            | "XMinioStorageFull"
            | "XMinioAdminBucketQuotaExceeded"
            | "ServiceQuotaExceeded"
            | "InsufficientStorage" => {
                return Error::Full { attempt, detail };
            }
            "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" | "IncompleteBody" => {
                return Error::Corrupt { attempt, detail };
            }
            "NotImplemented" => return Error::Unsupported { attempt, detail },
            "SlowDown" | "RequestTimeout" | "OperationAborted" => {
                return Error::Busy { attempt, detail };
            }
            _ => {}
        }
        match status {
            200..=299 => {
                Error::Protocol { attempt, detail: format!("an error under the status of a success: {detail}") }
            }
            300..=399 => match (region(error), elsewhere(error)) {
                (None, Some(place)) => Error::Protocol {
                    attempt,
                    detail: format!("it sends elsewhere, to {place}, where nothing is asked: {detail}"),
                },
                (region, _) => Error::WrongRegion { attempt, detail, region },
            },
            401 => Error::Denied { attempt, denial: Denial::Credentials, detail },
            403 => Error::Denied { attempt, denial: Denial::Permission, detail },
            // Only a bucket can be missing when one writes or lists.
            404 if matches!(attempt.operation, Operation::List | Operation::Put | Operation::PutIfAbsent) => {
                Error::NoBucket { attempt, bucket: self.bucket.to_owned() }
            }
            404 => Error::NotFound { location: attempt.location, path: attempt.path },
            501 => Error::Unsupported { attempt, detail },
            507 => Error::Full { attempt, detail },
            408 | 409 | 429 | 500.. => Error::Busy { attempt, detail },
            _ => Error::Refused { attempt, detail },
        }
    }
}

/// Where the bucket is, by the answer's header.
fn region<E>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    error.raw_response()?.headers().get("x-amz-bucket-region").map(printable)
}

/// Where the answer sends who asked. Nobody goes there: a request is signed for the endpoint that the operator named.
fn elsewhere<E>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    error.raw_response()?.headers().get("location").map(without_secrets)
}

/// The store's own words, or the status where it has none (an answer to HEAD has no body).
fn said(status: u16, code: &str, message: &str) -> String {
    let text = match (code, message) {
        ("", _) => format!("HTTP status {status}"),
        (code, "") => code.to_owned(),
        (code, message) => format!("{code}: {message}"),
    };
    printable(&text)
}

/// An error and its causes, each once.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    printable(&parts.join(": "))
}
