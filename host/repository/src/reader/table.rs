//! The table of entries: found by bisection, never read whole for one entry.

use std::sync::{Arc, Mutex, PoisonError};

use super::chunks::Chunks;
use crate::chunk::ChunkKind;
use crate::format::Malformed;
use crate::format::cbor::{Reader, Value as _};
use crate::format::entry::EntryRecord;
use crate::tree::Tree;
use crate::{Entry, Error};

/// The table's root and the records that were read last.
pub(super) struct Table {
    tree: Tree,
    last: Mutex<Option<Leaf>>,
}

/// The records of one table chunk, and the range of the table's bytes that it holds.
#[derive(Clone)]
struct Leaf {
    start: u64,
    end: u64,
    records: Arc<Vec<EntryRecord>>,
}

impl Leaf {
    fn first_path(&self) -> &str {
        self.records.first().map_or("", |record| &record.path)
    }
    fn last_path(&self) -> &str {
        self.records.last().map_or("", |record| &record.path)
    }
}

impl Table {
    pub(super) fn new(tree: Tree) -> Self {
        Self { tree, last: Mutex::default() }
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The record of a path.
    pub(super) async fn find(&self, chunks: &Arc<Chunks>, path: &str) -> Result<Option<EntryRecord>, Error> {
        let Some(leaf) = self.leaf_of(chunks, path).await? else { return Ok(None) };
        let found = leaf.records.binary_search_by(|record| record.path.as_str().cmp(path));
        Ok(found.ok().map(|position| leaf.records[position].clone()))
    }

    /// Entries below `prefix` and behind `after`.
    pub(super) async fn entries(
        &self,
        chunks: &Arc<Chunks>,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        let mut leaf = self.leaf_of(chunks, prefix.max(after)).await?;
        while let Some(now) = leaf {
            for record in now.records.iter() {
                let is_below = record.path.starts_with(prefix);
                if entries.len() == limit || (!is_below && record.path.as_str() > prefix) {
                    return Ok(entries);
                }
                if is_below && record.path.as_str() > after {
                    entries.push(record.entry().map_err(Error::damaged(&*record.path))?);
                }
            }
            leaf = if now.end < self.tree.bytes { Some(self.leaf(chunks, now.end).await?) } else { None };
        }
        Ok(entries)
    }

    /// The only leaf that can hold this path, or else the one that holds the last path before it; the first one if there is none.
    async fn leaf_of(&self, chunks: &Arc<Chunks>, path: &str) -> Result<Option<Leaf>, Error> {
        let (mut from, mut to) = (0, self.tree.bytes);
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(last) = last.filter(|last| last.first_path() <= path && path <= last.last_path()) {
            return Ok(Some(last));
        }
        let mut found = None;
        while from < to {
            let leaf = self.leaf(chunks, from + (to - from) / 2).await?;
            if leaf.first_path() <= path {
                from = leaf.end;
                found = Some(leaf);
            } else {
                to = leaf.start;
            }
        }
        match found {
            None if self.tree.bytes > 0 => self.leaf(chunks, 0).await.map(Some),
            found => Ok(found),
        }
    }

    /// The leaf that holds this byte of the table.
    async fn leaf(&self, chunks: &Arc<Chunks>, offset: u64) -> Result<Leaf, Error> {
        let node = chunks.leaf(&self.tree, offset).await?;
        let bytes = chunks.fetch(ChunkKind::Table, node.hash).await?;
        let damaged = || Error::damaged(hex::encode(node.hash.id().0));
        if bytes.len() as u64 != node.end - node.start {
            return Err(damaged()(Malformed("a chunk is not as long as its list says")));
        }
        let records = Arc::new(decode(&bytes).map_err(damaged())?);
        let leaf = Leaf { start: node.start, end: node.end, records };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(leaf.clone());
        Ok(leaf)
    }
}

/// The records of a table chunk; out of order they are refused.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<EntryRecord>, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut records: Vec<EntryRecord> = Vec::new();
    while !reader.rest().is_empty() {
        let record = EntryRecord::take(&mut reader)?;
        if records.last().is_some_and(|before| before.path >= record.path) {
            return Err(Malformed("the entries are not in order"));
        }
        records.push(record);
    }
    Ok(records)
}
