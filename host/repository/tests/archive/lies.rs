//! A store that is busy, stands still, loses its answers, delivers other bytes or lists less than there is: what passes is waited out, what does not ends
//! the work, and neither costs anything that was acknowledged.

use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::faulty::{Fault, Faults, Kind, Rule};
use holdfast_storage::{Local, Operation, Patience, Retrying, Storage};

use crate::setting::run;
use crate::story::{Failure, Stage, Story};
use crate::traced::points;

const PATIENCE: Patience = Patience {
    attempts: 3,
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_millis(2),
    attempt: Duration::from_millis(500),
    slowest_bytes_per_second: 1 << 30,
    listing: Duration::from_millis(500),
};

/// A story over two stores that fail on purpose and are waited for; the faults of each.
fn faulty(stage: &Stage) -> (Story, [Faults; 2]) {
    let stores = ["here", "there"].map(|name| Faults::over(Arc::new(Local::new(stage.places().join(name)))));
    let faults = stores.each_ref().map(|(_, faults)| faults.clone());
    let patient = stores.into_iter().map(|(store, _)| Arc::new(Retrying::new(store, PATIENCE)) as Arc<dyn Storage>);
    (Story::over(patient, &stage.notes()), faults)
}

/// Places, and numbers of calls there: a part of all that a story makes, but for the last, the look at the component behind the last head.
async fn calls(stride: usize) -> Vec<(usize, usize)> {
    let stage = Stage::new();
    let (story, faults) = faulty(&stage);
    story.tell().await.unwrap();
    let numbers = |(place, faults): (usize, Faults)| {
        points(faults.calls().len() - 1, stride).into_iter().map(move |number| (place, number))
    };
    faults.into_iter().enumerate().flat_map(numbers).collect()
}

/// Tells a story in which a fault strikes at a call; what the telling said. Nothing is lost, and told again it comes to its end.
async fn told_with(place: usize, rule: Rule) -> Result<(), Failure> {
    let stage = Stage::new();
    let (story, faults) = faulty(&stage);
    faults[place].add(rule);
    let told = story.tell().await;
    faults[place].clear();
    let story = stage.story();
    story.must_hold().await;
    if told.is_ok() {
        story.must_be_at_its_end().await;
    }
    story.tell().await.unwrap();
    story.must_hold().await;
    story.must_be_at_its_end().await;
    told
}

fn at(number: usize) -> holdfast_storage::faulty::Matching {
    Rule::any("").skipping(number as u64 - 1)
}

#[test]
fn what_passes_at_any_call_is_waited_out() {
    run(async {
        for (place, number) in calls(31).await {
            for fault in [Fault::Fail(Kind::Busy), Fault::Fail(Kind::Stalled), Fault::FailAfterwards(Kind::Unreachable)]
            {
                let told = told_with(place, at(number).times(2, fault)).await;
                assert!(told.is_ok(), "{fault:?} at call {number} of place {place}: {told:?}");
            }
        }
    });
}

#[test]
fn what_does_not_pass_ends_the_work_and_costs_nothing() {
    run(async {
        for (place, number) in calls(43).await {
            for (fault, code) in [
                (Fault::Fail(Kind::Busy), "storage-busy"),
                (Fault::Fail(Kind::Denied), "credentials-refused"),
                (Fault::FailAfterwards(Kind::Unreachable), "storage-unreachable"),
            ] {
                match told_with(place, at(number).always(fault)).await {
                    Err(Failure::Step(error)) => assert_eq!(error.code(), code, "{error}"),
                    told => {
                        assert!(matches!(told, Err(Failure::Kept(_))), "{fault:?} at call {number} was passed over")
                    }
                }
            }
        }
    });
}

#[test]
fn a_connection_that_is_half_open_ends_the_work_and_costs_nothing() {
    run(async {
        for (place, number) in calls(211).await {
            match told_with(place, at(number).always(Fault::Block)).await {
                Err(Failure::Step(error)) => assert_eq!(error.code(), "storage-stalled", "{error}"),
                told => panic!("call {number} of place {place} was passed over: {told:?}"),
            }
        }
    });
}

#[test]
fn bytes_that_arrive_wrong_or_not_at_all_are_passed_on_nowhere() {
    run(async {
        for (place, number) in calls(23).await {
            for fault in [Fault::Flip, Fault::Hide] {
                // Whether anybody needed them, or asked again.
                let _ = told_with(place, at(number).once(fault)).await;
            }
        }
    });
}

#[test]
fn a_listing_that_hides_objects_is_no_reason_to_delete() {
    run(async {
        let organization = |part: &str, stage: &Stage| format!("domains/{}/{part}", stage.story().domain());
        for part in ["packs/", "indexes/", "backups/", "heads/", ""] {
            for place in 0..2 {
                let stage = Stage::new();
                let (story, faults) = faulty(&stage);
                faults[place].add(Rule::on(Operation::List, &organization(part, &stage)).always(Fault::Hide));
                story.tell().await.unwrap();
                // Whoever comes new sees no more.
                story.tell().await.unwrap();
                faults[place].clear();
                let story = stage.story();
                story.must_hold().await;
                story.must_be_at_its_end().await;
            }
        }
    });
}
