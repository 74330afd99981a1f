//! Indexes and records (FORMAT §5): where chunks are. A pack's footer (§4) holds the same records.

use super::cbor::structure;
use super::{Malformed, put_header, split_header, split_pieces, split_u32};
use crate::chunk::ChunkId;
use crate::{Digest, DomainId};

/// Bytes of a stored record.
pub(crate) const RECORD: usize = 48;
/// [`Record::base`] of a chunk that is no delta.
pub(crate) const NO_BASE: u32 = u32::MAX;
/// Largest sealed length that a record can tell.
const LENGTH_MAX: u32 = 0xff_ffff;

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
    let sound =
        |record: &Record| (record.pack as usize) < packs && (record.base == NO_BASE || (record.base as usize) < bases);
    if records.iter().all(sound) { Ok((records, rest)) } else { Err(Malformed("a record names what is not there")) }
}

/// The plaintext of a pack's footer: its records in the order of the chunks.
pub(crate) fn encode_footer(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + records.len() * RECORD);
    out.extend((records.len() as u32).to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    records.iter().for_each(|record| out.extend(record.encode()));
    out
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
        Record { id: ChunkId([id; 32]), pack, offset: 0x0102_0304, length: 0x0a_0b0c, depth: 5, base: NO_BASE }
    }

    #[test]
    fn a_record_has_these_bytes() {
        let expected = ["11".repeat(32), "0700000004030201 0c0b0a05ffffffff".replace(' ', "")].concat();
        assert_eq!(hex::encode(record(0x11, 7).encode()), expected);
        assert_eq!(Record::decode(&record(0x11, 7).encode()), record(0x11, 7));
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
        for records in [vec![record(1, 1)], vec![record(2, 0), record(1, 0)], vec![Record { base: 0, ..record(1, 0) }]]
        {
            let index = Index { packs: packs.clone(), records, ..Index::default() };
            assert!(Index::decode(&index.encode()).is_err());
        }
        let sound = Index { packs, records: vec![record(1, 0)], ..Index::default() }.encode();
        for length in 0..sound.len() {
            assert!(Index::decode(&sound[..length]).is_err());
        }
    }

    #[test]
    fn a_footer_has_these_bytes() {
        let footer = encode_footer(&[record(1, 0)]);
        assert_eq!(hex::encode(&footer), ["0100000000000000".to_owned(), hex::encode(record(1, 0).encode())].concat());
        assert_eq!(decode_footer(&footer), Ok((vec![record(1, 0)], Vec::new())));
    }
}
