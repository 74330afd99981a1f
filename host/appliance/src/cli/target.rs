//! `holdfast target`.

use clap::Subcommand;
use holdfast_control::resources::{CreateTarget, EditTarget, Page, Target};

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
        /// `s3://BUCKET/PREFIX?endpoint=…&region=…&style=path`, `sftp://USER@HOST:22/PATH` or `file:///PATH`
        url: String,
        /// Where it is
        #[arg(long)]
        site: String,
        #[command(flatten)]
        settings: SettingArguments,
    },
    /// List targets
    List,
    /// Show what was found at a target, what it holds, and what it lacks
    Show {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
    },
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
    /// Change a target, after trying it as it will be
    Edit(EditArguments),
    /// Make a secondary target the primary, at which backups are made
    Promote {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
    },
    /// Forget a target; what it holds stays there
    Remove {
        /// Which
        #[arg(value_parser = values::word)]
        name: String,
        /// Its name again, where it holds backups that lie nowhere else
        #[arg(long, value_name = "NAME", value_parser = values::word)]
        confirm: Option<String>,
    },
}

/// What `target edit` takes.
#[derive(Debug, clap::Args)]
pub struct EditArguments {
    /// Which
    #[arg(value_parser = values::word)]
    name: String,
    /// Where its repository lies now
    #[arg(long)]
    url: Option<String>,
    /// Where it is
    #[arg(long)]
    site: Option<String>,
    #[command(flatten)]
    settings: SettingArguments,
    /// Take a setting or a secret away
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
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
        Command::Show { name } | Command::Status { name: Some(name) } => {
            print(common.output, &client.get::<Target>(&format!("targets/{name}")).await?)?
        }
        Command::Sync { name } => {
            print(common.output, &client.post::<_, Target>(&format!("targets/{name}/sync"), &()).await?)?
        }
        Command::Edit(arguments) => {
            let path = format!("targets/{}", arguments.name);
            print(common.output, &client.patch::<_, Target>(&path, &arguments.request()?).await?)?
        }
        Command::Promote { name } => {
            print(common.output, &client.post::<_, Target>(&format!("targets/{name}/promote"), &()).await?)?
        }
        Command::Remove { name, confirm } => {
            let confirm = confirm.map(|confirm| format!("?confirm={confirm}")).unwrap_or_default();
            client.delete(&format!("targets/{name}{confirm}")).await?;
            print(common.output, &Removed::new(name))?;
        }
    }
    Ok(Exit::Done)
}

impl EditArguments {
    fn request(self) -> Result<EditTarget, Failure> {
        let (settings, secrets) = self.settings.read()?;
        let set = settings.into_iter().map(|(key, value)| (key, Some(value)));
        let settings = set.chain(self.unset.into_iter().map(|key| (key, None))).collect();
        Ok(EditTarget { url: self.url, site: self.site, settings, secrets, ..EditTarget::default() })
    }
}
