//! `holdfast key recipient`: who can recover. A generated identity never leaves this machine, and is in its file before the appliance knows of it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use clap::Subcommand;
use holdfast_control::resources::{CreateRecipient, Page, Recipient, RecipientAdded, RecipientRemoved};
use holdfast_repository::{RecoveryKit, RepositoryId, VerifyKey};

use super::rotate::Waiting;
use crate::cli::output::{print, print_list};
use crate::cli::{Common, Exit, Failure, say, values};
use crate::client::Client;

/// Commands on recovery recipients.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a recovery recipient, or one that opens the backups of one organization
    Add(AddArguments),
    /// List recovery recipients, and those of organizations
    List,
    /// Remove a recipient, rotate the keys that they knew, and say what they can still read
    Remove(RemoveArguments),
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
    /// Opens the backups of this organization alone, those that exist too: with `holdfast restore --from URL --identity FILE`
    #[arg(long, value_parser = values::word, value_name = "ORG")]
    organization: Option<String>,
}

/// What `key recipient remove` takes.
#[derive(Debug, clap::Args)]
pub struct RemoveArguments {
    /// Whose it is
    #[arg(value_parser = values::word)]
    name: String,
    /// The organization whose own recipient it is; without it a recovery recipient
    #[arg(long, value_parser = values::word, value_name = "ORG")]
    organization: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

/// Runs one of them.
pub async fn run(common: &Common, command: Command) -> Result<Exit, Failure> {
    let client = common.client()?;
    match command {
        Command::List => print_list(common.output, &client.get::<Page<Recipient>>("keys/recipients").await?)?,
        Command::Add(AddArguments { name, generate, public, organization }) => {
            let request = CreateRecipient { name, public: public.unwrap_or_default(), organization };
            let recipient = match generate {
                Some(file) => generate_kit(&client, request, &file).await?,
                None => add(&client, &request).await?.recipient,
            };
            print(common.output, &recipient)?;
        }
        Command::Remove(RemoveArguments { name, organization, waiting }) => {
            let of = organization.map(|organization| format!("?organization={organization}")).unwrap_or_default();
            let removed: RecipientRemoved = client.remove(&format!("keys/recipients/{name}{of}")).await?;
            print(common.output, &removed)?;
            return waiting.for_rewrap(&client, &removed.job).await;
        }
    }
    Ok(Exit::Done)
}

async fn add(client: &Client, request: &CreateRecipient) -> Result<RecipientAdded, Failure> {
    client.post("keys/recipients", request).await
}

async fn generate_kit(client: &Client, request: CreateRecipient, file: &Path) -> Result<Recipient, Failure> {
    let mut kit = RecoveryKit::generate();
    write_new(file, kit.to_text().as_bytes()).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::failed(format!("{} is there already", file.display()))
            .hint("A recovery kit is never overwritten; choose another file."),
        _ => Failure::failed(format!("writing the recovery kit {} failed: {error}", file.display())),
    })?;
    let added = match add(client, &CreateRecipient { public: kit.recipient(), ..request }).await {
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
    match (&added.sealed_keyring, &added.recipient.organization) {
        (Some(sealed), _) => {
            try_kit(file, sealed)?;
            say(format_args!("the recovery kit is in {}; it was tried and opens the keyring", file.display()));
            say(
                "keep it away from the appliance and from its targets: whoever has it reads every backup, and without one nothing can be recovered",
            );
        }
        (None, organization) => say(format_args!(
            "the identity is in {}: whoever has it and can read a target restores the backups of {}, once their slots are rewrapped",
            file.display(),
            organization.as_deref().unwrap_or_default()
        )),
    }
    Ok(added.recipient)
}

/// Reads the kit back from its file and opens the keyring with it, as a recovery would.
fn try_kit(file: &Path, sealed_keyring: &str) -> Result<(), Failure> {
    let unusable = |reason: String| {
        Failure::failed(format!("the recovery kit {} does not open the keyring: {reason}", file.display()))
            .hint("Do not rely on this kit; add another recipient.")
    };
    let text = fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
    let sealed = base64::engine::general_purpose::STANDARD
        .decode(sealed_keyring)
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
