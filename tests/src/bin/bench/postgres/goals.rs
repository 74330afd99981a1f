//! What must hold, as ratios within one run.

use crate::goal::{Bound, Goal};
use crate::postgres::Work;
use crate::postgres::measure::Figures;
use crate::postgres::report::{Line, find, peak_memory};

/// For a scattered update the goal was set against pgBackRest 2.59, 0.75, which is 1.56 times as fast at it as Debian's.
const SCATTERED: f64 = 0.48;

/// What restoring by way of deltas costs us.
fn chain_cost(lines: &[Line]) -> Option<f64> {
    let wall = |work| find(lines, work, "holdfast").and_then(Figures::wall_seconds);
    Some(wall(Work::RestoreLast)? / wall(Work::RestoreFirst)?)
}

/// All goals, judged by these medians.
pub fn of(lines: &[Line]) -> Vec<Goal> {
    let ratio = |work, to: &str, of: fn(&Figures) -> Option<f64>| {
        let (ours, theirs) = (of(find(lines, work, "holdfast")?)?, of(find(lines, work, to)?)?);
        (theirs > 0.0).then(|| ours / theirs)
    };
    let wall = |work, to| ratio(work, to, Figures::wall_seconds);
    let stored = |work, to| ratio(work, to, Figures::stored_megabytes);
    let ratios = [
        ("first backup, wall to pgBackRest's", 0.60, wall(Work::First, "pgbackrest")),
        ("no change, wall to pg_basebackup's to nowhere", 1.4, wall(Work::Unchanged, "nowhere")),
        ("clustered update, wall to pgBackRest's", 0.65, wall(Work::Clustered, "pgbackrest")),
        ("clustered update, bytes stored to pgBackRest's", 0.8, stored(Work::Clustered, "pgbackrest")),
        ("scattered update, wall to pgBackRest's", SCATTERED, wall(Work::Scattered, "pgbackrest")),
        ("scattered update, bytes stored to pgBackRest's", 0.3, stored(Work::Scattered, "pgbackrest")),
        ("scattered updates of many days, bytes stored to pgBackRest's", 0.15, stored(Work::Daily, "pgbackrest")),
        ("restore of the last day, wall to that of the first backup", 1.15, chain_cost(lines)),
        ("restore, wall to pgBackRest's", 0.55, wall(Work::Restore, "pgbackrest")),
    ];
    let memory = Goal {
        title: "peak memory of any work",
        bound: Bound::AtMost(140.0),
        unit: " MB",
        figure: peak_memory(lines, "holdfast").map(|bytes| bytes as f64 / 1e6),
    };
    let goal = |(title, most, figure)| Goal { title, bound: Bound::AtMost(most), unit: "x", figure };
    ratios.into_iter().map(goal).chain([memory]).collect()
}
