//! Walks all trees of a backup and says what of them cannot be read. Leaves of entries are read only where their pack is suspect.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use super::BackupReader;
use super::chunks::Chunks;
use super::table::decode;
use crate::chunk::ChunkKind;
use crate::format::entry::{Content, EntryRecord};
use crate::tree::{Node, Tree};
use crate::{Digest, Error};

/// The path of an entry, none for the table itself, and a range of its bytes.
pub(crate) type Lost = (Option<String>, Range<u64>);

impl BackupReader {
    /// What cannot be read of this backup, in the order of paths and offsets.
    ///
    /// Errors: the target does not answer.
    pub(crate) async fn lost(&self, suspects: &HashSet<Digest>) -> Result<Vec<Lost>, Error> {
        let walk = Walk { chunks: &self.inner.chunks, suspects };
        let table = self.inner.table.tree();
        let (mut lost, mut offset) = (Vec::new(), 0);
        while offset < table.bytes {
            let (range, records) = walk.table_leaf(table, offset).await?;
            offset = range.end;
            let Some(records) = records else {
                lost.push((None, range));
                continue;
            };
            for record in records {
                let ranges = walk.entry(&record).await?;
                lost.extend(ranges.into_iter().map(|range| (Some(record.path.clone()), range)));
            }
        }
        Ok(lost)
    }
}

struct Walk<'a> {
    chunks: &'a Arc<Chunks>,
    suspects: &'a HashSet<Digest>,
}

impl Walk<'_> {
    /// The records of the table chunk at `offset`, or none and the range that is lost with it.
    async fn table_leaf(&self, table: &Tree, offset: u64) -> Result<(Range<u64>, Option<Vec<EntryRecord>>), Error> {
        let node = match self.chunks.reach(table, offset).await {
            Ok(node) => node,
            Err((range, error)) => return self.must_be_damage(error).await.map(|()| (range, None)),
        };
        let records = match self.chunks.fetch(ChunkKind::Table, node.hash).await {
            Ok(bytes) => decode(&bytes).map_err(Error::damaged("the table of entries")),
            Err(error) => Err(error),
        };
        match records {
            Ok(records) => Ok((node.start..node.end, Some(records))),
            Err(error) => self.must_be_damage(error).await.map(|()| (node.start..node.end, None)),
        }
    }

    /// What is lost of one entry; neighbouring ranges are one.
    async fn entry(&self, record: &EntryRecord) -> Result<Vec<Range<u64>>, Error> {
        let tree = match record.content() {
            Ok(Content::Tree(_, tree)) => tree,
            // Inline bytes came with the record; directories and links have none.
            Ok(Content::Inline(_)) => return Ok(Vec::new()),
            Err(_) => return Ok(Vec::from_iter(record.size.map(|size| 0..size))),
        };
        let (mut lost, mut offset): (Vec<Range<u64>>, _) = (Vec::new(), 0);
        while offset < tree.bytes {
            let (range, is_lost) = match self.chunks.reach(&tree, offset).await {
                Ok(node) => (node.start..node.end, !self.is_readable(&node).await?),
                Err((range, error)) => self.must_be_damage(error).await.map(|()| (range, true))?,
            };
            offset = range.end;
            match lost.last_mut().filter(|last| is_lost && last.end == range.start) {
                Some(last) => last.end = range.end,
                None => lost.extend(is_lost.then_some(range)),
            }
        }
        Ok(lost)
    }

    async fn is_readable(&self, leaf: &Node) -> Result<bool, Error> {
        let read = match self.chunks.locate(&leaf.hash) {
            Ok(chain) if chain.iter().all(|location| !self.suspects.contains(&location.pack)) => return Ok(true),
            Ok(_) => self.chunks.fetch(ChunkKind::Data, leaf.hash).await.map(drop),
            Err(error) => Err(error),
        };
        match read {
            Ok(()) => Ok(true),
            Err(error) => self.must_be_damage(error).await.map(|()| false),
        }
    }

    async fn must_be_damage(&self, error: Error) -> Result<(), Error> {
        if self.chunks.place().is_damage(&error).await { Ok(()) } else { Err(error) }
    }
}
