//! Table `instances`: the protected database services. A name belongs to one uid for ever; removing keeps the row.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, named_params, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::page::rows_to_read;
use crate::rows::{
    Columns, all, hex_values, insert, integer, json, one, put, read_count, read_json, read_sealed, sealed,
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
    pub async fn insert_instance(&self, row: InstanceRow, adopt: bool) -> Result<InstanceRow, Error> {
        self.write("recording an instance", move |db| {
            let fresh = InstanceRow { updated_ms: row.created_ms, resource_version: 1, removed_ms: None, ..row };
            match by_name(db, &fresh.organization, &fresh.project, &fresh.name)? {
                None => {
                    insert(db, "instances", columns(&fresh)?)?;
                    Ok(fresh)
                }
                Some(found) if found.removed_ms.is_none() => {
                    Err(Error::InstanceExists { name: found.full_name() }.into())
                }
                Some(found) if !adopt => Err(Error::NameUsed { name: found.full_name() }.into()),
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
        Ok(self.any_instance_by_name(organization, project, name).await?.filter(|row| row.removed_ms.is_none()))
    }

    /// The instance of this name, live or removed.
    pub async fn any_instance_by_name(
        &self,
        organization: &str,
        project: &str,
        name: &str,
    ) -> Result<Option<InstanceRow>, Error> {
        let [organization, project, name] = [organization, project, name].map(str::to_owned);
        self.read("reading an instance", move |db| by_name(db, &organization, &project, &name)).await
    }

    /// The instance of this uid, live or removed.
    pub async fn instance_by_uid(&self, uid: &str) -> Result<Option<InstanceRow>, Error> {
        let uid = uid.to_owned();
        self.read("reading an instance", move |db| by_uid(db, &uid)).await
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
                return Err(Error::Stale { what: "instance", uid, found: before.resource_version }.into());
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
        self.update_instance(uid, None, now_ms, change).await.map(drop)
    }

    /// Inserts or replaces an instance as it is given, for rebuilding a catalog. Refused: [`Error::InstanceExists`] if the name belongs
    /// to another uid.
    pub async fn upsert_instance(&self, row: InstanceRow) -> Result<(), Error> {
        self.write("recording an instance", move |db| match by_name(db, &row.organization, &row.project, &row.name)? {
            Some(other) if other.uid != row.uid => Err(Error::InstanceExists { name: other.full_name() }.into()),
            _ => store(db, &row),
        })
        .await
    }
}

fn live(db: &Connection, uid: &str) -> Result<InstanceRow, Fault> {
    let not_found = || Error::NotFound { what: "instance", id: uid.to_owned() };
    Ok(by_uid(db, uid)?.filter(|row| row.removed_ms.is_none()).ok_or_else(not_found)?)
}

fn by_uid(db: &Connection, uid: &str) -> Result<Option<InstanceRow>, Fault> {
    one(db, "SELECT * FROM instances WHERE uid = ?1", params![uid], from_row)
}

fn by_name(db: &Connection, organization: &str, project: &str, name: &str) -> Result<Option<InstanceRow>, Fault> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, instance};

    #[tokio::test]
    async fn an_instance_is_found_by_name_and_uid() {
        let catalog = Fixture::new().await;
        let row = catalog.insert_instance(instance("u1", "pg"), false).await.unwrap();
        assert_eq!(row, instance("u1", "pg"));
        let found = catalog.instance_by_name("acme", "shop", "pg").await.unwrap();
        assert_eq!(found.as_ref(), Some(&row));
        assert_eq!(catalog.instance_by_uid("u1").await.unwrap(), found);
        assert_eq!(catalog.instance_by_name("acme", "other", "pg").await.unwrap(), None);
        assert_eq!(catalog.instance_by_uid("u2").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_live_name_is_taken_even_for_adopting() {
        let catalog = Fixture::new().await;
        catalog.insert_instance(instance("u1", "pg"), false).await.unwrap();
        for adopt in [false, true] {
            let error = catalog.insert_instance(instance("u2", "pg"), adopt).await.unwrap_err();
            assert!(matches!(error, Error::InstanceExists { ref name } if name == "acme/shop/pg"));
        }
    }

    #[tokio::test]
    async fn a_removed_name_is_reserved_and_adopting_it_keeps_the_uid() {
        let catalog = Fixture::new().await;
        catalog.insert_instance(instance("u1", "pg"), false).await.unwrap();
        catalog.remove_instance("u1", 2_000).await.unwrap();
        assert_eq!(catalog.instance_by_name("acme", "shop", "pg").await.unwrap(), None);
        let removed = catalog.any_instance_by_name("acme", "shop", "pg").await.unwrap().unwrap();
        assert_eq!((removed.removed_ms, removed.secrets.len()), (Some(2_000), 0));
        assert_eq!(catalog.remove_instance("u1", 2_500).await.unwrap_err().code(), "not-found");

        let mut next = instance("u2", "pg");
        (next.site, next.created_ms) = ("elsewhere".to_owned(), 3_000);
        let error = catalog.insert_instance(next.clone(), false).await.unwrap_err();
        assert!(matches!(error, Error::NameUsed { .. }), "{error}");
        let adopted = catalog.insert_instance(next.clone(), true).await.unwrap();
        let expected =
            InstanceRow { uid: "u1".to_owned(), created_ms: 1_000, updated_ms: 3_000, resource_version: 3, ..next };
        assert_eq!(adopted, expected);
        assert_eq!(catalog.instance_by_uid("u1").await.unwrap(), Some(expected));
        assert_eq!(catalog.instance_by_uid("u2").await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_edit_of_what_has_changed_is_refused() {
        let catalog = Fixture::new().await;
        catalog.insert_instance(instance("u1", "pg"), false).await.unwrap();
        let move_to = |site: &str| {
            let site = site.to_owned();
            move |row: &mut InstanceRow| row.site = site
        };
        let row = catalog.update_instance("u1", Some(1), 2_000, move_to("b")).await.unwrap();
        assert_eq!((row.resource_version, row.updated_ms), (2, 2_000));
        let error = catalog.update_instance("u1", Some(1), 3_000, move_to("c")).await.unwrap_err();
        assert!(matches!(error, Error::Stale { found: 2, .. }), "{error}");
        let same = catalog.update_instance("u1", None, 4_000, move_to("b")).await.unwrap();
        assert_eq!(same, row, "no difference, no new version");
    }

    #[tokio::test]
    async fn pages_show_every_live_instance_once_in_order() {
        let catalog = Fixture::new().await;
        for number in (0..25).rev() {
            let row = instance(&format!("u{number}"), &format!("pg-{number:02}"));
            catalog.insert_instance(row, false).await.unwrap();
        }
        catalog.remove_instance("u7", 2_000).await.unwrap();
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let page = catalog.list_instances(Scope::all(), after.as_deref(), 6).await.unwrap();
            names.extend(page.items.into_iter().map(|row| row.name));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let expected = (0..25).filter(|number| *number != 7).map(|number| format!("pg-{number:02}"));
        assert!(names.into_iter().eq(expected));
        assert_eq!(catalog.counts().await.unwrap().instances, 24);
    }

    #[tokio::test]
    async fn a_list_keeps_to_its_scope_and_to_its_own_cursors() {
        let catalog = Fixture::new().await;
        for (uid, organization, project, name) in
            [("1", "acme", "shop", "pg"), ("2", "acme", "site", "pg"), ("3", "acme2", "shop", "pg")]
        {
            let row = InstanceRow {
                organization: organization.to_owned(),
                project: project.to_owned(),
                ..instance(uid, name)
            };
            catalog.insert_instance(row, false).await.unwrap();
        }
        for (scope, expected) in
            [("", &["1", "2", "3"][..]), ("acme", &["1", "2"]), ("acme/site", &["2"]), ("acme/shop/my", &[])]
        {
            let page = catalog.list_instances(Scope::from_path(scope), None, 10).await.unwrap();
            let uids: Vec<_> = page.items.iter().map(|row| row.uid.as_str()).collect();
            assert_eq!(uids, expected, "{scope}");
            assert_eq!(page.next, None);
        }
        let error = catalog.list_instances(Scope::all(), Some("5.abc"), 10).await.unwrap_err();
        assert!(matches!(error, Error::BadCursor(_)), "{error}");
    }

    #[tokio::test]
    async fn rebuilding_never_gives_a_name_to_a_second_uid() {
        let catalog = Fixture::new().await;
        catalog.upsert_instance(instance("u1", "pg")).await.unwrap();
        catalog.upsert_instance(instance("u1", "pg")).await.unwrap();
        let error = catalog.upsert_instance(instance("u2", "pg")).await.unwrap_err();
        assert!(matches!(error, Error::InstanceExists { .. }), "{error}");
    }
}
