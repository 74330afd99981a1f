//! Restores a backup to directories on which `postgres -D` starts: it finds `backup_label`, replays the log that the
//! backup carries, and is consistent.
//!
//! `pg_control` is written last, after all else is durable: a directory where a restore ended early is not taken for a
//! cluster.

mod configuration;
mod layout;

use std::collections::BTreeSet;
use std::io::Read;

use holdfast_sdk::archive::{self, Backup, Entry, EntryKind};
use holdfast_sdk::destination::{self, Extraction};
use holdfast_sdk::document::Restored;
use holdfast_sdk::io::{ByteSink, MAX_LIST, Reader};
use holdfast_sdk::{Error, Result, job};

use crate::inventory::{self, Details};
use crate::names;
use crate::server;
use configuration::Configuration;
use layout::{Layout, MAIN};

/// What PostgreSQL demands of a data directory and what is in it.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Entries that the host takes in one call.
const BATCH: usize = 1_000;

/// A file that is changed on the way must fit into memory.
const MAX_TEXT: u64 = 1 << 20;

/// Files that would make the restored server follow or recover from another one.
const SIGNALS: &[&str] = &["standby.signal", "recovery.signal"];

/// Restores the current backup to the granted roots.
pub fn restore() -> Result<Restored> {
    let (backup, inventory) = inventory::current()?;
    let details = Details::of(&inventory)?;
    let major = server::major(&inventory.server.version);
    let layout = Layout::plan(major, &details.tablespaces, &destination::roots())?;
    let restore = Restore {
        configuration: Configuration::find(&backup)?,
        backup: &backup,
        layout,
        directories: BTreeSet::new(),
        queue: Vec::new(),
        files: 0,
        notes: Vec::new(),
    };
    restore.run(inventory.bytes, details.manifest)
}

struct Restore<'a> {
    backup: &'a Backup,
    layout: Layout,
    configuration: Configuration,
    /// Directories made below the main root for configuration.
    directories: BTreeSet<String>,
    queue: Vec<Extraction>,
    files: u64,
    notes: Vec<String>,
}

impl Restore<'_> {
    fn run(mut self, expected: u64, with_manifest: bool) -> Result<Restored> {
        destination::create_directory(MAIN, "", DIRECTORY_MODE)?;
        self.extract_below(names::DATA, expected)?;
        self.prepare_tablespaces()?;
        self.extract_below(names::TABLESPACES, expected)?;
        if with_manifest {
            self.queue_file(names::MANIFEST, MAIN, names::MANIFEST.to_owned())?;
        }
        self.flush()?;
        self.write_configuration()?;
        destination::settle()?;

        // A crash before this line leaves no cluster behind, one after it leaves a whole one.
        self.queue_file(names::CONTROL, MAIN, "global/pg_control".to_owned())?;
        self.flush()?;
        let bytes = destination::settle()?;
        job::progress("restore", bytes, Some(bytes), "bytes");
        Ok(Restored { files: self.files, bytes, notes: self.notes })
    }

    fn extract_below(&mut self, prefix: &str, expected: u64) -> Result<()> {
        let mut queued = 0;
        for entry in archive::entries(self.backup, prefix) {
            let entry = entry?;
            queued += entry.size.unwrap_or(0);
            self.place(entry)?;
            job::progress("restore", queued, Some(expected), "bytes");
        }
        Ok(())
    }

    /// Finds the place of one entry of the data directory or a tablespace.
    fn place(&mut self, entry: Entry) -> Result<()> {
        let Some((root, path)) = self.layout.place(&entry.path)? else { return Ok(()) };
        match entry.kind {
            EntryKind::Directory => {
                destination::create_directory(&root, &path, DIRECTORY_MODE)?;
                if root == MAIN {
                    self.directories.insert(path);
                }
                Ok(())
            }
            EntryKind::Symlink(target) => {
                self.notes.push(format!("the link {path} to {target} was not restored"));
                Ok(())
            }
            EntryKind::File if root == MAIN => self.place_main(&entry, path),
            EntryKind::File => self.queue_file(&entry.path, &root, path),
        }
    }

    fn place_main(&mut self, entry: &Entry, path: String) -> Result<()> {
        match path.as_str() {
            _ if entry.path == names::CONTROL => Ok(()),
            "tablespace_map" if self.layout.has_links() => {
                let map = self.layout.tablespace_map();
                self.write(&path, map.as_bytes())
            }
            signal if SIGNALS.contains(&signal) => {
                self.notes.push(format!("{path} was left out: the restored server follows no other"));
                Ok(())
            }
            file if self.configuration.replaces(file) => {
                self.notes
                    .push(format!("{path} of the data directory, which was not in use, is restored as {path}.unused"));
                self.queue_file(&entry.path, MAIN, format!("{path}.unused"))
            }
            "postgresql.conf" | "postgresql.auto.conf" if entry.size.unwrap_or(0) <= MAX_TEXT => {
                self.write_rewritten(&entry.path, &path)
            }
            _ => self.queue_file(&entry.path, MAIN, path),
        }
    }

    /// Makes the tablespaces' directories, and the links to them.
    fn prepare_tablespaces(&mut self) -> Result<()> {
        for tablespace in self.layout.tablespaces() {
            let link = format!("{}{}", names::LINKS, tablespace.oid);
            match &tablespace.root {
                None => destination::create_directory(MAIN, &link, DIRECTORY_MODE)?,
                Some(root) => {
                    destination::create_directory(root, "", DIRECTORY_MODE)?;
                    destination::link_root(MAIN, &link, root)?;
                }
            }
        }
        Ok(())
    }

    fn write_configuration(&mut self) -> Result<()> {
        for name in self.configuration.names().to_vec() {
            self.create_parents(&name)?;
            let entry = format!("{}{name}", names::CONFIG);
            if name.ends_with(".conf") && !matches!(name.as_str(), "pg_hba.conf" | "pg_ident.conf") {
                self.write_rewritten(&entry, &name)?;
            } else {
                self.queue_file(&entry, MAIN, name)?;
            }
        }
        self.flush()?;
        for missing in self.configuration.missing(self.backup)? {
            self.notes.push(format!("{} was not in the backup: {}", missing.name, missing.note));
            self.write(missing.name, missing.text.as_bytes())?;
        }
        Ok(())
    }

    fn create_parents(&mut self, path: &str) -> Result<()> {
        for (end, _) in path.match_indices('/') {
            let parent = path[..end].to_owned();
            if !self.directories.contains(&parent) {
                destination::create_directory(MAIN, &parent, DIRECTORY_MODE)?;
                self.directories.insert(parent);
            }
        }
        Ok(())
    }

    fn write_rewritten(&mut self, entry: &str, path: &str) -> Result<()> {
        let mut text = Vec::new();
        let source = self.backup.open(entry, 0, Some(MAX_TEXT))?;
        Reader(source).read_to_end(&mut text)?;
        // A file that is no UTF-8 text may have a comment in another encoding: it is restored as it is.
        let Ok(text) = String::from_utf8(text) else { return self.queue_file(entry, MAIN, path.to_owned()) };
        let rewritten = self.configuration.rewrite(self.backup, path, &text);
        self.notes.extend(rewritten.notes);
        self.write(path, rewritten.text.as_bytes())
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let sink = destination::create_file(MAIN, path, FILE_MODE)?;
        for part in bytes.chunks(MAX_LIST) {
            sink.write(part)?;
        }
        ByteSink::finish(sink)?;
        self.files += 1;
        Ok(())
    }

    fn queue_file(&mut self, entry: &str, root: &str, path: String) -> Result<()> {
        self.queue.push(Extraction { entry: entry.to_owned(), root: root.to_owned(), path, mode: FILE_MODE });
        self.files += 1;
        if self.queue.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if !self.queue.is_empty() {
            destination::extract(&self.queue)?;
            self.queue.clear();
        }
        if job::stop_requested() {
            return Err(Error::new("cancelled", "the restore was cancelled"));
        }
        Ok(())
    }
}
