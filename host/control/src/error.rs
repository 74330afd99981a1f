//! What went wrong, as people and programs are told: a kind, a stable code, a message, a hint.

/// Which of a few classes an error is of; `web` maps it to a status, the CLI to an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind { Invalid, NotFound, Conflict, Unprocessable, Denied, Unavailable, Internal }

/// An operation's error.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    pub kind: ErrorKind,
    /// Stable, `kebab-case`, such as `backup-running`, `unknown-setting`.
    pub code: String,
    /// What happened: lowercase fact, with names.
    pub message: String,
    /// What to do: a full sentence.
    pub hint: Option<String>,
    /// For the log only.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
