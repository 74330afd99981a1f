//! Table `plugins`: the plugins that an operator installed. One name, one engine, one component each.

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{Columns, all, count, insert, one};
use crate::{Catalog, Error};

/// An installed plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRow {
    /// What the plugin calls itself.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// Which engine it serves.
    pub engine: String,
    /// Digest of its component, 64 hexadecimal digits.
    pub digest: String,
    /// Milliseconds since 1970.
    pub installed_ms: i64,
}

impl Catalog {
    /// Records an installed plugin. Refused: [`Error::PluginExists`] where one of its name or engine is installed.
    pub async fn insert_plugin(&self, row: PluginRow) -> Result<(), Error> {
        self.write("recording a plugin", move |db| {
            let query = "SELECT * FROM plugins WHERE name = ?1 OR engine = ?2";
            match one(db, query, params![row.name, row.engine], from_row)? {
                Some(found) => Err(Error::PluginExists { name: found.name, engine: found.engine }.into()),
                None => store(db, &row),
            }
        })
        .await
    }

    /// All installed plugins, by name.
    pub async fn plugins(&self) -> Result<Vec<PluginRow>, Error> {
        self.read("reading the installed plugins", every).await
    }

    /// Forgets an installed plugin and returns what was known of it. Refused: [`Error::NotFound`]; [`Error::EngineInUse`] while
    /// live instances have its engine.
    pub async fn remove_plugin(&self, name: &str) -> Result<PluginRow, Error> {
        let name = name.to_owned();
        self.write("removing a plugin", move |db| {
            let found = one(db, "SELECT * FROM plugins WHERE name = ?1", params![name], from_row)?;
            let row = found.ok_or(Error::NotFound { what: "installed plugin", id: name })?;
            let query = "SELECT count(*) FROM instances WHERE engine = ?1 AND removed_ms IS NULL";
            let instances = count(db, query, params![row.engine])?;
            if instances > 0 {
                return Err(Error::EngineInUse { engine: row.engine, instances }.into());
            }
            db.execute("DELETE FROM plugins WHERE name = ?1", params![row.name])?;
            Ok(row)
        })
        .await
    }
}

pub(crate) fn every(db: &Connection) -> Result<Vec<PluginRow>, Fault> {
    all(db, "SELECT * FROM plugins ORDER BY name", [], from_row)
}

pub(crate) fn store(db: &Connection, row: &PluginRow) -> Result<(), Fault> {
    insert(db, "plugins", columns(row))
}

fn columns(row: &PluginRow) -> Columns {
    vec![
        ("name", row.name.clone().into()),
        ("version", row.version.clone().into()),
        ("engine", row.engine.clone().into()),
        ("digest", row.digest.clone().into()),
        ("installed_ms", row.installed_ms.into()),
    ]
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<PluginRow> {
    Ok(PluginRow {
        name: row.get("name")?,
        version: row.get("version")?,
        engine: row.get("engine")?,
        digest: row.get("digest")?,
        installed_ms: row.get("installed_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InstanceRow;
    use crate::fixtures::{Fixture, instance, plugin};

    #[tokio::test]
    async fn one_plugin_has_a_name_and_an_engine() {
        let catalog = Fixture::new().await;
        catalog.insert_plugin(plugin("redis")).await.unwrap();
        for other in [
            PluginRow { engine: "valkey".to_owned(), ..plugin("redis") },
            PluginRow { engine: "redis".to_owned(), ..plugin("valkey") },
        ] {
            let error = catalog.insert_plugin(other).await.unwrap_err();
            assert!(matches!(error, Error::PluginExists { .. }), "{error}");
        }
        assert_eq!(catalog.reopen().await.plugins().await.unwrap(), [plugin("redis")]);
    }

    #[tokio::test]
    async fn a_plugin_stays_while_an_instance_needs_it() {
        let catalog = Fixture::new().await;
        catalog.insert_plugin(plugin("redis")).await.unwrap();
        let row = InstanceRow { engine: "redis".to_owned(), ..instance("u1", "cache") };
        catalog.insert_instance(row, false).await.unwrap();
        let error = catalog.remove_plugin("redis").await.unwrap_err();
        assert!(matches!(error, Error::EngineInUse { instances: 1, .. }), "{error}");
        catalog.remove_instance("u1", 2_000).await.unwrap();
        assert_eq!(catalog.remove_plugin("redis").await.unwrap(), plugin("redis"));
        let error = catalog.remove_plugin("redis").await.unwrap_err();
        assert!(matches!(error, Error::NotFound { .. }), "{error}");
    }
}
