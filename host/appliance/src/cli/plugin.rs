//! `holdfast plugin`: what came with the binary, and what an operator installs besides.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use holdfast_control::COMPONENT_BYTES_MAX;
use holdfast_control::resources::{Page, PluginInfo};

use super::output::{print, print_list};
use super::shown::Removed;
use super::{Common, Exit, Failure, values};

/// Commands on plugins.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install a plugin from its component, after compiling it and asking it who it is
    Install {
        /// The component, such as `target/redis.wasm`
        file: PathBuf,
    },
    /// List plugins
    List,
    /// Show what a plugin can do and what it asks for
    Inspect {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
    },
    /// Remove an installed plugin; its backups stay and can be restored
    Remove {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
    },
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Install { file } => {
            let component = read(&file)?;
            let plugin: PluginInfo = common.client()?.post_bytes("plugins", "application/wasm", component).await?;
            print(common.output, &plugin)?;
        }
        Command::List => print_list(common.output, &common.client()?.get::<Page<PluginInfo>>("plugins").await?)?,
        Command::Inspect { name } => {
            print(common.output, &common.client()?.get::<PluginInfo>(&format!("plugins/{name}")).await?)?
        }
        Command::Remove { name } => {
            common.client()?.delete(&format!("plugins/{name}")).await?;
            print(common.output, &Removed::new(name))?;
        }
    }
    Ok(Exit::Done)
}

/// A component's bytes; what cannot be one is not sent.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let component = std::fs::read(file)
        .map_err(|error| Failure::failed(format!("reading the component {} failed: {error}", file.display())))?;
    if component.is_empty() || component.len() > COMPONENT_BYTES_MAX {
        let most = COMPONENT_BYTES_MAX >> 20;
        return Err(Failure::failed(format!("{} has {} bytes", file.display(), component.len()))
            .hint(format!("A component has at most {most} MiB; most have a few hundred KiB.")));
    }
    Ok(component)
}
