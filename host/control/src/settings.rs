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
    members(description, settings)?;
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
    let members = members(description, settings)?;
    let tls = if members.iter().all(|member| matches!(member, Member::Unix(_))) {
        // TLS over a Unix socket protects nothing that the socket's permissions do not.
        TlsPolicy { mode: TlsMode::Off, ..TlsPolicy::default() }
    } else {
        tls(settings, &secrets, true)?
    };
    let mut effective: BTreeMap<String, String> =
        description.settings.iter().filter_map(|s| Some((s.key.clone(), s.default.clone()?))).collect();
    effective.extend(settings.clone());
    Ok(Grants { members, tls, settings: effective, secrets, ..Grants::default() })
}

/// The servers that `host` and `port` name, as libpq reads them: lists with commas, and one port for all or one for each.
fn members(description: &Description, settings: &BTreeMap<String, String>) -> Result<Vec<Member>, Error> {
    let list = |key: &str| settings.get(key).map(|value| value.split(',').map(str::trim).collect::<Vec<_>>());
    // A plugin chooses its default port: without a server that the operator named it reaches none, on this machine least of all.
    let Some(hosts) = list("host") else { return Ok(Vec::new()) };
    let ports = list("port").unwrap_or_else(|| vec![""]);
    if ports.len() != 1 && ports.len() != hosts.len() {
        let message = format!("'port' names {} ports, and 'host' {} servers", ports.len(), hosts.len());
        return Err(Error::invalid("bad-setting", message)
            .hint("Give one port for all servers, or one for each in the same order."));
    }
    let members: Vec<Member> = hosts
        .iter()
        .zip(ports.iter().cycle())
        .map(|(host, port)| member(description, host, port))
        .collect::<Result<_, _>>()?;
    let twice = members.iter().enumerate().find(|(at, member)| members[..*at].contains(member));
    match twice {
        Some((_, member)) => {
            Err(Error::invalid("bad-setting", format!("'host' names {member} twice")).hint("Name each server once."))
        }
        None => Ok(members),
    }
}

fn member(description: &Description, host: &str, port: &str) -> Result<Member, Error> {
    let port = self::port(description, port)?;
    if host.is_empty() {
        return Err(Error::invalid("bad-setting", "'host' has an empty name")
            .hint("Set 'host' to a name or an address, or to several with a comma between each two."));
    }
    if !host.starts_with('/') {
        return Ok(Member::Tcp { host: host.to_owned(), port });
    }
    match &description.socket_name {
        Some(name) => Ok(Member::Unix(PathBuf::from(host).join(name.replace("{port}", &port.to_string())))),
        None => Err(Error::invalid("bad-setting", format!("{} has no Unix sockets", description.title))
            .hint("Set 'host' to a name or an address.")),
    }
}

/// An empty text is the engine's own port.
fn port(description: &Description, text: &str) -> Result<u16, Error> {
    if text.is_empty() {
        return Ok(description.default_port);
    }
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

    #[test]
    fn several_hosts_are_members_with_one_port_for_all_or_one_for_each() {
        let members = |host: &str, port: Option<&str>| {
            let mut settings = map(&[("host", host)]);
            settings.extend(port.map(|port| ("port".to_owned(), port.to_owned())));
            let members = super::members(&postgres(), &settings).map_err(|error| error.message)?;
            Ok::<_, String>(members.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(members("db1,db2", None).unwrap(), "db1:5432 db2:5432");
        assert_eq!(members("db1, ::1", Some("5433")).unwrap(), "db1:5433 [::1]:5433");
        assert_eq!(members("db1,db1,/run", Some("5432,5433,")).unwrap(), "db1:5432 db1:5433 /run/.s.PGSQL.5432");
        assert_eq!(members("db1,db2,db3", Some("1,2")).unwrap_err(), "'port' names 2 ports, and 'host' 3 servers");
        assert_eq!(members("db1,db2", Some("1,0")).unwrap_err(), "'0' is not a port");
        assert_eq!(members("db1,", None).unwrap_err(), "'host' has an empty name");
        assert_eq!(members("db1,db2,db1", None).unwrap_err(), "'host' names db1:5432 twice");
        assert_eq!(super::members(&postgres(), &map(&[])).unwrap(), []);
    }

    #[test]
    fn only_sockets_alone_need_no_tls() {
        let mode = |host: &str| grants(&postgres(), &map(&[("host", host)]), Secrets::new()).unwrap().tls.mode;
        assert_eq!(mode("/run,/tmp"), TlsMode::Off);
        assert_eq!(mode("/run,db"), TlsMode::VerifyFull);
    }
}
