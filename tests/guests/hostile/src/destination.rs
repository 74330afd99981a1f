//! Harm to the machine that is restored to: paths that lead out of the root, links, and what is left behind.

use holdfast_sdk::destination::{Extraction, create_directory, create_file, extract, link_root, settle};
use holdfast_sdk::io::{self, ByteSink};
use holdfast_sdk::{Error, Result};

use crate::Harm;

pub const HARMS: &[Harm] = &[
    ("file-up", || create("", "../escaped")),
    ("file-in-the-middle", || create("", "a/../../escaped")),
    ("file-absolute", || create("", "/tmp/escaped")),
    ("file-nul", || create("", "a\0b")),
    ("file-twice", || create("", "first")),
    ("file-nowhere", || create("", "nowhere/file")),
    ("file-without-root", || create("/etc", "escaped")),
    ("file-beneath-file", || create("", "first/file")),
    ("directory-up", || Ok(create_directory("", "../escaped", 0o777)?)),
    ("link-to-anything", || Ok(link_root("", "link", "/etc")?)),
    ("link-up", || Ok(link_root("", "../link", "")?)),
    ("through-a-link", walk_through_link),
    ("extract-up", || draw("first", "../escaped")),
    ("extract-through-a-link", extract_through_link),
    ("extract-nothing", || draw("nothing", "file")),
    ("extract-many", extract_many),
    ("extract-link", || draw("link", "file")),
    ("uncounted-file", || create("", "more")),
    ("endless-file", write_for_ever),
    ("endless-directories", make_for_ever),
    ("half", write_half),
    ("closed-directory", close_directory),
    ("swallowed", swallow),
    ("roots", invent_root),
];

fn create(root: &str, path: &str) -> Result<()> {
    ByteSink::finish(create_file(root, path, 0o666)?)?;
    Ok(())
}

fn order(entry: &str, path: &str) -> Extraction {
    Extraction { entry: entry.into(), root: String::new(), path: path.into(), mode: 0o666 }
}

fn draw(entry: &str, path: &str) -> Result<()> {
    extract(&[order(entry, path)])?;
    settle()?;
    Ok(())
}

/// A link to a root is allowed, and is no way.
fn walk_through_link() -> Result<()> {
    link_root("", "link", "")?;
    create("", "link/escaped")
}

fn extract_through_link() -> Result<()> {
    link_root("", "link", "")?;
    draw("first", "link/escaped")
}

fn extract_many() -> Result<()> {
    let orders: Vec<_> = (0..2_000).map(|number| order("first", &number.to_string())).collect();
    Ok(extract(&orders)?)
}

fn write_for_ever() -> Result<()> {
    let part = vec![0; io::MAX_LIST];
    let sink = create_file("", "endless", 0o600)?;
    loop {
        sink.write(&part)?;
    }
}

fn make_for_ever() -> Result<()> {
    for number in 0_u64.. {
        create_directory("", &number.to_string(), 0o700)?;
    }
    Ok(())
}

#[expect(clippy::panic, reason = "it is what is tried")]
fn write_half() -> Result<()> {
    let sink = create_file("", "half", 0o600)?;
    sink.write(b"half of")?;
    panic!("enough of it")
}

/// Who empties the root must get in here.
fn close_directory() -> Result<()> {
    create_directory("", "closed", 0o700)?;
    create_directory("", "closed/deep", 0o700)?;
    create("", "closed/deep/file")?;
    create_directory("", "closed-for-all", 0)?;
    Err(Error::new("left", "a closed directory was left behind"))
}

/// An extraction that failed, and a guest that does not ask how it went.
fn swallow() -> Result<()> {
    extract(&[order("nothing", "file")])?;
    Ok(())
}

fn invent_root() -> Result<()> {
    create("../..", "escaped")
}
