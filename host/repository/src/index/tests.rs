use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::DomainId;
use crate::format::index::{NO_BASE, Record};

const DOMAIN: DomainId = DomainId([0; 16]);

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("holdfast-test-{}", hex::encode(crate::seal::random::<16>()))))
    }

    fn open(&self) -> Indexes {
        Indexes::open(Some(&self.0), &key()).unwrap()
    }

    /// The files of runs, the shortest first.
    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| !path.ends_with("lock")).collect();
        files.sort_unstable_by_key(|path| fs::metadata(path).unwrap().len());
        files
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn key() -> Secret {
    Secret([7; 32])
}

fn digest(number: u8) -> Digest {
    Digest([number; 32])
}

/// The id of a chunk: no two are alike, and they come in no order.
fn id(number: u32) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// Heads that name packs, and indexes whose digests are 100 more than those of their packs.
fn state(packs: &[u8]) -> DomainState {
    let indexes: Vec<Digest> = packs.iter().map(|pack| digest(pack + 100)).collect();
    let packs: Vec<Digest> = packs.iter().copied().map(digest).collect();
    DomainState::of(DOMAIN, &packs, &indexes, &[])
}

/// An index of one pack: chunks with what they are deltas to, and at which depth.
fn index(pack: u8, chunks: impl IntoIterator<Item = (u32, Option<(u32, u8)>)>) -> Index {
    let mut index = Index { packs: vec![digest(pack)], ..Index::default() };
    for (chunk, base) in chunks {
        let number = index.bases.len() as u32;
        index.bases.extend(base.map(|(base, _)| id(base)));
        let (depth, base) = base.map_or((0, NO_BASE), |(_, depth)| (depth, number));
        index.records.push(Record { id: id(chunk), pack: 0, offset: chunk, length: 9, depth, base });
    }
    index.records.sort_unstable_by_key(|record| record.id);
    index
}

fn whole(chunks: std::ops::Range<u32>) -> impl Iterator<Item = (u32, Option<(u32, u8)>)> {
    chunks.map(|chunk| (chunk, None))
}

/// The same indexes in memory, and in one run.
fn young_and_settled(all: &[(u8, Index)]) -> [Indexes; 2] {
    [false, true].map(|is_settled| {
        let mut indexes = Indexes::open(None, &key()).unwrap();
        all.iter().for_each(|(pack, index)| indexes.add(digest(pack + 100), index.clone()));
        if is_settled {
            indexes.settle().unwrap();
        }
        indexes
    })
}

#[test]
fn the_shallowest_copy_is_found_and_a_chain_ends() {
    let all = [
        (1, index(1, [(5, None), (7, Some((9, 1)))])),
        (2, index(2, [(4, Some((7, 2))), (5, Some((7, 2)))])),
        (3, index(3, [(8, Some((9, 1))), (9, Some((8, 1)))])),
    ];
    for mut indexes in young_and_settled(&all) {
        let table = indexes.table(&state(&[1, 2, 3]));
        assert_eq!(table.find(&id(5)).unwrap().unwrap().depth, 0);
        assert_eq!(table.find(&id(4)).unwrap().unwrap().base, Some(id(7)));
        let lost = |chunk: u32| format!("chunk {} is in no pack that is present", hex::encode(id(chunk).0));
        let endless = table.find_chain(&id(8)).unwrap_err().to_string();
        assert_eq!(endless, lost(9), "8 and 9 are each the other's base");
        assert_eq!(table.known_chain(&id(8)).unwrap(), None);
        let table = indexes.table(&state(&[2]));
        assert_eq!(table.find(&id(5)).unwrap().unwrap().base, Some(id(7)), "the copy that is left is a delta");
        assert_eq!(table.find_chain(&id(5)).unwrap_err().to_string(), lost(7));
    }
}

#[test]
fn a_copy_whose_base_is_gone_hides_no_other_one() {
    let all = [
        (1, index(1, [(5, Some((7, 1))), (6, Some((5, 2)))])),
        (2, index(2, [(5, Some((8, 2)))])),
        (3, index(3, [(8, Some((9, 1))), (9, None)])),
        (4, index(4, [(7, None)])),
    ];
    for mut indexes in young_and_settled(&all) {
        let chain = |table: &IndexTable, chunk| {
            let chain = table.find_chain(&id(chunk)).unwrap();
            chain.into_iter().map(|location| location.pack).collect::<Vec<_>>()
        };
        let table = indexes.table(&state(&[1, 2, 3, 4]));
        assert_eq!(chain(&table, 6), [1, 1, 4].map(digest), "the least deep");
        let table = indexes.table(&state(&[1, 2, 3]));
        assert_eq!(chain(&table, 6), [1, 2, 3, 3].map(digest), "the one that can be opened");
    }
}

#[test]
fn chunks_are_found_in_packs_that_count() {
    let all = [(1, index(1, whole(0..100))), (2, index(2, whole(50..150))), (3, index(3, whole(1000..1001)))];
    for mut indexes in young_and_settled(&all) {
        let table = indexes.table(&state(&[1, 2]));
        assert_eq!(table.chunks().unwrap(), 150);
        for chunk in 0..150 {
            assert_eq!(table.find(&id(chunk)).unwrap().unwrap().offset, chunk);
        }
        assert_eq!(table.find(&id(1000)).unwrap(), None);
        // The second pack is gone, the third has come.
        let table = indexes.table(&state(&[1, 3]));
        assert_eq!(table.chunks().unwrap(), 101);
        assert_eq!(table.find(&id(60)).unwrap().unwrap().pack, digest(1));
        assert_eq!(table.find(&id(120)).unwrap(), None);
        assert_eq!(table.find(&id(1000)).unwrap().unwrap().index, digest(103));
        // What an index tells that is condemned is told by another one.
        let condemned = DomainState::of(DOMAIN, &[digest(1)], &[digest(101)], &[digest(101)]);
        assert_eq!(indexes.table(&condemned).chunks().unwrap(), 0);
    }
}

#[test]
fn ids_that_begin_alike_are_found_over_the_ends_of_pages() {
    let alike = |number: u16| ChunkId([&[9; 30][..], &number.to_be_bytes()].concat().try_into().unwrap());
    let record =
        |number| Record { id: alike(number), pack: 0, offset: number.into(), length: 1, depth: 0, base: NO_BASE };
    let index = Index { packs: vec![digest(1)], records: (0..1000).map(record).collect(), ..Index::default() };
    for mut indexes in young_and_settled(&[(1, index.clone()), (2, Index { packs: vec![digest(2)], ..index })]) {
        let table = indexes.table(&state(&[1, 2]));
        for number in 0..1000 {
            assert_eq!(table.find(&alike(number)).unwrap().unwrap().offset, u32::from(number));
        }
        assert_eq!(table.find(&alike(1000)).unwrap(), None);
        assert_eq!(table.chunks().unwrap(), 1000);
    }
}

#[test]
fn a_cache_is_found_again_and_read_by_one_at_a_time() {
    let (scratch, state) = (Scratch::new(), state(&[1, 2]));
    let mut indexes = scratch.open();
    assert_eq!(indexes.missing(&state), [digest(101), digest(102)]);
    indexes.add(digest(101), index(1, whole(0..500)));
    indexes.settle().unwrap();
    indexes.add(digest(102), index(2, whole(500..600)));
    let mut other = scratch.open();
    assert_eq!(other.missing(&state).len(), 2, "the first one has it");
    other.add(digest(101), index(1, whole(0..500)));
    other.settle().unwrap();
    assert_eq!(other.table(&state).chunks().unwrap(), 500);
    drop((indexes, other));
    let mut again = scratch.open();
    assert_eq!(again.missing(&state), [digest(102)], "what was young is read again");
    assert!(again.table(&state).find(&id(499)).unwrap().is_some());
    drop(again);
    let mut strange = Indexes::open(Some(&scratch.0), &Secret([8; 32])).unwrap();
    assert_eq!(strange.missing(&state).len(), 2, "another domain's runs are none of ours");
    assert!(scratch.files().is_empty());
}

#[test]
fn what_a_kill_leaves_is_cleaned_up() {
    let (scratch, state) = (Scratch::new(), state(&[1, 2]));
    let mut indexes = scratch.open();
    indexes.add(digest(101), index(1, whole(0..500)));
    indexes.settle().unwrap();
    let [merged] = &scratch.files()[..] else { panic!("there is one run") };
    let kept = fs::read(merged).unwrap();
    indexes.add(digest(102), index(2, whole(500..600)));
    // One that is less than half as long stays beside it.
    indexes.settle().unwrap();
    assert_eq!(scratch.files().len(), 2);
    indexes.add(digest(103), index(3, whole(600..1000)));
    indexes.settle().unwrap();
    assert_eq!(scratch.files().len(), 1);
    drop(indexes);
    fs::write(merged, kept).unwrap();
    fs::write(scratch.0.join("00.unfinished"), b"begun").unwrap();
    assert_eq!(scratch.open().table(&state).chunks().unwrap(), 600);
    assert_eq!(scratch.files().len(), 1);
}

#[test]
fn a_run_most_of_whose_indexes_are_gone_is_given_up() {
    let scratch = Scratch::new();
    let mut indexes = scratch.open();
    for pack in 1..=3 {
        indexes.add(digest(pack + 100), index(pack, whole(u32::from(pack) * 10..u32::from(pack) * 10 + 10)));
    }
    indexes.settle().unwrap();
    assert!(indexes.missing(&state(&[2, 3])).is_empty());
    assert_eq!(indexes.missing(&state(&[3])), [digest(103)]);
    assert!(scratch.files().is_empty());
}

/// Asks for all chunks. Whether each was found; an error is told and never taken for an unknown chunk.
fn ask(indexes: &mut Indexes, state: &DomainState, chunks: u32) -> Result<bool, Error> {
    let table = indexes.table(state);
    let mut found = 0;
    for chunk in 0..chunks {
        found += u32::from(table.find(&id(chunk))?.is_some_and(|location| location.offset == chunk));
    }
    Ok(found == chunks)
}

#[test]
fn a_damaged_cache_is_made_anew_and_never_answers_wrongly() {
    let (scratch, state, chunks) = (Scratch::new(), state(&[1]), 150);
    let mut indexes = scratch.open();
    indexes.add(digest(101), index(1, whole(0..chunks)));
    indexes.settle().unwrap();
    drop(indexes);
    let [path] = &scratch.files()[..] else { panic!("there is one run") };
    let sound = fs::read(path).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..sound.len())
        .map(|place| {
            let mut bytes = sound.clone();
            bytes[place] ^= 1 << (place % 8);
            bytes
        })
        .collect();
    damaged.extend((0..sound.len()).step_by(7).map(|length| sound[..length].to_vec()));
    damaged.push([&sound[..], b"more"].concat());
    // Pages that changed places.
    damaged.push([&sound[4096..8192], &sound[..4096], &sound[8192..]].concat());
    for bytes in damaged {
        fs::write(path, &bytes).unwrap();
        let mut indexes = scratch.open();
        if indexes.missing(&state).is_empty() {
            assert_eq!(ask(&mut indexes, &state, chunks).unwrap_err().code(), "index-cache");
            assert_eq!(indexes.missing(&state), [digest(101)]);
        }
        assert!(!path.exists());
        indexes.add(digest(101), index(1, whole(0..chunks)));
        assert!(ask(&mut indexes, &state, chunks).unwrap());
    }
    fs::write(path, &sound).unwrap();
    assert!(ask(&mut scratch.open(), &state, chunks).unwrap());
}

#[test]
fn a_cache_that_cannot_be_read_is_an_error() {
    let scratch = Scratch::new();
    let mut indexes = scratch.open();
    indexes.add(digest(101), index(1, whole(0..150)));
    indexes.settle().unwrap();
    let table = indexes.table(&state(&[1]));
    fs::OpenOptions::new().write(true).open(&scratch.files()[0]).unwrap().set_len(100).unwrap();
    assert_eq!(table.known_chain(&id(1)).unwrap_err().code(), "index-cache");
}

/// Adds indexes of so many records each, as `Repository::index` does.
fn load(indexes: &mut Indexes, packs: u32, records: u32) {
    for pack in 0..packs {
        let name = Digest::of(&pack.to_le_bytes());
        let first = pack * records;
        indexes.add(name, Index { packs: vec![name], ..index(0, whole(first..first + records)) });
        if indexes.is_unsettled() {
            indexes.settle().unwrap();
        }
    }
    indexes.settle().unwrap();
}

/// Bytes of memory for each of so many chunks, by what the table holds.
fn bytes_per_chunk(packs: u32, records: u32) -> f64 {
    let scratch = Scratch::new();
    let mut indexes = scratch.open();
    load(&mut indexes, packs, records);
    let names: Vec<Digest> = (0..packs).map(|pack| Digest::of(&pack.to_le_bytes())).collect();
    let table = indexes.table(&DomainState::of(DOMAIN, &names, &names, &[]));
    for chunk in (0..packs * records).step_by(997) {
        assert_eq!(table.find(&id(chunk)).unwrap().unwrap().offset, chunk);
    }
    let young = size_of::<Located>() * (YOUNG_RECORDS + records as usize);
    let bytes = table.runs.iter().map(|layer| layer.records.resident_bytes()).sum::<usize>() + young;
    bytes as f64 / f64::from(packs * records)
}

#[test]
fn a_chunk_takes_few_bytes_of_memory() {
    let bytes = bytes_per_chunk(128, 8192);
    assert!(bytes <= 16.0, "{bytes} bytes for each of a million");
}

/// The honest figure, by what the system counts: run it alone, as `cargo test --release ... ten_million -- --ignored --nocapture`.
#[test]
#[ignore = "it takes half a minute, and measures the whole process"]
#[expect(clippy::print_stdout)] // Its figures are what it is for.
fn ten_million_chunks_take_few_bytes_of_memory() {
    let before = anonymous_bytes();
    let scratch = Scratch::new();
    let mut indexes = scratch.open();
    let began = std::time::Instant::now();
    load(&mut indexes, 80, 125_000);
    println!("loaded in {:?}", began.elapsed());
    let resident = (anonymous_bytes() - before) as f64 / 1e7;
    println!("{resident:.2} bytes of anonymous memory a chunk");
    let names: Vec<Digest> = (0..80_u32).map(|pack| Digest::of(&pack.to_le_bytes())).collect();
    let state = DomainState::of(DOMAIN, &names, &names, &[]);
    let table = indexes.table(&state);
    for (what, ids) in [("known", 0..200_000), ("new", 10_000_000..10_200_000)] {
        let ids: Vec<ChunkId> = ids.map(id).collect();
        let began = std::time::Instant::now();
        let found = ids.iter().filter(|id| table.find(id).unwrap().is_some()).count();
        println!("200,000 {what} chunks looked up in {:?}: {found} found", began.elapsed());
    }
    drop((table, indexes));
    let began = std::time::Instant::now();
    assert!(scratch.open().missing(&state).is_empty());
    println!("opened again in {:?}", began.elapsed());
    assert!(resident <= 16.0);
}

fn anonymous_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// What happens to a table.
#[derive(Clone, Debug)]
enum Step {
    /// A pack comes, with chunks of a few numbers and their depths.
    Add(Vec<(u32, u8)>),
    Settle,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let add = prop::collection::vec((0..300_u32, 0..4_u8), 0..120).prop_map(Step::Add);
    prop::collection::vec(prop_oneof![4 => add, 2 => Just(Step::Settle), 1 => Just(Step::Restart)], 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_answers_as_a_plain_map_does(steps in steps(), dead in prop::collection::btree_set(0..25_u8, 0..8)) {
        let scratch = Scratch::new();
        let mut indexes = scratch.open();
        let mut all: BTreeMap<u8, Index> = BTreeMap::new();
        for (pack, step) in (0..).zip(&steps) {
            match step {
                Step::Add(chunks) => {
                    let chunks: BTreeMap<u32, u8> = chunks.iter().copied().collect();
                    let chunks = chunks.into_iter().map(|(chunk, depth)| (chunk, (depth > 0).then_some((chunk + 1, depth))));
                    all.insert(pack, index(pack, chunks));
                    indexes.add(digest(pack + 100), all[&pack].clone());
                }
                Step::Settle => indexes.settle().unwrap(),
                Step::Restart => {
                    drop(indexes);
                    indexes = scratch.open();
                    let named: Vec<u8> = all.keys().copied().collect();
                    for missing in indexes.missing(&state(&named)) {
                        indexes.add(missing, all[&(missing.0[0] - 100)].clone());
                    }
                }
            }
        }
        let live: Vec<u8> = all.keys().copied().filter(|pack| !dead.contains(pack)).collect();
        let table = indexes.table(&state(&live));
        let mut expected: BTreeMap<ChunkId, BTreeSet<(u8, Digest, Option<ChunkId>)>> = BTreeMap::new();
        for pack in &live {
            let index = &all[pack];
            for record in &index.records {
                let base = index.bases.get(record.base as usize).copied();
                expected.entry(record.id).or_default().insert((record.depth, digest(*pack), base));
            }
        }
        for chunk in 0..300 {
            let found = table.find(&id(chunk)).unwrap();
            let copies = expected.get(&id(chunk));
            let least = copies.and_then(|copies| copies.first()).map(|(depth, ..)| *depth);
            prop_assert_eq!(found.map(|location| location.depth), least);
            if let (Some(found), Some(copies)) = (found, copies) {
                prop_assert!(copies.contains(&(found.depth, found.pack, found.base)));
                prop_assert_eq!((found.offset, found.index), (chunk, digest(found.pack.0[0] + 100)));
            }
        }
        prop_assert_eq!(table.chunks().unwrap(), expected.len() as u64);
    }
}
