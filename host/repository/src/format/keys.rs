//! Keys (FORMAT §6): a backup's data key, wrapped.

use super::cbor::{Blob, structure};
use crate::{BackupId, DomainId};

structure! {
    /// The clear part; nothing is sealed.
    Keys {
        1 domain: DomainId,
        2 backup: BackupId,
        3 generation: u64,
        4 slots: Vec<Slot>,
    }
}

structure! {
    /// One way to the data key.
    Slot {
        1 kind: u64,
        2 version: Option<u64>,
        3 wrapped: Blob,
        4 recipient: Option<String>,
    }
}

/// [`Slot::kind`]: wrapped by the organization key of [`Slot::version`].
pub(crate) const SLOT_ORGANIZATION: u64 = 0;
/// [`Slot::kind`]: an age file for [`Slot::recipient`].
pub(crate) const SLOT_RECIPIENT: u64 = 1;
