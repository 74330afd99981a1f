//! What the protocol's statuses and a broken session mean to an operator.

use russh_sftp::client::error::Error as Refusal;
use russh_sftp::protocol::StatusCode;

use super::session::REQUEST_LIMIT;
use crate::error::{Attempt, Denial, Error, printable};

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server says no.
    Status {
        step: &'static str,
        code: StatusCode,
        detail: String,
    },
    /// The session is of no use any more.
    Broken(String),
    /// No answer came in time; the session is of no use any more.
    Silent,
    /// The server's answer makes no sense.
    Senseless(&'static str),
    /// There is no room.
    Full,
    TooLarge(u64),
}

impl Failure {
    pub(super) fn new(step: &'static str, refusal: Refusal) -> Self {
        match refusal {
            Refusal::Status(status) => {
                let said = printable(&status.error_message);
                let code = status.status_code;
                let detail = if said.is_empty() { code.to_string() } else { said };
                Self::Status { step, code, detail }
            }
            Refusal::Timeout => Self::Silent,
            Refusal::IO(detail) | Refusal::Limited(detail) | Refusal::UnexpectedBehavior(detail) => {
                Self::Broken(printable(&format!("{step}: {detail}")))
            }
            Refusal::UnexpectedPacket => Self::Senseless("an answer of another kind than was asked for"),
        }
    }

    /// That there is no such file.
    pub(super) fn absence() -> Self {
        Self::Status { step: "opening", code: StatusCode::NoSuchFile, detail: StatusCode::NoSuchFile.to_string() }
    }

    /// There is no such file.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Status { code: StatusCode::NoSuchFile, .. })
    }

    /// The server's word for whatever it has no word for: a name that is taken, a full disk, a broken one.
    pub(super) fn is_general(&self) -> bool {
        matches!(self, Self::Status { code: StatusCode::Failure | StatusCode::OpUnsupported, .. })
    }

    /// The server does not know the request.
    pub(super) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Status { code: StatusCode::OpUnsupported, .. })
    }

    /// The server answered, and says no.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Status { .. })
    }

    /// The session should not be used again.
    pub(super) fn ends_the_session(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Silent | Self::Senseless(_))
    }

    /// The error of the operation.
    pub(super) fn of(self, attempt: Attempt) -> Error {
        match self {
            Self::Status { code: StatusCode::NoSuchFile, .. } => {
                Error::NotFound { location: attempt.location, path: attempt.path }
            }
            Self::Status { step, code: StatusCode::PermissionDenied, detail } => {
                Error::Denied { attempt, denial: Denial::FileSystem, detail: format!("{step}: {detail}") }
            }
            Self::Status { step, code: StatusCode::OpUnsupported, detail } => {
                Error::Unsupported { attempt, detail: format!("{step}: {detail}") }
            }
            Self::Status { code: StatusCode::NoConnection | StatusCode::ConnectionLost, detail, .. }
            | Self::Broken(detail) => Error::Unreachable { attempt, detail },
            Self::Status { step, detail, .. } => Error::Remote { attempt, step, detail },
            Self::Silent => Error::Stalled { attempt, limit: REQUEST_LIMIT },
            Self::Senseless(detail) => Error::Protocol { attempt, detail: detail.to_owned() },
            Self::Full => Error::Full { attempt, detail: "the server's file system is full".to_owned() },
            Self::TooLarge(length) => Error::TooLarge { attempt, length },
        }
    }
}
