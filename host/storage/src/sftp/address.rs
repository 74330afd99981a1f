//! What an `sftp://user@host:22/path` URL and its settings say.
//!
//! It refuses a password in the URL, a path that is not absolute or climbs, and addresses that are never dialled.

use std::sync::Arc;

use percent_encoding::percent_decode_str;
use russh::keys::PrivateKey;
use url::{Host, Url};

use crate::addresses::is_forbidden;
use crate::error::Error;
use crate::{Settings, spelling};

const HOST_KEY: &str = "host-key";
const PRIVATE_KEY: &str = "private-key";
const PASSPHRASE: &str = "passphrase";
const PASSWORD: &str = "password";
const SETTINGS: [&str; 4] = [HOST_KEY, PRIVATE_KEY, PASSPHRASE, PASSWORD];

/// The value of `host-key` that trusts the key which the server shows first.
const FIRST_SEEN: &str = "first-seen";
const PORT: u16 = 22;

/// A directory on a server, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) user: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// Absolute, without a closing slash.
    pub(super) root: String,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let bad = |reason: &str| Error::bad_url(text, reason);
        let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
        if url.password().is_some() {
            return Err(bad("a password does not belong into a URL, but into the secret `password`"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("an SFTP server takes no options in the URL"));
        }
        let decoded = |part: &str| percent_decode_str(part).decode_utf8().map(String::from);
        let user = decoded(url.username()).map_err(|_| bad("its user is not UTF-8"))?;
        let root = decoded(url.path().trim_end_matches('/')).map_err(|_| bad("its path is not UTF-8"))?;
        if user.is_empty() {
            return Err(bad("it names no user; write `sftp://user@host/path`"));
        }
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| bad("it names no host"))?;
        if is_never_dialled(host) {
            return Err(bad("its host is a link-local or unspecified address, and such are never dialled"));
        }
        let climbs = root.split('/').skip(1).any(|part| matches!(part, "" | "." | ".."));
        if !root.starts_with('/') || climbs || root.contains(char::is_control) {
            return Err(bad("its path must name a directory below `/`, without `..`"));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { user, host, port: url.port().unwrap_or(PORT), root })
    }

    /// The URL, as far as it says where this is.
    pub(super) fn location(&self) -> String {
        let Self { user, host, port, root } = self;
        match host.contains(':') {
            true => format!("sftp://{user}@[{host}]:{port}{root}"),
            false => format!("sftp://{user}@{host}:{port}{root}"),
        }
    }
}

fn is_never_dialled(host: &str) -> bool {
    match Host::parse(host) {
        Ok(Host::Ipv4(address)) => is_forbidden(address.into()),
        Ok(Host::Ipv6(address)) => is_forbidden(address.into()),
        // A name is looked at when it was resolved.
        Ok(Host::Domain(_)) | Err(_) => false,
    }
}

/// Which server is the right one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trust {
    /// One with a key of these fingerprints; with none of them, no server.
    Pinned(Vec<String>),
    /// The one that is met first.
    FirstSeen,
}

impl Trust {
    fn parse(text: Option<&str>) -> Result<Self, Error> {
        match text {
            None => Ok(Self::Pinned(Vec::new())),
            Some(FIRST_SEEN) => Ok(Self::FirstSeen),
            Some(text) => {
                let pins: Vec<String> = text.split(',').map(|pin| pin.trim().to_owned()).collect();
                match pins.iter().all(|pin| is_fingerprint(pin)) {
                    true => Ok(Self::Pinned(pins)),
                    false => Err(Error::bad_setting(
                        HOST_KEY,
                        "is a fingerprint as `ssh-keygen -l` shows it (`SHA256:` and 43 characters; several with commas \
                         between them), or `first-seen`",
                    )),
                }
            }
        }
    }
}

/// `SHA256:` and 32 bytes in base64 without padding.
fn is_fingerprint(text: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.strip_prefix("SHA256:").is_some_and(|rest| rest.len() == 43 && rest.bytes().all(is_base64))
}

/// The setting that keeps a server's key once it was seen.
pub(super) fn pinned(fingerprint: &str) -> Settings {
    Settings::from([(HOST_KEY.to_owned(), fingerprint.to_owned())])
}

/// How to log in, and where.
pub(super) struct Credentials {
    pub(super) trust: Trust,
    pub(super) key: Option<Arc<PrivateKey>>,
    pub(super) password: Option<String>,
}

impl Credentials {
    /// Refuses settings that are unknown, missing or malformed; never shows a value.
    pub(super) fn parse(settings: &Settings) -> Result<Self, Error> {
        if let Some(name) = settings.keys().find(|name| !SETTINGS.contains(&name.as_str())) {
            return Err(Error::bad_setting(name, spelling::unknown(name, &SETTINGS)));
        }
        let value = |name: &str| settings.get(name).map(String::as_str);
        let trust = Trust::parse(value(HOST_KEY))?;
        let key = value(PRIVATE_KEY).map(|text| private_key(text, value(PASSPHRASE))).transpose()?;
        let password = value(PASSWORD).map(str::to_owned);
        if key.is_none() && password.is_none() {
            return Err(Error::bad_setting(PRIVATE_KEY, "is missing, and so is `password`; an SFTP server needs one"));
        }
        Ok(Self { trust, key, password })
    }
}

fn private_key(text: &str, passphrase: Option<&str>) -> Result<Arc<PrivateKey>, Error> {
    // OpenSSH's form wants its last line ended; what reads secrets takes that end away.
    let text = format!("{}\n", text.trim());
    match russh::keys::decode_secret_key(&text, passphrase) {
        Ok(key) if key.algorithm().is_rsa() => {
            Err(Error::bad_setting(PRIVATE_KEY, "is an RSA key; make an Ed25519 one"))
        }
        Ok(key) => Ok(Arc::new(key)),
        Err(russh::keys::Error::KeyIsEncrypted) => {
            Err(Error::bad_setting(PRIVATE_KEY, "is encrypted; give its `passphrase` too"))
        }
        Err(_) => Err(Error::bad_setting(
            PRIVATE_KEY,
            "is not a private key of type Ed25519 or ECDSA that can be read, or `passphrase` is not its own",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(url: &str) -> String {
        Address::parse(url).unwrap_err().to_string()
    }

    #[test]
    fn a_url_names_user_host_port_and_directory() {
        let address = Address::parse("sftp://keeper@nas.example/srv/backups/").unwrap();
        assert_eq!(address.location(), "sftp://keeper@nas.example:22/srv/backups");
        let address = Address::parse("sftp://a%40b@[::1]:2222/srv/my%20disk").unwrap();
        assert_eq!(
            (address.user.as_str(), address.host.as_str(), address.root.as_str()),
            ("a@b", "::1", "/srv/my disk")
        );
        assert_eq!(address.location(), "sftp://a@b@[::1]:2222/srv/my disk");
    }

    #[test]
    fn malformed_urls_are_refused_and_passwords_not_repeated() {
        let shown = reason("sftp://keeper:topsecret@nas/srv");
        assert!(shown.contains("does not belong into a URL") && !shown.contains("topsecret"), "{shown}");
        assert!(reason("sftp://nas/srv").contains("no user"));
        assert!(reason("sftp://keeper@nas").contains("below `/`"));
        // What climbs is taken away by the URL's own rules, or refused.
        assert_eq!(Address::parse("sftp://keeper@nas/srv/../etc").unwrap().root, "/etc");
        assert!(reason("sftp://keeper@nas/srv//etc").contains("below `/`"));
        assert!(reason("sftp://keeper@nas/srv?x=1").contains("no options"));
        assert!(reason("sftp://keeper@169.254.169.254/srv").contains("never dialled"));
    }

    #[test]
    fn settings_are_checked_by_name_and_never_shown() {
        let refusal = |pairs: &[(&str, &str)]| {
            let settings = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            Credentials::parse(&settings).err().unwrap().to_string()
        };
        assert!(refusal(&[("pasword", "x")]).contains("did you mean `password`?"));
        assert!(refusal(&[]).contains("`private-key` is missing, and so is `password`"));
        assert!(refusal(&[("password", "x"), ("host-key", "MD5:aa")]).contains("a fingerprint as `ssh-keygen -l`"));
        let shown = refusal(&[("private-key", "hidden")]);
        assert!(shown.contains("is not a private key") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn a_host_key_is_pinned_or_trusted_when_first_seen_if_the_operator_says_so() {
        let pin = format!("SHA256:{}", "a".repeat(43));
        assert_eq!(Trust::parse(None).unwrap(), Trust::Pinned(Vec::new()));
        assert_eq!(Trust::parse(Some("first-seen")).unwrap(), Trust::FirstSeen);
        assert_eq!(Trust::parse(Some(&format!("{pin}, {pin}"))).unwrap(), Trust::Pinned(vec![pin.clone(), pin]));
    }
}
