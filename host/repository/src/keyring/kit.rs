//! The recovery kit: an age identity file whose comment lines pin what it is for. The standard `age` tool takes it too.

use std::fmt::Write as _;

use age::secrecy::ExposeSecret;
use zeroize::Zeroizing;

use super::{Keyring, VerifyKey};
use crate::{Error, RepositoryId};

/// An age identity file whose comment lines pin the repository, its verify key and its targets.
#[derive(Clone)]
pub struct RecoveryKit {
    identity: age::x25519::Identity,
    pin: Option<(RepositoryId, VerifyKey)>,
    targets: Vec<String>,
}

impl std::fmt::Debug for RecoveryKit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RecoveryKit").field("recipient", &self.recipient()).finish_non_exhaustive()
    }
}

const REPOSITORY: &str = "repository";
const VERIFY_KEY: &str = "verify-key";
const TARGET: &str = "target";
const SECRET: &str = "AGE-SECRET-KEY-1";
/// A keyring of thousands of organizations is far smaller.
const KEYRING_MAX: u64 = 16 << 20;

impl RecoveryKit {
    /// A new identity, not pinned yet.
    pub fn generate() -> Self {
        Self { identity: age::x25519::Identity::generate(), pin: None, targets: Vec::new() }
    }

    /// Pins it. `targets` are lines like `there s3://bucket/prefix?endpoint=…`.
    pub fn pin(&mut self, repository: RepositoryId, verify_key: VerifyKey, targets: Vec<String>) {
        self.pin = Some((repository, verify_key));
        self.targets = targets;
    }

    /// Reads its text form. Comment lines that are not ours are passed over, as `age` does.
    ///
    /// Errors: no identity in it, or more than one; a pin that is cut or malformed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::InvalidKit { reason };
        let (mut identity, mut repository, mut verify_key, mut targets) = (None, None, None, Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let Some(comment) = line.strip_prefix('#') else {
                if !line.starts_with(SECRET) {
                    return Err(invalid("a line is neither a comment nor an age identity"));
                }
                let parsed = line.parse().map_err(|_| invalid("the age identity is malformed"))?;
                if identity.replace(parsed).is_some() {
                    return Err(invalid("it holds more than one age identity"));
                }
                continue;
            };
            match comment.split_once(':').map(|(key, value)| (key.trim(), value.trim())) {
                Some((REPOSITORY, id)) => {
                    repository = Some(id.parse().map_err(|_| invalid("the repository id is malformed"))?);
                }
                Some((VERIFY_KEY, key)) => {
                    let mut bytes = [0; 32];
                    hex::decode_to_slice(key, &mut bytes).map_err(|_| invalid("the verify key is malformed"))?;
                    verify_key = Some(VerifyKey(bytes));
                }
                Some((TARGET, target)) => targets.push(target.to_owned()),
                _ => {}
            }
        }
        let identity = identity.ok_or(invalid("it holds no age identity"))?;
        let pin = match (repository, verify_key) {
            (Some(repository), Some(verify_key)) => Some((repository, verify_key)),
            (None, None) => None,
            _ => return Err(invalid("the repository and the verify key are pinned together or not at all")),
        };
        Ok(Self { identity, pin, targets })
    }

    /// The text that is kept offline.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(4096));
        if let Some((repository, verify_key)) = self.pin {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# {REPOSITORY}: {repository}\n# {VERIFY_KEY}: {verify_key}");
        }
        for target in &self.targets {
            let _ = writeln!(text, "# {TARGET}: {target}");
        }
        let secret = self.identity.to_string();
        let _ = writeln!(text, "# public key: {}\n{}", self.identity.to_public(), secret.expose_secret());
        text
    }

    /// The public half, `age1...`.
    pub fn recipient(&self) -> String {
        self.identity.to_public().to_string()
    }

    /// The repository that it is for.
    pub fn repository(&self) -> Option<RepositoryId> {
        self.pin.map(|(repository, _)| repository)
    }

    /// The verify key that the repository had when the kit was made.
    pub fn verify_key(&self) -> Option<VerifyKey> {
        self.pin.map(|(_, verify_key)| verify_key)
    }

    /// Where the repository was kept when the kit was made: lines of site and URL.
    pub fn targets(&self) -> &[String] {
        &self.targets
    }

    /// Opens a sealed keyring, to try a new kit. Says nothing about who sealed it.
    pub fn open_keyring(&self, sealed: &[u8]) -> Result<Keyring, Error> {
        Keyring::decode(&self.open(sealed)?)
    }

    /// Opens an age file.
    pub(crate) fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        use std::io::Read as _;
        let malformed = || Error::damaged("the sealed keyring")(crate::Malformed("it is no sound age file"));
        let decryptor = age::Decryptor::new_buffered(sealed).map_err(|_| malformed())?;
        let identity: &dyn age::Identity = &self.identity;
        let reader = decryptor.decrypt(std::iter::once(identity)).map_err(|error| match error {
            age::DecryptError::NoMatchingKeys => Error::WrongIdentity { recipient: self.recipient() },
            _ => malformed(),
        })?;
        let mut plaintext = Zeroizing::new(Vec::with_capacity(sealed.len()));
        reader.take(KEYRING_MAX).read_to_end(&mut plaintext).map_err(|_| malformed())?;
        Ok(plaintext)
    }
}

/// Parses the public half of an age identity.
pub(super) fn parse_recipient(text: &str) -> Result<age::x25519::Recipient, Error> {
    text.parse().map_err(|_| Error::InvalidRecipient { text: text.to_owned() })
}

/// The keyring as an age file for all its recipients; `None` where it has none.
pub(super) fn seal_for_recipients(keyring: &Keyring) -> Result<Option<Vec<u8>>, Error> {
    let recipients = &keyring.stored.recipients;
    if recipients.is_empty() {
        return Ok(None);
    }
    seal_for(recipients.iter().map(|one| one.recipient.as_str()), &keyring.encode()).map(Some)
}

/// An age file for these recipients, at least one.
pub(crate) fn seal_for<'r>(recipients: impl Iterator<Item = &'r str>, plaintext: &[u8]) -> Result<Vec<u8>, Error> {
    use std::io::Write as _;
    let parsed: Vec<_> = recipients.map(parse_recipient).collect::<Result<_, _>>()?;
    let encryptor = age::Encryptor::with_recipients(parsed.iter().map(|recipient| recipient as &dyn age::Recipient))
        .map_err(|_| Error::UnusableKey)?;
    let mut sealed = Vec::new();
    let written = encryptor.wrap_output(&mut sealed).and_then(|mut output| {
        output.write_all(plaintext)?;
        output.finish()
    });
    written.map_err(|_| Error::UnusableKey)?;
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned() -> RecoveryKit {
        let mut kit = RecoveryKit::generate();
        kit.pin(RepositoryId([1; 16]), VerifyKey([2; 32]), vec!["there s3://bucket/prefix?a=b".into()]);
        kit
    }

    #[test]
    fn a_kit_keeps_its_pin_in_comment_lines() {
        let kit = pinned();
        let text = kit.to_text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], format!("# repository: {}", "01".repeat(16)));
        assert_eq!(lines[1], format!("# verify-key: {}", "02".repeat(32)));
        assert_eq!(lines[2], "# target: there s3://bucket/prefix?a=b");
        assert_eq!(lines[3], format!("# public key: {}", kit.recipient()));
        assert!(lines[4].starts_with(SECRET) && lines.len() == 5);
        let read = RecoveryKit::parse(&text.replace('\n', "\r\n")).unwrap();
        assert_eq!(*read.to_text(), *text);
        assert_eq!((read.repository(), read.verify_key()), (kit.repository(), kit.verify_key()));
        assert!(!format!("{kit:?}").contains(SECRET));
    }

    #[test]
    fn other_identity_files_are_taken_and_broken_ones_refused() {
        let kit = RecoveryKit::generate();
        let secret = kit.to_text().lines().last().unwrap().to_owned();
        let foreign = format!("# created: 2026-11-20T10:00:00Z\n# public key: x\n{secret}\n");
        assert!(RecoveryKit::parse(&foreign).unwrap().repository().is_none());
        for text in [
            String::new(),
            "# repository: 00".into(),
            format!("{secret}\n{secret}"),
            format!("{}x", secret),
            format!("# verify-key: {}\n{secret}", "02".repeat(32)),
            format!("# repository: zz\n{secret}"),
            "-----BEGIN PRIVATE KEY-----".into(),
        ] {
            assert_eq!(RecoveryKit::parse(&text).unwrap_err().code(), "invalid-kit", "{text}");
        }
    }

    #[test]
    fn a_sealed_keyring_opens_for_its_recipients_alone() {
        let (alice, bob, eve) = (RecoveryKit::generate(), RecoveryKit::generate(), RecoveryKit::generate());
        let keyring = Keyring::generate();
        assert!(seal_for_recipients(&keyring).unwrap().is_none());
        let keyring = keyring.with_recipient("alice", &alice.recipient(), 1).unwrap();
        let keyring = keyring.with_recipient("bob", &bob.recipient(), 2).unwrap();
        let sealed = seal_for_recipients(&keyring).unwrap().unwrap();
        for kit in [&alice, &bob] {
            assert_eq!(*kit.open_keyring(&sealed).unwrap().encode(), *keyring.encode());
        }
        let error = eve.open_keyring(&sealed).unwrap_err();
        assert!(error.code() == "wrong-identity" && error.hint().is_some());
        for length in [0, 10, sealed.len() / 2, sealed.len() - 1] {
            assert_eq!(alice.open_keyring(&sealed[..length]).unwrap_err().code(), "damaged-object");
        }
    }
}
