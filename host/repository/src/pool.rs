//! The worker pool: as many threads as cores, each with its own compression contexts, for everything that costs CPU.
//!
//! Whoever submits bounds what is queued; a job that panics takes down neither its thread nor the pool.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::Error;
use crate::chunk::ChunkCodec;

type Job = Box<dyn FnOnce(&mut ChunkCodec) + Send>;

/// A handle to the threads, which end when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    owner: Arc<Owner>,
}

impl Pool {
    /// Starts the threads.
    pub(crate) fn start() -> std::io::Result<Self> {
        let owner = Owner(Arc::default());
        for number in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let (queue, codec) = (Arc::clone(&owner.0), ChunkCodec::new()?);
            std::thread::Builder::new().name(format!("chunks-{number}")).spawn(move || work(&queue, codec))?;
        }
        Ok(Self { owner: Arc::new(owner) })
    }

    /// Queues a job.
    pub(crate) fn submit(&self, job: impl FnOnce(&mut ChunkCodec) + Send + 'static) {
        self.owner.0.push(Box::new(job));
    }

    /// Runs a job and waits for its result.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut ChunkCodec) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = oneshot::channel();
        self.submit(move |codec| drop(sender.send(job(codec))));
        receiver.await.map_err(|_| Error::WorkerStopped)
    }
}

/// Closes the queue when it goes.
#[derive(Debug)]
struct Owner(Arc<Queue>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.something.notify_all();
    }
}

/// Jobs, first come, first served.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    something: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    /// Threads that nobody has woken yet: waking one costs a system call, which is made only where it helps.
    asleep: usize,
    is_closed: bool,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    fn push(&self, job: Job) {
        let mut waiting = self.lock();
        waiting.jobs.push_back(job);
        let Some(asleep) = waiting.asleep.checked_sub(1) else { return };
        waiting.asleep = asleep;
        drop(waiting);
        self.something.notify_one();
    }

    /// The next job; none once the queue is closed and empty.
    fn take(&self) -> Option<Job> {
        let mut waiting = self.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.is_closed {
                return None;
            }
            waiting.asleep += 1;
            waiting = self.something.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn work(queue: &Queue, mut codec: ChunkCodec) {
    while let Some(job) = queue.take() {
        if catch_unwind(AssertUnwindSafe(|| job(&mut codec))).is_err() {
            tracing::error!("a worker's job panicked");
            // Its contexts may be in the middle of something.
            if let Ok(fresh) = ChunkCodec::new() {
                codec = fresh;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_costs_one_job() {
        let pool = Pool::start().unwrap();
        for _ in 0..8 {
            let failed: Result<(), _> = pool.run(|_| panic!("on purpose")).await;
            assert_eq!(failed.unwrap_err().code(), "worker-stopped");
        }
        assert_eq!(pool.run(|_| 7).await.unwrap(), 7);
    }
}
