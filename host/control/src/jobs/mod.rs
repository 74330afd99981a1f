//! Queued work: jobs are rows; a verb a file; this is what claims them, runs them, and says how they ended.
//!
//! Every job is safe to run twice: after a crash it is claimed again, or failed, never left running.

pub(crate) mod backup;
pub(crate) mod check;
pub(crate) mod expire;
pub(crate) mod export;
mod kept;
mod look;
pub(crate) mod prune;
mod queue;
mod recording;
pub(crate) mod replicate;
mod reporter;
pub(crate) mod restore;
pub(crate) mod rewrap;
mod scheduler;
pub(crate) mod scrub;
pub(crate) mod shred;
pub(crate) mod verify;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use holdfast_catalog::{JobError, JobFilter, JobRow, JobState, NewJob};
use holdfast_sandbox::Author;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub(crate) use queue::{Queue, heal};
pub(crate) use reporter::{Reporter, Silent};

use crate::appliance::State;
use crate::resources::{Job, LogLine, Page};
use crate::{Appliance, Error, ErrorKind, ListQuery, Principal, clock, views};

/// Starts claiming jobs, and queueing those that come again and again.
pub(crate) fn start(state: &Arc<State>) {
    queue::start(state);
    scheduler::start(state);
}

/// The verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobKind {
    Backup,
    Restore,
    Verify,
    Replicate,
    Export,
    Check,
    Prune,
    Rewrap,
    Shred,
    Expire,
    Scrub,
}

impl JobKind {
    const ALL: [Self; 11] = [
        Self::Backup,
        Self::Restore,
        Self::Verify,
        Self::Replicate,
        Self::Export,
        Self::Check,
        Self::Prune,
        Self::Rewrap,
        Self::Shred,
        Self::Expire,
        Self::Scrub,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Replicate => "replicate",
            Self::Export => "export",
            Self::Check => "check",
            Self::Prune => "prune",
            Self::Rewrap => "rewrap",
            Self::Shred => "shred",
            Self::Expire => "expire",
            Self::Scrub => "scrub",
        }
    }

    fn of(job: &JobRow) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|kind| kind.name() == job.kind).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "unknown-job", format!("this version knows no jobs of kind '{}'", job.kind))
        })
    }

    /// How often it is tried; 0 is for ever. A restore is watched by somebody: it is not repeated behind their back.
    fn max_attempts(self) -> u32 {
        match self {
            Self::Backup | Self::Verify | Self::Check | Self::Prune | Self::Expire | Self::Scrub => 3,
            Self::Restore => 1,
            Self::Replicate | Self::Export | Self::Rewrap | Self::Shred => 0,
        }
    }

    /// What runs side by side: work, restores and both by strangers' plugins under a limit each, one replication (or rewrapping, or
    /// shredding), one check, one prune and one scrub a target, one export, one expiry. Whatever hangs in its lane holds up nobody in another: a restore waits for no
    /// backup, and our own plugins for no others.
    fn lane(self, subject: &str, author: Author) -> String {
        match self {
            Self::Backup | Self::Verify if author == Author::Ours => queue::WORK.to_owned(),
            Self::Backup | Self::Verify => queue::STRANGERS_WORK.to_owned(),
            Self::Restore if author == Author::Ours => queue::RESTORE.to_owned(),
            Self::Restore => queue::STRANGERS_RESTORE.to_owned(),
            // A copy under way could bring former slots, or what was shredded, to a target behind their back.
            Self::Replicate | Self::Rewrap | Self::Shred => format!("replicate:{subject}"),
            Self::Export | Self::Expire => self.name().to_owned(),
            Self::Check => format!("check:{subject}"),
            Self::Prune => format!("prune:{subject}"),
            Self::Scrub => format!("scrub:{subject}"),
        }
    }

    /// Milliseconds to wait after a failed attempt: 1, 5 and 15 minutes; what is tried for ever begins at once and slows down to 15 minutes.
    fn delay_ms(self, attempts: u32) -> i64 {
        const MINUTE: i64 = 60_000;
        match (self.max_attempts(), attempts) {
            (0, attempts) => (2_000 << attempts.min(9)).min(15 * MINUTE),
            (_, 0 | 1) => MINUTE,
            (_, 2) => 5 * MINUTE,
            _ => 15 * MINUTE,
        }
    }
}

/// What a running job has at hand.
pub(crate) struct Context {
    pub(crate) state: Arc<State>,
    pub(crate) job: JobRow,
    pub(crate) cancel: CancellationToken,
    pub(crate) reporter: Arc<Reporter>,
}

impl Context {
    fn payload<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.job.payload).map_err(|error| {
            Error::new(ErrorKind::Internal, "bad-payload", format!("job {} cannot be read: {error}", self.job.id))
        })
    }

    /// Ends a job between two steps, if that was asked for.
    fn stop_if_cancelled(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::unprocessable("cancelled", "cancelled")) } else { Ok(()) }
    }

    fn watch(&self) -> holdfast_sandbox::Watch {
        holdfast_sandbox::Watch { events: self.reporter.clone(), cancel: self.cancel.clone() }
    }
}

/// How an attempt went wrong, and whether another one may go better.
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) retry: bool,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { retry: error.kind == ErrorKind::Unavailable, error }
    }
}

impl Failed {
    /// Repeated whatever the reason: what is wrong at a target can be mended there. Only a newer writer ends it.
    fn for_ever(error: Error) -> Self {
        Self { retry: error.code != "superseded", error }
    }
}

/// Runs one attempt. Its document is the job's result.
fn run(kind: JobKind, context: &Context) -> BoxFuture<'_, Result<serde_json::Value, Failed>> {
    match kind {
        JobKind::Backup => backup::run(context).boxed(),
        JobKind::Restore => restore::run(context).map_err(Failed::from).boxed(),
        JobKind::Verify => verify::run(context).map_err(Failed::from).boxed(),
        JobKind::Replicate => replicate::run(context).map_err(Failed::for_ever).boxed(),
        JobKind::Export => export::run(context).map_err(Failed::for_ever).boxed(),
        JobKind::Check => check::run(context).map_err(Failed::from).boxed(),
        JobKind::Prune => prune::run(context).map_err(Failed::from).boxed(),
        JobKind::Rewrap => rewrap::run(context).map_err(Failed::for_ever).boxed(),
        JobKind::Scrub => scrub::run(context).map_err(Failed::from).boxed(),
        JobKind::Shred => shred::run(context).map_err(Failed::for_ever).boxed(),
        JobKind::Expire => expire::run(context).map_err(Failed::from).boxed(),
    }
}

/// What an error means for the job's subject, besides what the catalog does by itself. Recorded before the job's own end, so that a crash
/// between the two repeats it.
async fn note_failure(kind: JobKind, context: &Context, error: &Error, retry: bool) -> Result<(), Error> {
    match kind {
        JobKind::Backup if retry => backup::note_wait(context).await,
        JobKind::Replicate => replicate::note_failure(context, error).await,
        _ => Ok(()),
    }
}

/// A job that is ready to be inserted; `author` is whose plugin it runs.
pub(crate) fn new_job(
    kind: JobKind,
    author: Author,
    subject: String,
    payload: &impl Serialize,
    instance_uid: Option<String>,
) -> Result<NewJob, Error> {
    Ok(NewJob {
        id: holdfast_repository::WriterId::random().to_string(),
        kind: kind.name().to_owned(),
        lane: kind.lane(&subject, author),
        subject,
        payload: serde_json::to_string(payload)
            .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding a job failed: {error}")))?,
        max_attempts: kind.max_attempts(),
        not_before_ms: 0,
        instance_uid,
    })
}

/// Queues a job and wakes the queue.
pub(crate) async fn enqueue(
    state: &State,
    kind: JobKind,
    author: Author,
    subject: String,
    payload: &impl Serialize,
) -> Result<JobRow, Error> {
    let job = state.catalog.enqueue_job(new_job(kind, author, subject, payload, None)?, clock::now_ms()).await?;
    state.queue.wake();
    Ok(job)
}

/// Queues a job unless one of its kind and subject waits. One that runs does not count: it may be past what this one is about.
async fn enqueue_follow_up(
    state: &State,
    kind: JobKind,
    subject: String,
    payload: &impl Serialize,
    not_before_ms: i64,
) -> Result<(), Error> {
    let mut job = new_job(kind, Author::Ours, subject, payload, None)?;
    job.not_before_ms = not_before_ms;
    state.catalog.enqueue_follow_up(job, clock::now_ms()).await?;
    state.queue.wake();
    Ok(())
}

/// What a job's row says of its failure. There is always something that an operator can do: at least look closer.
fn failure(job: &JobRow, error: &Error) -> JobError {
    let look = || format!("`holdfast job log {}` shows what came before.", job.id);
    JobError {
        code: error.code.clone(),
        message: error.message.clone(),
        hint: Some(error.hint.clone().unwrap_or_else(look)),
    }
}

impl Appliance {
    /// Jobs, newest first.
    pub async fn jobs(&self, query: ListQuery) -> Result<Page<Job>, Error> {
        let limit = query.page_size()?;
        let filter = JobFilter { scope: query.catalog_scope(), kind: None, state: query.catalog_state()? };
        let page = self.0.catalog.list_jobs(filter, query.after.as_deref(), limit).await?;
        Ok(Page { items: page.items.iter().map(views::job).collect(), next: page.next })
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<Job, Error> {
        Ok(views::job(&find(&self.0, id).await?))
    }

    /// Lines with a sequence above `after`, at most 1000.
    pub async fn job_log(&self, id: &str, after: u64) -> Result<Page<LogLine>, Error> {
        const LINES: u32 = 1000;
        let job = find(&self.0, id).await?;
        let lines = self.0.catalog.log_lines(&job.id, after, LINES).await?;
        let next = views::cursor(&lines, LINES, |line| line.sequence.to_string());
        let items = lines.into_iter().map(|line| LogLine {
            sequence: line.sequence,
            at: clock::text(line.at_ms),
            level: line.level,
            message: line.message,
        });
        Ok(Page { items: items.collect(), next })
    }

    /// Asks a job to end. One that has ended stays as it is.
    pub async fn cancel_job(&self, who: &Principal, id: &str) -> Result<Job, Error> {
        let state = &self.0;
        let job = find(state, id).await?;
        if matches!(job.state, JobState::Queued | JobState::Running) {
            state.audit(who, "job.cancel", &job.subject).await?;
            state.catalog.request_cancel(id, clock::now_ms()).await?;
            state.queue.cancel(id);
        }
        self.job(id).await
    }
}

fn stop_if_cancelled(context: &Context) -> Result<(), Error> {
    if context.cancel.is_cancelled() { Err(Error::unprocessable("cancelled", "cancelled")) } else { Ok(()) }
}

async fn find(state: &State, id: &str) -> Result<JobRow, Error> {
    state.catalog.job(id).await?.ok_or_else(|| {
        Error::not_found("job-not-found", format!("there is no job {id}")).hint("`holdfast job list` shows all.")
    })
}
