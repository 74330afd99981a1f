//! Which root and path an entry is restored to, and where tablespaces went.

use holdfast_sdk::{Error, Result};

use crate::inventory::Tablespace;
use crate::names;

/// The first version that reads two backslashes in `tablespace_map` as one. Before it, a backslash is itself unless a line break
/// follows.
const DOUBLED_BACKSLASHES: u32 = 14;

/// The root of the data directory.
pub const MAIN: &str = "";

/// A tablespace with its new place.
#[derive(Debug)]
pub struct Placed {
    /// Its oid.
    pub oid: u32,
    /// The root that takes it; none if it lies in the data directory.
    pub root: Option<String>,
    /// The real path of that root.
    path: String,
}

/// The places of a restore.
#[derive(Debug)]
pub struct Layout {
    major: u32,
    tablespaces: Vec<Placed>,
}

impl Layout {
    /// Gives each tablespace the root that the operator named by its old path, for a server of this major version.
    pub fn plan(major: u32, tablespaces: &[Tablespace], roots: &[(String, String)]) -> Result<Self> {
        if !roots.iter().any(|(name, _)| name == MAIN) {
            return Err(Error::new("not-granted", "the job was given no directory to restore to"));
        }
        let place = |tablespace: &Tablespace| {
            if tablespace.is_in_place() {
                return Ok(Placed { oid: tablespace.oid, root: None, path: tablespace.path.clone() });
            }
            let old = tablespace.path.trim_end_matches('/');
            let root = roots.iter().find(|(name, _)| name != MAIN && name.trim_end_matches('/') == old);
            let (name, path) = root.ok_or_else(|| {
                Error::new("tablespace-not-mapped", format!("the backup has a tablespace that lay at {old}"))
                    .hint(format!("Say where to restore it by `{}`.", names::map_option(old)))
            })?;
            Ok(Placed { oid: tablespace.oid, root: Some(name.clone()), path: path.clone() })
        };
        Ok(Self { major, tablespaces: tablespaces.iter().map(place).collect::<Result<_>>()? })
    }

    /// All tablespaces outside of `base` and `global`.
    pub fn tablespaces(&self) -> &[Placed] {
        &self.tablespaces
    }

    /// Whether any tablespace lies outside of the data directory.
    pub fn has_links(&self) -> bool {
        self.tablespaces.iter().any(|tablespace| tablespace.root.is_some())
    }

    /// Root and path of an entry; none for what is not part of data directory or tablespaces.
    pub fn place(&self, entry: &str) -> Result<Option<(String, String)>> {
        if let Some(path) = entry.strip_prefix(names::DATA) {
            return Ok(Some((MAIN.to_owned(), path.to_owned())));
        }
        let Some((oid, path)) = entry.strip_prefix(names::TABLESPACES).and_then(|rest| rest.split_once('/')) else {
            return Ok(None);
        };
        let tablespace = self.tablespaces.iter().find(|tablespace| tablespace.oid.to_string() == oid);
        let tablespace = tablespace.ok_or_else(|| {
            Error::new(
                "invalid-document",
                format!("the backup has files of a tablespace {oid} that its inventory lacks"),
            )
        })?;
        Ok(Some(match &tablespace.root {
            Some(root) => (root.clone(), path.to_owned()),
            None => (MAIN.to_owned(), format!("{}{oid}/{path}", names::LINKS)),
        }))
    }

    /// The file from which the server makes its links anew, with the new places.
    pub fn tablespace_map(&self) -> String {
        let linked = self.tablespaces.iter().filter(|tablespace| tablespace.root.is_some());
        linked.map(|tablespace| format!("{} {}\n", tablespace.oid, self.escaped(&tablespace.path))).collect()
    }

    /// The server ends a path at a line break unless a backslash is before it.
    fn escaped(&self, path: &str) -> String {
        let mut escaped = String::with_capacity(path.len());
        for character in path.chars() {
            if matches!(character, '\n' | '\r') || (character == '\\' && self.major >= DOUBLED_BACKSLASHES) {
                escaped.push('\\');
            }
            escaped.push(character);
        }
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(named: &[(&str, &str)]) -> Vec<(String, String)> {
        named.iter().map(|(name, path)| ((*name).into(), (*path).into())).collect()
    }

    fn spaces() -> Vec<Tablespace> {
        let space = |oid, path: &str| Tablespace { oid, path: path.into() };
        vec![space(16385, "/srv/fast/"), space(16386, "pg_tblspc/16386")]
    }

    #[test]
    fn entries_find_their_roots() {
        let layout =
            Layout::plan(15, &spaces(), &roots(&[("", "/new"), ("/srv/fast", "/new/odd\\place")])).expect("planned");
        let place = |entry: &str| layout.place(entry).expect("placed");
        assert_eq!(place("data/base/5/1"), Some((String::new(), "base/5/1".into())));
        assert_eq!(place("tablespaces/16385/PG_15/5/1"), Some(("/srv/fast".into(), "PG_15/5/1".into())));
        assert_eq!(place("tablespaces/16386/PG_15/5/1"), Some((String::new(), "pg_tblspc/16386/PG_15/5/1".into())));
        assert_eq!(place("config/pg_hba.conf"), None);
        assert!(layout.place("tablespaces/1/x").is_err());
        assert_eq!(layout.tablespace_map(), "16385 /new/odd\\\\place\n");
        assert!(layout.has_links());
        let older = Layout { major: 13, ..layout };
        assert_eq!(older.tablespace_map(), "16385 /new/odd\\place\n");
    }

    #[test]
    fn a_tablespace_without_a_place_is_named() {
        let error = Layout::plan(15, &spaces(), &roots(&[("", "/new")])).expect_err("not mapped");
        assert_eq!(error.code, "tablespace-not-mapped");
        assert!(error.hint.is_some_and(|hint| hint.contains("--map /srv/fast=")));
        assert_eq!(Layout::plan(15, &[], &[]).expect_err("no root").code, "not-granted");
    }
}
