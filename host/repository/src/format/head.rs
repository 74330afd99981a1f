//! Heads (FORMAT §8): the clear part, which tells structure without any key.

use super::cbor::structure;
use crate::{BackupId, Digest, WriterId};

/// An object that a head names: its path, its length in bytes, and the digest of its bytes.
pub(crate) type Object = (String, u64, Digest);
/// A backup that a head commits: its id, the indexes that its manifest needs, its keys' generation.
pub(crate) type Committed = (BackupId, Vec<Digest>, u64);

/// Incompatible features: chunks that are deltas may be needed, of either encoding.
pub(crate) const DELTAS: u64 = 1 | 2;
/// Incompatible features that this version knows.
pub(crate) const INCOMPATIBLE_KNOWN: u64 = DELTAS;
/// Features compatible for reading that this version knows: none yet.
pub(crate) const COMPATIBLE_KNOWN: u64 = 0;

structure! {
    /// One commit.
    Head {
        1 sequence: u64,
        2 previous: Option<Digest>,
        3 epoch: u64,
        4 writer: WriterId,
        5 written_ms: u64,
        6 incompatible: u64,
        7 compatible: u64,
        8 checkpoint: bool,
        9 added: Vec<Object>,
        10 condemned: Vec<(Digest, u64)>,
        11 removed: Vec<String>,
        12 keyring: u64,
        13 committed: Vec<Committed>,
        14 backups_removed: Vec<BackupId>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::cbor;

    #[test]
    fn a_head_has_these_bytes() {
        let head = Head {
            sequence: 1,
            previous: Some(Digest([0x11; 32])),
            epoch: 2,
            writer: WriterId([0x22; 16]),
            written_ms: 1_700_000_000_000,
            incompatible: 0,
            compatible: 0,
            checkpoint: false,
            added: vec![("p".into(), 9, Digest([0x33; 32]))],
            condemned: vec![],
            removed: vec![],
            keyring: 3,
            committed: vec![(BackupId([0x44; 16]), vec![Digest([0x55; 32])], 1)],
            backups_removed: vec![],
            extra: Default::default(),
        };
        let expected = [
            "ae0101025820",
            &"11".repeat(32),
            "03020450",
            &"22".repeat(16),
            "051b0000018bcfe568000600070008f409818361700958 20".replace(' ', "").as_str(),
            &"33".repeat(32),
            "0a800b800c030d818350",
            &"44".repeat(16),
            "815820",
            &"55".repeat(32),
            "010e80",
        ]
        .concat();
        assert_eq!(hex::encode(cbor::encode(&head)), expected);
        assert_eq!(cbor::decode::<Head>(&cbor::encode(&head)), Ok(head));
    }
}
