//! Directories that outlive a power cut: each is made, and its name synced in its parent, before it is used.
//!
//! Invariant: a directory is in `durable` only if its name, and those of all directories between the root and it,
//! were synced. A directory found there is synced too: who made it may have been killed before doing so.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::tree::{Failure, step};

/// The directories below one root that are known to be durable.
#[derive(Debug)]
pub(super) struct Directories {
    root: PathBuf,
    durable: Mutex<BTreeSet<PathBuf>>,
}

impl Directories {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, durable: Mutex::default() }
    }

    /// Makes a directory at or below the root exist, durably.
    pub(super) fn ensure(&self, directory: &Path) -> Result<(), Failure> {
        if self.durable().contains(directory) {
            return Ok(());
        }
        let inside = directory.starts_with(&self.root);
        if !inside && directory.is_dir() {
            // Above the root nothing is ours unless we make it.
            return Ok(());
        }
        let Some(parent) = directory.parent() else {
            return Ok(());
        };
        self.ensure(parent)?;
        let made = make(directory)?;
        match sync_directory(parent) {
            // The root's parent may be closed to us; who made the root there answers for it.
            Err(Failure::Step(_, error))
                if directory == self.root && !made && error.kind() == io::ErrorKind::PermissionDenied => {}
            outcome => outcome?,
        }
        self.durable().insert(directory.to_owned());
        Ok(())
    }

    /// Takes nothing for granted any more.
    pub(super) fn forget(&self) {
        self.durable().clear();
    }

    fn durable(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        // The set is whole whenever the lock is free, a panic elsewhere changes nothing in it.
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes one directory for our user only: `false` where it was there.
fn make(directory: &Path) -> Result<bool, Failure> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_directory(directory) => Ok(false),
        Err(error) => Err(Failure::Step("making a directory", error)),
    }
}

fn is_directory(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

/// Makes the names in a directory durable. A failure is final: a second try could succeed without cause.
pub(super) fn sync_directory(directory: &Path) -> Result<(), Failure> {
    let directory = File::open(directory).map_err(step("opening a directory"))?;
    directory.sync_all().map_err(step("syncing a directory"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn directories_are_made_down_to_the_leaf_for_our_user_only() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("deep/er/root");
        let directories = Directories::new(root.clone());
        directories.ensure(&root.join("a/b/c")).unwrap();
        for part in ["", "a", "a/b", "a/b/c"] {
            let mode = fs::metadata(root.join(part)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{part}");
        }
        assert!(directories.durable().contains(&root.join("a/b")));
        directories.forget();
        assert!(directories.durable().is_empty());
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("a"), "in the way").unwrap();
        let directories = Directories::new(scratch.path().to_owned());
        assert!(matches!(directories.ensure(&scratch.path().join("a")), Err(Failure::Step("making a directory", _))));
    }
}
