//! Bounds on one run, and those of them that are counted: memory, tables, output, entries, streams.
//!
//! Time is the guard's; handles are the resource table's; bytes of one call are wasmtime's host-call fuel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::ResourceLimiter;

use crate::guard::Stop;

/// Bounds on one run.
#[derive(Clone, Debug)]
pub struct Limits {
    /// All linear memories together.
    pub memory_bytes: usize,
    /// All tables together.
    pub table_elements: usize,
    /// Handles that a guest has at once, of whatever kind.
    pub handles: usize,
    /// Connections, entries and files that are open at once: the host keeps buffers for each.
    pub streams: usize,
    /// Bytes handed over in one host call.
    pub hostcall_bytes: usize,
    /// All bytes a guest may write to archive and destination.
    pub output_bytes: u64,
    /// Entries written to the archive, and files, directories and links made at the destination.
    pub entries: u64,
    /// Bytes that the host keeps of the archive's entries until the commit: their names, their annotations, and the contents that are
    /// short enough to lie beside them.
    pub records_bytes: u64,
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
            streams: 16,
            hostcall_bytes: 1 << 20,
            output_bytes: 16 << 40,
            entries: 1_000_000,
            records_bytes: 384 << 20,
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
pub(crate) const INSTANCES: usize = 64;

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

/// What a run may have only so much of in all, on whatever thread it takes it.
#[derive(Clone, Debug)]
struct Budget {
    most: u64,
    used: Arc<AtomicU64>,
}

impl Budget {
    fn new(most: u64) -> Self {
        Self { most, used: Arc::default() }
    }

    /// Whether there was that much left.
    fn take(&self, amount: u64) -> bool {
        self.used.fetch_add(amount, Ordering::Relaxed).saturating_add(amount) <= self.most
    }
}

/// Counts the bytes that a run writes.
#[derive(Clone, Debug)]
pub(crate) struct Output(Budget);

impl Output {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self(Budget::new(limits.output_bytes))
    }

    /// Counts `bytes` about to be written.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), Stop> {
        if self.0.take(bytes as u64) {
            return Ok(());
        }
        Err(Stop::Limit { limit: "output", detail: format!("{} bytes may be written", self.0.most) })
    }
}

/// Counts what a run makes that has a name, and what the host keeps of it.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    count: Budget,
    records: Budget,
}

/// About what holds the record of an entry together.
const RECORD: usize = 192;
/// The same of an annotation.
const ANNOTATION: usize = 96;

impl Entries {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { count: Budget::new(limits.entries), records: Budget::new(limits.records_bytes) }
    }

    /// Counts something that is made at the destination: the host keeps nothing of it.
    pub(crate) fn make(&self) -> Result<(), Stop> {
        if self.count.take(1) {
            return Ok(());
        }
        Err(Stop::Limit { limit: "entries", detail: format!("{} may be made", self.count.most) })
    }

    /// Counts an entry of the archive, of which so many bytes are kept besides its annotations.
    pub(crate) fn record(&self, bytes: usize) -> Result<(), Stop> {
        self.make()?;
        self.keep(RECORD + bytes)
    }

    /// Counts an annotation of an entry.
    pub(crate) fn annotate(&self, key: &str, value: &str) -> Result<(), Stop> {
        self.keep(ANNOTATION + key.len() + value.len())
    }

    fn keep(&self, bytes: usize) -> Result<(), Stop> {
        if self.records.take(bytes as u64) {
            return Ok(());
        }
        let detail = format!("{} MiB may be kept of names, annotations and short contents", self.records.most >> 20);
        Err(Stop::Limit { limit: "records", detail })
    }
}

/// The places for open streams.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    most: usize,
    places: Arc<Semaphore>,
}

/// A place that is free again when it is dropped.
pub(crate) type Place = OwnedSemaphorePermit;

impl Streams {
    pub(crate) fn new(limits: &Limits) -> Self {
        let most = limits.streams.min(Semaphore::MAX_PERMITS);
        Self { most, places: Arc::new(Semaphore::new(most)) }
    }

    /// Takes a place for a stream that is about to be opened.
    pub(crate) fn place(&self) -> Result<Place, Stop> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let detail = format!("{} connections, entries and files may be open at once", self.most);
            Stop::Limit { limit: "streams", detail }
        })
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

    #[test]
    fn entries_are_counted_and_what_is_kept_of_them_is_bounded() {
        let entries = Entries::new(&Limits { entries: 3, records_bytes: 10_000, ..Limits::default() });
        assert!(entries.record(10).is_ok());
        assert!(entries.annotate("key", &"x".repeat(9_000)).is_ok());
        assert!(matches!(entries.annotate("key", &"x".repeat(900)), Err(Stop::Limit { limit: "records", .. })));
        assert!(entries.make().is_ok() && entries.make().is_ok());
        assert!(matches!(entries.make(), Err(Stop::Limit { limit: "entries", .. })));
    }

    #[test]
    fn a_stream_that_is_closed_makes_room() {
        let streams = Streams::new(&Limits { streams: 1, ..Limits::default() });
        let place = streams.place().expect("room");
        assert!(matches!(streams.place(), Err(Stop::Limit { limit: "streams", .. })));
        drop(place);
        assert!(streams.place().is_ok());
    }
}
