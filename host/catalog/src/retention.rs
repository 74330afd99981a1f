//! What retention looks at, and what it lets go: over the tables `backups` and `copies`.

use std::collections::BTreeMap;

use rusqlite::{Row, named_params, params};

use crate::rows::{all, json, read_json, read_optional_json};
use crate::{BackupState, Catalog, CopyRow, CopyState, Error, HoldRow, Scope, backups, copies, losses};

/// A backup that succeeded, as far as retention is concerned.
#[derive(Clone, Debug, PartialEq)]
pub struct RetentionRow {
    /// 32 hexadecimal digits.
    pub uid: String,
    /// Of what it is.
    pub instance_uid: String,
    /// First part of the instance's name.
    pub organization: String,
    /// Second part of the instance's name.
    pub project: String,
    /// Last part of the instance's name.
    pub instance: String,
    /// Unique within its instance.
    pub name: String,
    /// Where its instance runs.
    pub site: String,
    /// What people attached to it.
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// The newest proof that it can be restored.
    pub verified: Option<serde_json::Value>,
    /// Who holds it.
    pub holds: Vec<HoldRow>,
    /// It follows no policy, and is kept until its instance has a success of this time.
    pub keep_until_ms: Option<i64>,
    /// How it is at each target.
    pub copies: Vec<CopyRow>,
    /// Targets at which something of it is known to be lost.
    pub damaged_at: Vec<String>,
}

impl RetentionRow {
    /// `organization/project/instance/name`.
    pub fn full_name(&self) -> String {
        [&*self.organization, &self.project, &self.instance, &self.name].join("/")
    }
}

impl Catalog {
    /// Uids of the instances of a scope, live or removed, that have any backup.
    pub async fn instances_with_backups(&self, scope: Scope) -> Result<Vec<String>, Error> {
        self.read("reading what has backups", move |db| {
            let query = "
                SELECT DISTINCT instance_uid AS uid FROM backups
                WHERE (:organization IS NULL OR organization = :organization)
                  AND (:project IS NULL OR project = :project) AND (:instance IS NULL OR instance = :instance)
                ORDER BY instance_uid";
            let scope = named_params! {
                ":organization": scope.organization, ":project": scope.project, ":instance": scope.instance,
            };
            all(db, query, scope, |row| row.get("uid"))
        })
        .await
    }

    /// All backups of these instances that succeeded, by instance, oldest first.
    pub async fn retention_rows(&self, instance_uids: Vec<String>) -> Result<Vec<RetentionRow>, Error> {
        self.read("reading what may expire", move |db| {
            let query = "
                SELECT uid, instance_uid, organization, project, instance, name, site, labels, created_ms, verified, holds,
                       keep_until_ms
                FROM backups
                WHERE state = 'Succeeded' AND instance_uid IN (SELECT value FROM json_each(?1))
                ORDER BY instance_uid, created_ms, uid";
            let mut rows = all(db, query, params![json(&instance_uids)?], from_row)?;
            let uids: Vec<_> = rows.iter().map(|row| row.uid.clone()).collect();
            let (mut copies, mut losses) = (copies::of(db, &uids)?, losses::of(db, &uids)?);
            for row in &mut rows {
                row.copies = copies.remove(&row.uid).unwrap_or_default();
                let lost = losses.remove(&row.uid).unwrap_or_default();
                row.damaged_at = lost.into_iter().map(|loss| loss.target_uid).collect();
            }
            Ok(rows)
        })
        .await
    }

    /// Copies of a backup at these targets are let go: nobody counts on them any more. The backup lives on at others.
    /// Refused: [`Error::Held`], [`Error::BackupState`] if it is not one that succeeded.
    pub async fn copies_expired(&self, uid: &str, target_uids: Vec<String>, now_ms: i64) -> Result<(), Error> {
        let uid = uid.to_owned();
        self.write("recording what expired", move |db| {
            let not_found = || Error::NotFound { what: "backup", id: uid.clone() };
            let row = backups::by_uid(db, &uid)?.ok_or_else(not_found)?;
            if row.state != BackupState::Succeeded {
                return Err(Error::BackupState { uid, state: row.state }.into());
            }
            if let Some(hold) = row.holds.into_iter().next() {
                return Err(Error::Held { uid, name: hold.name, reason: hold.reason }.into());
            }
            for target_uid in target_uids {
                let copy = CopyRow {
                    backup_uid: uid.clone(),
                    target_uid,
                    state: CopyState::Pending,
                    durable_ms: None,
                    reason: None,
                    copied_bytes: 0,
                    expired_ms: Some(now_ms),
                };
                copies::store(db, &copy)?;
            }
            Ok(())
        })
        .await
    }

    /// Backups whose deletion was begun, and those whose copy at this target expired: uids of what is to be gone from there.
    pub async fn expired_at(&self, target_uid: &str) -> Result<Vec<String>, Error> {
        let target_uid = target_uid.to_owned();
        self.read("reading what expired", move |db| {
            let query = "
                SELECT backup_uid AS uid FROM copies WHERE target_uid = ?1 AND expired_ms IS NOT NULL
                UNION SELECT uid FROM backups WHERE state = 'Deleting' ORDER BY uid";
            all(db, query, params![target_uid], |row| row.get("uid"))
        })
        .await
    }

    /// Forgets backups that failed or were cancelled, once a success of their instance is so much younger. How many.
    pub async fn forget_unsuccessful(&self, younger_by_ms: i64) -> Result<u64, Error> {
        self.write("forgetting what never succeeded", move |db| {
            let delete = "
                DELETE FROM backups WHERE state IN ('Failed', 'Cancelled') AND EXISTS (
                    SELECT 1 FROM backups AS later WHERE later.instance_uid = backups.instance_uid
                    AND later.state = 'Succeeded' AND later.created_ms >= backups.created_ms + ?1)";
            Ok(db.execute(delete, params![younger_by_ms])? as u64)
        })
        .await
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<RetentionRow> {
    Ok(RetentionRow {
        uid: row.get("uid")?,
        instance_uid: row.get("instance_uid")?,
        organization: row.get("organization")?,
        project: row.get("project")?,
        instance: row.get("instance")?,
        name: row.get("name")?,
        site: row.get("site")?,
        labels: read_json(row, "labels")?,
        created_ms: row.get("created_ms")?,
        verified: read_optional_json(row, "verified")?,
        holds: read_json(row, "holds")?,
        keep_until_ms: row.get("keep_until_ms")?,
        copies: Vec::new(),
        damaged_at: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, target};
    use crate::{BackupRow, LossRow, TargetRole};

    /// Two targets, and backups of one instance that are durable at both.
    async fn kept(uids: &[&str]) -> Fixture {
        let catalog = Fixture::new().await;
        catalog.insert_target(target("t1", TargetRole::Primary)).await.unwrap();
        catalog.insert_target(target("t2", TargetRole::Secondary)).await.unwrap();
        for (number, uid) in (1..).zip(uids) {
            catalog.succeeded(uid, "pg", number * 1_000).await;
            for target_uid in ["t1", "t2"] {
                catalog.set_copy(durable(uid, target_uid)).await.unwrap();
            }
        }
        catalog
    }

    fn durable(backup_uid: &str, target_uid: &str) -> CopyRow {
        let [backup_uid, target_uid] = [backup_uid, target_uid].map(str::to_owned);
        let (state, durable_ms) = (CopyState::Durable, Some(9_000));
        CopyRow { backup_uid, target_uid, state, durable_ms, reason: None, copied_bytes: 1, expired_ms: None }
    }

    #[tokio::test]
    async fn a_copy_that_expired_is_neither_counted_nor_missed_nor_made_again() {
        let catalog = kept(&["b1", "b2"]).await;
        catalog.copies_expired("b1", vec!["t2".to_owned()], 10_000).await.unwrap();
        let [backup_uid, target_uid] = ["b2", "t1"].map(str::to_owned);
        let lost = LossRow { backup_uid, target_uid, total: 1, ranges: Vec::new(), found_ms: 10_000 };
        catalog.set_losses("t1", vec![lost]).await.unwrap();
        assert_eq!(catalog.backups_missing_at("t2", 9).await.unwrap(), []);
        let counts = catalog.target_counts().await.unwrap();
        assert_eq!((counts["t1"].durable, counts["t1"].behind), (2, 0));
        assert_eq!((counts["t2"].durable, counts["t2"].behind, counts["t2"].behind_since_ms), (1, 0, None));
        assert_eq!(catalog.backups_only_at("t1").await.unwrap(), 1);
        assert_eq!(catalog.expired_at("t2").await.unwrap(), ["b1"]);
        assert_eq!(catalog.expired_at("t1").await.unwrap(), [""; 0]);
        let instances = catalog.instances_with_backups(Scope::from_path("acme/shop/pg")).await.unwrap();
        assert_eq!(instances, ["uid of pg"]);
        let rows = catalog.retention_rows(instances).await.unwrap();
        let found: Vec<_> = rows.iter().map(|row| (row.uid.as_str(), row.copies[1].expired_ms)).collect();
        assert_eq!(found, [("b1", Some(10_000)), ("b2", None)]);
        assert_eq!((rows[0].damaged_at.as_slice(), rows[1].damaged_at.as_slice()), (&[][..], &["t1".to_owned()][..]));
        assert_eq!(catalog.instances_with_backups(Scope::from_path("acme/shop/other")).await.unwrap(), [""; 0]);
    }

    #[tokio::test]
    async fn nothing_of_a_held_backup_expires() {
        let catalog = kept(&["b1"]).await;
        let hold = HoldRow { name: "alice".to_owned(), reason: "audit".to_owned(), at_ms: 5_000 };
        catalog.backup_held("b1", hold).await.unwrap();
        let error = catalog.copies_expired("b1", vec!["t2".to_owned()], 10_000).await.unwrap_err();
        assert_eq!(error.code(), "backup-held");
        assert_eq!(catalog.target_counts().await.unwrap()["t2"].durable, 1);
    }

    #[tokio::test]
    async fn a_deletion_that_was_begun_is_to_be_finished_at_every_target() {
        let catalog = kept(&["b1", "b2"]).await;
        catalog.backup_deleting("b1", 10_000).await.unwrap();
        for target in ["t1", "t2"] {
            assert_eq!(catalog.expired_at(target).await.unwrap(), ["b1"]);
        }
        let error = catalog.copies_expired("b1", vec!["t2".to_owned()], 10_000).await.unwrap_err();
        assert_eq!(error.code(), "backup-state");
    }

    #[tokio::test]
    async fn what_failed_is_forgotten_once_a_success_is_so_much_younger() {
        let catalog = kept(&[]).await;
        for (uid, state, created_ms) in [
            ("old", BackupState::Failed, 1_000),
            ("given-up", BackupState::Cancelled, 2_000),
            ("good", BackupState::Succeeded, 7_000),
            ("new", BackupState::Failed, 8_000),
        ] {
            let row = BackupRow { state, ..crate::fixtures::backup(uid, "pg", created_ms) };
            catalog.upsert_backup(row).await.unwrap();
        }
        let other = BackupRow { state: BackupState::Failed, ..crate::fixtures::backup("alone", "other", 1_000) };
        catalog.upsert_backup(other).await.unwrap();
        assert_eq!(catalog.forget_unsuccessful(5_500).await.unwrap(), 1);
        assert_eq!(catalog.forget_unsuccessful(5_000).await.unwrap(), 1);
        assert_eq!(catalog.forget_unsuccessful(0).await.unwrap(), 0, "they have no later success");
        assert!(catalog.backup_by_uid("good").await.unwrap().is_some());
    }
}
