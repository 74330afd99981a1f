//! Table `copies`: how far a backup is at each target. No row means that nothing was tried yet.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{Columns, all, integer, of_backups, put, read_count, read_word};
use crate::{BackupRow, Catalog, CopyState, Error, backups, targets};

/// A backup's copy at a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyRow {
    /// Of which backup.
    pub backup_uid: String,
    /// At which target.
    pub target_uid: String,
    /// How far it is.
    pub state: CopyState,
    /// When it became Durable.
    pub durable_ms: Option<i64>,
    /// Why the last attempt failed, if it did.
    pub reason: Option<String>,
    /// Bytes that the copy moved.
    pub copied_bytes: u64,
    /// When policies let it go: it is not made again. Absent in what 0.1.0 wrote.
    #[serde(default)]
    pub expired_ms: Option<i64>,
}

/// How a target stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetCounts {
    /// Backups that succeeded and are durable there.
    pub durable: u64,
    /// Backups that succeeded, are not there yet and did not expire there.
    pub behind: u64,
    /// When the oldest of these had succeeded, in milliseconds since 1970: since then the target lags.
    pub behind_since_ms: Option<i64>,
}

/// How far the off-site copies of an instance are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsiteRow {
    /// `organization/project/instance`.
    pub instance: String,
    /// When its newest usable backup had succeeded, in milliseconds since 1970.
    pub newest_ms: i64,
    /// The newest one of those that are durable at another site than the instance's, if there is any.
    pub offsite_ms: Option<i64>,
}

impl Catalog {
    /// All copies of these backups, by backup's uid.
    pub async fn copies_of(&self, backup_uids: &[String]) -> Result<BTreeMap<String, Vec<CopyRow>>, Error> {
        let backup_uids = backup_uids.to_vec();
        self.read("reading copies", move |db| of(db, &backup_uids)).await
    }

    /// Records how far a copy is. Refused: [`Error::NotFound`] if there is no such backup or target.
    pub async fn set_copy(&self, row: CopyRow) -> Result<(), Error> {
        self.write("recording a copy", move |db| {
            if backups::by_uid(db, &row.backup_uid)?.is_none() {
                return Err(Error::NotFound { what: "backup", id: row.backup_uid }.into());
            }
            if targets::by_uid(db, &row.target_uid)?.is_none() {
                return Err(Error::NotFound { what: "target", id: row.target_uid }.into());
            }
            store(db, &row)
        })
        .await
    }

    /// Backups that succeeded, are not durable at a target and did not expire there, in the order to copy them: the newest of each instance, then the others,
    /// newer before older.
    pub async fn backups_missing_at(&self, target_uid: &str, limit: u32) -> Result<Vec<BackupRow>, Error> {
        let target_uid = target_uid.to_owned();
        self.read("reading what a target lacks", move |db| {
            let query = "
                SELECT * FROM (
                    SELECT *, row_number() OVER (PARTITION BY instance_uid ORDER BY created_ms DESC, uid DESC) AS age
                    FROM backups WHERE state = 'Succeeded'
                ) AS backup
                WHERE NOT EXISTS (SELECT 1 FROM copies WHERE backup_uid = backup.uid AND target_uid = ?1
                                  AND (state = 'Durable' OR expired_ms IS NOT NULL))
                ORDER BY age > 1, created_ms DESC, uid DESC LIMIT ?2";
            all(db, query, params![target_uid, limit], backups::from_row)
        })
        .await
    }

    /// How each live target stands, by its uid.
    pub async fn target_counts(&self) -> Result<BTreeMap<String, TargetCounts>, Error> {
        self.read("counting copies", |db| {
            let query = "
                SELECT targets.uid AS uid, count(copies.backup_uid) FILTER (WHERE copies.state = 'Durable') AS durable,
                       (SELECT count(*) FROM backups WHERE state = 'Succeeded') - count(copies.backup_uid) AS behind,
                       (SELECT min(finished_ms) FROM backups AS missing WHERE missing.state = 'Succeeded' AND NOT EXISTS
                           (SELECT 1 FROM copies AS there WHERE there.backup_uid = missing.uid AND there.target_uid = targets.uid
                            AND (there.state = 'Durable' OR there.expired_ms IS NOT NULL))) AS behind_since
                FROM targets LEFT JOIN copies ON target_uid = targets.uid
                     AND (copies.state = 'Durable' OR copies.expired_ms IS NOT NULL)
                     AND EXISTS (SELECT 1 FROM backups WHERE backups.uid = backup_uid AND backups.state = 'Succeeded')
                WHERE removed_ms IS NULL GROUP BY targets.uid";
            let counts = |row: &Row<'_>| {
                let (durable, behind) = (read_count(row, "durable")?, read_count(row, "behind")?);
                let behind_since_ms = row.get("behind_since")?;
                Ok((row.get("uid")?, TargetCounts { durable, behind, behind_since_ms }))
            };
            Ok(all(db, query, [], counts)?.into_iter().collect())
        })
        .await
    }
}

impl Catalog {
    /// How far off site each live instance is that has a usable backup; with a uid, that one alone.
    pub async fn offsite(&self, instance_uid: Option<&str>) -> Result<Vec<OffsiteRow>, Error> {
        let instance_uid = instance_uid.map(str::to_owned);
        self.read("reading what is off site", move |db| {
            let query = "
                SELECT instances.organization || '/' || instances.project || '/' || instances.name AS instance,
                       max(backups.finished_ms) AS newest,
                       max(CASE WHEN EXISTS (
                           SELECT 1 FROM copies JOIN targets ON targets.uid = target_uid
                           WHERE backup_uid = backups.uid AND copies.state = 'Durable'
                                 AND targets.removed_ms IS NULL AND targets.site <> instances.site
                       ) THEN backups.finished_ms END) AS offsite
                FROM instances JOIN backups ON instance_uid = instances.uid AND backups.state = 'Succeeded'
                WHERE instances.removed_ms IS NULL AND backups.finished_ms IS NOT NULL
                      AND (?1 IS NULL OR instances.uid = ?1)
                GROUP BY instances.uid ORDER BY instance";
            let read = |row: &Row<'_>| {
                Ok(OffsiteRow {
                    instance: row.get("instance")?,
                    newest_ms: row.get("newest")?,
                    offsite_ms: row.get("offsite")?,
                })
            };
            all(db, query, params![instance_uid], read)
        })
        .await
    }

    /// How many backups that succeeded are durable at this target and at no other live one.
    pub async fn backups_only_at(&self, target_uid: &str) -> Result<u64, Error> {
        let target_uid = target_uid.to_owned();
        self.read("counting last copies", move |db| {
            let query = "
                SELECT count(*) AS last FROM backups
                WHERE state = 'Succeeded'
                  AND EXISTS (SELECT 1 FROM copies WHERE backup_uid = uid AND target_uid = ?1 AND copies.state = 'Durable')
                  AND NOT EXISTS (
                      SELECT 1 FROM copies JOIN targets ON targets.uid = target_uid
                      WHERE backup_uid = backups.uid AND target_uid <> ?1 AND copies.state = 'Durable'
                            AND removed_ms IS NULL)";
            let counts = all(db, query, params![target_uid], |row| read_count(row, "last"))?;
            Ok(counts.into_iter().sum())
        })
        .await
    }
}

/// All copies of these backups, by backup's uid.
pub(crate) fn of(db: &Connection, backup_uids: &[String]) -> Result<BTreeMap<String, Vec<CopyRow>>, Fault> {
    of_backups(db, "copies", backup_uids, from_row, |row| &row.backup_uid)
}

/// All copies of finished backups.
pub(crate) fn every_finished(db: &Connection) -> Result<Vec<CopyRow>, Fault> {
    let query = "SELECT copies.* FROM copies JOIN backups ON uid = backup_uid WHERE backups.state <> 'Pending'
                 ORDER BY backup_uid, target_uid";
    all(db, query, [], from_row)
}

pub(crate) fn store(db: &Connection, row: &CopyRow) -> Result<(), Fault> {
    put(db, "copies", "backup_uid, target_uid", columns(row))
}

fn columns(row: &CopyRow) -> Columns {
    vec![
        ("backup_uid", row.backup_uid.clone().into()),
        ("target_uid", row.target_uid.clone().into()),
        ("state", row.state.to_string().into()),
        ("durable_ms", row.durable_ms.into()),
        ("reason", row.reason.clone().into()),
        ("copied_bytes", integer(row.copied_bytes)),
        ("expired_ms", row.expired_ms.into()),
    ]
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<CopyRow> {
    Ok(CopyRow {
        backup_uid: row.get("backup_uid")?,
        target_uid: row.get("target_uid")?,
        state: read_word(row, "state")?,
        durable_ms: row.get("durable_ms")?,
        reason: row.get("reason")?,
        copied_bytes: read_count(row, "copied_bytes")?,
        expired_ms: row.get("expired_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetRole;
    use crate::fixtures::{Fixture, target};

    fn copy(backup: &str, target: &str, state: CopyState) -> CopyRow {
        CopyRow {
            backup_uid: backup.to_owned(),
            target_uid: target.to_owned(),
            state,
            durable_ms: (state == CopyState::Durable).then_some(5_000),
            reason: None,
            copied_bytes: 10,
            expired_ms: None,
        }
    }

    async fn two_targets() -> Fixture {
        let catalog = Fixture::new().await;
        catalog.insert_target(target("t1", TargetRole::Primary)).await.unwrap();
        catalog.insert_target(target("t2", TargetRole::Secondary)).await.unwrap();
        catalog
    }

    #[tokio::test]
    async fn a_copy_is_of_a_known_backup_at_a_known_target() {
        let catalog = two_targets().await;
        catalog.succeeded("b1", "pg", 1_000).await;
        for (backup, target) in [("b2", "t1"), ("b1", "t3")] {
            let error = catalog.set_copy(copy(backup, target, CopyState::Copying)).await.unwrap_err();
            assert_eq!(error.code(), "not-found");
        }
        catalog.set_copy(copy("b1", "t2", CopyState::Copying)).await.unwrap();
        catalog.set_copy(copy("b1", "t2", CopyState::Durable)).await.unwrap();
        let copies = catalog.copies_of(&["b1".to_owned(), "b2".to_owned()]).await.unwrap();
        assert_eq!(copies, BTreeMap::from([("b1".to_owned(), vec![copy("b1", "t2", CopyState::Durable)])]));
    }

    #[tokio::test]
    async fn the_newest_of_each_instance_is_copied_before_the_backlog() {
        let catalog = two_targets().await;
        for (uid, instance, created_ms) in
            [("a1", "a", 1), ("a2", "a", 5), ("a3", "a", 9), ("b1", "b", 2), ("b2", "b", 3), ("c1", "c", 4)]
        {
            catalog.succeeded(uid, instance, created_ms).await;
        }
        catalog.pending("a4", "a", 10).await;
        catalog.set_copy(copy("a2", "t2", CopyState::Copying)).await.unwrap();
        catalog.set_copy(copy("c1", "t1", CopyState::Durable)).await.unwrap();
        let missing = async |target, limit| -> Vec<String> {
            catalog.backups_missing_at(target, limit).await.unwrap().into_iter().map(|row| row.uid).collect()
        };
        assert_eq!(missing("t2", 100).await, ["a3", "c1", "b2", "a2", "b1", "a1"]);
        assert_eq!(missing("t2", 2).await, ["a3", "c1"]);
        catalog.set_copy(copy("a3", "t2", CopyState::Durable)).await.unwrap();
        assert_eq!(missing("t2", 100).await, ["c1", "b2", "a2", "b1", "a1"]);
    }

    #[tokio::test]
    async fn targets_count_what_they_hold_and_lack() {
        let catalog = two_targets().await;
        catalog.succeeded("b1", "pg", 1_000).await;
        catalog.succeeded("b2", "pg", 2_000).await;
        catalog.succeeded("b3", "pg", 3_000).await;
        for row in [
            copy("b1", "t1", CopyState::Durable),
            copy("b2", "t1", CopyState::Durable),
            copy("b3", "t1", CopyState::Durable),
            copy("b1", "t2", CopyState::Durable),
            copy("b2", "t2", CopyState::Pending),
        ] {
            catalog.set_copy(row).await.unwrap();
        }
        catalog.backup_deleting("b3", 4_000).await.unwrap();
        let counts = catalog.target_counts().await.unwrap();
        assert_eq!(counts["t1"], TargetCounts { durable: 2, behind: 0, behind_since_ms: None });
        let since = catalog.backup_by_uid("b2").await.unwrap().unwrap().finished_ms;
        assert_eq!(counts["t2"], TargetCounts { durable: 1, behind: 1, behind_since_ms: since });
        assert!(since.is_some());
        assert_eq!(catalog.backups_only_at("t1").await.unwrap(), 1);
        assert_eq!(catalog.backups_only_at("t2").await.unwrap(), 0);
        catalog.remove_target("t2", 5_000).await.unwrap();
        assert!(!catalog.target_counts().await.unwrap().contains_key("t2"));
    }

    #[tokio::test]
    async fn what_is_off_site_is_at_another_site_than_the_instance() {
        let catalog = two_targets().await;
        let away = |row: &mut crate::TargetRow| row.site = "there".to_owned();
        catalog.update_target("t2", None, 1, away).await.unwrap();
        let instance = catalog.insert_instance(crate::fixtures::instance("uid of pg", "pg"), false).await.unwrap();
        assert_eq!(catalog.offsite(None).await.unwrap(), []);
        for (uid, created_ms) in [("b1", 1_000), ("b2", 2_000)] {
            catalog.succeeded(uid, "pg", created_ms).await;
            catalog.set_copy(copy(uid, "t1", CopyState::Durable)).await.unwrap();
        }
        let instance_name = instance.full_name();
        let row = |offsite_ms| OffsiteRow { instance: instance_name.clone(), newest_ms: 2_001, offsite_ms };
        let site = instance.site.clone();
        catalog.update_target("t1", None, 3, move |row| row.site = site).await.unwrap();
        assert_eq!(catalog.offsite(None).await.unwrap(), [row(None)]);
        catalog.set_copy(copy("b1", "t2", CopyState::Durable)).await.unwrap();
        assert_eq!(catalog.offsite(Some("uid of pg")).await.unwrap(), [row(Some(1_001))]);
        assert_eq!(catalog.offsite(Some("other")).await.unwrap(), []);
    }
}
