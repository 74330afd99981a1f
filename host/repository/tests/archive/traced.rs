//! Faults in the system calls of a local store: strace holds the one thread that makes them, and no other.
//!
//! strace counts calls for each thread, so all storage calls of a [`Traced`] runtime are made by one; what the tests do themselves is neither counted nor
//! struck. The thread is known before strace is asked to take it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// A runtime whose blocking calls strace sees, and may make fail.
pub struct Traced {
    runtime: Runtime,
    strace: Child,
    /// Kept open: strace would stop at what it cannot write.
    _said: BufReader<ChildStderr>,
}

impl Traced {
    /// Takes `calls`, which it logs, with what is to be injected, as strace writes it. None, with its reason, where strace cannot do so.
    pub fn start(calls: &str, inject: Option<&str>, log: &Path) -> Result<Self, String> {
        // No driver of I/O, so that waking the runtime is no write of this thread's.
        let runtime = Builder::new_current_thread()
            .enable_time()
            .max_blocking_threads(1)
            .thread_keep_alive(Duration::from_secs(86_400))
            .build()
            .unwrap();
        let thread = runtime.block_on(runtime.spawn_blocking(rustix::thread::gettid));
        let mut command = Command::new("strace");
        command.args(["-e", &format!("trace={calls}"), "-o"]).arg(log);
        command.args(inject.map(|what| format!("--inject={what}")));
        command.args(["-p", &thread.unwrap().as_raw_nonzero().to_string()]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut strace = spawned.map_err(|error| format!("strace does not start: {error}"))?;
        let mut said = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        if line.contains("attached") {
            Ok(Self { runtime, strace, _said: said })
        } else {
            strace.wait().unwrap();
            Err(format!("strace does not attach: {line}"))
        }
    }

    /// Runs work to its end, and lets the thread and strace go.
    pub fn run<F: Future>(self, work: F) -> F::Output {
        let Self { runtime, mut strace, .. } = self;
        let outcome = runtime.block_on(work);
        drop(runtime);
        strace.wait().unwrap();
        outcome
    }
}

/// How often each of these calls stands in a log.
pub fn count(log: &Path, call: &str) -> usize {
    let begins = format!("{call}(");
    fs::read_to_string(log).unwrap().lines().filter(|line| line.starts_with(&begins)).count()
}

/// Whether the environment asks for all faults, and not for a part of them.
pub fn all_faults() -> bool {
    std::env::var_os("HOLDFAST_ALL_FAULTS").is_some()
}

/// The numbers of calls to be struck, of so many: all of them where the environment asks for it, else each `stride`-th, beginning somewhere
/// that is always the same, and the last.
pub fn points(count: usize, stride: usize) -> Vec<usize> {
    let stride = if all_faults() { 1 } else { stride };
    let mut points: Vec<usize> = (1..=count).skip(count % stride).step_by(stride).collect();
    points.extend((points.last() != Some(&count) && count > 0).then_some(count));
    points
}
