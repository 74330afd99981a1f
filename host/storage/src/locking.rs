//! Locks of objects: until a date nobody deletes a locked version, whatever credentials they hold.
//!
//! Dates go in coarse steps, so that what many backups need is not extended with each of them.

use crate::clock;

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// Who may shorten a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Whoever has the store's special right to.
    Governance,
    /// Nobody.
    Compliance,
}

/// How firmly, and until when, a version is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Who may shorten it.
    pub mode: LockMode,
    /// Milliseconds since 1970.
    pub until_ms: u64,
}

/// How long a place is to keep what is written to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    /// Who may shorten it.
    pub mode: LockMode,
    /// Days from the last backup that needs an object.
    pub days: u32,
}

impl Lock {
    /// The least that something needed now is locked: for the days that were asked for.
    pub fn least_ms(&self) -> u64 {
        clock::now_ms() + u64::from(self.days) * DAY_MS
    }

    /// What is locked anew is locked for a quarter longer, at least a day: that many days pass before it is extended again.
    pub fn extended(&self) -> Retention {
        let step = (self.days / 4).max(1);
        Retention { mode: self.mode, until_ms: self.least_ms() + u64::from(step) * DAY_MS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_lock_lasts_longer_than_the_least_by_a_coarse_step() {
        for (days, step) in [(1, 1), (7, 1), (30, 7), (365, 91)] {
            let lock = Lock { mode: LockMode::Compliance, days };
            let longer = lock.extended().until_ms - lock.least_ms();
            // The clock may have moved on between the two.
            assert!((longer as i64 - (step * DAY_MS) as i64).abs() < 60_000, "{days} days: {longer} ms");
        }
    }
}
