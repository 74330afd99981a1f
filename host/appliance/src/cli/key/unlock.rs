//! `holdfast key unlock`: what opens the keyring in the data directory. Works on the directory itself, without an appliance: no key and no
//! passphrase goes through an API.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use holdfast_control::{ChangeUnlock, UnlockSource, change_unlock};

use crate::cli::output::print;
use crate::cli::shown::Unlocked;
use crate::cli::{Common, Exit, Failure, say, terminal};
use crate::config::Config;

/// What shall open it.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// A key in a file; whoever has the file and the data directory reads every backup
    KeyFile {
        /// Where it lies or is made, such as on another disk; without it `unlock.key` in the data directory
        path: Option<PathBuf>,
        #[command(flatten)]
        current: Current,
    },
    /// A key in a systemd credential, which can be bound to this machine
    #[command(after_help = CREDENTIAL_HELP)]
    Credential {
        /// Its name, as in LoadCredentialEncrypted=
        name: String,
        /// The key that the credential was made from
        #[arg(long, value_name = "FILE")]
        key_file: Option<PathBuf>,
        #[command(flatten)]
        current: Current,
    },
    /// A passphrase, given at each start
    Passphrase {
        /// Read the new passphrase from this file instead of asking for it
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
        #[command(flatten)]
        current: Current,
    },
}

const CREDENTIAL_HELP: &str = "\
From the default key file, as root:
  systemd-creds encrypt --name=holdfast DATA-DIR/unlock.key /etc/credstore.encrypted/holdfast
  systemctl edit holdfast      with [Service] LoadCredentialEncrypted=holdfast
  systemctl stop holdfast
  holdfast key unlock credential holdfast --key-file DATA-DIR/unlock.key
  systemctl start holdfast     then remove unlock.key";

/// How the keyring is opened now.
#[derive(Debug, Args)]
pub struct Current {
    /// Read the present passphrase from this file instead of asking for it
    #[arg(long, value_name = "FILE")]
    current_passphrase_file: Option<PathBuf>,
}

/// Changes it.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let data_dir = absolute(common.data_dir())?;
    let configured = Config::load(&data_dir)?.keyring.unlock;
    let (new, key_file, current) = match command {
        Command::KeyFile { path: None, current } => (UnlockSource::KeyBeside, None, current),
        Command::KeyFile { path: Some(path), current } => (UnlockSource::KeyFile(absolute(&path)?), None, current),
        Command::Credential { name, key_file, current } => {
            let credential = format!("credential:{name}").parse::<UnlockSource>()?;
            (credential, key_file, current)
        }
        Command::Passphrase { passphrase_file: None, current } => (UnlockSource::Passphrase, None, current),
        Command::Passphrase { passphrase_file: Some(file), current } => {
            (UnlockSource::PassphraseFile(absolute(&file)?), None, current)
        }
    };
    let current = current.current_passphrase_file.map(UnlockSource::PassphraseFile).or_else(|| configured.clone());
    let request = ChangeUnlock { data_dir, current: terminal::unlocking(current), new: new.clone(), key_file };
    let notes = tokio::task::spawn_blocking(move || change_unlock(&request)).await;
    let notes =
        notes.map_err(|error| Failure::failed(format!("changing what opens the keyring failed: {error}")))??;
    print(common.output, &Unlocked { unlocked_by: new.to_string() })?;
    notes.iter().for_each(say);
    match configured {
        Some(configured) if configured != new => {
            say(format_args!(
                "holdfast.toml still says unlock = \"{configured}\" in [keyring]: make it \"{new}\" before the next start"
            ));
            Ok(Exit::Warnings)
        }
        _ => Ok(Exit::Done),
    }
}

fn absolute(path: &std::path::Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::failed(format!("{} is not usable: {error}", path.display())))
}
