//! Harm to memory: the guest's own, and what the host keeps for it.

use holdfast_sdk::archive::{ContentClass, Entry, annotate, begin_entry, current};
use holdfast_sdk::{Error, Result, endpoint, io, job};

use crate::Harm;
use crate::honest::{self, file, noise};

pub const HARMS: &[Harm] = &[
    ("memory", grow),
    ("backup-handles", keep_backups),
    ("connection-handles", keep_halves),
    ("connections", keep_connections),
    ("open-entries", open_entries),
    ("open-sources", open_sources),
    ("entry-records", record),
    ("short-entries", record_contents),
    ("annotations", annotate_for_ever),
    ("giant-message", say_much),
    ("giant-error", fail_at_length),
    ("error-over-limit", fail_over_limit),
    ("random", ask_for_randomness),
    ("many-sources", wait_for_many),
    ("giant-list", write_too_much),
];

const MIB: usize = 1 << 20;

fn grow() -> Result<()> {
    let mut held = Vec::new();
    loop {
        held.push(vec![1_u8; MIB]);
    }
}

fn keep_backups() -> Result<()> {
    loop {
        std::mem::forget(current());
    }
}

fn keep_halves() -> Result<()> {
    let connection = endpoint::connect(0)?;
    loop {
        std::mem::forget(connection.input());
    }
}

fn keep_connections() -> Result<()> {
    loop {
        // One that the server is too slow for is not kept; the next one is.
        if let Ok(connection) = endpoint::connect(0) {
            std::mem::forget(connection);
        }
    }
}

/// Each open entry has a buffer at the host.
fn open_entries() -> Result<()> {
    let part = noise(io::MAX_LIST);
    for number in 0.. {
        let sink = begin_entry(&file(&format!("open-{number}")), ContentClass::Bytes)?;
        for _ in 0..20 {
            sink.write(&part)?;
        }
        std::mem::forget(sink);
    }
    Ok(())
}

/// Each open source is read ahead of.
fn open_sources() -> Result<()> {
    let backup = honest::current()?;
    loop {
        let source = backup.open("first", 0, None)?;
        source.read(1)?;
        std::mem::forget(source);
    }
}

/// Each entry has a record at the host, with all that the guest says of it.
fn record() -> Result<()> {
    let much = "x".repeat(15 << 10);
    for number in 0.. {
        let mut entry = file(&format!("record-{number}"));
        entry.extra.push(("much".into(), much.clone()));
        io::ByteSink::finish(begin_entry(&entry, ContentClass::Bytes)?)?;
    }
    Ok(())
}

/// A content that is short lies in the record.
fn record_contents() -> Result<()> {
    let content = noise(512);
    for number in 0_u64.. {
        let sink = begin_entry(&file(&number.to_string()), ContentClass::Bytes)?;
        sink.write(&content)?;
        io::ByteSink::finish(sink)?;
    }
    Ok(())
}

/// Short ones, which cost the host more than they say.
fn annotate_for_ever() -> Result<()> {
    for number in 0_u64.. {
        let path = format!("annotated-{number}");
        io::ByteSink::finish(begin_entry(&Entry { size: Some(0), ..file(&path) }, ContentClass::Bytes)?)?;
        for key in 0..1_000 {
            annotate(&path, &key.to_string(), "")?;
        }
    }
    Ok(())
}

fn say_much() -> Result<()> {
    job::log("info", &"x".repeat(2 * MIB));
    Ok(())
}

fn fail_at_length() -> Result<()> {
    Err(Error::new("long", "x".repeat(MIB / 2)).hint("y".repeat(MIB / 4)))
}

fn fail_over_limit() -> Result<()> {
    Err(Error::new("long", "x".repeat(2 * MIB)))
}

fn ask_for_randomness() -> Result<()> {
    job::random(u32::MAX);
    Ok(())
}

fn wait_for_many() -> Result<()> {
    let connection = endpoint::connect(0)?;
    let source = connection.input();
    io::wait(&vec![&source; 2_000], 0)?;
    Ok(())
}

fn write_too_much() -> Result<()> {
    let sink = begin_entry(&file("giant"), ContentClass::Bytes)?;
    sink.write(&vec![0; io::MAX_LIST + 1])?;
    Ok(())
}
