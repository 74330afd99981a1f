//! Table `jobs`: queued work and what became of it. How jobs are claimed and finished is in `queue.rs`.

use rusqlite::{Connection, Row, named_params, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::page::{Moment, rows_to_read};
use crate::rows::{
    Columns, all, count, insert, json, one, optional_json, put, read_json, read_optional_json, read_word,
};
use crate::{Catalog, Error, JobState, Page, Scope};

/// Queued work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// Unique, chosen by who queued it.
    pub id: String,
    /// What is to be done: `backup`, `restore`, `verify`, `replicate`, `export`.
    pub kind: String,
    /// Its state.
    pub state: JobState,
    /// What it works on, such as `acme/shop/pg/20261121061001`.
    pub subject: String,
    /// What the job needs to know (JSON).
    pub payload: String,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts allowed; 0 means that it is tried for ever.
    pub max_attempts: u32,
    /// Not to be begun before this time.
    pub not_before_ms: i64,
    /// How far it is.
    pub progress: JobProgress,
    /// Whether it is to stop.
    pub cancel_requested: bool,
    /// Why it failed, or why its last attempt did.
    pub error: Option<JobError>,
    /// What it found or made, by kind.
    pub result: Option<serde_json::Value>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// When the first attempt began.
    pub started_ms: Option<i64>,
    /// When it reached its final state.
    pub finished_ms: Option<i64>,
    /// When it last gave a sign of life.
    pub heartbeat_ms: Option<i64>,
    /// The instance it works on: of one instance, one backup runs at a time.
    pub instance_uid: Option<String>,
    /// Which jobs it shares a limit with.
    pub lane: String,
}

impl JobRow {
    /// Whether it may still do something.
    pub fn is_active(&self) -> bool {
        matches!(self.state, JobState::Queued | JobState::Running)
    }
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// What is being done.
    pub phase: String,
    /// Done so far, in units.
    pub done: u64,
    /// To be done, where that is known.
    pub total: Option<u64>,
    /// `bytes`, `entries`, or empty.
    pub unit: String,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// Stable, `kebab-case`.
    pub code: String,
    /// A lowercase fact.
    pub message: String,
    /// What to do: a full sentence.
    pub hint: Option<String>,
}

/// A job to queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// See [`JobRow::id`].
    pub id: String,
    /// See [`JobRow::kind`].
    pub kind: String,
    /// See [`JobRow::subject`].
    pub subject: String,
    /// See [`JobRow::payload`].
    pub payload: String,
    /// See [`JobRow::max_attempts`].
    pub max_attempts: u32,
    /// See [`JobRow::not_before_ms`].
    pub not_before_ms: i64,
    /// See [`JobRow::instance_uid`].
    pub instance_uid: Option<String>,
    /// See [`JobRow::lane`].
    pub lane: String,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// Only those whose subject lies in it.
    pub scope: Scope,
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this state.
    pub state: Option<JobState>,
}

/// How many jobs are active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobCounts {
    /// Jobs that run.
    pub running: u64,
    /// Jobs that wait.
    pub queued: u64,
}

impl Catalog {
    /// Queues a job.
    pub async fn enqueue_job(&self, job: NewJob, now_ms: i64) -> Result<JobRow, Error> {
        self.write("queueing a job", move |db| enqueue(db, job, now_ms)).await
    }

    /// Queues a job unless one of the same kind and subject waits or runs: then that one is returned.
    pub async fn enqueue_unique(&self, job: NewJob, now_ms: i64) -> Result<JobRow, Error> {
        let query = "SELECT * FROM jobs WHERE kind = ?1 AND subject = ?2 AND state IN ('Queued', 'Running') ORDER BY created_ms LIMIT 1";
        self.enqueue_unless(query, job, now_ms).await
    }

    /// Queues a job unless one of the same kind and subject waits: then that one is returned. One that runs does not count: it may have
    /// looked before what this one is about.
    pub async fn enqueue_follow_up(&self, job: NewJob, now_ms: i64) -> Result<JobRow, Error> {
        let query =
            "SELECT * FROM jobs WHERE kind = ?1 AND subject = ?2 AND state = 'Queued' ORDER BY created_ms LIMIT 1";
        self.enqueue_unless(query, job, now_ms).await
    }

    async fn enqueue_unless(&self, query: &'static str, job: NewJob, now_ms: i64) -> Result<JobRow, Error> {
        self.write("queueing a job", move |db| match one(db, query, params![job.kind, job.subject], from_row)? {
            Some(active) => Ok(active),
            None => enqueue(db, job, now_ms),
        })
        .await
    }

    /// The job of this id.
    pub async fn job(&self, id: &str) -> Result<Option<JobRow>, Error> {
        let id = id.to_owned();
        self.read("reading a job", move |db| by_id(db, &id)).await
    }

    /// Jobs, newest first.
    pub async fn list_jobs(&self, filter: JobFilter, after: Option<&str>, limit: u32) -> Result<Page<JobRow>, Error> {
        let after = after.map(str::to_owned);
        self.read("listing jobs", move |db| {
            let after = Moment::parse(after.as_deref())?;
            let rows = all(
                db,
                "SELECT * FROM jobs
                 WHERE (created_ms, id) < (:after_ms, :after_id)
                   AND (:kind IS NULL OR kind = :kind) AND (:state IS NULL OR state = :state)
                   AND (:scope IS NULL OR subject = :scope OR substr(subject, 1, length(:scope) + 1) = :scope || '/')
                 ORDER BY created_ms DESC, id DESC LIMIT :rows",
                named_params! {
                    ":after_ms": after.ms, ":after_id": after.id,
                    ":kind": filter.kind, ":state": filter.state.map(JobState::as_str),
                    ":scope": filter.scope.path(), ":rows": rows_to_read(limit),
                },
                from_row,
            )?;
            Ok(Page::of(rows, limit, |row| Moment::cursor(row.created_ms, &row.id)))
        })
        .await
    }

    /// How many jobs run and wait.
    pub async fn job_counts(&self) -> Result<JobCounts, Error> {
        self.read("counting jobs", |db| {
            Ok(JobCounts {
                running: count(db, "SELECT count(*) FROM jobs WHERE state = 'Running'", [])?,
                queued: count(db, "SELECT count(*) FROM jobs WHERE state = 'Queued'", [])?,
            })
        })
        .await
    }

    /// Forgets jobs (and their logs) that finished before a time; returns how many.
    pub async fn prune_jobs(&self, finished_before_ms: i64) -> Result<u64, Error> {
        self.write("forgetting old jobs", move |db| {
            Ok(db.execute("DELETE FROM jobs WHERE finished_ms < ?1", params![finished_before_ms])? as u64)
        })
        .await
    }
}

pub(crate) fn enqueue(db: &Connection, job: NewJob, now_ms: i64) -> Result<JobRow, Fault> {
    let row = JobRow {
        id: job.id,
        kind: job.kind,
        state: JobState::Queued,
        subject: job.subject,
        payload: job.payload,
        attempts: 0,
        max_attempts: job.max_attempts,
        not_before_ms: job.not_before_ms,
        progress: JobProgress { phase: "queued".to_owned(), ..JobProgress::default() },
        cancel_requested: false,
        error: None,
        result: None,
        created_ms: now_ms,
        started_ms: None,
        finished_ms: None,
        heartbeat_ms: None,
        instance_uid: job.instance_uid,
        lane: job.lane,
    };
    insert(db, "jobs", columns(&row)?)?;
    Ok(row)
}

pub(crate) fn by_id(db: &Connection, id: &str) -> Result<Option<JobRow>, Fault> {
    one(db, "SELECT * FROM jobs WHERE id = ?1", params![id], from_row)
}

pub(crate) fn store(db: &Connection, row: &JobRow) -> Result<(), Fault> {
    put(db, "jobs", "id", columns(row)?)
}

fn columns(row: &JobRow) -> Result<Columns, Fault> {
    Ok(vec![
        ("id", row.id.clone().into()),
        ("kind", row.kind.clone().into()),
        ("state", row.state.to_string().into()),
        ("subject", row.subject.clone().into()),
        ("payload", row.payload.clone().into()),
        ("attempts", row.attempts.into()),
        ("max_attempts", row.max_attempts.into()),
        ("not_before_ms", row.not_before_ms.into()),
        ("progress", json(&row.progress)?),
        ("cancel_requested", row.cancel_requested.into()),
        ("error", optional_json(row.error.as_ref())?),
        ("result", optional_json(row.result.as_ref())?),
        ("created_ms", row.created_ms.into()),
        ("started_ms", row.started_ms.into()),
        ("finished_ms", row.finished_ms.into()),
        ("heartbeat_ms", row.heartbeat_ms.into()),
        ("instance_uid", row.instance_uid.clone().into()),
        ("lane", row.lane.clone().into()),
    ])
}

pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        id: row.get("id")?,
        kind: row.get("kind")?,
        state: read_word(row, "state")?,
        subject: row.get("subject")?,
        payload: row.get("payload")?,
        attempts: row.get("attempts")?,
        max_attempts: row.get("max_attempts")?,
        not_before_ms: row.get("not_before_ms")?,
        progress: read_json(row, "progress")?,
        cancel_requested: row.get("cancel_requested")?,
        error: read_optional_json(row, "error")?,
        result: read_optional_json(row, "result")?,
        created_ms: row.get("created_ms")?,
        started_ms: row.get("started_ms")?,
        finished_ms: row.get("finished_ms")?,
        heartbeat_ms: row.get("heartbeat_ms")?,
        instance_uid: row.get("instance_uid")?,
        lane: row.get("lane")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, job, places};

    #[tokio::test]
    async fn a_job_is_read_as_it_was_queued() {
        let catalog = Fixture::new().await;
        let row = catalog.enqueue_job(job("j1", "verify", "pg"), 1_000).await.unwrap();
        assert_eq!((row.state, row.attempts, row.created_ms), (JobState::Queued, 0, 1_000));
        assert_eq!(catalog.job("j1").await.unwrap(), Some(row));
        assert_eq!(catalog.job("j2").await.unwrap(), None);
    }

    #[tokio::test]
    async fn unique_jobs_are_queued_once_until_they_end() {
        let catalog = Fixture::new().await;
        let unique = async |id| catalog.enqueue_unique(job(id, "replicate", "pg"), 1_000).await.unwrap().id;
        assert_eq!(unique("j1").await, "j1");
        assert_eq!(unique("j2").await, "j1");
        catalog.claim_job(1_000, places(1)).await.unwrap();
        assert_eq!(unique("j3").await, "j1");
        let other = catalog.enqueue_unique(job("j4", "replicate", "other"), 1_000).await.unwrap();
        assert_eq!(other.id, "j4");
        catalog.finish_job("j1", crate::JobOutcome::Succeeded(None), 2_000).await.unwrap();
        assert_eq!(unique("j5").await, "j5");
    }

    #[tokio::test]
    async fn a_follow_up_waits_behind_a_running_job_once() {
        let catalog = Fixture::new().await;
        let follow_up = async |id| catalog.enqueue_follow_up(job(id, "replicate", "pg"), 1_000).await.unwrap().id;
        assert_eq!(follow_up("j1").await, "j1");
        assert_eq!(follow_up("j2").await, "j1");
        catalog.claim_job(1_000, places(1)).await.unwrap();
        assert_eq!(follow_up("j3").await, "j3");
        assert_eq!(follow_up("j4").await, "j3");
    }

    #[tokio::test]
    async fn pages_show_every_job_once_newest_first() {
        let catalog = Fixture::new().await;
        for number in 0..20 {
            catalog.enqueue_job(job(&format!("j{number:02}"), "verify", "pg"), 1_000 + number / 3).await.unwrap();
        }
        let (mut ids, mut after) = (Vec::new(), None);
        loop {
            let page = catalog.list_jobs(JobFilter::default(), after.as_deref(), 6).await.unwrap();
            ids.extend(page.items.into_iter().map(|row| row.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert!(ids.into_iter().eq((0..20).rev().map(|number| format!("j{number:02}"))));
    }

    #[tokio::test]
    async fn a_list_keeps_to_scope_kind_and_state() {
        let catalog = Fixture::new().await;
        for (id, kind, instance) in [("1", "backup", "pg"), ("2", "verify", "pg"), ("3", "verify", "pg2")] {
            catalog.enqueue_job(job(id, kind, instance), 1_000).await.unwrap();
        }
        let list = async |filter| -> Vec<String> {
            catalog.list_jobs(filter, None, 10).await.unwrap().items.into_iter().map(|row| row.id).collect()
        };
        let scope = |path| JobFilter { scope: Scope::from_path(path), ..JobFilter::default() };
        assert_eq!(list(scope("acme/shop/pg")).await, ["2", "1"]);
        assert_eq!(list(scope("acme")).await, ["3", "2", "1"]);
        assert_eq!(list(JobFilter { kind: Some("verify".to_owned()), ..scope("acme/shop/pg") }).await, ["2"]);
        assert_eq!(list(JobFilter { state: Some(JobState::Running), ..scope("") }).await, [""; 0]);
    }

    #[tokio::test]
    async fn only_old_finished_jobs_are_forgotten() {
        let catalog = Fixture::new().await;
        for id in ["old", "new", "waiting"] {
            catalog.enqueue_job(job(id, "verify", "pg"), 1_000).await.unwrap();
        }
        catalog.append_log("old", 1_000, "info", "hello").await.unwrap();
        catalog.request_cancel("old", 2_000).await.unwrap();
        catalog.request_cancel("new", 3_000).await.unwrap();
        assert_eq!(catalog.prune_jobs(3_000).await.unwrap(), 1);
        assert_eq!(catalog.job("old").await.unwrap(), None);
        assert_eq!(catalog.log_lines("old", 0, 10).await.unwrap(), []);
        assert!(catalog.job("new").await.unwrap().is_some());
        assert_eq!(catalog.job_counts().await.unwrap(), JobCounts { running: 0, queued: 1 });
    }
}
