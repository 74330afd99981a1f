//! A process that is killed at any call that makes something durable, by the kernel's own account: nothing that it acknowledged is lost, and
//! the next one goes on. Needs strace.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::setting::run;
use crate::story::{Stage, Story};
use crate::traced::{Traced, count, points};

/// What a local store makes things durable, visible or gone with.
const CALLS: [&str; 5] = ["fdatasync", "fsync", "renameat2", "mkdir", "unlink"];

const PLACES: &str = "ARCHIVE_TEST_PLACES";
const NOTES: &str = "ARCHIVE_TEST_NOTES";
const KILL: &str = "ARCHIVE_TEST_KILL";

#[test]
fn a_kill_at_any_sync_or_rename_costs_nothing_that_was_acknowledged() {
    let stage = Stage::new();
    let traced = match Traced::start(&CALLS.join(","), None, &stage.log()) {
        Ok(traced) => traced,
        Err(reason) => return eprintln!("SKIPPED: kills at system calls: {reason}"),
    };
    traced.run(async { stage.story().tell().await.unwrap() });
    let kills: Vec<(&str, usize)> = CALLS
        .into_iter()
        .flat_map(|call| points(count(&stage.log(), call), 9).into_iter().map(move |number| (call, number)))
        .collect();
    let (waiting, struck) = (Mutex::new(kills.iter()), Mutex::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((call, number)) = { waiting.lock().unwrap().next() } {
                    *struck.lock().unwrap() += usize::from(killed_and_told_again(call, *number));
                }
            });
        }
    });
    let struck = struck.into_inner().unwrap();
    eprintln!("{struck} of {} planned kills struck", kills.len());
    assert!(struck > kills.len() / 2);
}

/// Whether the kill struck: calls side by side come in another order each time, and then there may be one less.
fn killed_and_told_again(call: &str, number: usize) -> bool {
    let stage = Stage::new();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kills::child", "--ignored", "--test-threads=1"])
        .env(PLACES, stage.places())
        .env(NOTES, stage.notes())
        .env(KILL, format!("{call}:signal=KILL:when={number}"))
        .output()
        .unwrap();
    let was_killed = status.status.signal() == Some(9);
    assert!(was_killed || status.status.success(), "{call} {number}: {}", String::from_utf8_lossy(&status.stdout));
    run(async {
        let story = stage.story();
        story.must_hold().await;
        story.tell().await.unwrap();
        story.must_hold().await;
        story.must_be_at_its_end().await;
    });
    was_killed
}

/// The process that is killed. Alone it has nothing to do.
#[test]
#[ignore = "run by the other test of this module, and killed"]
fn child() {
    let (Ok(places), Ok(notes), Ok(kill)) = (std::env::var(PLACES), std::env::var(NOTES), std::env::var(KILL)) else {
        return;
    };
    let (call, _) = kill.split_once(':').unwrap();
    let traced = Traced::start(call, Some(&kill), Path::new("/dev/null")).unwrap();
    let story = Story::in_directories(Path::new(&places), Path::new(&notes));
    traced.run(async { story.tell().await.unwrap() });
}
