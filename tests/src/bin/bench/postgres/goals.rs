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
    let goal = |title, most, figure| Goal { title, bound: Bound::AtMost(most), unit: "x", figure };
    vec![
        goal("first backup, wall to pgBackRest's", 0.60, ratio(Work::First, "pgbackrest", Figures::wall_seconds)),
        goal(
            "no change, wall to pg_basebackup's to nowhere",
            1.4,
            ratio(Work::Unchanged, "nowhere", Figures::wall_seconds),
        ),
        goal(
            "clustered update, wall to pgBackRest's",
            0.65,
            ratio(Work::Clustered, "pgbackrest", Figures::wall_seconds),
        ),
        goal(
            "clustered update, bytes stored to pgBackRest's",
            0.8,
            ratio(Work::Clustered, "pgbackrest", Figures::stored_megabytes),
        ),
        goal(
            "scattered update, wall to pgBackRest's",
            SCATTERED,
            ratio(Work::Scattered, "pgbackrest", Figures::wall_seconds),
        ),
        goal(
            "scattered update, bytes stored to pgBackRest's",
            0.3,
            ratio(Work::Scattered, "pgbackrest", Figures::stored_megabytes),
        ),
        goal(
            "scattered updates of many days, bytes stored to pgBackRest's",
            0.15,
            ratio(Work::Daily, "pgbackrest", Figures::stored_megabytes),
        ),
        goal("restore of the last day, wall to that of the first backup", 1.15, chain_cost(lines)),
        goal("restore, wall to pgBackRest's", 0.55, ratio(Work::Restore, "pgbackrest", Figures::wall_seconds)),
        Goal {
            title: "peak memory of any work",
            bound: Bound::AtMost(140.0),
            unit: " MB",
            figure: peak_memory(lines, "holdfast").map(|bytes| bytes as f64 / 1e6),
        },
    ]
}
