//! One entry on its way to its file: by one worker, or by several that each take parts of it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_repository::{BackupReader, EntryReader};
use tokio::sync::OnceCell;

use crate::file::NewFile;
use crate::guard::Guard;
use crate::imports::types::CallError;
use crate::tree::Tree;

/// One entry and the file that it becomes.
pub(crate) struct Order {
    pub(crate) entry: String,
    pub(crate) root: String,
    pub(crate) path: String,
    pub(crate) mode: u32,
}

/// Bytes of a part.
const PART: u64 = 4 << 20;

/// An order that a worker has taken.
pub(crate) struct Running {
    order: Order,
    opened: OnceCell<Opened>,
}

/// The entry, its file, and how far they are.
pub(crate) struct Opened {
    pub(crate) entry: EntryReader,
    pub(crate) file: NewFile,
    /// At least one: an empty file is made too.
    parts: u64,
    claimed: AtomicU64,
    done: AtomicU64,
}

impl Running {
    pub(crate) fn new(order: Order) -> Self {
        Self { order, opened: OnceCell::new() }
    }

    /// Finds the entry and makes the file; all workers on it get the same.
    pub(crate) async fn opened(
        &self,
        backup: &BackupReader,
        tree: &Arc<Tree>,
        guard: &Guard,
    ) -> Result<&Opened, CallError> {
        let Order { entry, root, path, mode } = &self.order;
        let open = || async {
            let entry = backup.entry(entry).await?;
            let file = Tree::create_file(tree, root, path, *mode)?;
            let parts = entry.size().div_ceil(PART).max(1);
            Ok(Opened { entry, file, parts, claimed: AtomicU64::new(0), done: AtomicU64::new(0) })
        };
        guard.wait(self.opened.get_or_try_init(open)).await?
    }

    /// Parts that nobody has taken yet; as many as can be while nobody knows.
    pub(crate) fn left(&self) -> u64 {
        self.opened.get().map_or(u64::MAX, |opened| opened.parts.saturating_sub(opened.claimed.load(Ordering::Acquire)))
    }
}

impl Opened {
    /// The next part, for the caller alone.
    pub(crate) fn claim(&self) -> Option<Range<u64>> {
        let part = self.claimed.fetch_add(1, Ordering::AcqRel);
        (part < self.parts).then(|| part * PART..(part + 1) * PART)
    }

    /// Says that a part was written. The last one finishes the file.
    pub(crate) fn part_done(&self, written: Range<u64>) -> Result<(), CallError> {
        // Small files are left to the one sync at the end.
        if written.end - written.start == PART {
            self.file.start_writeback(written);
        }
        if self.done.fetch_add(1, Ordering::AcqRel) + 1 == self.parts { self.file.finish().map(drop) } else { Ok(()) }
    }
}
