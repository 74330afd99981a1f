//! `holdfast job`.

use clap::Subcommand;
use holdfast_control::resources::{Job, LogLine, Page};

use super::output::{self, Format, print, print_list};
use super::wait::Waiting;
use super::{Common, Exit, Failure, values};
use crate::client::Client;

/// Commands on jobs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List jobs, newest first
    List {
        /// Only in this state
        #[arg(long)]
        state: Option<String>,
    },
    /// Show a job
    Show {
        /// Which
        #[arg(value_parser = values::word)]
        id: String,
    },
    /// Print a job's log
    Log {
        /// Which
        #[arg(value_parser = values::word)]
        id: String,
        /// Go on until the job ends
        #[arg(long, short)]
        follow: bool,
    },
    /// Ask a job to stop
    Cancel {
        /// Which
        #[arg(value_parser = values::word)]
        id: String,
    },
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let client = common.client()?;
    match command {
        Command::List { state } => print_list(common.output, &client.pages::<Job>("jobs", &[("state", state)]).await?)?,
        Command::Show { id } => print(common.output, &client.get::<Job>(&format!("jobs/{id}")).await?)?,
        Command::Log { id, follow: true } => follow(&client, &id).await?,
        Command::Log { id, follow: false } => {
            let log = lines(&client, &id, &mut 0).await?;
            match common.output {
                Format::Table => log.iter().try_for_each(print_line)?,
                format => print_list(format, &Page { items: log, next: None })?,
            }
        }
        Command::Cancel { id } => {
            print(common.output, &client.post::<_, Job>(&format!("jobs/{id}/cancel"), &()).await?)?
        }
    }
    Ok(Exit::Done)
}

/// Prints lines as they come.
async fn follow(client: &Client, id: &str) -> Result<(), Failure> {
    let mut after = 0;
    Waiting::for_job(id, None)
        .until(client, async || {
            // The state first: what a job said before it ended is then read below.
            let job: Job = client.get(&format!("jobs/{id}")).await?;
            lines(client, id, &mut after).await?.iter().try_for_each(print_line)?;
            Ok((!matches!(&job.state[..], "Queued" | "Running")).then_some(()))
        })
        .await
}

/// All lines after a sequence, which is moved on.
async fn lines(client: &Client, id: &str, after: &mut u64) -> Result<Vec<LogLine>, Failure> {
    let mut lines: Vec<LogLine> = Vec::new();
    loop {
        let page: Page<LogLine> = client.get(&format!("jobs/{id}/log?after={after}")).await?;
        let Some(last) = page.items.last() else { return Ok(lines) };
        *after = last.sequence;
        lines.extend(page.items);
    }
}

fn print_line(line: &LogLine) -> Result<(), Failure> {
    output::write(&format!("{}  {:<5}  {}", output::time(&line.at), line.level, output::printable(&line.message)))
}
