//! Which chunks backups reach from their manifests: the opinion of their trees, which owes nothing to refs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::BackupReader;
use super::chunks::Chunks;
use super::table::decode;
use crate::Error;
use crate::chunk::{ChunkHash, ChunkId, ChunkKind};
use crate::format::entry::Content;
use crate::tree::Tree;

/// A walk through the trees of one backup or several. Reads lists and tables; of data chunks it reads none.
pub(crate) struct Reach<'a> {
    /// Where lists and tables are read, each at the first place that has it whole.
    stocks: &'a [Arc<Chunks>],
    /// Whether what lies below a chunk that is lost everywhere is passed over.
    is_lenient: bool,
    /// All chunks that the trees name.
    pub(crate) reached: HashSet<ChunkId>,
    /// Chunks whose hashes are wanted, and those that were found.
    wanted: HashSet<ChunkId>,
    pub(crate) hashes: HashMap<ChunkId, (ChunkKind, ChunkHash)>,
}

impl BackupReader {
    /// All chunks that its trees name.
    pub(crate) async fn reached(&self) -> Result<HashSet<ChunkId>, Error> {
        let mut reach = Reach::strict(std::slice::from_ref(&self.inner.chunks));
        reach.walk(self).await?;
        Ok(reach.reached)
    }
}

impl<'a> Reach<'a> {
    /// A walk that fails where it cannot see all.
    pub(crate) fn strict(stocks: &'a [Arc<Chunks>]) -> Self {
        Self { stocks, is_lenient: false, reached: HashSet::new(), wanted: HashSet::new(), hashes: HashMap::new() }
    }

    /// A walk that looks for hashes as far as it can see.
    pub(crate) fn lenient(stocks: &'a [Arc<Chunks>], wanted: HashSet<ChunkId>) -> Self {
        Self { is_lenient: true, wanted, ..Self::strict(stocks) }
    }

    /// Walks through one backup.
    pub(crate) async fn walk(&mut self, backup: &BackupReader) -> Result<(), Error> {
        for hash in self.leaves(backup.inner.table.tree(), ChunkKind::Table).await? {
            let Some(bytes) = self.fetch(ChunkKind::Table, hash).await? else { continue };
            for record in decode(&bytes).map_err(Error::damaged("the table of entries"))? {
                if let Ok(Content::Tree(_, tree)) = record.content() {
                    self.leaves(&tree, ChunkKind::Data).await?;
                }
            }
        }
        Ok(())
    }

    /// The leaves of a tree that were not reached before. Equal lists have equal leaves, so each is read once.
    async fn leaves(&mut self, tree: &Tree, kind: ChunkKind) -> Result<Vec<ChunkHash>, Error> {
        let damaged = Error::damaged("the root of a tree");
        let mut items = tree.hashes(&tree.root).map_err(damaged)?;
        for _ in 0..tree.level {
            items.retain(|hash| self.is_new(ChunkKind::List, *hash));
            let mut below = Vec::new();
            for hash in items {
                let Some(list) = self.fetch(ChunkKind::List, hash).await? else { continue };
                below.extend(tree.hashes(&list).map_err(Error::damaged(hex::encode(hash.id().0)))?);
            }
            items = below;
        }
        items.retain(|hash| self.is_new(kind, *hash));
        Ok(items)
    }

    fn is_new(&mut self, kind: ChunkKind, hash: ChunkHash) -> bool {
        let id = hash.id();
        if self.wanted.contains(&id) {
            self.hashes.insert(id, (kind, hash));
        }
        self.reached.insert(id)
    }

    async fn fetch(&self, kind: ChunkKind, hash: ChunkHash) -> Result<Option<Bytes>, Error> {
        let mut failure = Error::ChunkLost { id: hex::encode(hash.id().0) };
        for stock in self.stocks {
            match stock.fetch(kind, hash).await {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) => failure = error,
            }
        }
        if self.is_lenient { Ok(None) } else { Err(failure) }
    }
}
