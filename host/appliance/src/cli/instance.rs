//! `holdfast instance`.

use clap::Subcommand;
use holdfast_control::InstanceName;
use holdfast_control::resources::{CreateInstance, Instance, InstanceCheck};

use super::output::{print, print_list};
use super::settings::SettingArguments;
use super::shown::Removed;
use super::{Common, Exit, Failure, say, values};

/// Commands on instances.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register an instance
    Add(AddArguments),
    /// List instances
    List {
        /// Only of this `ORG[/PROJ]`
        scope: Option<String>,
    },
    /// Show an instance
    Show {
        /// Which
        #[arg(value_name = "ORG/PROJ/NAME", value_parser = values::instance_name)]
        name: InstanceName,
    },
    /// Ask the server what a backup would find (exit 1 if something hinders it)
    Check {
        /// Which
        #[arg(value_name = "ORG/PROJ/NAME", value_parser = values::instance_name)]
        name: InstanceName,
    },
    /// Forget an instance; its backups stay
    Remove {
        /// Which
        #[arg(value_name = "ORG/PROJ/NAME", value_parser = values::instance_name)]
        name: InstanceName,
    },
}

/// What `instance add` takes.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// Its name from now on
    #[arg(value_name = "ORG/PROJ/NAME", value_parser = values::instance_name)]
    name: InstanceName,
    /// The database product, such as postgres
    #[arg(long)]
    engine: String,
    /// Where it runs; the primary target's site without it
    #[arg(long)]
    site: Option<String>,
    #[command(flatten)]
    settings: SettingArguments,
    /// Make no schedule
    #[arg(long)]
    no_schedule: bool,
    /// Take over the backups of a removed instance of this name
    #[arg(long)]
    adopt: bool,
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let client = common.client()?;
    match command {
        Command::Add(arguments) => return add(common, arguments).await,
        Command::List { scope } => {
            print_list(common.output, &client.pages::<Instance>("instances", &[("scope", scope)]).await?)?
        }
        Command::Show { name } => print(common.output, &client.get::<Instance>(&path(&name)).await?)?,
        Command::Check { name } => {
            let check: InstanceCheck = client.post(&format!("{}/check", path(&name)), &()).await?;
            print(common.output, &check)?;
            let hindered = !check.reachable || check.problems.iter().any(|problem| problem.blocking);
            return Ok(if hindered { Exit::Failed } else { Exit::Done });
        }
        Command::Remove { name } => {
            client.delete(&path(&name)).await?;
            print(common.output, &Removed::new(name))?;
        }
    }
    Ok(Exit::Done)
}

async fn add(common: &Common, arguments: AddArguments) -> Result<Exit, Failure> {
    let InstanceName { organization, project, instance: name } = arguments.name;
    let (settings, secrets) = arguments.settings.read()?;
    let request = CreateInstance {
        organization,
        project,
        name,
        engine: arguments.engine,
        site: arguments.site,
        settings,
        secrets,
        adopt: arguments.adopt,
    };
    let instance: Instance = common.client()?.post("instances", &request).await?;
    print(common.output, &instance)?;
    if !arguments.no_schedule {
        say("note: nothing is scheduled yet: run `holdfast backup create` from a timer of the system");
    }
    Ok(Exit::Done)
}

fn path(name: &InstanceName) -> String {
    format!("instances/{name}")
}
