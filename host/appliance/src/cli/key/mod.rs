//! `holdfast key`: who can open what.

mod attempt;
mod recipient;
mod rotate;
mod shred;
mod unlock;

use clap::Subcommand;

use super::{Common, Exit, Failure};

/// Commands on keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Those whose identity opens the keyring at every target
    #[command(subcommand)]
    Recipient(recipient::Command),
    Rotate(rotate::Arguments),
    Shred(shred::Arguments),
    /// Change what opens the keyring in the data directory; the appliance must not run meanwhile
    #[command(subcommand)]
    Unlock(unlock::Command),
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Recipient(command) => recipient::run(common, command).await,
        Command::Rotate(arguments) => rotate::rotate(common, arguments).await,
        Command::Shred(arguments) => shred::shred(common, arguments).await,
        Command::Unlock(command) => unlock::run(common, command).await,
    }
}
