//! Judges a backup by PostgreSQL's own rules, reading all of it and holding little of it.
//!
//! The server's manifest must list exactly the files that are there, each with its size and checksum; pages must fit
//! their checksums where the cluster has them; `pg_control` and `backup_label` must be of this cluster and this backup;
//! and the log must be there from the first to the last byte that replay needs. What a server was too old to say, or a
//! cluster does not have, is not checked, and the checks say so.

mod files;
mod log;

use std::io::Read;

use holdfast_sdk::archive::{Backup, Entry};
use holdfast_sdk::document::{Check, Inventory, Verified, VerifyRequest};
use holdfast_sdk::io::Reader;
use holdfast_sdk::{Error, Result};

use crate::control::Control;
use crate::inventory::{self, Details};
use crate::label;
use crate::lsn::Lsn;
use crate::manifest::WalRange;
use crate::names;

/// Findings that are named one by one; more are only counted.
const MAX_NAMED: usize = 10;

/// Bytes of a small file that is judged as a whole.
const MAX_SMALL: u64 = 64 << 10;

/// Does what the host asks for.
pub fn verify(request: &VerifyRequest) -> Result<Verified> {
    if request.level != "engine" {
        return Err(Error::new("unsupported", format!("no verification of level {:?}", request.level))
            .hint("Use the level engine."));
    }
    let (backup, inventory) = inventory::current()?;
    let subject = Subject::new(backup, inventory)?;
    let (control_check, control) = subject.control()?;
    let data_checksums = control.map_or(subject.details.data_checksums, |control| control.data_checksums);
    let listed = files::check(&subject, data_checksums)?;
    let mut checks = vec![control_check, subject.label()?];
    checks.extend(listed.checks);
    checks.push(log::check(&subject, listed.wal_ranges.as_deref())?);
    Ok(Verified::of(checks))
}

/// The backup in question, with what its inventory says.
struct Subject {
    backup: Backup,
    details: Details,
    system_identifier: String,
    bytes: u64,
    /// What replay needs, by the inventory.
    needed: WalRange,
}

impl Subject {
    fn new(backup: Backup, inventory: Inventory) -> Result<Self> {
        let details = Details::of(&inventory)?;
        let invalid = || Error::new("invalid-document", "the backup's inventory lacks position or timeline");
        let position = inventory.position.ok_or_else(invalid)?;
        let timeline = inventory.server.timeline.ok_or_else(invalid)?;
        let needed = WalRange { timeline, start: position.from.parse()?, end: position.to.parse()? };
        let system_identifier = inventory.server.system_identifier;
        Ok(Self { backup, details, system_identifier, bytes: inventory.bytes, needed })
    }

    /// Where the backup began: younger pages are replaced by replay.
    fn start(&self) -> Lsn {
        self.needed.start
    }

    /// The entry of this path.
    fn find(&self, path: &str) -> Result<Option<Entry>> {
        // The exact path comes first of all that begin with it.
        let first = self.backup.entries(path, "", 1)?.into_iter().next();
        Ok(first.filter(|entry| entry.path == path))
    }

    /// A small file as a whole.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        if self.find(path)?.is_none() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        Reader(self.backup.open(path, 0, Some(MAX_SMALL))?).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn control(&self) -> Result<(Check, Option<Control>)> {
        let parsed = match self.read(names::CONTROL)? {
            Some(bytes) => Control::parse(&bytes).map_err(|flaw| flaw.to_string()),
            None => Err("it is missing".into()),
        };
        let (findings, control) = match parsed {
            Err(finding) => (vec![finding], None),
            Ok(control) => {
                let mut findings = Vec::new();
                if control.system_identifier.to_string() != self.system_identifier {
                    findings.push(format!("it is of the cluster {}", control.system_identifier));
                }
                if !control.has_valid_state() {
                    findings.push(format!("the cluster's state is {}", control.state));
                }
                (findings, Some(control))
            }
        };
        let good = format!("of the cluster {}", self.system_identifier);
        Ok((judged("pg-control", good, findings), control))
    }

    fn label(&self) -> Result<Check> {
        let text = self.read("data/backup_label")?;
        let findings = match text {
            Some(text) => {
                label::objections(&String::from_utf8_lossy(&text), &self.needed, self.details.wal_segment_size)
            }
            None => vec!["it is missing: a server would not find a consistent state".into()],
        };
        Ok(judged("backup-label", format!("replay begins at {}", self.start()), findings))
    }
}

/// A check that passes without findings, with `good` to say then.
fn judged(name: &str, good: String, findings: Vec<String>) -> Check {
    let passed = findings.is_empty();
    let detail = if passed { good } else { findings.join("; ") };
    Check { name: name.to_owned(), passed, detail }
}

/// What was found wrong with many things: the first few by name.
#[derive(Default)]
struct Findings {
    named: Vec<String>,
    more: u64,
}

impl Findings {
    fn add(&mut self, finding: String) {
        if self.named.len() < MAX_NAMED {
            self.named.push(finding);
        } else {
            self.more += 1;
        }
    }

    fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.named.push(format!("and {} more", self.more));
        }
        self.named
    }
}
