use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("holdfast-test-{}", hex::encode(crate::seal::random::<16>()))))
    }

    fn open(&self) -> Ledger {
        Ledger::open(Some(&self.0), &Secret([7; 32])).unwrap()
    }

    /// Names and bytes of the files of runs.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        let files = files.filter(|path| !path.ends_with("lock"));
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// Puts a former state into the place of this one.
    fn restore(&self, files: &BTreeMap<PathBuf, Vec<u8>>) {
        self.files().keys().for_each(|path| fs::remove_file(path).unwrap());
        files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The id of a chunk: no two are alike, and they come in no order.
fn id(number: u32) -> ChunkId {
    ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn source(number: u8) -> Digest {
    Digest([number; 32])
}

/// Refs that name chunks.
fn refs(chunks: &[u32]) -> impl Iterator<Item = (ChunkId, Option<ChunkId>)> {
    chunks.iter().map(|chunk| (id(*chunk), None))
}

/// Deltas and what they stand on.
fn deltas(deltas: &[(u32, u32)]) -> impl Iterator<Item = (ChunkId, Option<ChunkId>)> {
    deltas.iter().map(|(delta, base)| (id(*base), Some(id(*delta))))
}

fn is_needed(ledger: &Ledger, chunk: u32) -> bool {
    ledger.look().is_needed(&id(chunk)).unwrap()
}

fn fallen(ledger: &Ledger) -> BTreeSet<ChunkId> {
    ledger.fallen().collect::<Result<_, _>>().unwrap()
}

fn ids(chunks: &[u32]) -> BTreeSet<ChunkId> {
    chunks.iter().copied().map(id).collect()
}

#[test]
fn a_chunk_falls_with_the_last_that_holds_it() {
    let mut ledger = Ledger::open(None, &Secret([7; 32])).unwrap();
    ledger.add(source(1), refs(&[1, 2])).unwrap();
    ledger.add(source(2), refs(&[2, 3])).unwrap();
    // Nothing is counted twice.
    ledger.add(source(2), refs(&[2, 3])).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    ledger.take_off(source(1), refs(&[1, 2])).unwrap();
    assert_eq!(fallen(&ledger), ids(&[1]));
    assert!(!is_needed(&ledger, 1) && is_needed(&ledger, 2) && is_needed(&ledger, 3));
    ledger.publish(BTreeSet::new(), 5).unwrap();
    assert_eq!(fallen(&ledger), ids(&[]), "it is told once");
    ledger.take_off(source(2), refs(&[2, 3])).unwrap();
    assert_eq!(fallen(&ledger), ids(&[2, 3]));
}

#[test]
fn what_comes_and_goes_between_two_states_is_seen_again_by_the_next() {
    let mut ledger = Ledger::open(None, &Secret([7; 32])).unwrap();
    ledger.add(source(1), refs(&[1])).unwrap();
    ledger.publish(BTreeSet::from([source(99)]), 5).unwrap();
    ledger.add(source(2), refs(&[2])).unwrap();
    ledger.add(source(3), deltas(&[(2, 4)])).unwrap();
    ledger.take_off(source(2), refs(&[2])).unwrap();
    assert_eq!(fallen(&ledger), ids(&[]), "nothing is left of it");
    ledger.publish(BTreeSet::new(), 6).unwrap();
    // So the state before still counts, and the index that came with it will come again.
    assert!(ledger.counts(&source(1)) && !ledger.counts(&source(3)));
    assert_eq!((ledger.again(), ledger.looked_ms()), (&BTreeSet::from([source(99)]), 5));
    ledger.add(source(3), deltas(&[(2, 4)])).unwrap();
    ledger.publish(BTreeSet::new(), 6).unwrap();
    assert!(ledger.counts(&source(3)));
}

#[test]
fn a_base_is_needed_as_long_as_what_stands_on_it() {
    let mut ledger = Ledger::open(None, &Secret([7; 32])).unwrap();
    ledger.add(source(1), refs(&[1])).unwrap();
    ledger.add(source(2), deltas(&[(1, 2), (2, 3), (8, 9), (9, 8)])).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    assert!(is_needed(&ledger, 2) && is_needed(&ledger, 3));
    assert!(!is_needed(&ledger, 8), "deltas that nobody holds hold nothing, and if they stand on each other");
    ledger.take_off(source(1), refs(&[1])).unwrap();
    assert_eq!(fallen(&ledger), ids(&[1]));
    assert!(!is_needed(&ledger, 3));
    ledger.add(source(3), refs(&[1])).unwrap();
    assert_eq!(fallen(&ledger), ids(&[]));
    ledger.take_off(source(2), deltas(&[(1, 2), (2, 3), (8, 9), (9, 8)])).unwrap();
    assert_eq!(fallen(&ledger), ids(&[2, 3, 8, 9]));
}

#[test]
fn what_was_not_published_is_gone_after_a_stop() {
    let scratch = Scratch::new();
    let mut ledger = scratch.open();
    ledger.add(source(1), refs(&[1])).unwrap();
    ledger.publish(BTreeSet::from([source(99)]), 5).unwrap();
    ledger.add(source(2), refs(&(2..YOUNG_RECORDS as u32 + 10).collect::<Vec<_>>())).unwrap();
    assert_eq!(scratch.files().len(), 2, "some of it lies in a run");
    assert!(is_needed(&ledger, 77));
    drop(ledger);
    let mut ledger = scratch.open();
    assert_eq!(scratch.files().len(), 1);
    assert!(is_needed(&ledger, 1) && !is_needed(&ledger, 77));
    assert!(ledger.counts(&source(1)) && !ledger.counts(&source(2)));
    assert_eq!(*ledger.again(), BTreeSet::from([source(99)]));
    ledger.take_off(source(1), refs(&[1])).unwrap();
    ledger.rewind();
    assert!(is_needed(&ledger, 1) && ledger.counts(&source(1)));
}

#[test]
fn a_state_that_cannot_be_written_leaves_the_one_before() {
    let scratch = Scratch::new();
    let mut ledger = scratch.open();
    ledger.add(source(1), refs(&[1])).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    ledger.take_off(source(1), refs(&[1])).unwrap();
    let elsewhere = scratch.0.with_extension("elsewhere");
    #[expect(clippy::disallowed_methods)]
    fs::rename(&scratch.0, &elsewhere).unwrap();
    assert_eq!(ledger.publish(BTreeSet::new(), 5).unwrap_err().code(), "index-cache");
    #[expect(clippy::disallowed_methods)]
    fs::rename(&elsewhere, &scratch.0).unwrap();
    ledger.rewind();
    assert!(is_needed(&ledger, 1) && ledger.counts(&source(1)));
    drop(ledger);
    assert!(is_needed(&scratch.open(), 1));
}

#[test]
fn an_older_copy_knows_what_it_counts() {
    let scratch = Scratch::new();
    let mut ledger = scratch.open();
    ledger.add(source(1), refs(&(0..1000).collect::<Vec<_>>())).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    ledger.add(source(2), refs(&[1, 2])).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    let older = scratch.files();
    assert_eq!(older.len(), 2, "one that is much longer stays as it is");
    ledger.take_off(source(1), refs(&(0..1000).collect::<Vec<_>>())).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    let newer = scratch.files();
    drop(ledger);
    for (files, counted) in [(&older, true), (&newer, false)] {
        scratch.restore(files);
        let ledger = scratch.open();
        assert_eq!((ledger.counts(&source(1)), is_needed(&ledger, 7)), (counted, counted));
        assert!(ledger.counts(&source(2)) && is_needed(&ledger, 1));
    }
    // Where both lie, the newer one counts.
    scratch.restore(&older.iter().chain(&newer).map(|(path, bytes)| (path.clone(), bytes.clone())).collect());
    assert!(!scratch.open().counts(&source(1)));
    // A state of which a part is gone is none.
    scratch.restore(&older);
    let longest = older.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    fs::remove_file(longest.0).unwrap();
    let ledger = scratch.open();
    assert_eq!(ledger.sources().count(), 0);
    assert!(!is_needed(&ledger, 1) && scratch.files().is_empty());
}

#[test]
fn a_ledger_that_anybody_changed_is_refused() {
    let scratch = Scratch::new();
    let mut ledger = scratch.open();
    ledger.add(source(1), refs(&(0..150).collect::<Vec<_>>())).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    drop(ledger);
    let sound = scratch.files();
    let (path, bytes) = sound.first_key_value().unwrap();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1 << (place % 8);
        fs::write(path, changed).unwrap();
        let mut ledger = scratch.open();
        if ledger.counts(&source(1)) {
            let asked: Result<Vec<bool>, Error> = (0..150).map(|chunk| ledger.look().is_needed(&id(chunk))).collect();
            assert_eq!(asked.unwrap_err().code(), "index-cache");
            ledger.rewind();
        }
        assert_eq!(ledger.sources().count(), 0);
        assert!(!path.exists());
    }
    fs::write(path, bytes).unwrap();
    let strange = Ledger::open(Some(&scratch.0), &Secret([8; 32])).unwrap();
    assert_eq!(strange.sources().count(), 0, "another domain's ledger is none of ours");
}

#[test]
fn a_ledger_that_takes_off_more_than_it_counted_is_given_up() {
    let mut ledger = Ledger::open(None, &Secret([7; 32])).unwrap();
    ledger.add(source(1), refs(&[1])).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    ledger.take_off(source(1), refs(&[1, 2])).unwrap();
    ledger.publish(BTreeSet::new(), 5).unwrap();
    assert_eq!(ledger.look().is_needed(&id(2)).unwrap_err().code(), "index-cache");
    ledger.add(source(3), refs(&[3])).unwrap();
    ledger.rewind();
    assert!(ledger.sources().count() == 0 && !is_needed(&ledger, 2));
}

/// The honest figure: run it alone, as `cargo test --release ... two_million -- --ignored --nocapture`.
#[test]
#[ignore = "it takes minutes, and measures the whole process"]
#[expect(clippy::print_stdout)] // Its figures are what it is for.
fn two_million_chunks_of_fifty_backups_are_counted_on_disk() {
    let scratch = Scratch::new();
    let mut ledger = scratch.open();
    let mut all: Vec<ChunkId> = (0..2_000_000).map(id).collect();
    all.sort_unstable();
    // Each backup has its own fiftieth, and what is left is everybody's.
    let part = |backup: usize, part: usize| Digest::of(format!("{backup} {part}").as_bytes());
    let of = |backup: usize| all.iter().enumerate().filter(move |(at, _)| at % 100 >= 50 || at % 50 == backup);
    let began = std::time::Instant::now();
    for backup in 0..50 {
        let ids: Vec<ChunkId> = of(backup).map(|(_, id)| *id).collect();
        for (number, ids) in ids.chunks(65_536).enumerate() {
            ledger.add(part(backup, number), ids.iter().map(|id| (*id, None))).unwrap();
        }
    }
    ledger.publish(BTreeSet::new(), 5).unwrap();
    let bytes: usize = scratch.files().values().map(Vec::len).sum();
    println!("counted in {:.1?}: {} MB on disk", began.elapsed(), bytes / 1_000_000);
    println!("{} bytes in memory", ledger.runs.iter().map(Run::resident_bytes).sum::<usize>());
    let began = std::time::Instant::now();
    let ids: Vec<ChunkId> = of(7).map(|(_, id)| *id).collect();
    for (number, ids) in ids.chunks(65_536).enumerate() {
        ledger.take_off(part(7, number), ids.iter().map(|id| (*id, None))).unwrap();
    }
    let fallen = fallen(&ledger).len();
    println!("one of {} chunks taken off in {:.2?}: {fallen} fell", ids.len(), began.elapsed());
    ledger.publish(BTreeSet::new(), 5).unwrap();
    println!("and published in {:.2?}", began.elapsed());
    assert_eq!(fallen, 20_000);
}

/// What happens to a ledger.
#[derive(Clone, Debug)]
enum Step {
    /// A source comes, or goes if it is here: refs, or an index.
    Turn(u8),
    Publish,
    Rewind,
    Restart,
}

/// What a source holds, by its number alone.
fn held(number: u8) -> Vec<(u32, Option<u32>)> {
    let chunk = |salt: u32| u32::from(number) * salt % 40;
    match number % 3 {
        0 => (1..8).map(|salt| (chunk(salt + 6), Some(chunk(salt) + 1))).collect(),
        _ => (1..8).map(|salt| (chunk(salt), None)).collect(),
    }
}

/// The same as the ledger takes it.
fn entries(number: u8) -> impl Iterator<Item = (ChunkId, Option<ChunkId>)> {
    held(number).into_iter().map(|(chunk, delta)| (id(chunk), delta.map(id)))
}

/// Chunks that are needed where these sources count.
fn needed(sources: &BTreeSet<u8>) -> BTreeSet<u32> {
    let held: Vec<_> = sources.iter().flat_map(|number| held(*number)).collect();
    let mut needed: BTreeSet<u32> = held.iter().filter(|(_, delta)| delta.is_none()).map(|(chunk, _)| *chunk).collect();
    for _ in 0..50 {
        let bases = held.iter().filter(|(_, delta)| delta.is_some_and(|delta| needed.contains(&delta)));
        let bases: Vec<u32> = bases.map(|(base, _)| *base).collect();
        needed.extend(bases);
    }
    needed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn it_answers_as_a_plain_map_does(steps in prop::collection::vec(
        prop_oneof![6 => (0..24_u8).prop_map(Step::Turn), 2 => Just(Step::Publish), 1 => Just(Step::Rewind), 1 => Just(Step::Restart)],
        1..60,
    )) {
        let scratch = Scratch::new();
        let mut ledger = scratch.open();
        let (mut now, mut published) = (BTreeSet::new(), BTreeSet::new());
        let mut is_traceless = false;
        for step in steps {
            match step {
                Step::Turn(number) if now.remove(&number) => {
                    ledger.take_off(source(number), entries(number)).unwrap();
                    is_traceless |= !published.contains(&number);
                }
                Step::Turn(number) => {
                    now.insert(number);
                    ledger.add(source(number), entries(number)).unwrap();
                }
                Step::Publish => {
                    ledger.publish(BTreeSet::new(), 5).unwrap();
                    if std::mem::take(&mut is_traceless) {
                        now.clone_from(&published);
                    } else {
                        published.clone_from(&now);
                    }
                }
                Step::Rewind => {
                    ledger.rewind();
                    now.clone_from(&published);
                    is_traceless = false;
                }
                Step::Restart => {
                    drop(ledger);
                    ledger = scratch.open();
                    now.clone_from(&published);
                    is_traceless = false;
                }
            }
            let needed = needed(&now);
            for chunk in 0..41 {
                prop_assert_eq!(is_needed(&ledger, chunk), needed.contains(&chunk), "{}", chunk);
            }
            let sources: BTreeSet<Digest> = now.iter().copied().map(source).collect();
            prop_assert_eq!(ledger.sources().copied().collect::<BTreeSet<_>>(), sources);
            // What refs let go and nothing needs has fallen.
            let let_go = published.difference(&now).flat_map(|number| held(*number)).filter(|(_, delta)| delta.is_none());
            let gone = let_go.map(|(chunk, _)| chunk).filter(|chunk| !needed.contains(chunk));
            let gone: BTreeSet<ChunkId> = gone.map(id).collect();
            prop_assert!(gone.is_subset(&fallen(&ledger)));
            prop_assert!(fallen(&ledger).iter().all(|fallen| !needed.iter().any(|chunk| id(*chunk) == *fallen)));
        }
    }
}

#[test]
fn prunes_that_count_much_leave_few_runs() {
    const MANY: u32 = 300_000;
    assert!(MANY as usize > YOUNG_RECORDS);
    let scratch = Scratch::new();
    let mut ledger = scratch.open();
    for prune in 1..=8 {
        let chunks: Vec<u32> = (0..MANY).map(|number| u32::from(prune) * MANY + number).collect();
        ledger.add(source(prune), refs(&chunks)).unwrap();
        ledger.publish(BTreeSet::new(), 5).unwrap();
        assert!(ledger.runs.len() <= 3, "{} after {prune}", ledger.runs.len());
    }
    assert!(is_needed(&ledger, MANY) && is_needed(&ledger, 9 * MANY - 1) && !is_needed(&ledger, 0));
}
