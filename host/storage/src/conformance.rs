//! What every store owes, as one suite that each implementation's tests run.
//!
//! It panics where a store fails. It works below `conformance/`, which must be empty, and leaves it empty.
//! Run [`crate::probe`] first, so that the store knows its traits.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};

use crate::{Error, Listed, OBJECT_BYTES_MAX, Storage};

/// Objects in the long listing: more than one page of S3 holds.
const MANY: usize = 1_500;
/// Length of the large object in bytes: a pack's.
const LARGE: usize = 16 << 20;
/// Requests under way at a time.
const SIDE_BY_SIDE: usize = 16;

/// Runs the whole suite.
///
/// # Panics
/// Where the store does not do what [`Storage`] says.
pub async fn conformance(storage: Arc<dyn Storage>) {
    let suite = Suite { storage };
    suite.what_is_missing_is_said_to_be().await;
    suite.an_empty_object_is_an_object().await;
    suite.ranges_are_cut_at_the_end().await;
    suite.a_put_replaces().await;
    suite.a_conditional_put_never_replaces().await;
    suite.one_of_many_writers_wins().await;
    suite.readers_see_whole_objects().await;
    suite.long_paths_lead_somewhere().await;
    suite.listings_are_complete_and_sorted().await;
    suite.clocks_agree().await;
    suite.bad_paths_and_sizes_are_refused().await;
    suite.nothing_is_left().await;
}

struct Suite {
    storage: Arc<dyn Storage>,
}

impl Suite {
    async fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        done(path, self.storage.put(path, bytes.into()).await);
    }

    async fn delete(&self, path: &str) {
        done(path, self.storage.delete(path).await);
    }

    async fn holds(&self, path: &str, bytes: &[u8]) {
        assert_eq!(done(path, self.storage.head(path).await), Some(bytes.len() as u64), "length of {path}");
        let found = done(path, self.storage.get(path, None).await);
        assert!(found == bytes, "{path} has other bytes than were written");
    }

    async fn listed(&self, prefix: &str) -> Vec<Listed> {
        done(prefix, self.storage.list(prefix).await)
    }

    async fn what_is_missing_is_said_to_be(&self) {
        let path = "conformance/missing/object";
        for range in [None, Some(0..1), Some(5..5)] {
            match self.storage.get(path, range).await {
                Err(Error::NotFound { path: named, .. }) => assert_eq!(named, path),
                other => panic!("reading what is not there gave {other:?}"),
            }
        }
        assert_eq!(done(path, self.storage.head(path).await), None);
        self.delete(path).await;
        assert_eq!(self.listed("conformance/").await, []);
    }

    async fn an_empty_object_is_an_object(&self) {
        let path = "conformance/empty";
        self.put(path, Bytes::new()).await;
        self.holds(path, b"").await;
        assert_eq!(done(path, self.storage.get(path, Some(0..10)).await), Bytes::new());
        assert_eq!(self.listed(path).await, [Listed { path: path.to_owned(), length: 0 }]);
        self.delete(path).await;
        self.delete(path).await;
        assert_eq!(done(path, self.storage.head(path).await), None);
    }

    async fn ranges_are_cut_at_the_end(&self) {
        let path = "conformance/large";
        let bytes = pattern(LARGE, 1);
        self.put(path, bytes.clone()).await;
        self.holds(path, &bytes).await;
        let end = LARGE as u64;
        for range in
            [0..1, 0..end, 12_345..6_000_000, end - 1..end, end - 5..end + 5, end..end + 1, end + 100..end + 200, 7..7]
        {
            let found = done(path, self.storage.get(path, Some(range.clone())).await);
            let expected = &bytes[range.start.min(end) as usize..range.end.min(end) as usize];
            assert!(found == expected, "range {range:?} of {path} has {} bytes, or other ones", found.len());
        }
        self.delete(path).await;
    }

    async fn clocks_agree(&self) {
        let path = "conformance/clock";
        assert_eq!(done(path, self.storage.written_ms(path).await), None, "nothing was written to {path}");
        let before = done("", self.storage.clock_ms().await);
        self.put(path, &b"now"[..]).await;
        let written = done(path, self.storage.written_ms(path).await);
        let after = done("", self.storage.clock_ms().await);
        self.delete(path).await;
        // Whole seconds are all that some stores tell.
        let (Some(before), Some(written), Some(after)) = (before, written, after) else { return };
        assert!(before < written + 2_000 && written < after + 2_000, "{before}, {written}, {after} are not in order");
    }

    async fn a_put_replaces(&self) {
        let path = "conformance/replaced";
        self.put(path, &b"a first, longer text"[..]).await;
        self.put(path, &b"a second"[..]).await;
        self.holds(path, b"a second").await;
        self.delete(path).await;
    }

    async fn a_conditional_put_never_replaces(&self) {
        let path = "conformance/once";
        let put = |text: &'static [u8]| self.storage.put_if_absent(path, Bytes::from_static(text));
        assert!(done(path, put(b"first").await), "nothing was there");
        assert!(!done(path, put(b"second").await), "the first was there");
        assert!(!done(path, put(b"first").await), "the same bytes were there");
        self.holds(path, b"first").await;
        self.delete(path).await;
        assert!(done(path, put(b"third").await), "it was deleted");
        self.holds(path, b"third").await;
        self.delete(path).await;
    }

    async fn one_of_many_writers_wins(&self) {
        if !self.storage.traits().conditional_writes {
            return;
        }
        let path = "conformance/contested";
        let writers = (0..8).map(|number| {
            let storage = Arc::clone(&self.storage);
            tokio::spawn(async move { storage.put_if_absent(path, pattern(1000, number)).await })
        });
        let outcomes = join_all(writers).await;
        let won: Vec<bool> = outcomes.into_iter().map(|outcome| done(path, done(path, outcome))).collect();
        let winners: Vec<usize> = (0..won.len()).filter(|number| won[*number]).collect();
        assert_eq!(winners.len(), 1, "winners: {winners:?}");
        self.holds(path, &pattern(1000, winners[0])).await;
        self.delete(path).await;
    }

    async fn readers_see_whole_objects(&self) {
        let path = "conformance/changing";
        let versions = [pattern(300_000, 3), pattern(200_000, 4)];
        self.put(path, versions[0].clone()).await;
        let writing = async {
            for turn in 1..20 {
                self.put(path, versions[turn % 2].clone()).await;
            }
        };
        let reading = async {
            for _ in 0..20 {
                let found = done(path, self.storage.get(path, None).await);
                assert!(versions.contains(&found), "{path} was seen torn, at {} bytes", found.len());
            }
        };
        futures_util::future::join(writing, reading).await;
        self.delete(path).await;
    }

    async fn long_paths_lead_somewhere(&self) {
        let path = format!("conformance/{}/Deep_er.file-1", ["0a"; 20].join("/"));
        self.put(&path, &b"deep"[..]).await;
        self.holds(&path, b"deep").await;
        assert_eq!(self.listed("conformance/0a/").await, [Listed { path: path.clone(), length: 4 }]);
        self.delete(&path).await;
    }

    async fn listings_are_complete_and_sorted(&self) {
        let path = |number: usize| format!("conformance/many/{:02x}/{number:05}", number % 7);
        let putting = (0..MANY).map(|number| async move { self.put(&path(number), vec![0; number % 3]).await });
        stream::iter(putting).buffer_unordered(SIDE_BY_SIDE).collect::<()>().await;
        let mut expected: Vec<Listed> =
            (0..MANY).map(|number| Listed { path: path(number), length: (number % 3) as u64 }).collect();
        expected.sort_by(|a, b| a.path.cmp(&b.path));
        for prefix in [
            "conformance/many/",
            "conformance/many/03/",
            "conformance/many/0",
            "conformance/many/03/000",
            "conformance/man",
        ] {
            let below: Vec<&Listed> = expected.iter().filter(|object| object.path.starts_with(prefix)).collect();
            let found = self.listed(prefix).await;
            assert_eq!(found.len(), below.len(), "objects below {prefix}");
            assert!(found.iter().eq(below), "objects below {prefix}");
        }
        assert_eq!(self.listed("conformance/many/03/00003x").await, []);
        let deleting = (0..MANY).map(|number| async move { self.delete(&path(number)).await });
        stream::iter(deleting).buffer_unordered(SIDE_BY_SIDE).collect::<()>().await;
    }

    async fn bad_paths_and_sizes_are_refused(&self) {
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../../b", "a b", "a\0b", "tmp/a"] {
            let outcomes = [
                self.storage.get(bad, None).await.err(),
                self.storage.put(bad, Bytes::new()).await.err(),
                self.storage.put_if_absent(bad, Bytes::new()).await.err(),
                self.storage.head(bad).await.err(),
                self.storage.delete(bad).await.err(),
            ];
            assert!(
                outcomes.iter().all(|error| matches!(error, Some(Error::BadPath { .. }))),
                "{bad:?} gave {outcomes:?}"
            );
        }
        assert!(matches!(self.storage.list("../").await, Err(Error::BadPath { .. })));
        let outcome = self.storage.put("conformance/huge", vec![0; OBJECT_BYTES_MAX as usize + 1].into()).await;
        assert!(matches!(outcome, Err(Error::TooLarge { .. })), "a huge object gave {outcome:?}");
    }

    async fn nothing_is_left(&self) {
        assert_eq!(self.listed("conformance/").await, []);
    }
}

/// The value, or a panic that names what failed.
fn done<T, E: Debug>(what: &str, outcome: Result<T, E>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error:?}"),
    }
}

/// Bytes that differ from offset to offset and from seed to seed.
fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length)
        .map(|offset| (offset.wrapping_mul(31) ^ (offset >> 8) ^ seed.wrapping_mul(97)) as u8)
        .collect::<Vec<u8>>()
        .into()
}
