//! Whole entries written to files on all cores, without the guest: a bounded queue, some workers, the first error kept.
//!
//! A worker takes an entry from the queue and has the file to itself, since the kernel lets one thread at a time write to a file. Once
//! the queue is at its end, workers help each other: a large file is written by all of them, part by part.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_repository::{BackupReader, Opener};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinSet, spawn_blocking};

use crate::guard::Guard;
use crate::imports::types::CallError;
use crate::limits::Output;
use crate::order::{Order, Running};
use crate::tree::Tree;

/// The extraction of one run; idle until something is queued.
#[derive(Default)]
pub(crate) struct Extraction {
    orders: Option<Sender<Order>>,
    workers: JoinSet<()>,
    failure: Arc<Mutex<Option<CallError>>>,
}

/// Orders that wait for a worker: paths of a few hundred bytes.
const QUEUE: usize = 1_024;
/// Workers for each core: while one waits for bytes to come, another one opens and writes.
const WORKERS_PER_CORE: usize = 2;
/// More workers than this only wait for the disk.
const WORKERS_MAX: usize = 16;

impl Extraction {
    /// Starts the workers if they are not running.
    pub(crate) fn start(&mut self, backup: &BackupReader, tree: &Arc<Tree>, guard: &Guard, output: &Output) {
        if self.orders.is_some() {
            return;
        }
        let (orders, queue) = channel(QUEUE);
        let queue = tokio::sync::Mutex::new(Queue { orders: queue, running: Vec::new() });
        let worker = Worker {
            queue: Arc::new(queue),
            failure: self.failure.clone(),
            backup: backup.clone(),
            tree: tree.clone(),
            guard: guard.clone(),
            output: output.clone(),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..(cores * WORKERS_PER_CORE).min(WORKERS_MAX) {
            let (worker, runtime, failure) = (worker.clone(), Handle::current(), self.failure.clone());
            // Opening chunks and writing files blocks, so a worker has a thread of its own.
            self.workers.spawn(async move {
                if let Err(panic) = spawn_blocking(move || runtime.block_on(worker.work())).await {
                    lock(&failure).get_or_insert(CallError::Stopped(wasmtime::Error::new(panic)));
                }
            });
        }
        self.orders = Some(orders);
    }

    /// Queues one order, waiting for room. The error is that of an earlier order.
    pub(crate) async fn queue(&mut self, order: Order) -> Result<(), CallError> {
        if lock(&self.failure).is_some() {
            return self.drain().await;
        }
        if let Some(orders) = &self.orders {
            // Workers go on receiving until the queue is closed, so sending cannot fail before.
            let _ = orders.send(order).await;
        }
        Ok(())
    }

    /// Waits for all orders to be done, and reports the first error among them.
    pub(crate) async fn drain(&mut self) -> Result<(), CallError> {
        self.stop().await;
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    /// Lets the workers come to their end: of the queue, or of the run.
    pub(crate) async fn stop(&mut self) {
        self.orders = None;
        while self.workers.join_next().await.is_some() {}
    }
}

fn lock(failure: &Mutex<Option<CallError>>) -> MutexGuard<'_, Option<CallError>> {
    failure.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Queue {
    orders: Receiver<Order>,
    /// Orders that a worker has taken, and of which parts may be left.
    running: Vec<Arc<Running>>,
}

#[derive(Clone)]
struct Worker {
    queue: Arc<tokio::sync::Mutex<Queue>>,
    failure: Arc<Mutex<Option<CallError>>>,
    backup: BackupReader,
    tree: Arc<Tree>,
    guard: Guard,
    output: Output,
}

impl Worker {
    async fn work(self) {
        if let Err(error) = self.work_off().await {
            lock(&self.failure).get_or_insert(error);
        }
        // After the first error the rest is only taken off the queue.
        while self.next().await.is_some() {}
    }

    async fn work_off(&self) -> Result<(), CallError> {
        let mut opener = Opener::new()?;
        while let Some(running) = self.next().await {
            if !self.has_failed() {
                self.extract(&running, &mut opener).await?;
            }
        }
        Ok(())
    }

    fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// The next order; at the queue's end, one to help with.
    async fn next(&self) -> Option<Arc<Running>> {
        let mut queue = self.queue.lock().await;
        queue.running.retain(|running| running.left() > 0);
        match queue.orders.recv().await {
            Some(order) => {
                let running = Arc::new(Running::new(order));
                // Noted while the queue is held: whoever finds it at its end finds all that is left to help with.
                queue.running.push(Arc::clone(&running));
                Some(running)
            }
            None if self.has_failed() => None,
            None => queue.running.iter().max_by_key(|running| running.left()).cloned(),
        }
    }

    /// Writes parts of an entry until none is left.
    async fn extract(&self, running: &Running, opener: &mut Opener) -> Result<(), CallError> {
        let opened = running.opened(&self.backup, &self.tree, &self.guard).await?;
        while !self.has_failed()
            && let Some(part) = opened.claim()
        {
            let (from, mut at) = (part.start, part.start);
            let mut content = self.guard.wait(opened.entry.part(part)).await??;
            while let Some(piece) = self.guard.wait(content.next(opener)).await?? {
                self.guard.check()?;
                self.output.take(piece.len())?;
                opened.file.write_at(piece, at)?;
                at += piece.len() as u64;
            }
            opened.part_done(from..at)?;
        }
        Ok(())
    }
}
