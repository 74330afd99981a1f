//! `holdfast repository`.

use std::time::Duration;

use clap::{Args, Subcommand};
use holdfast_control::resources::{CheckReport, CreateCheck, CreatePrune, Job, PruneReport, RepositoryStats};

use super::output::{print, printable, size};
use super::{Common, Exit, Failure, say, values, wait};

/// Commands on the repository.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Figures: backups, chunks, packs, bytes
    Stats,
    /// Check that everything at a target is there and as it was committed; say what is lost if not
    Check(CheckArguments),
    /// Take back what no backup needs: the dead are condemned, and deleted seven days later
    Prune(PruneArguments),
}

/// What is checked, and how fast.
#[derive(Debug, Args)]
pub struct CheckArguments {
    /// The target; else the primary
    #[arg(long, value_parser = values::word)]
    target: Option<String>,
    /// Read every byte of every pack, not the structure alone
    #[arg(long)]
    read_data: bool,
    /// Read packs no faster than so many MiB a second
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20), requires = "read_data")]
    max_rate: Option<u64>,
    /// Put back what other targets have undamaged
    #[arg(long)]
    heal: bool,
    /// Stop waiting after this time, such as 30m; the check goes on
    #[arg(long, value_parser = values::duration)]
    timeout: Option<Duration>,
}

/// What is pruned, and how.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// The target; else the primary
    #[arg(long, value_parser = values::word)]
    target: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Delete what is dead at once: only where nobody outside of this appliance reads
    #[arg(long)]
    now: bool,
    /// Stop waiting after this time, such as 30m; the prune goes on
    #[arg(long, value_parser = values::duration)]
    timeout: Option<Duration>,
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Stats => {
            print(common.output, &common.client()?.get::<RepositoryStats>("repository/stats").await?)?;
            Ok(Exit::Done)
        }
        Command::Check(arguments) => check(common, arguments).await,
        Command::Prune(arguments) => prune(common, arguments).await,
    }
}

/// A check without its answer is nothing: it is always waited for.
async fn check(common: &Common, arguments: CheckArguments) -> Result<Exit, Failure> {
    let client = common.client()?;
    let request = CreateCheck {
        target: arguments.target,
        read_data: arguments.read_data,
        bytes_per_second: arguments.max_rate.map(|mib| mib << 20),
        heal: arguments.heal,
    };
    let job: Job = client.post("repository/check", &request).await?;
    let job = wait::for_job(&client, &job.id, arguments.timeout).await?;
    if let Some(failure) = wait::failure_of(&job) {
        return Err(failure);
    }
    let report: CheckReport = serde_json::from_value(job.result.unwrap_or_default())
        .map_err(|error| Failure::failed(format!("the check's report cannot be read: {error}")))?;
    print(common.output, &report)?;
    if report.passed {
        return Ok(Exit::Done);
    }
    say_findings(&report);
    Err(Failure::failed(format!("{} objects at {} are damaged", report.damages_found, report.target))
        .hint("Other targets may hold them undamaged: --heal puts those back. What is lost here may be restored from there: restore --from TARGET."))
}

/// What was done, or would be, is the answer: it is waited for.
async fn prune(common: &Common, arguments: PruneArguments) -> Result<Exit, Failure> {
    let client = common.client()?;
    let PruneArguments { target, dry_run, now, timeout } = arguments;
    let job: Job = client.post("repository/prune", &CreatePrune { target, dry_run, now }).await?;
    let job = wait::for_job(&client, &job.id, timeout).await?;
    if let Some(failure) = wait::failure_of(&job) {
        return Err(failure);
    }
    let report: PruneReport = serde_json::from_value(job.result.unwrap_or_default())
        .map_err(|error| Failure::failed(format!("the prune's report cannot be read: {error}")))?;
    print(common.output, &report)?;
    for (reason, kept) in &report.kept {
        let until = kept.until.as_deref().map(|until| format!(" until {until}")).unwrap_or_default();
        say(format_args!("kept: {} objects, {}{until}: {}", kept.objects, size(kept.bytes), meaning(reason)));
    }
    Ok(Exit::Done)
}

/// Why something dead stays, for people.
fn meaning(reason: &str) -> &str {
    match reason {
        "condemned" => "dead, and waiting for the end of their seven days",
        "young" => "no head names them yet: work that goes on may",
        "locked" => "dead, and waiting for the end of their locks",
        "refused" => "the target does not let them be deleted",
        "no-room" => "half-dead packs, and no room to move what lives in them",
        "damaged" => "half-dead packs that are damaged: run `holdfast repository check --heal`",
        other => other,
    }
}

fn say_findings(report: &CheckReport) {
    for damage in &report.damages {
        say(format_args!("damaged: {}", printable(&damage.detail)));
    }
    for loss in &report.losses {
        let backup = loss.backup.as_deref().unwrap_or(&loss.uid);
        let entry = loss.entry.as_deref().unwrap_or("its entries");
        say(format_args!("lost: {backup}: {}, bytes {} to {}", printable(entry), loss.from, loss.to));
    }
}
