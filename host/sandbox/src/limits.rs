//! Bounds on one run, and those of them that are counted: memory, tables, output.
//!
//! Time is the guard's; handles are the resource table's; bytes of one call are wasmtime's host-call fuel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::guard::Stop;

/// Bounds on one run.
#[derive(Clone, Debug)]
pub struct Limits {
    /// All linear memories together.
    pub memory_bytes: usize,
    /// All tables together.
    pub table_elements: usize,
    /// Connections, streams and backups that are open at once.
    pub handles: usize,
    /// Bytes handed over in one host call.
    pub hostcall_bytes: usize,
    /// All bytes a guest may write to archive and destination.
    pub output_bytes: u64,
    /// From start to end.
    pub wall: Duration,
    /// Guest code between two host calls.
    pub cpu: Duration,
    /// A socket on which nothing moves while the guest waits for it.
    pub idle: Duration,
    /// Resolving, dialling and shaking hands.
    pub connect: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 256 << 20,
            table_elements: 100_000,
            handles: 1_024,
            hostcall_bytes: 1 << 20,
            output_bytes: 16 << 40,
            wall: Duration::from_secs(24 * 60 * 60),
            cpu: Duration::from_secs(10),
            idle: Duration::from_secs(5 * 60),
            connect: Duration::from_secs(10),
        }
    }
}

/// Says no to a guest's growth, and remembers that it did: a guest out of memory ends in a bare trap.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_limit: usize,
    table_limit: usize,
    memory: usize,
    elements: usize,
    denied: Option<(&'static str, String)>,
}

/// A component is some core instances; each has few memories and tables.
const INSTANCES: usize = 64;

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            memory_limit: limits.memory_bytes,
            table_limit: limits.table_elements,
            memory: 0,
            elements: 0,
            denied: None,
        }
    }

    /// The limit that a growth was refused for, if one was, and its detail.
    pub(crate) fn denied(&self) -> Option<(&'static str, String)> {
        self.denied.clone()
    }
}

/// The new sum, where one part grows from `current` to `desired` and the sum stays within `limit`.
fn grown(sum: usize, current: usize, desired: usize, limit: usize) -> Option<usize> {
    sum.saturating_sub(current).checked_add(desired).filter(|sum| *sum <= limit)
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let sum = grown(self.memory, current, desired, self.memory_limit);
        match sum {
            Some(sum) => self.memory = sum,
            None => self.denied = Some(("memory", format!("{} MiB may be used", self.memory_limit >> 20))),
        }
        Ok(sum.is_some())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let sum = grown(self.elements, current, desired, self.table_limit);
        match sum {
            Some(sum) => self.elements = sum,
            None => self.denied = Some(("table", format!("{} table elements may be used", self.table_limit))),
        }
        Ok(sum.is_some())
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        INSTANCES
    }

    fn memories(&self) -> usize {
        INSTANCES
    }
}

/// Counts the bytes that a run writes, on whatever thread it writes them.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    limit: u64,
    used: Arc<AtomicU64>,
}

impl Output {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limit: limits.output_bytes, used: Arc::default() }
    }

    /// Counts `bytes` about to be written.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Stop> {
        let bytes = bytes as u64;
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limit {
            return Err(Stop::Limit { limit: "output", detail: format!("{} bytes may be written", self.limit) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_share_one_bound() {
        let mut limiter = Limiter::new(&Limits { memory_bytes: 100, ..Limits::default() });
        assert!(limiter.memory_growing(0, 60, None).expect("no trap"));
        assert!(!limiter.memory_growing(0, 60, None).expect("no trap"), "a second memory counts too");
        assert_eq!(limiter.denied().map(|(limit, _)| limit), Some("memory"));
        assert!(limiter.memory_growing(60, 100, None).expect("no trap"));
    }

    #[test]
    fn a_growth_past_the_guests_own_maximum_is_not_our_limit() {
        let mut limiter = Limiter::new(&Limits::default());
        assert!(!limiter.memory_growing(0, 60, Some(10)).expect("no trap"));
        assert!(limiter.denied().is_none());
    }

    #[test]
    fn output_ends_at_its_limit() {
        let output = Output::new(&Limits { output_bytes: 10, ..Limits::default() });
        let on_another_thread = output.clone();
        assert!(output.take(10).is_ok());
        assert!(matches!(on_another_thread.take(1), Err(Stop::Limit { limit: "output", .. })));
    }
}
