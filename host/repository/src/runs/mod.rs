//! Sorted runs: records by the ids of chunks, in files that never change, of which memory holds about 12 bits a chunk ([`run`], [`filter`]), and the
//! directory in which they lie ([`cache`]). The index cache and the ledger of references are made of them.
//!
//! They are no part of the repository: what they say can be read again from its objects. What cannot be read of them is an error, and what
//! anybody changed is refused.

mod cache;
mod filter;
mod run;

use std::iter::Peekable;

pub(crate) use cache::Cache;
pub(crate) use run::{Near, Run};

use crate::Error;
use crate::chunk::ChunkId;
use crate::format::Malformed;

/// What a run holds of a chunk.
pub(crate) trait Record: Copy {
    /// What records are sorted by: the chunk first.
    type Key: Ord;
    /// What a run says of itself besides, and what its records may name by number.
    type Names: Names;

    fn id(&self) -> &ChunkId;
    fn key(&self) -> Self::Key;
    fn encode(&self, page: &mut Vec<u8>);
    fn encoded_length(&self) -> usize;
    /// The record that bytes begin with, and what follows it. It names none but the first so many.
    fn decode(bytes: &[u8], named: u32) -> Result<(Self, &[u8]), Malformed>;
}

/// What a run says of itself.
pub(crate) trait Names: Sized {
    fn encode(&self) -> Vec<u8>;
    fn decode(bytes: &[u8]) -> Result<Self, Malformed>;
    /// How much its records can name by number.
    fn count(&self) -> u32;
}

/// Records of one layer, in order.
pub(crate) type Records<'a, R> = Box<dyn Iterator<Item = Result<R, Error>> + 'a>;

/// The records of several layers in order, each with the number of its layer.
pub(crate) fn merged<'a, R: Record + 'a>(
    layers: impl Iterator<Item = Records<'a, R>>,
) -> impl Iterator<Item = Result<(usize, R), Error>> {
    let mut layers: Vec<Peekable<Records<'a, R>>> = layers.map(Iterator::peekable).collect();
    std::iter::from_fn(move || {
        let heads = layers.iter_mut().enumerate().filter_map(|(number, layer)| {
            // An error comes first, whatever lies behind it.
            layer.peek().map(|head| (head.as_ref().ok().map(Record::key), number))
        });
        let (_, number) = heads.min()?;
        layers[number].next().map(|next| next.map(|record| (number, record)))
    })
}

/// Which of some runs, the longest first, stay as they are where so many records become a run: how many, and how many records are
/// merged. Those that are not much longer are merged, so that each record is written few times.
pub(crate) fn kept_as_they_are(lengths: &[u64], records: usize) -> (usize, usize) {
    let (mut first, mut records) = (lengths.len(), records as u64);
    while first > 0 && lengths[first - 1] <= 2 * records {
        first -= 1;
        records += lengths[first];
    }
    (first, records as usize)
}
