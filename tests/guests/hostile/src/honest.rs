//! What the guest does when it means no harm.

use holdfast_sdk::archive::{self, Backup, ContentClass, Entry, EntryKind, Tally};
use holdfast_sdk::destination::{self, Extraction};
use holdfast_sdk::document::{Check, Inventory, Probe, Restored, Server, Verified};
use holdfast_sdk::io::{MAX_LIST, Reader};
use holdfast_sdk::{Error, Result};
use serde_json::{Map, Value};

/// The entries, and their bytes: more than a chunk, and less than one.
pub const ENTRIES: [(&str, u64); 2] = [("first", 1_500_000), ("second", 70_000)];

/// A file of unknown size.
pub fn file(path: &str) -> Entry {
    Entry { path: path.into(), kind: EntryKind::File, size: None, mode: 0o600, modified: 0, extra: Vec::new() }
}

/// Bytes that do not compress, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(step).take(length).collect()
}

pub fn probe() -> Probe {
    Probe {
        version: "1".into(),
        role: "primary".into(),
        size_bytes: Some(ENTRIES.iter().map(|(_, bytes)| bytes).sum()),
        server_id: "1".into(),
        problems: Vec::new(),
        members: Vec::new(),
    }
}

/// Writes the entries; the harm comes when one is sealed and the next is open.
pub fn dump(harm: impl FnOnce() -> Result<()>) -> Result<Inventory> {
    let mut tally = Tally::default();
    let [(first, first_bytes), (second, second_bytes)] = ENTRIES;
    tally.write(&file(first), ContentClass::Pages(8_192), &noise(first_bytes as usize))?;
    let sink = archive::begin_entry(&file(second), ContentClass::Bytes)?;
    for part in noise(second_bytes as usize).chunks(MAX_LIST) {
        sink.write(part)?;
    }
    harm()?;
    tally.finish(sink)?;
    let server = Server {
        version: "1".into(),
        system_identifier: "1".into(),
        timeline: None,
        role: "primary".into(),
        member: None,
    };
    let Tally { entries, bytes } = tally;
    Ok(Inventory { entries, bytes, server, position: None, warnings: Vec::new(), details: Map::new() })
}

/// The backup that a restore or a verification is about.
pub fn current() -> Result<Backup> {
    archive::current().ok_or_else(|| Error::new("no-backup", "there is no current backup"))
}

/// What the dump's settings said for this export.
pub fn remembered(export: &str) -> Result<String> {
    let document: Value = serde_json::from_str(&current()?.document())?;
    Ok(document[export].as_str().unwrap_or(crate::NOTHING).to_owned())
}

/// Restores the entries; the harm comes when the first is durable.
pub fn restore(harm: impl FnOnce() -> Result<()>) -> Result<Restored> {
    let extract = |entry: &str| {
        let order = Extraction { entry: entry.into(), root: String::new(), path: entry.into(), mode: 0o600 };
        destination::extract(&[order])
    };
    let [(first, _), (second, _)] = ENTRIES;
    extract(first)?;
    destination::settle()?;
    harm()?;
    extract(second)?;
    Ok(Restored { files: ENTRIES.len() as u64, bytes: destination::settle()?, notes: Vec::new() })
}

/// Reads the entries; the harm comes between them.
pub fn verify(harm: impl FnOnce() -> Result<()>) -> Result<Verified> {
    let backup = current()?;
    let check = |(path, bytes): (&str, u64)| -> Result<Check> {
        let source = backup.open(path, 0, None)?;
        let read = std::io::copy(&mut Reader(&source), &mut std::io::sink())?;
        Ok(Check { name: path.into(), passed: read == bytes, detail: format!("{read} bytes") })
    };
    let [first, second] = ENTRIES;
    let first = check(first)?;
    harm()?;
    Ok(Verified::of(vec![first, check(second)?]))
}
