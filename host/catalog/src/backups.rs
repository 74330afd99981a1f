//! Table `backups`: what is kept, is being made, or could not be made. How a backup changes is in `lifecycle.rs`.
//!
//! An instance has at most one Pending backup, and a name belongs to one backup of it.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, named_params, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::page::{Moment, rows_to_read};
use crate::rows::{
    Columns, all, insert, integer, json, one, optional_json, put, read_count, read_json, read_optional_json, read_word,
};
use crate::{BackupState, Catalog, Error, IdempotencyKey, JobRow, NewJob, Page, Scope, idempotency, jobs};

/// A backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupRow {
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
    /// What people wrote about it.
    pub description: Option<String>,
    /// The way it is made.
    pub method: String,
    /// `full`, `incremental`, `log`.
    pub backup_type: String,
    /// `name@version`.
    pub plugin: String,
    /// Digest of the plugin's component (hexadecimal).
    pub component: String,
    /// The database product.
    pub engine: String,
    /// Where its instance runs.
    pub site: String,
    /// What people attached to it.
    pub labels: BTreeMap<String, String>,
    /// Its state.
    pub state: BackupState,
    /// What is being done while it is Pending.
    pub phase: String,
    /// Why it failed.
    pub reason: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// When its first attempt began.
    pub started_ms: Option<i64>,
    /// When it reached its final state.
    pub finished_ms: Option<i64>,
    /// Entries, directories included.
    pub entries: u64,
    /// Bytes that the engine sent.
    pub logical_bytes: u64,
    /// Bytes that it added to the primary, sealed.
    pub stored_bytes: u64,
    /// What its reader should know.
    pub warnings: Vec<String>,
    /// The newest proof that it can be restored.
    pub verified: Option<serde_json::Value>,
    /// The plugin's inventory (JSON).
    pub document: Option<String>,
    /// Uid of the backup it builds on.
    pub parent: Option<String>,
    /// The job that makes or made it.
    pub job_id: Option<String>,
    /// Who holds it. Absent in what 0.1.0 wrote.
    #[serde(default)]
    pub holds: Vec<HoldRow>,
    /// It follows no policy, and is kept until its instance has a success of this time. Absent in what 0.1.0 wrote.
    #[serde(default)]
    pub keep_until_ms: Option<i64>,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
    /// Grows with each change.
    pub resource_version: u64,
}

/// A person's pin on a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRow {
    /// Who holds it, or for what; a backup has one hold of each name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Since when, in milliseconds since 1970.
    pub at_ms: i64,
}

impl BackupRow {
    /// `organization/project/instance/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}/{}/{}", self.organization, self.project, self.instance, self.name)
    }
}

/// What [`Catalog::insert_backup_with_job`] did.
#[derive(Clone, Debug, PartialEq)]
pub enum InsertedBackup {
    /// Both were recorded.
    New {
        /// The backup as recorded.
        backup: Box<BackupRow>,
        /// Its job as recorded.
        job: Box<JobRow>,
    },
    /// The same request came before; nothing was recorded.
    Repeated {
        /// Uid of the backup that was made then; it may have been deleted since.
        backup_uid: String,
    },
}

/// Totals of a backup that succeeded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackupSuccess {
    /// Entries, directories included.
    pub entries: u64,
    /// Bytes that the engine sent.
    pub logical_bytes: u64,
    /// Bytes that it added to the primary, sealed.
    pub stored_bytes: u64,
    /// What its reader should know.
    pub warnings: Vec<String>,
    /// The plugin's inventory (JSON).
    pub document: Option<String>,
}

impl Catalog {
    /// Records a Pending backup and the job that makes it, together with the key of the request: all or nothing.
    ///
    /// Refused: [`Error::KeyReused`], [`Error::BackupRunning`], [`Error::NameTaken`].
    pub async fn insert_backup_with_job(
        &self,
        backup: BackupRow,
        job: NewJob,
        key: Option<IdempotencyKey>,
    ) -> Result<InsertedBackup, Error> {
        self.write("recording a backup and its job", move |db| {
            if let Some(key) = &key
                && let Some(backup_uid) = idempotency::answered(db, key)?
            {
                return Ok(InsertedBackup::Repeated { backup_uid });
            }
            let now_ms = backup.created_ms;
            let backup = BackupRow {
                state: BackupState::Pending,
                job_id: Some(job.id.clone()),
                updated_ms: now_ms,
                resource_version: 1,
                ..backup
            };
            check_free(db, &backup)?;
            insert(db, "backups", columns(&backup)?)?;
            let job = jobs::enqueue(db, job, now_ms)?;
            if let Some(key) = &key {
                idempotency::record(db, key, &backup.uid, now_ms)?;
            }
            Ok(InsertedBackup::New { backup: Box::new(backup), job: Box::new(job) })
        })
        .await
    }

    /// The backup of this uid.
    pub async fn backup_by_uid(&self, uid: &str) -> Result<Option<BackupRow>, Error> {
        let uid = uid.to_owned();
        self.read("reading a backup", move |db| by_uid(db, &uid)).await
    }

    /// The backup of this name, in whatever state.
    pub async fn backup_by_name(&self, instance_uid: &str, name: &str) -> Result<Option<BackupRow>, Error> {
        let [instance_uid, name] = [instance_uid, name].map(str::to_owned);
        self.read("reading a backup", move |db| by_name(db, &instance_uid, &name)).await
    }

    /// The newest backup of an instance that succeeded.
    pub async fn latest_usable(&self, instance_uid: &str) -> Result<Option<BackupRow>, Error> {
        let instance_uid = instance_uid.to_owned();
        let query = "SELECT * FROM backups WHERE instance_uid = ?1 AND state = 'Succeeded' ORDER BY created_ms DESC, uid DESC LIMIT 1";
        self.read("reading the latest backup", move |db| one(db, query, params![instance_uid], from_row)).await
    }

    /// Backups, newest first.
    pub async fn list_backups(
        &self,
        scope: Scope,
        state: Option<BackupState>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<BackupRow>, Error> {
        let after = after.map(str::to_owned);
        self.read("listing backups", move |db| {
            let after = Moment::parse(after.as_deref())?;
            let rows = all(
                db,
                "SELECT * FROM backups
                 WHERE (created_ms, uid) < (:after_ms, :after_uid)
                   AND (:organization IS NULL OR organization = :organization)
                   AND (:project IS NULL OR project = :project) AND (:instance IS NULL OR instance = :instance)
                   AND (:state IS NULL OR state = :state)
                 ORDER BY created_ms DESC, uid DESC LIMIT :rows",
                named_params! {
                    ":after_ms": after.ms, ":after_uid": after.id,
                    ":organization": scope.organization, ":project": scope.project, ":instance": scope.instance,
                    ":state": state.map(BackupState::as_str), ":rows": rows_to_read(limit),
                },
                from_row,
            )?;
            Ok(Page::of(rows, limit, |row| Moment::cursor(row.created_ms, &row.uid)))
        })
        .await
    }

    /// Inserts or replaces a backup as it is given, for rebuilding a catalog. Refused: [`Error::BackupRunning`], [`Error::NameTaken`]
    /// if another backup is in its way.
    pub async fn upsert_backup(&self, row: BackupRow) -> Result<(), Error> {
        self.write("recording a backup", move |db| {
            check_free(db, &row)?;
            store(db, &row)
        })
        .await
    }
}

/// Refuses a second Pending backup of the instance, and a second backup of the name.
fn check_free(db: &Connection, row: &BackupRow) -> Result<(), Fault> {
    if row.state == BackupState::Pending
        && let Some(running) = pending_of(db, &row.instance_uid)?.filter(|other| other.uid != row.uid)
    {
        return Err(Error::BackupRunning { uid: running.uid, name: running.name }.into());
    }
    match by_name(db, &row.instance_uid, &row.name)? {
        Some(other) if other.uid != row.uid => Err(Error::NameTaken { name: other.name }.into()),
        _ => Ok(()),
    }
}

fn pending_of(db: &Connection, instance_uid: &str) -> Result<Option<BackupRow>, Fault> {
    one(db, "SELECT * FROM backups WHERE instance_uid = ?1 AND state = 'Pending'", params![instance_uid], from_row)
}

/// A backup that runs or waits, of any instance.
pub(crate) fn any_pending(db: &Connection) -> Result<Option<BackupRow>, Fault> {
    one(db, "SELECT * FROM backups WHERE state = 'Pending' LIMIT 1", [], from_row)
}

pub(crate) fn by_uid(db: &Connection, uid: &str) -> Result<Option<BackupRow>, Fault> {
    one(db, "SELECT * FROM backups WHERE uid = ?1", params![uid], from_row)
}

fn by_name(db: &Connection, instance_uid: &str, name: &str) -> Result<Option<BackupRow>, Fault> {
    one(db, "SELECT * FROM backups WHERE instance_uid = ?1 AND name = ?2", params![instance_uid, name], from_row)
}

/// The backup that a job was to make, if it still is Pending.
pub(crate) fn pending_of_job(db: &Connection, job_id: &str) -> Result<Option<BackupRow>, Fault> {
    one(db, "SELECT * FROM backups WHERE job_id = ?1 AND state = 'Pending'", params![job_id], from_row)
}

/// All backups but the unfinished ones.
pub(crate) fn every_finished(db: &Connection) -> Result<Vec<BackupRow>, Fault> {
    all(db, "SELECT * FROM backups WHERE state <> 'Pending' ORDER BY uid", [], from_row)
}

pub(crate) fn store(db: &Connection, row: &BackupRow) -> Result<(), Fault> {
    put(db, "backups", "uid", columns(row)?)
}

fn columns(row: &BackupRow) -> Result<Columns, Fault> {
    Ok(vec![
        ("uid", row.uid.clone().into()),
        ("instance_uid", row.instance_uid.clone().into()),
        ("organization", row.organization.clone().into()),
        ("project", row.project.clone().into()),
        ("instance", row.instance.clone().into()),
        ("name", row.name.clone().into()),
        ("description", row.description.clone().into()),
        ("method", row.method.clone().into()),
        ("backup_type", row.backup_type.clone().into()),
        ("plugin", row.plugin.clone().into()),
        ("component", row.component.clone().into()),
        ("engine", row.engine.clone().into()),
        ("site", row.site.clone().into()),
        ("labels", json(&row.labels)?),
        ("state", row.state.to_string().into()),
        ("phase", row.phase.clone().into()),
        ("reason", row.reason.clone().into()),
        ("hint", row.hint.clone().into()),
        ("created_ms", row.created_ms.into()),
        ("started_ms", row.started_ms.into()),
        ("finished_ms", row.finished_ms.into()),
        ("entries", integer(row.entries)),
        ("logical_bytes", integer(row.logical_bytes)),
        ("stored_bytes", integer(row.stored_bytes)),
        ("warnings", json(&row.warnings)?),
        ("verified", optional_json(row.verified.as_ref())?),
        ("document", row.document.clone().into()),
        ("parent", row.parent.clone().into()),
        ("job_id", row.job_id.clone().into()),
        ("holds", json(&row.holds)?),
        ("keep_until_ms", row.keep_until_ms.into()),
        ("updated_ms", row.updated_ms.into()),
        ("resource_version", integer(row.resource_version)),
    ])
}

pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<BackupRow> {
    Ok(BackupRow {
        uid: row.get("uid")?,
        instance_uid: row.get("instance_uid")?,
        organization: row.get("organization")?,
        project: row.get("project")?,
        instance: row.get("instance")?,
        name: row.get("name")?,
        description: row.get("description")?,
        method: row.get("method")?,
        backup_type: row.get("backup_type")?,
        plugin: row.get("plugin")?,
        component: row.get("component")?,
        engine: row.get("engine")?,
        site: row.get("site")?,
        labels: read_json(row, "labels")?,
        state: read_word(row, "state")?,
        phase: row.get("phase")?,
        reason: row.get("reason")?,
        hint: row.get("hint")?,
        created_ms: row.get("created_ms")?,
        started_ms: row.get("started_ms")?,
        finished_ms: row.get("finished_ms")?,
        entries: read_count(row, "entries")?,
        logical_bytes: read_count(row, "logical_bytes")?,
        stored_bytes: read_count(row, "stored_bytes")?,
        warnings: read_json(row, "warnings")?,
        verified: read_optional_json(row, "verified")?,
        document: row.get("document")?,
        parent: row.get("parent")?,
        job_id: row.get("job_id")?,
        holds: read_json(row, "holds")?,
        keep_until_ms: row.get("keep_until_ms")?,
        updated_ms: row.get("updated_ms")?,
        resource_version: read_count(row, "resource_version")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, backup, job};

    fn key(key: &str, request_digest: &str) -> Option<IdempotencyKey> {
        let [key, request_digest] = [key, request_digest].map(str::to_owned);
        Some(IdempotencyKey { principal: "admin".to_owned(), key, request_digest })
    }

    #[tokio::test]
    async fn a_backup_and_its_job_are_recorded_together() {
        let catalog = Fixture::new().await;
        let (backup_row, job_row) = catalog.pending("b1", "pg", 1_000).await;
        let expected = BackupRow { job_id: Some("job-b1".to_owned()), ..backup("b1", "pg", 1_000) };
        assert_eq!(backup_row, expected);
        assert_eq!(catalog.backup_by_uid("b1").await.unwrap().as_ref(), Some(&expected));
        let by_name = catalog.backup_by_name("uid of pg", "name of b1").await.unwrap();
        assert_eq!(by_name, Some(expected));
        assert_eq!(catalog.job("job-b1").await.unwrap(), Some(job_row));
    }

    #[tokio::test]
    async fn an_instance_has_one_running_backup_and_others_are_not_concerned() {
        let catalog = Fixture::new().await;
        catalog.pending("b1", "pg", 1_000).await;
        let second = catalog.insert_backup_with_job(backup("b2", "pg", 2_000), job("j2", "backup", "pg"), None).await;
        assert!(matches!(second, Err(Error::BackupRunning { ref uid, .. }) if uid == "b1"), "{second:?}");
        assert_eq!(catalog.job("j2").await.unwrap(), None, "nothing of a refused request stays");
        catalog.pending("b3", "other", 2_000).await;
        catalog.backup_cancelled("b1", 3_000).await.unwrap();
        catalog.pending("b2", "pg", 4_000).await;
    }

    #[tokio::test]
    async fn a_name_belongs_to_one_backup_of_an_instance() {
        let catalog = Fixture::new().await;
        catalog.succeeded("b1", "pg", 1_000).await;
        let same_name =
            |uid: &str, instance: &str| BackupRow { name: "name of b1".to_owned(), ..backup(uid, instance, 2_000) };
        let error =
            catalog.insert_backup_with_job(same_name("b2", "pg"), job("j2", "backup", "pg"), None).await.unwrap_err();
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        let error = catalog.upsert_backup(same_name("b2", "pg")).await.unwrap_err();
        assert!(matches!(error, Error::NameTaken { .. }), "{error}");
        catalog.upsert_backup(same_name("b2", "other")).await.unwrap();
    }

    #[tokio::test]
    async fn a_repeated_request_gets_its_first_answer() {
        let catalog = Fixture::new().await;
        let insert = |uid: &str, key| {
            let job = job(&format!("job-{uid}"), "backup", "pg");
            catalog.insert_backup_with_job(backup(uid, "pg", 1_000), job, key)
        };
        assert!(matches!(insert("b1", key("k", "d1")).await.unwrap(), InsertedBackup::New { .. }));
        let first = InsertedBackup::Repeated { backup_uid: "b1".to_owned() };
        assert_eq!(insert("b2", key("k", "d1")).await.unwrap(), first, "though b1 is running");
        let error = insert("b2", key("k", "d2")).await.unwrap_err();
        assert!(matches!(error, Error::KeyReused { .. }), "{error}");

        catalog.request_cancel("job-b1", 2_000).await.unwrap();
        catalog.backup_deleting("b1", 2_000).await.unwrap();
        catalog.backup_deleted("b1").await.unwrap();
        assert_eq!(insert("b2", key("k", "d1")).await.unwrap(), first, "though b1 is gone");

        assert_eq!(catalog.prune_idempotency(1_001).await.unwrap(), 1);
        assert!(matches!(insert("b2", key("k", "d2")).await.unwrap(), InsertedBackup::New { .. }));
    }

    #[tokio::test]
    async fn a_refused_request_does_not_use_up_its_key() {
        let catalog = Fixture::new().await;
        catalog.pending("b1", "pg", 1_000).await;
        let again = |uid: &str| {
            let job = job(&format!("job-{uid}"), "backup", "pg");
            catalog.insert_backup_with_job(backup(uid, "pg", 2_000), job, key("k", "d"))
        };
        assert_eq!(again("b2").await.unwrap_err().code(), "backup-running");
        catalog.backup_failed("b1", "reason", None, 3_000).await.unwrap();
        assert!(matches!(again("b3").await.unwrap(), InsertedBackup::New { .. }));
    }

    #[tokio::test]
    async fn the_latest_is_the_newest_that_succeeded_of_that_instance() {
        let catalog = Fixture::new().await;
        assert_eq!(catalog.latest_usable("uid of pg").await.unwrap(), None);
        catalog.succeeded("b2", "pg", 2_000).await;
        catalog.succeeded("b1", "pg", 1_000).await;
        catalog.succeeded("b9", "other", 9_000).await;
        catalog.pending("b3", "pg", 3_000).await;
        assert_eq!(catalog.latest_usable("uid of pg").await.unwrap().unwrap().uid, "b2");
        catalog.backup_deleting("b2", 4_000).await.unwrap();
        assert_eq!(catalog.latest_usable("uid of pg").await.unwrap().unwrap().uid, "b1");
        assert_eq!(catalog.counts().await.unwrap().backups, 2);
    }

    #[tokio::test]
    async fn pages_show_every_backup_once_newest_first_though_times_are_equal() {
        let catalog = Fixture::new().await;
        for number in 0..40 {
            let instance = if number % 2 == 0 { "pg" } else { "other" };
            catalog.succeeded(&format!("b{number:02}"), instance, 1_000 + number / 7).await;
        }
        let (mut uids, mut after) = (Vec::new(), None);
        loop {
            let scope = Scope::from_path("acme/shop/pg");
            let page = catalog.list_backups(scope, None, after.as_deref(), 3).await.unwrap();
            uids.extend(page.items.into_iter().map(|row| row.uid));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let expected = (0..40).rev().filter(|number| number % 2 == 0).map(|number| format!("b{number:02}"));
        assert!(uids.iter().cloned().eq(expected), "{uids:?}");
    }

    #[tokio::test]
    async fn a_list_can_be_of_one_state() {
        let catalog = Fixture::new().await;
        catalog.succeeded("b1", "pg", 1_000).await;
        catalog.pending("b2", "pg", 2_000).await;
        let list = |state| catalog.list_backups(Scope::all(), state, None, 10);
        assert_eq!(list(Some(BackupState::Pending)).await.unwrap().items[0].uid, "b2");
        assert_eq!(list(Some(BackupState::Failed)).await.unwrap().items, []);
        assert_eq!(list(None).await.unwrap().items.len(), 2);
        let error = catalog.list_backups(Scope::all(), None, Some("acme/shop/pg"), 10).await.unwrap_err();
        assert!(matches!(error, Error::BadCursor(_)), "{error}");
    }
}
