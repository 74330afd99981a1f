//! The worker pool: as many threads as cores, each with its own compression contexts, for everything that costs CPU.
//!
//! Whoever submits bounds what is queued; a job that panics takes down neither its thread nor the pool.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::Error;
use crate::chunk::ChunkCodec;

type Job = Box<dyn FnOnce(&mut ChunkCodec) + Send>;

/// A handle to the threads, which end when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// Starts the threads.
    pub(crate) fn start() -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        for number in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            let (queue, codec) = (Arc::clone(&queue), ChunkCodec::new()?);
            std::thread::Builder::new().name(format!("chunks-{number}")).spawn(move || work(&queue, codec))?;
        }
        Ok(Self { jobs })
    }

    /// Queues a job.
    pub(crate) fn submit(&self, job: impl FnOnce(&mut ChunkCodec) + Send + 'static) {
        // The threads outlive every handle, so the queue is open.
        drop(self.jobs.send(Box::new(job)));
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

fn work(queue: &Mutex<Receiver<Job>>, mut codec: ChunkCodec) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
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
