//! Where runs lie: in a directory that one process has at a time, so that the next one need not read everything again; or, where
//! there is none or somebody else has it, in temporary files without a name, which go with the process.
//!
//! A run gets its name when it is complete. What lies there beside complete runs of one key is what a kill left behind, and is removed.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Record;
use super::run::{Run, Writer};
use crate::Error;
use crate::seal::{Secret, random};

/// The file that whoever has the directory keeps locked.
const LOCK: &str = "lock";

/// Keeps the runs of one kind and domain.
#[derive(Debug)]
pub(crate) struct Cache {
    directory: Option<Directory>,
    key: Secret,
}

/// Runs with their names.
type Runs<R> = Vec<(Run<R>, <R as Record>::Names)>;

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Cache {
    /// The cache in a directory, which is made if need be; a temporary one without.
    pub(crate) fn open(directory: Option<&Path>, key: Secret) -> Result<Self, Error> {
        let directory = match directory {
            Some(path) => Directory::lock(path).map_err(failed("opening"))?,
            None => None,
        };
        Ok(Self { directory, key })
    }

    /// The complete runs that lie there, the longest first. Everything else is removed.
    pub(crate) fn runs<R: Record>(&self) -> Result<Runs<R>, Error> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let mut runs: Runs<R> = directory.runs(&self.key).map_err(failed("opening"))?;
        runs.sort_unstable_by_key(|(run, _)| std::cmp::Reverse(run.count));
        Ok(runs)
    }

    /// Writes a run of at most so many records, which come in order.
    pub(crate) fn write<R: Record>(
        &self,
        names: &R::Names,
        records: usize,
        all: impl Iterator<Item = Result<R, Error>>,
    ) -> Result<Run<R>, Error> {
        let path = self.directory.as_ref().map(|directory| directory.path.join(hex::encode(random::<16>())));
        let unfinished = path.as_ref().map(|path| path.with_extension("unfinished"));
        let file = match &unfinished {
            Some(path) => create(path),
            None => create_nameless(),
        };
        let file = file.map_err(failed("writing"))?;
        let written = self.fill(file, names, records, all, unfinished.as_deref().zip(path.as_deref()));
        if let (Err(_), Some(unfinished)) = (&written, &unfinished) {
            // It may be that there is no room: what is left of it would take some until the next start, which looks for such.
            let _ = std::fs::remove_file(unfinished);
        }
        written
    }

    /// Fills a file, and gives it the second of two names.
    fn fill<R: Record>(
        &self,
        file: File,
        names: &R::Names,
        records: usize,
        all: impl Iterator<Item = Result<R, Error>>,
        renamed: Option<(&Path, &Path)>,
    ) -> Result<Run<R>, Error> {
        let mut writer = Writer::new(file, &self.key, records);
        for record in all {
            writer.push(&record?).map_err(failed("writing"))?;
        }
        let run = writer.finish(names, renamed.map(|(_, path)| path.to_owned())).map_err(failed("writing"))?;
        if let Some((unfinished, path)) = renamed {
            // Nobody else gives names here, and this one is random: there is nothing to be replaced.
            #[expect(clippy::disallowed_methods)]
            std::fs::rename(unfinished, path).map_err(failed("writing"))?;
        }
        Ok(run)
    }
}

impl Directory {
    /// None if somebody else has it.
    fn lock(path: &Path) -> io::Result<Option<Self>> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path.join(LOCK))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Self { path: path.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn runs<R: Record>(&self, key: &Secret) -> io::Result<Runs<R>> {
        let mut runs = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name() == LOCK {
                continue;
            }
            let path = entry.path();
            let is_complete = path.extension().is_none();
            let open = || Run::open(File::open(&path)?, path.clone(), key);
            // What cannot be opened is of no use either.
            let run = if is_complete { open().unwrap_or_default() } else { None };
            match run {
                Some(run) => runs.push(run),
                None => {
                    tracing::info!(path = %path.display(), "this is no complete part of the index cache: removing it");
                    std::fs::remove_file(&path)?;
                }
            }
        }
        Ok(runs)
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(path)
}

fn create_nameless() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("holdfast-{}", hex::encode(random::<16>())));
    let file = create(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Names the step.
fn failed(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::IndexCache { step, source }
}
