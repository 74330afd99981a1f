//! `holdfast repository`.

use clap::Subcommand;
use holdfast_control::resources::RepositoryStats;

use super::output::print;
use super::{Common, Exit, Failure};

/// Commands on the repository.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Figures: backups, chunks, packs, bytes
    Stats,
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let Command::Stats = command;
    print(common.output, &common.client()?.get::<RepositoryStats>("repository/stats").await?)?;
    Ok(Exit::Done)
}
