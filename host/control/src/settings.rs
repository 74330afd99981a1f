//! An instance's settings against what its plugin declares, and what they grant.

use std::collections::BTreeMap;
use std::path::PathBuf;

use holdfast_sandbox::{Description, Grants, Member, TlsMode, TlsPolicy};
use zeroize::Zeroizing;

use crate::Error;
use crate::names::nearest;
use crate::resources::SecretText;

/// Secrets by key, opened.
pub(crate) type Secrets = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Refuses unknown keys (with the near name), secrets given openly, missing and disallowed values.
pub(crate) fn check(
    description: &Description,
    settings: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, SecretText>,
) -> Result<(), Error> {
    for key in settings.keys().chain(secrets.keys()) {
        let Some(known) = description.settings.iter().find(|s| s.key == *key) else {
            return Err(unknown(description, key));
        };
        if known.secret != secrets.contains_key(key) {
            return Err(wrong_openness(key, known.secret));
        }
    }
    for setting in &description.settings {
        let value = settings.get(&setting.key);
        if setting.required && value.is_none() && !secrets.contains_key(&setting.key) {
            return Err(Error::invalid(
                "missing-setting",
                format!("{} needs the setting '{}': {}", description.title, setting.key, setting.description),
            )
            .hint(if setting.secret {
                format!("Add --secret-file {}=PATH.", setting.key)
            } else {
                format!("Add --set {}=VALUE.", setting.key)
            }));
        }
        if let Some(value) = value
            && !setting.values.is_empty()
            && !setting.values.contains(value)
        {
            return Err(Error::invalid(
                "bad-setting",
                format!("'{value}' is not a value of the setting '{}'", setting.key),
            )
            .hint(format!("Allowed are: {}.", setting.values.join(", "))));
        }
    }
    member(description, settings)?;
    tls(settings, &Secrets::new(), false)?;
    Ok(())
}

fn unknown(description: &Description, key: &str) -> Error {
    let keys = || description.settings.iter().map(|s| s.key.as_str());
    let hint = nearest(key, keys()).map_or_else(
        || format!("{} knows: {}.", description.title, keys().collect::<Vec<_>>().join(", ")),
        |near| format!("Did you mean '{near}'?"),
    );
    Error::invalid("unknown-setting", format!("{} has no setting '{key}'", description.title)).hint(hint)
}

fn wrong_openness(key: &str, secret: bool) -> Error {
    if secret {
        Error::invalid("secret-in-settings", format!("'{key}' is a secret and was given as a plain setting"))
            .hint(format!("Use --secret-file {key}=PATH or --secret-stdin {key}; consider the value that was given as known to others."))
    } else {
        Error::invalid("setting-in-secrets", format!("'{key}' is not a secret")).hint(format!("Use --set {key}=VALUE."))
    }
}

/// All that a job on this instance may touch, before archive and destination are added.
pub(crate) fn grants(
    description: &Description,
    settings: &BTreeMap<String, String>,
    secrets: Secrets,
) -> Result<Grants, Error> {
    let member = member(description, settings)?;
    let tls = match member {
        // TLS over a Unix socket protects nothing that the socket's permissions do not.
        Member::Unix(_) => TlsPolicy { mode: TlsMode::Off, ..TlsPolicy::default() },
        Member::Tcp { .. } => tls(settings, &secrets, true)?,
    };
    let mut effective: BTreeMap<String, String> =
        description.settings.iter().filter_map(|s| Some((s.key.clone(), s.default.clone()?))).collect();
    effective.extend(settings.clone());
    Ok(Grants { members: vec![member], tls, settings: effective, secrets, ..Grants::default() })
}

fn member(description: &Description, settings: &BTreeMap<String, String>) -> Result<Member, Error> {
    let port = port(description, settings)?;
    let host = settings.get("host").cloned().unwrap_or_else(|| "localhost".to_owned());
    if !host.starts_with('/') {
        return Ok(Member::Tcp { host, port });
    }
    match &description.socket_name {
        Some(name) => Ok(Member::Unix(PathBuf::from(host).join(name.replace("{port}", &port.to_string())))),
        None => Err(Error::invalid("bad-setting", format!("{} has no Unix sockets", description.title))
            .hint("Set 'host' to a name or an address.")),
    }
}

fn port(description: &Description, settings: &BTreeMap<String, String>) -> Result<u16, Error> {
    let Some(text) = settings.get("port") else { return Ok(description.default_port) };
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        Error::invalid("bad-setting", format!("'{text}' is not a port")).hint("A port is a number from 1 to 65535.")
    })
}

/// The TLS policy that the settings ask for; with `read_files`, PEM files named by path are read.
fn tls(settings: &BTreeMap<String, String>, secrets: &Secrets, read_files: bool) -> Result<TlsPolicy, Error> {
    let mode = match settings.get("tls").map_or("verify-full", String::as_str) {
        "verify-full" => TlsMode::VerifyFull,
        "verify-ca" => TlsMode::VerifyCa,
        "require" => TlsMode::Require,
        "off" => TlsMode::Off,
        other => {
            return Err(Error::invalid("bad-setting", format!("'{other}' is not a value of the setting 'tls'"))
                .hint("Allowed are: verify-full, verify-ca, require, off."));
        }
    };
    let pem = |key: &str| {
        settings.get(key).map(|value| if read_files { pem(key, value) } else { Ok(value.clone()) }).transpose()
    };
    let client = match (pem("client-certificate")?, secrets.get("client-key")) {
        (Some(chain), Some(key)) => {
            let key = std::str::from_utf8(key)
                .map_err(|_| Error::invalid("bad-setting", "the secret 'client-key' is not PEM text"))?;
            Some((chain, Zeroizing::new(key.to_owned())))
        }
        _ => None,
    };
    Ok(TlsPolicy { mode, ca: pem("ca")?, client })
}

/// PEM text as it is given, or from the file on the appliance that is named.
fn pem(key: &str, value: &str) -> Result<String, Error> {
    if value.contains("-----BEGIN") {
        return Ok(value.to_owned());
    }
    let text = std::fs::read_to_string(value)
        .map_err(|error| Error::file(&format!("reading the setting '{key}' from"), value.as_ref(), error))?;
    if text.contains("-----BEGIN CERTIFICATE") {
        return Ok(text);
    }
    Err(Error::invalid("bad-setting", format!("the file of the setting '{key}' holds no PEM certificate"))
        .hint(format!("Give '{key}' PEM text, or the path of a PEM file on the appliance.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn postgres() -> Description {
        serde_json::from_value(serde_json::json!({
            "name": "postgres", "version": "0.1.0", "engine": "postgres", "title": "PostgreSQL", "defaultPort": 5432,
            "socketName": ".s.PGSQL.{port}", "methods": [],
            "settings": [
                {"key": "host", "description": "where", "required": true},
                {"key": "port", "description": "port"},
                {"key": "user", "description": "role", "default": "postgres"},
                {"key": "password", "description": "of the role", "secret": true},
                {"key": "tls", "description": "mode", "values": ["verify-full", "off"]},
            ],
        }))
        .unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn an_unknown_setting_is_refused_with_the_near_name() {
        let error = check(&postgres(), &map(&[("host", "db"), ("prot", "1")]), &BTreeMap::new()).unwrap_err();
        assert_eq!((error.code.as_str(), error.hint.as_deref()), ("unknown-setting", Some("Did you mean 'port'?")));
    }

    #[test]
    fn secrets_and_settings_do_not_change_places() {
        let code = |s: &[(&str, &str)], x: &[(&str, &str)]| {
            let secrets = map(x).into_iter().map(|(key, value)| (key, value.into())).collect();
            check(&postgres(), &map(s), &secrets).unwrap_err().code
        };
        assert_eq!(code(&[("host", "db"), ("password", "x")], &[]), "secret-in-settings");
        assert_eq!(code(&[("host", "db")], &[("user", "x")]), "setting-in-secrets");
        assert_eq!(code(&[], &[]), "missing-setting");
        assert_eq!(code(&[("host", "db"), ("tls", "maybe")], &[]), "bad-setting");
        assert_eq!(code(&[("host", "db"), ("port", "99999")], &[]), "bad-setting");
    }

    #[test]
    fn a_path_as_host_is_a_unix_socket_without_tls() {
        let grants =
            grants(&postgres(), &map(&[("host", "/run/postgresql"), ("port", "5433")]), Secrets::new()).unwrap();
        assert_eq!(grants.members, [Member::Unix("/run/postgresql/.s.PGSQL.5433".into())]);
        assert_eq!(grants.tls.mode, TlsMode::Off);
        assert_eq!(grants.settings["user"], "postgres");
    }
}
