//! The chunks of an entry as what its next version can be a delta to.

use std::sync::Arc;

use bytes::Bytes;

use super::BackupReader;
use super::chunks::Chunks;
use super::plan::Plan;
use crate::Error;
use crate::chunk::ChunkHash;
use crate::format::entry::Content;
use crate::tree::{Cut, Tree};

/// An entry's chunks.
pub(crate) struct Bases {
    chunks: Arc<Chunks>,
    tree: Tree,
}

/// A chunk that was fetched, and behind it each base that it takes to open it.
pub(crate) struct Chain {
    pub(crate) hash: ChunkHash,
    pub(crate) sealed: Vec<Bytes>,
    /// The depth of each, as indexes tell it.
    pub(crate) depths: Vec<u8>,
}

impl BackupReader {
    /// The chunks of a file that was cut at this fixed size; none if there is no such file.
    pub(crate) async fn bases(&self, path: &str, cut: u32) -> Result<Option<Bases>, Error> {
        let chunks = &self.inner.chunks;
        let Some(record) = self.inner.table.find(chunks, path).await? else { return Ok(None) };
        let content = record.content().map_err(Error::damaged(path))?;
        let tree = match content {
            Content::Tree(_, tree) if tree.cut == Cut::Fixed(cut) => tree,
            _ => return Ok(None),
        };
        Ok(Some(Bases { chunks: Arc::clone(chunks), tree }))
    }
}

impl Bases {
    /// Fetches the chunks at these offsets; beyond the end there are none.
    pub(crate) async fn fetch(&self, offsets: &[u64]) -> Result<Vec<Option<Chain>>, Error> {
        let mut plan = Plan::default();
        for offset in offsets.iter().filter(|offset| **offset < self.tree.bytes) {
            plan.add(&self.chunks, self.chunks.leaf(&self.tree, *offset).await?)?;
        }
        let (planned, mut fetches) = plan.start(&self.chunks);
        let mut planned = planned.into_iter().peekable();
        let mut chains = Vec::with_capacity(offsets.len());
        for offset in offsets {
            let here = planned.next_if(|planned| planned.node.start == *offset);
            chains.push(match here {
                Some(planned) => Some(Chain {
                    hash: planned.node.hash,
                    sealed: fetches.chain(&planned).await?,
                    depths: planned.depths().collect(),
                }),
                None => None,
            });
        }
        Ok(chains)
    }
}
