//! The result: medians by work and program, beside what pgBackRest needed in the same run, and the goals.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::goal::Goal;
use crate::postgres::Work;
use crate::postgres::goals;
use crate::postgres::measure::{Figures, Run};
use crate::postgres::options::Options;
use crate::postgres::peers::Program;

/// Whom the others are compared with.
const YARDSTICK: &str = "pgbackrest";

/// What all runs came to.
pub struct Report {
    gib: f64,
    rounds: usize,
    lines: Vec<Line>,
    goals: Vec<Goal>,
}

/// Medians of one program at one piece of work, or why it does none.
pub struct Line {
    work: Work,
    program: &'static str,
    figures: Result<Figures, &'static str>,
}

impl Report {
    /// Reckons the medians.
    pub fn new(options: &Options, programs: &[Box<dyn Program + '_>], runs: &[Run]) -> Self {
        let mut lines = Vec::new();
        for &work in &options.work {
            for program in programs {
                let same = runs.iter().filter(|run| run.work == work && run.program == program.name());
                let figures = median(&same.map(|run| &run.figures).collect::<Vec<_>>());
                let figures = figures.ok_or(program.lacks(work).unwrap_or("it did not run"));
                lines.push(Line { work, program: program.name(), figures });
            }
        }
        let goals = goals::of(&lines);
        Self { gib: options.gib, rounds: options.common.rounds, lines, goals }
    }

    /// Whether no goal is missed, and none was left unmeasured.
    pub fn all_goals_met(&self) -> bool {
        self.goals.iter().all(Goal::is_met)
    }

    /// To standard output.
    pub fn print(&self, as_json: bool) -> holdfast_tests::Result {
        let mut output = io::stdout().lock();
        if as_json {
            serde_json::to_writer_pretty(&mut output, &self.json())?;
            return Ok(writeln!(output)?);
        }
        let Self { gib, rounds, .. } = self;
        writeln!(
            output,
            "\nPostgreSQL, {gib} GiB, medians of {rounds}; ratios to {YARDSTICK}; CPU of client + server; memory at its peak\n"
        )?;
        for lines in self.lines.chunk_by(|one, next| one.work == next.work) {
            let title = lines.first().map_or("", |line| line.work.title());
            writeln!(
                output,
                "{title:<30}{:>8}{:>8}{:>16}{:>9}{:>11}{:>8}",
                "wall s", "ratio", "CPU s", "peak MB", "stored MB", "ratio"
            )?;
            lines.iter().try_for_each(|line| writeln!(output, "{}", self.row(line)))?;
        }
        writeln!(output)?;
        self.goals.iter().try_for_each(|goal| writeln!(output, "{goal}"))?;
        Ok(())
    }

    fn row(&self, line: &Line) -> String {
        let figures = match &line.figures {
            Ok(figures) => figures,
            Err(reason) => return format!("  {:<28}({reason})", line.program),
        };
        let yardstick = find(&self.lines, line.work, YARDSTICK);
        let share = |of: fn(&Figures) -> Option<f64>| {
            let (of, to) = (of(figures)?, of(yardstick?)?);
            (to > 0.0).then(|| format!("{:.2}", of / to))
        };
        format!(
            "  {:<28}{:>8.2}{:>8}{:>9.2} + {:>4.2}{:>9.0}{:>11}{:>8}",
            line.program,
            figures.wall.as_secs_f64(),
            share(Figures::wall_seconds).unwrap_or_default(),
            figures.client_cpu.as_secs_f64(),
            figures.server_cpu.as_secs_f64(),
            figures.peak_memory as f64 / 1e6,
            figures.stored_megabytes().map(|stored| format!("{stored:.1}")).unwrap_or_default(),
            share(Figures::stored_megabytes).unwrap_or_default(),
        )
    }

    fn json(&self) -> Value {
        let lines = self.lines.iter().map(|line| match &line.figures {
            Ok(Figures { wall, client_cpu, server_cpu, peak_memory, stored }) => json!({
                "work": line.work.name(), "program": line.program, "wallSeconds": wall.as_secs_f64(),
                "clientCpuSeconds": client_cpu.as_secs_f64(), "serverCpuSeconds": server_cpu.as_secs_f64(),
                "peakMemoryBytes": peak_memory, "storedBytes": stored,
            }),
            Err(reason) => json!({ "work": line.work.name(), "program": line.program, "lacks": reason }),
        });
        let goals: Vec<Value> = self.goals.iter().map(Goal::json).collect();
        json!({ "gib": self.gib, "rounds": self.rounds, "figures": lines.collect::<Vec<_>>(), "goals": goals })
    }
}

/// The figures of a program at a piece of work.
pub fn find<'a>(lines: &'a [Line], work: Work, program: &str) -> Option<&'a Figures> {
    lines.iter().find(|line| line.work == work && line.program == program)?.figures.as_ref().ok()
}

/// The most memory that a program needed for any work, in bytes.
pub fn peak_memory(lines: &[Line], program: &str) -> Option<u64> {
    let figures = lines.iter().filter(|line| line.program == program).filter_map(|line| line.figures.as_ref().ok());
    figures.map(|figures| figures.peak_memory).max()
}

/// Each figure's median by itself, but of bytes stored, which no noise changes, the average; none of none.
fn median(figures: &[&Figures]) -> Option<Figures> {
    fn middle<T: Ord + Copy>(figures: &[&Figures], of: impl Fn(&Figures) -> T) -> Option<T> {
        let mut all: Vec<T> = figures.iter().map(|figures| of(figures)).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }
    Some(Figures {
        wall: middle(figures, |figures| figures.wall)?,
        client_cpu: middle(figures, |figures| figures.client_cpu)?,
        server_cpu: middle(figures, |figures| figures.server_cpu)?,
        peak_memory: middle(figures, |figures| figures.peak_memory)?,
        stored: figures.iter().map(|figures| figures.stored).sum::<Option<u64>>().map(|sum| sum / figures.len() as u64),
    })
}
