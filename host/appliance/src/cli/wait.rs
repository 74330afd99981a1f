//! Waiting for jobs and backups: the appliance tells when something changed; nothing is polled. A short loss of the connection is survived,
//! Ctrl-C leaves the work alone.

use std::time::{Duration, Instant};

use holdfast_control::resources::Job;

use super::progress::Meter;
use super::{Exit, Failure};
use crate::client::{Changes, Client};

/// How long the appliance may be away (a restart) while somebody waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries to reach it again.
const PAUSE: Duration = Duration::from_millis(500);

/// What is waited for, for the messages when it does not come.
pub struct Waiting {
    /// Such as `the backup acme/shop/pg/20261121061001`.
    pub what: String,
    /// A command that shows how it is.
    pub look: String,
    /// How long.
    pub timeout: Option<Duration>,
}

impl Waiting {
    /// For a job.
    pub fn for_job(id: &str, timeout: Option<Duration>) -> Self {
        Self { what: format!("job {id}"), look: format!("holdfast job show {id}"), timeout }
    }

    /// Looks once, and again after each change, until there is something.
    pub async fn until<T>(
        &self,
        client: &Client,
        look: impl AsyncFnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        tokio::select! {
            found = watch(client, look) => found,
            () = deadline(self.timeout) => Err(Failure::new(Exit::TimedOut, format!("{} is not done in the time that was given", self.what))
                .hint(format!("It goes on; look at it with: {}", self.look))),
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Detached, format!("detached: {} goes on", self.what))
                .hint(format!("Look at it with: {}", self.look))),
        }
    }
}

async fn deadline(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

async fn watch<T>(client: &Client, mut look: impl AsyncFnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
    let mut changes = None;
    let mut lost_since: Option<Instant> = None;
    loop {
        let seen = match next_change(client, &mut changes).await {
            Ok(()) => look().await,
            Err(failure) => Err(failure),
        };
        match seen {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => lost_since = None,
            Err(failure) if failure.lost && lost_since.get_or_insert_with(Instant::now).elapsed() < PATIENCE => {
                changes = None;
                tokio::time::sleep(PAUSE).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Listens before the first look: a change between the two is not missed.
async fn next_change(client: &Client, changes: &mut Option<Changes>) -> Result<(), Failure> {
    match changes {
        Some(changes) => changes.next().await,
        None => {
            *changes = Some(client.changes().await?);
            Ok(())
        }
    }
}

/// Waits for a job's end, showing how far it is.
pub async fn for_job(client: &Client, id: &str, timeout: Option<Duration>) -> Result<Job, Failure> {
    watch_job(client, id, timeout, |job| !matches!(&job.state[..], "Queued" | "Running")).await
}

/// Waits for the end of a job that is tried for ever, or for its first failed attempt: what stands in its way may take days.
pub async fn for_attempt(client: &Client, id: &str, timeout: Option<Duration>) -> Result<Job, Failure> {
    let is_over = |job: &Job| match &job.state[..] {
        "Queued" => job.next_attempt_at.is_some(),
        state => state != "Running",
    };
    watch_job(client, id, timeout, is_over).await
}

async fn watch_job(
    client: &Client,
    id: &str,
    timeout: Option<Duration>,
    is_over: impl Fn(&Job) -> bool,
) -> Result<Job, Failure> {
    let mut meter = Meter::new();
    let path = format!("jobs/{id}");
    Waiting::for_job(id, timeout)
        .until(client, async || {
            let job: Job = client.get(&path).await?;
            meter.job(&job);
            Ok(is_over(&job).then_some(job))
        })
        .await
}

/// Why an ended job did not succeed, if it did not.
pub fn failure_of(job: &Job) -> Option<Failure> {
    match (&job.state[..], &job.error) {
        ("Succeeded", _) => None,
        (_, Some(error)) => Some(Failure { hint: error.hint.clone(), ..Failure::failed(error.message.clone()) }),
        ("Cancelled", None) => Some(Failure::failed(format!("job {} was cancelled", job.id))),
        (state, None) => Some(
            Failure::failed(format!("job {} is {state}", job.id))
                .hint(format!("Its log may tell: holdfast job log {}", job.id)),
        ),
    }
}
