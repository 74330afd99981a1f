//! What a relation is called whose file is damaged. A courtesy: where it cannot be had, the file's path has to do.

use std::collections::BTreeMap;

use holdfast_sdk::Result;

use crate::basebackup::Space;
use crate::names;
use crate::session::{self, Member, Purpose, Session};
use crate::settings::Settings;
use crate::wire::single;

/// Databases that are connected to; whoever has damage in more has other worries than names.
const MAX_DATABASES: usize = 5;

/// Asks a member for names.
pub struct Relations<'a> {
    settings: &'a Settings,
    member: &'a Member,
    spaces: &'a [Space],
    /// By the database's oid, with its name; none where it cannot be asked.
    databases: BTreeMap<u32, Option<(String, Session)>>,
}

/// Characters of a name; the server's own limit is 63 bytes for each of its two parts.
const MAX_NAME: usize = 130;

/// Where a relation's file lies.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    /// None for relations of all databases.
    database: Option<u32>,
    /// 0 for the database's own.
    tablespace: u32,
    file: u32,
}

/// The tablespace of what all databases share.
const GLOBAL: u32 = 1664;

impl<'a> Relations<'a> {
    /// At a member with these tablespaces.
    pub fn new(settings: &'a Settings, member: &'a Member, spaces: &'a [Space]) -> Self {
        Self { settings, member, spaces, databases: BTreeMap::new() }
    }

    /// Such as `public.orders in the database shop`.
    pub fn name(&mut self, path: &str) -> Option<String> {
        let place = place(path, self.spaces)?;
        let known = self.databases.contains_key(&place.database.unwrap_or(0));
        if !known {
            if self.databases.len() >= MAX_DATABASES {
                return None;
            }
            let opened = self.open(place.database).ok();
            self.databases.insert(place.database.unwrap_or(0), opened);
        }
        let (database, sql) = self.databases.get_mut(&place.database.unwrap_or(0))?.as_mut()?;
        let query = format!(
            "SELECT relnamespace::pg_catalog.regnamespace::text || '.' || relname FROM pg_catalog.pg_class \
             WHERE oid = pg_catalog.pg_filenode_relation({}, {})",
            place.tablespace, place.file
        );
        let rows = sql.query(&query).ok()?;
        let name: String = single(&rows).ok()?.chars().take(MAX_NAME).collect();
        Some(format!("{name} in the database {database}"))
    }

    fn open(&self, database: Option<u32>) -> Result<(String, Session)> {
        let mut sql = session::open(self.settings, self.member, Purpose::Sql(&self.settings.database))?;
        let Some(database) = database else { return Ok((self.settings.database.clone(), sql)) };
        let rows = sql.query(&format!("SELECT datname FROM pg_catalog.pg_database WHERE oid = {database}"))?;
        let name = single(&rows)?.to_owned();
        if name == self.settings.database {
            return Ok((name, sql));
        }
        let sql = session::open(self.settings, self.member, Purpose::Sql(&name))?;
        Ok((name, sql))
    }
}

/// Reads a path as the server names it: `base/5/1259`, `global/1262`, or one below a tablespace's directory.
fn place(path: &str, spaces: &[Space]) -> Option<Place> {
    let (directory, file) = path.rsplit_once('/')?;
    let file = file.split('_').next()?.parse().ok()?;
    if directory == "global" {
        return Some(Place { database: None, tablespace: GLOBAL, file });
    }
    let (parent, database) = directory.rsplit_once('/')?;
    let database = Some(database.parse().ok()?);
    if parent == "base" {
        return Some(Place { database, tablespace: 0, file });
    }
    let (space, _) = parent.rsplit_once('/')?;
    let tablespace = match space.strip_prefix(names::LINKS) {
        Some(oid) => oid.parse().ok()?,
        None => spaces.iter().find(|known| known.oid.is_some() && known.path == space)?.oid?,
    };
    Some(Place { database, tablespace, file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_relations() {
        let spaces = [
            Space { oid: None, path: String::new(), bytes: 0 },
            Space { oid: Some(16385), path: "/srv/a b".into(), bytes: 0 },
        ];
        let find = |path: &str| place(path, &spaces).map(|place| (place.database, place.tablespace, place.file));
        assert_eq!(find("base/5/1259"), Some((Some(5), 0, 1259)));
        assert_eq!(find("base/5/1259_vm"), Some((Some(5), 0, 1259)));
        assert_eq!(find("global/1262"), Some((None, GLOBAL, 1262)));
        assert_eq!(find("/srv/a b/PG_15_1/5/16390"), Some((Some(5), 16385, 16390)));
        assert_eq!(find("pg_tblspc/7/PG_15_1/5/16390"), Some((Some(5), 7, 16390)));
        for path in ["1259", "base/1259", "/srv/other/PG_15_1/5/1", "base/x/1", "base/5/x"] {
            assert_eq!(find(path), None, "{path}");
        }
    }
}
