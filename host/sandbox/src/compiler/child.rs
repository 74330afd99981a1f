//! The child's side: it gives up all that it does not need, reads a component, writes compiled code, and ends.
//!
//! It takes its limits upon itself before it reads the first untrusted byte. After that it can open no file and no socket,
//! start no process, and write only to what it was given.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::thread::set_no_new_privs;
use wasmtime::{Engine as WasmEngine, OutOfMemory};

use super::{CODE_BYTES_MAX, CompilerLimits};
use crate::runtime;

/// Exit code: the component is wrong.
pub(super) const OBJECTED: i32 = 3;
/// Exit code: the memory was not enough.
pub(super) const OUT_OF_MEMORY: i32 = 4;

/// Reads a component from stdin and writes compiled code to stdout, within limits. What is wrong goes to stderr. For the
/// child that [`super::Compiler::Child`] starts; to be called before anything else is.
pub fn compile_stdin(limits: CompilerLimits) -> ExitCode {
    let (code, words) = match limit(limits) {
        Ok(()) => match compile() {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) if error.is::<OutOfMemory>() => (OUT_OF_MEMORY, error),
            Err(error) => (OBJECTED, error),
        },
        Err(errno) => (1, wasmtime::format_err!("cannot set the limits of the compiler: {errno}")),
    };
    let _ = write!(std::io::stderr(), "{words:#}");
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

fn limit(limits: CompilerLimits) -> rustix::io::Result<()> {
    // If the host is gone already, the limit on computing ends this process: it never waits for anything.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // No program that this process might come to run gives it a right that it has not.
    set_no_new_privs(true)?;
    for (resource, most) in [
        (Resource::As, limits.memory_bytes),
        (Resource::Cpu, limits.time.as_secs().max(1)),
        (Resource::Fsize, CODE_BYTES_MAX),
        (Resource::Core, 0),
        // Streams that are open stay open; none can be opened any more.
        (Resource::Nofile, 0),
        // No process and no thread: one core, and memory as one heap.
        (Resource::Nproc, 0),
    ] {
        // The soft limit of computing comes first, because its signal has a name.
        let maximum = if matches!(resource, Resource::Cpu) { most + 1 } else { most };
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(maximum) })?;
    }
    Ok(())
}

fn compile() -> wasmtime::Result<()> {
    let mut component = Vec::new();
    std::io::stdin().lock().read_to_end(&mut component)?;
    let mut config = runtime::config();
    config.parallel_compilation(false);
    let code = WasmEngine::new(&config)?.precompile_component(&component)?;
    std::io::stdout().lock().write_all(&code)?;
    Ok(())
}
