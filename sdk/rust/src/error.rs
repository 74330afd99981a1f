//! The error of everything here: a stable code for programs, a fact and a hint for people. Never a secret.

use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::bindings::holdfast::engine::types;

/// What every fallible function of a plugin returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something failed, as the operator will see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Stable, kebab-case: `connection-refused`, `authentication-failed`, ...
    pub code: Cow<'static, str>,
    /// A lowercase fact with the names of things.
    pub message: String,
    /// A full sentence that says what to do.
    pub hint: Option<String>,
    /// Whether the same call may succeed later with nothing changed by an operator.
    pub retryable: bool,
}

impl Error {
    /// An error without a hint that is not worth retrying.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None, retryable: false }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that trying again later may help.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Puts what was being done in front of the message.
    #[must_use]
    pub fn during(mut self, step: impl fmt::Display) -> Self {
        self.message = format!("{step}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        Self { code: error.code.into(), message: error.message, hint: error.hint, retryable: error.retryable }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        Self { code: error.code.into_owned(), message: error.message, hint: error.hint, retryable: error.retryable }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

/// An [`Error`] that went through `std::io` comes out as it went in.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::new("unexpected-end", "the stream ended too early").retryable()
            }
            Err(error) => Self::new("invalid-data", error.to_string()),
        }
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        if error.is_io() {
            return io::Error::from(error).into();
        }
        Self::new("invalid-document", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_std_io() {
        let error = Error::new("disk-full", "no space at /x").hint("Make room.").retryable();
        assert_eq!(Error::from(io::Error::from(error.clone())), error);
        assert_eq!(Error::from(types::Error::from(error.clone())), error);
    }

    #[test]
    fn other_io_errors_get_a_code() {
        assert_eq!(Error::from(io::Error::from(io::ErrorKind::UnexpectedEof)).code, "unexpected-end");
        assert_eq!(Error::from(io::Error::other("odd")).code, "invalid-data");
    }
}
