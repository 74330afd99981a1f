//! A file that a restore writes: by one taker in order, or by several threads at their places. Zeros become holes.
//!
//! Only its owner can read it until it is finished; dropped unfinished, it is removed.

use std::fs::File;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{Advice, AtFlags};
use rustix::io::Errno;

use crate::holes::solid;
use crate::imports::types::CallError;
use crate::tree::{Tree, explain};

/// A file being written.
pub(crate) struct NewFile {
    tree: Arc<Tree>,
    file: File,
    parent: OwnedFd,
    name: String,
    place: PathBuf,
    mode: u32,
    /// Its length, holes included.
    length: AtomicU64,
    /// Where its last byte that is in no hole ends.
    solid: AtomicU64,
    finished: AtomicBool,
}

impl NewFile {
    /// A file that was just made: empty, and open for writing.
    pub(crate) fn new(
        tree: &Arc<Tree>,
        file: OwnedFd,
        (parent, name): (OwnedFd, &str),
        place: &Path,
        mode: u32,
    ) -> Self {
        Self {
            tree: Arc::clone(tree),
            file: File::from(file),
            parent,
            name: name.to_owned(),
            place: place.to_owned(),
            mode,
            length: AtomicU64::new(0),
            solid: AtomicU64::new(0),
            finished: AtomicBool::new(false),
        }
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CallError> {
        let end = *self.length.get_mut();
        self.write_at(bytes, end)
    }

    /// Writes bytes at their place, where nothing was written before.
    pub(crate) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), CallError> {
        for part in solid(bytes, offset) {
            let (from, to) = (offset + part.start as u64, offset + part.end as u64);
            self.file.write_all_at(&bytes[part], from).map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                explain("write", &self.place, errno)
            })?;
            self.solid.fetch_max(to, Ordering::AcqRel);
        }
        self.length.fetch_max(offset + bytes.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    /// Has the kernel begin to write a range to the disk, without waiting for it: else nothing would be on its way to the disk before
    /// the end, when everybody waits for it.
    pub(crate) fn start_writeback(&self, range: Range<u64>) {
        let length = NonZeroU64::new(range.end - range.start);
        // Only advice: what cannot take it is written all the same. Pages on their way to the disk stay in the cache.
        let _ = rustix::fs::fadvise(&self.file, range.start, length, Advice::DontNeed);
    }

    /// Gives the file its length, owner and mode, once all of it is written; returns its bytes.
    pub(crate) fn finish(&self) -> Result<u64, CallError> {
        let length = self.length.load(Ordering::Acquire);
        let finish = || {
            if self.solid.load(Ordering::Acquire) < length {
                rustix::fs::ftruncate(&self.file, length)?;
            }
            self.tree.adorn(&self.file, self.mode)
        };
        finish().map_err(|errno| explain("finish", &self.place, errno))?;
        self.tree.count(length);
        self.finished.store(true, Ordering::Release);
        Ok(length)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !*self.finished.get_mut() {
            // Whoever aborts has a better error to report than this one.
            let _ = rustix::fs::unlinkat(&self.parent, self.name.as_str(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::Destination;

    fn create(directory: &Path) -> NewFile {
        let roots = vec![(String::new(), directory.to_owned())];
        let tree = Arc::new(Tree::open(Some(Destination { roots, owner: None })).expect("opens"));
        Tree::create_file(&tree, "", "file", 0o640).ok().expect("created")
    }

    /// Bytes that are not zero where the pattern says `x`, zeros elsewhere: 64 KiB a letter.
    fn content(pattern: &str) -> Vec<u8> {
        pattern.chars().flat_map(|letter| vec![if letter == 'x' { 0xA7 } else { 0 }; 64 << 10]).collect()
    }

    #[test]
    fn zeros_take_no_room_and_read_as_zeros() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        for (pattern, solid) in [("x..x.", 2), ("....", 0), (".x", 1), ("xx", 2), ("", 0)] {
            let bytes = content(pattern);
            let mut file = create(directory.path());
            for piece in bytes.chunks(100_000) {
                file.write(piece).ok().expect("written");
            }
            assert_eq!(file.finish().ok(), Some(bytes.len() as u64), "{pattern}");
            assert!(std::fs::read(&path).expect("there") == bytes, "{pattern}");
            let room = std::fs::metadata(&path).expect("there").blocks() * 512;
            // A piece may end in the middle of a block, and a file system may count what it needs for itself.
            assert!(room <= (solid << 16) + (16 << 10), "{pattern}: {room} bytes of room");
            drop(file);
            std::fs::remove_file(&path).expect("removed");
        }
    }

    #[test]
    fn threads_write_at_their_places_in_any_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let bytes = content("x.xx..x.");
        let file = create(directory.path());
        std::thread::scope(|scope| {
            for (number, piece) in bytes.chunks(70_000).enumerate().collect::<Vec<_>>().into_iter().rev() {
                let file = &file;
                scope.spawn(move || file.write_at(piece, number as u64 * 70_000).ok().expect("written"));
            }
        });
        assert_eq!(file.finish().ok(), Some(bytes.len() as u64));
        assert!(std::fs::read(directory.path().join("file")).expect("there") == bytes);
    }
}
