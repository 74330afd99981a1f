//! `holdfast completions`.

use clap::CommandFactory;

use super::{Cli, Exit, Failure, output};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// For which shell
    shell: clap_complete::Shell,
}

/// Prints the script.
pub fn print(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "holdfast", &mut script);
    output::write(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
