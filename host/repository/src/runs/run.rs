//! A run: records sorted by the ids of chunks, in one file that never changes.
//!
//!     pages × 4,096 | tail | salt: 32 | length of the tail: u64
//!     page = sealed: number of records: u16 | records, none of which goes over a page's end | zeros
//!     tail = sealed: records: u64 | pages: u64 | words: u64 | pages × fence: u64 | words × u64 | names
//!
//! What a record and the names are says who keeps them. In memory are the tail's filter and fences (what the first id of each page begins
//! with): a look-up reads one page. Pages and tail are sealed by AES-256-GCM, with their numbers as nonces, under the run's own key, which
//! comes from the domain's index key and the salt: what anybody changed is refused, so that a run tells what was written, or nothing.
//! (A hash as MAC would cost a look-up as much as all the rest of it.) It is not a stored object: what it says can always be read from the
//! repository again.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::filter::{Filter, prefix};
use super::{Names as _, Record};
use crate::Error;
use crate::chunk::ChunkId;
use crate::format::{Malformed, split_pieces, split_u64};
use crate::seal::{self, Secret, TAG, random};

/// Bytes of a page: what one look-up reads.
const PAGE: usize = 4096;
/// Bytes of a page for its records.
const ROOM: usize = PAGE - 2 - TAG;
/// Bytes behind the tail.
const END: usize = 32 + 8;
/// In the place of a page's number in the nonce of the tail.
const TAIL: u64 = u64::MAX;

/// A run that can be asked.
#[derive(Debug)]
pub(crate) struct Run<R> {
    file: File,
    /// None for a file that has no name any more.
    path: Option<PathBuf>,
    key: Secret,
    /// Random: no other run has it.
    pub(crate) salt: [u8; 32],
    fences: Vec<u64>,
    filter: Filter,
    /// How much its records can name by number.
    named: u32,
    /// Its records.
    pub(crate) count: u64,
    /// Something was read that was not written so.
    is_damaged: AtomicBool,
    records: PhantomData<fn() -> R>,
}

/// The page that was read last of a run: look-ups in order read each page once.
#[derive(Debug)]
pub(crate) struct Near<R> {
    page: Option<usize>,
    records: Vec<R>,
}

impl<R> Default for Near<R> {
    fn default() -> Self {
        Self { page: None, records: Vec::new() }
    }
}

impl<R: Record> Run<R> {
    /// Opens what [`Writer`] wrote, and gives its names; `None` for anything else.
    pub(super) fn open(file: File, path: PathBuf, key: &Secret) -> io::Result<Option<(Self, R::Names)>> {
        let length = file.metadata()?.len();
        let Some(end_at) = length.checked_sub(END as u64) else { return Ok(None) };
        let mut end = [0; END];
        file.read_exact_at(&mut end, end_at)?;
        let (salt, tail_length) = end.split_at(32);
        let salt: [u8; 32] = salt.try_into().map_err(io::Error::other)?;
        let tail_length = u64::from_le_bytes(tail_length.try_into().map_err(io::Error::other)?);
        let Some(tail_at) = end_at.checked_sub(tail_length) else { return Ok(None) };
        let mut tail = vec![0; tail_length as usize];
        file.read_exact_at(&mut tail, tail_at)?;
        let key = run_key(key, &salt);
        let Ok(tail) = seal::open_once(&key.0, nonce(TAIL), &[], &mut tail) else { return Ok(None) };
        let Ok((tail, names)) = Tail::decode(tail) else { return Ok(None) };
        let Ok(names) = R::Names::decode(names) else { return Ok(None) };
        let is_whole = tail_at == (tail.fences.len() * PAGE) as u64;
        Ok(is_whole.then(|| (Self::of(file, Some(path), key, salt, tail, &names), names)))
    }

    fn of(file: File, path: Option<PathBuf>, key: Secret, salt: [u8; 32], tail: Tail, names: &R::Names) -> Self {
        let Tail { count, fences, filter } = tail;
        let (named, is_damaged) = (names.count(), AtomicBool::new(false));
        Self { file, path, key, salt, fences, filter, named, count, is_damaged, records: PhantomData }
    }

    /// Calls `found` with each record of an id.
    pub(crate) fn find(&self, id: &ChunkId, found: &mut impl FnMut(&R)) -> Result<(), Error> {
        self.find_near(id, &mut Near::default(), found)
    }

    /// The same for who looks for many ids in order.
    pub(crate) fn find_near(&self, id: &ChunkId, near: &mut Near<R>, found: &mut impl FnMut(&R)) -> Result<(), Error> {
        if !self.filter.may_hold(id) {
            return Ok(());
        }
        // Ids that begin alike may begin in the page before the first one whose fence is theirs.
        let first = self.fences.partition_point(|fence| *fence < prefix(id)).saturating_sub(1);
        for page in first..self.fences.partition_point(|fence| *fence <= prefix(id)) {
            if near.page != Some(page) {
                *near = Near { page: Some(page), records: self.page(page)? };
            }
            for record in &near.records {
                if record.id() > id {
                    return Ok(());
                }
                if record.id() == id {
                    found(record);
                }
            }
        }
        Ok(())
    }

    /// All records, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = Result<R, Error>> {
        (0..self.fences.len()).flat_map(|page| match self.page(page) {
            Ok(records) => records.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    fn page(&self, number: usize) -> Result<Vec<R>, Error> {
        let mut page = [0; PAGE];
        let read = self.file.read_exact_at(&mut page, (number * PAGE) as u64);
        read.and_then(|()| {
            self.decode(number, &mut page).map_err(|reason| io::Error::new(io::ErrorKind::InvalidData, reason))
        })
        .map_err(|source| {
            // It is made anew from the repository: nobody need look for what became of it.
            self.is_damaged.store(true, Ordering::Release);
            Error::IndexCache { step: "reading", source }
        })
    }

    fn decode(&self, number: usize, page: &mut [u8; PAGE]) -> Result<Vec<R>, Malformed> {
        let opened = seal::open_once(&self.key.0, nonce(number as u64), &[], page);
        let opened = opened.map_err(|_| Malformed("a page is not as it was written"))?;
        let (count, mut rest) = opened.split_first_chunk().ok_or(Malformed("a page ends too early"))?;
        let mut records = Vec::with_capacity(u16::from_le_bytes(*count).into());
        for _ in 0..u16::from_le_bytes(*count) {
            let (record, behind) = R::decode(rest, self.named)?;
            records.push(record);
            rest = behind;
        }
        Ok(records)
    }

    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// Gives the file up. Who reads it goes on reading.
    pub(crate) fn discard(&self) {
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a part of the index cache cannot be removed");
        }
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub(crate) fn resident_bytes(&self) -> usize {
        size_of_val(self.filter.words()) + size_of_val(&self.fences[..])
    }
}

/// Writes a run, whose records come in order.
pub(super) struct Writer<R> {
    file: BufWriter<File>,
    key: Secret,
    salt: [u8; 32],
    page: Vec<u8>,
    /// Records in the page.
    in_page: u16,
    tail: Tail,
    records: PhantomData<fn(R)>,
}

impl<R: Record> Writer<R> {
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
            records: PhantomData,
        }
    }

    pub(super) fn push(&mut self, record: &R) -> io::Result<()> {
        if self.page.len() + record.encoded_length() > ROOM {
            self.end_page()?;
        }
        if self.page.is_empty() {
            self.tail.fences.push(prefix(record.id()));
        }
        record.encode(&mut self.page);
        self.in_page += 1;
        self.tail.filter.add(record.id());
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
    pub(super) fn finish(mut self, names: &R::Names, path: Option<PathBuf>) -> io::Result<Run<R>> {
        self.end_page()?;
        let Self { mut file, key, salt, mut tail, .. } = self;
        tail.fences.shrink_to_fit();
        let mut bytes = tail.encode(names.encode());
        seal::seal_once(&key.0, nonce(TAIL), &[], &mut bytes, 0);
        file.write_all(&bytes)?;
        file.write_all(&salt)?;
        file.write_all(&(bytes.len() as u64).to_le_bytes())?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        if path.is_some() {
            file.sync_data()?;
        }
        Ok(Run::of(file, path, key, salt, tail, names))
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
    /// As it lies behind the pages, with the run's names.
    fn encode(&self, mut names: Vec<u8>) -> Vec<u8> {
        let words = self.filter.words();
        let mut out = Vec::with_capacity(24 + (self.fences.len() + words.len()) * 8 + names.len());
        for count in [self.count, self.fences.len() as u64, words.len() as u64] {
            out.extend(count.to_le_bytes());
        }
        self.fences.iter().chain(words).for_each(|number| out.extend(number.to_le_bytes()));
        out.append(&mut names);
        out
    }

    /// It, and the names behind it.
    fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (count, rest) = split_u64(bytes)?;
        let (pages, rest) = split_u64(rest)?;
        let (words, rest) = split_u64(rest)?;
        let (fences, rest) = split_pieces::<8>(rest, pages)?;
        let (words, names) = split_pieces::<8>(rest, words)?;
        let numbers = |pieces: &[[u8; 8]]| pieces.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let filter = Filter::of_words(numbers(words)).ok_or(Malformed("its filter has no whole blocks"))?;
        Ok((Self { count, fences: numbers(fences), filter }, names))
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
