//! Writes what a base backup sends as entries: every file of its own, so that unchanged files and pages are found again.

use std::collections::BTreeSet;
use std::io::Read;

use holdfast_sdk::archive::{self, ContentClass, Entry, EntryKind, Tally};
use holdfast_sdk::io::{ByteSink, ByteSource, MAX_LIST, MIN_TRANSFER, Reader, transfer_exact};
use holdfast_sdk::{Error, Result, job};

use crate::manifest::Seal;
use crate::names;
use crate::tar::{Kind, Member, Store};

/// Files of the data directory whose presence decides something later.
const NOTED: &[&str] = &["backup_label", "global/pg_control", "postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// The backup that is being written.
pub struct Recorder {
    tally: Tally,
    block_size: u32,
    /// Where members of the current archive go, with `/` at the end.
    prefix: String,
    /// Which of [`NOTED`] there were.
    noted: BTreeSet<String>,
    moved: u64,
    expected: Option<u64>,
}

impl Recorder {
    /// Of a server with pages of `block_size` bytes that expects to send `expected` bytes.
    pub fn new(block_size: u32, expected: u64) -> Self {
        let expected = (expected > 0).then_some(expected);
        Self { tally: Tally::default(), block_size, prefix: String::new(), noted: BTreeSet::new(), moved: 0, expected }
    }

    /// Another archive begins: of this tablespace, or of the data directory.
    pub fn enter(&mut self, tablespace: Option<u32>) {
        self.prefix = match tablespace {
            Some(oid) => format!("{}{oid}/", names::TABLESPACES),
            None => names::DATA.to_owned(),
        };
    }

    /// Whether the data directory had this file.
    pub fn has(&self, file: &str) -> bool {
        self.noted.contains(file)
    }

    /// Writes a file that is in memory.
    pub fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let modified = (job::now() / 1_000) as i64;
        self.tally.write(&file(path, Some(bytes.len() as u64), 0o600, modified), ContentClass::Bytes, bytes)
    }

    /// What was written, entries and bytes.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    fn count(&mut self, bytes: u64) {
        self.moved += bytes;
        job::progress("copy", self.moved, self.expected, "bytes");
    }
}

impl Store for Recorder {
    type Input = Reader<ByteSource>;
    type Sink = ByteSink;

    fn begin(&mut self, member: &Member) -> Result<ByteSink> {
        if job::stop_requested() {
            return Err(Error::new("cancelled", "the backup was cancelled"));
        }
        if self.prefix == names::DATA && NOTED.contains(&member.path.as_str()) {
            self.noted.insert(member.path.clone());
        }
        let path = format!("{}{}", self.prefix, member.path);
        let class = names::class(&path, self.block_size);
        let (kind, size) = match &member.kind {
            Kind::File(size) => (EntryKind::File, Some(*size)),
            Kind::Directory => (EntryKind::Directory, None),
            Kind::Symlink(target) => (EntryKind::Symlink(target.clone()), None),
        };
        let entry = Entry { path, kind, size, mode: member.mode, modified: member.modified, extra: vec![] };
        Ok(archive::begin_entry(&entry, class)?)
    }

    fn append(&mut self, sink: &mut ByteSink, input: &mut Reader<ByteSource>, length: u64) -> Result<()> {
        if length >= MIN_TRANSFER {
            transfer_exact(&input.0, sink, length)?;
        } else {
            sink.write(&input.0.read_exact(length as u32)?)?;
        }
        self.count(length);
        Ok(())
    }

    fn end(&mut self, sink: ByteSink) -> Result<()> {
        self.tally.finish(sink)?;
        Ok(())
    }
}

/// The server's manifest on its way into the backup. It passes through memory, so that its seal is checked at once.
pub struct ManifestEntry {
    sink: ByteSink,
    seal: Seal,
}

impl ManifestEntry {
    /// Begins it.
    pub fn begin() -> Result<Self> {
        let modified = (job::now() / 1_000) as i64;
        let sink = archive::begin_entry(&file(names::MANIFEST, None, 0o600, modified), ContentClass::Bytes)?;
        Ok(Self { sink, seal: Seal::default() })
    }

    /// Takes the next `length` bytes from `input`.
    pub fn feed(&mut self, recorder: &mut Recorder, input: &mut impl Read, mut length: u64) -> Result<()> {
        while length > 0 {
            let mut piece = vec![0; length.min(MAX_LIST as u64) as usize];
            input.read_exact(&mut piece)?;
            self.seal.update(&piece)?;
            self.sink.write(&piece)?;
            length -= piece.len() as u64;
            recorder.count(piece.len() as u64);
        }
        Ok(())
    }

    /// Ends it; fails unless it is whole.
    pub fn finish(self, recorder: &mut Recorder) -> Result<()> {
        self.seal.finish()?;
        recorder.tally.finish(self.sink)?;
        Ok(())
    }
}

fn file(path: &str, size: Option<u64>, mode: u32, modified: i64) -> Entry {
    Entry { path: path.to_owned(), kind: EntryKind::File, size, mode, modified, extra: vec![] }
}
