//! What the heads of a domain at one target add up to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::format::directory::{DirectoryChange, StoredRecord};
use crate::format::head::{Committed, Head, Object};
use crate::format::path;
use crate::{BackupId, Digest, DomainId};

/// The newest head that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) sequence: u64,
    pub(crate) digest: Digest,
    pub(crate) written_ms: u64,
}

/// A backup that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LiveBackup {
    /// Indexes that its manifest needs.
    pub(crate) indexes: Vec<Digest>,
    /// Generation of its keys.
    pub(crate) keys: u64,
}

/// All heads up to [`Self::tip`], applied.
#[derive(Clone, Debug, Default)]
pub(crate) struct DomainState {
    pub(crate) tip: Option<Tip>,
    /// Where its reading began: the sequence of the last checkpoint, or 0.
    pub(crate) checkpoint: u64,
    pub(crate) epoch: u64,
    /// Generation of the keyring that the heads need.
    pub(crate) keyring: u64,
    /// Feature bits that a reader must know.
    pub(crate) incompatible: u64,
    /// Feature bits that a writer must know.
    pub(crate) compatible: u64,
    /// Packs that are present, with their lengths.
    packs: HashMap<Digest, u64>,
    /// Indexes that are present, with their lengths.
    pub(crate) indexes: BTreeMap<Digest, u64>,
    /// Every other object that is present.
    objects: BTreeMap<String, (u64, Digest)>,
    /// Objects of any kind that will be deleted, since when.
    condemned: HashMap<Digest, u64>,
    pub(crate) backups: BTreeMap<BackupId, LiveBackup>,
    /// Shared with copies of this: most of what a copy would be.
    pub(crate) records: BTreeMap<BackupId, Arc<StoredRecord>>,
}

impl DomainState {
    /// Heads that name nothing but these packs and indexes, of which some are condemned.
    #[cfg(test)]
    pub(crate) fn of(domain: DomainId, packs: &[Digest], indexes: &[Digest], condemned: &[Digest]) -> Self {
        let packs = packs.iter().map(|pack| (path::pack(domain, *pack), 1, *pack));
        let indexes = indexes.iter().map(|index| (path::index(domain, *index), 1, *index));
        let head = Head {
            sequence: 0,
            previous: None,
            epoch: 0,
            writer: crate::WriterId([0; 16]),
            written_ms: 0,
            incompatible: 0,
            compatible: 0,
            checkpoint: false,
            added: packs.chain(indexes).collect(),
            condemned: condemned.iter().map(|object| (*object, 7)).collect(),
            removed: Vec::new(),
            keyring: 1,
            committed: Vec::new(),
            backups_removed: Vec::new(),
            extra: Default::default(),
        };
        let change = DirectoryChange { records: Vec::new(), deleted: Vec::new(), extra: Default::default() };
        let mut state = Self::default();
        state.apply(domain, head, Digest([0; 32]), change);
        state
    }

    pub(crate) fn next_sequence(&self) -> u64 {
        self.tip.map_or(0, |tip| tip.sequence + 1)
    }

    /// A pack that may be relied on: present, and not going to be deleted.
    pub(crate) fn is_live(&self, pack: &Digest) -> bool {
        self.packs.contains_key(pack) && !self.condemned.contains_key(pack)
    }

    /// An index that may be relied on.
    pub(crate) fn is_index_live(&self, index: &Digest) -> bool {
        self.indexes.contains_key(index) && !self.condemned.contains_key(index)
    }

    /// Whether an object is going to be deleted.
    pub(crate) fn is_condemned(&self, digest: &Digest) -> bool {
        self.condemned.contains_key(digest)
    }

    /// Since when objects are condemned, by digest.
    pub(crate) fn condemned(&self) -> &HashMap<Digest, u64> {
        &self.condemned
    }

    pub(crate) fn live_indexes(&self) -> impl Iterator<Item = &Digest> {
        self.indexes.keys().filter(|index| !self.condemned.contains_key(index))
    }

    /// Packs that are present, condemned ones too.
    pub(crate) fn packs(&self) -> impl Iterator<Item = &Digest> {
        self.packs.keys()
    }

    pub(crate) fn pack_length(&self, pack: &Digest) -> Option<u64> {
        self.packs.get(pack).copied()
    }

    pub(crate) fn live_packs(&self) -> impl Iterator<Item = &Digest> {
        self.packs.keys().filter(|pack| !self.condemned.contains_key(pack))
    }

    /// An object that is neither a pack nor an index: its length and digest.
    pub(crate) fn object(&self, path: &str) -> Option<(u64, Digest)> {
        self.objects.get(path).copied()
    }

    /// Such objects whose path begins with `prefix`.
    pub(crate) fn objects_below(&self, prefix: String) -> impl Iterator<Item = (&String, &(u64, Digest))> {
        let from = self.objects.range(prefix.clone()..);
        from.take_while(move |(path, _)| path.starts_with(&prefix))
    }

    /// Whether the heads name this object, and it is not going to be deleted.
    pub(crate) fn has(&self, domain: DomainId, (path, _, digest): &Object) -> bool {
        if path::pack_digest(domain, path).is_some() {
            self.is_live(digest)
        } else if path::index_digest(domain, path).is_some() {
            self.is_index_live(digest)
        } else {
            self.objects.get(path).is_some_and(|(_, present)| present == digest) && !self.is_condemned(digest)
        }
    }

    /// Bytes of all objects that are present.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let objects = self.objects.values().map(|(length, _)| length);
        self.packs.values().chain(self.indexes.values()).chain(objects).sum()
    }

    /// Heads from the last checkpoint on, the next one among them.
    pub(crate) fn heads_since_checkpoint(&self) -> u64 {
        self.next_sequence() - self.checkpoint
    }

    /// A checkpoint is longer than this: a path and a digest for each object, names and times for each backup.
    pub(crate) fn checkpoint_bytes_least(&self) -> u64 {
        100 * (self.packs.len() + self.indexes.len() + self.objects.len() + 2 * self.backups.len()) as u64
    }

    /// Every object that is present, sorted by path: what a checkpoint repeats.
    pub(crate) fn all_objects(&self, domain: DomainId) -> Vec<Object> {
        let packs = self.packs.iter().map(|(digest, length)| (path::pack(domain, *digest), *length, *digest));
        let indexes = self.indexes.iter().map(|(digest, length)| (path::index(domain, *digest), *length, *digest));
        let others = self.objects.iter().map(|(path, (length, digest))| (path.clone(), *length, *digest));
        let mut all: Vec<_> = packs.chain(indexes).chain(others).collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn all_condemned(&self) -> Vec<(Digest, u64)> {
        let mut all: Vec<_> = self.condemned.iter().map(|(pack, since)| (*pack, *since)).collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn all_committed(&self) -> Vec<Committed> {
        self.backups.iter().map(|(id, live)| (*id, live.indexes.clone(), live.keys)).collect()
    }

    /// Applies the next head; the caller has checked that it follows.
    pub(crate) fn apply(&mut self, domain: DomainId, head: Head, digest: Digest, change: DirectoryChange) {
        if head.checkpoint {
            *self = Self { checkpoint: head.sequence, ..Self::default() };
        }
        self.tip = Some(Tip { sequence: head.sequence, digest, written_ms: head.written_ms });
        self.epoch = head.epoch;
        self.keyring = self.keyring.max(head.keyring);
        self.incompatible |= head.incompatible;
        self.compatible |= head.compatible;
        let mut objects = head.added;
        let is_pack = |(path, _, digest): &mut Object| path::pack_digest(domain, path) == Some(*digest);
        let is_index = |(path, _, digest): &mut Object| path::index_digest(domain, path) == Some(*digest);
        self.packs.extend(objects.extract_if(.., is_pack).map(|(_, length, digest)| (digest, length)));
        put_all(&mut self.indexes, objects.extract_if(.., is_index).map(|(_, length, digest)| (digest, length)));
        put_all(&mut self.objects, objects.into_iter().map(|(path, length, digest)| (path, (length, digest))));
        self.condemned.extend(head.condemned);
        for path in head.removed {
            if let Some(pack) = path::pack_digest(domain, &path) {
                self.packs.remove(&pack);
                self.condemned.remove(&pack);
            } else if let Some(index) = path::index_digest(domain, &path) {
                self.indexes.remove(&index);
                self.condemned.remove(&index);
            } else if let Some((_, digest)) = self.objects.remove(&path) {
                self.condemned.remove(&digest);
            }
        }
        let committed = head.committed.into_iter();
        put_all(&mut self.backups, committed.map(|(backup, indexes, keys)| (backup, LiveBackup { indexes, keys })));
        put_all(&mut self.records, change.records.into_iter().map(|stored| (stored.record.backup, stored)));
        for backup in head.backups_removed {
            self.backups.remove(&backup);
            self.records.remove(&backup);
        }
    }
}

/// Puts entries in, in their order. A map that is empty is built at once, in less time and less room: what a checkpoint has is sorted.
fn put_all<K: Ord, V>(map: &mut BTreeMap<K, V>, entries: impl Iterator<Item = (K, V)>) {
    if map.is_empty() {
        *map = entries.collect();
    } else {
        map.extend(entries);
    }
}
