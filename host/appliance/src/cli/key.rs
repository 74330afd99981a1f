//! `holdfast key`: recovery recipients. A generated identity never leaves this machine, and is in its file before the appliance knows of it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use clap::Subcommand;
use holdfast_control::resources::{CreateRecipient, Page, Recipient, RecipientAdded};
use holdfast_repository::{RecoveryKit, RepositoryId, VerifyKey};

use super::output::{print, print_list};
use super::{Common, Exit, Failure, say, values};
use crate::client::Client;

/// Commands on keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Those whose identity opens the keyring at every target
    #[command(subcommand)]
    Recipient(RecipientCommand),
}

/// Commands on recovery recipients.
#[derive(Debug, Subcommand)]
pub enum RecipientCommand {
    /// Add a recovery recipient
    Add(AddArguments),
    /// List recovery recipients
    List,
}

/// What `key recipient add` takes.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// Whose it is
    #[arg(value_parser = values::word)]
    name: String,
    /// Make a new identity and write the recovery kit there; keep it away from the appliance
    #[arg(long, value_name = "FILE", required_unless_present = "public", conflicts_with = "public")]
    generate: Option<PathBuf>,
    /// The public half of an identity that somebody has already: age1…
    #[arg(long, value_name = "AGE1")]
    public: Option<String>,
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let Command::Recipient(command) = command;
    let client = common.client()?;
    match command {
        RecipientCommand::List => print_list(common.output, &client.get::<Page<Recipient>>("keys/recipients").await?)?,
        RecipientCommand::Add(AddArguments { name, generate, public }) => {
            let recipient = match (generate, public) {
                (Some(file), _) => generate_kit(&client, name, &file).await?,
                (None, public) => add(&client, name, public.unwrap_or_default()).await?.recipient,
            };
            print(common.output, &recipient)?;
        }
    }
    Ok(Exit::Done)
}

async fn add(client: &Client, name: String, public: String) -> Result<RecipientAdded, Failure> {
    client.post("keys/recipients", &CreateRecipient { name, public }).await
}

async fn generate_kit(client: &Client, name: String, file: &Path) -> Result<Recipient, Failure> {
    let mut kit = RecoveryKit::generate();
    write_new(file, kit.to_text().as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::failed(format!("{} is there already", file.display()))
            .hint("A recovery kit is never overwritten; choose another file."),
        _ => Failure::failed(format!("writing the recovery kit {} failed: {error}", file.display())),
    })?;
    let added = match add(client, name, kit.recipient()).await {
        Ok(added) => added,
        Err(failure) => {
            // The appliance may know it even so, if only its answer was lost: then the identity is worth keeping.
            if !failure.lost {
                let _ = fs::remove_file(file);
            }
            return Err(failure);
        }
    };
    kit.pin(repository(&added)?, verify_key(&added)?, added.targets.clone());
    replace(file, kit.to_text().as_bytes())
        .map_err(|error| Failure::failed(format!("writing the recovery kit {} failed: {error}", file.display())))?;
    try_kit(file, &added)?;
    say(format_args!("the recovery kit is in {}; it was tried and opens the keyring", file.display()));
    say(
        "keep it away from the appliance and from its targets: whoever has it reads every backup, and without one nothing can be recovered",
    );
    Ok(added.recipient)
}

/// Reads the kit back from its file and opens the keyring with it, as a recovery would.
fn try_kit(file: &Path, added: &RecipientAdded) -> Result<(), Failure> {
    let unusable = |reason: String| {
        Failure::failed(format!("the recovery kit {} does not open the keyring: {reason}", file.display()))
            .hint("Do not rely on this kit; add another recipient.")
    };
    let text = fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    let sealed = base64::engine::general_purpose::STANDARD
        .decode(&added.sealed_keyring)
        .map_err(|error| unusable(error.to_string()))?;
    let kit = RecoveryKit::parse(&text).map_err(|error| unusable(error.to_string()))?;
    kit.open_keyring(&sealed).map_err(|error| unusable(error.to_string()))?;
    Ok(())
}

fn repository(added: &RecipientAdded) -> Result<RepositoryId, Failure> {
    added
        .repository
        .parse()
        .map_err(|_| Failure::failed(format!("'{}' is not the id of a repository", added.repository)))
}

fn verify_key(added: &RecipientAdded) -> Result<VerifyKey, Failure> {
    let mut key = [0; 32];
    hex::decode_to_slice(&added.verify_key, &mut key)
        .map_err(|_| Failure::failed(format!("'{}' is not a verify key", added.verify_key)))?;
    Ok(VerifyKey(key))
}

/// Writes a file that must not be there yet, for its owner alone.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file's content as a whole: at every moment it holds the identity.
#[allow(clippy::disallowed_methods)] // Either file holds the identity, so neither need be durable.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".pinned");
    let temporary = PathBuf::from(name);
    write_new(&temporary, bytes)?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_kit_is_private_and_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("alice.key");
        write_new(&file, b"identity").unwrap();
        assert_eq!(write_new(&file, b"other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        replace(&file, b"pinned identity").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"pinned identity");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
