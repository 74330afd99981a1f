//! Chunks that cannot be had where a backup is read: each is put together from wherever it, and what it is a delta to, is intact. Other targets
//! are opened when the first one is missing, and asked for nothing but what is damaged or gone: a target that does not answer is no reason to read
//! it chunk by chunk from another one.
//!
//! Invariant: nothing is handed out that one target alone would not give. Seal, length and hash are those of the chunk that was asked for.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use super::BackupReader;
use super::chunks::Chunks;
use crate::Error;
use crate::chunk::{ChunkError, ChunkHash, ChunkKind, DEPTH_MAX};
use crate::repository::Repository;
use crate::tree::Node;

/// Other targets of the same repository.
pub(super) struct Elsewhere {
    open: Box<dyn Fn() -> BoxFuture<'static, Vec<Repository>> + Send + Sync>,
    opened: OnceCell<Vec<Arc<Chunks>>>,
    /// Chunks that were found there.
    found: AtomicU64,
}

impl BackupReader {
    /// From now on, what is damaged or gone here is looked for at other targets too: those that `open` gives, which is called once, when the
    /// first chunk is missing. Only the first call counts.
    pub fn look_also_at(&self, open: impl Fn() -> BoxFuture<'static, Vec<Repository>> + Send + Sync + 'static) {
        let elsewhere = Elsewhere { open: Box::new(open), opened: OnceCell::new(), found: AtomicU64::new(0) };
        // Where it looks already it goes on looking.
        let _ = self.inner.chunks.elsewhere.set(elsewhere);
    }

    /// How many chunks were damaged or gone here and found elsewhere.
    pub fn found_elsewhere(&self) -> u64 {
        self.inner.chunks.elsewhere.get().map_or(0, |elsewhere| elsewhere.found.load(Ordering::Relaxed))
    }
}

impl Elsewhere {
    /// Opens them on the runtime of the place that is read: the caller's may be a guest's, and end before they do.
    async fn chunks(&self, here: &Chunks) -> &[Arc<Chunks>] {
        let open = async {
            let mut opened = Vec::new();
            let opening = here.place().runtime().spawn((self.open)());
            for repository in opening.await.unwrap_or_default() {
                match repository.chunks(here.domain()).await {
                    Ok(chunks) => opened.push(chunks),
                    Err(error) => tracing::info!(at = %repository.location(), %error, "no chunks can be had here"),
                }
            }
            opened
        };
        self.opened.get_or_init(|| open).await
    }
}

impl Chunks {
    /// Whether there are other places to look in.
    pub(super) fn looks_elsewhere(&self) -> bool {
        self.elsewhere.get().is_some()
    }

    /// A chunk that cannot be had here for this reason.
    ///
    /// Errors: the reason, where it does not tell of damage, or the chunk is intact nowhere.
    pub(super) async fn look_elsewhere(
        self: &Arc<Self>,
        kind: ChunkKind,
        hash: ChunkHash,
        reason: Error,
    ) -> Result<Bytes, Error> {
        let Some(elsewhere) = self.elsewhere.get() else { return Err(reason) };
        if !self.place().is_damage(&reason).await {
            return Err(reason);
        }
        let others = elsewhere.chunks(self).await;
        let Some(chain) = self.intact_chain(others, hash, DEPTH_MAX).await else { return Err(reason) };
        let opened = self.open_chain(kind, hash, chain).await?;
        elsewhere.found.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(chunk = %hex::encode(hash.id().0), %reason, "a chunk was found elsewhere");
        Ok(opened)
    }

    /// The same of a leaf of an entry's tree, which is as long as its list says.
    pub(super) async fn look_elsewhere_for_leaf(self: &Arc<Self>, leaf: &Node, reason: Error) -> Result<Bytes, Error> {
        let opened = self.look_elsewhere(ChunkKind::Data, leaf.hash, reason).await?;
        if opened.len() as u64 == leaf.end - leaf.start {
            Ok(opened)
        } else {
            Err(Error::broken(&leaf.hash)(ChunkError::Length))
        }
    }

    /// The sealed bytes of a chunk and, behind them, those of each base that it takes to open it, wherever each is intact.
    fn intact_chain<'a>(
        &'a self,
        others: &'a [Arc<Self>],
        hash: ChunkHash,
        depth_max: u8,
    ) -> BoxFuture<'a, Option<Vec<Bytes>>> {
        async move {
            for chunks in iter::once(self).chain(others.iter().map(AsRef::as_ref)) {
                let Ok(Some(location)) = chunks.find(&hash.id()) else { continue };
                let Ok((sealed, base)) = chunks.authentic(&location, hash).await else { continue };
                let Some(base) = base else { return Some(vec![sealed]) };
                let Some(below) = depth_max.checked_sub(1) else { continue };
                // At another place it may stand on another base, or on none.
                if let Some(mut chain) = self.intact_chain(others, base, below).await {
                    chain.insert(0, sealed);
                    return Some(chain);
                }
            }
            None
        }
        .boxed()
    }
}
