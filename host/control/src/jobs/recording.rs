//! Records facts that the catalog cannot take now: its file system is full, or does not answer. It is tried again until it succeeds or the
//! appliance stops.
//!
//! Only what happened already is recorded so: a job's end, a backup that exists. Nothing new is begun meanwhile.

use std::time::Duration;

use super::Queue;
use crate::Error;

/// The first pause between two tries; each further one is twice as long, up to [`LATE`].
const SOON: Duration = Duration::from_millis(250);
const LATE: Duration = Duration::from_secs(15);

/// Writes what happened in a job. `write` is run until the catalog takes it, so it is safe to run twice.
pub(super) async fn insist<T, F>(queue: &Queue, job: &str, write: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pause = SOON;
    loop {
        let error = match write().await {
            Err(error) if error.is_of_busy_catalog() => error,
            settled => {
                queue.is_recorded(job);
                return settled;
            }
        };
        tracing::error!(%job, %error, again_in = ?pause, "what happened in a job cannot be recorded");
        queue.is_not_recorded(job, &error);
        tokio::select! {
            () = queue.stopped() => return Err(error),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LATE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use holdfast_catalog::Error as Catalog;

    use super::*;

    fn full() -> Error {
        Error::from(Catalog::Full { step: "recording a job's end", source: "no room".into() })
    }

    #[tokio::test]
    async fn what_a_full_catalog_refused_is_written_when_there_is_room() {
        let (queue, tries) = (Queue::new(1), Cell::new(0));
        let recorded = insist(&queue, "j1", || async {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                return Err(full());
            }
            assert!(queue.unrecorded().is_some_and(|(jobs, why)| jobs == 1 && why.contains("full")));
            Ok(7)
        });
        assert_eq!(recorded.await.ok(), Some(7));
        assert_eq!((tries.get(), queue.unrecorded()), (2, None));
    }

    #[tokio::test]
    async fn what_can_never_be_written_is_not_tried_again() {
        let (queue, tries) = (Queue::new(1), Cell::new(0));
        let refused = insist(&queue, "j1", || async {
            tries.set(tries.get() + 1);
            Err::<(), _>(Error::from(Catalog::Stopped { step: "recording a job's end" }))
        });
        assert_eq!(refused.await.map_err(|error| error.code), Err("catalog-stopped".to_owned()));
        assert_eq!(tries.get(), 1);
    }

    #[tokio::test]
    async fn an_appliance_that_stops_does_not_wait_for_room() {
        let queue = Queue::new(1);
        queue.stop().await;
        let refused = insist(&queue, "j1", || async { Err::<(), _>(full()) }).await;
        assert_eq!(refused.map_err(|error| error.code), Err("disk-full".to_owned()));
        assert!(queue.unrecorded().is_some(), "the next start heals it");
    }
}
