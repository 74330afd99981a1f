//! Fills packs, one after the other.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::Digest;
use crate::chunk::ChunkId;
use crate::format::index::Record;
use crate::pack::{Pack, PackBuilder};
use crate::seal::Secret;

/// The pack that is being filled, and what the full ones hold.
#[derive(Debug, Default)]
pub(super) struct Packer {
    current: Option<FullPack>,
    /// Memory of a pack that is durable, for the next one.
    spare: Option<Vec<u8>>,
    pub(super) packed: Vec<Packed>,
}

/// A pack with the part of the budget that its bytes take.
#[derive(Debug)]
pub(super) struct FullPack {
    builder: PackBuilder,
    permit: Option<OwnedSemaphorePermit>,
}

/// A pack that was completed.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) digest: Digest,
    pub(super) length: u64,
    pub(super) records: Vec<Record>,
}

impl Packer {
    /// Appends a sealed chunk; gives back the pack before if the chunk did not fit into it.
    pub(super) fn add(&mut self, id: ChunkId, sealed: &[u8], permit: OwnedSemaphorePermit) -> Option<FullPack> {
        let full = self.current.take_if(|pack| !pack.builder.has_room(sealed.len()));
        let spare = &mut self.spare;
        let pack = self.current.get_or_insert_with(|| {
            let builder = PackBuilder::new(spare.take().unwrap_or_default());
            FullPack { builder, permit: None }
        });
        pack.builder.push(id, sealed);
        match &mut pack.permit {
            Some(all) => all.merge(permit),
            none => *none = Some(permit),
        }
        full
    }

    /// Takes back the memory of a pack that is durable, if nobody else holds it.
    pub(super) fn reuse(&mut self, pack: Bytes) {
        if let Ok(bytes) = pack.try_into_mut() {
            self.spare = Some(bytes.into());
        }
    }

    /// The last pack, if there is anything in it.
    pub(super) fn take(&mut self) -> Option<FullPack> {
        self.current.take().filter(|pack| !pack.builder.is_empty())
    }
}

impl FullPack {
    /// The stored form, and the budget to give back when it is durable.
    pub(super) fn finish(self, index_key: &Secret) -> (Pack, Option<OwnedSemaphorePermit>) {
        (self.builder.finish(index_key), self.permit)
    }
}
