//! `holdfast recover`: a data directory from one target and one recovery kit. Nothing is written to the target.

use std::path::{Path, PathBuf};

use holdfast_control::RecoverRequest;

use super::output::{print, printable};
use super::settings::{SettingArguments, Values};
use super::{Common, Exit, Failure, say};

/// Make a data directory from a target and a recovery kit
///
/// Nothing is written to any target. The newest heads are printed, and compared with what was seen there once and with every other target
/// that can be reached: exit 3 where this one lies in an older state.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The target's URL; S3 credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, others as below
    #[arg(long, value_name = "URL")]
    from: String,
    /// The recovery kit
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Accept a keyring that the kit does not pin
    #[arg(long)]
    trust_keyring: bool,
    #[command(flatten)]
    settings: SettingArguments,
}

/// Recovers.
pub async fn recover(common: &Common, arguments: Arguments) -> Result<Exit, Failure> {
    let request = RecoverRequest {
        settings: storage_settings(&arguments.from, arguments.settings)?,
        from: arguments.from,
        kit: read_kit(&arguments.identity)?,
        data_dir: common.data_dir().to_owned(),
        trust_keyring: arguments.trust_keyring,
    };
    let data_dir = request.data_dir.clone();
    let recovered = holdfast_control::recover(request).await?;
    print(common.output, &recovered)?;
    recovered.warnings.iter().for_each(|warning| say(format_args!("warning: {}", printable(warning))));
    say("next steps:");
    say(format_args!("  holdfast serve --data-dir {}", data_dir.display()));
    say(format_args!(
        "  holdfast takeover --confirm {}    (once the former appliance is gone for good)",
        recovered.repository
    ));
    Ok(if recovered.warnings.is_empty() { Exit::Done } else { Exit::Warnings })
}

/// The text of a recovery kit.
pub fn read_kit(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::failed(format!("reading the recovery kit {} failed: {error}", path.display()))
            .hint("It is the file that `holdfast key recipient add NAME --generate FILE` wrote.")
    })
}

/// Credentials for a target without an appliance that knows them: as they are given, and for S3 else from the variables that S3's
/// own tools read.
pub fn storage_settings(url: &str, given: SettingArguments) -> Result<Values, Failure> {
    let (mut settings, secrets) = given.read()?;
    settings.extend(secrets.into_iter().map(|(key, secret)| (key, secret.expose().to_owned())));
    if url.starts_with("s3://") {
        for (key, variable) in [("access-key", "AWS_ACCESS_KEY_ID"), ("secret-key", "AWS_SECRET_ACCESS_KEY")] {
            if let Ok(value) = std::env::var(variable) {
                settings.entry(key.to_owned()).or_insert(value);
            }
        }
    }
    Ok(settings)
}
