//! When a run must end: cancelled, out of time, or idle.
//!
//! Epochs interrupt guest code only, never a host call, so every wait of a host call goes through here. The end is an error
//! that becomes a trap; no future of the guest's is dropped while it runs.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::Limits;

/// Why a run must end now.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("cancelled")]
    Cancelled,
    #[error("limit {limit}: {detail}")]
    Limit { limit: &'static str, detail: String },
}

/// Watches over the waits of one run.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    cancel: CancellationToken,
    deadline: Instant,
    wall: Duration,
    idle: Duration,
}

/// What stands for "no end" where a wall limit is beyond what the clock can count.
const FAR: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

impl Guard {
    /// The wall clock of the run starts here.
    pub(crate) fn new(limits: &Limits, cancel: CancellationToken) -> Self {
        let wall = limits.wall.min(FAR);
        Self { cancel, deadline: Instant::now() + wall, wall, idle: limits.idle.min(FAR) }
    }

    pub(crate) fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// For work that never waits: whether it may go on.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        if self.cancel.is_cancelled() {
            return Err(Stop::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(self.out_of_time());
        }
        Ok(())
    }

    /// Waits for the host's own work, until the run must end.
    pub(crate) async fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        self.within(None, work).await
    }

    /// Waits for the other side of a socket, which may not be silent for longer than the idle limit.
    pub(crate) async fn wait_for_peer<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        self.within(Some(self.idle), work).await
    }

    /// Returns when the run must end.
    pub(crate) async fn end(&self) -> Stop {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Stop::Cancelled,
            () = sleep_until(self.deadline) => self.out_of_time(),
        }
    }

    async fn within<T>(&self, idle: Option<Duration>, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut work = pin!(work);
        // Most calls find what they want at once: they shall not pay for timers.
        if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
            return Ok(output);
        }
        let silence = async {
            match idle {
                Some(limit) => {
                    sleep(limit).await;
                    let detail = format!("nothing came or went on a connection for {} s", limit.as_secs());
                    Stop::Limit { limit: "idle", detail }
                }
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            output = &mut work => Ok(output),
            stop = self.end() => Err(stop),
            stop = silence => Err(stop),
        }
    }

    fn out_of_time(&self) -> Stop {
        Stop::Limit { limit: "wall", detail: format!("it may run for {} s", self.wall.as_secs()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(limits: Limits) -> (Guard, CancellationToken) {
        let cancel = CancellationToken::new();
        (Guard::new(&limits, cancel.clone()), cancel)
    }

    #[tokio::test]
    async fn a_wait_ends_on_cancel_idle_and_wall() {
        let (cancelled, cancel) = guard(Limits::default());
        cancel.cancel();
        assert!(matches!(cancelled.wait(pending::<()>()).await, Err(Stop::Cancelled)));
        assert!(cancelled.check().is_err());

        let short = Duration::from_millis(1);
        let (idle, _cancel) = guard(Limits { idle: short, ..Limits::default() });
        assert!(matches!(idle.wait_for_peer(pending::<()>()).await, Err(Stop::Limit { limit: "idle", .. })));

        let (wall, _cancel) = guard(Limits { wall: short, idle: Duration::MAX, ..Limits::default() });
        assert!(matches!(wall.wait_for_peer(pending::<()>()).await, Err(Stop::Limit { limit: "wall", .. })));
    }

    #[tokio::test]
    async fn work_that_is_done_wins() {
        let (guard, _cancel) = guard(Limits { wall: Duration::MAX, ..Limits::default() });
        assert_eq!(guard.wait(async { 7 }).await.ok(), Some(7));
    }
}
