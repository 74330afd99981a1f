//! How a backup changes: Pending, then Succeeded, Failed or Cancelled, then Deleting, then gone. No other way.

use rusqlite::{Connection, params};

use crate::error::Fault;
use crate::{
    BackupRow, BackupState, BackupSuccess, Catalog, CopyRow, CopyState, Error, JobError, backups,
    copies,
};

impl Catalog {
    /// An attempt at a Pending backup begins.
    pub async fn backup_started(
        &self,
        uid: &str,
        phase: &str,
        now_ms: i64,
    ) -> Result<BackupRow, Error> {
        let phase = phase.to_owned();
        let start = move |row: &mut BackupRow| {
            row.phase = phase;
            row.started_ms.get_or_insert(now_ms);
        };
        self.change_pending("recording a backup's start", uid, now_ms, start)
            .await
    }

    /// A Pending backup enters a phase.
    pub async fn backup_phase(
        &self,
        uid: &str,
        phase: &str,
        now_ms: i64,
    ) -> Result<BackupRow, Error> {
        let phase = phase.to_owned();
        self.change_pending("recording a backup's phase", uid, now_ms, |row| {
            row.phase = phase
        })
        .await
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
        self.change_pending("recording a backup's failure", uid, now_ms, move |row| {
            fail(row, reason, hint, now_ms)
        })
        .await
    }

    /// A Pending backup was given up on request.
    pub async fn backup_cancelled(&self, uid: &str, now_ms: i64) -> Result<BackupRow, Error> {
        self.change_pending("recording a backup's end", uid, now_ms, move |row| {
            cancel(row, now_ms)
        })
        .await
    }

    /// Records the newest proof that a backup can, or cannot, be restored.
    pub async fn backup_verified(
        &self,
        uid: &str,
        verified: serde_json::Value,
        now_ms: i64,
    ) -> Result<BackupRow, Error> {
        let record = |row: &mut BackupRow| row.verified = Some(verified);
        self.change_backup(
            "recording a verification",
            uid,
            now_ms,
            only(BackupState::Succeeded),
            record,
        )
        .await
    }

    /// A finished backup is to be deleted from all targets.
    pub async fn backup_deleting(&self, uid: &str, now_ms: i64) -> Result<BackupRow, Error> {
        let delete = |row: &mut BackupRow| row.state = BackupState::Deleting;
        self.change_backup(
            "recording a deletion's start",
            uid,
            now_ms,
            |row| row.state != BackupState::Pending,
            delete,
        )
        .await
    }

    /// A backup that was Deleting is gone everywhere: its row and its copies' rows go too.
    pub async fn backup_deleted(&self, uid: &str) -> Result<(), Error> {
        let uid = uid.to_owned();
        self.write("recording a deletion", move |db| {
            let row = found(db, &uid)?;
            if row.state != BackupState::Deleting {
                return Err(Error::BackupState {
                    uid,
                    state: row.state,
                }
                .into());
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
                return Err(Error::Stale {
                    what: "backup",
                    uid,
                    found: version,
                }
                .into());
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
        self.change_backup(step, uid, now_ms, only(BackupState::Pending), edit)
            .await
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
        self.write(step, move |db| change(db, &uid, now_ms, allowed, edit))
            .await
    }
}

/// What people may edit of a backup; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupEdit {
    /// The new description, or none from now on.
    pub description: Option<Option<String>>,
    /// The new labels, all of them.
    pub labels: Option<std::collections::BTreeMap<String, String>>,
}

/// A job failed for good: so did the backup that it was to make, unless that had its end already.
pub(crate) fn fail_with_job(
    db: &Connection,
    job_id: &str,
    error: &JobError,
    now_ms: i64,
) -> Result<(), Fault> {
    let Some(backup) = backups::pending_of_job(db, job_id)? else {
        return Ok(());
    };
    let (reason, hint) = (error.message.clone(), error.hint.clone());
    change(
        db,
        &backup.uid,
        now_ms,
        |_| true,
        |row| fail(row, reason, hint, now_ms),
    )
    .map(drop)
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
    Ok(backups::by_uid(db, uid)?.ok_or_else(|| Error::NotFound {
        what: "backup",
        id: uid.to_owned(),
    })?)
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
        return Err(Error::BackupState {
            uid: before.uid,
            state: before.state,
        }
        .into());
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
