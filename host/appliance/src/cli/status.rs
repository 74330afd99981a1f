//! `holdfast status`.

use std::time::{Duration, Instant};

use holdfast_control::resources::Status;

use super::output::print;
use super::{Common, Exit, Failure, values};

/// Between two tries while the appliance does not answer yet: it cannot tell us when it will.
const PAUSE: Duration = Duration::from_millis(200);

/// How the appliance is (exit 3 where something wants attention)
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Wait until the appliance answers; then exit 0, whatever it says
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, requires = "wait", value_parser = values::duration, default_value = "2m", value_name = "D")]
    timeout: Duration,
}

/// Shows the status.
pub async fn status(common: &Common, arguments: Arguments) -> Result<Exit, Failure> {
    let status = if arguments.wait { wait(common, arguments.timeout).await? } else { ask(common).await? };
    print(common.output, &status)?;
    Ok(if status.problems.is_empty() || arguments.wait { Exit::Done } else { Exit::Warnings })
}

async fn ask(common: &Common) -> Result<Status, Failure> {
    // Found anew each time: the socket may appear while we wait.
    common.client()?.get("status").await
}

async fn wait(common: &Common, timeout: Duration) -> Result<Status, Failure> {
    let began = Instant::now();
    loop {
        match ask(common).await {
            Err(failure) if failure.lost && began.elapsed() < timeout => tokio::time::sleep(PAUSE).await,
            Err(failure) if failure.lost => return Err(Failure { exit: Exit::TimedOut, ..failure }),
            answered => return answered,
        }
    }
}
