//! Refs (FORMAT §6): which chunks a backup holds, so that replication and prune need no data key.

use super::cbor::structure;
use super::{Malformed, put_header, split_header, split_pieces};
use crate::BackupId;
use crate::chunk::ChunkId;

/// Ids in one part: 2 MiB.
pub(crate) const PART_IDS: usize = 65_536;

structure! {
    /// What the sealed part begins with.
    RefsHeader {
        /// Absent if these refs stand alone.
        1 parent: Option<BackupId>,
        2 added: u64,
        3 adopted: u64,
        4 dropped: u64,
    }
}

/// One part of a backup's refs; the union of all parts counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refs {
    pub(crate) parent: Option<BackupId>,
    pub(crate) added: Vec<ChunkId>,
    pub(crate) adopted: Vec<ChunkId>,
    pub(crate) dropped: Vec<ChunkId>,
}

impl Refs {
    /// Cuts what a backup holds, sorted, into parts, made as they are asked for. There is always one part.
    pub(crate) fn parts(added: Vec<ChunkId>, adopted: Vec<ChunkId>) -> impl Iterator<Item = Self> {
        let is_empty = added.is_empty() && adopted.is_empty();
        let added = pieces(added).map(|added| Self { added, ..Self::default() });
        let adopted = pieces(adopted).map(|adopted| Self { adopted, ..Self::default() });
        is_empty.then(Self::default).into_iter().chain(added).chain(adopted)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let header = RefsHeader {
            parent: self.parent,
            added: self.added.len() as u64,
            adopted: self.adopted.len() as u64,
            dropped: self.dropped.len() as u64,
            extra: Default::default(),
        };
        put_header(&mut out, &header);
        for ids in [&self.added, &self.adopted, &self.dropped] {
            ids.iter().for_each(|id| out.extend(id.0));
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (header, rest): (RefsHeader, _) = split_header(bytes)?;
        let (added, rest) = split_ids(rest, header.added)?;
        let (adopted, rest) = split_ids(rest, header.adopted)?;
        let (dropped, rest) = split_ids(rest, header.dropped)?;
        if !rest.is_empty() {
            return Err(Malformed("bytes follow the end"));
        }
        Ok(Self { parent: header.parent, added, adopted, dropped })
    }
}

/// The ids of each part.
fn pieces(ids: Vec<ChunkId>) -> impl Iterator<Item = Vec<ChunkId>> {
    (0..ids.len()).step_by(PART_IDS).map(move |first| ids[first..ids.len().min(first + PART_IDS)].to_vec())
}

fn split_ids(bytes: &[u8], count: u64) -> Result<(Vec<ChunkId>, &[u8]), Malformed> {
    let (ids, rest) = split_pieces::<32>(bytes, count)?;
    if ids.is_sorted_by(|left, right| left < right) {
        Ok((ids.iter().map(|id| ChunkId(*id)).collect(), rest))
    } else {
        Err(Malformed("ids are not in order"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_have_these_bytes() {
        let refs: Vec<Refs> = Refs::parts(vec![ChunkId([1; 32]), ChunkId([2; 32])], Vec::new()).collect();
        let expected = ["07000000a3020203000400", &"01".repeat(32), &"02".repeat(32)].concat();
        assert_eq!(hex::encode(refs[0].encode()), expected);
        assert_eq!(Refs::decode(&refs[0].encode()), Ok(refs[0].clone()));
    }

    #[test]
    fn counts_and_order_are_checked() {
        for (header, ids, why) in [
            ("07000000a3020203000400", vec![[1; 32]], "a count is beyond the object"),
            ("07000000a3020103000400", vec![[1; 32], [2; 32]], "bytes follow the end"),
            ("07000000a3020203000400", vec![[2; 32], [1; 32]], "ids are not in order"),
            ("0f000000a3021bffffffffffffffff03000400", vec![], "a count is beyond the object"),
        ] {
            let bytes = [hex::decode(header).unwrap(), ids.concat()].concat();
            assert_eq!(Refs::decode(&bytes), Err(Malformed(why)));
        }
    }

    #[test]
    fn many_ids_are_cut_into_parts() {
        let ids: Vec<_> = (0..PART_IDS as u64 + 1)
            .map(|number| ChunkId([&number.to_be_bytes()[..], &[0; 24]].concat().try_into().unwrap()))
            .collect();
        let parts: Vec<Refs> = Refs::parts(ids.clone(), vec![ChunkId([0xff; 32])]).collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts.iter().flat_map(|part| part.added.clone()).collect::<Vec<_>>(), ids);
    }
}
