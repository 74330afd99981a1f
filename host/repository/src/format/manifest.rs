//! The manifest (FORMAT §6): what a backup consists of, and the secrets that its reading needs.

use super::cbor::{Blob, structure};
use crate::seal::Secret;
use crate::{BackupId, Digest, DomainId};

structure! {
    /// The clear part of manifests and refs.
    BackupClear {
        1 domain: DomainId,
        2 backup: BackupId,
    }
}

structure! {
    /// The sealed part.
    Manifest {
        1 backup: BackupId,
        2 domain: DomainId,
        /// Of data, list and table chunks.
        3 secrets: (Secret, Secret, Secret),
        4 index_key: Secret,
        5 plugin: String,
        6 component: Digest,
        7 method: String,
        8 backup_type: String,
        9 document: String,
        /// Level, root items, bytes.
        10 table: (u64, Blob, u64),
        11 entries: u64,
        12 logical_bytes: u64,
        13 parent: Option<BackupId>,
        14 engine: String,
        15 started_ms: u64,
        16 finished_ms: u64,
        17 indexes: Vec<Digest>,
    }
}
