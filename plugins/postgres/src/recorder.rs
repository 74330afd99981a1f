//! Writes what a base backup sends as entries: every file of its own, so that unchanged files and pages are found again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use holdfast_sdk::archive::{self, ContentClass, Entry, EntryKind, Tally};
use holdfast_sdk::io::{ByteSink, ByteSource, MAX_LIST, MIN_TRANSFER, Reader, transfer_exact};
use holdfast_sdk::{Error, Result, job};

use crate::basebackup::Space;
use crate::manifest::Seal;
use crate::names;
use crate::server::Server;
use crate::tar::{Kind, Member, Store};

/// Files of the data directory whose presence decides something later.
const NOTED: &[&str] = &["postgresql.conf", "pg_hba.conf", "pg_ident.conf"];

/// Files of the data directory whose content does: it is kept in memory too.
const KEPT: &[&str] = &["backup_label", "global/pg_control"];

/// Bytes that such a file may have.
const MAX_KEPT: u64 = 64 << 10;

/// The backup that is being written.
pub struct Recorder {
    tally: Tally,
    block_size: u32,
    wal_segment_size: u64,
    /// Tablespaces that the server announced: the only links that there may be.
    tablespaces: Vec<u32>,
    /// Where members of the current archive go, with `/` at the end.
    prefix: String,
    /// Which of [`NOTED`] there were.
    noted: BTreeSet<String>,
    /// Those of [`KEPT`] there were.
    kept: BTreeMap<String, Vec<u8>>,
    /// Which of them is being taken.
    keeping: Option<String>,
    /// Names of the log's segments that are whole.
    log: BTreeSet<String>,
    moved: u64,
    expected: Option<u64>,
}

impl Recorder {
    /// Of this server, which announced what it will send.
    pub fn new(server: &Server, spaces: &[Space]) -> Self {
        let expected = spaces.iter().map(|space| space.bytes).fold(0, u64::saturating_add);
        Self {
            tally: Tally::default(),
            block_size: server.block_size,
            wal_segment_size: server.wal_segment_size,
            tablespaces: spaces.iter().filter_map(|space| space.oid).collect(),
            prefix: String::new(),
            noted: BTreeSet::new(),
            kept: BTreeMap::new(),
            keeping: None,
            log: BTreeSet::new(),
            moved: 0,
            expected: (expected > 0).then_some(expected),
        }
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

    /// The content of one of the files that are kept in memory.
    pub fn kept(&self, file: &str) -> Option<&[u8]> {
        self.kept.get(file).map(Vec::as_slice)
    }

    /// Whether this segment of the log was sent whole.
    pub fn has_log(&self, segment: &str) -> bool {
        self.log.contains(segment)
    }

    /// Remembers what decides something later.
    fn note(&mut self, member: &Member) -> Result<()> {
        let path = member.path.as_str();
        let linked = path.strip_prefix(names::LINKS).and_then(|oid| oid.parse().ok());
        match member.kind {
            Kind::Symlink(_) if !linked.is_some_and(|oid| self.tablespaces.contains(&oid)) => {
                let message = format!("the server sent the link {path:?}, which leads to no tablespace");
                return Err(Error::new("malformed-archive", message));
            }
            Kind::File(_) if NOTED.contains(&path) => {
                self.noted.insert(path.to_owned());
            }
            Kind::File(..=MAX_KEPT) if KEPT.contains(&path) => {
                self.keeping = Some(path.to_owned());
                self.kept.insert(path.to_owned(), Vec::new());
            }
            Kind::File(size) if size == self.wal_segment_size => {
                self.log.extend(path.strip_prefix(names::LOG).map(str::to_owned));
            }
            _ => {}
        }
        Ok(())
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
        match &member.kind {
            _ if self.prefix == names::DATA => self.note(member)?,
            Kind::Symlink(_) => {
                let message = format!("the server sent the link {:?} in a tablespace", member.path);
                return Err(Error::new("malformed-archive", message));
            }
            _ => {}
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
        if let Some(kept) = self.keeping.as_ref().and_then(|file| self.kept.get_mut(file)) {
            // It is no larger than what one call carries.
            let bytes = input.0.read_exact(length as u32)?;
            sink.write(&bytes)?;
            kept.extend(bytes);
        } else if length >= MIN_TRANSFER {
            transfer_exact(&input.0, sink, length)?;
        } else {
            sink.write(&input.0.read_exact(length as u32)?)?;
        }
        self.count(length);
        Ok(())
    }

    fn end(&mut self, sink: ByteSink) -> Result<()> {
        self.keeping = None;
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

#[cfg(test)]
impl Recorder {
    /// One that took these files of the data directory and these segments of the log.
    pub fn example(kept: &[(&str, &[u8])], log: &[&str]) -> Self {
        let spaces = [Space { oid: Some(16385), path: "/srv/fast".into(), bytes: 0 }];
        Self {
            kept: kept.iter().map(|(file, bytes)| ((*file).to_owned(), bytes.to_vec())).collect(),
            log: log.iter().map(|name| (*name).to_owned()).collect(),
            ..Self::new(&Server::example(false), &spaces)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_to_announced_tablespaces_are_taken() {
        let mut recorder = Recorder::example(&[], &[]);
        let mut note = |path: &str| {
            let kind = Kind::Symlink("/etc".into());
            recorder.note(&Member { path: path.into(), kind, mode: 0o777, modified: 0 })
        };
        note("pg_tblspc/16385").expect("announced");
        for path in ["pg_tblspc/16386", "pg_tblspc/x", "pg_tblspc/16385/x", "pg_wal", "base/5"] {
            assert_eq!(note(path).expect_err("refused").code, "malformed-archive", "{path}");
        }
    }

    #[test]
    fn a_segment_counts_only_if_it_is_whole() {
        let mut recorder = Recorder::example(&[], &[]);
        for (name, size) in [("1", 16 << 20), ("2", 100)] {
            let path = format!("pg_wal/{name}");
            recorder.note(&Member { path, kind: Kind::File(size), mode: 0o600, modified: 0 }).expect("taken");
        }
        assert!(recorder.has_log("1") && !recorder.has_log("2"));
    }
}
