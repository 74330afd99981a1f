//! Entries of a backup: the host's functions, and a [`Tally`] that counts what a dump wrote.

pub use crate::bindings::holdfast::engine::archive::{
    Backup, ContentClass, Entry, EntryKind, annotate, begin_entry, current, parent, reuse,
};
use crate::io::{ByteSink, MAX_LIST};
use crate::{Error, Result};

/// Most entries that [`Backup::entries`] returns at once.
pub const PAGE: u32 = 1_000;

/// Counts entries and bytes as they are sealed, for the inventory that the host compares with its own count.
#[derive(Debug, Default)]
pub struct Tally {
    /// Sealed entries, directories and links among them.
    pub entries: u64,
    /// Bytes of all sealed files.
    pub bytes: u64,
}

impl Tally {
    /// Seals an entry and counts it.
    pub fn finish(&mut self, sink: ByteSink) -> Result<u64> {
        let bytes = ByteSink::finish(sink)?;
        self.entries += 1;
        self.bytes += bytes;
        Ok(bytes)
    }

    /// Writes and seals an entry that is in memory already.
    pub fn write(&mut self, entry: &Entry, class: ContentClass, bytes: &[u8]) -> Result<()> {
        let sink = begin_entry(entry, class)?;
        for part in bytes.chunks(MAX_LIST) {
            sink.write(part)?;
        }
        self.finish(sink)?;
        Ok(())
    }
}

/// All entries below `prefix`, in byte order, fetched a page at a time.
pub fn entries<'a>(backup: &'a Backup, prefix: &'a str) -> impl Iterator<Item = Result<Entry>> + 'a {
    let mut page = Vec::new().into_iter();
    let mut after = String::new();
    let mut ended = false;
    std::iter::from_fn(move || {
        if page.len() == 0 && !ended {
            match backup.entries(prefix, &after, PAGE) {
                Ok(entries) => page = entries.into_iter(),
                Err(error) => {
                    ended = true;
                    return Some(Err(Error::from(error)));
                }
            }
        }
        let entry = page.next();
        match &entry {
            Some(entry) => after.clone_from(&entry.path),
            None => ended = true,
        }
        entry.map(Ok)
    })
}
