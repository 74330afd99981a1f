//! The one place of this room that reads the wall clock: heads say when they were written, and grace periods are told by it.

use std::sync::Arc;
use std::time::SystemTime;

/// What tells a repository the time: the system's clock, or one of the caller's.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<dyn Fn() -> u64 + Send + Sync>>);

impl Clock {
    /// A clock that tells milliseconds since 1970.
    pub fn of(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(now_ms)))
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.0.as_ref().map_or_else(system_ms, |now_ms| now_ms())
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Clock").finish_non_exhaustive()
    }
}

/// Milliseconds since 1970; 0 for a clock set before that.
#[allow(clippy::disallowed_methods)] // This is the clock module.
fn system_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
