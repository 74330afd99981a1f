//! Sealed chunks on their way into new packs, as they are: their seal names no place, so no data key is needed.
//!
//! Prune moves what lives in half-dead packs so, and replication what lies at a target in packs that are going to be deleted there.
//! New packs have new names: nobody ever relies again on a name that was condemned.

use std::collections::{BTreeMap, BTreeSet};

use crate::chunk::ChunkId;
use crate::envelope::seal_envelope;
use crate::format::head::{DELTAS, Object};
use crate::format::index::{Index, IndexClear};
use crate::format::manifest::BackupClear;
use crate::format::refs::Refs;
use crate::format::{Kind, path};
use crate::index::Location;
use crate::pack::{Base, Pack, PackBuilder};
use crate::repository::Repository;
use crate::seal::Secret;
use crate::untold::{Packed, Untold};
use crate::{BackupId, Digest, DomainId, Error};

/// Fills new packs of one domain at one target.
pub(crate) struct Repacker<'a> {
    to: &'a Repository,
    domain: DomainId,
    index_key: Secret,
    filling: Option<PackBuilder>,
    untold: Untold,
    /// Indexes that are to be stored.
    full: Vec<Index>,
    objects: Vec<Object>,
}

/// A chunk and where it lies.
pub(crate) type Chunk = (ChunkId, Location);

/// Chunks by the packs that they lie in.
pub(crate) fn by_pack(chunks: &[Chunk]) -> BTreeMap<Digest, Vec<&Chunk>> {
    let mut packs: BTreeMap<Digest, Vec<&Chunk>> = BTreeMap::new();
    for chunk in chunks {
        packs.entry(chunk.1.pack).or_default().push(chunk);
    }
    packs
}

/// What a repacker stored; no head names it yet.
pub(crate) struct Fresh {
    /// Packs, then indexes.
    pub(crate) objects: Vec<Object>,
    pub(crate) indexes: Vec<(Digest, Index)>,
}

/// What a backup found known: the packs that must stay, and all indexes that tell of its chunks.
pub(crate) struct Reliance {
    pub(crate) packs: BTreeSet<Digest>,
    pub(crate) indexes: BTreeSet<Digest>,
    /// Feature bits that a reader must know.
    pub(crate) incompatible: u64,
}

impl<'a> Repacker<'a> {
    pub(crate) fn new(to: &'a Repository, domain: DomainId) -> Result<Self, Error> {
        let index_key = to.inner.keyring.current().domain(domain)?.index_key().clone();
        Ok(Self {
            to,
            domain,
            index_key,
            filling: None,
            untold: Untold::default(),
            full: Vec::new(),
            objects: Vec::new(),
        })
    }

    /// Takes these chunks of `source`, each of whose packs is read once and compared with its digest.
    pub(crate) async fn take(&mut self, source: &Repository, chunks: &[Chunk]) -> Result<(), Error> {
        for (pack, chunks) in by_pack(chunks) {
            self.take_from(source, pack, chunks).await?;
        }
        Ok(())
    }

    /// Takes chunks of one pack: all of them, or none if it is not as it was committed.
    pub(crate) async fn take_from(
        &mut self,
        source: &Repository,
        pack: Digest,
        mut chunks: Vec<&Chunk>,
    ) -> Result<(), Error> {
        let bytes = source.inner.place.committed(&path::pack(self.domain, pack), pack).await?;
        chunks.sort_unstable_by_key(|(_, location)| location.offset);
        for (id, location) in chunks {
            let start = location.offset as usize;
            let sealed = bytes.get(start..start + location.length as usize);
            let sealed = sealed.ok_or_else(|| Error::ChunkLost { id: hex::encode(id.0) })?;
            let base = location.base.map(|id| Base { id, depth: location.depth });
            self.add(*id, sealed, base).await?;
        }
        Ok(())
    }

    pub(crate) async fn add(&mut self, id: ChunkId, sealed: &[u8], base: Option<Base>) -> Result<(), Error> {
        if let Some(full) = self.filling.take_if(|pack| !pack.has_room(sealed.len())) {
            self.put(full).await?;
        }
        self.filling.get_or_insert_with(|| PackBuilder::new(Vec::new())).push(id, sealed, base);
        Ok(())
    }

    /// Has the indexes tell of a pack that is here already, as its footer does.
    pub(crate) fn tell_of(&mut self, Index { packs, records, bases, .. }: Index) {
        if let Some(digest) = packs.first().copied() {
            self.full.extend(self.untold.add(Packed { digest, records, bases }));
        }
    }

    async fn put(&mut self, full: PackBuilder) -> Result<(), Error> {
        let Pack { digest, bytes, records, bases } = full.finish(&self.index_key);
        let (path, length) = (path::pack(self.domain, digest), bytes.len() as u64);
        self.to.inner.place.put(&path, bytes).await?;
        self.objects.push((path, length, digest));
        self.full.extend(self.untold.add(Packed { digest, records, bases }));
        Ok(())
    }

    /// Ends the last pack and writes indexes of all of them, each of which says that it supersedes others.
    pub(crate) async fn finish(&mut self, supersedes: &[Digest]) -> Result<Fresh, Error> {
        if let Some(last) = self.filling.take().filter(|pack| !pack.is_empty()) {
            self.put(last).await?;
        }
        self.full.extend(self.untold.take());
        let mut indexes = Vec::with_capacity(self.full.len());
        for full in std::mem::take(&mut self.full) {
            let index = Index { supersedes: supersedes.to_vec(), ..full };
            let object = self.to.put_index(self.domain, &index).await?;
            indexes.push((object.2, index));
            self.objects.push(object);
        }
        Ok(Fresh { objects: std::mem::take(&mut self.objects), indexes })
    }

    /// Takes back what was stored: no head names it.
    pub(crate) async fn abandon(self) -> Result<(), Error> {
        for (path, ..) in &self.objects {
            self.to.inner.place.delete(path).await?;
        }
        Ok(())
    }
}

impl Repository {
    /// Stores an index. Sealed anew, it has a name that was never used.
    pub(crate) async fn put_index(&self, domain: DomainId, index: &Index) -> Result<Object, Error> {
        let keyring = self.inner.keyring.current();
        let clear = IndexClear { domain, extra: Default::default() };
        let plaintext = index.encode();
        let keys = keyring.domain(domain)?;
        let seal = Some((keys.index_key(), &plaintext[..]));
        let bytes = seal_envelope(Kind::Index, &path::indexes(domain), &clear, seal, &*keyring);
        let digest = Digest::of(&bytes);
        let object = (path::index(domain, digest), bytes.len() as u64, digest);
        self.inner.place.put(&object.0, bytes).await?;
        Ok(object)
    }

    /// Stores the refs of a backup: what it added and what it found known, both sorted.
    pub(crate) async fn put_refs(
        &self,
        domain: DomainId,
        backup: BackupId,
        added: Vec<ChunkId>,
        adopted: Vec<ChunkId>,
    ) -> Result<Vec<Object>, Error> {
        let keyring = self.inner.keyring.current();
        let keys = keyring.domain(domain)?;
        let clear = BackupClear { domain, backup, extra: Default::default() };
        let mut objects = Vec::new();
        for (part, refs) in (0..).zip(Refs::parts(added, adopted)) {
            let (path, plaintext) = (path::refs(domain, backup, part), refs.encode());
            let seal = Some((keys.index_key(), &plaintext[..]));
            let bytes = seal_envelope(Kind::Refs, &path, &clear, seal, &*keyring);
            objects.push((path.clone(), bytes.len() as u64, Digest::of(&bytes)));
            self.inner.place.put(&path, bytes).await?;
        }
        Ok(objects)
    }

    /// Where the chunks are now that a backup adopted, by the refs among its `own` objects; none if one is in no pack that will stay.
    pub(crate) async fn rely_again(&self, domain: DomainId, own: &[Object]) -> Result<Option<Reliance>, Error> {
        let state = self.state(domain).await?;
        let table = self.index(domain, &state).await?;
        let own_indexes = own.iter().filter_map(|(path, ..)| path::index_digest(domain, path));
        let mut reliance = Reliance { packs: BTreeSet::new(), indexes: own_indexes.collect(), incompatible: 0 };
        for (path, _, digest) in own {
            let Some(backup) = path::refs_backup(domain, path) else { continue };
            for id in self.read_refs(domain, backup, path, *digest).await?.adopted {
                let Some(chain) = table.known_chain(&id)? else { return Ok(None) };
                reliance.packs.extend(chain.iter().map(|location| location.pack));
                reliance.indexes.extend(chain.iter().map(|location| location.index));
                if chain.len() > 1 {
                    reliance.incompatible |= DELTAS;
                }
            }
        }
        Ok(Some(reliance))
    }
}
