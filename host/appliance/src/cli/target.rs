//! `holdfast target`.

use clap::Subcommand;
use holdfast_control::resources::{CreateTarget, Page, Target};

use super::output::{print, print_list};
use super::settings::SettingArguments;
use super::shown::Removed;
use super::{Common, Exit, Failure, values};

/// Commands on targets.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a target, after trying it
    Add {
        /// Its name from now on
        #[arg(value_parser = values::word)]
        name: String,
        /// `s3://BUCKET/PREFIX?endpoint=…&region=…&style=path` or `file:///PATH`
        url: String,
        /// Where it is
        #[arg(long)]
        site: String,
        #[command(flatten)]
        settings: SettingArguments,
    },
    /// List targets
    List,
    /// Show what targets hold, and what they lack
    Status {
        /// Which; all without it
        #[arg(value_parser = values::word)]
        name: Option<String>,
    },
    /// Copy what a target lacks, now
    Sync {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
    },
    /// Forget a target; what it holds stays there
    Remove {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
    },
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let client = common.client()?;
    match command {
        Command::Add { name, url, site, settings } => {
            let (settings, secrets) = settings.read()?;
            let target: Target = client.post("targets", &CreateTarget { name, url, site, settings, secrets }).await?;
            print(common.output, &target)?;
        }
        Command::List | Command::Status { name: None } => {
            print_list(common.output, &client.get::<Page<Target>>("targets").await?)?
        }
        Command::Status { name: Some(name) } => {
            print(common.output, &client.get::<Target>(&format!("targets/{name}")).await?)?
        }
        Command::Sync { name } => {
            print(common.output, &client.post::<_, Target>(&format!("targets/{name}/sync"), &()).await?)?
        }
        Command::Remove { name } => {
            client.delete(&format!("targets/{name}")).await?;
            print(common.output, &Removed::new(name))?;
        }
    }
    Ok(Exit::Done)
}
