//! Indexes and records (FORMAT §5): where chunks are. A pack's footer (§4) holds the same records.

use super::cbor::structure;
use super::{Malformed, put_header, split_header, split_pieces, split_u32};
use crate::chunk::{ChunkId, DEPTH_MAX};
use crate::{Digest, DomainId};

/// Bytes of a stored record.
pub(crate) const RECORD: usize = 48;
/// [`Record::base`] of a chunk that is no delta.
pub(crate) const NO_BASE: u32 = u32::MAX;
/// Largest sealed length that a record can tell.
pub(crate) const LENGTH_MAX: u32 = 0xff_ffff;

structure! {
    /// The clear part of an index.
    IndexClear {
        1 domain: DomainId,
    }
}

structure! {
    /// What the sealed part begins with.
    IndexHeader {
        1 packs: u64,
        2 bases: u64,
        3 records: u64,
        4 supersedes: Vec<Digest>,
    }
}

/// Where one sealed chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: ChunkId,
    /// Number in the table of packs.
    pub(crate) pack: u32,
    /// From the start of the pack.
    pub(crate) offset: u32,
    /// Sealed, in bytes.
    pub(crate) length: u32,
    /// Deltas below this one.
    pub(crate) depth: u8,
    /// Number in the table of bases.
    pub(crate) base: u32,
}

impl Record {
    pub(crate) fn encode(&self) -> [u8; RECORD] {
        let mut bytes = [0; RECORD];
        bytes[..32].copy_from_slice(&self.id.0);
        let length = self.length & LENGTH_MAX | u32::from(self.depth) << 24;
        for (place, number) in bytes[32..].as_chunks_mut().0.iter_mut().zip([self.pack, self.offset, length, self.base])
        {
            *place = number.to_le_bytes();
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; RECORD]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(&bytes[..32]);
        let mut numbers = [0; 4];
        for (number, place) in numbers.iter_mut().zip(bytes[32..].as_chunks().0) {
            *number = u32::from_le_bytes(*place);
        }
        let [pack, offset, length, base] = numbers;
        Self { id: ChunkId(id), pack, offset, length: length & LENGTH_MAX, depth: (length >> 24) as u8, base }
    }
}

/// The contents of one index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) packs: Vec<Digest>,
    pub(crate) bases: Vec<ChunkId>,
    /// Sorted by id.
    pub(crate) records: Vec<Record>,
    pub(crate) supersedes: Vec<Digest>,
}

impl Index {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.packs.len() * 32 + self.records.len() * RECORD);
        let header = IndexHeader {
            packs: self.packs.len() as u64,
            bases: self.bases.len() as u64,
            records: self.records.len() as u64,
            supersedes: self.supersedes.clone(),
            extra: Default::default(),
        };
        put_header(&mut out, &header);
        self.packs.iter().for_each(|pack| out.extend(pack.0));
        self.bases.iter().for_each(|base| out.extend(base.0));
        self.records.iter().for_each(|record| out.extend(record.encode()));
        out
    }

    /// Refuses records out of order, and numbers beyond their table.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (header, rest): (IndexHeader, _) = split_header(bytes)?;
        let (packs, rest) = split_pieces::<32>(rest, header.packs)?;
        let (bases, rest) = split_pieces::<32>(rest, header.bases)?;
        let (records, rest) = split_records(rest, header.records, packs.len(), bases.len())?;
        if !rest.is_empty() {
            return Err(Malformed("bytes follow the end"));
        }
        if !records.is_sorted_by_key(|record| record.id) {
            return Err(Malformed("records are not in order"));
        }
        Ok(Self {
            packs: packs.iter().map(|pack| Digest(*pack)).collect(),
            bases: bases.iter().map(|base| ChunkId(*base)).collect(),
            records,
            supersedes: header.supersedes,
        })
    }
}

fn split_records(bytes: &[u8], count: u64, packs: usize, bases: usize) -> Result<(Vec<Record>, &[u8]), Malformed> {
    let (records, rest) = split_pieces::<RECORD>(bytes, count)?;
    let records: Vec<_> = records.iter().map(Record::decode).collect();
    let sound = |record: &Record| {
        let is_whole = record.base == NO_BASE;
        (record.pack as usize) < packs
            && is_whole == (record.depth == 0)
            && (is_whole || (record.base as usize) < bases)
            && record.depth <= DEPTH_MAX
    };
    if records.iter().all(sound) { Ok((records, rest)) } else { Err(Malformed("a record names what is not there")) }
}

/// The plaintext of a pack's footer: its records in the order of the chunks, and the bases that they name.
pub(crate) fn encode_footer(records: &[Record], bases: &[ChunkId]) -> Vec<u8> {
    let mut out = Vec::with_capacity(footer_length(records.len(), bases.len()));
    out.extend((records.len() as u32).to_le_bytes());
    out.extend((bases.len() as u32).to_le_bytes());
    bases.iter().for_each(|base| out.extend(base.0));
    records.iter().for_each(|record| out.extend(record.encode()));
    out
}

/// Bytes of such a plaintext.
pub(crate) fn footer_length(records: usize, bases: usize) -> usize {
    8 + bases * 32 + records * RECORD
}

/// Reads a footer's plaintext back: the records, and the bases that they name.
pub(crate) fn decode_footer(bytes: &[u8]) -> Result<(Vec<Record>, Vec<ChunkId>), Malformed> {
    let (count, rest) = split_u32(bytes)?;
    let (bases, rest) = split_u32(rest)?;
    let (bases, rest) = split_pieces::<32>(rest, bases.into())?;
    let (records, rest) = split_records(rest, count.into(), 1, bases.len())?;
    if !rest.is_empty() {
        return Err(Malformed("bytes follow the end"));
    }
    Ok((records, bases.iter().map(|base| ChunkId(*base)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u8, pack: u32) -> Record {
        Record { id: ChunkId([id; 32]), pack, offset: 0x0102_0304, length: 0x0a_0b0c, depth: 0, base: NO_BASE }
    }

    /// A delta to the base of number 0.
    fn delta(id: u8) -> Record {
        Record { depth: 5, base: 0, ..record(id, 0) }
    }

    #[test]
    fn a_record_has_these_bytes() {
        let expected = ["11".repeat(32), "0700000004030201 0c0b0a00ffffffff".replace(' ', "")].concat();
        assert_eq!(hex::encode(record(0x11, 7).encode()), expected);
        assert_eq!(Record::decode(&record(0x11, 7).encode()), record(0x11, 7));
        assert_eq!(hex::encode(&delta(0x11).encode()[40..]), "0c0b0a0500000000");
    }

    #[test]
    fn an_index_has_these_bytes() {
        let index = Index { packs: vec![Digest([9; 32])], records: vec![record(1, 0)], ..Index::default() };
        let expected =
            ["09000000a401010200030104 80".replace(' ', ""), "09".repeat(32), hex::encode(record(1, 0).encode())];
        assert_eq!(hex::encode(index.encode()), expected.concat());
        assert_eq!(Index::decode(&index.encode()), Ok(index));
    }

    #[test]
    fn unsound_indexes_are_refused() {
        let packs = vec![Digest([9; 32])];
        for records in [
            vec![record(1, 1)],
            vec![record(2, 0), record(1, 0)],
            vec![Record { base: 1, ..delta(1) }],
            vec![Record { base: NO_BASE, ..delta(1) }],
            vec![Record { depth: 0, ..delta(1) }],
            vec![Record { depth: 9, ..delta(1) }],
        ] {
            let index = Index { packs: packs.clone(), bases: vec![ChunkId([7; 32])], records, ..Index::default() };
            assert!(Index::decode(&index.encode()).is_err());
        }
        let sound = Index { packs, records: vec![record(1, 0)], ..Index::default() }.encode();
        for length in 0..sound.len() {
            assert!(Index::decode(&sound[..length]).is_err());
        }
    }

    #[test]
    fn a_footer_has_these_bytes() {
        for (record, bases) in [(record(1, 0), Vec::new()), (delta(1), vec![ChunkId([7; 32])])] {
            let footer = encode_footer(&[record], &bases);
            let count = format!("01000000{:02x}000000", bases.len());
            let expected = [count, "07".repeat(32 * bases.len()), hex::encode(record.encode())].concat();
            assert_eq!(hex::encode(&footer), expected);
            assert_eq!(decode_footer(&footer), Ok((vec![record], bases)));
        }
    }
}
