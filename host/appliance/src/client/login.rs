//! What `holdfast login` remembers: `~/.config/holdfast/login.json`, for its owner alone.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Token, Trust};
use crate::cli::Failure;

/// How to reach an appliance elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Such as `https://backup.example.org:7443`.
    pub url: String,
    /// Of its certificate; without it authorities vouch.
    pub fingerprint: Option<String>,
    /// What it knows us by.
    pub token: Token,
}

impl Login {
    /// What was saved, if anything was.
    pub fn load() -> Result<Option<Self>, Failure> {
        match path() {
            Some(path) => read(&path),
            None => Ok(None),
        }
    }

    /// Saves it, and says where.
    pub fn save(&self) -> Result<PathBuf, Failure> {
        let path =
            path().ok_or_else(|| Failure::failed("there is no home directory").hint("Set HOME or XDG_CONFIG_HOME."))?;
        write(&path, self).map_err(|error| Failure::failed(format!("writing {} failed: {error}", path.display())))?;
        Ok(path)
    }

    /// Whom to trust there.
    pub fn trust(&self) -> Result<Trust, Failure> {
        match &self.fingerprint {
            Some(text) => Ok(Trust::Pinned(text.parse().map_err(Failure::failed)?)),
            None => Ok(Trust::Authorities(None)),
        }
    }
}

fn path() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let configuration = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")))?;
    Some(configuration.join("holdfast/login.json"))
}

fn read(path: &Path) -> Result<Option<Login>, Failure> {
    let unusable = |reason: String| {
        Failure::failed(format!("{} is not usable: {reason}", path.display())).hint("Log in again: holdfast login URL")
    };
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unusable(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(error.to_string())),
    }
}

#[allow(clippy::disallowed_methods)] // Losing the file costs a login.
fn write(path: &Path, login: &Login) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let temporary = path.with_extension("new");
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(login)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_login_is_read_as_it_was_saved_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("holdfast/login.json");
        assert_eq!(read(&path).unwrap(), None);
        let fingerprint = Some(format!("sha256:{}", "0".repeat(64)));
        let login = Login { url: "https://localhost:7443".to_owned(), fingerprint, token: Token::new("abc").unwrap() };
        write(&path, &login).unwrap();
        write(&path, &login).unwrap();
        assert_eq!(read(&path).unwrap(), Some(login));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
