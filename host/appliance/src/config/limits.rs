//! `[limits]`: how much runs side by side, and what one run of a plugin may take. Sizes and durations are written with their
//! units; a bound under which no plugin could work is refused.

use std::time::Duration;

use holdfast_control::{Compiler, CompilerLimits};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::cli::{Failure, values};

/// The keys of this section.
pub const KEYS: &[&str] = &[
    "workers",
    "memory",
    "wall",
    "cpu",
    "idle",
    "connect",
    "output",
    "entries",
    "records",
    "compile-memory",
    "compile-time",
];

/// `[limits]`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Backups and verifications that run side by side; the same number of restores, and of what plugins do that are not our own.
    pub workers: usize,
    /// Bytes of all memory of a plugin's run.
    #[serde(deserialize_with = "size")]
    pub memory: u64,
    /// From the start of a run to its end.
    #[serde(deserialize_with = "duration")]
    pub wall: Duration,
    /// For which a plugin may compute without calling the host.
    #[serde(deserialize_with = "duration")]
    pub cpu: Duration,
    /// For which a server may be silent while a plugin waits for it.
    #[serde(deserialize_with = "duration")]
    pub idle: Duration,
    /// For resolving, dialling and shaking hands.
    #[serde(deserialize_with = "duration")]
    pub connect: Duration,
    /// Bytes that a run may write to an archive or a destination.
    #[serde(deserialize_with = "size")]
    pub output: u64,
    /// Entries, files, directories and links that a run may make.
    pub entries: u64,
    /// Bytes that are kept in memory of the entries of a backup until its end.
    #[serde(deserialize_with = "size")]
    pub records: u64,
    /// Bytes of all memory of a process that compiles a plugin.
    #[serde(deserialize_with = "size")]
    pub compile_memory: u64,
    /// For compiling a plugin.
    #[serde(deserialize_with = "duration")]
    pub compile_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let run = holdfast_control::Limits::default();
        let compiler = CompilerLimits::default();
        Self {
            workers: 2,
            memory: run.memory_bytes as u64,
            wall: run.wall,
            cpu: run.cpu,
            idle: run.idle,
            connect: run.connect,
            output: run.output_bytes,
            entries: run.entries,
            records: run.records_bytes,
            compile_memory: compiler.memory_bytes,
            compile_time: compiler.time,
        }
    }
}

/// Less memory than this holds no plugin, and more than 4 GiB no 32-bit one can use.
const MEMORY: std::ops::RangeInclusive<u64> = 1 << 20..=4 << 30;

/// The program itself takes a part of it.
const COMPILE_MEMORY_MIN: u64 = 256 << 20;

impl Limits {
    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if !(1..=64).contains(&self.workers) {
            return Err(Failure::failed(format!("{} workers are not possible", self.workers))
                .hint("`[limits] workers` is from 1 to 64."));
        }
        if !MEMORY.contains(&self.memory) {
            return Err(Failure::failed(format!("{} bytes of memory for a plugin are not possible", self.memory))
                .hint("`[limits] memory` is from 1MiB to 4GiB."));
        }
        if self.compile_memory < COMPILE_MEMORY_MIN {
            return Err(Failure::failed(format!("{} bytes hold no compiler", self.compile_memory))
                .hint("`[limits] compile-memory` is 256MiB or more."));
        }
        Ok(())
    }

    /// What bounds every run of a plugin.
    pub fn of_runs(&self) -> holdfast_control::Limits {
        holdfast_control::Limits {
            memory_bytes: usize::try_from(self.memory).unwrap_or(usize::MAX),
            wall: self.wall,
            cpu: self.cpu,
            idle: self.idle,
            connect: self.connect,
            output_bytes: self.output,
            entries: self.entries,
            records_bytes: self.records,
            ..holdfast_control::Limits::default()
        }
    }

    /// Plugins are compiled by this program, as a child of it.
    pub fn compiler(&self) -> Compiler {
        Compiler::Child(CompilerLimits { memory_bytes: self.compile_memory, time: self.compile_time })
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    values::duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    values::size(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_read_with_its_unit() {
        let text = "memory = '64MiB'\nwall = '2h'\ncpu = '5s'\nidle = '1m30s'\nconnect = '3s'\noutput = '1TiB'\nentries = 7\n\
                    records = '8MiB'\ncompile-memory = '2GiB'\ncompile-time = '5m'\n";
        let limits: Limits = toml::from_str(text).unwrap();
        let run = limits.of_runs();
        assert_eq!((run.memory_bytes, run.output_bytes, run.entries), (64 << 20, 1 << 40, 7));
        assert_eq!(run.records_bytes, 8 << 20);
        assert_eq!([run.wall, run.cpu, run.idle, run.connect].map(|time| time.as_secs()), [7_200, 5, 90, 3]);
        let compiler = CompilerLimits { memory_bytes: 2 << 30, time: Duration::from_secs(300) };
        assert!(matches!(limits.compiler(), Compiler::Child(limits) if limits == compiler));
        assert_eq!(limits.workers, Limits::default().workers);
    }

    #[test]
    fn the_list_of_keys_is_complete() {
        for key in KEYS {
            let wrong = toml::from_str::<Limits>(&format!("{key} = []")).unwrap_err().to_string();
            assert!(!wrong.contains("unknown field"), "{wrong}");
        }
        let unknown = toml::from_str::<Limits>("unheard = 1").unwrap_err().to_string();
        assert!(KEYS.iter().all(|key| unknown.contains(&format!("`{key}`"))), "{unknown}");
        assert_eq!(unknown.matches('`').count(), 2 * (KEYS.len() + 1), "{unknown}");
    }

    #[test]
    fn bounds_that_cannot_be_are_refused() {
        for text in ["workers = 0", "workers = 65", "memory = '1KiB'", "memory = '5GiB'", "compile-memory = '1MiB'"] {
            assert!(toml::from_str::<Limits>(text).unwrap().check().is_err(), "{text}");
        }
        assert!(Limits::default().check().is_ok());
    }
}
