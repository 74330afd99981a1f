//! `holdfast backup`.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use holdfast_control::InstanceName;
use holdfast_control::resources::{
    Backup, BackupEntry, CreateBackup, CreateHold, CreateVerification, Instance, Job, Page, ReleaseHold, Target,
};

use super::output::{print, print_list};
use super::progress::Meter;
use super::shown::Removed;
use super::values::{self, BackupName};
use super::wait::{self, Waiting};
use super::{Common, Exit, Failure, say};
use crate::client::Client;

/// Commands on backups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Back an instance up
    Create(CreateArguments),
    /// List backups
    List {
        /// Only of this `ORG[/PROJ[/NAME]]`
        scope: Option<String>,
        /// Only in this state
        #[arg(long)]
        state: Option<String>,
    },
    /// Show a backup
    Show {
        /// Which; the latest without a last part
        #[arg(value_name = "ORG/PROJ/NAME[/BACKUP]")]
        backup: BackupName,
    },
    /// List what a backup consists of
    Entries {
        /// Which; the latest without a last part
        #[arg(value_name = "ORG/PROJ/NAME[/BACKUP]")]
        backup: BackupName,
        /// Only paths that begin so
        #[arg(long)]
        prefix: Option<String>,
    },
    /// Prove that a backup can be restored (exit 1 if it did not pass)
    Verify(VerifyArguments),
    /// Hold a backup: while anybody does, nothing deletes it
    Hold {
        /// Which
        #[arg(value_name = "ORG/PROJ/NAME/BACKUP")]
        backup: BackupName,
        /// Why it must stay
        #[arg(long)]
        reason: String,
    },
    /// End the holds of a backup
    Release {
        /// Which
        #[arg(value_name = "ORG/PROJ/NAME/BACKUP")]
        backup: BackupName,
        /// Only the hold of this name; else all
        #[arg(long, value_parser = values::word)]
        name: Option<String>,
    },
    /// Delete a backup
    Delete {
        /// Which
        #[arg(value_name = "ORG/PROJ/NAME/BACKUP")]
        backup: BackupName,
    },
}

/// What `backup create` takes.
#[derive(Debug, clap::Args)]
pub struct CreateArguments {
    /// What to back up
    #[arg(value_name = "ORG/PROJ/NAME", value_parser = values::instance_name)]
    instance: InstanceName,
    /// Its name; the time as yyyyMMddHHmmss (UTC) without it
    #[arg(long, value_parser = values::word)]
    name: Option<String>,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    /// How; the plugin's first method without it
    #[arg(long)]
    method: Option<String>,
    /// Of which type
    #[arg(long = "type", value_name = "TYPE")]
    backup_type: Option<String>,
    /// A label
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::key_value)]
    label: Vec<(String, String)>,
    /// Keep it for this long whatever policies say, such as 90d; then it goes
    #[arg(long, value_parser = values::duration, value_name = "D")]
    keep_for: Option<Duration>,
    /// Wait until it is durable there
    #[arg(long, value_enum, value_name = "WHERE", num_args = 0..=1, require_equals = true, default_missing_value = "primary")]
    wait: Option<WaitFor>,
    /// How long to wait at most, such as 90s, 5m or 24h
    #[arg(long, requires = "wait", value_parser = values::duration, value_name = "D")]
    timeout: Option<Duration>,
}

/// Where a backup must be durable before the wait ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WaitFor {
    /// At the primary target
    Primary,
    /// At a site other than the instance's
    Offsite,
    /// At all targets
    All,
}

/// What `backup verify` takes.
#[derive(Debug, clap::Args)]
pub struct VerifyArguments {
    /// Which; the latest without a last part
    #[arg(value_name = "ORG/PROJ/NAME[/BACKUP]")]
    backup: BackupName,
    /// How thoroughly
    #[arg(long, value_enum, default_value = "engine")]
    level: Level,
    /// Which target's copy; the primary's without it
    #[arg(long, value_name = "TARGET")]
    from: Option<String>,
    /// Wait for the result
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, requires = "wait", value_parser = values::duration, value_name = "D")]
    timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Every byte is there and unchanged
    Bytes,
    /// And the engine's own rules are met
    Engine,
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let client = common.client()?;
    match command {
        Command::Create(arguments) => return create(common, &client, arguments).await,
        Command::Verify(arguments) => return verify(common, &client, arguments).await,
        Command::List { scope, state } => {
            let list: Page<Backup> = client.pages("backups", &[("scope", scope), ("state", state)]).await?;
            print_list(common.output, &list)?;
        }
        Command::Show { backup } => print(common.output, &client.get::<Backup>(&path(&backup)).await?)?,
        Command::Entries { backup, prefix } => {
            let list: Page<BackupEntry> =
                client.pages(&format!("{}/entries", path(&backup)), &[("prefix", prefix)]).await?;
            print_list(common.output, &list)?;
        }
        Command::Hold { backup, reason } => {
            let held: Backup = client.post(&format!("{}/hold", path(&backup)), &CreateHold { reason }).await?;
            print(common.output, &held)?;
        }
        Command::Release { backup, name } => {
            let released: Backup = client.post(&format!("{}/release", path(&backup)), &ReleaseHold { name }).await?;
            print(common.output, &released)?;
        }
        Command::Delete { backup } => {
            client.delete(&path(&backup)).await?;
            print(common.output, &Removed::new(backup))?;
        }
    }
    Ok(Exit::Done)
}

fn path(backup: &BackupName) -> String {
    format!("backups/{backup}")
}

async fn create(common: &Common, client: &Client, arguments: CreateArguments) -> Result<Exit, Failure> {
    let instance = arguments.instance;
    let wanted = match arguments.wait {
        None => None,
        Some(WaitFor::Primary) => Some(Wanted::Primary),
        Some(WaitFor::All) => Some(Wanted::All),
        Some(WaitFor::Offsite) => Some(Wanted::NotAt(site_to_leave(client, &instance).await?)),
    };
    let request = CreateBackup {
        name: arguments.name,
        description: arguments.description,
        method: arguments.method,
        backup_type: arguments.backup_type,
        labels: arguments.label.into_iter().collect(),
        keep_for_seconds: arguments.keep_for.map(|keep_for| keep_for.as_secs()),
    };
    let made: Backup = client.post(&format!("backups/{instance}"), &request).await?;
    let Some(wanted) = wanted else {
        print(common.output, &made)?;
        return Ok(Exit::Done);
    };
    let name = BackupName { instance, backup: made.name };
    let backup = durable(client, &name, &wanted, arguments.timeout).await?;
    print(common.output, &backup)?;
    let status = backup.status;
    if status.state != "Succeeded" {
        let reason = status.reason.unwrap_or_else(|| format!("the backup {name} is {}", status.state));
        return Err(Failure { hint: status.hint, ..Failure::failed(reason) });
    }
    for warning in &status.warnings {
        say(format_args!("warning: {}", super::output::printable(warning)));
    }
    Ok(if status.warnings.is_empty() { Exit::Done } else { Exit::Warnings })
}

/// Where a backup has to be.
enum Wanted {
    Primary,
    All,
    /// At any site but this one.
    NotAt(String),
}

/// The site of the instance. Without a target elsewhere the wait would never end: that is said at once.
async fn site_to_leave(client: &Client, name: &InstanceName) -> Result<String, Failure> {
    let instance: Instance = client.get(&format!("instances/{name}")).await?;
    let targets: Page<Target> = client.get("targets").await?;
    if targets.items.iter().any(|target| target.site != instance.site) {
        return Ok(instance.site);
    }
    Err(Failure::failed(format!("no target lies at a site other than {}, where {name} is", instance.site))
        .hint("Add one: holdfast target add NAME URL --site SITE"))
}

/// Waits until a backup has ended, and is where it is wanted if it succeeded.
async fn durable(
    client: &Client,
    name: &BackupName,
    wanted: &Wanted,
    timeout: Option<Duration>,
) -> Result<Backup, Failure> {
    let waiting = Waiting { what: format!("the backup {name}"), look: format!("holdfast backup show {name}"), timeout };
    let mut meter = Meter::new();
    waiting
        .until(client, async || {
            let backup: Backup = client.get(&path(name)).await?;
            show_progress(client, &backup, &mut meter).await;
            Ok(has_arrived(&backup, wanted).then_some(backup))
        })
        .await
}

/// A backup that did not succeed has nothing to wait for.
fn has_arrived(backup: &Backup, wanted: &Wanted) -> bool {
    let status = &backup.status;
    let mut copies = status.sites.iter();
    match (&status.state[..], wanted) {
        ("Pending", _) => false,
        ("Succeeded", Wanted::NotAt(site)) => copies.any(|copy| copy.state == "Durable" && copy.site != *site),
        ("Succeeded", Wanted::All) => copies.all(|copy| copy.state == "Durable"),
        _ => true,
    }
}

/// The job's own progress while it runs, then how the copies are. Only talk: a failure to get it is nobody's.
async fn show_progress(client: &Client, backup: &Backup, meter: &mut Meter) {
    match &backup.status.job {
        Some(job) if backup.status.state == "Pending" => {
            if let Ok(job) = client.get::<Job>(&format!("jobs/{job}")).await {
                meter.job(&job);
            }
        }
        _ => {
            for copy in backup.status.sites.iter().filter(|copy| copy.state != "Durable") {
                let trouble = copy.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
                meter.text(&format!("{} to {}{trouble}", copy.state.to_lowercase(), copy.target));
            }
        }
    }
}

async fn verify(common: &Common, client: &Client, arguments: VerifyArguments) -> Result<Exit, Failure> {
    let level = match arguments.level {
        Level::Bytes => "bytes",
        Level::Engine => "engine",
    };
    let request = CreateVerification { level: level.to_owned(), from: arguments.from };
    let mut job: Job = client.post(&format!("{}/verify", path(&arguments.backup)), &request).await?;
    if !arguments.wait {
        print(common.output, &job)?;
        return Ok(Exit::Done);
    }
    job = wait::for_job(client, &job.id, arguments.timeout).await?;
    print(common.output, &job)?;
    match wait::failure_of(&job) {
        Some(failure) => Err(failure),
        None => verdict(&job),
    }
}

/// A proof is one only if it says that it passed.
fn verdict(job: &Job) -> Result<Exit, Failure> {
    let result = job.result.as_ref();
    if result.and_then(|result| result["passed"].as_bool()) == Some(true) {
        return Ok(Exit::Done);
    }
    let checks = result.and_then(|result| result["checks"].as_array()).into_iter().flatten();
    for check in checks.filter(|check| check["passed"] != true) {
        let (name, detail) = (check["name"].as_str().unwrap_or_default(), check["detail"].as_str().unwrap_or_default());
        say(format_args!("not passed: {}: {}", super::output::printable(name), super::output::printable(detail)));
    }
    Err(Failure::failed(format!("{} did not pass", job.subject))
        .hint("Verify the copy at another target (--from TARGET), and make a new backup."))
}
