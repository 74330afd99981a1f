//! The blocking half of the local store: objects as files below one root.
//!
//! Invariant: what a directory shows under an object's name is a whole object. Names that no object may have are
//! not ours: they are neither listed nor touched.

use std::fs::{self, DirEntry, File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, futimens};
use rustix::io::{Errno, pread};

use super::directories::{Directories, sync_directory};
use super::temporary::{self, Temporary};
use crate::error::{Attempt, Error};
use crate::{Listed, OBJECT_BYTES_MAX, path};

/// Why a step failed; [`Failure::of`] adds what it was a step of.
#[derive(Debug)]
pub(super) enum Failure {
    /// There is no such object.
    Absent,
    /// The object has this many bytes: more than we hold.
    TooLarge(u64),
    /// A system call failed.
    Step(&'static str, io::Error),
}

impl Failure {
    /// The error of the operation that failed.
    pub(super) fn of(self, attempt: Attempt) -> Error {
        match self {
            Self::Absent => Error::NotFound { location: attempt.location, path: attempt.path },
            Self::TooLarge(length) => Error::TooLarge { attempt, length },
            Self::Step(step, source) => Error::file(attempt, step, source),
        }
    }
}

/// Names the step that an I/O error belongs to.
pub(super) fn step(name: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::Step(name, source)
}

/// So many bytes of a file, into memory that is not made zero first: restores read all that they write.
fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = offset + bytes.len() as u64;
        match pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// What to do where an object is already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placing {
    Replacing,
    OnlyIfAbsent,
}

/// A root and what we know of its directories.
#[derive(Debug)]
pub(super) struct Tree {
    root: PathBuf,
    directories: Directories,
    /// Set once the leftovers of dead writers were swept.
    swept: OnceLock<()>,
}

impl Tree {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { directories: Directories::new(root.clone()), root, swept: OnceLock::new() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes an object durably: `false` where one was and may not be replaced.
    pub(super) fn write(&self, path: &str, bytes: &[u8], placing: Placing) -> Result<bool, Failure> {
        let length = bytes.len() as u64;
        if length > OBJECT_BYTES_MAX {
            return Err(Failure::TooLarge(length));
        }
        // After a failure nothing is taken for granted: directories are made and synced anew.
        self.try_write(path, bytes, placing).inspect_err(|_| self.directories.forget())
    }

    fn try_write(&self, path: &str, bytes: &[u8], placing: Placing) -> Result<bool, Failure> {
        let (target, directory) = (self.root.join(path), self.directory_of(path));
        self.directories.ensure(&directory)?;
        if placing == Placing::OnlyIfAbsent && target.symlink_metadata().is_ok() {
            // The other writer may still be on its way to this sync; `false` says that the object is durable.
            sync_directory(&directory)?;
            return Ok(false);
        }
        let mut file = Temporary::create(&self.temporary_directory()?)?;
        file.fill(bytes)?;
        let placed = match placing {
            Placing::Replacing => file.replace(&target).map(|()| true),
            Placing::OnlyIfAbsent => file.place(&target),
        }?;
        sync_directory(&directory).inspect_err(|_| {
            // An object whose name may vanish must not be found, and relied upon, by the next attempt.
            if placed && placing == Placing::OnlyIfAbsent {
                let _ = fs::remove_file(&target);
            }
        })?;
        Ok(placed)
    }

    fn directory_of(&self, path: &str) -> PathBuf {
        path.rsplit_once('/').map_or_else(|| self.root.clone(), |(directory, _)| self.root.join(directory))
    }

    /// The directory for temporary files, made, and swept the first time.
    fn temporary_directory(&self) -> Result<PathBuf, Failure> {
        let directory = self.root.join(path::TEMPORARY);
        self.directories.ensure(&directory)?;
        self.swept.get_or_init(|| temporary::sweep(&directory));
        Ok(directory)
    }

    /// Reads an object, or a range of it cut at its end.
    pub(super) fn read(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Failure> {
        let file = self.open(path)?;
        let metadata = file.metadata().map_err(step("reading its length"))?;
        if !metadata.is_file() {
            return Err(Failure::Absent);
        }
        let range = range.unwrap_or(0..metadata.len());
        let end = range.end.min(metadata.len());
        let length = end.saturating_sub(range.start);
        if length > OBJECT_BYTES_MAX {
            return Err(Failure::TooLarge(length));
        }
        read_at(&file, range.start, length as usize).map(Bytes::from).map_err(step("reading"))
    }

    fn open(&self, path: &str) -> Result<File, Failure> {
        // Without NONBLOCK somebody's named pipe would hold us for ever; on files it means nothing.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(self.root.join(path))
            .map_err(absent_or("opening"))
    }

    /// An object's length in bytes.
    pub(super) fn length(&self, path: &str) -> Result<Option<u64>, Failure> {
        match self.root.join(path).symlink_metadata().map_err(absent_or("looking up")) {
            Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
            Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// When an object was written, by the file system's clock.
    pub(super) fn written_ms(&self, path: &str) -> Result<Option<u64>, Failure> {
        match self.root.join(path).symlink_metadata().map_err(absent_or("looking up")) {
            Ok(metadata) if metadata.is_file() => modified_ms(&metadata).map(Some),
            Ok(_) | Err(Failure::Absent) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// What time it is for the file system, which has a clock of its own where it is another machine's: its root is touched.
    pub(super) fn clock_ms(&self) -> Result<Option<u64>, Failure> {
        const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let root = match File::open(&self.root).map_err(absent_or("opening a directory")) {
            Err(Failure::Absent) => return Ok(None),
            root => root?,
        };
        let touched = futimens(&root, &Timestamps { last_access: NOW, last_modification: NOW });
        touched.map_err(|error| Failure::Step("touching a directory", error.into()))?;
        modified_ms(&root.metadata().map_err(step("reading a time"))?).map(Some)
    }

    /// Removes an object durably. Needs no free space.
    pub(super) fn remove(&self, path: &str) -> Result<(), Failure> {
        if self.length(path)?.is_none() {
            return Ok(());
        }
        match fs::remove_file(self.root.join(path)).map_err(absent_or("removing")) {
            Ok(()) => sync_directory(&self.directory_of(path)),
            Err(Failure::Absent) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// All objects below a prefix, sorted by path.
    pub(super) fn list(&self, prefix: &str) -> Result<Vec<Listed>, Failure> {
        let directory = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut found = Vec::new();
        let mut waiting = vec![directory.to_owned()];
        while let Some(directory) = waiting.pop() {
            for entry in entries(&self.root.join(&directory))? {
                let Some(path) = object_path(&directory, &entry).filter(|path| path.starts_with(prefix)) else {
                    continue;
                };
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                if metadata.is_dir() {
                    waiting.push(path);
                } else if metadata.is_file() {
                    found.push(Listed { path, length: metadata.len() });
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

fn modified_ms(metadata: &Metadata) -> Result<u64, Failure> {
    let modified = metadata.modified().map_err(step("reading a time"))?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The path that a directory's entry has as an object, if it may be one.
fn object_path(directory: &str, entry: &DirEntry) -> Option<String> {
    let name = entry.file_name().into_string().ok()?;
    let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
    path::is_valid(&path).then_some(path)
}

/// The entries of a directory; none where there is no directory (any more).
fn entries(directory: &Path) -> Result<Vec<DirEntry>, Failure> {
    let read = || fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>();
    match read().map_err(absent_or("listing")) {
        Err(Failure::Absent) => Ok(Vec::new()),
        entries => entries,
    }
}

/// Tells errors that mean "there is no such object" from the rest.
fn absent_or(name: &'static str) -> impl FnOnce(io::Error) -> Failure {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
    move |source| match source.kind() {
        NotFound | NotADirectory | IsADirectory => Failure::Absent,
        // A symbolic link is none of ours. The kind has no stable name.
        _ if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Failure::Absent,
        _ => Failure::Step(name, source),
    }
}
