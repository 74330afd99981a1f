//! How a backup changes: Pending, then Succeeded, Failed or Cancelled, then Deleting, then gone. No other way.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use crate::error::Fault;
use crate::{
    BackupRow, BackupState, BackupSuccess, Catalog, CopyRow, CopyState, Error, HoldRow, JobError, backups, copies,
};

/// What people may edit of a backup; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupEdit {
    /// The new description, or none from now on.
    pub description: Option<Option<String>>,
    /// The new labels, all of them.
    pub labels: Option<BTreeMap<String, String>>,
}

impl Catalog {
    /// An attempt at a Pending backup begins.
    pub async fn backup_started(&self, uid: &str, phase: &str, now_ms: i64) -> Result<BackupRow, Error> {
        let phase = phase.to_owned();
        let start = move |row: &mut BackupRow| {
            row.phase = phase;
            row.started_ms.get_or_insert(now_ms);
        };
        self.change_pending("recording a backup's start", uid, now_ms, start).await
    }

    /// A Pending backup enters a phase.
    pub async fn backup_phase(&self, uid: &str, phase: &str, now_ms: i64) -> Result<BackupRow, Error> {
        let phase = phase.to_owned();
        self.change_pending("recording a backup's phase", uid, now_ms, |row| row.phase = phase).await
    }

    /// A Pending backup exists: its head is written at the primary target `primary_uid`, where its copy becomes Durable.
    pub async fn backup_succeeded(
        &self,
        uid: &str,
        primary_uid: &str,
        success: BackupSuccess,
        now_ms: i64,
    ) -> Result<BackupRow, Error> {
        let [uid, primary_uid] = [uid, primary_uid].map(str::to_owned);
        self.write("recording a backup's success", move |db| {
            let row = change(db, &uid, now_ms, only(BackupState::Pending), |row| {
                row.state = BackupState::Succeeded;
                row.phase = "done".to_owned();
                (row.reason, row.hint) = (None, None);
                row.entries = success.entries;
                row.logical_bytes = success.logical_bytes;
                row.stored_bytes = success.stored_bytes;
                row.warnings = success.warnings;
                row.document = success.document;
                row.finished_ms = Some(now_ms);
            })?;
            let copied_bytes = row.stored_bytes;
            let copy = CopyRow {
                backup_uid: uid,
                target_uid: primary_uid,
                state: CopyState::Durable,
                durable_ms: Some(now_ms),
                reason: None,
                copied_bytes,
                expired_ms: None,
            };
            copies::store(db, &copy)?;
            Ok(row)
        })
        .await
    }

    /// A Pending backup could not be made.
    pub async fn backup_failed(
        &self,
        uid: &str,
        reason: &str,
        hint: Option<&str>,
        now_ms: i64,
    ) -> Result<BackupRow, Error> {
        let (reason, hint) = (reason.to_owned(), hint.map(str::to_owned));
        self.change_pending("recording a backup's failure", uid, now_ms, move |row| fail(row, reason, hint, now_ms))
            .await
    }

    /// A Pending backup was given up on request.
    pub async fn backup_cancelled(&self, uid: &str, now_ms: i64) -> Result<BackupRow, Error> {
        self.change_pending("recording a backup's end", uid, now_ms, move |row| cancel(row, now_ms)).await
    }

    /// Records the newest proof that a backup can, or cannot, be restored.
    pub async fn backup_verified(
        &self,
        uid: &str,
        verified: serde_json::Value,
        now_ms: i64,
    ) -> Result<BackupRow, Error> {
        let record = |row: &mut BackupRow| row.verified = Some(verified);
        self.change_backup("recording a verification", uid, now_ms, only(BackupState::Succeeded), record).await
    }

    /// A finished backup is to be deleted from all targets. Refused: [`Error::Held`].
    pub async fn backup_deleting(&self, uid: &str, now_ms: i64) -> Result<BackupRow, Error> {
        let uid = uid.to_owned();
        self.write("recording a deletion's start", move |db| {
            if let Some(hold) = found(db, &uid)?.holds.into_iter().next() {
                return Err(Error::Held { uid, name: hold.name, reason: hold.reason }.into());
            }
            let delete = |row: &mut BackupRow| row.state = BackupState::Deleting;
            change(db, &uid, now_ms, |row| row.state != BackupState::Pending, delete)
        })
        .await
    }

    /// Somebody holds a backup that succeeded; a hold of that name is replaced.
    pub async fn backup_held(&self, uid: &str, hold: HoldRow) -> Result<BackupRow, Error> {
        let now_ms = hold.at_ms;
        let record = |row: &mut BackupRow| {
            row.holds.retain(|other| other.name != hold.name);
            row.holds.push(hold);
        };
        self.change_backup("recording a hold", uid, now_ms, only(BackupState::Succeeded), record).await
    }

    /// The hold of that name ends, all of them without a name.
    pub async fn backup_released(&self, uid: &str, name: Option<&str>, now_ms: i64) -> Result<BackupRow, Error> {
        let name = name.map(str::to_owned);
        let release = move |row: &mut BackupRow| {
            row.holds.retain(|hold| name.as_ref().is_some_and(|name| hold.name != *name));
        };
        self.change_backup("recording a release", uid, now_ms, |_| true, release).await
    }

    /// A backup that was Deleting is gone everywhere: its row and its copies' rows go too.
    pub async fn backup_deleted(&self, uid: &str) -> Result<(), Error> {
        let uid = uid.to_owned();
        self.write("recording a deletion", move |db| {
            let row = found(db, &uid)?;
            if row.state != BackupState::Deleting {
                return Err(Error::BackupState { uid, state: row.state }.into());
            }
            db.execute("DELETE FROM backups WHERE uid = ?1", params![uid])?;
            Ok(())
        })
        .await
    }

    /// Changes what people may edit of a backup and returns it. With `if_version`, only if it is still at that version, else
    /// [`Error::Stale`].
    pub async fn edit_backup(
        &self,
        uid: &str,
        if_version: Option<u64>,
        now_ms: i64,
        edit: BackupEdit,
    ) -> Result<BackupRow, Error> {
        let uid = uid.to_owned();
        self.write("changing a backup", move |db| {
            let version = found(db, &uid)?.resource_version;
            if if_version.is_some_and(|wanted| wanted != version) {
                return Err(Error::Stale { what: "backup", uid, found: version }.into());
            }
            change(
                db,
                &uid,
                now_ms,
                |_| true,
                |row| {
                    if let Some(description) = edit.description {
                        row.description = description;
                    }
                    if let Some(labels) = edit.labels {
                        row.labels = labels;
                    }
                },
            )
        })
        .await
    }

    async fn change_pending(
        &self,
        step: &'static str,
        uid: &str,
        now_ms: i64,
        edit: impl FnOnce(&mut BackupRow) + Send + 'static,
    ) -> Result<BackupRow, Error> {
        self.change_backup(step, uid, now_ms, only(BackupState::Pending), edit).await
    }

    async fn change_backup(
        &self,
        step: &'static str,
        uid: &str,
        now_ms: i64,
        allowed: impl FnOnce(&BackupRow) -> bool + Send + 'static,
        edit: impl FnOnce(&mut BackupRow) + Send + 'static,
    ) -> Result<BackupRow, Error> {
        let uid = uid.to_owned();
        self.write(step, move |db| change(db, &uid, now_ms, allowed, edit)).await
    }
}

/// A job failed for good: so did the backup that it was to make, unless that had its end already.
pub(crate) fn fail_with_job(db: &Connection, job_id: &str, error: &JobError, now_ms: i64) -> Result<(), Fault> {
    let Some(backup) = backups::pending_of_job(db, job_id)? else {
        return Ok(());
    };
    let (reason, hint) = (error.message.clone(), error.hint.clone());
    change(db, &backup.uid, now_ms, |_| true, |row| fail(row, reason, hint, now_ms)).map(drop)
}

/// A job was cancelled: so was the backup that it was to make, unless that had its end already.
pub(crate) fn cancel_with_job(db: &Connection, job_id: &str, now_ms: i64) -> Result<(), Fault> {
    let Some(backup) = backups::pending_of_job(db, job_id)? else {
        return Ok(());
    };
    change(db, &backup.uid, now_ms, |_| true, |row| cancel(row, now_ms)).map(drop)
}

fn fail(row: &mut BackupRow, reason: String, hint: Option<String>, now_ms: i64) {
    row.state = BackupState::Failed;
    (row.reason, row.hint) = (Some(reason), hint);
    row.finished_ms = Some(now_ms);
}

fn cancel(row: &mut BackupRow, now_ms: i64) {
    row.state = BackupState::Cancelled;
    row.finished_ms = Some(now_ms);
}

fn only(state: BackupState) -> impl FnOnce(&BackupRow) -> bool + Send + 'static {
    move |row| row.state == state
}

fn found(db: &Connection, uid: &str) -> Result<BackupRow, Fault> {
    Ok(backups::by_uid(db, uid)?.ok_or_else(|| Error::NotFound { what: "backup", id: uid.to_owned() })?)
}

fn change(
    db: &Connection,
    uid: &str,
    now_ms: i64,
    allowed: impl FnOnce(&BackupRow) -> bool,
    edit: impl FnOnce(&mut BackupRow),
) -> Result<BackupRow, Fault> {
    let before = found(db, uid)?;
    if !allowed(&before) {
        return Err(Error::BackupState { uid: before.uid, state: before.state }.into());
    }
    let mut row = before.clone();
    edit(&mut row);
    if row == before {
        return Ok(before);
    }
    (row.updated_ms, row.resource_version) = (now_ms, before.resource_version + 1);
    backups::store(db, &row)?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetRole;
    use crate::fixtures::{Fixture, target};

    fn totals() -> BackupSuccess {
        BackupSuccess {
            entries: 7,
            logical_bytes: u64::from(u32::MAX) + 1,
            stored_bytes: 300,
            warnings: vec!["unlogged table".to_owned()],
            document: Some("{}".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_backup_that_succeeds_is_durable_at_the_primary() {
        let catalog = Fixture::new().await;
        catalog.insert_target(target("t1", TargetRole::Primary)).await.unwrap();
        catalog.pending("b1", "pg", 1_000).await;
        catalog.backup_started("b1", "connecting", 2_000).await.unwrap();
        catalog.backup_started("b1", "connecting", 2_500).await.unwrap();
        catalog.backup_phase("b1", "copying", 2_700).await.unwrap();
        let row = catalog.backup_succeeded("b1", "t1", totals(), 3_000).await.unwrap();
        assert_eq!((row.started_ms, row.finished_ms, row.updated_ms), (Some(2_000), Some(3_000), 3_000));
        assert_eq!((row.state, row.entries, row.stored_bytes), (BackupState::Succeeded, 7, 300));
        assert_eq!((row.logical_bytes, row.warnings.len()), (u64::from(u32::MAX) + 1, 1));
        assert_eq!(row.resource_version, 4, "the second start made no difference");
        assert_eq!(catalog.backup_by_uid("b1").await.unwrap(), Some(row));
        let copies = catalog.copies_of(&["b1".to_owned()]).await.unwrap();
        let copy = &copies["b1"][0];
        assert_eq!((copy.state, copy.durable_ms, copy.copied_bytes), (CopyState::Durable, Some(3_000), 300));
    }

    #[tokio::test]
    async fn what_somebody_holds_is_not_deleted_before_it_is_released() {
        let catalog = Fixture::new().await;
        catalog.succeeded("b1", "pg", 1_000).await;
        let hold =
            |name: &str, reason: &str, at_ms| HoldRow { name: name.to_owned(), reason: reason.to_owned(), at_ms };
        catalog.backup_held("b1", hold("alice", "audit", 2_000)).await.unwrap();
        catalog.backup_held("b1", hold("bob", "court", 3_000)).await.unwrap();
        let row = catalog.backup_held("b1", hold("alice", "audit of 2026", 4_000)).await.unwrap();
        assert_eq!(row.holds, [hold("bob", "court", 3_000), hold("alice", "audit of 2026", 4_000)]);
        assert_eq!(catalog.backup_by_uid("b1").await.unwrap(), Some(row));
        let error = catalog.backup_deleting("b1", 5_000).await.unwrap_err();
        assert!(matches!(error, Error::Held { ref reason, .. } if reason == "court"), "{error}");
        catalog.backup_released("b1", Some("bob"), 6_000).await.unwrap();
        assert_eq!(catalog.backup_deleting("b1", 7_000).await.unwrap_err().code(), "backup-held");
        assert_eq!(catalog.backup_released("b1", None, 8_000).await.unwrap().holds, []);
        catalog.backup_deleting("b1", 9_000).await.unwrap();
        let error = catalog.backup_held("b1", hold("alice", "too late", 9_000)).await.unwrap_err();
        assert_eq!(error.code(), "backup-state");
    }

    #[tokio::test]
    async fn success_without_a_primary_to_be_durable_at_is_refused_whole() {
        let catalog = Fixture::new().await;
        catalog.pending("b1", "pg", 1_000).await;
        assert!(catalog.backup_succeeded("b1", "nowhere", totals(), 3_000).await.is_err());
        let row = catalog.backup_by_uid("b1").await.unwrap().unwrap();
        assert_eq!(row.state, BackupState::Pending);
    }

    #[tokio::test]
    async fn a_final_state_is_final() {
        let catalog = Fixture::new().await;
        catalog.insert_target(target("t1", TargetRole::Primary)).await.unwrap();
        catalog.pending("b1", "pg", 1_000).await;
        let failed = catalog.backup_failed("b1", "refused", Some("Start it."), 2_000).await.unwrap();
        assert_eq!((failed.state, failed.finished_ms), (BackupState::Failed, Some(2_000)));
        assert_eq!((failed.reason.as_deref(), failed.hint.as_deref()), (Some("refused"), Some("Start it.")));
        let refused = [
            catalog.backup_succeeded("b1", "t1", totals(), 3_000).await.unwrap_err(),
            catalog.backup_failed("b1", "again", None, 3_000).await.unwrap_err(),
            catalog.backup_cancelled("b1", 3_000).await.unwrap_err(),
            catalog.backup_started("b1", "connecting", 3_000).await.unwrap_err(),
            catalog.backup_verified("b1", true.into(), 3_000).await.unwrap_err(),
        ];
        for error in refused {
            assert!(matches!(error, Error::BackupState { state: BackupState::Failed, .. }), "{error}");
        }
        assert_eq!(catalog.backup_by_uid("b1").await.unwrap(), Some(failed));
    }

    #[tokio::test]
    async fn deleting_has_two_steps_and_spares_a_running_backup() {
        let catalog = Fixture::new().await;
        catalog.insert_target(target("t1", TargetRole::Primary)).await.unwrap();
        catalog.pending("b1", "pg", 1_000).await;
        assert_eq!(catalog.backup_deleting("b1", 2_000).await.unwrap_err().code(), "backup-state");
        catalog.backup_succeeded("b1", "t1", totals(), 3_000).await.unwrap();
        assert_eq!(catalog.backup_deleted("b1").await.unwrap_err().code(), "backup-state");
        catalog.backup_deleting("b1", 4_000).await.unwrap();
        catalog.backup_deleted("b1").await.unwrap();
        assert_eq!(catalog.backup_by_uid("b1").await.unwrap(), None);
        assert!(catalog.copies_of(&["b1".to_owned()]).await.unwrap().is_empty());
        assert_eq!(catalog.backup_deleted("b1").await.unwrap_err().code(), "not-found");
    }

    #[tokio::test]
    async fn verification_and_edits_are_kept() {
        let catalog = Fixture::new().await;
        let before = catalog.succeeded("b1", "pg", 1_000).await;
        let proof = serde_json::json!({"level": "engine", "passed": true});
        catalog.backup_verified("b1", proof.clone(), 2_000).await.unwrap();
        let edit = BackupEdit { description: Some(None), labels: None };
        let row = catalog.edit_backup("b1", Some(2), 3_000, edit.clone()).await.unwrap();
        assert_eq!((row.verified, row.description, row.labels), (Some(proof), None, before.labels));
        let error = catalog.edit_backup("b1", Some(2), 4_000, edit).await.unwrap_err();
        assert!(matches!(error, Error::Stale { what: "backup", found: 3, .. }), "{error}");
    }
}
