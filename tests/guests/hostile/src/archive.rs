//! Harm to the archive: names that lead out of it, entries that lie, output without end.

use holdfast_sdk::archive::{ContentClass, Entry, EntryKind, annotate, begin_entry, parent, reuse};
use holdfast_sdk::io::{self, ByteSink};
use holdfast_sdk::{Error, Result, endpoint};

use crate::Harm;
use crate::honest::{file, noise};

pub const HARMS: &[Harm] = &[
    ("path-up", || begin("../../up")),
    ("path-in-the-middle", || begin("a/../../up")),
    ("path-absolute", || begin("/etc/cron.d/up")),
    ("path-dot", || begin("./a")),
    ("path-empty", || begin("")),
    ("path-control", || begin("a\u{1b}[2J\nb")),
    ("path-nul", || begin("a\0b")),
    ("path-long", || begin(&"x".repeat(5_000))),
    ("path-twice", || begin("first")),
    ("path-open", || begin("second")),
    ("size", declare_more),
    ("size-less", declare_less),
    ("class", odd_pages),
    ("extra", say_much),
    ("extra-twice", say_twice),
    ("annotate-nothing", annotate_nothing),
    ("annotate-much", annotate_much),
    ("bytes-in-a-directory", fill_directory),
    ("long-link", long_link),
    ("reuse", reuse_nothing),
    ("parent", read_parent),
    ("unfinished", leave_open),
    ("endless", write_for_ever),
    ("endless-transfer", transfer_for_ever),
    ("endless-entries", begin_for_ever),
    ("not-granted", || begin("entry")),
];

fn begin(path: &str) -> Result<()> {
    ByteSink::finish(begin_entry(&file(path), ContentClass::Bytes)?)?;
    Ok(())
}

fn sized(size: u64) -> Result<()> {
    let sink = begin_entry(&Entry { size: Some(size), ..file("sized") }, ContentClass::Bytes)?;
    sink.write(&noise(1_000))?;
    ByteSink::finish(sink)?;
    Ok(())
}

fn declare_more() -> Result<()> {
    sized(u64::MAX)
}

fn declare_less() -> Result<()> {
    sized(1)
}

fn odd_pages() -> Result<()> {
    begin_entry(&file("odd"), ContentClass::Pages(3))?;
    Ok(())
}

fn extra(pairs: &[(&str, &str)]) -> Entry {
    let extra = pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Entry { extra, ..file("extra") }
}

fn say_much() -> Result<()> {
    begin_entry(&extra(&[("much", &"x".repeat(100_000))]), ContentClass::Bytes)?;
    Ok(())
}

fn say_twice() -> Result<()> {
    begin_entry(&extra(&[("key", "one"), ("key", "other")]), ContentClass::Bytes)?;
    Ok(())
}

fn annotate_nothing() -> Result<()> {
    Ok(annotate("nothing", "key", "value")?)
}

fn annotate_much() -> Result<()> {
    for number in 0.. {
        annotate("first", &number.to_string(), &"x".repeat(10_000))?;
    }
    Ok(())
}

fn fill_directory() -> Result<()> {
    let sink = begin_entry(&Entry { kind: EntryKind::Directory, ..file("directory") }, ContentClass::Bytes)?;
    sink.write(b"bytes")?;
    ByteSink::finish(sink)?;
    Ok(())
}

fn long_link() -> Result<()> {
    let kind = EntryKind::Symlink("../".repeat(10_000));
    begin_entry(&Entry { kind, ..file("link") }, ContentClass::Bytes)?;
    Ok(())
}

fn reuse_nothing() -> Result<()> {
    let sink = begin_entry(&file("reused"), ContentClass::Bytes)?;
    Ok(reuse(&sink, "first", 0, u64::MAX)?)
}

fn read_parent() -> Result<()> {
    match parent() {
        Some(_) => Ok(()),
        None => Err(Error::new("no-parent", "there is no parent to be read")),
    }
}

/// The inventory of honest work does not know this entry, and the host must not either.
fn leave_open() -> Result<()> {
    let sink = begin_entry(&file("open"), ContentClass::Bytes)?;
    sink.write(&noise(1_000))?;
    std::mem::forget(sink);
    Ok(())
}

fn write_for_ever() -> Result<()> {
    let part = vec![0; io::MAX_LIST];
    let sink = begin_entry(&file("endless"), ContentClass::Bytes)?;
    loop {
        sink.write(&part)?;
    }
}

/// From a server that never ends.
fn transfer_for_ever() -> Result<()> {
    let sink = begin_entry(&file("endless"), ContentClass::Pages(8_192))?;
    let connection = endpoint::connect(0)?;
    io::transfer(&connection.input(), &sink, u64::MAX)?;
    Ok(())
}

fn begin_for_ever() -> Result<()> {
    for number in 0_u64.. {
        let empty = Entry { size: Some(0), ..file(&number.to_string()) };
        ByteSink::finish(begin_entry(&empty, ContentClass::Bytes)?)?;
    }
    Ok(())
}
