//! Table `instances`: the protected database services. A name belongs to one uid for ever; removing keeps the row.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, named_params, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::page::rows_to_read;
use crate::rows::{
    Columns, all, hex_values, insert, integer, json, one, put, read_count, read_json, read_sealed,
    sealed,
};
use crate::{Catalog, Error, Page, Scope};

/// A protected database service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InstanceRow {
    /// 32 hexadecimal digits.
    pub uid: String,
    /// Whose it is.
    pub organization: String,
    /// A group of instances.
    pub project: String,
    /// The last part of its name.
    pub name: String,
    /// Which plugin serves it.
    pub engine: String,
    /// Where it runs.
    pub site: String,
    /// What its plugin is told, openly.
    pub settings: BTreeMap<String, String>,
    /// What its plugin is told in confidence; sealed.
    #[serde(with = "hex_values")]
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
    /// Grows with each change.
    pub resource_version: u64,
    /// When it was removed; its backups may be there still.
    pub removed_ms: Option<i64>,
}

impl InstanceRow {
    /// `organization/project/instance`.
    pub fn full_name(&self) -> String {
        format!("{}/{}/{}", self.organization, self.project, self.name)
    }
}

impl Catalog {
    /// Adds an instance and returns it as recorded. With `adopt`, a removed one of the same name lives again: it keeps uid and
    /// creation and gets the new row's engine, site, settings and secrets.
    ///
    /// Refused: [`Error::InstanceExists`]; without `adopt` [`Error::NameUsed`].
    pub async fn insert_instance(
        &self,
        row: InstanceRow,
        adopt: bool,
    ) -> Result<InstanceRow, Error> {
        self.write("recording an instance", move |db| {
            let fresh = InstanceRow {
                updated_ms: row.created_ms,
                resource_version: 1,
                removed_ms: None,
                ..row
            };
            match by_name(db, &fresh.organization, &fresh.project, &fresh.name)? {
                None => {
                    insert(db, "instances", columns(&fresh)?)?;
                    Ok(fresh)
                }
                Some(found) if found.removed_ms.is_none() => Err(Error::InstanceExists {
                    name: found.full_name(),
                }
                .into()),
                Some(found) if !adopt => Err(Error::NameUsed {
                    name: found.full_name(),
                }
                .into()),
                Some(found) => {
                    let adopted = InstanceRow {
                        uid: found.uid,
                        created_ms: found.created_ms,
                        resource_version: found.resource_version + 1,
                        ..fresh
                    };
                    put(db, "instances", "uid", columns(&adopted)?)?;
                    Ok(adopted)
                }
            }
        })
        .await
    }

    /// The live instance of this name.
    pub async fn instance_by_name(
        &self,
        organization: &str,
        project: &str,
        name: &str,
    ) -> Result<Option<InstanceRow>, Error> {
        Ok(self
            .any_instance_by_name(organization, project, name)
            .await?
            .filter(|row| row.removed_ms.is_none()))
    }

    /// The instance of this name, live or removed.
    pub async fn any_instance_by_name(
        &self,
        organization: &str,
        project: &str,
        name: &str,
    ) -> Result<Option<InstanceRow>, Error> {
        let [organization, project, name] = [organization, project, name].map(str::to_owned);
        self.read("reading an instance", move |db| {
            by_name(db, &organization, &project, &name)
        })
        .await
    }

    /// The instance of this uid, live or removed.
    pub async fn instance_by_uid(&self, uid: &str) -> Result<Option<InstanceRow>, Error> {
        let uid = uid.to_owned();
        self.read("reading an instance", move |db| by_uid(db, &uid))
            .await
    }

    /// Live instances, ordered by name.
    pub async fn list_instances(
        &self,
        scope: Scope,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<InstanceRow>, Error> {
        let after = after.map(str::to_owned);
        self.read("listing instances", move |db| {
            let [organization, project, name] = match &after {
                None => [""; 3],
                Some(cursor) => match cursor.splitn(3, '/').collect::<Vec<_>>()[..] {
                    [organization, project, name] => [organization, project, name],
                    _ => return Err(Error::BadCursor(cursor.clone()).into()),
                },
            };
            let rows = all(
                db,
                "SELECT * FROM instances
                 WHERE removed_ms IS NULL AND (organization, project, name) > (:after_organization, :after_project, :after_name)
                   AND (:organization IS NULL OR organization = :organization)
                   AND (:project IS NULL OR project = :project) AND (:name IS NULL OR name = :name)
                 ORDER BY organization, project, name LIMIT :rows",
                named_params! {
                    ":after_organization": organization, ":after_project": project, ":after_name": name,
                    ":organization": scope.organization, ":project": scope.project, ":name": scope.instance,
                    ":rows": rows_to_read(limit),
                },
                from_row,
            )?;
            Ok(Page::of(rows, limit, InstanceRow::full_name))
        })
        .await
    }

    /// Changes a live instance (not its uid) and returns it; a change that makes no difference is none. With `if_version`, only if it
    /// is still at that version, else [`Error::Stale`].
    pub async fn update_instance<F>(
        &self,
        uid: &str,
        if_version: Option<u64>,
        now_ms: i64,
        change: F,
    ) -> Result<InstanceRow, Error>
    where
        F: FnOnce(&mut InstanceRow) + Send + 'static,
    {
        let uid = uid.to_owned();
        self.write("changing an instance", move |db| {
            let before = live(db, &uid)?;
            if if_version.is_some_and(|version| version != before.resource_version) {
                return Err(Error::Stale {
                    what: "instance",
                    uid,
                    found: before.resource_version,
                }
                .into());
            }
            let mut row = before.clone();
            change(&mut row);
            row.uid = uid;
            if row == before {
                return Ok(before);
            }
            (row.updated_ms, row.resource_version) = (now_ms, before.resource_version + 1);
            put(db, "instances", "uid", columns(&row)?)?;
            Ok(row)
        })
        .await
    }

    /// Removes an instance: its name stays reserved and its backups stay; its secrets go.
    pub async fn remove_instance(&self, uid: &str, now_ms: i64) -> Result<(), Error> {
        let change = move |row: &mut InstanceRow| {
            row.secrets.clear();
            row.removed_ms = Some(now_ms);
        };
        self.update_instance(uid, None, now_ms, change)
            .await
            .map(drop)
    }

    /// Inserts or replaces an instance as it is given, for rebuilding a catalog.
    pub async fn upsert_instance(&self, row: InstanceRow) -> Result<(), Error> {
        self.write("recording an instance", move |db| store(db, &row))
            .await
    }
}

fn live(db: &Connection, uid: &str) -> Result<InstanceRow, Fault> {
    let not_found = || Error::NotFound {
        what: "instance",
        id: uid.to_owned(),
    };
    Ok(by_uid(db, uid)?
        .filter(|row| row.removed_ms.is_none())
        .ok_or_else(not_found)?)
}

fn by_uid(db: &Connection, uid: &str) -> Result<Option<InstanceRow>, Fault> {
    one(
        db,
        "SELECT * FROM instances WHERE uid = ?1",
        params![uid],
        from_row,
    )
}

fn by_name(
    db: &Connection,
    organization: &str,
    project: &str,
    name: &str,
) -> Result<Option<InstanceRow>, Fault> {
    let query = "SELECT * FROM instances WHERE organization = ?1 AND project = ?2 AND name = ?3";
    one(db, query, params![organization, project, name], from_row)
}

pub(crate) fn every(db: &Connection) -> Result<Vec<InstanceRow>, Fault> {
    all(db, "SELECT * FROM instances ORDER BY uid", [], from_row)
}

pub(crate) fn store(db: &Connection, row: &InstanceRow) -> Result<(), Fault> {
    put(db, "instances", "uid", columns(row)?)
}

fn columns(row: &InstanceRow) -> Result<Columns, Fault> {
    Ok(vec![
        ("uid", row.uid.clone().into()),
        ("organization", row.organization.clone().into()),
        ("project", row.project.clone().into()),
        ("name", row.name.clone().into()),
        ("engine", row.engine.clone().into()),
        ("site", row.site.clone().into()),
        ("settings", json(&row.settings)?),
        ("secrets", sealed(&row.secrets)?),
        ("created_ms", row.created_ms.into()),
        ("updated_ms", row.updated_ms.into()),
        ("resource_version", integer(row.resource_version)),
        ("removed_ms", row.removed_ms.into()),
    ])
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<InstanceRow> {
    Ok(InstanceRow {
        uid: row.get("uid")?,
        organization: row.get("organization")?,
        project: row.get("project")?,
        name: row.get("name")?,
        engine: row.get("engine")?,
        site: row.get("site")?,
        settings: read_json(row, "settings")?,
        secrets: read_sealed(row, "secrets")?,
        created_ms: row.get("created_ms")?,
        updated_ms: row.get("updated_ms")?,
        resource_version: read_count(row, "resource_version")?,
        removed_ms: row.get("removed_ms")?,
    })
}
