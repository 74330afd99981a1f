//! `types`: the error that a guest sees, and how the host's own errors become one.

use holdfast_repository::Error as Repository;
use wasmtime::component::ResourceTableError;

pub(crate) use super::wit::types::{Error, Host};
use crate::guard::Stop;
use crate::state::State;

/// How a host call fails.
pub enum CallError {
    /// The guest is told: it asked for something wrong, or the other side said no.
    Refused(Error),
    /// The guest is told, and the host remembers: its own storage or disk failed.
    Failed(Error),
    /// The same, and it tells of the target that keeps the archive.
    SourceFailed(Error),
    /// The guest is ended.
    Stopped(wasmtime::Error),
}

/// What no retry mends.
pub(crate) fn refused(code: &str, message: impl Into<String>, hint: impl Into<String>) -> CallError {
    CallError::Refused(error(code, message, hint, false))
}

/// What may be better the next time.
pub(crate) fn refused_for_now(code: &str, message: impl Into<String>, hint: impl Into<String>) -> CallError {
    CallError::Refused(error(code, message, hint, true))
}

/// What only the plugin's author can mend.
pub(crate) fn misused(code: &str, message: impl Into<String>) -> CallError {
    refused(code, message, "This is a defect of the plugin: report it to its author.")
}

/// An error record.
pub(crate) fn error(code: &str, message: impl Into<String>, hint: impl Into<String>, retryable: bool) -> Error {
    Error { code: code.to_owned(), message: message.into(), hint: Some(hint.into()), retryable }
}

impl CallError {
    /// The code that the guest sees, if it sees any.
    #[cfg(test)]
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(error) | Self::Failed(error) | Self::SourceFailed(error) => Some(&error.code),
            Self::Stopped(_) => None,
        }
    }
}

impl From<Stop> for CallError {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop.into())
    }
}

impl From<ResourceTableError> for CallError {
    fn from(error: ResourceTableError) -> Self {
        Self::Stopped(error.into())
    }
}

impl From<Repository> for CallError {
    fn from(error: Repository) -> Self {
        let told = |code: &str, retryable: bool| Error {
            code: code.to_owned(),
            message: error.to_string(),
            hint: error.hint(),
            retryable,
        };
        match &error {
            // What the guest did wrong it will do again.
            Repository::DuplicatePath { .. } => Self::Refused(told("already-exists", false)),
            Repository::NoSuchEntry { .. }
            | Repository::InvalidPath { .. }
            | Repository::InvalidPageSize { .. }
            | Repository::NotAFile { .. }
            | Repository::SizeMismatch { .. }
            | Repository::AnnotationsTooLong { .. } => Self::Refused(told(error.code(), false)),
            _ if error.tells_of_the_source() => Self::SourceFailed(told(error.code(), !error.is_permanent())),
            _ => Self::Failed(told(error.code(), !error.is_permanent())),
        }
    }
}

impl Host for State {
    fn convert_error(&mut self, error: CallError) -> wasmtime::Result<Error> {
        match error {
            CallError::Refused(error) => {
                self.told.refusal = Some(error.clone());
                Ok(error)
            }
            CallError::Failed(error) => {
                (self.told.failure, self.told.is_of_the_source) = (Some(error.clone()), false);
                Ok(error)
            }
            CallError::SourceFailed(error) => {
                (self.told.failure, self.told.is_of_the_source) = (Some(error.clone()), true);
                Ok(error)
            }
            CallError::Stopped(error) => Err(error),
        }
    }
}
