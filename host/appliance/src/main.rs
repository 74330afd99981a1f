//! `holdfast`: parses the command line and dispatches. Files that this process makes are for its user alone.

mod cli;
mod client;
mod components;
mod config;
mod logging;
mod memory;
mod serve;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    memory::keep_few_heaps();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    cli::run(cli::Cli::parse())
}
