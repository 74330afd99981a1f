//! Writes the table of entries: records sorted by path, in chunks that hold whole records only.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Slot;
use super::entry::{keep, push, store_lists};
use super::pipeline::Pipeline;
use crate::Error;
use crate::chunk::ChunkKind;
use crate::format::cbor::Value as _;
use crate::format::entry::EntryRecord;
use crate::tree::{Cut, Tree, TreeBuilder};

/// A table chunk ends after a record whose path says so, from the first of these lengths on; at the second in any case.
const CHUNK: std::ops::Range<usize> = 16 << 10..256 << 10;

/// The table's root, with its totals.
pub(super) struct Table {
    pub(super) tree: Tree,
    pub(super) entries: u64,
    pub(super) logical_bytes: u64,
}

/// Stores the finished entries; those that are still open are not in the backup.
pub(super) async fn write(pipeline: &Arc<Pipeline>, entries: BTreeMap<String, Slot>) -> Result<Table, Error> {
    let mut builder = TreeBuilder::new(Cut::Variable);
    let (mut chunk, mut count, mut logical_bytes) = (Vec::new(), 0, 0);
    for slot in entries.into_values() {
        let Slot::Done(record) = slot else { continue };
        count += 1;
        logical_bytes += record.size.unwrap_or_default();
        record.put(&mut chunk);
        if chunk.len() >= CHUNK.end || (chunk.len() >= CHUNK.start && ends_chunk(&record)) {
            store(pipeline, &mut builder, std::mem::take(&mut chunk)).await?;
        }
    }
    if !chunk.is_empty() {
        store(pipeline, &mut builder, chunk).await?;
    }
    let mut lists = Vec::new();
    let tree = builder.finish(&mut |list| keep(pipeline, list, &mut lists));
    store_lists(pipeline, lists).await?;
    Ok(Table { tree, entries: count, logical_bytes })
}

/// One path in 128, the same ones in every backup, so that chunks without a change stay the same.
fn ends_chunk(record: &EntryRecord) -> bool {
    blake3::hash(record.path.as_bytes()).as_bytes()[0] < 2
}

async fn store(pipeline: &Arc<Pipeline>, builder: &mut TreeBuilder, chunk: Vec<u8>) -> Result<(), Error> {
    let (hash, length) = (pipeline.hash(ChunkKind::Table, &chunk), chunk.len() as u64);
    pipeline.store(hash, chunk.into(), None).await?;
    let mut lists = Vec::new();
    push(builder, pipeline, hash, length, &mut lists);
    store_lists(pipeline, lists).await
}
