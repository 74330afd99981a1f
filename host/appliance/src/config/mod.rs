//! `DATA-DIR/holdfast.toml`: typed settings, read and checked once, at start. Unknown keys are refused, with the near name.

mod compression;
mod keyring;
mod limits;
mod scrub;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use holdfast_control::nearest;
use serde::Deserialize;

pub use compression::Compression;
pub use keyring::Keyring;
pub use limits::Limits;
pub use scrub::Scrub;

use crate::cli::Failure;

/// All settings.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the primary target lies.
    pub repository: Repository,
    /// What opens the keyring.
    pub keyring: Keyring,
    /// How the API is served.
    pub server: Server,
    /// How hard backups are compressed.
    pub compression: Compression,
    /// Bounds of the appliance as a whole, and of every run of a plugin.
    pub limits: Limits,
    /// How often every byte is read.
    pub scrub: Scrub,
}

/// `[repository]`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repository {
    /// URL of the primary target; `file://DATA-DIR/repository` without it.
    pub url: Option<String>,
    /// Site of the primary target; `local` without it.
    pub site: Option<String>,
}

/// `[server]`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address and port for TLS.
    pub listen: SocketAddr,
}

impl Default for Server {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7443)) }
    }
}

/// Every key there is, by section.
const KEYS: [(&str, &[&str]); 6] = [
    ("repository", &["url", "site"]),
    ("keyring", keyring::KEYS),
    ("server", &["listen"]),
    ("compression", compression::KEYS),
    ("limits", limits::KEYS),
    ("scrub", scrub::KEYS),
];

impl Config {
    /// Reads the file of a data directory; without one all is as by default.
    pub fn load(data_dir: &Path) -> Result<Self, Failure> {
        let path = data_dir.join("holdfast.toml");
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|failure| failure.at(path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::failed(format!("reading {} failed: {error}", path.display()))),
        }
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |error: toml::de::Error| {
            Failure::failed(error.to_string().trim_end().to_owned())
                .hint("Correct that line, or remove it: every key has a default.")
        };
        let table: toml::Table = text.parse().map_err(wrong)?;
        refuse_unknown(&table)?;
        let config: Self = toml::from_str(text).map_err(wrong)?;
        config.compression.check()?;
        config.limits.check()?;
        Ok(config)
    }
}

fn refuse_unknown(table: &toml::Table) -> Result<(), Failure> {
    for (section, value) in table {
        let Some((_, keys)) = KEYS.iter().find(|(known, _)| known == section) else {
            return Err(unknown("section", section, &KEYS.map(|(known, _)| known)));
        };
        for key in value.as_table().into_iter().flat_map(toml::Table::keys) {
            if !keys.contains(&key.as_str()) {
                return Err(unknown(&format!("key of [{section}]"), key, keys));
            }
        }
    }
    Ok(())
}

fn unknown(what: &str, name: &str, known: &[&str]) -> Failure {
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("Did you mean '{near}'?"),
        None => format!("There are: {}.", known.join(", ")),
    };
    Failure::failed(format!("'{name}' is not a {what}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_by_default() {
        let config = Config::parse("[repository]\nsite = \"here\"\n").unwrap();
        assert_eq!(config.repository, Repository { url: None, site: Some("here".to_owned()) });
        assert_eq!(config.server.listen.to_string(), "127.0.0.1:7443");
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn every_known_key_is_read() {
        let text =
            "[repository]\nurl = 'file:///srv'\nsite = 'here'\n[server]\nlisten = '[::1]:1'\n[limits]\nworkers = 3\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.repository.url.as_deref(), Some("file:///srv"));
        assert_eq!(config.server.listen.to_string(), "[::1]:1");
        assert_eq!(config.limits.workers, 3);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_near_one() {
        let failure = Config::parse("[server]\nlisen = \"127.0.0.1:1\"\n").err().unwrap();
        assert_eq!(failure.message, "'lisen' is not a key of [server]");
        assert_eq!(failure.hint.as_deref(), Some("Did you mean 'listen'?"));
        let failure = Config::parse("[sevrer]\n").err().unwrap();
        assert_eq!(failure.hint.as_deref(), Some("Did you mean 'server'?"));
        let failure = Config::parse("zzzzzzzzzz = 1\n").err().unwrap();
        assert_eq!(
            failure.hint.as_deref(),
            Some("There are: repository, keyring, server, compression, limits, scrub.")
        );
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for wrong in [
            "[server]\nlisten = \"here\"\n",
            "[limits]\nworkers = 0\n",
            "[limits]\nworkers = -1\n",
            "[limits]\nmemory = \"256\"\n",
            "[limits]\nmemory = 256\n",
            "[limits]\nwall = \"1 hour\"\n",
            "repository = 1\n",
            "[",
        ] {
            assert!(Config::parse(wrong).is_err(), "{wrong}");
        }
    }
}
