//! Claims due jobs and runs each as a task of its own, until the appliance stops.

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use holdfast_catalog::{JobOutcome, JobRow, LaneLimits};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Context, Failed, JobKind, Reporter, failure, note_failure, recording};
use crate::appliance::State;
use crate::{Error, ErrorKind, clock};

/// The lane of backups and verifications.
pub(super) const WORK: &str = "work";
/// The lane of restores.
pub(super) const RESTORE: &str = "restore";
/// The same of plugins that did not come with the binary.
pub(super) const STRANGERS_WORK: &str = "strangers-work";
pub(super) const STRANGERS_RESTORE: &str = "strangers-restore";

/// What runs now.
pub(crate) struct Queue {
    workers: usize,
    wake: Notify,
    stop: CancellationToken,
    running: Mutex<HashMap<String, CancellationToken>>,
    /// Jobs in which something happened that the catalog cannot take now, and why.
    unrecorded: Mutex<BTreeMap<String, String>>,
    tasks: TaskTracker,
}

impl Queue {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            wake: Notify::new(),
            stop: CancellationToken::new(),
            running: Mutex::default(),
            unrecorded: Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Says that a job may be due.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Stops claiming, cancels what runs, and waits for it.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops a job if it runs here.
    pub(super) fn cancel(&self, id: &str) {
        if let Some(token) = self.running().get(id) {
            token.cancel();
        }
    }

    /// Runs something until the appliance has stopped: it is to end when [`stopped`](Self::stopped) returns.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Returns when the appliance is to stop.
    pub(super) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// How many jobs wait for the catalog to take what happened in them, and why it does not; none if it takes everything.
    pub(crate) fn unrecorded(&self) -> Option<(usize, String)> {
        let unrecorded = self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner);
        unrecorded.values().next().map(|why| (unrecorded.len(), why.clone()))
    }

    pub(super) fn is_not_recorded(&self, id: &str, why: &Error) {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), why.to_string());
    }

    pub(super) fn is_recorded(&self, id: &str) {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mends what a crash left: jobs that ran are queued again, or ended.
pub(crate) async fn heal(state: &State) -> Result<(), Error> {
    for job in state.catalog.heal_after_crash(clock::now_ms()).await? {
        tracing::info!(job = %job.id, kind = %job.kind, state = %job.state, "healed after a stop");
    }
    super::rewrap::heal(state).await
}

/// Starts claiming.
pub(crate) fn start(state: &Arc<State>) {
    let claiming = state.clone();
    state.queue.spawn(async move {
        while !claiming.queue.stop.is_cancelled() {
            let pause = match claim_all(&claiming).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "claiming jobs failed");
                    Duration::from_secs(5)
                }
            };
            tokio::select! {
                () = claiming.queue.stop.cancelled() => {}
                () = claiming.queue.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

/// Starts every due job that has room; how long until the next one is due.
async fn claim_all(state: &Arc<State>) -> Result<Duration, Error> {
    let workers = u32::try_from(state.queue.workers).unwrap_or(u32::MAX);
    let lanes = [WORK, RESTORE, STRANGERS_WORK, STRANGERS_RESTORE];
    let limits = LaneLimits { lanes: lanes.map(|lane| (lane.to_owned(), workers)).into(), others: 1 };
    let now = clock::now_ms();
    while let Some(job) = state.catalog.claim_job(now, limits.clone()).await? {
        let cancel = state.queue.stop.child_token();
        state.queue.running().insert(job.id.clone(), cancel.clone());
        state.queue.spawn(attempt(state.clone(), job, cancel));
    }
    let due = state.catalog.next_due_ms(now).await?;
    Ok(due.map_or(Duration::from_secs(60), |due| Duration::from_millis(clock::unsigned(due - now).clamp(10, 60_000))))
}

/// One attempt at a job, from claim to its row's next state.
async fn attempt(state: Arc<State>, job: JobRow, cancel: CancellationToken) {
    let id = job.id.clone();
    if let Err(error) = run_and_record(&state, job, cancel).await {
        // The row still says Running; the next start heals it.
        tracing::error!(job = %id, %error, "a job's end is not recorded");
    }
    state.queue.running().remove(&id);
    state.queue.wake();
    tokio::select! {
        () = state.queue.stop.cancelled() => {}
        () = copy_new_heads(&state) => {}
    }
}

/// Gives heads that were written by now their second copies, whoever wrote them. Behind the job: nobody waits for it, and nothing fails by it.
async fn copy_new_heads(state: &State) {
    for repository in state.open_repositories() {
        if let Err(error) = repository.copy_new_heads().await {
            let location = repository.location();
            tracing::warn!(%location, %error, "a new head has no second copy: the next turn of the scrub writes it");
        }
    }
}

async fn run_and_record(state: &Arc<State>, job: JobRow, cancel: CancellationToken) -> Result<(), Error> {
    let kind = JobKind::of(&job)?;
    let reporter = Arc::new(Reporter::default());
    let ended = CancellationToken::new();
    let pump = tokio::spawn(reporter.clone().pump(state.catalog.clone(), job.id.clone(), ended.clone()));
    let context = Context { state: state.clone(), job, cancel, reporter };
    // Who prunes at once keeps all others away by itself; a scrub, which reads for hours, stands in nobody's way until it heals.
    let is_apart = matches!(kind, JobKind::Prune | JobKind::Scrub);
    let at_work = if is_apart { None } else { Some(state.at_work.read().await) };
    let outcome = AssertUnwindSafe(super::run(kind, &context)).catch_unwind().await.unwrap_or_else(|_| {
        let error = Error::new(ErrorKind::Internal, "panicked", "the job ran into a fault of the appliance");
        Err(Failed { error, retry: false })
    });
    drop(at_work);
    ended.cancel();
    if pump.await.is_err() {
        tracing::error!(job = %context.job.id, "what wrote the job's progress had panicked");
    }
    if state.queue.stop.is_cancelled() && outcome.is_err() {
        // Not the job's own end: the next start takes it up again.
        return context.reporter.flush(&state.catalog, &context.job.id).await;
    }
    recording::insist(&state.queue, &context.job.id, || async {
        context.reporter.flush(&state.catalog, &context.job.id).await?;
        record(kind, &context, &outcome).await
    })
    .await
}

async fn record(kind: JobKind, context: &Context, outcome: &Result<serde_json::Value, Failed>) -> Result<(), Error> {
    let Context { state, job, cancel, .. } = context;
    let now = clock::now_ms();
    let outcome = match outcome {
        Ok(result) => JobOutcome::Succeeded(Some(result.clone())),
        Err(_) if cancel.is_cancelled() => JobOutcome::Cancelled,
        Err(Failed { error, retry }) => {
            let retry = *retry && (job.max_attempts == 0 || job.attempts < job.max_attempts);
            tracing::warn!(job = %job.id, kind = %job.kind, attempt = job.attempts, code = %error.code, %error, retry, "the attempt failed");
            note_failure(kind, context, error, retry).await?;
            if retry {
                state.catalog.retry_job(&job.id, now + kind.delay_ms(job.attempts), failure(job, error), now).await?;
                return Ok(());
            }
            JobOutcome::Failed(failure(job, error))
        }
    };
    state.catalog.finish_job(&job.id, outcome, now).await?;
    Ok(())
}
