//! `holdfast key rotate`, and waiting until every target has the new slots.

use std::time::Duration;

use clap::Args;
use holdfast_control::resources::{Page, RewrapReport, RotateKeys, Rotation};

use super::attempt::{Attempted, attempted};
use crate::cli::output::{print, print_list};
use crate::cli::{Common, Exit, Failure, say, values};
use crate::client::Client;

const HELP: &str = "\
Every backup's slots are rewrapped at every target, a target that is away when it answers again; data is never rewritten.
What rotation cannot do: take back what somebody copied before; remove former slots and keyrings that a store locks or keeps as former \
versions before those end; replace an organization's secrets for hashing, which its data is stored under.";

/// Make new organization keys and rewrap the slots of every backup
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// Only the key of this organization
    #[arg(long, value_parser = values::word, value_name = "ORG")]
    organization: Option<String>,
    /// Make a new signing key instead; kits that pin a former one stay good
    #[arg(long, conflicts_with = "organization")]
    signing: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// Whether to wait for the targets.
#[derive(Debug, Args)]
pub struct Waiting {
    /// Wait until the targets that answer have the new slots
    #[arg(long)]
    wait: bool,
    /// Stop waiting after this time, such as 30m; the work goes on
    #[arg(long, requires = "wait", value_parser = values::duration, value_name = "D")]
    timeout: Option<Duration>,
}

/// Rotates.
pub async fn rotate(common: &Common, arguments: Arguments) -> Result<Exit, Failure> {
    let client = common.client()?;
    let request = RotateKeys { organization: arguments.organization, signing: arguments.signing };
    let rotation: Rotation = client.post("keys/rotate", &request).await?;
    match &rotation.job {
        Some(job) if arguments.waiting.wait => {
            let (reports, exit) = rewrapped(&client, job, &arguments.waiting).await?;
            print_list(common.output, &Page { items: reports, next: None })?;
            Ok(exit)
        }
        _ => print(common.output, &rotation).map(|()| Exit::Done),
    }
}

impl Waiting {
    /// If it was asked for: waits until the slots are rewrapped, and talks about it.
    pub async fn for_rewrap(&self, client: &Client, job: &str) -> Result<Exit, Failure> {
        if !self.wait {
            return Ok(Exit::Done);
        }
        let (reports, exit) = rewrapped(client, job, self).await?;
        for report in reports {
            say(format_args!("{}: {} of {} backups rewrapped", report.target, report.rewrapped, report.backups));
        }
        Ok(exit)
    }
}

/// The reports of all targets that answer; the others are talked about.
async fn rewrapped(client: &Client, job: &str, waiting: &Waiting) -> Result<(Vec<RewrapReport>, Exit), Failure> {
    let (mut reports, mut exit) = (Vec::new(), Exit::Done);
    let mut jobs = vec![job.to_owned()];
    while let Some(job) = jobs.pop() {
        let report: RewrapReport = match attempted(client, &job, waiting.timeout).await? {
            Attempted::Done(report) => report,
            Attempted::Waits(why) => {
                say(format_args!("not rewrapped yet: {why}"));
                exit = Exit::Warnings;
                continue;
            }
        };
        for line in report.unreadable.iter().chain(&report.kept) {
            say(format_args!("{}: left as it was: {line}", report.target));
            exit = Exit::Warnings;
        }
        jobs.extend(report.followed_by.iter().cloned());
        reports.push(report);
    }
    Ok((reports, exit))
}
