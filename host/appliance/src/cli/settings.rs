//! `--set`, `--secret-file`, `--secret-stdin`: settings and secrets. A secret never stands on a command line, where every process can read it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use holdfast_control::resources::SecretText;

use super::Failure;
use super::values::key_value;

/// Keys that hold secrets, in every engine and at every target.
const SECRET_KEYS: [&str; 7] = ["password", "secret-key", "client-key", "passphrase", "private-key", "secret", "token"];

/// Settings with their secrets.
#[derive(Debug, Args)]
pub struct SettingArguments {
    /// A setting
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// A secret, read from a file
    #[arg(long, value_name = "KEY=PATH", value_parser = key_value)]
    secret_file: Vec<(String, String)>,
    /// A secret, read from standard input
    #[arg(long, value_name = "KEY")]
    secret_stdin: Option<String>,
}

/// Settings by key.
pub type Values = BTreeMap<String, String>;
/// Secrets by key.
pub type Secrets = BTreeMap<String, SecretText>;

impl SettingArguments {
    /// Whether there is any.
    pub fn are_given(&self) -> bool {
        !self.set.is_empty() || !self.secret_file.is_empty() || self.secret_stdin.is_some()
    }

    /// The settings and the secrets.
    pub fn read(self) -> Result<(Values, Secrets), Failure> {
        let mut settings = Values::new();
        for (key, value) in self.set {
            if SECRET_KEYS.contains(&key.as_str()) {
                return Err(Failure::usage(format!("'{key}' is a secret and must not stand on the command line"))
                    .hint(format!("Use --secret-file {key}=PATH or --secret-stdin {key}.")));
            }
            insert(&mut settings, key, value)?;
        }
        let mut secrets = Secrets::new();
        for (key, path) in self.secret_file {
            let path = PathBuf::from(path);
            let secret = std::fs::read_to_string(&path).map_err(|error| {
                Failure::failed(format!("reading the secret '{key}' from {} failed: {error}", path.display()))
                    .hint("The file must exist and be readable for this user; the secret is its content.")
            })?;
            insert(&mut secrets, key, one_line_less(secret).into())?;
        }
        if let Some(key) = self.secret_stdin {
            let mut secret = String::new();
            std::io::stdin().read_to_string(&mut secret).map_err(|error| {
                Failure::failed(format!("reading the secret '{key}' from standard input failed: {error}"))
            })?;
            insert(&mut secrets, key, one_line_less(secret).into())?;
        }
        match settings.keys().find(|key| secrets.contains_key(*key)) {
            Some(key) => Err(Failure::usage(format!("'{key}' is given as a setting and as a secret"))),
            None => Ok((settings, secrets)),
        }
    }
}

fn insert<T>(values: &mut BTreeMap<String, T>, key: String, value: T) -> Result<(), Failure> {
    if values.contains_key(&key) {
        return Err(Failure::usage(format!("'{key}' is given twice")));
    }
    values.insert(key, value);
    Ok(())
}

/// Editors end a file with a newline that is no part of the secret.
fn one_line_less(mut secret: String) -> String {
    if secret.ends_with('\n') {
        secret.pop();
        if secret.ends_with('\r') {
            secret.pop();
        }
    }
    secret
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(set: &[&str], secret_file: &[String]) -> SettingArguments {
        SettingArguments {
            set: set.iter().map(|text| key_value(text).unwrap()).collect(),
            secret_file: secret_file.iter().map(|text| key_value(text).unwrap()).collect(),
            secret_stdin: None,
        }
    }

    #[test]
    fn a_secret_on_the_command_line_is_refused() {
        let failure = arguments(&["host=a", "password=hunter2"], &[]).read().err().unwrap();
        assert_eq!(failure.exit, super::super::Exit::Usage);
        assert!(failure.hint.unwrap().contains("--secret-file password=PATH"));
        assert!(!failure.message.contains("hunter2"));
    }

    #[test]
    fn a_secret_file_loses_its_last_newline_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "two\nlines\r\n").unwrap();
        let (settings, secrets) = arguments(&["host=a"], &[format!("password={}", path.display())]).read().unwrap();
        assert_eq!(settings["host"], "a");
        assert_eq!(secrets["password"].expose(), "two\nlines");
    }

    #[test]
    fn a_key_comes_once() {
        assert!(arguments(&["host=a", "host=b"], &[]).read().is_err());
    }
}
