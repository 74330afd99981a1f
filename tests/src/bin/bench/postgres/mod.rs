//! Measures PostgreSQL's backup by Holdfast and by its peers side by side, in one run, on one cluster that they all read.
//!
//! The programs take turns at each piece of work and a whole round is repeated; figures are medians over the rounds. What a
//! program restores is compared with the source by SQL.

mod goals;
mod measure;
mod options;
mod peers;
mod processes;
mod report;
mod source;

use std::path::Path;

use holdfast_tests::Result;

pub use measure::bytes_below;
pub use options::{Options, USAGE};

use crate::scratch::Scratch;
use measure::{Figures, Meter, Run};
use peers::Program;
use report::Report;
use source::Source;

/// Days of the long series: each with a scattered update and a backup.
const DAYS: usize = 14;

/// A piece of work that every program is asked for, in the order in which a round goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A backup into an empty repository.
    First,
    /// A backup with nothing changed since the one before.
    Unchanged,
    /// A backup after 1 % of the rows changed, all side by side.
    Clustered,
    /// A backup after 1 % of the rows changed, each somewhere.
    Scattered,
    /// The newest backup into an empty directory.
    Restore,
    /// All stored bytes read and judged.
    Verify,
    /// A backup a day, each after another scattered update.
    Daily,
    /// The newest of these into an empty directory.
    RestoreLast,
    /// The oldest backup into an empty directory.
    RestoreFirst,
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 9] = [
        Self::First,
        Self::Unchanged,
        Self::Clustered,
        Self::Scattered,
        Self::Restore,
        Self::Verify,
        Self::Daily,
        Self::RestoreLast,
        Self::RestoreFirst,
    ];

    /// Whether it makes a backup.
    pub fn is_backup(self) -> bool {
        !self.is_restore() && self != Self::Verify
    }

    /// Whether it restores one.
    pub fn is_restore(self) -> bool {
        matches!(self, Self::Restore | Self::RestoreLast | Self::RestoreFirst)
    }

    /// How often it is done in this round, counted from 0. The long series is for the first one alone.
    fn repetitions(self, round: usize) -> usize {
        match self {
            Self::Daily if round == 0 => DAYS,
            Self::RestoreLast | Self::RestoreFirst if round == 0 => 3,
            Self::Daily | Self::RestoreLast | Self::RestoreFirst => 0,
            _ => 1,
        }
    }

    /// Its name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Unchanged => "unchanged",
            Self::Clustered => "clustered",
            Self::Scattered => "scattered",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Daily => "daily",
            Self::RestoreLast => "restore-last",
            Self::RestoreFirst => "restore-first",
        }
    }

    /// Its name in a table.
    pub fn title(self) -> &'static str {
        match self {
            Self::First => "first backup",
            Self::Unchanged => "no change",
            Self::Clustered => "after a clustered 1 % update",
            Self::Scattered => "after a scattered 1 % update",
            Self::Restore => "restore",
            Self::Verify => "verify",
            Self::Daily => "a day of many",
            Self::RestoreLast => "restore of the last day",
            Self::RestoreFirst => "restore of the first backup",
        }
    }
}

/// Measures and prints; whether all goals are met.
pub fn bench(options: &Options) -> Result<bool> {
    let scratch = Scratch::new(options.common.directory.as_deref())?;
    let source = Source::open(options, &scratch)?;
    let mut programs = peers::chosen(options, &scratch);
    let mut runs = Vec::new();
    for round in 0..options.common.rounds {
        // Whoever goes first finds another cache: each does so in its turn.
        let first = round % programs.len();
        programs.rotate_left(first);
        play(round, options, &source, &mut programs, &scratch, &mut runs)?;
        programs.rotate_right(first);
    }
    let report = Report::new(options, &programs, &runs);
    report.print(options.common.json)?;
    Ok(report.all_goals_met())
}

/// One round: every program begins with an empty repository and does all the work.
fn play(
    round: usize,
    options: &Options,
    source: &Source,
    programs: &mut [Box<dyn Program + '_>],
    scratch: &Scratch,
    runs: &mut Vec<Run>,
) -> Result {
    for program in programs.iter_mut() {
        program.begin(source).map_err(|failure| failure.during(program.name()))?;
    }
    for work in options.work.iter().flat_map(|work| std::iter::repeat_n(*work, work.repetitions(round))) {
        source.change(work)?;
        for program in programs.iter_mut().filter(|program| program.lacks(work).is_none()) {
            let (name, to) = (program.name(), scratch.empty("restored")?);
            let figures = run(program.as_mut(), source, work, &to)
                .map_err(|failure| failure.during(format!("{name}, {}", work.title())))?;
            eprintln!("round {}/{}  {:<30} {name:<12} {figures}", round + 1, options.common.rounds, work.title());
            // Once is enough: every round restores the same kind of backup.
            if matches!(work, Work::Restore | Work::RestoreLast) && round == 0 {
                source.must_equal(&program.restored(&to), scratch).map_err(|failure| failure.during(name))?;
                eprintln!("           what {name} restored equals the source");
            }
            runs.push(Run { program: name, work, figures });
        }
    }
    programs.iter_mut().try_for_each(|program| program.end())
}

/// One measurement.
fn run(program: &mut dyn Program, source: &Source, work: Work, to: &Path) -> Result<Figures> {
    program.prepare(source, work)?;
    source.settle()?;
    let meter = Meter::start(program, source)?;
    program.work(source, work, to)?;
    meter.stop(program, source, work)
}
