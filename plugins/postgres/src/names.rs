//! Names: where a file of the cluster lies in the backup, and what its name says of it.
//!
//! A backup has `data/` (the data directory), `tablespaces/OID/` (what lies outside of it), `config/` (configuration that
//! lay outside) and `backup_manifest`.

use holdfast_sdk::archive::ContentClass;
use holdfast_sdk::{Error, Result};

/// Entries of the data directory.
pub const DATA: &str = "data/";
/// Entries of tablespaces, below their oid.
pub const TABLESPACES: &str = "tablespaces/";
/// Configuration files from outside of the data directory.
pub const CONFIG: &str = "config/";
/// The server's own list of files.
pub const MANIFEST: &str = "backup_manifest";
/// What must be written last: a server takes a directory without it for no cluster.
pub const CONTROL: &str = "data/global/pg_control";
/// Where the data directory has the log.
pub const LOG: &str = "pg_wal/";
/// Where the data directory has links to its tablespaces.
pub const LINKS: &str = "pg_tblspc/";

/// Most bytes of a path in a backup.
const MAX_PATH: usize = 4_096;

/// A path as it came from the server, made fit for a backup: relative, without `.` and `..`; bytes that are not UTF-8,
/// and control characters, become `%XX`.
pub fn sanitize(raw: &[u8]) -> Result<String> {
    let raw = raw.strip_prefix(b"./").unwrap_or(raw);
    let raw = raw.strip_suffix(b"/").unwrap_or(raw);
    let mut path = String::with_capacity(raw.len());
    for chunk in raw.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character.is_control() {
                true => escape(&mut path, character.encode_utf8(&mut [0; 4]).as_bytes()),
                false => path.push(character),
            }
        }
        escape(&mut path, chunk.invalid());
    }
    let valid = path.len() <= MAX_PATH && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    valid.then_some(path).ok_or_else(|| {
        let shown: String = String::from_utf8_lossy(raw).chars().take(100).collect();
        Error::new("malformed-archive", format!("the server sent a file with the impossible name {shown:?}"))
    })
}

fn escape(path: &mut String, bytes: &[u8]) {
    for byte in bytes {
        path.push_str(&format!("%{byte:02X}"));
    }
}

/// Where the file that the server's manifest calls `path` lies in the backup.
pub fn of_manifest_path(path: &str) -> String {
    match path.strip_prefix(LINKS) {
        // A tablespace that lies in the data directory itself is sent as an archive of its own all the same.
        Some(rest) if rest.contains('/') => format!("{TABLESPACES}{rest}"),
        _ => format!("{DATA}{path}"),
    }
}

/// The option by which an operator gives a tablespace a new place, as a shell takes it.
pub fn map_option(old: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if old.bytes().all(plain) {
        format!("--map {old}=DIRECTORY")
    } else {
        format!("--map '{}=DIRECTORY'", old.replace('\'', r"'\''"))
    }
}

/// Which part of a relation a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationFile {
    /// Its number among the files that a large relation is cut into.
    pub segment: u32,
}

/// What the name of an entry says if it is a relation file: made of pages.
pub fn relation_file(entry: &str) -> Option<RelationFile> {
    let parts: Vec<&str> = entry.split('/').collect();
    let name = match parts[..] {
        ["data", "global", name] => name,
        ["data", "base", database, name] if is_number(database) => name,
        ["tablespaces", oid, version, database, name]
            if is_number(oid) && version.starts_with("PG_") && is_number(database) =>
        {
            name
        }
        _ => return None,
    };
    let segment = relation_segment(name)?;
    Some(RelationFile { segment })
}

/// The number of a relation's file among those that it is cut into; none if it is no relation's.
fn relation_segment(name: &str) -> Option<u32> {
    let (name, segment) = match name.split_once('.') {
        Some((name, segment)) if is_number(segment) => (name, segment.parse().ok()?),
        Some(_) => return None,
        None => (name, 0),
    };
    let relation = match name.split_once('_') {
        Some((relation, "fsm" | "vm" | "init")) => relation,
        Some(_) => return None,
        None => name,
    };
    is_number(relation).then_some(segment)
}

/// Whether a path at the server is that of a relation's file, in whatever tablespace.
pub fn is_relation_path(path: &str) -> bool {
    match path.rsplit('/').collect::<Vec<_>>()[..] {
        [name, "global", ..] => relation_segment(name).is_some(),
        [name, database, _, ..] => relation_segment(name).is_some() && is_number(database),
        _ => false,
    }
}

/// A relation file's path without the number of the segment, and that number.
pub fn cut_segment(path: &str) -> (&str, u32) {
    match path.rsplit_once('.') {
        Some((relation, segment)) if is_number(segment) => (relation, segment.parse().unwrap_or(0)),
        _ => (path, 0),
    }
}

fn is_number(text: &str) -> bool {
    (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What the chunker should see in an entry.
pub fn class(entry: &str, block_size: u32) -> ContentClass {
    match relation_file(entry) {
        Some(_) => ContentClass::Pages(block_size),
        None => ContentClass::Bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_relation_files_by_their_place_and_name() {
        for (entry, segment) in [
            ("data/base/5/1259", 0),
            ("data/base/5/1259.3", 3),
            ("data/base/5/1259_fsm", 0),
            ("data/base/5/1259_vm.12", 12),
            ("data/global/1262", 0),
            ("tablespaces/16385/PG_15_202209061/5/16390_init", 0),
        ] {
            assert_eq!(relation_file(entry), Some(RelationFile { segment }), "{entry}");
        }
        for entry in [
            "data/global/pg_control",
            "data/global/pg_filenode.map",
            "data/base/5/PG_VERSION",
            "data/base/5/t3_16390",
            "data/base/5/1259.x",
            "data/base/5/1259_old",
            "data/base/pgsql_tmp/1",
            "data/pg_xact/0000",
            "data/pg_wal/000000010000000000000002",
            "tablespaces/16385/1259",
            "data/1259",
        ] {
            assert_eq!(relation_file(entry), None, "{entry}");
        }
    }

    #[test]
    fn knows_relation_files_at_the_server() {
        for path in ["global/1262", "base/5/1259.3", "pg_tblspc/16385/PG_15_1/5/16390", "/srv/a b/PG_15_1/5/16390_vm"] {
            assert!(is_relation_path(path), "{path}");
        }
        for path in ["1259", "5/1259", "base/x/1259", "base/5/pg_filenode.map", "global/pg_control", ""] {
            assert!(!is_relation_path(path), "{path}");
        }
        assert_eq!(cut_segment("base/5/1259.3"), ("base/5/1259", 3));
        assert_eq!(cut_segment("/srv/v1.2/PG_15_1/5/16390"), ("/srv/v1.2/PG_15_1/5/16390", 0));
    }

    #[test]
    fn options_are_quoted_where_a_shell_would_take_them_apart() {
        assert_eq!(map_option("/srv/fast-1"), "--map /srv/fast-1=DIRECTORY");
        assert_eq!(map_option("/srv/a b's"), r"--map '/srv/a b'\''s=DIRECTORY'");
    }

    #[test]
    fn refuses_names_that_could_lead_out() {
        for raw in ["", "/", "/etc/passwd", "a//b", "../x", "a/../b", "./../x", "."] {
            assert!(sanitize(raw.as_bytes()).is_err(), "{raw:?}");
        }
        assert!(sanitize(&[b'a'; MAX_PATH + 1]).is_err());
    }

    #[test]
    fn keeps_names_and_escapes_what_is_no_text() {
        assert_eq!(sanitize(b"./base/5/").expect("valid"), "base/5");
        assert_eq!(sanitize("größe/x".as_bytes()).expect("valid"), "größe/x");
        assert_eq!(sanitize(b"a\xFFb\n").expect("valid"), "a%FFb%0A");
    }

    #[test]
    fn finds_the_entry_of_a_manifest_path() {
        assert_eq!(of_manifest_path("base/5/1259"), "data/base/5/1259");
        assert_eq!(of_manifest_path("pg_tblspc/16385/PG_15_1/5/1"), "tablespaces/16385/PG_15_1/5/1");
        assert_eq!(of_manifest_path("pg_tblspc/odd"), "data/pg_tblspc/odd");
    }
}
