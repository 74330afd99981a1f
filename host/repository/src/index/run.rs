//! A run: records of many indexes, sorted by id, in one file that never changes.
//!
//!     pages × 4,096 | tail | salt: 32 | length of the tail: u64
//!     page   = sealed: number of records: u16 | records, none of which goes over a page's end | zeros
//!     record = id: 32 | pack: u32 | offset: u32 | length and depth: u32 | base: 32, only at a depth above 0
//!     tail   = sealed: indexes: u64 | packs: u64 | pages: u64 | words: u64 | records: u64 | indexes × 32 | packs × (digest: 32 | index: u32) | pages × fence: u64 |
//!              words × u64
//!
//! In memory are the tail's filter and fences (what the first id of each page begins with): a look-up reads one page. Pages and tail are
//! sealed by AES-256-GCM, with their numbers as nonces, under the run's own key, which comes from the domain's index key and the salt: what anybody changed is refused, so that a run
//! tells what the indexes told, or nothing. (A hash as MAC would cost a look-up as much as all the rest of it.) It is not a stored object: what it says can always be read from the indexes again.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::filter::{Filter, prefix};
use crate::chunk::{ChunkId, DEPTH_MAX};
use crate::format::index::LENGTH_MAX;
use crate::format::{Malformed, split_pieces, split_u32};
use crate::seal::{self, Secret, TAG, random};
use crate::{Digest, Error};

/// Bytes of a page: what one look-up reads.
const PAGE: usize = 4096;
/// Bytes of a page for its records.
const ROOM: usize = PAGE - 2 - TAG;
/// Bytes behind the tail.
const END: usize = 32 + 8;
/// In the place of a page's number in the nonce of the tail.
const TAIL: u64 = u64::MAX;

/// Where one index says that a chunk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) id: ChunkId,
    /// Number in [`Sources::packs`].
    pub(super) source: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    pub(super) depth: u8,
    /// What it is a delta to.
    pub(super) base: Option<ChunkId>,
}

impl Located {
    fn encode(&self, page: &mut Vec<u8>) {
        page.extend(self.id.0);
        for number in [self.source, self.offset, self.length | u32::from(self.depth) << 24] {
            page.extend(number.to_le_bytes());
        }
        page.extend(self.base.iter().flat_map(|base| base.0));
    }

    fn encoded_length(&self) -> usize {
        44 + self.base.map_or(0, |base| base.0.len())
    }

    fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (id, rest) = split_pieces::<32>(bytes, 1)?;
        let (source, rest) = split_u32(rest)?;
        let (offset, rest) = split_u32(rest)?;
        let (length, rest) = split_u32(rest)?;
        let depth = (length >> 24) as u8;
        let (base, rest) = split_pieces::<32>(rest, u64::from(depth > 0))?;
        if depth > DEPTH_MAX {
            return Err(Malformed("a record is deeper than any"));
        }
        let base = base.first().map(|base| ChunkId(*base));
        Ok((Self { id: ChunkId(id[0]), source, offset, length: length & LENGTH_MAX, depth, base }, rest))
    }
}

/// The packs that records name by number, and the indexes that told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sources {
    pub(super) indexes: Vec<Digest>,
    /// Each with the number of its index.
    pub(super) packs: Vec<(Digest, u32)>,
}

impl Sources {
    /// Adds others: what is to be added to the numbers of their packs.
    pub(super) fn append(&mut self, others: &Self) -> u32 {
        let (packs, indexes) = (self.packs.len() as u32, self.indexes.len() as u32);
        self.indexes.extend(&others.indexes);
        self.packs.extend(others.packs.iter().map(|(pack, index)| (*pack, indexes + index)));
        packs
    }
}

/// A run that can be asked.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    /// None for a file that has no name any more.
    path: Option<PathBuf>,
    key: Secret,
    fences: Vec<u64>,
    filter: Filter,
    /// How many packs its records name.
    packs: u32,
    /// Its records.
    pub(super) count: u64,
    /// Something was read that was not written so.
    is_damaged: AtomicBool,
}

impl Run {
    /// Opens what [`Writer`] wrote, and says what its records name; `None` for anything else.
    pub(super) fn open(file: File, path: PathBuf, key: &Secret) -> io::Result<Option<(Self, Sources)>> {
        let length = file.metadata()?.len();
        let Some(end_at) = length.checked_sub(END as u64) else { return Ok(None) };
        let mut end = [0; END];
        file.read_exact_at(&mut end, end_at)?;
        let (salt, tail_length) = end.split_at(32);
        let tail_length = u64::from_le_bytes(tail_length.try_into().map_err(io::Error::other)?);
        let Some(tail_at) = end_at.checked_sub(tail_length) else { return Ok(None) };
        let mut tail = vec![0; tail_length as usize];
        file.read_exact_at(&mut tail, tail_at)?;
        let key = run_key(key, salt);
        let Ok(tail) = seal::open_once(&key.0, nonce(TAIL), &[], &mut tail) else { return Ok(None) };
        let Ok((tail, sources)) = Tail::decode(tail) else { return Ok(None) };
        let is_whole = tail_at == (tail.fences.len() * PAGE) as u64;
        Ok(is_whole.then(|| (Self::of(file, Some(path), key, tail, &sources), sources)))
    }

    fn of(file: File, path: Option<PathBuf>, key: Secret, tail: Tail, sources: &Sources) -> Self {
        let Tail { count, fences, filter } = tail;
        let packs = sources.packs.len() as u32;
        Self { file, path, key, fences, filter, packs, count, is_damaged: AtomicBool::new(false) }
    }

    /// Calls `found` with each record of an id.
    pub(super) fn find(&self, id: &ChunkId, found: &mut impl FnMut(&Located)) -> Result<(), Error> {
        if !self.filter.may_hold(id) {
            return Ok(());
        }
        // Ids that begin alike may begin in the page before the first one whose fence is theirs.
        let first = self.fences.partition_point(|fence| *fence < prefix(id)).saturating_sub(1);
        for page in first..self.fences.partition_point(|fence| *fence <= prefix(id)) {
            for record in self.page(page)? {
                if record.id > *id {
                    return Ok(());
                }
                if record.id == *id {
                    found(&record);
                }
            }
        }
        Ok(())
    }

    /// All records, in the order of their ids.
    pub(super) fn records(&self) -> impl Iterator<Item = Result<Located, Error>> {
        (0..self.fences.len()).flat_map(|page| match self.page(page) {
            Ok(records) => records.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    fn page(&self, number: usize) -> Result<Vec<Located>, Error> {
        let mut page = [0; PAGE];
        let read = self.file.read_exact_at(&mut page, (number * PAGE) as u64);
        read.and_then(|()| {
            self.decode(number, &mut page).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
        })
        .map_err(|source| {
            // It is made anew from the indexes: nobody need look for what became of it.
            self.is_damaged.store(true, Ordering::Release);
            Error::IndexCache { step: "reading", source }
        })
    }

    fn decode(&self, number: usize, page: &mut [u8; PAGE]) -> Result<Vec<Located>, Malformed> {
        let opened = seal::open_once(&self.key.0, nonce(number as u64), &[], page);
        let opened = opened.map_err(|_| Malformed("a page is not as it was written"))?;
        let (count, mut rest) = opened.split_first_chunk().ok_or(Malformed("a page ends too early"))?;
        let mut records = Vec::with_capacity(u16::from_le_bytes(*count).into());
        for _ in 0..u16::from_le_bytes(*count) {
            let (record, behind) = Located::decode(rest)?;
            if record.source >= self.packs {
                return Err(Malformed("a record names what is not there"));
            }
            records.push(record);
            rest = behind;
        }
        Ok(records)
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// Gives the file up. Who reads it goes on reading.
    pub(super) fn discard(&self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a part of the index cache cannot be removed");
        }
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(super) fn resident_bytes(&self) -> usize {
        size_of_val(self.filter.words()) + size_of_val(&self.fences[..])
    }
}

/// Writes a run, whose records come in order.
pub(super) struct Writer {
    file: BufWriter<File>,
    key: Secret,
    salt: [u8; 32],
    page: Vec<u8>,
    /// Records in the page.
    in_page: u16,
    tail: Tail,
}

impl Writer {
    /// Begins a run of at most so many records.
    pub(super) fn new(file: File, key: &Secret, records: usize) -> Self {
        let salt = random();
        Self {
            file: BufWriter::with_capacity(256 << 10, file),
            key: run_key(key, &salt),
            salt,
            page: Vec::with_capacity(PAGE),
            in_page: 0,
            tail: Tail { count: 0, fences: Vec::new(), filter: Filter::new(records) },
        }
    }

    pub(super) fn push(&mut self, record: &Located) -> io::Result<()> {
        if self.page.len() + record.encoded_length() > ROOM {
            self.end_page()?;
        }
        if self.page.is_empty() {
            self.tail.fences.push(prefix(&record.id));
        }
        record.encode(&mut self.page);
        self.in_page += 1;
        self.tail.filter.add(&record.id);
        self.tail.count += 1;
        Ok(())
    }

    fn end_page(&mut self) -> io::Result<()> {
        if self.page.is_empty() {
            return Ok(());
        }
        let mut page = std::mem::take(&mut self.in_page).to_le_bytes().to_vec();
        page.append(&mut self.page);
        page.resize(PAGE - TAG, 0);
        seal::seal_once(&self.key.0, nonce(self.tail.fences.len() as u64 - 1), &[], &mut page, 0);
        self.file.write_all(&page)
    }

    /// Ends it: durable, where it is to get this name.
    pub(super) fn finish(mut self, sources: &Sources, path: Option<PathBuf>) -> io::Result<Run> {
        self.end_page()?;
        let Self { mut file, key, salt, mut tail, .. } = self;
        tail.fences.shrink_to_fit();
        let mut bytes = tail.encode(sources);
        seal::seal_once(&key.0, nonce(TAIL), &[], &mut bytes, 0);
        file.write_all(&bytes)?;
        file.write_all(&salt)?;
        file.write_all(&(bytes.len() as u64).to_le_bytes())?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        if path.is_some() {
            file.sync_data()?;
        }
        Ok(Run::of(file, path, key, tail, sources))
    }
}

/// What of a run stays in memory.
struct Tail {
    /// Records.
    count: u64,
    fences: Vec<u64>,
    filter: Filter,
}

impl Tail {
    /// As it lies behind the pages, with what the records name.
    fn encode(&self, Sources { indexes, packs }: &Sources) -> Vec<u8> {
        let words = self.filter.words();
        let mut out =
            Vec::with_capacity(40 + indexes.len() * 32 + packs.len() * 36 + (self.fences.len() + words.len()) * 8);
        for count in [indexes.len(), packs.len(), self.fences.len(), words.len()] {
            out.extend((count as u64).to_le_bytes());
        }
        out.extend(self.count.to_le_bytes());
        indexes.iter().for_each(|index| out.extend(index.0));
        for (pack, index) in packs {
            out.extend(pack.0);
            out.extend(index.to_le_bytes());
        }
        self.fences.iter().chain(words).for_each(|number| out.extend(number.to_le_bytes()));
        out
    }

    fn decode(bytes: &[u8]) -> Result<(Self, Sources), Malformed> {
        let (counts, rest) = split_pieces::<8>(bytes, 5)?;
        let mut numbers = [0; 5];
        for (number, bytes) in numbers.iter_mut().zip(counts) {
            *number = u64::from_le_bytes(*bytes);
        }
        let [indexes, packs, pages, words, count] = numbers;
        let (indexes, rest) = split_pieces::<32>(rest, indexes)?;
        let (packs, rest) = split_pieces::<36>(rest, packs)?;
        let (fences, rest) = split_pieces::<8>(rest, pages)?;
        let (words, rest) = split_pieces::<8>(rest, words)?;
        let source = |bytes: &[u8; 36]| {
            let (pack, rest) = split_pieces::<32>(bytes, 1)?;
            let (index, _) = split_u32(rest)?;
            let is_there = (index as usize) < indexes.len();
            is_there.then_some((Digest(pack[0]), index)).ok_or(Malformed("a pack names what is not there"))
        };
        let packs = packs.iter().map(source).collect::<Result<_, _>>()?;
        let sources = Sources { indexes: indexes.iter().map(|index| Digest(*index)).collect(), packs };
        let numbers = |pieces: &[[u8; 8]]| pieces.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let filter = Filter::of_words(numbers(words)).filter(|_| rest.is_empty());
        let filter = filter.ok_or(Malformed("its filter has no whole blocks"))?;
        Ok((Self { count, fences: numbers(fences), filter }, sources))
    }
}

/// Each run has a key of its own, so that no page of one is taken for that of another, and page numbers do as nonces.
fn run_key(key: &Secret, salt: &[u8]) -> Secret {
    Secret(*blake3::keyed_hash(&key.0, salt).as_bytes())
}

fn nonce(number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    nonce
}
