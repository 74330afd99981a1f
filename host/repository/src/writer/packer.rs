//! Fills packs, one after the other.

use bytes::Bytes;

use crate::chunk::ChunkId;
use crate::pack::{Base, PackBuilder};

/// The pack that is being filled.
#[derive(Debug, Default)]
pub(super) struct Packer {
    current: Option<PackBuilder>,
    /// Memory of packs that are durable, for the next ones.
    spares: Vec<Vec<u8>>,
}

impl Packer {
    /// Appends a sealed chunk; gives back the pack before if the chunk did not fit into it.
    pub(super) fn add(&mut self, id: ChunkId, sealed: &[u8], base: Option<Base>) -> Option<PackBuilder> {
        let full = self.current.take_if(|pack| !pack.has_room(sealed.len()));
        let spares = &mut self.spares;
        let current = self.current.get_or_insert_with(|| PackBuilder::new(spares.pop().unwrap_or_default()));
        current.push(id, sealed, base);
        full
    }

    /// Takes back the memory of a pack that is durable, if nobody else holds it.
    pub(super) fn reuse(&mut self, pack: Bytes) {
        if let Ok(mut bytes) = pack.try_into_mut() {
            bytes.clear();
            self.spares.push(bytes.into());
        }
    }

    /// The last pack, if there is anything in it. There are no more: memory for others is given up.
    pub(super) fn last(&mut self) -> Option<PackBuilder> {
        self.spares.clear();
        self.current.take().filter(|pack| !pack.is_empty())
    }
}
