//! Fetches and opens single chunks; keeps a few lists and table chunks, which are read again and again.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::elsewhere::Elsewhere;
use super::windows::Windows;
use crate::chunk::{ChunkCodec, ChunkError, ChunkHash, ChunkId, ChunkKind, ChunkSecrets};
use crate::format::path;
use crate::index::{IndexTable, Location};
use crate::opener::ChunkOpener;
use crate::place::Place;
use crate::pool::Pool;
use crate::tree::{Node, Tree};
use crate::{Digest, DomainId, Error};

/// Bytes of lists and table chunks that are kept.
const CACHE_MAX: usize = 4 << 20;

/// The chunks of one domain at one target.
pub(crate) struct Chunks {
    place: Place,
    pool: Pool,
    domain: DomainId,
    index: IndexTable,
    secrets: ChunkSecrets,
    /// Where else a chunk may be that is damaged or gone here.
    pub(super) elsewhere: OnceLock<Elsewhere>,
    windows: Windows,
    /// The most recently used last.
    cache: Mutex<VecDeque<(ChunkHash, Bytes)>>,
}

impl Chunks {
    pub(crate) fn new(place: Place, pool: Pool, domain: DomainId, index: IndexTable, secrets: ChunkSecrets) -> Self {
        let (elsewhere, windows, cache) = (OnceLock::new(), Windows::default(), Mutex::default());
        Self { place, pool, domain, index, secrets, elsewhere, windows, cache }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn domain(&self) -> DomainId {
        self.domain
    }

    /// Bytes of the pack that holds what lies at `location`.
    pub(super) async fn sealed(&self, location: &Location, range: Range<u64>) -> Result<Bytes, Error> {
        let path = path::pack(self.domain, location.pack);
        self.windows.read(&self.place, &path, location.pack, range).await
    }

    /// Where a chunk is, and each base that it takes to open it, if all of them are somewhere.
    pub(crate) fn chain(&self, id: &ChunkId) -> Result<Option<Vec<Location>>, Error> {
        self.index.known_chain(id)
    }

    /// The same of a chunk that must be there.
    pub(crate) fn locate(&self, hash: &ChunkHash) -> Result<Vec<Location>, Error> {
        self.index.find_chain(&hash.id())
    }

    /// Where a chunk is by itself.
    pub(crate) fn find(&self, id: &ChunkId) -> Result<Option<Location>, Error> {
        self.index.find(id)
    }

    /// The sealed bytes at a place, and the hash of what they are a delta to, if they are the chunk of this hash.
    pub(crate) async fn authentic(
        &self,
        location: &Location,
        hash: ChunkHash,
    ) -> Result<(Bytes, Option<ChunkHash>), Error> {
        let range = u64::from(location.offset)..u64::from(location.offset) + u64::from(location.length);
        let sealed = self.sealed(location, range).await?;
        let opened = self.pool.run(move |codec| (codec.opener.authenticate(&hash, &sealed), sealed)).await?;
        let base = opened.0.map_err(Error::broken(&hash))?;
        if base.map(|base| base.id()) == location.base {
            Ok((opened.1, base))
        } else {
            Err(Error::broken(&hash)(ChunkError::Base))
        }
    }

    /// A whole pack, as it was committed.
    pub(crate) async fn pack(&self, pack: Digest) -> Result<Bytes, Error> {
        self.place.committed(&path::pack(self.domain, pack), pack).await
    }

    /// Opens the leaf of an entry's tree, which is as long as its list says, given its sealed bytes and those of its bases. The opener has it then.
    pub(super) fn open_leaf(&self, opener: &mut ChunkOpener, leaf: &Node, chain: &[Bytes]) -> Result<(), Error> {
        if chain.is_empty() {
            return Err(Error::ChunkLost { id: hex::encode(leaf.hash.id().0) });
        }
        let opened = opener.open(&self.secrets, ChunkKind::Data, &leaf.hash, chain);
        match opened.map(|plaintext| plaintext.len() as u64 == leaf.end - leaf.start) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::broken(&leaf.hash)(ChunkError::Length)),
            Err(reason) => Err(Error::broken(&leaf.hash)(reason)),
        }
    }

    /// Opens a chunk on the pool, of whatever length it is, given its sealed bytes and those of its bases.
    pub(super) async fn open_chain(
        self: &Arc<Self>,
        kind: ChunkKind,
        hash: ChunkHash,
        chain: Vec<Bytes>,
    ) -> Result<Bytes, Error> {
        let chunks = Arc::clone(self);
        let open = move |codec: &mut ChunkCodec| {
            let opened = codec.opener.open(&chunks.secrets, kind, &hash, &chain);
            opened.map(Bytes::copy_from_slice)
        };
        self.pool.run(open).await?.map_err(Error::broken(&hash))
    }

    /// One list or table chunk, or a data chunk that is read for itself.
    pub(crate) async fn fetch(self: &Arc<Self>, kind: ChunkKind, hash: ChunkHash) -> Result<Bytes, Error> {
        if let Some(kept) = self.kept(&hash) {
            return Ok(kept);
        }
        let opened = match self.fetch_here(kind, hash).await {
            Err(reason) => self.look_elsewhere(kind, hash, reason).await?,
            opened => opened?,
        };
        self.keep(hash, opened.clone());
        Ok(opened)
    }

    async fn fetch_here(self: &Arc<Self>, kind: ChunkKind, hash: ChunkHash) -> Result<Bytes, Error> {
        let mut chain = Vec::with_capacity(1);
        for location in self.locate(&hash)? {
            let range = u64::from(location.offset)..u64::from(location.offset) + u64::from(location.length);
            chain.push(self.sealed(&location, range).await?);
        }
        self.open_chain(kind, hash, chain).await
    }

    /// The leaf of a tree that holds the byte at `offset`.
    pub(super) async fn leaf(self: &Arc<Self>, tree: &Tree, offset: u64) -> Result<Node, Error> {
        self.reach(tree, offset).await.map_err(|(_, error)| error)
    }

    /// The same; the error comes with all the bytes, from `offset` on, that cannot be reached for the same reason.
    pub(super) async fn reach(self: &Arc<Self>, tree: &Tree, offset: u64) -> Result<Node, (Range<u64>, Error)> {
        let root = |reason| (offset..tree.bytes, Error::damaged("the root of a tree")(reason));
        let mut node = tree.enter(offset).map_err(root)?;
        for level in (0..tree.level).rev() {
            let beyond = offset..node.end;
            let list = match self.fetch(ChunkKind::List, node.hash).await {
                Ok(list) => list,
                Err(error) => return Err((beyond, error)),
            };
            let id = hex::encode(node.hash.id().0);
            node = tree.step(&node, &list, level, offset).map_err(|reason| (beyond, Error::damaged(id)(reason)))?;
        }
        Ok(node)
    }

    fn kept(&self, hash: &ChunkHash) -> Option<Bytes> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let position = cache.iter().rposition(|(kept, _)| kept == hash)?;
        let found = cache.remove(position)?;
        let bytes = found.1.clone();
        cache.push_back(found);
        Some(bytes)
    }

    fn keep(&self, hash: ChunkHash, bytes: Bytes) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.push_back((hash, bytes));
        while cache.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > CACHE_MAX {
            cache.pop_front();
        }
    }
}
