//! Where runs lie: in a directory that one process has at a time, so that the next one need not read all indexes again; or, where
//! there is none or somebody else has it, in temporary files without a name, which go with the process.
//!
//! A run gets its name when it is complete. What lies there beside complete runs of this domain is what a kill left behind, and is removed.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::run::{Located, Run, Sources, Writer};
use crate::Error;
use crate::seal::{Secret, random};

/// The file that whoever has the directory keeps locked.
const LOCK: &str = "lock";

/// Keeps the runs of one domain.
#[derive(Debug)]
pub(super) struct Cache {
    directory: Option<Directory>,
    key: Secret,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Cache {
    /// The cache in a directory, which is made if need be; a temporary one without.
    pub(super) fn open(directory: Option<&Path>, index_key: &Secret) -> Result<Self, Error> {
        let directory = match directory {
            Some(path) => Directory::lock(path).map_err(failed("opening"))?,
            None => None,
        };
        Ok(Self { directory, key: Secret(blake3::derive_key("holdfast v1 2026-11 index cache", &index_key.0)) })
    }

    /// The complete runs that lie there, the longest first. Everything else is removed.
    pub(super) fn runs(&self) -> Result<Vec<(Run, Sources)>, Error> {
        let Some(directory) = &self.directory else { return Ok(Vec::new()) };
        let mut runs = directory.runs(&self.key).map_err(failed("opening"))?;
        runs.sort_unstable_by_key(|(run, _)| std::cmp::Reverse(run.count));
        Ok(runs)
    }

    /// Writes a run of at most so many records, which come in order.
    pub(super) fn write(
        &self,
        sources: &Sources,
        records: usize,
        all: impl Iterator<Item = Result<Located, Error>>,
    ) -> Result<Run, Error> {
        let path = self.directory.as_ref().map(|directory| directory.path.join(hex::encode(random::<16>())));
        let unfinished = path.as_ref().map(|path| path.with_extension("unfinished"));
        let file = match &unfinished {
            Some(path) => create(path),
            None => create_nameless(),
        };
        let mut writer = Writer::new(file.map_err(failed("writing"))?, &self.key, records);
        for record in all {
            writer.push(&record?).map_err(failed("writing"))?;
        }
        let run = writer.finish(sources, path.clone()).map_err(failed("writing"))?;
        if let (Some(unfinished), Some(path)) = (unfinished, path) {
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

    fn runs(&self, key: &Secret) -> io::Result<Vec<(Run, Sources)>> {
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
