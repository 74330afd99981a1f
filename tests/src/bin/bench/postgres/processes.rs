//! What the kernel counts for processes, read from `/proc`: CPU time, and memory resident at once.

use std::collections::HashMap;
use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdfast_tests::{Failure, Result};

/// How long a tick of `/proc/PID/stat` is: 10 ms in the interface of Linux, whatever the kernel's own clock does.
const TICK: Duration = Duration::from_millis(10);

/// How often memory is looked at. Each look takes about 2 ms of a core that a program could have had.
const SAMPLE: Duration = Duration::from_millis(100);

/// One line of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    own_ticks: u32,
    ended_children_ticks: u32,
}

impl Stat {
    fn of(process: u32) -> Result<Self> {
        let path = format!("/proc/{process}/stat");
        let text = fs::read_to_string(&path).map_err(|error| Failure::from(error).during(&path))?;
        Self::parse(&text).ok_or_else(|| Failure::new(format!("{path} is not understood")))
    }

    /// The fields are counted from the end of the program's name, which may hold anything.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        let number = |at: usize| fields.get(at)?.parse::<u32>().ok();
        Some(Self {
            parent: number(1)?,
            own_ticks: number(11)? + number(12)?,
            ended_children_ticks: number(13)? + number(14)?,
        })
    }
}

/// CPU time of a process, of its living descendants, and of those that ended and were waited for.
pub fn cpu_of_family(root: u32) -> Result<Duration> {
    loop {
        let before = Stat::of(root)?;
        let all = everybody()?;
        let living: u32 = family(root, &all)
            .iter()
            .filter_map(|id| all.get(id))
            .map(|stat| stat.own_ticks + stat.ended_children_ticks)
            .sum();
        // A child that ended in between was counted twice, or not at all.
        if Stat::of(root)?.ended_children_ticks == before.ended_children_ticks {
            return Ok(TICK * (before.own_ticks + before.ended_children_ticks + living));
        }
    }
}

/// CPU time of our own children that ended and were waited for, with all of theirs.
pub fn cpu_of_ended_children() -> Result<Duration> {
    Ok(TICK * Stat::of(std::process::id())?.ended_children_ticks)
}

fn everybody() -> Result<HashMap<u32, Stat>> {
    let mut all = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(id) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that has just ended is none.
        if let Ok(stat) = Stat::of(id) {
            all.insert(id, stat);
        }
    }
    Ok(all)
}

/// The descendants of a process, without itself.
fn family(root: u32, all: &HashMap<u32, Stat>) -> Vec<u32> {
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(id, _)| *id));
        at += 1;
    }
    found.split_off(1)
}

/// The most memory that a process had resident since [`forget_peak`], in bytes.
pub fn peak_of(process: u32) -> Result<u64> {
    field(process, "VmHWM:").ok_or_else(|| Failure::new(format!("process {process} has no VmHWM")))
}

/// Lets the peak of a process begin anew.
pub fn forget_peak(process: u32) -> Result {
    Ok(fs::write(format!("/proc/{process}/clear_refs"), "5")?)
}

/// A field of `/proc/PID/status` in bytes.
fn field(process: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}

/// Looks on at the children that we start from now on, and theirs: how much memory they have resident together.
pub struct PeakWatch {
    stop: Sender<()>,
    watcher: JoinHandle<Result<u64>>,
}

impl PeakWatch {
    /// Looks on beside the servers, which run already and are not counted.
    pub fn start() -> Result<Self> {
        let own = std::process::id();
        let there = family(own, &everybody()?);
        let (stop, stopped) = channel();
        let watcher = thread::spawn(move || {
            let mut peak = 0;
            while stopped.recv_timeout(SAMPLE) == Err(RecvTimeoutError::Timeout) {
                let mut all = everybody()?;
                all.retain(|id, _| !there.contains(id));
                let resident = family(own, &all).into_iter().filter_map(|id| field(id, "VmRSS:")).sum();
                peak = peak.max(resident);
            }
            Ok(peak)
        });
        Ok(Self { stop, watcher })
    }

    /// The peak in bytes.
    pub fn stop(self) -> Result<u64> {
        drop(self.stop);
        self.watcher.join().map_err(|_| Failure::new("watching memory failed"))?
    }
}
