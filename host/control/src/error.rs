//! What went wrong, as people and programs are told: a kind, a stable code, a message, a hint.

/// Which of a few classes an error is of; `web` maps it to a status, the CLI to an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is malformed, or says something that is not allowed.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// Understood and possible at another time or in another way.
    Unprocessable,
    /// The caller may not.
    Denied,
    /// Something outside does not answer; trying again can help.
    Unavailable,
    /// Our own failure.
    Internal,
}

/// An operation's error.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Its class.
    pub kind: ErrorKind,
    /// Stable, `kebab-case`, such as `backup-running`, `unknown-setting`.
    pub code: String,
    /// What happened: a lowercase fact, with names.
    pub message: String,
    /// What to do: a full sentence.
    pub hint: Option<String>,
    /// For the log only.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of this kind, without a hint.
    pub fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), message: message.into(), hint: None, source: None }
    }

    /// A request that is not allowed.
    pub fn invalid(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, code, message)
    }

    /// Something that is not there.
    pub fn not_found(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, code, message)
    }

    /// A contradiction to what is there.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, code, message)
    }

    /// Possible at another time or in another way.
    pub fn unprocessable(code: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unprocessable, code, message)
    }

    /// A failed file operation on the appliance's own disk; the kind tells a full disk from the rest.
    pub fn file(step: &str, path: &std::path::Path, source: std::io::Error) -> Self {
        let full = source.kind() == std::io::ErrorKind::StorageFull;
        let error = Self::new(
            ErrorKind::Internal,
            if full { "disk-full" } else { "file-failed" },
            format!("{step} {} failed: {source}", path.display()),
        );
        let error = if full { error.hint("Free space on this file system, then try again.") } else { error };
        Self { source: Some(Box::new(source)), ..error }
    }

    /// What another room says of its own failure.
    fn of_room(
        kind: ErrorKind,
        code: &str,
        hint: Option<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let message = source.to_string();
        Self { kind, code: code.to_owned(), message, hint, source: Some(Box::new(source)) }
    }

    /// Whether it tells of the target that was read, so that another one may do: what lies there is damaged, or it does not answer.
    pub(crate) fn tells_of_the_source(&self) -> bool {
        let room = self.source.as_deref();
        let repository = room.and_then(|source| source.downcast_ref::<holdfast_repository::Error>());
        let storage = room.and_then(|source| source.downcast_ref::<holdfast_storage::Error>());
        let sandbox = room.and_then(|source| source.downcast_ref::<holdfast_sandbox::Failure>());
        repository.is_some_and(holdfast_repository::Error::tells_of_the_source)
            || storage.is_some_and(holdfast_storage::Error::tells_of_the_source)
            || sandbox.is_some_and(holdfast_sandbox::Failure::tells_of_the_source)
    }

    /// Whether the catalog could not take a change, and may take the same one later.
    pub(crate) fn is_of_busy_catalog(&self) -> bool {
        let source = self.source.as_ref().and_then(|source| source.downcast_ref::<holdfast_catalog::Error>());
        source.is_some_and(|error| !error.is_permanent())
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<holdfast_repository::Error> for Error {
    fn from(error: holdfast_repository::Error) -> Self {
        let kind = match error.code() {
            "not-found" => ErrorKind::NotFound,
            _ if error.is_permanent() => ErrorKind::Unprocessable,
            _ => ErrorKind::Unavailable,
        };
        let (code, hint) = (error.code(), error.hint());
        Self::of_room(kind, code, hint, error)
    }
}

impl From<holdfast_catalog::Error> for Error {
    fn from(error: holdfast_catalog::Error) -> Self {
        use holdfast_catalog::Error as Catalog;
        let kind = match &error {
            Catalog::BackupRunning { .. } => ErrorKind::Unprocessable,
            Catalog::NotFound { .. } => ErrorKind::NotFound,
            Catalog::BadCursor(_) => ErrorKind::Invalid,
            Catalog::Busy { .. } => ErrorKind::Unavailable,
            Catalog::Full { .. } | Catalog::Corrupt { .. } | Catalog::Io { .. } | Catalog::Stopped { .. } => {
                ErrorKind::Internal
            }
            _ => ErrorKind::Conflict,
        };
        let (code, hint) = (error.code(), error.hint().map(str::to_owned));
        Self::of_room(kind, code, hint, error)
    }
}

impl From<holdfast_storage::Error> for Error {
    fn from(error: holdfast_storage::Error) -> Self {
        let kind = if error.is_permanent() { ErrorKind::Unprocessable } else { ErrorKind::Unavailable };
        let (code, hint) = (error.code(), error.hint());
        Self::of_room(kind, code, hint, error)
    }
}

impl From<holdfast_sandbox::Failure> for Error {
    fn from(failure: holdfast_sandbox::Failure) -> Self {
        use holdfast_sandbox::Failure;
        let (kind, code, hint) = match &failure {
            Failure::Reported { code, hint, retryable, .. } | Failure::Host { code, hint, retryable, .. } => {
                let kind = if *retryable { ErrorKind::Unavailable } else { ErrorKind::Unprocessable };
                (kind, code.as_str(), hint.clone())
            }
            Failure::Trapped { .. } => (
                ErrorKind::Internal,
                "plugin-crashed",
                Some("This is a fault of the plugin; the job's log holds what it said last.".to_owned()),
            ),
            Failure::Limit { limit, .. } => {
                (ErrorKind::Unprocessable, "plugin-limit", Some(limit_hint(limit)))
            }
            Failure::Cancelled => (ErrorKind::Unprocessable, "cancelled", None),
            Failure::Unusable(_) => (
                ErrorKind::Unprocessable,
                "plugin-unusable",
                Some("A plugin is a WebAssembly component of the world `engine` of holdfast:engine; `wit/README.md` says how to build one.".to_owned()),
            ),
        };
        let code = code.to_owned();
        Self::of_room(kind, &code, hint, failure)
    }
}

/// How an operator gives more of what a plugin had too little of, if that is theirs to give.
fn limit_hint(limit: &str) -> String {
    match limit {
        "memory" | "wall" | "cpu" | "idle" | "output" | "entries" | "records" | "compile-memory" | "compile-time" => {
            format!(
                "Nothing else was affected. If the work truly needs more, raise `{limit}` in [limits] of holdfast.toml and restart."
            )
        }
        _ => "Nothing else was affected. This limit is fixed: report the plugin to its author.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_repository::{BackupId, Error as Repository};
    use holdfast_sandbox::Failure;
    use holdfast_storage::{Attempt, Error as Storage, Operation};

    use super::*;

    #[test]
    fn each_room_says_of_its_errors_whether_another_target_may_do() {
        let location = "file:///there".to_owned();
        let attempt = Attempt::new(Operation::Get, "packs/1", "file:///there");
        let of_guest = |is_of_the_source| Failure::Host {
            code: "storage-full".to_owned(),
            message: "no room".to_owned(),
            hint: None,
            retryable: false,
            is_of_the_source,
        };
        let lost = Repository::Lost { path: "packs/1".to_owned(), location: location.clone() };
        let away = Storage::Unreachable { attempt, detail: "cut off".to_owned() };
        for tells in [Error::from(lost), Repository::from(away).into(), of_guest(true).into()] {
            assert!(tells.tells_of_the_source(), "{tells}");
        }
        let absent = Repository::NoKey { backup: BackupId::random() };
        let bad = Storage::BadUrl { url: location, reason: "it has no host".to_owned() };
        for other in [absent.into(), bad.into(), of_guest(false).into(), Error::invalid("lost-object", "made up")] {
            assert!(!Error::tells_of_the_source(&other), "{other}");
        }
    }
}
