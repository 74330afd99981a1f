//! `[keyring]`: where the key or the passphrase is that opens the keyring in the data directory.

use holdfast_control::UnlockSource;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The keys of this section.
pub const KEYS: &[&str] = &["unlock"];

/// `[keyring]`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keyring {
    /// Where the keyring itself says, without it.
    #[serde(deserialize_with = "source")]
    pub unlock: Option<UnlockSource>,
}

fn source<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnlockSource>, D::Error> {
    let said = String::deserialize(deserializer)?.parse::<UnlockSource>();
    said.map(Some).map_err(|error| D::Error::custom(format!("{error}. {}", error.hint.as_deref().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_the_key_is_read_or_refused_with_what_there_is() {
        let keyring: Keyring = toml::from_str("unlock = 'credential:holdfast'").unwrap();
        assert_eq!(keyring.unlock, Some(UnlockSource::Credential("holdfast".to_owned())));
        assert_eq!(toml::from_str::<Keyring>("").unwrap(), Keyring::default());
        let refused = toml::from_str::<Keyring>("unlock = 'stick'").unwrap_err().to_string();
        assert!(refused.contains("key-file:/PATH"), "{refused}");
    }
}
