//! Whole entries written to files on all cores, without the guest: a bounded queue, some workers, the first error kept.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_repository::BackupReader;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinSet, spawn_blocking};

use crate::guard::Guard;
use crate::imports::types::CallError;
use crate::limits::Output;
use crate::tree::Tree;

/// One entry and the file that it becomes.
pub(crate) struct Order {
    pub(crate) entry: String,
    pub(crate) root: String,
    pub(crate) path: String,
    pub(crate) mode: u32,
}

/// The extraction of one run; idle until something is queued.
#[derive(Default)]
pub(crate) struct Extraction {
    orders: Option<Sender<Order>>,
    workers: JoinSet<()>,
    failure: Arc<Mutex<Option<CallError>>>,
}

/// Orders that wait for a worker: paths of a few hundred bytes.
const QUEUE: usize = 1_024;
/// More workers than this only wait for the disk.
const WORKERS: usize = 8;

impl Extraction {
    /// Starts the workers if they are not running.
    pub(crate) fn start(&mut self, backup: &BackupReader, tree: &Arc<Tree>, guard: &Guard, output: &Output) {
        if self.orders.is_some() {
            return;
        }
        let (orders, queue) = channel(QUEUE);
        let queue = Arc::new(tokio::sync::Mutex::new(queue));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores.min(WORKERS) {
            let worker = Worker {
                queue: queue.clone(),
                failure: self.failure.clone(),
                backup: backup.clone(),
                tree: tree.clone(),
                guard: guard.clone(),
                output: output.clone(),
            };
            let runtime = Handle::current();
            // Writing files blocks, so a worker has a thread of its own.
            self.workers.spawn(async move {
                let _ = spawn_blocking(move || runtime.block_on(worker.work())).await;
            });
        }
        self.orders = Some(orders);
    }

    /// Queues one order, waiting for room. The error is that of an earlier order.
    pub(crate) async fn queue(&mut self, order: Order) -> Result<(), CallError> {
        if self.failed() {
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
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Lets the workers come to their end: of the queue, or of the run.
    pub(crate) async fn stop(&mut self) {
        self.orders = None;
        while self.workers.join_next().await.is_some() {}
    }

    fn failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

struct Worker {
    queue: Arc<tokio::sync::Mutex<Receiver<Order>>>,
    failure: Arc<Mutex<Option<CallError>>>,
    backup: BackupReader,
    tree: Arc<Tree>,
    guard: Guard,
    output: Output,
}

impl Worker {
    async fn work(self) {
        while let Some(order) = self.next().await {
            // After the first error the rest is only taken off the queue.
            if self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                continue;
            }
            if let Err(error) = self.extract(&order).await {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            }
        }
    }

    async fn next(&self) -> Option<Order> {
        self.queue.lock().await.recv().await
    }

    async fn extract(&self, order: &Order) -> Result<(), CallError> {
        let mut content = self.guard.wait(self.backup.open(&order.entry, 0, None)).await??;
        let mut file = Tree::create_file(&self.tree, &order.root, &order.path, order.mode)?;
        while let Some(piece) = self.guard.wait(content.next()).await?? {
            self.guard.check()?;
            self.output.take(piece.len())?;
            file.write(&piece)?;
        }
        file.finish()?;
        Ok(())
    }
}
