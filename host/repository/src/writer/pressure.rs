//! How hard the workers are pressed, and the compression level that follows from it.
//!
//! Bytes come in bursts, so that what waits at one moment says little: what counts is the average of what waited when the last
//! few hundred chunks were taken up. No lock: threads that overtake each other here lose a sample and nothing else.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Compression;

/// Average of waiting bytes from which on the workers are the bottleneck beyond doubt.
const PRESSED: usize = 1 << 20;
/// About how many chunks the average is over.
const SAMPLES: usize = 256;

/// Measures and decides.
#[derive(Debug)]
pub(super) struct Pressure {
    compression: Compression,
    /// Bytes that no worker has taken up yet.
    waiting: AtomicUsize,
    average: AtomicUsize,
}

impl Pressure {
    /// Takes the workers for pressed until it knows better: a local server outruns them from the first byte.
    pub(super) fn new(compression: Compression) -> Self {
        Self { compression, waiting: AtomicUsize::new(0), average: AtomicUsize::new(PRESSED) }
    }

    /// So many bytes wait from now on.
    pub(super) fn wait(&self, bytes: usize) {
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A worker took them up.
    pub(super) fn taken_up(&self, bytes: usize) {
        let behind = self.waiting.fetch_sub(bytes, Ordering::Relaxed).saturating_sub(bytes);
        let average = self.average.load(Ordering::Relaxed);
        self.average.store(average - average / SAMPLES + behind / SAMPLES, Ordering::Relaxed);
    }

    /// The level for what is compressed now.
    pub(super) fn level(&self) -> i32 {
        self.compression.level(self.average.load(Ordering::Relaxed), PRESSED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 64 << 10;

    #[test]
    fn the_level_rises_while_nothing_waits_and_falls_while_much_does() {
        let pressure = Pressure::new(Compression { level_min: 1, level_max: 3 });
        assert_eq!(pressure.level(), 1);
        for _ in 0..4 * SAMPLES {
            pressure.wait(CHUNK);
            pressure.taken_up(CHUNK);
        }
        assert_eq!(pressure.level(), 3);
        pressure.wait(64 * CHUNK);
        for _ in 0..4 * SAMPLES {
            pressure.wait(CHUNK);
            pressure.taken_up(CHUNK);
        }
        assert_eq!(pressure.level(), 1);
    }

    #[test]
    fn bursts_do_not_move_the_level() {
        let pressure = Pressure::new(Compression { level_min: 1, level_max: 3 });
        for _ in 0..100 {
            (0..64).for_each(|_| pressure.wait(CHUNK));
            (0..64).for_each(|_| pressure.taken_up(CHUNK));
            assert_eq!(pressure.level(), 1);
        }
    }
}
