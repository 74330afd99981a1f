//! What a running job says of itself: progress and log lines, collected without blocking and written to the catalog by one task.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_catalog::{Catalog, JobProgress};
use holdfast_sandbox::Events;
use tokio::sync::Notify;

use crate::{Error, clock};

/// Lines that wait to be written; further ones of the same moment are counted, not kept.
const WAITING_LINES: usize = 1_000;

/// Hears a job's events.
#[derive(Default)]
pub(crate) struct Reporter {
    heard: Mutex<Heard>,
    something: Notify,
}

#[derive(Default)]
struct Heard {
    progress: Option<JobProgress>,
    lines: Vec<(i64, String, String)>,
    dropped: u64,
}

impl Events for Reporter {
    fn log(&self, level: &str, message: &str) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.lines.len() < WAITING_LINES {
            heard.lines.push((clock::now_ms(), level.to_owned(), message.to_owned()));
        } else {
            heard.dropped += 1;
        }
        self.something.notify_one();
    }

    fn progress(&self, phase: &str, done: u64, total: Option<u64>, unit: &str) {
        let progress = JobProgress { phase: phase.to_owned(), done, total, unit: unit.to_owned() };
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).progress = Some(progress);
        self.something.notify_one();
    }
}

impl Reporter {
    /// Writes what was heard, a few times a second, until the task is dropped.
    pub(crate) async fn pump(self: Arc<Self>, catalog: Catalog, job: String) {
        loop {
            self.something.notified().await;
            if let Err(error) = self.flush(&catalog, &job).await {
                tracing::error!(%job, %error, "writing a job's progress failed");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Writes what was heard and not written yet.
    pub(crate) async fn flush(&self, catalog: &Catalog, job: &str) -> Result<(), Error> {
        let heard = std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        let now = clock::now_ms();
        if let Some(progress) = heard.progress {
            catalog.job_progress(job, progress, now).await?;
        }
        let mut lines = heard.lines;
        if heard.dropped > 0 {
            lines.push((now, "warn".to_owned(), format!("{} more lines were not kept", heard.dropped)));
        }
        for (at_ms, level, message) in lines {
            catalog.append_log(job, at_ms, &level, &message).await?;
        }
        Ok(())
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
