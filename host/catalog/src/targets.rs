//! Table `targets`: the places that hold backups. At most one live primary; a removed target's row stays, its name is free again.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{
    Columns, all, hex_values, insert, integer, json, one, put, read_count, read_json, read_sealed, read_word, sealed,
};
use crate::{Catalog, Error, TargetRole, backups};

/// A place that holds backups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRow {
    /// 32 hexadecimal digits.
    pub uid: String,
    /// Unique among live targets.
    pub name: String,
    /// Whether backups are made there or copied there.
    pub role: TargetRole,
    /// Without any secret.
    pub url: String,
    /// Where it is.
    pub site: String,
    /// Open settings.
    pub settings: BTreeMap<String, String>,
    /// Credentials; sealed.
    #[serde(with = "hex_values")]
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Whether its store can put an object only if it is absent.
    pub conditional_writes: bool,
    /// What was found when it was tried (JSON).
    #[serde(default = "nothing_found")]
    pub findings: String,
    /// What failed there last, until it works again.
    pub last_error: Option<String>,
    /// The newest heads seen there (JSON): older ones later mean that the store was rolled back.
    pub newest_heads: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
    /// Grows with each change.
    pub resource_version: u64,
    /// When it was removed.
    pub removed_ms: Option<i64>,
}

/// Targets of older catalogs were tried, and what was found was not kept.
fn nothing_found() -> String {
    "[]".to_owned()
}

impl Catalog {
    /// Adds a target and returns it as recorded. Refused: [`Error::TargetExists`], [`Error::PrimaryExists`].
    pub async fn insert_target(&self, row: TargetRow) -> Result<TargetRow, Error> {
        self.write("recording a target", move |db| {
            let row = TargetRow { updated_ms: row.created_ms, resource_version: 1, removed_ms: None, ..row };
            check_unique(db, &row)?;
            insert(db, "targets", columns(&row)?)?;
            Ok(row)
        })
        .await
    }

    /// The live target of this name.
    pub async fn target_by_name(&self, name: &str) -> Result<Option<TargetRow>, Error> {
        let name = name.to_owned();
        self.read("reading a target", move |db| by_name(db, &name)).await
    }

    /// The target of this uid, live or removed.
    pub async fn target_by_uid(&self, uid: &str) -> Result<Option<TargetRow>, Error> {
        let uid = uid.to_owned();
        self.read("reading a target", move |db| by_uid(db, &uid)).await
    }

    /// The live primary target.
    pub async fn primary_target(&self) -> Result<Option<TargetRow>, Error> {
        self.read("reading the primary target", primary).await
    }

    /// All live targets: the primary, then by name.
    pub async fn targets(&self) -> Result<Vec<TargetRow>, Error> {
        let query = "SELECT * FROM targets WHERE removed_ms IS NULL ORDER BY role = 'primary' DESC, name";
        self.read("listing targets", move |db| all(db, query, [], from_row)).await
    }

    /// Targets that were removed from the catalog: what they hold is still where it was.
    pub async fn removed_targets(&self) -> Result<Vec<TargetRow>, Error> {
        let query = "SELECT * FROM targets WHERE removed_ms IS NOT NULL ORDER BY removed_ms, uid";
        self.read("listing removed targets", move |db| all(db, query, [], from_row)).await
    }

    /// Changes a live target (not its uid) and returns it; a change that makes no difference is none. With `if_version`, only if it
    /// is still at that version, else [`Error::Stale`].
    pub async fn update_target<F>(
        &self,
        uid: &str,
        if_version: Option<u64>,
        now_ms: i64,
        change: F,
    ) -> Result<TargetRow, Error>
    where
        F: FnOnce(&mut TargetRow) + Send + 'static,
    {
        let uid = uid.to_owned();
        self.write("changing a target", move |db| {
            let before = live(db, &uid)?;
            if if_version.is_some_and(|version| version != before.resource_version) {
                return Err(Error::Stale { what: "target", uid, found: before.resource_version }.into());
            }
            let mut row = before.clone();
            change(&mut row);
            row.uid = uid;
            if row == before {
                return Ok(before);
            }
            if row.removed_ms.is_none() {
                check_unique(db, &row)?;
            }
            (row.updated_ms, row.resource_version) = (now_ms, before.resource_version + 1);
            store(db, &row)?;
            Ok(row)
        })
        .await
    }

    /// Records what failed at a target, or with none that it works again.
    pub async fn set_target_error(&self, uid: &str, error: Option<String>, now_ms: i64) -> Result<(), Error> {
        self.update_target(uid, None, now_ms, |row| row.last_error = error).await.map(drop)
    }

    /// Remembers the newest heads of a target (JSON).
    pub async fn set_target_heads(&self, uid: &str, newest_heads: String, now_ms: i64) -> Result<(), Error> {
        self.update_target(uid, None, now_ms, |row| row.newest_heads = newest_heads).await.map(drop)
    }

    /// Makes a live target the primary, and the former primary a secondary one. Refused: [`Error::BackupRunning`], for a backup
    /// belongs to the primary that it began at.
    pub async fn promote_target(&self, uid: &str, now_ms: i64) -> Result<TargetRow, Error> {
        let uid = uid.to_owned();
        self.write("promoting a target", move |db| {
            let mut row = live(db, &uid)?;
            if let Some(running) = backups::any_pending(db)? {
                return Err(Error::BackupRunning { uid: running.uid.clone(), name: running.full_name() }.into());
            }
            let become_role = |row: &mut TargetRow, role| {
                (row.role, row.updated_ms) = (role, now_ms);
                row.resource_version += 1;
                store(db, row)
            };
            if let Some(mut former) = primary(db)?.filter(|former| former.uid != uid) {
                become_role(&mut former, TargetRole::Secondary)?;
                become_role(&mut row, TargetRole::Primary)?;
            }
            Ok(row)
        })
        .await
    }

    /// Removes a target from the catalog; its credentials go, what it holds stays where it is.
    pub async fn remove_target(&self, uid: &str, now_ms: i64) -> Result<(), Error> {
        let change = move |row: &mut TargetRow| {
            row.secrets.clear();
            row.removed_ms = Some(now_ms);
        };
        self.update_target(uid, None, now_ms, change).await.map(drop)
    }
}

/// Refuses a second live target of the name, and a second primary.
fn check_unique(db: &Connection, row: &TargetRow) -> Result<(), Fault> {
    if by_name(db, &row.name)?.is_some_and(|other| other.uid != row.uid) {
        return Err(Error::TargetExists { name: row.name.clone() }.into());
    }
    match primary(db)? {
        Some(other) if row.role == TargetRole::Primary && other.uid != row.uid => {
            Err(Error::PrimaryExists { name: other.name }.into())
        }
        _ => Ok(()),
    }
}

fn live(db: &Connection, uid: &str) -> Result<TargetRow, Fault> {
    let not_found = || Error::NotFound { what: "target", id: uid.to_owned() };
    Ok(by_uid(db, uid)?.filter(|row| row.removed_ms.is_none()).ok_or_else(not_found)?)
}

pub(crate) fn by_uid(db: &Connection, uid: &str) -> Result<Option<TargetRow>, Fault> {
    one(db, "SELECT * FROM targets WHERE uid = ?1", params![uid], from_row)
}

fn by_name(db: &Connection, name: &str) -> Result<Option<TargetRow>, Fault> {
    one(db, "SELECT * FROM targets WHERE name = ?1 AND removed_ms IS NULL", params![name], from_row)
}

fn primary(db: &Connection) -> Result<Option<TargetRow>, Fault> {
    one(db, "SELECT * FROM targets WHERE role = 'primary' AND removed_ms IS NULL", [], from_row)
}

pub(crate) fn every(db: &Connection) -> Result<Vec<TargetRow>, Fault> {
    all(db, "SELECT * FROM targets ORDER BY uid", [], from_row)
}

pub(crate) fn store(db: &Connection, row: &TargetRow) -> Result<(), Fault> {
    put(db, "targets", "uid", columns(row)?)
}

fn columns(row: &TargetRow) -> Result<Columns, Fault> {
    Ok(vec![
        ("uid", row.uid.clone().into()),
        ("name", row.name.clone().into()),
        ("role", row.role.to_string().into()),
        ("url", row.url.clone().into()),
        ("site", row.site.clone().into()),
        ("settings", json(&row.settings)?),
        ("secrets", sealed(&row.secrets)?),
        ("conditional_writes", row.conditional_writes.into()),
        ("findings", row.findings.clone().into()),
        ("last_error", row.last_error.clone().into()),
        ("newest_heads", row.newest_heads.clone().into()),
        ("created_ms", row.created_ms.into()),
        ("updated_ms", row.updated_ms.into()),
        ("resource_version", integer(row.resource_version)),
        ("removed_ms", row.removed_ms.into()),
    ])
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<TargetRow> {
    Ok(TargetRow {
        uid: row.get("uid")?,
        name: row.get("name")?,
        role: read_word(row, "role")?,
        url: row.get("url")?,
        site: row.get("site")?,
        settings: read_json(row, "settings")?,
        secrets: read_sealed(row, "secrets")?,
        conditional_writes: row.get("conditional_writes")?,
        findings: row.get("findings")?,
        last_error: row.get("last_error")?,
        newest_heads: row.get("newest_heads")?,
        created_ms: row.get("created_ms")?,
        updated_ms: row.get("updated_ms")?,
        resource_version: read_count(row, "resource_version")?,
        removed_ms: row.get("removed_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, target};

    #[tokio::test]
    async fn the_primary_comes_first_and_there_is_one() {
        let catalog = Fixture::new().await;
        for (uid, role) in [("c", TargetRole::Secondary), ("z", TargetRole::Primary), ("a", TargetRole::Secondary)] {
            let row = catalog.insert_target(target(uid, role)).await.unwrap();
            assert_eq!(row, target(uid, role));
        }
        let uids: Vec<_> = catalog.targets().await.unwrap().into_iter().map(|row| row.uid).collect();
        assert_eq!(uids, ["z", "a", "c"]);
        assert_eq!(catalog.primary_target().await.unwrap(), Some(target("z", TargetRole::Primary)));
        let error = catalog.insert_target(target("y", TargetRole::Primary)).await.unwrap_err();
        assert!(matches!(error, Error::PrimaryExists { ref name } if name == "target-z"), "{error}");
        let promote = |row: &mut TargetRow| row.role = TargetRole::Primary;
        let error = catalog.update_target("a", None, 2_000, promote).await.unwrap_err();
        assert!(matches!(error, Error::PrimaryExists { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_name_is_free_again_after_its_target_was_removed() {
        let catalog = Fixture::new().await;
        let named = |uid: &str| TargetRow { name: "vault".to_owned(), ..target(uid, TargetRole::Secondary) };
        catalog.insert_target(named("a")).await.unwrap();
        let error = catalog.insert_target(named("b")).await.unwrap_err();
        assert!(matches!(error, Error::TargetExists { .. }), "{error}");
        catalog.remove_target("a", 2_000).await.unwrap();
        let removed = catalog.target_by_uid("a").await.unwrap().unwrap();
        assert_eq!((removed.removed_ms, removed.secrets.len()), (Some(2_000), 0));
        assert_eq!(catalog.removed_targets().await.unwrap(), [removed]);
        catalog.insert_target(named("b")).await.unwrap();
        assert_eq!(catalog.target_by_name("vault").await.unwrap().unwrap().uid, "b");
    }

    #[tokio::test]
    async fn a_promotion_exchanges_the_roles_unless_a_backup_runs() {
        let catalog = Fixture::new().await;
        catalog.insert_target(target("a", TargetRole::Primary)).await.unwrap();
        catalog.insert_target(target("b", TargetRole::Secondary)).await.unwrap();
        let promoted = catalog.promote_target("b", 2_000).await.unwrap();
        assert_eq!((promoted.role, promoted.resource_version, promoted.updated_ms), (TargetRole::Primary, 2, 2_000));
        assert_eq!(catalog.primary_target().await.unwrap(), Some(promoted));
        assert_eq!(catalog.target_by_uid("a").await.unwrap().unwrap().role, TargetRole::Secondary);
        catalog.pending("p", "pg", 3_000).await;
        let error = catalog.promote_target("a", 4_000).await.unwrap_err();
        assert!(matches!(error, Error::BackupRunning { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_is_seen_at_a_target_is_remembered() {
        let catalog = Fixture::new().await;
        catalog.insert_target(target("a", TargetRole::Secondary)).await.unwrap();
        catalog.set_target_error("a", Some("connection refused".to_owned()), 2_000).await.unwrap();
        catalog.set_target_heads("a", "[7]".to_owned(), 3_000).await.unwrap();
        let row = catalog.target_by_uid("a").await.unwrap().unwrap();
        assert_eq!(row.last_error.as_deref(), Some("connection refused"));
        assert_eq!((row.newest_heads.as_str(), row.resource_version, row.updated_ms), ("[7]", 3, 3_000));
        catalog.set_target_error("a", None, 4_000).await.unwrap();
        catalog.set_target_error("a", None, 5_000).await.unwrap();
        let row = catalog.target_by_uid("a").await.unwrap().unwrap();
        assert_eq!((row.last_error, row.resource_version, row.updated_ms), (None, 4, 4_000));
        let error = catalog.set_target_error("b", None, 1).await.unwrap_err();
        assert!(matches!(error, Error::NotFound { what: "target", .. }), "{error}");
    }
}
