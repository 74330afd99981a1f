//! The archive store beside restic and borg, on generated files that look like a database's: the same bytes for all, in the same run.
//!
//! Ours is a program of the repository's own, `store`, which says the seconds of its steps; theirs are Debian's commands. What each
//! restores is compared with the files.

mod files;
mod peers;

use std::io::Write as _;
use std::path::Path;

use holdfast_tests::{Failure, Result, ensure};
use serde_json::{Value, json};

use crate::goal::{Bound, Goal};
use crate::options::Common;
use crate::scratch::Scratch;

/// Shown for anything that is not understood.
pub const USAGE: &str = "\
usage: cargo xtask bench repository [OPTION]

  --gate        exit with 1 where a goal is missed
  --rounds N    how often everything is done; medians are shown; 3 by default
  --mib N       size of the files; 1024 by default
  --dir DIR     make everything there
  -o json       the result as JSON
";

/// The options.
pub struct Options {
    /// How to measure.
    pub common: Common,
    /// Size of the files.
    mib: u32,
}

impl Options {
    /// `None` for anything that is not understood.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { common: Common::default(), mib: 1024 };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--mib" => options.mib = arguments.next()?.parse().ok().filter(|mib| (16..1 << 20).contains(mib))?,
                other => options.common.take(other, &mut arguments)?.then_some(())?,
            }
        }
        Some(options)
    }
}

/// What one program needed, in seconds, and what it stored.
#[derive(Clone, Copy)]
pub struct Figures {
    new: f64,
    known: f64,
    restore: f64,
    check: f64,
    stored: f64,
}

/// Takes one figure out of all.
type Figure = fn(&Figures) -> f64;

/// Names of the figures, and what they are.
const COLUMNS: [(&str, Figure); 5] = [
    ("new s", |figures| figures.new),
    ("known s", |figures| figures.known),
    ("restore s", |figures| figures.restore),
    ("check s", |figures| figures.check),
    ("stored MB", |figures| figures.stored / 1e6),
];

/// Measures and prints; whether all goals are met.
pub fn bench(options: &Options) -> Result<bool> {
    let scratch = Scratch::new(options.common.directory.as_deref())?;
    let files = scratch.empty("files")?;
    files::make(&files, options.mib)?;
    let mut runs: Vec<(&str, Vec<Figures>)> = peers::ALL.iter().map(|(name, _)| (*name, Vec::new())).collect();
    for round in 0..options.common.rounds {
        for ((name, figures), (_, run)) in runs.iter_mut().zip(peers::ALL) {
            let work = scratch.empty("repository")?;
            let found = run(&files, &work).map_err(|failure| failure.during(*name))?;
            eprintln!("round {}/{}  {name:<10}{}", round + 1, options.common.rounds, row(&found));
            files::must_equal(&files, &work.join("restored"))?;
            figures.push(found);
        }
    }
    let medians: Vec<(&str, Figures)> = runs.iter().map(|(name, figures)| (*name, median(figures))).collect();
    let goals = goals(&medians)?;
    print(options, &medians, &goals)?;
    Ok(goals.iter().all(Goal::is_met))
}

fn row(figures: &Figures) -> String {
    COLUMNS.iter().map(|(_, of)| format!("{:>11.2}", of(figures))).collect()
}

fn median(figures: &[Figures]) -> Figures {
    let middle = |of: Figure| {
        let mut all: Vec<f64> = figures.iter().map(of).collect();
        all.sort_unstable_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Figures {
        new: middle(|one| one.new),
        known: middle(|one| one.known),
        restore: middle(|one| one.restore),
        check: middle(|one| one.check),
        stored: middle(|one| one.stored),
    }
}

/// Against the better one of the others at each step.
fn goals(medians: &[(&str, Figures)]) -> Result<Vec<Goal>> {
    let (ours, theirs) = medians.split_first().ok_or_else(|| Failure::new("nothing was measured"))?;
    ensure(!theirs.is_empty(), || "there is nobody to compare with".to_owned())?;
    let best = |of: Figure| theirs.iter().map(|(_, figures)| of(figures)).fold(f64::INFINITY, f64::min);
    let speed = |of: Figure| Some(best(of) / of(&ours.1));
    let faster = |title, least, of| Goal { title, bound: Bound::AtLeast(least), unit: "x", figure: speed(of) };
    Ok(vec![
        faster("new data, throughput to the others' best", 2.0, |one| one.new),
        faster("known data, throughput to the others' best", 3.0, |one| one.known),
        faster("restore, throughput to the others' best", 1.5, |one| one.restore),
        faster("check of every byte, throughput to the others' best", 2.0, |one| one.check),
        Goal {
            title: "stored bytes to the others' least",
            bound: Bound::AtMost(1.03),
            unit: "x",
            figure: Some(ours.1.stored / best(|one| one.stored)),
        },
    ])
}

fn print(options: &Options, medians: &[(&str, Figures)], goals: &[Goal]) -> Result {
    let mut output = std::io::stdout().lock();
    if options.common.json {
        let figures = medians.iter().map(|(name, figures)| {
            let Figures { new, known, restore, check, stored } = figures;
            json!({ "program": name, "newSeconds": new, "knownSeconds": known, "restoreSeconds": restore,
                "checkSeconds": check, "storedBytes": stored })
        });
        let result = json!({
            "rounds": options.common.rounds, "mib": options.mib, "figures": figures.collect::<Vec<Value>>(),
            "goals": goals.iter().map(Goal::json).collect::<Vec<_>>(),
        });
        return Ok(writeln!(output, "{result:#}")?);
    }
    writeln!(output, "\nThe repository, {} MiB of files, medians of {}\n", options.mib, options.common.rounds)?;
    let titles: String = COLUMNS.iter().map(|(title, _)| format!("{title:>11}")).collect();
    writeln!(output, "{:<10}{titles}", "")?;
    medians.iter().try_for_each(|(name, figures)| writeln!(output, "{name:<10}{}", row(figures)))?;
    writeln!(output)?;
    goals.iter().try_for_each(|goal| writeln!(output, "{goal}"))?;
    Ok(())
}

/// Bytes of all files below a directory.
fn stored(directory: &Path) -> Result<f64> {
    Ok(crate::postgres::bytes_below(directory)? as f64)
}
