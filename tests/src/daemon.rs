//! A program that runs beside us: it ends with its value, and how it ended is seen.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Failure, Result};

/// How long a program may take to end after it was asked to.
const PATIENCE: Duration = Duration::from_secs(30);

static OUTLIVE: AtomicBool = AtomicBool::new(false);

/// From now on, programs that run when this process ends go on running.
pub fn let_daemons_outlive_us() {
    OUTLIVE.store(true, Ordering::Relaxed);
}

/// A command that the kernel ends by `signal` when the thread that started it ends, even if that was killed itself.
pub(crate) fn leashed(program: &Path, signal: &str, identity: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    let signal = if OUTLIVE.load(Ordering::Relaxed) { "keep" } else { signal };
    command.args(["--pdeathsig", signal]).args(identity).arg("--").arg(program).current_dir("/");
    command
}

/// A running program.
pub struct Daemon {
    child: Child,
    name: String,
    stop: Signal,
}

impl Daemon {
    /// Starts a command; `stop` is the signal that ends it in good order.
    pub fn spawn(name: &str, command: &mut Command, stop: Signal) -> Result<Self> {
        let child = command.spawn().map_err(|error| Failure::from(error).during(format!("start {name}")))?;
        Ok(Self { child, name: name.into(), stop })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, if that is a pipe that nobody took yet.
    pub fn take_stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Kills it at once, as a power cut would end it.
    pub fn kill(&mut self) -> Result {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Kills it and the processes that it started, all at once, and waits until the last of them holds nothing any more.
    pub fn kill_with_children(&mut self) -> Result {
        // Whoever stands still starts no more of them.
        kill_process(Pid::from_child(&self.child), Signal::STOP)?;
        let children = self.children()?;
        for &child in &children {
            // One that ended by itself is gone too.
            let _ = kill_process(child, Signal::KILL);
        }
        self.kill()?;
        let what = format!("the processes of {} are gone", self.name);
        wait_until(&what, PATIENCE, || Ok(children.iter().all(|&child| is_gone(child)).then_some(())))
    }

    /// The processes that it started and that did not end yet.
    pub fn children(&self) -> Result<Vec<Pid>> {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid()))?;
        Ok(children.split_whitespace().filter_map(|pid| pid.parse().ok()).filter_map(Pid::from_raw).collect())
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        kill_process(Pid::from_child(&self.child), self.stop)?;
        let name = self.name.clone();
        wait_until(&format!("{name} ends"), PATIENCE, || self.ended())
    }

    /// The most memory it had resident until now, in bytes.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes =
            line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok());
        kibibytes.map(|kibibytes| kibibytes * 1024).ok_or_else(|| Failure::new(format!("{path} has no VmHWM")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !OUTLIVE.load(Ordering::Relaxed) && self.stop().is_err() {
            // It is gone already, or beyond asking.
            let _ = self.kill();
        }
    }
}

/// Whether a process has given back all that it held: at most its number is left, for a parent that does not ask.
fn is_gone(process: Pid) -> bool {
    match fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())) {
        Ok(status) => status.lines().any(|line| line.starts_with("State:\tZ") || line.starts_with("State:\tX")),
        Err(_) => true,
    }
}

/// Asks again and again until there is an answer, or the time is over.
pub fn wait_until<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!("waited {} s in vain: {what}", within.as_secs())));
        }
        thread::sleep(Duration::from_millis(20));
    }
}
