//! Files on their way to a name: written and synced in `tmp/`, then renamed.
//!
//! A writer holds a lock on its temporary file from creation to rename; the kernel drops it with the process. So
//! a file with our pattern that can be locked has no living writer, whatever process, container or machine's uptime
//! it came from, and only such a file is swept. On a file system without locks nothing is swept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::tree::{Failure, step};
use crate::random;

/// How our temporary files' names begin; 32 random hex digits follow.
const PREFIX: &str = "write-";

/// A temporary file, removed when dropped unless it got a name.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    named: bool,
}

impl Temporary {
    /// Makes an empty temporary file, readable by our user only.
    pub(super) fn create(directory: &Path) -> Result<Self, Failure> {
        loop {
            let path = directory.join(format!("{PREFIX}{}", random::name()));
            let file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .map_err(step("making a temporary file"))?;
            let temporary = Self { path, file, named: false };
            // Between the two calls a sweep may have taken the file for a dead writer's: then it gets another.
            if temporary.lock().map_err(step("locking a temporary file"))? {
                return Ok(temporary);
            }
        }
    }

    /// Keeps sweeps away: `false` where one was faster.
    fn lock(&self) -> io::Result<bool> {
        match flock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => Ok(false),
            // Without locks nobody sweeps, and nothing is lost but tidiness.
            Err(_) | Ok(()) => Ok(self.file.metadata()?.nlink() > 0),
        }
    }

    /// Writes the bytes and makes them durable.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(step("writing"))?;
        self.file.sync_data().map_err(step("syncing"))
    }

    /// Gives the file its name, replacing what had it.
    #[allow(clippy::disallowed_methods)] // The caller syncs the directory.
    pub(super) fn replace(mut self, target: &Path) -> Result<(), Failure> {
        fs::rename(&self.path, target).map_err(step("renaming"))?;
        self.named = true;
        Ok(())
    }

    /// Gives the file its name unless something has it: `false` then.
    pub(super) fn place(mut self, target: &Path) -> Result<bool, Failure> {
        match renameat_with(CWD, &self.path, CWD, target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.named = true;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            // Not every file system knows the flag; a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => self.link(target),
            Err(error) => Err(Failure::Step("renaming", error.into())),
        }
    }

    /// Gives the file a second name unless something has it; dropping takes the first one away.
    fn link(&self, target: &Path) -> Result<bool, Failure> {
        match fs::hard_link(&self.path, target) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(Failure::Step("linking", error)),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.named {
            // What stays behind is swept by the next writer.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes what dead writers left. Never fails: leftovers are harmless, and a full disk must not stop the rest.
pub(super) fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_ours) && remove_if_abandoned(&entry.path()) {
            tracing::debug!(file = %entry.path().display(), "removed a temporary file that a dead writer left");
        }
    }
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Removes the file if nobody holds its lock.
fn remove_if_abandoned(path: &Path) -> bool {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let Ok(file) = OpenOptions::new().write(true).custom_flags(flags.bits() as i32).open(path) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_without_a_name_it_is_gone() {
        let scratch = tempfile::tempdir().unwrap();
        let mut file = Temporary::create(scratch.path()).unwrap();
        file.fill(b"half a pack").unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
        drop(file);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_sweep_takes_dead_writers_files_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let living = Temporary::create(scratch.path()).unwrap();
        let dead = scratch.path().join(format!("{PREFIX}{}", random::name()));
        let foreign = scratch.path().join("write-notes.txt");
        fs::write(&dead, "left behind").unwrap();
        fs::write(&foreign, "somebody's").unwrap();
        sweep(scratch.path());
        assert!(!dead.exists());
        assert!(foreign.exists());
        assert!(living.path.exists());
    }

    #[test]
    fn neither_way_of_placing_replaces() {
        let scratch = tempfile::tempdir().unwrap();
        let filled = |bytes: &[u8]| {
            let mut file = Temporary::create(scratch.path()).unwrap();
            file.fill(bytes).unwrap();
            file
        };
        let (renamed, linked) = (scratch.path().join("renamed"), scratch.path().join("linked"));
        assert!(filled(b"first").place(&renamed).unwrap());
        assert!(!filled(b"second").place(&renamed).unwrap());
        assert!(filled(b"first").link(&linked).unwrap());
        assert!(!filled(b"second").link(&linked).unwrap());
        assert_eq!(fs::read(&renamed).unwrap(), b"first");
        assert_eq!(fs::read(&linked).unwrap(), b"first");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2);
    }
}
