//! A record of the table of entries (FORMAT §6).

use std::collections::BTreeMap;

use super::Malformed;
use super::cbor::{Blob, structure};
use crate::tree::{Cut, Tree};
use crate::{Entry, EntryKind};

structure! {
    /// One entry as the table holds it.
    EntryRecord {
        1 path: String,
        2 kind: u64,
        3 size: Option<u64>,
        4 mode: u32,
        5 modified: i64,
        6 page: Option<u32>,
        7 chunk: Option<u32>,
        8 inline: Option<Blob>,
        9 level: Option<u64>,
        10 root: Option<Blob>,
        11 annotations: BTreeMap<String, String>,
        12 link: Option<String>,
    }
}

const FILE: u64 = 0;
const DIRECTORY: u64 = 1;
const SYMLINK: u64 = 2;

/// A file's bytes as its record gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Inline(Vec<u8>),
    /// With the page size of its class, 0 for `bytes`.
    Tree(u32, Tree),
}

impl EntryRecord {
    /// The record of an entry whose bytes, if it is a file, are `content`.
    pub(crate) fn new(entry: Entry, content: Content) -> Self {
        let (kind, link) = match entry.kind {
            EntryKind::File => (FILE, None),
            EntryKind::Directory => (DIRECTORY, None),
            EntryKind::Symlink(target) => (SYMLINK, Some(target)),
        };
        let mut record = Self {
            path: entry.path,
            kind,
            size: None,
            mode: entry.mode,
            modified: entry.modified,
            page: None,
            chunk: None,
            inline: None,
            level: None,
            root: None,
            annotations: entry.annotations,
            link,
            extra: Default::default(),
        };
        if kind == FILE {
            record.set_content(content);
        }
        record
    }

    fn set_content(&mut self, content: Content) {
        match content {
            Content::Inline(bytes) => {
                self.size = Some(bytes.len() as u64);
                self.inline = Some(Blob(bytes));
            }
            Content::Tree(page, tree) => {
                self.size = Some(tree.bytes);
                self.page = Some(page);
                self.chunk = match tree.cut {
                    Cut::Fixed(chunk) => Some(chunk),
                    Cut::Variable => None,
                };
                self.level = Some(tree.level.into());
                self.root = Some(Blob(tree.root));
            }
        }
    }

    /// A file's content; an error where the record's fields do not fit together.
    pub(crate) fn content(&self) -> Result<Content, Malformed> {
        let size = self.size.ok_or(Malformed("a file has no size"))?;
        match (&self.inline, &self.root, self.page, self.chunk) {
            (Some(inline), None, None, None) if inline.0.len() as u64 == size => Ok(Content::Inline(inline.0.clone())),
            (None, Some(root), Some(page), chunk) => {
                let cut = match (page, chunk) {
                    (0, None) => Cut::Variable,
                    (1.., Some(chunk)) => Cut::Fixed(chunk),
                    _ => return Err(Malformed("an entry's class and chunk size do not fit")),
                };
                let level = self.level.ok_or(Malformed("an entry's tree has no level"))?;
                Ok(Content::Tree(page, Tree::new(cut, level, root.0.clone(), size)?))
            }
            _ => Err(Malformed("an entry's content is not told in one way")),
        }
    }

    /// What callers see of it.
    pub(crate) fn entry(&self) -> Result<Entry, Malformed> {
        let kind = match (self.kind, &self.link) {
            (FILE, None) => EntryKind::File,
            (DIRECTORY, None) => EntryKind::Directory,
            (SYMLINK, Some(target)) => EntryKind::Symlink(target.clone()),
            _ => return Err(Malformed("an entry's kind is unknown")),
        };
        if !is_valid_path(&self.path) {
            return Err(Malformed("an entry's path is not valid"));
        }
        if kind == EntryKind::File {
            self.content()?;
        }
        Ok(Entry {
            path: self.path.clone(),
            kind,
            size: self.size,
            mode: self.mode,
            modified: self.modified,
            annotations: self.annotations.clone(),
        })
    }
}

/// Longest path and longest link target, in bytes.
pub(crate) const PATH_MAX: usize = 4096;

/// Relative, `/` between parts, no empty, `.` or `..` part, no NUL.
pub(crate) fn is_valid_path(path: &str) -> bool {
    path.len() <= PATH_MAX && !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::cbor;

    fn entry(kind: EntryKind) -> Entry {
        Entry { path: "a/b".into(), kind, size: None, mode: 0o644, modified: -1, annotations: BTreeMap::new() }
    }

    #[test]
    fn entries_have_these_bytes() {
        let inline = EntryRecord::new(entry(EntryKind::File), Content::Inline(b"hi".to_vec()));
        assert_eq!(
            hex::encode(cbor::encode(&inline)),
            "a70163612f62020003020 41901a4052008426869 0ba0".replace(' ', "")
        );
        let tree = Tree { cut: Cut::Fixed(65536), level: 0, root: vec![7; 32], bytes: 600 };
        let tree = EntryRecord::new(entry(EntryKind::File), Content::Tree(8192, tree));
        let expected =
            ["aa0163612f6202000319025804 1901a4052006192000071a0001000009000a5820", &"07".repeat(32), "0ba0"].concat();
        assert_eq!(hex::encode(cbor::encode(&tree)), expected.replace(' ', ""));
        let link = EntryRecord::new(entry(EntryKind::Symlink("t".into())), Content::Inline(Vec::new()));
        assert_eq!(hex::encode(cbor::encode(&link)), "a60163612f620202041901a405200ba00c6174");
        for record in [inline, tree, link] {
            let read: EntryRecord = cbor::decode(&cbor::encode(&record)).unwrap();
            assert_eq!(read, record);
            assert!(read.entry().is_ok());
        }
    }

    #[test]
    fn contradictory_records_are_refused() {
        let sound = EntryRecord::new(entry(EntryKind::File), Content::Inline(b"hi".to_vec()));
        for spoil in [
            |record: &mut EntryRecord| record.size = Some(3),
            |record: &mut EntryRecord| record.size = None,
            |record: &mut EntryRecord| record.inline = None,
            |record: &mut EntryRecord| record.root = Some(Blob(vec![0; 32])),
            |record: &mut EntryRecord| record.link = Some("t".into()),
            |record: &mut EntryRecord| record.kind = 3,
            |record: &mut EntryRecord| record.path = "../etc".into(),
        ] {
            let mut record = sound.clone();
            spoil(&mut record);
            assert!(record.entry().is_err(), "{record:?}");
        }
    }

    #[test]
    fn paths_stay_below_their_root() {
        for path in ["a", "a/b", "base/16384/2619_vm", "...", "é"] {
            assert!(is_valid_path(path), "{path}");
        }
        for path in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b", &"a".repeat(4097)] {
            assert!(!is_valid_path(path), "{path}");
        }
    }
}
