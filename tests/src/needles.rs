//! Looks for known bytes in every file below a directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;

/// Something that must not be readable anywhere.
pub struct Needle {
    /// What it is, for messages.
    pub what: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Needle {
    /// A needle of text.
    pub fn text(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, bytes: text.into().into_bytes() }
    }
}

/// What a search found and how much it looked at.
#[derive(Default)]
pub struct Search {
    /// One text a find.
    pub found: Vec<String>,
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Reads every file below a path, and their names with them.
pub fn search(path: &Path, needles: &[Needle]) -> Result<Search> {
    let mut search = Search::default();
    let mut pending: Vec<PathBuf> = vec![path.into()];
    while let Some(path) = pending.pop() {
        search.look(&path, "name", path.as_os_str().as_encoded_bytes(), needles);
        if path.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        } else if path.is_file() {
            let content = fs::read(&path)?;
            search.files += 1;
            search.bytes += content.len() as u64;
            search.look(&path, "content", &content, needles);
        }
    }
    Ok(search)
}

impl Search {
    fn look(&mut self, path: &Path, place: &str, hay: &[u8], needles: &[Needle]) {
        for needle in needles.iter().filter(|needle| contains(hay, &needle.bytes)) {
            self.found.push(format!("{} in the {place} of {}", needle.what, path.display()));
        }
    }
}

/// Whether the needle occurs in the hay. An empty needle would be found everywhere, which no caller means.
fn contains(hay: &[u8], needle: &[u8]) -> bool {
    let Some((first, rest)) = needle.split_first() else {
        return true;
    };
    let mut from = 0;
    while let Some(at) = hay[from..].iter().position(|byte| byte == first) {
        let tail = &hay[from + at + 1..];
        if tail.starts_with(rest) {
            return true;
        }
        from += at + 1;
    }
    false
}
