//! What must hold, as ratios within one run.

use std::fmt;

use serde_json::{Value, json};

use crate::Work;
use crate::measure::Figures;
use crate::report::{Line, find, peak_memory};

/// A bound and what was measured against it.
pub struct Goal {
    title: &'static str,
    at_most: f64,
    unit: &'static str,
    /// None where a program that it takes did not run, or not that work.
    figure: Option<f64>,
}

impl Goal {
    /// Whether it was measured and holds.
    pub fn is_met(&self) -> bool {
        self.figure.is_some_and(|figure| figure <= self.at_most)
    }

    /// As an object.
    pub fn json(&self) -> Value {
        let Self { title, at_most, unit, figure } = self;
        json!({ "goal": title, "atMost": at_most, "unit": unit.trim(), "figure": figure, "met": self.is_met() })
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, at_most, unit, figure } = self;
        let judgement = if self.is_met() { "met" } else { "MISSED" };
        match figure {
            Some(figure) => write!(formatter, "{judgement:<14}{title}: {figure:.2}{unit} of at most {at_most}{unit}"),
            None => write!(formatter, "not measured  {title}: at most {at_most}{unit}"),
        }
    }
}

/// All goals, judged by these medians.
pub fn of(lines: &[Line]) -> Vec<Goal> {
    let ratio = |work, to: &str, of: fn(&Figures) -> Option<f64>| {
        let (ours, theirs) = (of(find(lines, work, "holdfast")?)?, of(find(lines, work, to)?)?);
        (theirs > 0.0).then(|| ours / theirs)
    };
    let wall: fn(&Figures) -> Option<f64> = |figures| Some(figures.wall_seconds());
    let goal = |title, at_most, figure| Goal { title, at_most, unit: "x", figure };
    vec![
        goal("first backup, wall to pgBackRest's", 0.60, ratio(Work::First, "pgbackrest", wall)),
        goal("no change, wall to pg_basebackup's to nowhere", 1.4, ratio(Work::Unchanged, "nowhere", wall)),
        goal("clustered update, wall to pgBackRest's", 0.65, ratio(Work::Clustered, "pgbackrest", wall)),
        goal(
            "clustered update, bytes stored to pgBackRest's",
            0.8,
            ratio(Work::Clustered, "pgbackrest", Figures::stored_megabytes),
        ),
        goal("restore, wall to pgBackRest's", 0.55, ratio(Work::Restore, "pgbackrest", wall)),
        Goal {
            title: "peak memory of any work",
            at_most: 140.0,
            unit: " MB",
            figure: peak_memory(lines, "holdfast").map(|bytes| bytes as f64 / 1e6),
        },
    ]
}
