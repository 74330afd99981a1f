//! What one piece of work costs: time, CPU of client and server, memory, bytes stored.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_tests::Result;

use crate::postgres::Work;
use crate::postgres::peers::Program;
use crate::postgres::processes::{self, PeakWatch};
use crate::postgres::source::Source;

/// The figures of one run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// From the command's start to its end.
    pub wall: Duration,
    /// User and system time of all of the program's processes.
    pub client_cpu: Duration,
    /// User and system time of the database server's processes.
    pub server_cpu: Duration,
    /// Bytes resident at once: the highest mark of a service, or the sum over a command's processes.
    pub peak_memory: u64,
    /// By how many bytes a backup made the repository grow, where there is one.
    pub stored: Option<u64>,
}

/// One run of one program.
pub struct Run {
    /// The program's name.
    pub program: &'static str,
    /// What it did.
    pub work: Work,
    /// What that cost.
    pub figures: Figures,
}

/// Measures from its start to its stop.
pub struct Meter {
    begun: Instant,
    client_cpu: Duration,
    server_cpu: Duration,
    stored: u64,
    watch: PeakWatch,
}

impl Meter {
    /// The clock starts last.
    pub fn start(program: &dyn Program, source: &Source) -> Result<Self> {
        if let Some(service) = program.service() {
            processes::forget_peak(service)?;
        }
        Ok(Self {
            client_cpu: client_cpu(program)?,
            server_cpu: processes::cpu_of_family(source.process()?)?,
            stored: size(program)?,
            watch: PeakWatch::start()?,
            begun: Instant::now(),
        })
    }

    /// The clock stops first.
    pub fn stop(self, program: &dyn Program, source: &Source, work: Work) -> Result<Figures> {
        let wall = self.begun.elapsed();
        let stores = work.is_backup() && program.repository().is_some();
        let commands = self.watch.stop()?;
        Ok(Figures {
            wall,
            client_cpu: client_cpu(program)? - self.client_cpu,
            server_cpu: processes::cpu_of_family(source.process()?)? - self.server_cpu,
            peak_memory: program.service().map_or(Ok(commands), processes::peak_of)?,
            stored: stores.then_some(size(program)?.saturating_sub(self.stored)),
        })
    }
}

/// The commands that ended, and the service so far.
fn client_cpu(program: &dyn Program) -> Result<Duration> {
    let service = program.service().map_or(Ok(Duration::ZERO), processes::cpu_of_family)?;
    Ok(service + processes::cpu_of_ended_children()?)
}

fn size(program: &dyn Program) -> Result<u64> {
    program.repository().map_or(Ok(0), bytes_below)
}

/// Length of all files below a directory.
pub fn bytes_below(directory: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        total += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(total)
}

impl Figures {
    /// Wall time, which every program has.
    pub fn wall_seconds(&self) -> Option<f64> {
        Some(self.wall.as_secs_f64())
    }

    /// Bytes stored, where there is a repository.
    pub fn stored_megabytes(&self) -> Option<f64> {
        self.stored.map(|bytes| bytes as f64 / 1e6)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wall, client_cpu, server_cpu, peak_memory, stored } = self;
        let [wall, client, server] = [wall, client_cpu, server_cpu].map(Duration::as_secs_f64);
        let peak = *peak_memory as f64 / 1e6;
        write!(formatter, "{wall:7.2} s  CPU {client:6.2} + {server:5.2} s  {peak:6.0} MB")?;
        stored.map_or(Ok(()), |stored| write!(formatter, "  {:8.1} MB stored", stored as f64 / 1e6))
    }
}
