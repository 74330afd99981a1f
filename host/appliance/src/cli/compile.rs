//! `holdfast compile-component`: the process that compiles plugins for an appliance. It is started by it, and by nobody else.

use std::process::ExitCode;
use std::time::Duration;

use holdfast_sandbox::{CompilerLimits, compile_stdin};

/// Compile a component from stdin to stdout within limits; for the appliance's own use
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Bytes of memory
    memory: u64,
    /// Seconds
    seconds: u64,
}

/// Compiles, before this process has started anything else.
pub fn compile(arguments: &Arguments) -> ExitCode {
    compile_stdin(CompilerLimits { memory_bytes: arguments.memory, time: Duration::from_secs(arguments.seconds) })
}
