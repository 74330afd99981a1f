//! Why a scenario or the demo cannot go on: a text for a person. Any error becomes one by `?`.

use std::error::Error;
use std::fmt;

/// A text that says what went wrong.
pub struct Failure(String);

/// What everything here returns.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The same failure, saying first what was being done.
    pub fn during(self, what: impl fmt::Display) -> Self {
        Self(format!("{what}: {}", self.0))
    }
}

/// A [`Failure`] with the text, unless the condition holds.
pub fn ensure(condition: bool, text: impl FnOnce() -> String) -> Result {
    if condition { Ok(()) } else { Err(Failure(text())) }
}

impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// As the test harness prints it: the text itself.
impl fmt::Debug for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
