//! `holdfast key shred`: makes a backup, or all of an organization, unreadable, and says what survives.

use std::time::Duration;

use clap::Args;
use holdfast_control::resources::{Shred, ShredBegun, ShredReport};

use super::attempt::{Attempted, attempted};
use crate::cli::output::print;
use crate::cli::shown::{ShredAt, Shredded};
use crate::cli::{Common, Exit, Failure, values};

const HELP: &str = "\
Destroys the keys of a backup, or the keys and secrets of an organization, at every target: nobody reads what is left, and nobody can \
bring it back. What survives is listed: chunks that other backups share, targets that do not answer now (they are tried for ever), what \
a store locks, what others copied. An organization is shredded once its instances are removed.";

/// Make a backup or an organization unreadable for ever
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// ORGANIZATION/PROJECT/INSTANCE/BACKUP, or an ORGANIZATION
    subject: String,
    /// The name of the backup or of the organization once more: this cannot be undone
    #[arg(long, value_name = "NAME")]
    confirm: String,
    /// Stop waiting after this time, such as 30m; the work goes on
    #[arg(long, value_parser = values::duration, value_name = "D")]
    timeout: Option<Duration>,
}

/// Shreds. What survives is always waited for: it is the answer.
pub async fn shred(common: &Common, arguments: Arguments) -> Result<Exit, Failure> {
    let client = common.client()?;
    let request = Shred { subject: arguments.subject, confirm: arguments.confirm };
    let begun: ShredBegun = client.post("keys/shred", &request).await?;
    let (mut targets, mut exit) = (Vec::new(), Exit::Done);
    for job in begun.jobs {
        let (done, survives) = match attempted::<ShredReport>(&client, &job.job, arguments.timeout).await? {
            Attempted::Done(report) => (true, report.survives),
            Attempted::Waits(why) => (false, vec![format!("all of it, until the target answers: {why}")]),
        };
        if !done {
            exit = Exit::Warnings;
        }
        targets.push(ShredAt { target: job.target, site: job.site, done, survives });
    }
    print(common.output, &Shredded { subject: begun.subject, targets, survives: begun.survives })?;
    Ok(exit)
}
