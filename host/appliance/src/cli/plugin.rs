//! `holdfast plugin`.

use clap::Subcommand;
use holdfast_control::resources::{Page, PluginInfo};

use super::output::print_list;
use super::{Common, Exit, Failure};

/// Commands on plugins.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List plugins
    List,
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let Command::List = command;
    print_list(common.output, &common.client()?.get::<Page<PluginInfo>>("plugins").await?)?;
    Ok(Exit::Done)
}
