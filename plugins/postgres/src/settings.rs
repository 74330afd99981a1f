//! What an operator may set, and what was set.

use holdfast_sdk::document::{Description, Method, Setting};
use holdfast_sdk::{Error, Result, job};

/// The plugin as `describe` names it.
pub fn description() -> Description {
    Description {
        name: "postgres".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        engine: "postgres".into(),
        title: "PostgreSQL".into(),
        methods: vec![Method {
            name: "basebackup".into(),
            types: vec!["full".into()],
            restores_to: "directory".into(),
            description:
                "All files of the cluster by the replication protocol, with the log that makes them consistent".into(),
        }],
        settings: settings(),
        default_port: 5432,
        socket_name: Some(".s.PGSQL.{port}".into()),
    }
}

fn settings() -> Vec<Setting> {
    let plain = |key: &str, description: &str| Setting {
        key: key.into(),
        description: description.into(),
        ..Setting::default()
    };
    let default = |setting: Setting, value: &str| Setting { default: Some(value.into()), ..setting };
    let values = |setting: Setting, values: &[&str]| Setting {
        values: values.iter().map(|value| (*value).into()).collect(),
        ..default(setting, values[0])
    };
    vec![
        Setting {
            required: true,
            ..plain(
                "host",
                "Name or address of the server, or the directory of its Unix socket; several, a primary and its standbys, \
                 with commas between them",
            )
        },
        default(plain("port", "Port of the server; one for all, or one for each with commas between them"), "5432"),
        values(
            plain(
                "prefer",
                "Role of the server to back up; where none of that role can be, another is taken with a warning. any: the \
                 first that can be",
            ),
            &["any", "primary", "standby"],
        ),
        Setting { required: true, ..plain("user", "Role with LOGIN and REPLICATION") },
        Setting { secret: true, ..plain("password", "Password of the role") },
        default(plain("database", "Database to ask for sizes and settings"), "postgres"),
        values(
            plain("tls", "How the connection is protected, and what of the server's certificate is checked"),
            &["verify-full", "verify-ca", "require", "off"],
        ),
        plain("ca", "Certificates, as PEM, that the server's must descend from; else the system's are trusted"),
        plain("client-certificate", "Certificate, as PEM, that we show to the server"),
        Setting { secret: true, ..plain("client-key", "Private key, as PEM, of the client certificate") },
        values(
            plain(
                "manifest-checksums",
                "Checksums in the server's manifest; sha256 makes the server take nearly twice the time",
            ),
            &["crc32c", "sha256", "none"],
        ),
        values(
            plain(
                "corruption",
                "What becomes of a backup in which the server found damaged pages: kept with a warning for each, or refused",
            ),
            &["keep", "refuse"],
        ),
    ]
}

/// Which member a backup is taken from, where there is a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// The first that can be backed up.
    Any,
    /// One that takes writes.
    Primary,
    /// One that follows another.
    Standby,
}

/// What becomes of a backup with pages that were damaged at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Corruption {
    /// It is kept, with a warning for each.
    Keep,
    /// It fails.
    Refuse,
}

/// What was set, as far as the plugin itself needs it: name, port and TLS policy are the host's.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The role.
    pub user: String,
    /// The database for questions in SQL.
    pub database: String,
    /// Whether the operator turned TLS off.
    pub tls_off: bool,
    /// As the server calls it: `CRC32C`, `SHA256` or `NONE`.
    pub manifest_checksums: &'static str,
    /// Which member to back up.
    pub prefer: Preference,
    /// What to do about damaged pages.
    pub corruption: Corruption,
}

impl Settings {
    /// Reads what the job was given.
    pub fn read() -> Result<Self> {
        Self::from(job::setting)
    }

    fn from(setting: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let user = setting("user").filter(|user| !user.is_empty()).ok_or_else(|| {
            Error::new("setting-missing", "the setting user is missing").hint("Set it by `--set user=ROLE`.")
        })?;
        Ok(Self {
            user,
            database: setting("database").filter(|name| !name.is_empty()).unwrap_or_else(|| "postgres".into()),
            tls_off: setting("tls").as_deref() == Some("off"),
            manifest_checksums: choice(
                &setting,
                "manifest-checksums",
                &[("crc32c", "CRC32C"), ("sha256", "SHA256"), ("none", "NONE")],
            )?,
            prefer: choice(
                &setting,
                "prefer",
                &[("any", Preference::Any), ("primary", Preference::Primary), ("standby", Preference::Standby)],
            )?,
            corruption: choice(&setting, "corruption", &[("keep", Corruption::Keep), ("refuse", Corruption::Refuse)])?,
        })
    }
}

/// What a setting with few values means; the first of them where it is not set.
fn choice<T: Copy>(setting: impl Fn(&str) -> Option<String>, key: &str, values: &[(&str, T)]) -> Result<T> {
    let set = setting(key);
    let known = match set.as_deref() {
        None => values.first(),
        Some(set) => values.iter().find(|(value, _)| *value == set),
    };
    known.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let values: Vec<&str> = values.iter().map(|(value, _)| *value).collect();
        Error::new("setting-invalid", format!("the setting {key} is {:?}", set.unwrap_or_default()))
            .hint(format!("Set it to one of: {}.", values.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declares_all_that_it_uses() {
        let declared = include_str!("../plugin.toml");
        let description = description();
        for key in description.settings.iter().map(|setting| &setting.key).chain([&description.version]) {
            assert!(declared.contains(&format!("\"{key}\"")), "plugin.toml lacks {key}");
        }
    }

    #[test]
    fn defaults_hold_and_wrong_values_are_refused() {
        let set = |key: &'static str, value: &'static str| {
            Settings::from(move |asked: &str| match asked {
                asked if asked == key => Some(value.to_owned()),
                "user" => Some("backup".to_owned()),
                _ => None,
            })
        };
        let settings = set("port", "5432").expect("valid");
        assert_eq!(
            (settings.database.as_str(), settings.manifest_checksums, settings.tls_off),
            ("postgres", "CRC32C", false)
        );
        assert!(set("tls", "off").expect("valid").tls_off);
        assert_eq!((settings.prefer, settings.corruption), (Preference::Any, Corruption::Keep));
        assert_eq!(set("prefer", "standby").expect("valid").prefer, Preference::Standby);
        assert_eq!(set("corruption", "refuse").expect("valid").corruption, Corruption::Refuse);
        assert_eq!(set("manifest-checksums", "md5").expect_err("wrong").code, "setting-invalid");
        assert_eq!(set("user", "").expect_err("missing").code, "setting-missing");
    }
}
