//! The power fails: what was acknowledged is there afterwards, on a real file system that lost all that nobody had synced. Needs the right to set up loop
//! devices.

use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use holdfast_storage::Local;
use holdfast_storage::faulty::{Fault, Faults, Rule};
use holdfast_tests::disk::FragileDisk;

use crate::setting::run;
use crate::story::{Stage, Story};
use crate::traced::points;

/// A story on a disk, whose calls can be held: those of both places together.
fn story_on(disk: &Path, stage: &Stage) -> (Story, [Faults; 2]) {
    let stores = ["here", "there"].map(|name| Faults::over(Arc::new(Local::new(disk.join(name)))));
    let faults = stores.each_ref().map(|(_, faults)| faults.clone());
    (Story::over(stores.into_iter().map(|(store, _)| store), &stage.notes()), faults)
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let mut cuts = 0;
    let calls = run(async {
        let stage = Stage::new();
        let (story, faults) = story_on(&stage.places(), &stage);
        story.tell().await.unwrap();
        faults.map(|faults| faults.calls().len())
    });
    for (place, calls) in calls.into_iter().enumerate() {
        for call in points(calls, 29) {
            let stage = Stage::new();
            let disk = match FragileDisk::mount(&stage.image(), &stage.places(), 32).unwrap() {
                Ok(disk) => disk,
                Err(reason) => return eprintln!("SKIPPED: power cuts: no loop device can be had here: {reason}"),
            };
            let is_told = run(async {
                let (story, faults) = story_on(&stage.places(), &stage);
                // Between two calls: whatever the call before it was, its answer was believed.
                faults[place].add(Rule::any("").skipping(call as u64 - 1).once(Fault::Block));
                let cut = async {
                    faults[place].blocked(1).await;
                    disk.cut_power().unwrap();
                    faults[place].clear();
                    pending().await
                };
                let told = tokio::select! { told = story.tell() => told, never = cut => never };
                told.is_ok()
            });
            disk.restart().unwrap();
            run(async {
                let story = stage.story();
                story.must_hold().await;
                if is_told {
                    // What follows the last head may fail.
                    story.must_be_at_its_end().await;
                }
                story.tell().await.unwrap();
                story.must_hold().await;
                story.must_be_at_its_end().await;
            });
            cuts += 1;
        }
    }
    eprintln!("the power was cut {cuts} times");
}
