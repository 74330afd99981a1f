//! A directory as a store: `file:///absolute/path`.
//!
//! A write goes to a temporary file in `tmp/`, is synced, gets its name by a rename, and every directory that
//! holds the name is synced before the write is acknowledged. So an object is whole or not there, whatever
//! happens. It refuses paths that could leave the root, and never follows a symbolic link below it.

mod directories;
mod temporary;
mod tree;

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use rustix::fs::{major, minor};
use url::Url;

use crate::error::{Attempt, Error, Operation};
use crate::{Finding, Listed, Settings, Storage, Traits, path, spelling};
use tree::{Failure, Placing, Tree};

/// A directory that keeps objects as files. The directory is made by the first write; until then it is empty.
#[derive(Debug)]
pub struct Local {
    tree: Arc<Tree>,
    location: String,
}

impl Local {
    /// The store below `root`, an absolute path.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        let location = Url::from_file_path(&root).map_or_else(|()| format!("file://{}", root.display()), String::from);
        Self { tree: Arc::new(Tree::new(root)), location }
    }

    pub(crate) fn open(url: &str, settings: &Settings) -> Result<Self, Error> {
        if let Some(name) = settings.keys().next() {
            return Err(Error::bad_setting(name, spelling::unknown(name, &[])));
        }
        Ok(Self::new(root_of(url)?))
    }

    fn attempt(&self, operation: Operation, path: &str) -> Attempt {
        Attempt::new(operation, path, &self.location)
    }

    /// Runs blocking work on a checked path, off the runtime's own threads.
    async fn run<T: Send + 'static>(
        &self,
        attempt: Attempt,
        work: impl FnOnce(&Tree, &str) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Error> {
        match attempt.operation {
            Operation::List => path::check_prefix(&attempt)?,
            _ => path::check(&attempt)?,
        }
        let (tree, place) = (Arc::clone(&self.tree), attempt.path.clone());
        match tokio::task::spawn_blocking(move || work(&tree, &place)).await {
            Ok(outcome) => outcome.map_err(|failure| failure.of(attempt)),
            Err(_) => Err(Error::Stopped { attempt }),
        }
    }

    async fn write(&self, attempt: Attempt, bytes: Bytes, placing: Placing) -> Result<bool, Error> {
        self.run(attempt, move |tree, path| tree.write(path, &bytes, placing)).await
    }
}

/// The device of a directory, or of the nearest one above it that is there.
fn device_of(root: &Path) -> std::io::Result<u64> {
    let mut found = Err(std::io::ErrorKind::NotFound.into());
    for path in root.ancestors() {
        found = std::fs::metadata(path).map(|metadata| metadata.dev());
        if !matches!(&found, Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
            break;
        }
    }
    found
}

/// The directory that a `file:` URL names.
fn root_of(url: &str) -> Result<PathBuf, Error> {
    let bad = |reason: &str| Error::bad_url(url, reason);
    let path = url.strip_prefix("file://").ok_or_else(|| bad("its scheme is not `file`"))?;
    if path.contains(['?', '#']) {
        return Err(bad("a directory takes no options"));
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| bad("its path is not UTF-8"))?;
    let root = PathBuf::from(path.trim_end_matches('/'));
    if path.contains('\0') || !path.starts_with('/') {
        return Err(bad("its path must be absolute, as in `file:///srv/backups`"));
    }
    if !root.is_absolute() || root.components().any(|part| part == std::path::Component::ParentDir) {
        return Err(bad("its path must name a directory below `/`, without `..`"));
    }
    Ok(root)
}

#[async_trait]
impl Storage for Local {
    async fn get(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, Error> {
        self.run(self.attempt(Operation::Get, path), |tree, path| tree.read(path, range)).await
    }

    async fn put(&self, path: &str, bytes: Bytes) -> Result<(), Error> {
        self.write(self.attempt(Operation::Put, path), bytes, Placing::Replacing).await.map(|_| ())
    }

    async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool, Error> {
        self.write(self.attempt(Operation::PutIfAbsent, path), bytes, Placing::OnlyIfAbsent).await
    }

    async fn head(&self, path: &str) -> Result<Option<u64>, Error> {
        self.run(self.attempt(Operation::Head, path), Tree::length).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, Error> {
        self.run(self.attempt(Operation::List, prefix), Tree::list).await
    }

    async fn delete(&self, path: &str) -> Result<(), Error> {
        self.run(self.attempt(Operation::Delete, path), Tree::remove).await
    }

    async fn written_ms(&self, path: &str) -> Result<Option<u64>, Error> {
        self.run(self.attempt(Operation::Head, path), Tree::written_ms).await
    }

    async fn clock_ms(&self) -> Result<Option<u64>, Error> {
        self.run(self.attempt(Operation::List, ""), |tree, _| tree.clock_ms()).await
    }

    fn traits(&self) -> Traits {
        Traits { conditional_writes: true }
    }

    async fn examine(&self, _scratch: &str) -> Result<Vec<Finding>, Error> {
        Ok(vec![Finding::new("sync", true, "what is acknowledged survives a power cut")])
    }

    async fn holder(&self) -> Result<String, Error> {
        let root = self.tree.root().to_owned();
        let found = tokio::task::spawn_blocking(move || device_of(&root)).await;
        let attempt = || self.attempt(Operation::Head, "");
        match found {
            Ok(Ok(device)) => Ok(format!("the file system of device {}:{}", major(device), minor(device))),
            Ok(Err(source)) => Err(Error::file(attempt(), "looking up the device", source)),
            Err(_) => Err(Error::Stopped { attempt: attempt() }),
        }
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_absolute_directory() {
        assert_eq!(root_of("file:///srv/backups/").unwrap(), PathBuf::from("/srv/backups"));
        assert_eq!(root_of("file:///srv/my%20disk").unwrap(), PathBuf::from("/srv/my disk"));
        for bad in [
            "file://srv/backups",
            "file:///",
            "file://",
            "file:///srv/../etc",
            "file:///srv?x=1",
            "file:///a%00b",
            "s3://a",
        ] {
            assert!(matches!(root_of(bad), Err(Error::BadUrl { .. })), "{bad}");
        }
    }

    #[test]
    fn a_directory_takes_no_settings() {
        let settings = Settings::from([("access-key".to_owned(), "hidden".to_owned())]);
        let error = Local::open("file:///srv/backups", &settings).unwrap_err();
        assert_eq!(error.to_string(), "the setting `access-key` is unknown here; there are none");
    }
}
