//! The appliance's own directory: what lies where, who may hold it (one process), and its secret files.
//!
//! ```text
//! lock           held while an appliance runs        unlock.key   opens the keyring (0600), unless something else does
//! keyring        every long-lived secret, sealed     catalog.db   SQLite
//! admin-token    made once (0600)                    repository/  the primary target by default
//! plugins/       installed components, DIGEST.wasm   cache/       compiled code, authenticated
//! ```

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind as IoKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use holdfast_repository::{Digest, Keyring, UnlockKey};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

use crate::Error;

/// What would mean something else in a URL's path.
const NOT_IN_URLS: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// An open data directory. Dropping it lets another process open it.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Opens the directory, making it (0700) where it is absent.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        make_directory(path)?;
        let path = path.canonicalize().map_err(|e| Error::file("finding", path, e))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| Error::file("opening", &lock_path, e))?;
        lock.try_lock().map_err(|_| {
            Error::conflict("data-directory-in-use", format!("another appliance runs on {}", path.display()))
                .hint("Stop it first, or give this one a data directory of its own with --data-dir.")
        })?;
        Ok(Self { path, _lock: lock })
    }

    /// Opens a directory that must be absent or empty, for an appliance that is born again.
    pub(crate) fn create(path: &Path) -> Result<Self, Error> {
        if path.exists() && !is_empty(path)? {
            return Err(Error::conflict("data-directory-not-empty", format!("{} is not empty", path.display()))
                .hint("Recover into a new directory; nothing was changed in this one."));
        }
        Self::open(path)
    }

    /// Opens the directory of an appliance that was started before.
    pub(crate) fn open_existing(path: &Path) -> Result<Self, Error> {
        if !path.join("keyring").exists() {
            return Err(Error::not_found("no-keyring", format!("there is no keyring in {}", path.display()))
                .hint("Name the appliance's data directory with --data-dir or HOLDFAST_DATA_DIR."));
        }
        Self::open(path)
    }

    pub(crate) fn catalog(&self) -> PathBuf {
        self.path.join("catalog.db")
    }

    pub(crate) fn compiled_code(&self) -> PathBuf {
        self.path.join("cache")
    }

    /// What was read of the indexes at a target: a cache.
    pub(crate) fn index_cache(&self, target_uid: &str) -> PathBuf {
        self.path.join("indexes").join(target_uid)
    }

    pub(crate) fn remove_index_cache(&self, target_uid: &str) -> Result<(), Error> {
        let path = self.index_cache(target_uid);
        match std::fs::remove_dir_all(&path) {
            Err(error) if error.kind() != IoKind::NotFound => Err(Error::file("removing", &path, error)),
            _ => Ok(()),
        }
    }

    /// URL of the primary target unless the configuration names another.
    pub(crate) fn default_primary(&self) -> String {
        let path = self.path.join("repository");
        format!("file://{}", percent_encode(path.as_os_str().as_bytes(), NOT_IN_URLS))
    }

    /// Whether the default primary is there.
    pub(crate) fn has_repository(&self) -> bool {
        self.path.join("repository/repository.json").exists()
    }

    pub(crate) fn has_keyring(&self) -> bool {
        self.path.join("keyring").exists()
    }

    /// The sealed keyring.
    pub(crate) fn sealed_keyring(&self) -> Result<Vec<u8>, Error> {
        read(&self.path.join("keyring"))
    }

    /// Where the unlock key lies unless somebody wants it elsewhere.
    pub(crate) fn unlock_key(&self) -> PathBuf {
        self.path.join("unlock.key")
    }

    /// Replaces the sealed keyring.
    pub(crate) fn write_keyring(&self, keyring: &Keyring, unlock: &UnlockKey) -> Result<(), Error> {
        write_durably(&self.path.join("keyring"), &keyring.seal(unlock))
    }

    /// Makes an installed component durable.
    pub(crate) fn write_component(&self, digest: Digest, component: &[u8]) -> Result<(), Error> {
        make_directory(&self.components())?;
        sync_directory(&self.path)?;
        write_durably(&self.component(digest), component)
    }

    pub(crate) fn read_component(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        read(&self.component(digest))
    }

    /// Removes an installed component, if it is there.
    pub(crate) fn remove_component(&self, digest: Digest) -> Result<(), Error> {
        remove(&self.component(digest))
    }

    /// Removes every component but these: what a crash left between a component and its row.
    pub(crate) fn keep_components(&self, kept: &BTreeSet<Digest>) -> Result<(), Error> {
        let directory = self.components();
        let kept: BTreeSet<PathBuf> = kept.iter().map(|digest| self.component(*digest)).collect();
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == IoKind::NotFound => return Ok(()),
            entries => entries.map_err(|e| Error::file("listing", &directory, e))?,
        };
        for entry in entries {
            let path = entry.map_err(|e| Error::file("listing", &directory, e))?.path();
            if !kept.contains(&path) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn components(&self) -> PathBuf {
        self.path.join("plugins")
    }

    fn component(&self, digest: Digest) -> PathBuf {
        self.components().join(format!("{digest}.wasm"))
    }

    pub(crate) fn admin_token_path(&self) -> PathBuf {
        self.path.join("admin-token")
    }

    /// Writes the admin token for its first reader.
    pub(crate) fn write_admin_token(&self, token: &str) -> Result<(), Error> {
        write_durably(&self.admin_token_path(), format!("{token}\n").as_bytes())
    }
}

/// Whether nothing but `lost+found` lies in a directory.
pub(crate) fn is_empty(path: &Path) -> Result<bool, Error> {
    let entries = std::fs::read_dir(path).map_err(|e| Error::file("listing", path, e))?;
    for entry in entries {
        if entry.map_err(|e| Error::file("listing", path, e))?.file_name() != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a directory and its parents, readable by its owner only.
pub(crate) fn make_directory(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| Error::file("making", path, e))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != IoKind::NotFound => Err(Error::file("removing", path, error)),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|e| Error::file("syncing", path, e))
}

/// Reads a file of ours.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error::file("reading", path, e))
}

/// Temporary file (0600), fsync, rename, fsync of the directory: either the old file is there or the new one, whole.
#[allow(clippy::disallowed_methods)] // The rename is made durable here.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        if let Err(error) = std::fs::remove_file(&temporary)
            && error.kind() != IoKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(|e| Error::file("writing", path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_data_directory() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        let held = DataDir::open(&path).unwrap();
        assert_eq!(DataDir::open(&path).unwrap_err().code, "data-directory-in-use");
        drop(held);
        assert!(DataDir::open(&path).is_ok());
    }

    #[tokio::test]
    async fn the_default_primary_lies_in_the_data_directory_whatever_its_name() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a b%41?c#é");
        let data = DataDir::open(&path).unwrap();
        let storage = holdfast_storage::open(&data.default_primary(), &Default::default()).unwrap();
        storage.put("probe", "x".into()).await.unwrap();
        assert!(path.join("repository/probe").exists());
    }

    #[test]
    fn components_that_are_not_installed_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let data = DataDir::open(parent.path()).unwrap();
        let [kept, left] = [&b"kept"[..], b"left by a crash"].map(|component| {
            let digest = Digest::of(component);
            data.write_component(digest, component).unwrap();
            digest
        });
        std::fs::write(parent.path().join("plugins/half.new"), "x").unwrap();
        data.keep_components(&BTreeSet::from([kept])).unwrap();
        assert_eq!(data.read_component(kept).unwrap(), b"kept");
        assert_eq!(std::fs::read_dir(parent.path().join("plugins")).unwrap().count(), 1);
        data.remove_component(left).unwrap();
    }

    #[test]
    fn a_reborn_appliance_wants_an_empty_directory() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::write(parent.path().join("precious"), "x").unwrap();
        assert_eq!(DataDir::create(parent.path()).unwrap_err().code, "data-directory-not-empty");
        assert!(!parent.path().join("lock").exists());
    }
}
