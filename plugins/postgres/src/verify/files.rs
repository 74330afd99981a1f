//! The server's manifest against the files that are there, and pages against their checksums, in one pass.
//!
//! Without a manifest nothing tells which files there should be: those without which no server starts are looked for, and
//! pages are judged all the same.

use holdfast_sdk::archive::{Entry, EntryKind, entries};
use holdfast_sdk::document::Check;
use holdfast_sdk::io::{MAX_LIST, Reader};
use holdfast_sdk::{Result, job};
use sha2::{Digest, Sha256};

use super::{Findings, Subject, judged};
use crate::crc32c::Crc32c;
use crate::manifest::{self, File, WalRange};
use crate::names;
use crate::page::{self, Verdict};

/// What the manifest lists in part only: the log, which is judged by its own rules.
const LOG: &str = "data/pg_wal/";

/// What came of it.
pub struct Listed {
    /// `manifest`, `files` and `page-checksums`.
    pub checks: Vec<Check>,
    /// What replay needs, by the manifest; none where there is none.
    pub wal_ranges: Option<Vec<WalRange>>,
}

/// Files of every cluster, besides those with checks of their own.
const ALWAYS: &[&str] = &["data/PG_VERSION", "data/base/1/PG_VERSION", "data/global/pg_filenode.map"];

/// Checks all files, by the manifest if there is one.
pub fn check(subject: &Subject, data_checksums: bool) -> Result<Listed> {
    if subject.details.manifest {
        check_listed(subject, data_checksums)
    } else {
        check_unlisted(subject, data_checksums)
    }
}

fn check_listed(subject: &Subject, data_checksums: bool) -> Result<Listed> {
    let mut pass = Pass::new(subject, data_checksums);
    let mut wal_ranges = Vec::new();
    let manifest = match subject.find(names::MANIFEST)? {
        None => vec!["it is missing".into()],
        Some(_) => {
            let input = Reader(subject.backup.open(names::MANIFEST, 0, None)?);
            match manifest::read(input, |file| pass.check(&file)) {
                Err(error) if error.code == "manifest-damaged" => vec![error.message],
                Err(error) => return Err(error),
                Ok(manifest) => {
                    pass.compare_totals(manifest.files)?;
                    wal_ranges = manifest.wal_ranges;
                    let stated = manifest.system_identifier.map(|identifier| identifier.to_string());
                    match stated {
                        Some(stated) if stated != subject.system_identifier => {
                            vec![format!("it is of the cluster {stated}")]
                        }
                        _ => Vec::new(),
                    }
                }
            }
        }
    };
    Ok(Listed { checks: pass.into_checks(manifest), wal_ranges: Some(wal_ranges) })
}

fn check_unlisted(subject: &Subject, data_checksums: bool) -> Result<Listed> {
    let mut pass = Pass::new(subject, data_checksums);
    for path in ALWAYS {
        if subject.find(path)?.is_none() {
            pass.files.add(format!("{path} is missing"));
        }
    }
    let mut count = 0;
    for prefix in [names::DATA, names::TABLESPACES] {
        for entry in entries(&subject.backup, prefix) {
            let entry = entry?;
            if matches!(entry.kind, EntryKind::File) {
                count += 1;
                pass.check_unlisted(&entry)?;
            }
        }
    }
    let unlisted = "the server writes none before version 13: files that it left out would not be missed";
    let files = format!("{count} files, of which no list and no checksums tell");
    let checks = vec![
        judged("manifest", unlisted.into(), Vec::new()),
        judged("files", files, std::mem::take(&mut pass.files).into_lines()),
        pass.into_page_check(),
    ];
    Ok(Listed { checks, wal_ranges: None })
}

struct Pass<'a> {
    subject: &'a Subject,
    data_checksums: bool,
    /// Bytes looked at.
    done: u64,
    /// Pages judged.
    pages: u64,
    /// Files of the log's directory that the manifest lists, such as `archive_status/*.done`.
    log_files: u64,
    files: Findings,
    damaged: Findings,
}

impl<'a> Pass<'a> {
    fn new(subject: &'a Subject, data_checksums: bool) -> Self {
        Self {
            subject,
            data_checksums,
            done: 0,
            pages: 0,
            log_files: 0,
            files: Findings::default(),
            damaged: Findings::default(),
        }
    }

    fn check(&mut self, file: &File) -> Result<()> {
        let entry = names::of_manifest_path(&file.path()?);
        self.log_files += u64::from(entry.starts_with(LOG));
        let Some(found) = self.subject.find(&entry)? else {
            self.files.add(format!("{entry} is missing"));
            return Ok(());
        };
        if found.size != Some(file.size) {
            self.files.add(format!("{entry} has not {} bytes", file.size));
            return Ok(());
        }
        let actual = match names::relation_file(&entry) {
            Some(relation) if self.data_checksums => {
                self.read_pages(&entry, relation.segment, file.size, file.algorithm.as_deref())?
            }
            _ => self.digest(&entry, file)?,
        };
        let stated = file.checksum.as_deref().map(str::to_ascii_lowercase);
        match actual {
            Actual::Unknown(algorithm) => {
                self.files.add(format!("{entry} has a checksum by {algorithm}, which is not known"))
            }
            Actual::Nothing => {}
            Actual::Sum(actual) if stated.as_deref() == Some(&actual) => {}
            Actual::Sum(_) => self.files.add(format!("{entry} does not fit its checksum")),
        }
        self.count(file.size);
        Ok(())
    }

    /// Looks at a file of which nothing is known but what it is.
    fn check_unlisted(&mut self, entry: &Entry) -> Result<()> {
        let size = entry.size.unwrap_or(0);
        if let Some(relation) = names::relation_file(&entry.path).filter(|_| self.data_checksums) {
            self.read_pages(&entry.path, relation.segment, size, None)?;
        }
        self.count(size);
        Ok(())
    }

    fn count(&mut self, bytes: u64) {
        self.done += bytes;
        job::progress("verify", self.done, Some(self.subject.bytes), "bytes");
    }

    /// Has the host read a file.
    fn digest(&self, entry: &str, file: &File) -> Result<Actual> {
        Ok(match file.algorithm.as_deref() {
            None => Actual::Nothing,
            Some("CRC32C") => {
                let mut sum = self.subject.backup.digest(entry, "crc32c")?;
                // The server writes the number as it lies in its memory.
                sum.reverse();
                Actual::Sum(hex::encode(sum))
            }
            Some("SHA256") => Actual::Sum(hex::encode(self.subject.backup.digest(entry, "sha256")?)),
            Some(other) => Actual::Unknown(other.to_owned()),
        })
    }

    /// Reads a relation file page by page: both for the pages' checksums and for the file's.
    fn read_pages(&mut self, entry: &str, segment: u32, size: u64, algorithm: Option<&str>) -> Result<Actual> {
        let mut hasher = match Hasher::new(algorithm) {
            Ok(hasher) => hasher,
            Err(algorithm) => return Ok(Actual::Unknown(algorithm)),
        };
        let page_size = self.subject.details.block_size as usize;
        let source = self.subject.backup.open(entry, 0, None)?;
        let mut block = segment.wrapping_mul(self.subject.details.relation_segment_blocks);
        let mut remaining = size;
        while remaining > 0 {
            // The most that a call carries is a whole number of pages.
            let bytes = source.read_exact(remaining.min(MAX_LIST as u64) as u32)?;
            hasher.update(&bytes);
            for page in bytes.chunks(page_size) {
                self.judge(entry, page, page_size, block);
                block = block.wrapping_add(1);
            }
            remaining -= bytes.len() as u64;
        }
        Ok(hasher.finish())
    }

    fn judge(&mut self, entry: &str, page: &[u8], page_size: usize, block: u32) {
        self.pages += 1;
        if page.len() < page_size {
            self.damaged.add(format!("{entry} ends within block {block}"));
        } else if page::judge(page, block, self.subject.start()) == Verdict::Damaged {
            self.damaged.add(format!("{entry}, block {block}"));
        }
    }

    /// All listed files were looked for; as many as are there must be listed.
    fn compare_totals(&mut self, listed: u64) -> Result<()> {
        let mut there = 0;
        for prefix in [names::DATA, names::TABLESPACES] {
            for entry in entries(&self.subject.backup, prefix) {
                let entry = entry?;
                there += u64::from(matches!(entry.kind, EntryKind::File) && !entry.path.starts_with(LOG));
            }
        }
        let listed = listed - self.log_files;
        if there != listed {
            self.files.add(format!("the manifest lists {listed} files, and there are {there}"));
        }
        Ok(())
    }

    fn into_checks(mut self, manifest: Vec<String>) -> Vec<Check> {
        let listed = manifest.is_empty();
        let mut files = std::mem::take(&mut self.files).into_lines();
        if !listed {
            files.push("not all were looked at: the manifest is damaged".into());
        }
        vec![
            judged("manifest", "its own checksum fits".into(), manifest),
            judged("files", format!("{} bytes as the manifest lists them", self.done), files),
            self.into_page_check(),
        ]
    }

    fn into_page_check(self) -> Check {
        let pages = match self.data_checksums {
            true => format!("{} pages judged", self.pages),
            false => "the cluster has no data checksums".to_owned(),
        };
        judged("page-checksums", pages, self.damaged.into_lines())
    }
}

/// The checksum that a file turned out to have, in hexadecimal digits.
enum Actual {
    Sum(String),
    /// The manifest has none to compare with.
    Nothing,
    /// By an algorithm that is not known.
    Unknown(String),
}

/// A file's checksum in the making.
enum Hasher {
    Crc32c(Crc32c),
    Sha256(Sha256),
    None,
}

impl Hasher {
    fn new(algorithm: Option<&str>) -> Result<Self, String> {
        match algorithm {
            Some("CRC32C") => Ok(Self::Crc32c(Crc32c::new())),
            Some("SHA256") => Ok(Self::Sha256(Sha256::new())),
            None => Ok(Self::None),
            Some(other) => Err(other.to_owned()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32c(crc) => crc.update(bytes),
            Self::Sha256(sha) => sha.update(bytes),
            Self::None => {}
        }
    }

    fn finish(self) -> Actual {
        match self {
            Self::Crc32c(crc) => Actual::Sum(hex::encode(crc.value().to_le_bytes())),
            Self::Sha256(sha) => Actual::Sum(hex::encode(sha.finalize())),
            Self::None => Actual::Nothing,
        }
    }
}
