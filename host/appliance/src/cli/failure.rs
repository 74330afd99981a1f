//! How a command ended: its exit code, and what went wrong in words.

use std::fmt::Display;
use std::process::ExitCode;

use holdfast_control::ErrorKind;

use super::output::printable;
use super::say;

/// Exit codes; scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Done, and something wants attention.
    Warnings = 3,
    /// The appliance does not answer, or does not let us.
    Unreachable = 4,
    /// It did not happen in the time that was given.
    TimedOut = 5,
    /// Ctrl-C: as shells count SIGINT. The work goes on.
    Detached = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// A lowercase fact.
    pub message: String,
    /// A full sentence that says what to do.
    pub hint: Option<String>,
    /// The connection broke or could not be made: it may come back.
    pub lost: bool,
}

impl Failure {
    /// An end of this kind.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, lost: false }
    }

    /// What was asked for failed.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line is wrong in a way that only its whole shows.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The appliance cannot be reached now.
    pub fn lost(message: impl Into<String>) -> Self {
        Self { lost: true, ..Self::new(Exit::Unreachable, message) }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Says where it was.
    #[must_use]
    pub fn at(self, place: impl Display) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// Tells the person who waits.
    pub fn tell(&self) {
        let word = if self.exit == Exit::Detached { "note" } else { "error" };
        say(format_args!("{word}: {}", printable(&self.message)));
        if let Some(hint) = &self.hint {
            say(format_args!("hint: {}", printable(hint)));
        }
    }
}

/// An operation that this process did itself, without an appliance.
impl From<holdfast_control::Error> for Failure {
    fn from(error: holdfast_control::Error) -> Self {
        let exit = match error.kind {
            ErrorKind::Unavailable | ErrorKind::Denied => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Self { exit, message: error.message, hint: error.hint, lost: false }
    }
}
