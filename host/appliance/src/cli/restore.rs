//! `holdfast restore`: by the appliance, or, with a URL and an identity, by this process alone.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_control::resources::{CreateRestore, Job, Progress};
use holdfast_control::{Compiler, CompilerLimits, OfflineRestore};
use holdfast_sandbox::{Events, Watch};
use tokio_util::sync::CancellationToken;

use super::output::{self, print, printable};
use super::progress::Meter;
use super::settings::{SettingArguments, Values};
use super::shown::Restored;
use super::values::{self, BackupName};
use super::{Common, Exit, Failure, recover, say, wait};
use crate::components;

/// Restore a backup to a directory
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which; the latest without a last part
    #[arg(value_name = "ORG/PROJ/NAME[/BACKUP]")]
    backup: BackupName,
    /// Where to; absent or empty
    #[arg(long, value_name = "DIR")]
    to_directory: PathBuf,
    /// Put a tablespace elsewhere: its old path and its new one
    #[arg(long, value_name = "OLD=NEW", value_parser = values::path_mapping)]
    map: Vec<(String, String)>,
    /// Who owns what is restored; the directory's owner without it
    #[arg(long, value_name = "USER[:GROUP]")]
    owner: Option<String>,
    /// A target's name, or, for a restore without an appliance, its URL
    #[arg(long, value_name = "TARGET|URL")]
    from: Option<String>,
    /// The recovery kit, for a restore without an appliance
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Accept a keyring that the kit does not pin
    #[arg(long, requires = "identity")]
    trust_keyring: bool,
    #[command(flatten)]
    settings: SettingArguments,
    /// Wait until it is done
    #[arg(long)]
    wait: bool,
    /// How long to wait at most
    #[arg(long, requires = "wait", value_parser = values::duration, value_name = "D")]
    timeout: Option<Duration>,
}

/// Restores.
pub async fn restore(common: &Common, arguments: Arguments) -> Result<Exit, Failure> {
    let directory = std::path::absolute(&arguments.to_directory)
        .map_err(|error| Failure::usage(format!("--to-directory is not usable: {error}")))?;
    let to_directory =
        directory.to_str().ok_or_else(|| Failure::usage("the directory's name is not UTF-8"))?.to_owned();
    let url = arguments.from.clone().filter(|from| from.contains("://"));
    let request = CreateRestore {
        backup: arguments.backup.to_string(),
        to_directory,
        map: arguments.map.into_iter().collect(),
        owner: arguments.owner,
        from: arguments.from.filter(|_| url.is_none()),
    };
    match (url, arguments.identity) {
        (Some(url), Some(identity)) => {
            let settings = recover::storage_settings(&url, arguments.settings)?;
            offline(common, url, settings, &identity, arguments.trust_keyring, request).await
        }
        (None, None) if arguments.settings.are_given() => {
            Err(Failure::usage("settings are for a restore straight from a URL")
                .hint("Add --from URL --identity FILE."))
        }
        (None, None) => online(common, request, arguments.wait, arguments.timeout).await,
        (Some(_), None) => {
            Err(Failure::usage("a restore straight from a URL needs the recovery kit").hint("Add --identity FILE."))
        }
        (None, Some(_)) => {
            Err(Failure::usage("a restore with a recovery kit needs the target's URL").hint("Add --from URL."))
        }
    }
}

async fn online(
    common: &Common,
    request: CreateRestore,
    wait: bool,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let client = common.client()?;
    let mut job: Job = client.post("restores", &request).await?;
    if wait {
        job = wait::for_job(&client, &job.id, timeout).await?;
    }
    print(common.output, &job)?;
    if !wait {
        return Ok(Exit::Done);
    }
    if let Some(failure) = wait::failure_of(&job) {
        return Err(failure);
    }
    say_notes(job.result.as_ref());
    Ok(Exit::Done)
}

async fn offline(
    common: &Common,
    from: String,
    settings: Values,
    identity: &Path,
    trust_keyring: bool,
    restore: CreateRestore,
) -> Result<Exit, Failure> {
    let to_directory = restore.to_directory.clone();
    let kit = recover::read_kit(identity)?;
    let request = OfflineRestore {
        from,
        settings,
        kit,
        trust_keyring,
        restore,
        components: components::embedded(),
        compiler: Compiler::Child(CompilerLimits::default()),
    };
    let cancel = CancellationToken::new();
    let events = Arc::new(Talk(Mutex::new(Some(Meter::new()))));
    let watch = Watch { events: events.clone(), cancel: cancel.clone() };
    let mut work = std::pin::pin!(holdfast_control::restore_offline(request, watch));
    let done = tokio::select! {
        done = work.as_mut() => done,
        _ = tokio::signal::ctrl_c() => {
            // Nobody else carries it on: it ends at the next safe point.
            cancel.cancel();
            work.await
        }
    };
    events.end();
    let result = done?;
    say_notes(Some(&result));
    print(common.output, &Restored::new(to_directory, result))?;
    Ok(Exit::Done)
}

/// What the plugin wants whoever starts the server to know.
fn say_notes(result: Option<&serde_json::Value>) {
    let notes = result.and_then(|result| result["notes"].as_array()).into_iter().flatten();
    for note in notes.filter_map(serde_json::Value::as_str) {
        say(format_args!("note: {}", output::printable(note)));
    }
}

/// Tells on stderr what the guest says.
struct Talk(Mutex<Option<Meter>>);

impl Talk {
    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Events for Talk {
    fn log(&self, level: &str, message: &str) {
        if matches!(level, "warn" | "error") {
            say(format_args!("{level}: {}", printable(message)));
        }
    }

    fn progress(&self, phase: &str, done: u64, total: Option<u64>, unit: &str) {
        if let Some(meter) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            meter.progress(&Progress { phase: phase.to_owned(), done, total, unit: unit.to_owned() });
        }
    }
}
