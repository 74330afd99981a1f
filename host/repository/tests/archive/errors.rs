//! System calls that fail, and file systems that run full: no success that is not durable, nothing lost that was acknowledged, and the work goes on
//! once there is room again.

use std::fs;
use std::sync::Mutex;
use std::thread;

use holdfast_tests::disk::SmallDisk;

use crate::setting::run;
use crate::story::{Failure, Stage};
use crate::traced::{Traced, count, points};

/// How long a fault lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// It strikes one call.
    Once,
    /// It strikes from one call on.
    FromThenOn,
}

/// Which calls of a local store fail, and how.
const FAULTS: [(&str, &str, Lasting); 13] = [
    ("fdatasync", "EIO", Lasting::Once),
    ("fsync", "EIO", Lasting::Once),
    ("pread64", "EIO", Lasting::Once),
    ("pread64", "EIO", Lasting::FromThenOn),
    ("write", "ENOSPC", Lasting::Once),
    ("write", "ENOSPC", Lasting::FromThenOn),
    ("openat", "ENOSPC", Lasting::Once),
    ("openat", "ENOSPC", Lasting::FromThenOn),
    ("mkdir", "ENOSPC", Lasting::Once),
    ("renameat2", "ENOSPC", Lasting::Once),
    ("renameat2", "ENOSPC", Lasting::FromThenOn),
    ("fdatasync", "ENOSPC", Lasting::FromThenOn),
    ("fsync", "ENOSPC", Lasting::FromThenOn),
];

/// One failing call.
#[derive(Clone, Copy)]
struct Strike {
    call: &'static str,
    error: &'static str,
    lasting: Lasting,
    number: usize,
}

impl Strike {
    fn all(count: impl Fn(&str) -> usize) -> Vec<Self> {
        let of = |&(call, error, lasting): &(&'static str, &'static str, Lasting)| {
            points(count(call), 19).into_iter().map(move |number| Self { call, error, lasting, number })
        };
        FAULTS.iter().flat_map(of).collect()
    }

    fn inject(self) -> String {
        let Self { call, error, lasting, number } = self;
        let on = if lasting == Lasting::FromThenOn { "+" } else { "" };
        format!("{call}:error={error}:when={number}{on}")
    }

    /// A story in which it strikes, and once more without it.
    fn strike(self) {
        let (stage, inject) = (Stage::new(), self.inject());
        let log = stage.log();
        let traced = Traced::start(self.call, Some(&inject), &log).unwrap();
        let outcome = traced.run(async { stage.story().tell().await });
        // Calls side by side come in another order each time, and then there may be one less.
        let has_struck = fs::read_to_string(log).unwrap().contains("(INJECTED)");
        run(async {
            let story = stage.story();
            story.must_hold().await;
            match outcome {
                Ok(()) => story.must_be_at_its_end().await,
                Err(_) => assert!(has_struck, "{inject}"),
            }
            // What the kernel may have dropped is written anew or not at all: syncing again would prove nothing.
            let is_about_durability = self.error == "EIO" && self.call != "pread64";
            assert!(!(has_struck && is_about_durability && outcome.is_ok()), "{inject} was passed over");
            story.tell().await.unwrap();
            story.must_hold().await;
            story.must_be_at_its_end().await;
        });
    }
}

#[test]
fn a_failing_system_call_costs_nothing_that_was_acknowledged() {
    let (stage, mut calls) = (Stage::new(), FAULTS.map(|(call, _, _)| call).to_vec());
    calls.dedup();
    let traced = match Traced::start(&calls.join(","), None, &stage.log()) {
        Ok(traced) => traced,
        Err(reason) => return eprintln!("SKIPPED: failing system calls: {reason}"),
    };
    traced.run(async { stage.story().tell().await.unwrap() });
    let strikes = Strike::all(|call| count(&stage.log(), call));
    let waiting = Mutex::new(strikes.iter());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(strike) = { waiting.lock().unwrap().next() } {
                    strike.strike();
                }
            });
        }
    });
    eprintln!("{} system calls failed", strikes.len());
}

/// What the whole story takes, in KiB: two reserves of a megabyte, and less than another one for each place.
const STORY_KIB: u32 = 4096;

#[test]
fn a_file_system_that_runs_full_at_any_byte_costs_nothing_and_deleting_works_there() {
    let (mut failed, sizes) = (0, points(STORY_KIB as usize / 4, 41));
    for pages in &sizes {
        let stage = Stage::new();
        let disk = match SmallDisk::mount(&stage.places(), 16) {
            Ok(Some(disk)) => disk,
            outcome => {
                return eprintln!("SKIPPED: full file systems: no tmpfs can be mounted here: {:?}", outcome.err());
            }
        };
        run(async {
            let story = stage.story();
            disk.resize(*pages as u32 * 4).unwrap();
            let told = story.tell().await;
            story.must_hold().await;
            if told.is_ok() {
                return story.must_be_at_its_end().await;
            }
            failed += 1;
            disk.fill().unwrap();
            match story.delete_first().await {
                Ok(()) => {}
                // What lives beside the deleted has nowhere to go.
                Err(Failure::Kept(what)) => assert!(what.contains("NoRoom"), "{what}"),
                Err(Failure::Step(error)) => panic!("deleting with nothing free: {error}"),
            }
            story.must_hold().await;
            disk.free().unwrap();
            disk.resize(16 << 10).unwrap();
            story.tell().await.unwrap();
            story.must_hold().await;
            story.must_be_at_its_end().await;
        });
    }
    assert!(failed > sizes.len() / 2, "{failed} of {}", sizes.len());
    eprintln!("{failed} of {} file systems ran full", sizes.len());
}
