//! Compiling components: where nobody vouches for them, in a child process that can take no more than it is given.
//!
//! A component is a program for the compiler: one of a few kilobytes may keep it busy for hours or fill the machine's memory.
//! The child runs this same binary, limits itself before it reads the first byte, and is killed when its time is over. What it
//! wrote counts only if it ended in order.

mod child;
mod exchange;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use tokio::time::Instant;
use wasmtime::Engine as WasmEngine;

pub use child::compile_stdin;

use crate::Failure;
use crate::voice::harmless;
use exchange::Exchange;

/// Where components are compiled.
#[derive(Clone, Copy, Debug)]
pub enum Compiler {
    /// In this process, without limits: for components that are trusted.
    Here,
    /// In a child process: this program, called with [`COMPILE_COMPONENT`] and the limits, which calls [`compile_stdin`].
    Child(CompilerLimits),
}

/// What compiling one component may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompilerLimits {
    /// Bytes of address space: all memory of the child, its program included.
    pub memory_bytes: u64,
    /// From start to end, and of computing; whole seconds.
    pub time: Duration,
}

impl Default for CompilerLimits {
    fn default() -> Self {
        Self { memory_bytes: 1 << 30, time: Duration::from_secs(120) }
    }
}

/// The first argument of the child; bytes of memory and seconds follow.
pub const COMPILE_COMPONENT: &str = "compile-component";
/// Bytes of compiled code: what a component of the largest size may well become.
const CODE_BYTES_MAX: u64 = 256 << 20;
/// Bytes kept of what the child said.
const WORDS: u64 = 8 << 10;

impl Compiler {
    /// The compiled code of a component. Blocks until it is there.
    pub(crate) fn compile(self, engine: &WasmEngine, component: &[u8]) -> Result<Vec<u8>, Failure> {
        match self {
            Self::Here => engine.precompile_component(component).map_err(|error| unusable(&format!("{error:#}"))),
            Self::Child(limits) => in_child(limits, component),
        }
    }
}

fn in_child(limits: CompilerLimits, component: &[u8]) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| {
        Failure::host("compiler-unavailable", format!("cannot run the compiler in a process of its own: {error}"))
    };
    let mut exchange = Exchange::new(component).map_err(failed)?;
    let (memory, seconds) = (limits.memory_bytes.to_string(), limits.time.as_secs().to_string());
    let arguments = [COMPILE_COMPONENT, memory.as_str(), seconds.as_str()].map(OsStr::new);
    // By this name it is the same program even after another one was installed in its place.
    let mut command = Command::new(Path::new("/proc/self/exe"));
    command.args(arguments).env_clear().current_dir("/");
    exchange.attach(&mut command).map_err(failed)?;
    let ended = wait(command.spawn().map_err(failed)?, limits.time).map_err(failed)?;
    match ended.map(|status| End::of(status, &exchange.words())) {
        Some(End::Compiled) => exchange.code().map_err(failed),
        Some(End::Objected) => Err(unusable(&exchange.words())),
        Some(End::OutOfMemory) => {
            let detail = format!("compiling may take {} MiB", limits.memory_bytes >> 20);
            Err(Failure::Limit { limit: "compile-memory", detail })
        }
        Some(End::TooLong) | None => {
            let detail = format!("compiling may take {} s", limits.time.as_secs());
            Err(Failure::Limit { limit: "compile-time", detail })
        }
        Some(End::TooMuchCode) => {
            let detail = format!("compiled code may have {} MiB", CODE_BYTES_MAX >> 20);
            Err(Failure::Limit { limit: "compiled-code", detail })
        }
        Some(End::Crashed(how)) => Err(Failure::Unusable(format!("the compiler crashed on it ({how})"))),
    }
}

/// How the child ended.
enum End {
    Compiled,
    /// The component is wrong; its words say how.
    Objected,
    OutOfMemory,
    TooLong,
    TooMuchCode,
    Crashed(ExitStatus),
}

impl End {
    fn of(status: ExitStatus, words: &str) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let killed_by = |signal: Signal| status.signal() == Some(signal.as_raw());
        if status.success() {
            Self::Compiled
        } else if status.code() == Some(child::OBJECTED) {
            Self::Objected
        } else if killed_by(Signal::XCPU) {
            Self::TooLong
        } else if killed_by(Signal::XFSZ) {
            Self::TooMuchCode
        } else if status.code() == Some(child::OUT_OF_MEMORY)
            || killed_by(Signal::ABORT) && words.contains("memory allocation of")
        {
            // Rust's own last words when an allocation fails.
            Self::OutOfMemory
        } else {
            Self::Crashed(status)
        }
    }
}

/// Waits for the child's end; none where it had to be killed.
fn wait(mut child: Child, patience: Duration) -> std::io::Result<Option<ExitStatus>> {
    let ended = ends_within(&child, patience);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(ended?.then_some(status))
}

fn ends_within(child: &Child, patience: Duration) -> std::io::Result<bool> {
    let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left =
            Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn unusable(words: &str) -> Failure {
    let words = harmless(words.trim_end(), WORDS as usize);
    Failure::Unusable(format!("it does not compile: {words}"))
}
