//! Measures PostgreSQL's backup by Holdfast and by its peers side by side, in one run, on one cluster that they all read.
//!
//! The programs take turns at each piece of work and a whole round is repeated; figures are medians over the rounds. What a
//! program restores is compared with the source by SQL. `--gate` fails where a goal is missed, or was not measured.

mod goals;
mod measure;
mod options;
mod peers;
mod processes;
mod report;
mod scratch;
mod source;

use std::process::ExitCode;

use holdfast_tests::Result;
use measure::{Meter, Run};
use options::{Options, USAGE};
use peers::Program;
use report::Report;
use scratch::Scratch;
use source::Source;

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
}

impl Work {
    /// All of it.
    pub const ALL: [Self; 6] =
        [Self::First, Self::Unchanged, Self::Clustered, Self::Scattered, Self::Restore, Self::Verify];

    /// Whether it makes a backup.
    pub fn is_backup(self) -> bool {
        !matches!(self, Self::Restore | Self::Verify)
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
        }
    }
}

fn main() -> ExitCode {
    let Some(options) = Options::parse(std::env::args().skip(1)) else {
        eprint!("{USAGE}");
        return ExitCode::from(2);
    };
    match bench(&options) {
        Ok(report) if options.gate && !report.all_goals_met() => ExitCode::FAILURE,
        Ok(_) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the bench failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<Report> {
    let scratch = Scratch::new(options.directory.as_deref())?;
    let source = Source::open(options, &scratch)?;
    let mut programs = peers::chosen(options, &scratch);
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        // Whoever goes first finds another cache: each does so in its turn.
        let first = round % programs.len();
        programs.rotate_left(first);
        play(round, options, &source, &mut programs, &scratch, &mut runs)?;
        programs.rotate_right(first);
    }
    let report = Report::new(options, &runs);
    report.print(options.json)?;
    Ok(report)
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
    for &work in &options.work {
        source.change(work)?;
        for program in programs.iter_mut() {
            let measured = run(program.as_mut(), source, work);
            let Some(figures) =
                measured.map_err(|failure| failure.during(format!("{}, {}", program.name(), work.title())))?
            else {
                continue;
            };
            eprintln!("round {}/{}  {:<30} {:<26} {figures}", round + 1, options.rounds, work.title(), program.name());
            if work == Work::Restore {
                // Once a run: every round restores the same kind of backup.
                if round == 0 {
                    source
                        .must_equal(&program.restored(), scratch)
                        .map_err(|failure| failure.during(program.name()))?;
                    eprintln!("           what {} restored equals the source", program.name());
                }
                std::fs::remove_dir_all(program.restored())?;
            }
            runs.push(Run { program: program.name(), work, figures });
        }
    }
    programs.iter_mut().try_for_each(|program| program.end())
}

/// One measurement; none where the program does not do such work.
fn run(program: &mut dyn Program, source: &Source, work: Work) -> Result<Option<measure::Figures>> {
    if !program.prepare(source, work)? {
        return Ok(None);
    }
    source.settle()?;
    let meter = Meter::start(program, source)?;
    program.work(source, work)?;
    meter.stop(program, source, work).map(Some)
}
