//! How jobs are claimed, kept alive and finished. A job is Queued, Running, or at its end, and never claimed twice at a time.
//!
//! What a job was to make ends with it, in the same transaction: a Pending backup whose job failed or was cancelled is Failed or
//! Cancelled. So no backup stays Pending without a job that works on it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::Fault;
use crate::rows::{all, json, one};
use crate::{Catalog, Error, JobError, JobProgress, JobRow, JobState, jobs, lifecycle};

/// How many jobs may run side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneLimits {
    /// In these lanes.
    pub lanes: BTreeMap<String, u32>,
    /// In each other lane.
    pub others: u32,
}

/// The end of a job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobOutcome {
    /// Done, with what it found or made.
    Succeeded(Option<serde_json::Value>),
    /// Given up after an error.
    Failed(JobError),
    /// Given up on request.
    Cancelled,
}

impl Catalog {
    /// Begins the next attempt at the job that has been due longest, if one is due and there is a free place for it. Two backups of one
    /// instance never run at a time.
    pub async fn claim_job(
        &self,
        now_ms: i64,
        limits: LaneLimits,
    ) -> Result<Option<JobRow>, Error> {
        self.write("claiming a job", move |db| {
            let query = "
                SELECT * FROM jobs AS job
                WHERE state = 'Queued' AND not_before_ms <= ?1
                  AND (SELECT count(*) FROM jobs WHERE state = 'Running' AND lane = job.lane)
                      < coalesce((SELECT value FROM json_each(?2) WHERE key = job.lane), ?3)
                  AND NOT (kind = 'backup' AND EXISTS (
                      SELECT 1 FROM jobs WHERE state = 'Running' AND kind = 'backup' AND instance_uid = job.instance_uid))
                ORDER BY not_before_ms, created_ms, id LIMIT 1";
            let Some(mut job) = one(db, query, params![now_ms, json(&limits.lanes)?, limits.others], jobs::from_row)? else {
                return Ok(None);
            };
            job.state = JobState::Running;
            job.attempts = job.attempts.saturating_add(1);
            job.started_ms.get_or_insert(now_ms);
            job.heartbeat_ms = Some(now_ms);
            jobs::store(db, &job)?;
            Ok(Some(job))
        })
        .await
    }

    /// A running job tells how far it is. True: it is to stop.
    pub async fn job_progress(
        &self,
        id: &str,
        progress: JobProgress,
        now_ms: i64,
    ) -> Result<bool, Error> {
        self.change_running("recording a job's progress", id, move |_, job| {
            job.progress = progress;
            job.heartbeat_ms = Some(now_ms);
            Ok(job.cancel_requested)
        })
        .await
    }

    /// A running job gives a sign of life. True: it is to stop.
    pub async fn heartbeat(&self, id: &str, now_ms: i64) -> Result<bool, Error> {
        self.change_running("recording a job's heartbeat", id, move |_, job| {
            job.heartbeat_ms = Some(now_ms);
            Ok(job.cancel_requested)
        })
        .await
    }

    /// A running job is at its end.
    pub async fn finish_job(
        &self,
        id: &str,
        outcome: JobOutcome,
        now_ms: i64,
    ) -> Result<JobRow, Error> {
        self.change_running("recording a job's end", id, move |db, job| {
            end(db, job, outcome, now_ms)?;
            Ok(job.clone())
        })
        .await
    }

    /// An attempt failed; the job is queued again for a time. If it was to stop, it is Cancelled instead.
    pub async fn retry_job(
        &self,
        id: &str,
        not_before_ms: i64,
        error: JobError,
        now_ms: i64,
    ) -> Result<JobRow, Error> {
        self.change_running("queueing a job again", id, move |db, job| {
            if job.cancel_requested {
                end(db, job, JobOutcome::Cancelled, now_ms)?;
            } else {
                job.error = Some(error);
                wait(job, not_before_ms);
            }
            Ok(job.clone())
        })
        .await
    }

    /// Asks a job to stop: one that waits is Cancelled at once, one that runs is told at its next sign of life, one at its end stays.
    pub async fn request_cancel(&self, id: &str, now_ms: i64) -> Result<JobRow, Error> {
        let id = id.to_owned();
        self.write("cancelling a job", move |db| {
            let mut job = found(db, &id)?;
            match job.state {
                JobState::Queued => end(db, &mut job, JobOutcome::Cancelled, now_ms)?,
                JobState::Running => job.cancel_requested = true,
                JobState::Succeeded | JobState::Failed | JobState::Cancelled => return Ok(job),
            }
            jobs::store(db, &job)?;
            Ok(job)
        })
        .await
    }

    /// A job of this kind and subject that waits becomes due at a time, if it was due later.
    pub async fn hurry_job(&self, kind: &str, subject: &str, not_before_ms: i64) -> Result<(), Error> {
        let [kind, subject] = [kind, subject].map(str::to_owned);
        self.write("hurrying a job", move |db| {
            let change = "UPDATE jobs SET not_before_ms = min(not_before_ms, ?3) WHERE kind = ?1 AND subject = ?2 AND state = 'Queued'";
            db.execute(change, params![kind, subject, not_before_ms])?;
            Ok(())
        })
        .await
    }

    /// The first time after `after_ms` at which a waiting job becomes due.
    pub async fn next_due_ms(&self, after_ms: i64) -> Result<Option<i64>, Error> {
        let query =
            "SELECT min(not_before_ms) FROM jobs WHERE state = 'Queued' AND not_before_ms > ?1";
        self.read("reading when a job is due", move |db| {
            Ok(db
                .query_row(query, params![after_ms], |row| row.get::<_, Option<i64>>(0))
                .optional()?
                .flatten())
        })
        .await
    }

    /// Settles what ran when the appliance stopped, before any job is claimed: such a job is Cancelled if that was asked for, queued
    /// again if it has attempts left, else Failed. Returns these jobs as they are then.
    pub async fn heal_after_crash(&self, now_ms: i64) -> Result<Vec<JobRow>, Error> {
        self.write("healing interrupted jobs", move |db| {
            let mut interrupted = all(
                db,
                "SELECT * FROM jobs WHERE state = 'Running' ORDER BY created_ms, id",
                [],
                jobs::from_row,
            )?;
            for job in &mut interrupted {
                heal(db, job, now_ms)?;
                jobs::store(db, job)?;
            }
            Ok(interrupted)
        })
        .await
    }

    async fn change_running<T, F>(
        &self,
        step: &'static str,
        id: &str,
        change: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut JobRow) -> Result<T, Fault> + Send + 'static,
    {
        let id = id.to_owned();
        self.write(step, move |db| {
            let mut job = found(db, &id)?;
            if job.state != JobState::Running {
                return Err(Error::JobState {
                    id,
                    state: job.state,
                }
                .into());
            }
            let value = change(db, &mut job)?;
            jobs::store(db, &job)?;
            Ok(value)
        })
        .await
    }
}

fn found(db: &Connection, id: &str) -> Result<JobRow, Fault> {
    Ok(jobs::by_id(db, id)?.ok_or_else(|| Error::NotFound {
        what: "job",
        id: id.to_owned(),
    })?)
}

fn heal(db: &Connection, job: &mut JobRow, now_ms: i64) -> Result<(), Fault> {
    if job.cancel_requested {
        return end(db, job, JobOutcome::Cancelled, now_ms);
    }
    let error = JobError {
        code: "interrupted".to_owned(),
        message: "the appliance stopped while the job was running".to_owned(),
        hint: Some("Start it again if it is still wanted; nothing incomplete was kept.".to_owned()),
    };
    if job.max_attempts > 0 && job.attempts >= job.max_attempts {
        return end(db, job, JobOutcome::Failed(error), now_ms);
    }
    job.error = Some(error);
    wait(job, now_ms);
    Ok(())
}

fn wait(job: &mut JobRow, not_before_ms: i64) {
    job.state = JobState::Queued;
    job.not_before_ms = not_before_ms;
    job.progress = JobProgress {
        phase: "queued".to_owned(),
        ..JobProgress::default()
    };
    job.heartbeat_ms = None;
}

/// Ends a job, and with it the backup that it was to make.
fn end(db: &Connection, job: &mut JobRow, outcome: JobOutcome, now_ms: i64) -> Result<(), Fault> {
    job.finished_ms = Some(now_ms);
    match outcome {
        JobOutcome::Succeeded(result) => {
            job.state = JobState::Succeeded;
            (job.error, job.result) = (None, result);
            Ok(())
        }
        JobOutcome::Failed(error) => {
            job.state = JobState::Failed;
            lifecycle::fail_with_job(db, &job.id, &error, now_ms)?;
            job.error = Some(error);
            Ok(())
        }
        JobOutcome::Cancelled => {
            job.state = JobState::Cancelled;
            lifecycle::cancel_with_job(db, &job.id, now_ms)
        }
    }
}
