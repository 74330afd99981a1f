//! Why a plugin did not give its document: the room's one error.

/// Why loading a plugin or running one of its exports ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The plugin's own error, or an error of the host's that the plugin handed on.
    #[error("{message}")]
    Reported {
        /// Stable, kebab-case; an open set.
        code: String,
        /// What happened, for people.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// Whether it tells of the target that keeps the archive: that it is damaged, or does not answer.
        is_of_the_source: bool,
    },
    /// The guest ended in a trap of its own making.
    #[error("the plugin crashed: {message}")]
    Trapped {
        /// The trap, and the last error that the plugin logged.
        message: String,
    },
    /// The guest went past one of its [`crate::Limits`].
    #[error("the plugin exceeded its limit: {limit} ({detail})")]
    Limit {
        /// A name that operators find in the documentation: `memory`, `wall`, `cpu`, `idle`, `output`, `entries`, `records`, `streams`,
        /// `handles`, `host-call`, `table`, `instances`, or of compiling it `compile-memory`, `compile-time`, `compiled-code`.
        limit: &'static str,
        /// The bound that was set, and what went past it.
        detail: String,
    },
    /// Stopped through [`crate::Watch`], or by dropping the future that waited for it.
    #[error("cancelled")]
    Cancelled,
    /// The component cannot be run here at all.
    #[error("not a usable plugin: {0}")]
    Unusable(String),
    /// The host's own side of a host call failed (storage, disk), in words already fit for people.
    #[error("{message}")]
    Host {
        /// Stable, kebab-case.
        code: String,
        /// What happened, for people.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// Whether it tells of the target that keeps the archive: that it is damaged, or does not answer.
        is_of_the_source: bool,
    },
}

impl Failure {
    /// Whether it tells of the target that keeps the archive: another one may have it.
    pub fn tells_of_the_source(&self) -> bool {
        matches!(self, Self::Reported { is_of_the_source: true, .. } | Self::Host { is_of_the_source: true, .. })
    }

    /// A failure of the host's own that no operator can mend and that waiting may.
    pub(crate) fn host(code: &str, message: String) -> Self {
        Self::Host { code: code.to_owned(), message, hint: None, retryable: true, is_of_the_source: false }
    }
}
