//! Packs (FORMAT §4): sealed chunks back to back, and a footer that describes them.

use bytes::Bytes;

use crate::Digest;
use crate::chunk::ChunkId;
use crate::format::index::{NO_BASE, Record, encode_footer, footer_length};
use crate::format::{Kind, PREAMBLE};
use crate::seal::{self, Purpose, Secret};

/// Writers close a pack before it exceeds this, in bytes.
const PACK_MAX: usize = 16 << 20;
/// Room that a pack's memory has. Room that is not written to costs nothing, moving megabytes does; and what is larger than
/// 32 MiB glibc's allocator always gets from the system by itself and gives back at once: smaller, the first pack's end would
/// teach it to keep packs in its heaps, a heap for each thread.
const ROOM: usize = (32 << 20) + 1;

/// A pack that is being filled.
#[derive(Debug)]
pub(crate) struct PackBuilder {
    bytes: Vec<u8>,
    records: Vec<Record>,
    bases: Vec<ChunkId>,
}

/// The base of a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) id: ChunkId,
    /// Of the delta: one more than its base's.
    pub(crate) depth: u8,
}

/// A complete pack.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
    /// In the order of the chunks; their pack number is 0.
    pub(crate) records: Vec<Record>,
    /// What the records' numbers of bases mean.
    pub(crate) bases: Vec<ChunkId>,
}

impl PackBuilder {
    /// Begins a pack, in the memory of an earlier one if there is one.
    pub(crate) fn new(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        bytes.reserve(ROOM);
        bytes.extend(Kind::Pack.preamble());
        Self { bytes, records: Vec::new(), bases: Vec::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether one more sealed chunk keeps the pack within its limit.
    pub(crate) fn has_room(&self, sealed: usize) -> bool {
        let footer = footer_length(self.records.len() + 1, self.bases.len() + 1);
        self.bytes.len() + sealed + footer + seal::part_overhead(footer) + 4 <= PACK_MAX
    }

    pub(crate) fn push(&mut self, id: ChunkId, sealed: &[u8], base: Option<Base>) {
        let (offset, length) = (self.bytes.len() as u32, sealed.len() as u32);
        let (depth, number) = base.map_or((0, NO_BASE), |base| (base.depth, self.bases.len() as u32));
        self.bases.extend(base.map(|base| base.id));
        self.records.push(Record { id, pack: 0, offset, length, depth, base: number });
        self.bytes.extend(sealed);
    }

    pub(crate) fn finish(mut self, index_key: &Secret) -> Pack {
        let footer_start = self.bytes.len();
        let purpose = Purpose::object(Kind::Pack, &self.bytes[..PREAMBLE]);
        seal::seal_part(&mut self.bytes, index_key, &purpose, &encode_footer(&self.records, &self.bases));
        let footer = (self.bytes.len() - footer_start) as u32;
        self.bytes.extend(footer.to_le_bytes());
        Pack { digest: Digest::of(&self.bytes), bytes: self.bytes.into(), records: self.records, bases: self.bases }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::index::decode_footer;

    #[test]
    fn a_pack_describes_itself() {
        let key = Secret([1; 32]);
        let mut builder = PackBuilder::new(Vec::new());
        let base = Base { id: ChunkId([3; 32]), depth: 2 };
        builder.push(ChunkId([2; 32]), b"first", None);
        builder.push(ChunkId([1; 32]), b"second", Some(base));
        let pack = builder.finish(&key);
        let (rest, length) = pack.bytes.split_last_chunk::<4>().unwrap();
        let (chunks, footer) = rest.split_at(rest.len() - u32::from_le_bytes(*length) as usize);
        assert_eq!(chunks, b"HFST\x02\x01\0\0firstsecond");
        let purpose = Purpose::object(Kind::Pack, b"HFST\x02\x01\0\0");
        let (records, bases) = decode_footer(&seal::open_part(&key, &purpose, footer).unwrap()).unwrap();
        assert_eq!((records.clone(), bases), (pack.records, vec![base.id]));
        assert_eq!((records[1].offset, records[1].length, records[1].depth, records[1].base), (13, 6, 2, 0));
        assert_eq!((records[0].depth, records[0].base), (0, NO_BASE));
        assert_eq!(pack.digest, Digest::of(&pack.bytes));
    }

    #[test]
    fn a_pack_stays_within_its_limit() {
        let mut builder = PackBuilder::new(Vec::new());
        let sealed = vec![0; 25_000];
        while builder.has_room(sealed.len()) {
            builder.push(ChunkId([0; 32]), &sealed, None);
        }
        let pack = builder.finish(&Secret([1; 32]));
        assert!(pack.bytes.len() <= PACK_MAX && pack.bytes.len() > PACK_MAX - 2 * sealed.len());
    }
}
