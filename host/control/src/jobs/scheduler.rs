//! Maintenance that is done again and again: what, how often, and how it is queued. The table [`PERIODIC`] is all that there is to it.
//!
//! When something is due next is in the catalog, so a restart neither forgets nor repeats it. What was missed while the appliance did not
//! run is done once, not once for each time. Nothing is queued before a recovered appliance has taken over.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use holdfast_catalog::TargetRow;

use super::{expire, prune, scrub};
use crate::appliance::State;
use crate::{Error, clock};

/// Something that is done again and again.
struct Periodic {
    /// Names it in the catalog: never changed.
    what: &'static str,
    every_ms: i64,
    queue: Queueing,
}

/// How its job is queued. It may be asked for twice, and it is once enough.
enum Queueing {
    /// One for the whole appliance.
    Once(for<'a> fn(&'a State) -> BoxFuture<'a, Result<(), Error>>),
    /// One for each target.
    EachTarget(for<'a> fn(&'a State, &'a TargetRow) -> BoxFuture<'a, Result<(), Error>>),
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// All of it.
const PERIODIC: &[Periodic] = &[
    // Garbage comes from work that was cut off, and no deletion tells of it.
    Periodic {
        what: "prune",
        every_ms: 7 * DAY_MS,
        queue: Queueing::EachTarget(|state, target| prune::soon(state, target).boxed()),
    },
    // Also where no backup succeeds any more: changes of policies act, and what a target missed is made up for.
    Periodic { what: "expire", every_ms: DAY_MS, queue: Queueing::Once(|state| expire::soon(state).boxed()) },
    Periodic {
        what: "scrub",
        every_ms: scrub::EVERY_MS,
        queue: Queueing::EachTarget(|state, target| scrub::soon(state, target).boxed()),
    },
];

/// Longest pause between two looks: what came new meanwhile waits for no longer.
const LOOK_MS: i64 = 60_000;

/// Starts looking.
pub(crate) fn start(state: &Arc<State>) {
    let looking = state.clone();
    state.queue.spawn(async move {
        loop {
            let now_ms = clock::now_ms();
            let next_ms = look(&looking, now_ms).await.unwrap_or_else(|error| {
                tracing::error!(%error, "queueing periodic work failed");
                now_ms + LOOK_MS
            });
            let pause = Duration::from_millis(clock::unsigned(next_ms - now_ms));
            tokio::select! {
                () = looking.queue.stopped() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    });
}

/// Queues what is due; when to look again.
async fn look(state: &State, now_ms: i64) -> Result<i64, Error> {
    let mut again_ms = now_ms + LOOK_MS;
    if state.is_recovered() {
        return Ok(again_ms);
    }
    let targets = state.catalog.targets().await?;
    for Periodic { what, every_ms, queue } in PERIODIC {
        match queue {
            Queueing::Once(queue) => {
                let next_ms = take_turn(state, what, *every_ms, now_ms, || queue(state)).await?;
                again_ms = again_ms.min(next_ms);
            }
            Queueing::EachTarget(queue) => {
                for target in &targets {
                    let name = format!("{what}/{}", target.uid);
                    let next_ms = take_turn(state, &name, *every_ms, now_ms, || queue(state, target)).await?;
                    again_ms = again_ms.min(next_ms);
                }
            }
        }
    }
    Ok(again_ms)
}

/// Queues one thing if it is due; when it is due next.
async fn take_turn<'a>(
    state: &State,
    name: &str,
    every_ms: i64,
    now_ms: i64,
    queue: impl FnOnce() -> BoxFuture<'a, Result<(), Error>>,
) -> Result<i64, Error> {
    let key = format!("due/{name}");
    let known = state.catalog.meta(&key).await?.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    let turn = Turn::of(known, every_ms, now_ms);
    if turn.is_due {
        queue().await?;
    }
    // Queued first: a stop between the two queues it once more, which is none more.
    if known != Some(turn.next_ms) {
        state.catalog.set_meta(&key, turn.next_ms.to_string().as_bytes()).await?;
    }
    Ok(turn.next_ms)
}

/// Whether something is to be done now, and when it is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    is_due: bool,
    next_ms: i64,
}

impl Turn {
    fn of(due_ms: Option<i64>, every_ms: i64, now_ms: i64) -> Self {
        match due_ms {
            Some(due_ms) if due_ms <= now_ms => Self { is_due: true, next_ms: now_ms + every_ms },
            // A clock that was set back must not keep it waiting for longer than its interval.
            Some(due_ms) => Self { is_due: false, next_ms: due_ms.min(now_ms + every_ms) },
            None => Self { is_due: false, next_ms: now_ms + every_ms },
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_catalog::{JobFilter, JobState};

    use super::*;
    use crate::fixtures::Fixture;

    /// Prunes that wait.
    async fn waiting(state: &State) -> usize {
        let filter =
            JobFilter { kind: Some("prune".to_owned()), state: Some(JobState::Queued), ..JobFilter::default() };
        state.catalog.list_jobs(filter, None, 100).await.unwrap().items.len()
    }

    #[test]
    fn what_was_missed_is_done_once() {
        let turn = Turn::of(Some(1_000), 100, 1_950);
        assert_eq!(turn, Turn { is_due: true, next_ms: 2_050 });
        assert_eq!(Turn::of(Some(turn.next_ms), 100, 1_951), Turn { is_due: false, next_ms: 2_050 });
    }

    #[test]
    fn what_is_new_waits_for_one_interval() {
        assert_eq!(Turn::of(None, 100, 1_000), Turn { is_due: false, next_ms: 1_100 });
    }

    #[test]
    fn a_clock_that_was_set_back_delays_by_no_more_than_an_interval() {
        assert_eq!(Turn::of(Some(9_000), 100, 1_000), Turn { is_due: false, next_ms: 1_100 });
    }

    #[tokio::test]
    async fn garbage_is_looked_for_every_week_where_nothing_is_deleted() {
        let mut fixture = Fixture::new().await;
        let begin_ms = clock::now_ms();
        assert_eq!(look(fixture.state(), begin_ms).await.unwrap(), begin_ms + LOOK_MS);
        assert_eq!(waiting(fixture.state()).await, 0);
        look(fixture.state(), begin_ms + 7 * DAY_MS - 1).await.unwrap();
        assert_eq!(waiting(fixture.state()).await, 0, "its time has not come");

        // Three weeks later, the appliance did not run in between.
        fixture.reopen().await;
        let late_ms = begin_ms + 22 * DAY_MS;
        look(fixture.state(), late_ms).await.unwrap();
        assert_eq!(waiting(fixture.state()).await, 1);
        look(fixture.state(), late_ms + LOOK_MS).await.unwrap();
        assert_eq!(waiting(fixture.state()).await, 1, "once is enough");
    }
}
