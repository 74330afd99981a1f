//! Names that nobody else chooses, and jitter. Not for keys: it is the standard library's hash seed,
//! which the system's random source fills once a thread and which changes with every use.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// 64 random bits.
fn bits() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

/// A name of 32 hex digits.
pub(crate) fn name() -> String {
    format!("{:016x}{:016x}", bits(), bits())
}

/// A duration between the half of `whole` and `whole`.
pub(crate) fn jittered(whole: Duration) -> Duration {
    let share = f64::from((bits() >> 32) as u32) / f64::from(u32::MAX);
    whole.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let names: std::collections::BTreeSet<String> = (0..1000).map(|_| name()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.len() == 32));
    }

    #[test]
    fn jitter_stays_within_its_bounds_and_moves() {
        let whole = Duration::from_secs(2);
        let waits: std::collections::BTreeSet<Duration> = (0..100).map(|_| jittered(whole)).collect();
        assert!(waits.iter().all(|wait| (whole / 2..=whole).contains(wait)));
        assert!(waits.len() > 1);
    }
}
