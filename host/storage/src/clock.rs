//! The one place of this room that reads the wall clock: locks last until a date.

use std::time::SystemTime;

/// Milliseconds since 1970; 0 for a clock set before that.
#[allow(clippy::disallowed_methods)] // This is the clock module.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
