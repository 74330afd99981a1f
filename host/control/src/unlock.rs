//! Opening the keyring in the data directory: where its unlock key or passphrase comes from, and changing that.
//!
//! The sealed keyring says what opens it; `[keyring] unlock` says where to look if not there. A change replaces one file, so a stop
//! at any moment leaves a keyring that either the former or the new way opens. A key is never made where one was expected.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use holdfast_repository::{Keyring, Stretching, UnlockKey, UnlockMethod};
use zeroize::Zeroizing;

use crate::Error;
use crate::data_dir::{DataDir, read, remove, write_durably};
use crate::resources::SecretText;

/// Where the unlock key comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnlockSource {
    /// `unlock.key` in the data directory.
    #[default]
    KeyBeside,
    /// A key file elsewhere: another disk, a stick, a mounted secret.
    KeyFile(PathBuf),
    /// A systemd credential of the service.
    Credential(String),
    /// A passphrase that a file holds.
    PassphraseFile(PathBuf),
    /// A passphrase that somebody types.
    Passphrase,
}

impl FromStr for UnlockSource {
    type Err = Error;

    /// As `[keyring] unlock` says it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (kind, place) = text.split_once(':').map_or((text, None), |(kind, place)| (kind, Some(place)));
        let file = |place: &str| Path::new(place).is_absolute().then(|| PathBuf::from(place));
        let parsed = match (kind, place) {
            ("key-file", None) => Some(Self::KeyBeside),
            ("key-file", Some(place)) => file(place).map(Self::KeyFile),
            ("credential", Some(name)) if is_credential(name) => Some(Self::Credential(name.to_owned())),
            ("passphrase-file", Some(place)) => file(place).map(Self::PassphraseFile),
            ("passphrase", None) => Some(Self::Passphrase),
            _ => None,
        };
        parsed.ok_or_else(|| {
            Error::invalid("bad-unlock", format!("'{kind}' does not say in full how the keyring is unlocked"))
                .hint("It is one of: key-file, key-file:/PATH, credential:NAME, passphrase, passphrase-file:/PATH.")
        })
    }
}

impl std::fmt::Display for UnlockSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::KeyBeside => formatter.write_str("key-file"),
            Self::KeyFile(path) => write!(formatter, "key-file:{}", path.display()),
            Self::Credential(name) => write!(formatter, "credential:{name}"),
            Self::PassphraseFile(path) => write!(formatter, "passphrase-file:{}", path.display()),
            Self::Passphrase => formatter.write_str("passphrase"),
        }
    }
}

/// A name that systemd takes, and that is no path.
fn is_credential(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0'])
}

/// How a person is asked for a passphrase: with this question, without an echo.
pub type AskPassphrase = fn(&str) -> io::Result<SecretText>;

/// What the unlock key is read with.
#[derive(Clone, Debug)]
pub struct Unlocking {
    /// Where it is; `None` for what the keyring says itself.
    pub source: Option<UnlockSource>,
    /// The directory of the service's credentials (`CREDENTIALS_DIRECTORY`).
    pub credentials: Option<PathBuf>,
    /// Asks a person.
    pub ask: AskPassphrase,
}

impl Default for Unlocking {
    /// Nobody is asked anything.
    fn default() -> Self {
        Self { source: None, credentials: None, ask: |_| Err(io::Error::other("there is nobody to ask")) }
    }
}

/// A change of the unlock key. The appliance must not run meanwhile: it holds the data directory.
#[derive(Clone, Debug)]
pub struct ChangeUnlock {
    /// The appliance's own directory.
    pub data_dir: PathBuf,
    /// How the keyring is opened now.
    pub current: Unlocking,
    /// How it shall be opened.
    pub new: UnlockSource,
    /// The key that the credential holds, where the credential itself is not at hand.
    pub key_file: Option<PathBuf>,
}

/// Fewer characters are guessed, however hard each guess is made.
const PASSPHRASE_MIN: usize = 12;

/// Opens the keyring of a data directory.
pub(crate) fn open(data: &DataDir, unlocking: &Unlocking) -> Result<(Keyring, UnlockKey), Error> {
    let sealed = data.sealed_keyring()?;
    let method = UnlockMethod::of(&sealed)?;
    let source = unlocking.source.clone().unwrap_or_else(|| source_of(&method));
    let unlock = match (method, source) {
        (UnlockMethod::Passphrase(stretching), UnlockSource::Passphrase) => {
            stretching.stretch(ask(unlocking, "passphrase of the keyring")?.expose())?
        }
        (UnlockMethod::Passphrase(stretching), UnlockSource::PassphraseFile(path)) => {
            stretching.stretch(&passphrase_in(&path)?)?
        }
        (method @ (UnlockMethod::KeyFile(_) | UnlockMethod::Credential(_)), source) if is_of_keys(&source) => {
            UnlockKey::parse(&key_text(data, &source, unlocking)?, method)?
        }
        (method, source) => return Err(mismatch(&method, &source)),
    };
    Ok((Keyring::open(&sealed, &unlock)?, unlock))
}

/// The unlock key of a data directory that has no keyring yet. A key file is made; a credential or a passphrase must be there.
pub(crate) fn begin(data: &DataDir, unlocking: &Unlocking) -> Result<UnlockKey, Error> {
    let source = unlocking.source.clone().unwrap_or_default();
    match key_path(data, &source) {
        Some(path) => key_in_or_made(&path, method_of(&source)),
        None => chosen(data, &source, unlocking),
    }
}

/// The unlock key beside a keyring that is about to be written for the first time.
pub(crate) fn begin_beside(data: &DataDir) -> Result<UnlockKey, Error> {
    key_in_or_made(&data.unlock_key(), UnlockMethod::default())
}

/// Seals the keyring of a data directory anew. What is left to be said about it.
pub fn change_unlock(request: &ChangeUnlock) -> Result<Vec<String>, Error> {
    let data = DataDir::open_existing(&request.data_dir)?;
    let (keyring, former) = open(&data, &request.current)?;
    let unlock = match (&request.new, &request.key_file, key_path(&data, &request.new)) {
        (_, _, Some(path)) => key_in_or_made(&path, method_of(&request.new))?,
        (UnlockSource::Credential(_), Some(path), None) => UnlockKey::parse(&text_of(path)?, method_of(&request.new))?,
        _ => chosen(&data, &request.new, &request.current)?,
    };
    data.write_keyring(&keyring, &unlock)?; // From here on the new way opens it, and no other.
    let mut notes = Vec::new();
    let beside = data.unlock_key();
    if !matches!(request.new, UnlockSource::KeyBeside) && beside.exists() {
        if unlock.is_same_key(&former) {
            notes.push(format!(
                "{} holds this very key: remove it once a start in the new way succeeded",
                beside.display()
            ));
        } else {
            remove(&beside)?;
            notes.push(format!("{} opened the former keyring and is removed", beside.display()));
        }
    }
    notes.push(
        "copies of the data directory from before this change still open in the former way: remove them".to_owned(),
    );
    Ok(notes)
}

/// Where a keyring says that its unlock key is.
fn source_of(method: &UnlockMethod) -> UnlockSource {
    match method {
        UnlockMethod::KeyFile(None) => UnlockSource::KeyBeside,
        UnlockMethod::KeyFile(Some(path)) => UnlockSource::KeyFile(path.into()),
        UnlockMethod::Credential(name) => UnlockSource::Credential(name.clone()),
        UnlockMethod::Passphrase(_) => UnlockSource::Passphrase,
    }
}

/// How a keyring shall say it; a passphrase gets a new salt.
fn method_of(source: &UnlockSource) -> UnlockMethod {
    match source {
        UnlockSource::KeyBeside => UnlockMethod::KeyFile(None),
        UnlockSource::KeyFile(path) => UnlockMethod::KeyFile(Some(path.display().to_string())),
        UnlockSource::Credential(name) => UnlockMethod::Credential(name.clone()),
        UnlockSource::PassphraseFile(_) | UnlockSource::Passphrase => UnlockMethod::Passphrase(Stretching::generate()),
    }
}

fn is_of_keys(source: &UnlockSource) -> bool {
    !matches!(source, UnlockSource::PassphraseFile(_) | UnlockSource::Passphrase)
}

/// The file of a key that is ours to make.
fn key_path(data: &DataDir, source: &UnlockSource) -> Option<PathBuf> {
    match source {
        UnlockSource::KeyBeside => Some(data.unlock_key()),
        UnlockSource::KeyFile(path) => Some(path.clone()),
        UnlockSource::Credential(_) | UnlockSource::PassphraseFile(_) | UnlockSource::Passphrase => None,
    }
}

fn key_text(data: &DataDir, source: &UnlockSource, unlocking: &Unlocking) -> Result<Zeroizing<String>, Error> {
    match (key_path(data, source), source) {
        (Some(path), _) => text_of(&path),
        (None, UnlockSource::Credential(name)) => credential(name, unlocking),
        (None, source) => Err(mismatch(&UnlockMethod::default(), source)),
    }
}

/// What somebody chose: the key of a credential, or a passphrase that is worth its name.
fn chosen(data: &DataDir, source: &UnlockSource, unlocking: &Unlocking) -> Result<UnlockKey, Error> {
    let passphrase = match source {
        UnlockSource::PassphraseFile(path) => SecretText::from(passphrase_in(path)?.to_string()),
        UnlockSource::Passphrase => asked_twice(unlocking)?,
        keys => return Ok(UnlockKey::parse(&key_text(data, keys, unlocking)?, method_of(keys))?),
    };
    if passphrase.expose().chars().count() < PASSPHRASE_MIN {
        return Err(Error::invalid(
            "short-passphrase",
            format!("the passphrase has fewer than {PASSPHRASE_MIN} characters"),
        )
        .hint("Take several words at random; spaces between them count."));
    }
    Ok(Stretching::generate().stretch(passphrase.expose())?)
}

fn asked_twice(unlocking: &Unlocking) -> Result<SecretText, Error> {
    let passphrase = ask(unlocking, "new passphrase of the keyring")?;
    let again = ask(unlocking, "the same again")?;
    if passphrase.expose() == again.expose() {
        return Ok(passphrase);
    }
    Err(Error::invalid("passphrases-differ", "the two passphrases are not the same").hint("Type the same one twice."))
}

fn ask(unlocking: &Unlocking, question: &str) -> Result<SecretText, Error> {
    (unlocking.ask)(question).map_err(|error| {
        Error::invalid("no-passphrase", format!("asking for the {question} failed: {error}"))
            .hint("Run it on a terminal, or name a file that holds the passphrase with --passphrase-file or `[keyring] unlock`.")
    })
}

fn passphrase_in(path: &Path) -> Result<Zeroizing<String>, Error> {
    let text = text_of(path)?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// The key that is in a file, or one that is written there now: before anything is sealed with it.
fn key_in_or_made(path: &Path, method: UnlockMethod) -> Result<UnlockKey, Error> {
    if path.exists() {
        return Ok(UnlockKey::parse(&text_of(path)?, method)?);
    }
    let key = UnlockKey::generate(method);
    write_durably(path, key.to_text().as_bytes())?;
    Ok(key)
}

fn credential(name: &str, unlocking: &Unlocking) -> Result<Zeroizing<String>, Error> {
    let directory = unlocking.credentials.as_ref().ok_or_else(|| {
        Error::unprocessable("no-credentials", format!("this process was given no credentials, {name} not among them"))
            .hint(format!("Start it by systemd, with LoadCredentialEncrypted={name} in the service's unit; `systemd-creds encrypt` makes the file."))
    })?;
    text_of(&directory.join(name))
}

fn text_of(path: &Path) -> Result<Zeroizing<String>, Error> {
    let bytes = Zeroizing::new(read(path).map_err(|error| {
        error.hint("It opens the keyring. Put it back, or run `holdfast recover` into a new data directory with a recovery kit.")
    })?);
    let text = std::str::from_utf8(&bytes);
    let text = text.map_err(|_| Error::invalid("bad-unlock-key", format!("{} is not text", path.display())))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn mismatch(method: &UnlockMethod, source: &UnlockSource) -> Error {
    let sealed = match method {
        UnlockMethod::KeyFile(_) | UnlockMethod::Credential(_) => "a key",
        UnlockMethod::Passphrase(_) => "a passphrase",
    };
    Error::conflict("other-unlock", format!("the keyring opens with {sealed}, and '{source}' was said")).hint(
        "Correct `[keyring] unlock` in holdfast.toml, or change how the keyring opens: holdfast key unlock --help",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody_answers(_: &str) -> io::Result<SecretText> {
        Ok("correct horse battery staple".to_owned().into())
    }

    struct Place {
        parent: tempfile::TempDir,
    }

    impl Place {
        /// A data directory whose keyring opens by the key beside it.
        fn new() -> Self {
            let place = Self { parent: tempfile::tempdir().unwrap() };
            let data = place.data();
            let unlock = begin(&data, &place.unlocking(None)).unwrap();
            data.write_keyring(&Keyring::generate(), &unlock).unwrap();
            place
        }

        fn data(&self) -> DataDir {
            DataDir::open(&self.path("data")).unwrap()
        }

        fn path(&self, name: &str) -> PathBuf {
            self.parent.path().join(name)
        }

        fn unlocking(&self, source: Option<UnlockSource>) -> Unlocking {
            Unlocking { source, credentials: Some(self.path("credentials")), ..Unlocking::default() }
        }

        fn change(&self, new: UnlockSource, key_file: Option<PathBuf>) -> Result<Vec<String>, Error> {
            let current = Unlocking { ask: somebody_answers, ..self.unlocking(None) };
            change_unlock(&ChangeUnlock { data_dir: self.path("data"), current, new, key_file })
        }

        fn open(&self, source: Option<UnlockSource>) -> Result<u64, Error> {
            open(&self.data(), &self.unlocking(source)).map(|(keyring, _)| keyring.generation())
        }
    }

    #[test]
    fn a_keyring_finds_its_own_key_after_every_change() {
        let place = Place::new();
        let stick = place.path("stick.key");
        place.change(UnlockSource::KeyFile(stick.clone()), None).unwrap();
        assert!(!place.path("data/unlock.key").exists() && stick.exists());
        place.open(None).unwrap();

        // Another mount point: the configuration says where.
        #[allow(clippy::disallowed_methods)] // Nothing here is to survive a power cut.
        std::fs::rename(&stick, place.path("moved.key")).unwrap();
        assert_eq!(place.open(None).unwrap_err().code, "file-failed");
        assert!(!stick.exists(), "no key is made where one was expected");
        place.open(Some(UnlockSource::KeyFile(place.path("moved.key")))).unwrap();
    }

    #[test]
    fn a_passphrase_is_asked_for_or_read() {
        let place = Place::new();
        place.change(UnlockSource::Passphrase, None).unwrap();
        assert!(!place.path("data/unlock.key").exists());
        let error = place.open(None).unwrap_err();
        assert!(error.code == "no-passphrase" && error.hint.unwrap().contains("--passphrase-file"));
        let file = place.path("passphrase");
        std::fs::write(&file, "correct horse battery staple\n").unwrap();
        place.open(Some(UnlockSource::PassphraseFile(file.clone()))).unwrap();
        std::fs::write(&file, "correct horse battery stable\n").unwrap();
        let error = place.open(Some(UnlockSource::PassphraseFile(file))).unwrap_err();
        assert!(error.code == "wrong-passphrase" && error.hint.is_some());
        assert_eq!(place.open(Some(UnlockSource::KeyBeside)).unwrap_err().code, "other-unlock");
        assert!(!place.path("data/unlock.key").exists());
    }

    #[test]
    fn a_credential_is_the_key_that_was_encrypted_for_it() {
        let place = Place::new();
        let beside = place.path("data/unlock.key");
        let notes = place.change(UnlockSource::Credential("holdfast".to_owned()), Some(beside.clone())).unwrap();
        assert!(notes[0].contains("this very key") && beside.exists());
        std::fs::create_dir(place.path("credentials")).unwrap();
        std::fs::copy(&beside, place.path("credentials/holdfast")).unwrap();
        std::fs::remove_file(&beside).unwrap();
        place.open(None).unwrap();
        let nothing = Unlocking { credentials: None, ..place.unlocking(None) };
        assert_eq!(open(&place.data(), &nothing).unwrap_err().code, "no-credentials");
    }

    #[test]
    fn a_short_passphrase_changes_nothing() {
        let place = Place::new();
        let file = place.path("passphrase");
        std::fs::write(&file, "secret\n").unwrap();
        let error = place.change(UnlockSource::PassphraseFile(file), None).unwrap_err();
        assert_eq!(error.code, "short-passphrase");
        place.open(None).unwrap();
    }

    #[test]
    fn a_running_appliance_keeps_its_key() {
        let place = Place::new();
        let _held = place.data();
        assert_eq!(place.change(UnlockSource::Passphrase, None).unwrap_err().code, "data-directory-in-use");
    }

    #[test]
    fn sources_are_written_as_they_are_read() {
        for text in ["key-file", "key-file:/a/b", "credential:holdfast", "passphrase", "passphrase-file:/a/b"] {
            assert_eq!(text.parse::<UnlockSource>().unwrap().to_string(), text);
        }
        for text in ["", "key", "key-file:relative", "credential:", "credential:../x", "passphrase:hunter2", "tpm:1"] {
            assert_eq!(text.parse::<UnlockSource>().unwrap_err().code, "bad-unlock", "{text}");
        }
    }
}
