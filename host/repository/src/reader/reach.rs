//! Which chunks a backup reaches from its manifest: the opinion of its trees, which owes nothing to refs.

use std::collections::HashSet;

use super::BackupReader;
use super::table::decode;
use crate::Error;
use crate::chunk::{ChunkHash, ChunkId, ChunkKind};
use crate::format::entry::Content;
use crate::tree::Tree;

impl BackupReader {
    /// All chunks that its trees name. Reads lists and the table; of data chunks it reads none.
    pub(crate) async fn reached(&self) -> Result<HashSet<ChunkId>, Error> {
        let mut reached = HashSet::new();
        for hash in self.leaves(self.inner.table.tree(), &mut reached).await? {
            let bytes = self.inner.chunks.fetch(ChunkKind::Table, hash).await?;
            for record in decode(&bytes).map_err(Error::damaged("the table of entries"))? {
                if let Ok(Content::Tree(_, tree)) = record.content() {
                    self.leaves(&tree, &mut reached).await?;
                }
            }
        }
        Ok(reached)
    }

    /// The leaves of a tree that were not reached before. Equal lists have equal leaves, so each is read once.
    async fn leaves(&self, tree: &Tree, reached: &mut HashSet<ChunkId>) -> Result<Vec<ChunkHash>, Error> {
        let damaged = Error::damaged("the root of a tree");
        let mut items = tree.hashes(&tree.root).map_err(damaged)?;
        for _ in 0..tree.level {
            let mut below = Vec::new();
            for hash in items.into_iter().filter(|hash| reached.insert(hash.id())) {
                let list = self.inner.chunks.fetch(ChunkKind::List, hash).await?;
                below.extend(tree.hashes(&list).map_err(Error::damaged(hex::encode(hash.id().0)))?);
            }
            items = below;
        }
        items.retain(|hash| reached.insert(hash.id()));
        Ok(items)
    }
}
