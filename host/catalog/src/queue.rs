//! How jobs are claimed, kept alive and finished. A job is Queued, Running, or at its end, and never claimed twice at a time.
//!
//! What a job was to make ends with it, in the same transaction: a Pending backup whose job failed or was cancelled is Failed or
//! Cancelled. So no backup stays Pending without a job that works on it.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

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
    pub async fn claim_job(&self, now_ms: i64, limits: LaneLimits) -> Result<Option<JobRow>, Error> {
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
    pub async fn job_progress(&self, id: &str, progress: JobProgress, now_ms: i64) -> Result<bool, Error> {
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
    pub async fn finish_job(&self, id: &str, outcome: JobOutcome, now_ms: i64) -> Result<JobRow, Error> {
        self.change_running("recording a job's end", id, move |db, job| {
            end(db, job, outcome, now_ms)?;
            Ok(job.clone())
        })
        .await
    }

    /// An attempt failed; the job is queued again for a time. If it was to stop, it is Cancelled instead.
    pub async fn retry_job(&self, id: &str, not_before_ms: i64, error: JobError, now_ms: i64) -> Result<JobRow, Error> {
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
            // A job that is due early enough is left alone: without a difference there is no news.
            let change = "UPDATE jobs SET not_before_ms = ?3
                          WHERE kind = ?1 AND subject = ?2 AND state = 'Queued' AND not_before_ms > ?3";
            db.execute(change, params![kind, subject, not_before_ms])?;
            Ok(())
        })
        .await
    }

    /// The first time after `after_ms` at which a waiting job becomes due.
    pub async fn next_due_ms(&self, after_ms: i64) -> Result<Option<i64>, Error> {
        let query = "SELECT min(not_before_ms) FROM jobs WHERE state = 'Queued' AND not_before_ms > ?1";
        self.read("reading when a job is due", move |db| Ok(db.query_row(query, params![after_ms], |row| row.get(0))?))
            .await
    }

    /// Settles what ran when the appliance stopped, before any job is claimed: such a job is Cancelled if that was asked for, queued
    /// again if it has attempts left, else Failed. Returns these jobs as they are then.
    pub async fn heal_after_crash(&self, now_ms: i64) -> Result<Vec<JobRow>, Error> {
        self.write("healing interrupted jobs", move |db| {
            let mut interrupted =
                all(db, "SELECT * FROM jobs WHERE state = 'Running' ORDER BY created_ms, id", [], jobs::from_row)?;
            for job in &mut interrupted {
                heal(db, job, now_ms)?;
                jobs::store(db, job)?;
            }
            Ok(interrupted)
        })
        .await
    }

    async fn change_running<T, F>(&self, step: &'static str, id: &str, change: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut JobRow) -> Result<T, Fault> + Send + 'static,
    {
        let id = id.to_owned();
        self.write(step, move |db| {
            let mut job = found(db, &id)?;
            if job.state != JobState::Running {
                return Err(Error::JobState { id, state: job.state }.into());
            }
            let value = change(db, &mut job)?;
            jobs::store(db, &job)?;
            Ok(value)
        })
        .await
    }
}

fn found(db: &Connection, id: &str) -> Result<JobRow, Fault> {
    Ok(jobs::by_id(db, id)?.ok_or_else(|| Error::NotFound { what: "job", id: id.to_owned() })?)
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
    job.progress = JobProgress { phase: "queued".to_owned(), ..JobProgress::default() };
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fixtures::{Fixture, job, places};
    use crate::{BackupState, NewJob};

    fn error(code: &str) -> JobError {
        JobError { code: code.to_owned(), message: "it broke".to_owned(), hint: None }
    }

    async fn claim(catalog: &Catalog, now_ms: i64) -> Option<String> {
        catalog.claim_job(now_ms, places(9)).await.unwrap().map(|job| job.id)
    }

    #[tokio::test]
    async fn the_job_that_is_due_longest_is_claimed_first() {
        let catalog = Fixture::new().await;
        for (id, not_before_ms) in [("later", 300), ("second", 200), ("first", 100)] {
            let job = NewJob { not_before_ms, ..job(id, "verify", "pg") };
            catalog.enqueue_job(job, 50).await.unwrap();
        }
        assert_eq!(claim(&catalog, 99).await, None);
        assert_eq!(catalog.next_due_ms(0).await.unwrap(), Some(100));
        let first = catalog.claim_job(250, places(9)).await.unwrap().unwrap();
        assert_eq!((first.id.as_str(), first.state, first.attempts), ("first", JobState::Running, 1));
        assert_eq!((first.started_ms, first.heartbeat_ms), (Some(250), Some(250)));
        assert_eq!(claim(&catalog, 250).await.as_deref(), Some("second"));
        assert_eq!(claim(&catalog, 250).await, None);
        assert_eq!(catalog.next_due_ms(250).await.unwrap(), Some(300));
        assert_eq!(claim(&catalog, 300).await.as_deref(), Some("later"));
        assert_eq!(catalog.next_due_ms(0).await.unwrap(), None);
    }

    #[tokio::test]
    async fn lanes_are_limited_each_for_itself() {
        let catalog = Fixture::new().await;
        for (number, lane) in ["work", "work", "work", "replicate:t", "replicate:t", "export"].iter().enumerate() {
            let job = NewJob { lane: (*lane).to_owned(), ..job(&format!("j{number}"), "verify", "pg") };
            catalog.enqueue_job(job, 1).await.unwrap();
        }
        let next = async || Some(catalog.claim_job(9, places(2)).await.unwrap()?.id);
        let claimed = [next().await, next().await, next().await, next().await];
        assert_eq!(claimed.map(Option::unwrap), ["j0", "j1", "j3", "j5"]);
        assert_eq!(next().await, None);
        catalog.finish_job("j0", JobOutcome::Succeeded(None), 10).await.unwrap();
        assert_eq!(next().await.as_deref(), Some("j2"));
        assert_eq!(catalog.claim_job(9, places(0)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn two_backups_of_one_instance_never_run_at_a_time() {
        let catalog = Fixture::new().await;
        for (id, kind, instance) in
            [("b1", "backup", "pg"), ("b2", "backup", "pg"), ("b3", "backup", "other"), ("v", "verify", "pg")]
        {
            catalog.enqueue_job(job(id, kind, instance), 1).await.unwrap();
        }
        assert_eq!(claim(&catalog, 9).await.as_deref(), Some("b1"));
        assert_eq!(claim(&catalog, 9).await.as_deref(), Some("b3"));
        assert_eq!(claim(&catalog, 9).await.as_deref(), Some("v"));
        assert_eq!(claim(&catalog, 9).await, None);
        catalog.finish_job("b1", JobOutcome::Failed(error("x")), 10).await.unwrap();
        assert_eq!(claim(&catalog, 9).await.as_deref(), Some("b2"));
    }

    #[test]
    fn eight_threads_never_claim_one_job_twice() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let catalog = runtime.block_on(async {
            let catalog = Fixture::new().await;
            for number in 0..100 {
                catalog.enqueue_job(job(&format!("j{number}"), "verify", "pg"), number).await.unwrap();
            }
            catalog
        });
        let claimed: Vec<String> = std::thread::scope(|scope| {
            let claimers: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let all = places(1_000);
                        std::iter::from_fn(|| runtime.block_on(catalog.claim_job(1_000, all.clone())).unwrap())
                            .map(|job| job.id)
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            claimers.into_iter().flat_map(|claimer| claimer.join().unwrap()).collect()
        });
        assert_eq!(claimed.len(), 100);
        assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 100);
    }

    #[tokio::test]
    async fn a_running_job_hears_that_it_is_to_stop() {
        let catalog = Fixture::new().await;
        catalog.enqueue_job(job("j", "verify", "pg"), 1).await.unwrap();
        claim(&catalog, 2).await.unwrap();
        let progress = JobProgress { phase: "reading".to_owned(), done: 3, total: Some(9), unit: "bytes".to_owned() };
        assert!(!catalog.job_progress("j", progress.clone(), 3).await.unwrap());
        let asked = catalog.request_cancel("j", 4).await.unwrap();
        assert_eq!((asked.state, asked.cancel_requested), (JobState::Running, true));
        assert!(catalog.heartbeat("j", 5).await.unwrap());
        let job = catalog.job("j").await.unwrap().unwrap();
        assert_eq!((job.progress, job.heartbeat_ms), (progress, Some(5)));
        let job = catalog.retry_job("j", 100, error("x"), 6).await.unwrap();
        assert_eq!((job.state, job.finished_ms), (JobState::Cancelled, Some(6)), "it is not tried again");
    }

    #[tokio::test]
    async fn a_failed_attempt_waits_for_its_time() {
        let catalog = Fixture::new().await;
        catalog.enqueue_job(job("j", "verify", "pg"), 1).await.unwrap();
        claim(&catalog, 2).await.unwrap();
        let job = catalog.retry_job("j", 100, error("refused"), 3).await.unwrap();
        assert_eq!((job.state, job.error), (JobState::Queued, Some(error("refused"))));
        assert_eq!(claim(&catalog, 99).await, None);
        let job = catalog.claim_job(100, places(1)).await.unwrap().unwrap();
        assert_eq!((job.attempts, job.started_ms), (2, Some(2)));
        let result = serde_json::json!({"files": 3});
        let job = catalog.finish_job("j", JobOutcome::Succeeded(Some(result.clone())), 101).await.unwrap();
        assert_eq!((job.state, job.error, job.result), (JobState::Succeeded, None, Some(result)));
        for refused in [
            catalog.heartbeat("j", 102).await.map(drop),
            catalog.finish_job("j", JobOutcome::Cancelled, 102).await.map(drop),
        ] {
            assert!(matches!(refused, Err(Error::JobState { state: JobState::Succeeded, .. })));
        }
        let ended = catalog.request_cancel("j", 103).await.unwrap();
        assert_eq!((ended.state, ended.cancel_requested), (JobState::Succeeded, false));
    }

    #[tokio::test]
    async fn a_hurried_job_is_due_earlier_and_never_later() {
        let catalog = Fixture::new().await;
        catalog.enqueue_job(NewJob { not_before_ms: 500, ..job("j", "replicate", "pg") }, 1).await.unwrap();
        catalog.enqueue_job(NewJob { not_before_ms: 500, ..job("other", "replicate", "pg2") }, 1).await.unwrap();
        catalog.hurry_job("replicate", "acme/shop/pg", 100).await.unwrap();
        let mut changes = catalog.changes();
        changes.mark_unchanged();
        catalog.hurry_job("replicate", "acme/shop/pg", 900).await.unwrap();
        assert!(!changes.has_changed().unwrap());
        assert_eq!(claim(&catalog, 100).await.as_deref(), Some("j"));
        assert_eq!(claim(&catalog, 499).await, None);
    }

    #[tokio::test]
    async fn a_backup_ends_with_its_job() {
        let catalog = Fixture::new().await;
        for (uid, instance) in [("failed", "a"), ("cancelled", "b"), ("waiting", "c")] {
            catalog.pending(uid, instance, 1).await;
        }
        claim(&catalog, 2).await.unwrap();
        claim(&catalog, 2).await.unwrap();
        catalog.request_cancel("job-waiting", 3).await.unwrap();
        let running: Vec<_> = catalog.list_jobs(Default::default(), None, 9).await.unwrap().items;
        for job in running.iter().filter(|job| job.state == JobState::Running) {
            let outcome = if job.id == "job-failed" { JobOutcome::Failed(error("x")) } else { JobOutcome::Cancelled };
            catalog.finish_job(&job.id, outcome, 4).await.unwrap();
        }
        for (uid, state, reason, finished_ms) in [
            ("failed", BackupState::Failed, Some("it broke"), 4),
            ("cancelled", BackupState::Cancelled, None, 4),
            ("waiting", BackupState::Cancelled, None, 3),
        ] {
            let row = catalog.backup_by_uid(uid).await.unwrap().unwrap();
            assert_eq!(
                (row.state, row.reason.as_deref(), row.finished_ms),
                (state, reason, Some(finished_ms)),
                "{uid}"
            );
        }
    }

    #[tokio::test]
    async fn nothing_is_left_running_after_a_crash() {
        let catalog = Fixture::new().await;
        catalog.pending("given-up", "b", 1).await;
        for _ in 0..2 {
            claim(&catalog, 3).await.unwrap();
            catalog.retry_job("job-given-up", 0, error("x"), 3).await.unwrap();
        }
        catalog.pending("again", "a", 1).await;
        catalog.pending("stopped", "c", 1).await;
        for (id, max_attempts) in [("once", 1), ("ever", 0)] {
            let job = NewJob { max_attempts, ..job(id, "restore", "pg") };
            catalog.enqueue_job(job, 2).await.unwrap();
        }
        while claim(&catalog, 3).await.is_some() {}
        catalog.request_cancel("job-stopped", 4).await.unwrap();
        catalog.enqueue_job(job("not begun", "verify", "pg"), 5).await.unwrap();

        let catalog = catalog.reopen().await;
        let healed = catalog.heal_after_crash(10).await.unwrap();
        let states: BTreeMap<_, _> = healed.iter().map(|job| (job.id.as_str(), job.state)).collect();
        assert_eq!(states["job-again"], JobState::Queued);
        assert_eq!(states["job-given-up"], JobState::Failed);
        assert_eq!(states["job-stopped"], JobState::Cancelled);
        assert_eq!(states["once"], JobState::Failed);
        assert_eq!(states["ever"], JobState::Queued);
        assert!(!states.contains_key("not begun"));
        for job in healed {
            assert_eq!(catalog.job(&job.id).await.unwrap(), Some(job));
        }
        for (uid, state) in
            [("again", BackupState::Pending), ("given-up", BackupState::Failed), ("stopped", BackupState::Cancelled)]
        {
            assert_eq!(catalog.backup_by_uid(uid).await.unwrap().unwrap().state, state, "{uid}");
        }
        assert_eq!(catalog.job_counts().await.unwrap().running, 0);
        assert_eq!(catalog.heal_after_crash(11).await.unwrap(), []);
        assert!(claim(&catalog, 11).await.is_some());
    }
}
