//! Which copy of each chunk is needed: the records of the packs that are looked at, of which those that live backups need are marked.
//!
//! Where all packs of a domain are looked at, one copy lives of a chunk that lies in several: the one of the least depth, so that a delta's base
//! is never deeper than it was when the delta was made. What a marked copy is a delta to is marked too, whatever refs say: the index is
//! a second opinion. Where only those are looked at in which something died, every copy lives of what is needed at all: nothing is taken for
//! granted of a pack that is not looked at, and none such is ever called dead. About 56 bytes a record, while a prune runs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::Digest;
use crate::chunk::{ChunkId, DEPTH_MAX};
use crate::format::index::{Index, NO_BASE};
use crate::heads::DomainState;
use crate::index::Location;

/// All that is known of a domain's chunks.
#[derive(Default)]
pub(super) struct Census {
    packs: Vec<PackSeen>,
    numbers: HashMap<Digest, u32>,
    indexes: Vec<IndexSeen>,
    seen: HashSet<Digest>,
    bases: Vec<ChunkId>,
    /// Sorted by id and depth.
    copies: Vec<Copy>,
    /// Chunks that are needed and are nowhere.
    lost: BTreeSet<ChunkId>,
    /// Packs that were found damaged, and whether what is in them is given up.
    damaged: BTreeSet<Digest>,
    is_given_up: bool,
}

/// One chunk in one pack.
struct Copy {
    id: ChunkId,
    pack: u32,
    offset: u32,
    length: u32,
    base: u32,
    depth: u8,
    lives: bool,
}

/// A pack that an index told of.
pub(super) struct PackSeen {
    pub(super) digest: Digest,
    standing: Standing,
    /// All its chunks are among the copies.
    is_looked_at: bool,
    /// Numbers of the indexes that tell of it.
    told_by: Vec<u32>,
    /// Bytes of its chunks, and of those that live.
    total: u64,
    pub(super) live: u64,
}

/// Whether a pack's chunks can be had; the better the lower.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Stored by this prune; it may be that no head names it yet. It stays, whatever dies in it: it is for the next prune.
    Fresh,
    Present,
    /// Present, and not as it was committed.
    Damaged,
    Condemned,
    Absent,
}

struct IndexSeen {
    digest: Digest,
    packs: Vec<u32>,
}

impl Census {
    /// Takes in what an index tells of the packs that are to be looked at, unless another one told of them.
    pub(super) fn take(&mut self, digest: Digest, index: &Index, is_fresh: bool, look_at: impl Fn(&Digest) -> bool) {
        let is_told_first = self.seen.insert(digest);
        let (mut is_new, mut packs) = (Vec::with_capacity(index.packs.len()), Vec::with_capacity(index.packs.len()));
        for pack in &index.packs {
            let next = self.packs.len() as u32;
            let number = *self.numbers.entry(*pack).or_insert(next);
            if number == next {
                let standing = if is_fresh { Standing::Fresh } else { Standing::Absent };
                let (told_by, total, live) = (Vec::new(), 0, 0);
                self.packs.push(PackSeen { digest: *pack, standing, is_looked_at: false, told_by, total, live });
            }
            let seen = &mut self.packs[number as usize];
            is_new.push(!seen.is_looked_at && look_at(pack));
            seen.is_looked_at |= look_at(pack);
            if is_told_first {
                seen.told_by.push(self.indexes.len() as u32);
            }
            packs.push(number);
        }
        for record in index.records.iter().filter(|record| is_new[record.pack as usize]) {
            let (pack, length) = (packs[record.pack as usize], record.length);
            self.packs[pack as usize].total += u64::from(length);
            let base = index.bases.get(record.base as usize).map_or(NO_BASE, |base| {
                self.bases.push(*base);
                self.bases.len() as u32 - 1
            });
            let (id, offset, depth) = (record.id, record.offset, record.depth);
            self.copies.push(Copy { id, pack, offset, length, base, depth, lives: false });
        }
        if is_told_first {
            self.indexes.push(IndexSeen { digest, packs });
        }
    }

    /// Asks the heads which packs count. `false` if a pack with a copy that was marked is no longer what it was then: all must be marked anew.
    pub(super) fn heed(&mut self, state: &DomainState) -> bool {
        self.copies.sort_unstable_by_key(|copy| (copy.id, copy.depth));
        let mut is_sound = true;
        for pack in &mut self.packs {
            let standing = match pack.standing {
                Standing::Fresh if state.pack_length(&pack.digest).is_none() => Standing::Fresh,
                Standing::Fresh if state.is_live(&pack.digest) => Standing::Fresh,
                _ if self.is_given_up && self.damaged.contains(&pack.digest) => Standing::Absent,
                _ if state.is_live(&pack.digest) && self.damaged.contains(&pack.digest) => Standing::Damaged,
                _ if state.is_live(&pack.digest) => Standing::Present,
                _ if state.is_condemned(&pack.digest) => Standing::Condemned,
                _ => Standing::Absent,
            };
            is_sound &= pack.live == 0 || standing <= Standing::Present || standing == pack.standing;
            pack.standing = standing;
        }
        is_sound
    }

    /// Nothing is marked any more.
    pub(super) fn forget_marks(&mut self) {
        self.copies.iter_mut().for_each(|copy| copy.lives = false);
        self.packs.iter_mut().for_each(|pack| pack.live = 0);
        self.lost.clear();
    }

    /// Marks, of the packs that are looked at and stay, every copy of each chunk that `is_needed` says is needed; it is asked in the order of ids.
    pub(super) fn mark_all<E>(&mut self, mut is_needed: impl FnMut(&ChunkId) -> Result<bool, E>) -> Result<(), E> {
        self.forget_marks();
        let mut last: Option<(ChunkId, bool)> = None;
        for copy in &mut self.copies {
            let pack = &mut self.packs[copy.pack as usize];
            if pack.standing > Standing::Present {
                continue;
            }
            copy.lives = match last {
                Some((id, is_needed)) if id == copy.id => is_needed,
                _ => is_needed(&copy.id)?,
            };
            last = Some((copy.id, copy.lives));
            pack.live += if copy.lives { u64::from(copy.length) } else { 0 };
        }
        Ok(())
    }

    /// Marks a chunk that a live backup holds, and all that it is a delta to.
    pub(super) fn mark(&mut self, id: ChunkId) {
        let mut next = Some(id);
        while let Some(id) = next {
            let Some(best) = self.best(&id) else {
                self.lost.insert(id);
                return;
            };
            let copy = &mut self.copies[best];
            if copy.lives {
                return;
            }
            copy.lives = true;
            self.packs[copy.pack as usize].live += u64::from(copy.length);
            next = self.bases.get(copy.base as usize).copied();
        }
    }

    /// The copy that lives, else the one to live: one that can be opened, in a pack that stays, of the least depth, in a fresh pack if there
    /// is one.
    fn best(&self, id: &ChunkId) -> Option<usize> {
        let can_be_had = self.copies_of(id).filter(|(copy, _)| self.standing(copy) != Standing::Absent);
        let rank = |copy: &Copy| {
            let standing = self.standing(copy);
            let is_whole = self.is_whole(copy, DEPTH_MAX);
            (!copy.lives, !is_whole, standing == Standing::Condemned, copy.depth, standing)
        };
        can_be_had.min_by_key(|(copy, _)| rank(copy)).map(|(_, number)| number)
    }

    /// Whether a copy can be had with all that it takes to open it, at most so many bases. A delta may outlive its base, where nothing
    /// needed it any more.
    fn is_whole(&self, copy: &Copy, bases: u8) -> bool {
        let base = self.bases.get(copy.base as usize);
        let can_be_opened = |base| bases > 0 && self.copies_of(base).any(|(copy, _)| self.is_whole(copy, bases - 1));
        self.standing(copy) != Standing::Absent && base.is_none_or(can_be_opened)
    }

    /// All copies of a chunk, with their numbers.
    fn copies_of(&self, id: &ChunkId) -> impl Iterator<Item = (&Copy, usize)> {
        let first = self.copies.partition_point(|copy| copy.id < *id);
        self.copies[first..].iter().take_while(move |copy| copy.id == *id).zip(first..)
    }

    fn standing(&self, copy: &Copy) -> Standing {
        self.packs[copy.pack as usize].standing
    }

    /// Chunks that are needed and are in no pack that an index tells of. They are looked for again from here.
    pub(super) fn take_lost(&mut self) -> BTreeSet<ChunkId> {
        std::mem::take(&mut self.lost)
    }

    /// Whether all chunks of a pack are looked at.
    pub(super) fn knows(&self, pack: &Digest) -> bool {
        self.numbers.get(pack).is_some_and(|number| self.packs[*number as usize].is_looked_at)
    }

    pub(super) fn has_index(&self, index: &Digest) -> bool {
        self.seen.contains(index)
    }

    /// Whether a pack holds anything that is needed.
    pub(super) fn lives(&self, pack: &Digest) -> bool {
        self.numbers.get(pack).is_some_and(|number| self.packs[*number as usize].live > 0)
    }

    /// Packs that stay and hold nothing that is needed.
    pub(super) fn dead(&self) -> impl Iterator<Item = &PackSeen> {
        let looked_at = self.packs.iter().filter(|pack| pack.is_looked_at);
        looked_at.filter(|pack| pack.standing == Standing::Present && pack.live == 0)
    }

    /// Packs that stay though half of their bytes or more are dead: the next prune is to look at them again.
    pub(super) fn left_over(&self) -> impl Iterator<Item = &PackSeen> {
        let looked_at = self.packs.iter().filter(|pack| pack.is_looked_at);
        looked_at.filter(|pack| pack.standing <= Standing::Damaged && pack.live * 2 <= pack.total)
    }

    /// Packs of whose bytes half or more are dead; and condemned ones in which something lives after all.
    pub(super) fn half_dead(&self) -> impl Iterator<Item = &PackSeen> {
        self.packs.iter().filter(|pack| match pack.standing {
            Standing::Present => pack.live > 0 && pack.live * 2 <= pack.total,
            Standing::Condemned => pack.live > 0,
            Standing::Fresh | Standing::Damaged | Standing::Absent => false,
        })
    }

    /// Takes these packs for damaged: of two copies of one depth the one elsewhere lives.
    pub(super) fn distrust(&mut self, packs: BTreeSet<Digest>) {
        self.damaged.extend(packs);
    }

    /// Damaged packs, and condemned ones in which something lives after all.
    pub(super) fn unfit(&self) -> BTreeSet<Digest> {
        let rescued = self.packs.iter().filter(|pack| pack.standing == Standing::Condemned && pack.live > 0);
        self.damaged.iter().copied().chain(rescued.map(|pack| pack.digest)).collect()
    }

    /// From the next look at the heads on nothing can be had from these packs.
    pub(super) fn give_up(&mut self, packs: &BTreeSet<Digest>) {
        self.damaged.extend(packs);
        self.is_given_up = true;
    }

    /// The least depth of a chunk's copies that can be opened, in packs that stay.
    pub(super) fn depth(&self, id: &ChunkId) -> Option<u8> {
        let is_sound = |copy: &Copy| self.standing(copy) <= Standing::Present && self.is_whole(copy, DEPTH_MAX);
        let sound = self.copies_of(id).filter(|(copy, _)| is_sound(copy));
        sound.map(|(copy, _)| copy.depth).min()
    }

    /// Living deltas that stand on any of these chunks, directly or on another such delta.
    pub(super) fn standing_on(&self, bases: HashSet<ChunkId>) -> Vec<(ChunkId, Location)> {
        let (mut found, mut next) = (Vec::new(), bases);
        let stands = |copy: &&Copy, on: &HashSet<ChunkId>| {
            copy.lives && self.bases.get(copy.base as usize).is_some_and(|base| on.contains(base))
        };
        for _ in 0..DEPTH_MAX {
            let upon: Vec<&Copy> = self.copies.iter().filter(|copy| stands(copy, &next)).collect();
            next = upon.iter().map(|copy| copy.id).collect();
            found.extend(upon.into_iter().map(|copy| (copy.id, self.location(copy))));
            if next.is_empty() {
                break;
            }
        }
        found
    }

    /// What lives in some packs.
    pub(super) fn living(&self, packs: &BTreeSet<Digest>) -> Vec<(ChunkId, Location)> {
        let chosen = self.chosen(packs);
        let living = self.copies.iter().filter(|copy| copy.lives && chosen[copy.pack as usize]);
        living.map(|copy| (copy.id, self.location(copy))).collect()
    }

    /// Which of all packs, by their numbers, are among these.
    fn chosen(&self, packs: &BTreeSet<Digest>) -> Vec<bool> {
        self.packs.iter().map(|pack| packs.contains(&pack.digest)).collect()
    }

    fn location(&self, copy: &Copy) -> Location {
        Location {
            pack: self.packs[copy.pack as usize].digest,
            index: self.index_of(copy.pack).unwrap_or(Digest::of(&[])),
            offset: copy.offset,
            length: copy.length,
            base: self.bases.get(copy.base as usize).copied(),
            depth: copy.depth,
        }
    }

    /// Lets copies in fresh packs live in the place of those in `packs`.
    pub(super) fn move_on(&mut self, packs: &BTreeSet<Digest>) {
        let chosen = self.chosen(packs);
        let mut moved = Vec::new();
        for copy in self.copies.iter_mut().filter(|copy| copy.lives && chosen[copy.pack as usize]) {
            copy.lives = false;
            self.packs[copy.pack as usize].live -= u64::from(copy.length);
            moved.push(copy.id);
        }
        moved.into_iter().for_each(|id| self.mark(id));
    }

    /// Lets what was moved as it is out of `packs` live in fresh ones alone. What else lives there, because somebody came to need it
    /// meanwhile, goes on living.
    pub(super) fn leave(&mut self, packs: &BTreeSet<Digest>) {
        let chosen = self.chosen(packs);
        let is_left = |copy: &Copy| copy.lives && chosen[copy.pack as usize] && self.moved(copy).next().is_some();
        let left: Vec<usize> =
            self.copies.iter().zip(0..).filter(|(copy, _)| is_left(copy)).map(|(_, at)| at).collect();
        for copy in left {
            let copy = &mut self.copies[copy];
            copy.lives = false;
            self.packs[copy.pack as usize].live -= u64::from(copy.length);
        }
    }

    /// The indexes that tell of what was moved as it is out of `packs`, for each index that told of it there.
    pub(super) fn heirs(&self, packs: &BTreeSet<Digest>) -> BTreeMap<Digest, BTreeSet<Digest>> {
        let mut heirs: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
        let chosen = self.chosen(packs);
        for copy in self.copies.iter().filter(|copy| chosen[copy.pack as usize]) {
            for index in self.moved(copy).filter_map(|moved| self.index_of(moved.pack)) {
                for former in &self.packs[copy.pack as usize].told_by {
                    heirs.entry(self.indexes[*former as usize].digest).or_default().insert(index);
                }
            }
        }
        heirs
    }

    /// The same as a copy, in fresh packs: of two deltas only those that stand on one base can be opened wherever one of them can.
    fn moved<'a>(&'a self, copy: &'a Copy) -> impl Iterator<Item = &'a Copy> {
        let base = |copy: &Copy| self.bases.get(copy.base as usize);
        let all = self.copies_of(&copy.id).map(|(other, _)| other);
        all.filter(move |other| self.standing(other) == Standing::Fresh && base(other) == base(copy))
    }

    /// Indexes, of those that count, that tell of no pack but `condemned` ones and those that are not here.
    pub(super) fn idle_indexes<'a>(
        &'a self,
        state: &'a DomainState,
        condemned: &'a BTreeSet<Digest>,
    ) -> impl Iterator<Item = Digest> + 'a {
        let is_idle = |number: &u32| {
            let pack = &self.packs[*number as usize];
            pack.standing >= Standing::Condemned || condemned.contains(&pack.digest)
        };
        let idle = move |index: &&IndexSeen| {
            // One that no head names yet does not count.
            state.is_index_live(&index.digest) && index.packs.iter().all(is_idle)
        };
        self.indexes.iter().filter(idle).map(|index| index.digest)
    }

    /// Indexes that tell of any of these packs.
    pub(super) fn telling_of(&self, packs: &BTreeSet<Digest>) -> BTreeSet<Digest> {
        let numbers = packs.iter().filter_map(|pack| self.numbers.get(pack));
        let told_by = numbers.flat_map(|number| &self.packs[*number as usize].told_by);
        told_by.map(|index| self.indexes[*index as usize].digest).collect()
    }

    /// The index that tells of the copy that lives.
    pub(super) fn index_of_living(&self, id: &ChunkId) -> Option<Digest> {
        let best = self.best(id).filter(|best| self.copies[*best].lives)?;
        self.index_of(self.copies[best].pack)
    }

    /// An index of a living pack is never idle, so any of them will do.
    fn index_of(&self, pack: u32) -> Option<Digest> {
        let index = self.packs[pack as usize].told_by.first()?;
        Some(self.indexes[*index as usize].digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DomainId;
    use crate::format::index::Record;

    const DOMAIN: DomainId = DomainId([0; 16]);

    fn digest(number: u8) -> Digest {
        Digest([number; 32])
    }

    fn id(number: u8) -> ChunkId {
        ChunkId([number; 32])
    }

    /// Heads that name these packs, and these indexes, of which some are condemned.
    fn state(packs: &[u8], indexes: &[u8], condemned: &[u8]) -> DomainState {
        let digests = |numbers: &[u8]| numbers.iter().map(|number| digest(*number)).collect::<Vec<_>>();
        DomainState::of(DOMAIN, &digests(packs), &digests(indexes), &digests(condemned))
    }

    /// An index of one pack: chunks of 10 bytes, with what they are deltas to.
    fn index(pack: u8, chunks: &[(u8, Option<(u8, u8)>)]) -> Index {
        let mut index = Index { packs: vec![digest(pack)], ..Index::default() };
        for (chunk, base) in chunks {
            let number = index.bases.len() as u32;
            index.bases.extend(base.map(|(base, _)| id(base)));
            let (depth, base) = base.map_or((0, NO_BASE), |(_, depth)| (depth, number));
            index.records.push(Record { id: id(*chunk), pack: 0, offset: 0, length: 10, depth, base });
        }
        index
    }

    fn packs<'a>(seen: impl Iterator<Item = &'a PackSeen>) -> Vec<Digest> {
        seen.map(|pack| pack.digest).collect()
    }

    #[test]
    fn what_a_living_delta_stands_on_lives() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(1, None), (9, None)]), false, |_| true);
        census.take(digest(102), &index(2, &[(2, Some((1, 1)))]), false, |_| true);
        census.take(digest(103), &index(3, &[(3, Some((2, 2)))]), false, |_| true);
        census.take(digest(104), &index(4, &[(4, Some((3, 3)))]), false, |_| true);
        assert!(census.heed(&state(&[1, 2, 3, 4], &[101, 102, 103, 104], &[])));
        census.mark(id(3));
        assert_eq!(packs(census.dead()), [digest(4)]);
        assert_eq!(packs(census.half_dead()), [digest(1)], "chunk 9 is dead");
        assert!(census.lives(&digest(2)) && census.take_lost().is_empty());
    }

    #[test]
    fn of_several_copies_the_shallowest_lives() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(5, Some((6, 2)))]), false, |_| true);
        census.take(digest(102), &index(2, &[(5, None)]), false, |_| true);
        census.take(digest(103), &index(3, &[(6, None)]), false, |_| true);
        census.heed(&state(&[1, 2, 3], &[101, 102, 103], &[]));
        census.mark(id(5));
        assert_eq!(packs(census.dead()), [digest(1), digest(3)], "its base is not needed either");
        assert_eq!(census.index_of_living(&id(5)), Some(digest(102)));
    }

    #[test]
    fn of_several_copies_one_that_can_be_opened_lives() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(5, Some((6, 1)))]), false, |_| true);
        census.take(digest(102), &index(2, &[(5, Some((7, 2)))]), false, |_| true);
        census.take(digest(103), &index(3, &[(7, None)]), false, |_| true);
        census.heed(&state(&[1, 2, 3], &[101, 102, 103], &[]));
        census.mark(id(5));
        assert_eq!(packs(census.dead()), [digest(1)], "nothing has its base");
        assert!(census.take_lost().is_empty());
        assert_eq!(census.depth(&id(5)), Some(2));
    }

    #[test]
    fn what_lives_in_a_condemned_pack_alone_is_to_be_moved() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(1, None), (2, None)]), false, |_| true);
        census.take(digest(102), &index(2, &[(1, Some((2, 1)))]), false, |_| true);
        census.heed(&state(&[1, 2], &[101, 102], &[1]));
        census.mark(id(1));
        // The delta is in a pack that stays; its base is not.
        assert_eq!(packs(census.half_dead()), [digest(1)]);
        census.mark(id(3));
        assert_eq!(census.take_lost(), BTreeSet::from([id(3)]));
    }

    #[test]
    fn moved_chunks_live_in_fresh_packs_and_their_indexes_go() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(1, None), (2, None)]), false, |_| true);
        let state = state(&[1], &[101], &[]);
        census.heed(&state);
        census.mark(id(1));
        let half_dead = BTreeSet::from([digest(1)]);
        assert_eq!(census.living(&half_dead).len(), 1);
        assert_eq!(census.idle_indexes(&state, &half_dead).collect::<Vec<_>>(), [digest(101)]);
        assert_eq!(census.idle_indexes(&state, &BTreeSet::new()).count(), 0);
        census.take(digest(109), &index(9, &[(1, None)]), true, |_| true);
        census.heed(&state);
        census.move_on(&half_dead);
        assert_eq!(packs(census.dead()), [digest(1)]);
        assert_eq!(census.index_of_living(&id(1)), Some(digest(109)));
        assert_eq!(census.telling_of(&half_dead), BTreeSet::from([digest(101)]));
    }

    /// Which chunks the ledger calls needed.
    fn needed(chunks: &[u8]) -> impl FnMut(&ChunkId) -> Result<bool, std::convert::Infallible> {
        let needed: Vec<ChunkId> = chunks.iter().map(|chunk| id(*chunk)).collect();
        move |id| Ok(needed.contains(id))
    }

    #[test]
    fn a_pack_that_is_not_looked_at_is_never_dead_and_lets_nothing_die() {
        let mut census = Census::default();
        let mut told = index(1, &[(1, None), (2, None)]);
        told.packs.push(digest(2));
        told.records[1].pack = 1;
        census.take(digest(101), &told, false, |pack| *pack == digest(1));
        // Another index tells of the same pack, and brings a copy of what lies in it.
        census.take(digest(102), &index(3, &[(1, None), (3, None), (4, None)]), false, |_| true);
        census.heed(&state(&[1, 2, 3], &[101, 102], &[]));
        census.mark_all(needed(&[1])).unwrap();
        assert!(census.lives(&digest(1)) && census.lives(&digest(3)) && !census.knows(&digest(2)));
        assert_eq!(packs(census.dead()), []);
        assert_eq!(packs(census.half_dead()), [digest(3)]);
        census.mark_all(needed(&[])).unwrap();
        assert_eq!(packs(census.dead()), [digest(1), digest(3)]);
        // It is looked at later, by the same index.
        census.take(digest(101), &told, false, |_| true);
        census.heed(&state(&[1, 2, 3], &[101, 102], &[3]));
        census.mark_all(needed(&[1, 2])).unwrap();
        assert!(census.lives(&digest(2)) && !census.lives(&digest(3)), "what is condemned is not gone by");
    }

    #[test]
    fn what_was_moved_as_it_is_leaves_its_pack_and_is_told_of_by_its_heirs() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(1, None), (2, Some((3, 1)))]), false, |_| true);
        census.take(digest(102), &index(2, &[(4, None)]), false, |_| true);
        let state = state(&[1, 2], &[101, 102], &[]);
        census.heed(&state);
        census.mark_all(needed(&[1, 2, 4])).unwrap();
        census.take(digest(109), &index(9, &[(1, None), (2, Some((5, 1)))]), true, |_| true);
        census.heed(&state);
        census.mark_all(needed(&[1, 2, 4])).unwrap();
        let left = BTreeSet::from([digest(1), digest(2)]);
        census.leave(&left);
        assert_eq!(census.living(&left).iter().map(|(id, _)| *id).collect::<Vec<_>>(), [id(2), id(4)]);
        census.take(digest(108), &index(8, &[(2, Some((3, 1)))]), true, |_| true);
        census.heed(&state);
        census.leave(&left);
        assert!(!census.lives(&digest(1)) && census.lives(&digest(2)), "a delta to something else is no heir");
        assert_eq!(census.heirs(&left), BTreeMap::from([(digest(101), BTreeSet::from([digest(108), digest(109)]))]));
    }

    #[test]
    fn what_dies_in_a_fresh_pack_is_left_over() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(1, None), (2, None)]), true, |_| true);
        census.take(digest(102), &index(2, &[(3, None)]), true, |_| true);
        census.heed(&state(&[1, 2], &[101, 102], &[]));
        census.mark_all(needed(&[1, 3])).unwrap();
        assert_eq!(packs(census.dead()).len() + packs(census.half_dead()).len(), 0);
        assert_eq!(packs(census.left_over()), [digest(1)]);
        census.heed(&state(&[1, 2], &[101, 102], &[1]));
        assert_eq!(packs(census.left_over()), [], "somebody else condemned it");
    }

    #[test]
    fn a_pack_that_somebody_condemns_takes_its_marks_along() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(1, None)]), false, |_| true);
        census.take(digest(102), &index(2, &[(1, None)]), false, |_| true);
        census.heed(&state(&[1, 2], &[101, 102], &[]));
        census.mark(id(1));
        assert_eq!(packs(census.dead()), [digest(2)]);
        assert!(!census.heed(&state(&[1, 2], &[101, 102], &[1])));
        census.forget_marks();
        census.mark(id(1));
        assert_eq!(packs(census.dead()), []);
        assert!(census.lives(&digest(2)));
    }

    #[test]
    fn a_pack_that_vanished_takes_its_marks_along() {
        let mut census = Census::default();
        census.take(digest(101), &index(1, &[(1, None)]), false, |_| true);
        census.heed(&state(&[1], &[101], &[]));
        census.mark(id(1));
        assert!(!census.heed(&state(&[], &[101], &[])));
        census.forget_marks();
        census.mark(id(1));
        assert_eq!(census.take_lost(), BTreeSet::from([id(1)]));
    }
}
