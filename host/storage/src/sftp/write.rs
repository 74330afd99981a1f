//! Writing: a temporary file, synced, that gets its name by a step which is atomic on the server.
//!
//! For a name that must be new that step is a hard link: of several writers one makes it, and no reader sees half an
//! object. Making the file under its own name by an exclusive open would keep writers apart too, but a cut there leaves
//! half an object under a name that nobody can write again. The protocol's own rename is the way out where links cannot
//! be made; it is not claimed to keep writers apart, for servers make it of two steps.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::failure::Failure;
use super::session::Session;
use crate::{OBJECT_BYTES_MAX, path, random};

/// How our temporary files' names begin; 32 random hex digits follow.
const PREFIX: &str = "write-";
/// Age from which a temporary file has no living writer: no attempt is given as long.
const ABANDONED_SECONDS: u32 = 24 * 60 * 60;

/// Leftovers that are looked at in one sweep.
const SWEPT_MAX: usize = 100_000;

/// Whether a write may replace what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placing {
    Replacing,
    OnlyIfAbsent,
}

/// Writes objects below one root.
#[derive(Debug)]
pub(super) struct Writer {
    root: String,
    /// Directories that are there, and their names durable, as far as we made sure.
    settled: Mutex<BTreeSet<String>>,
    swept: AtomicBool,
    /// A link could not be made here, so a rename took its place.
    renames: AtomicBool,
}

impl Writer {
    pub(super) fn new(root: &str) -> Self {
        let (swept, renames) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { root: root.to_owned(), settled: Mutex::default(), swept, renames }
    }

    /// Names were given by rename and not by link.
    pub(super) fn renames(&self) -> bool {
        self.renames.load(Ordering::Relaxed)
    }

    /// Writes an object durably: `false` where one was and may not be replaced.
    pub(super) async fn write(
        &self,
        session: &Session,
        path: &str,
        bytes: &Bytes,
        placing: Placing,
    ) -> Result<bool, Failure> {
        let length = bytes.len() as u64;
        if length > OBJECT_BYTES_MAX {
            return Err(Failure::TooLarge(length));
        }
        let outcome = self.try_write(session, path, bytes, placing).await;
        match outcome {
            Err(failure) => {
                // After a failure nothing is taken for granted: directories are made and synced anew.
                self.settled().clear();
                let full = failure.is_general() && session.is_full(&self.root).await;
                Err(if full { Failure::Full } else { failure })
            }
            written => written,
        }
    }

    async fn try_write(&self, session: &Session, path: &str, bytes: &Bytes, placing: Placing) -> Result<bool, Failure> {
        let target = format!("{}/{path}", self.root);
        let directory = parent(&target);
        self.settle(session, directory).await?;
        if placing == Placing::OnlyIfAbsent && is_there(session, &target).await? {
            // The other writer may still be on its way to this sync; `false` says that the object is durable.
            session.sync_directory(directory).await?;
            return Ok(false);
        }
        let temporary = self.fill(session, bytes).await?;
        let placed = self.place(session, &temporary, &target, placing).await;
        if placed.as_ref().map_or(true, |placed| placed.leaves_temporary()) {
            // What stays behind is swept by a later writer.
            let _ = session.remove(&temporary).await;
        }
        let placed = placed?;
        session.sync_directory(directory).await?;
        Ok(placed != Placed::Occupied)
    }

    /// Removes an object durably. Needs no free space.
    pub(super) async fn remove(&self, session: &Session, path: &str) -> Result<(), Failure> {
        let target = format!("{}/{path}", self.root);
        match session.remove(&target).await {
            Err(failure) if failure.is_absence() => Ok(()),
            Err(failure) => Err(failure),
            Ok(()) => session.sync_directory(parent(&target)).await.map(drop),
        }
    }

    /// A temporary file with these bytes, durable.
    async fn fill(&self, session: &Session, bytes: &Bytes) -> Result<String, Failure> {
        let directory = format!("{}/{}", self.root, path::TEMPORARY);
        self.settle(session, &directory).await?;
        let temporary = format!("{directory}/{PREFIX}{}", random::name());
        let handle = session.create(&temporary).await?;
        self.sweep(session, &directory, &temporary).await;
        let filled = session.fill(&handle, bytes).await;
        let closed = session.close(&handle).await;
        match filled.and(closed) {
            Ok(()) => Ok(temporary),
            Err(failure) => {
                let _ = session.remove(&temporary).await;
                Err(failure)
            }
        }
    }

    async fn place(
        &self,
        session: &Session,
        temporary: &str,
        target: &str,
        placing: Placing,
    ) -> Result<Placed, Failure> {
        match placing {
            Placing::Replacing if session.offers.replace => {
                session.replace(temporary, target).await.map(|()| Placed::Renamed)
            }
            // It fails where something is there: then this server cannot replace.
            Placing::Replacing => session.rename(temporary, target).await.map(|()| Placed::Renamed),
            Placing::OnlyIfAbsent => self.place_new(session, temporary, target).await,
        }
    }

    async fn place_new(&self, session: &Session, temporary: &str, target: &str) -> Result<Placed, Failure> {
        if session.offers.link {
            match session.link(temporary, target).await {
                Ok(()) => return Ok(Placed::Linked),
                Err(failure) if !failure.is_general() => return Err(failure),
                Err(_) if is_there(session, target).await? => return Ok(Placed::Occupied),
                // A file system without links.
                Err(_) => {}
            }
        }
        self.renames.store(true, Ordering::Relaxed);
        match session.rename(temporary, target).await {
            Ok(()) => Ok(Placed::Renamed),
            Err(failure) if failure.is_general() && is_there(session, target).await? => Ok(Placed::Occupied),
            Err(failure) => Err(failure),
        }
    }

    /// Makes a directory and those above it, and their names durable, each once.
    async fn settle(&self, session: &Session, directory: &str) -> Result<(), Failure> {
        let ends = directory.match_indices('/').map(|(end, _)| end).skip(1).chain([directory.len()]);
        for path in ends.map(|end| &directory[..end]) {
            if self.settled().contains(path) {
                continue;
            }
            let made = session.make_directory(path).await?;
            // Above the root only what we made is ours to sync; below it another writer may have made it and not synced yet.
            if made || path.len() > self.root.len() {
                session.sync_directory(parent(path)).await?;
            }
            self.settled().insert(path.to_owned());
        }
        Ok(())
    }

    /// Removes, once, what writers left that died. Never fails: leftovers are harmless. Ages are counted by the server's
    /// own clock, which just dated our file.
    async fn sweep(&self, session: &Session, directory: &str, own: &str) {
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(now) = session.look_up(own).await else { return };
        for file in session.entries(directory, SWEPT_MAX).await.unwrap_or_default() {
            let age = now.mtime.zip(file.attrs.mtime).map(|(now, then)| now.saturating_sub(then));
            if is_ours(&file.filename) && age.is_some_and(|age| age > ABANDONED_SECONDS) {
                let _ = session.remove(&format!("{directory}/{}", file.filename)).await;
            }
        }
    }

    fn settled(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a temporary file got its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    /// It has both names.
    Linked,
    Renamed,
    /// Something had the name.
    Occupied,
}

impl Placed {
    fn leaves_temporary(self) -> bool {
        self != Self::Renamed
    }
}

async fn is_there(session: &Session, path: &str) -> Result<bool, Failure> {
    match session.look_up(path).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_absence() => Ok(false),
        Err(failure) => Err(failure),
    }
}

/// The directory that holds a path's name.
fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((directory, _)) => directory,
    }
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_s_directory_is_found() {
        assert_eq!((parent("/srv/a/b"), parent("/srv")), ("/srv/a", "/"));
    }

    #[test]
    fn only_our_own_leftovers_are_swept() {
        assert!(is_ours(&format!("{PREFIX}{}", random::name())));
        assert!(!is_ours("write-") && !is_ours("notes.txt"));
    }
}
