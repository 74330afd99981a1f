//! What a running job says of itself: progress and log lines, collected without blocking and written to the catalog by one task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_catalog::{Catalog, JobProgress};
use holdfast_sandbox::Events;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{Error, clock};

/// Lines that wait to be written; further ones of the same moment are counted, not kept.
const WAITING_LINES: usize = 1_000;
/// How often it is written at most.
const PACE: Duration = Duration::from_millis(250);
/// The same while the catalog takes nothing.
const PACE_OF_FAILURE: Duration = Duration::from_secs(5);

/// Hears a job's events.
#[derive(Default)]
pub(crate) struct Reporter {
    heard: Mutex<Heard>,
    something: Notify,
}

#[derive(Default)]
struct Heard {
    progress: Option<JobProgress>,
    lines: VecDeque<(i64, String, String)>,
    dropped: u64,
}

impl Events for Reporter {
    fn log(&self, level: &str, message: &str) {
        let mut heard = self.heard();
        if heard.lines.len() < WAITING_LINES {
            heard.lines.push_back((clock::now_ms(), level.to_owned(), message.to_owned()));
        } else {
            heard.dropped += 1;
        }
        self.something.notify_one();
    }

    fn progress(&self, phase: &str, done: u64, total: Option<u64>, unit: &str) {
        let progress = JobProgress { phase: phase.to_owned(), done, total, unit: unit.to_owned() };
        self.heard().progress = Some(progress);
        self.something.notify_one();
    }
}

impl Reporter {
    /// Writes what was heard, a few times a second, until the job has ended.
    pub(crate) async fn pump(self: Arc<Self>, catalog: Catalog, job: String, ended: CancellationToken) {
        while ended.run_until_cancelled(self.something.notified()).await.is_some() {
            let pause = match self.flush(&catalog, &job).await {
                Ok(()) => PACE,
                Err(error) => {
                    tracing::error!(%job, %error, "writing a job's progress failed");
                    PACE_OF_FAILURE
                }
            };
            ended.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    /// Writes what was heard and not written yet. What cannot be written now waits for the next time.
    pub(crate) async fn flush(&self, catalog: &Catalog, job: &str) -> Result<(), Error> {
        let mut heard = std::mem::take(&mut *self.heard());
        let written = heard.write(catalog, job).await;
        if written.is_err() {
            self.heard().put_back(heard);
        }
        written
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    /// Writes all of it; after an error, what was not written is left.
    async fn write(&mut self, catalog: &Catalog, job: &str) -> Result<(), Error> {
        let now = clock::now_ms();
        if let Some(progress) = self.progress.clone() {
            catalog.job_progress(job, progress, now).await?;
            self.progress = None;
        }
        while let Some((at_ms, level, message)) = self.lines.front() {
            catalog.append_log(job, *at_ms, level, message).await?;
            self.lines.pop_front();
        }
        if self.dropped > 0 {
            catalog.append_log(job, now, "warn", &format!("{} more lines were not kept", self.dropped)).await?;
            self.dropped = 0;
        }
        Ok(())
    }

    /// Takes back what was heard before all that is here.
    fn put_back(&mut self, mut earlier: Self) {
        earlier.lines.append(&mut self.lines);
        let excess = earlier.lines.len().saturating_sub(WAITING_LINES);
        earlier.lines.truncate(WAITING_LINES);
        earlier.dropped += self.dropped + excess as u64;
        earlier.progress = self.progress.take().or(earlier.progress);
        *self = earlier;
    }
}

/// Hears nothing.
pub(crate) struct Silent;

impl Events for Silent {
    fn log(&self, level: &str, message: &str) {
        tracing::debug!(level, message, "plugin");
    }

    fn progress(&self, _phase: &str, _done: u64, _total: Option<u64>, _unit: &str) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_not_be_written_stays_first_and_bounded() {
        let reporter = Reporter::default();
        reporter.log("info", "early");
        reporter.progress("dumping", 1, None, "bytes");
        let earlier = std::mem::take(&mut *reporter.heard());
        for number in 0..WAITING_LINES {
            reporter.log("info", &number.to_string());
        }
        reporter.heard().put_back(earlier);
        let heard = reporter.heard();
        assert_eq!((heard.lines.len(), heard.dropped), (WAITING_LINES, 1));
        assert_eq!((heard.lines[0].2.as_str(), heard.lines[1].2.as_str()), ("early", "0"));
        assert_eq!(heard.progress.as_ref().map(|progress| progress.done), Some(1));
    }
}
