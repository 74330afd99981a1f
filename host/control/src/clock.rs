//! The one place that asks for the time of day, and the texts that times have here: UTC, always.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// Now, in milliseconds since 1970.
#[allow(clippy::disallowed_methods)] // This is the clock module.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-11-21T06:10:01Z`, with milliseconds where there are any.
pub(crate) fn text(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map_or_else(|_| "out of range".to_owned(), |at| at.to_string())
}

/// `20261121061001`: how a backup is named unless somebody names it.
pub(crate) fn compact(ms: i64) -> String {
    Timestamp::from_millisecond(ms)
        .map_or_else(|_| "out-of-range".to_owned(), |at| at.strftime("%Y%m%d%H%M%S").to_string())
}

/// Milliseconds as the repository counts them; times before 1970 do not occur there.
pub(crate) fn unsigned(ms: i64) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

/// Milliseconds as the catalog counts them.
pub(crate) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_utc() {
        assert_eq!(text(1_728_035_776_000), "2024-10-04T09:56:16Z");
        assert_eq!(compact(1_728_035_776_999), "20241004095616");
    }
}
