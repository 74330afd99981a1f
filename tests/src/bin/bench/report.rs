//! The result: medians by work and program, beside what pgBackRest needed in the same run, and the goals.

use std::io::{self, Write};

use holdfast_tests::Result;
use serde_json::{Value, json};

use crate::Work;
use crate::goals::{self, Goal};
use crate::measure::{Figures, Run};
use crate::options::Options;

/// Whom the others are compared with.
const YARDSTICK: &str = "pgbackrest";

/// What all runs came to.
pub struct Report {
    gib: f64,
    rounds: usize,
    lines: Vec<Line>,
    goals: Vec<Goal>,
}

/// Medians of one program at one piece of work.
pub struct Line {
    work: Work,
    program: &'static str,
    figures: Figures,
}

impl Report {
    /// Reckons the medians.
    pub fn new(options: &Options, runs: &[Run]) -> Self {
        let mut lines = Vec::new();
        for &work in &options.work {
            for &program in &options.only {
                let same = runs.iter().filter(|run| run.work == work && run.program == program);
                if let Some(figures) = median(&same.map(|run| &run.figures).collect::<Vec<_>>()) {
                    lines.push(Line { work, program, figures });
                }
            }
        }
        let goals = goals::of(&lines);
        Self { gib: options.gib, rounds: options.rounds, lines, goals }
    }

    /// Whether no goal is missed, and none was left unmeasured.
    pub fn all_goals_met(&self) -> bool {
        self.goals.iter().all(Goal::is_met)
    }

    /// To standard output.
    pub fn print(&self, as_json: bool) -> Result {
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
        let yardstick = find(&self.lines, line.work, YARDSTICK);
        let share = |of: Option<f64>, to: Option<f64>| match (of, to) {
            (Some(of), Some(to)) if to > 0.0 => format!("{:.2}", of / to),
            _ => String::new(),
        };
        let Figures { wall, client_cpu, server_cpu, peak_memory, .. } = &line.figures;
        format!(
            "  {:<28}{:>8.2}{:>8}{:>9.2} + {:>4.2}{:>9.0}{:>11}{:>8}",
            line.program,
            wall.as_secs_f64(),
            share(Some(wall.as_secs_f64()), yardstick.map(Figures::wall_seconds)),
            client_cpu.as_secs_f64(),
            server_cpu.as_secs_f64(),
            *peak_memory as f64 / 1e6,
            line.figures.stored_megabytes().map(|stored| format!("{stored:.1}")).unwrap_or_default(),
            share(line.figures.stored_megabytes(), yardstick.and_then(Figures::stored_megabytes)),
        )
    }

    fn json(&self) -> Value {
        let lines = self.lines.iter().map(|line| {
            let Figures { wall, client_cpu, server_cpu, peak_memory, stored } = &line.figures;
            json!({
                "work": line.work.name(), "program": line.program, "wallSeconds": wall.as_secs_f64(),
                "clientCpuSeconds": client_cpu.as_secs_f64(), "serverCpuSeconds": server_cpu.as_secs_f64(),
                "peakMemoryBytes": peak_memory, "storedBytes": stored,
            })
        });
        let goals: Vec<Value> = self.goals.iter().map(Goal::json).collect();
        json!({ "gib": self.gib, "rounds": self.rounds, "figures": lines.collect::<Vec<_>>(), "goals": goals })
    }
}

/// The figures of a program at a piece of work.
pub fn find<'a>(lines: &'a [Line], work: Work, program: &str) -> Option<&'a Figures> {
    lines.iter().find(|line| line.work == work && line.program == program).map(|line| &line.figures)
}

/// The most memory that a program needed for any work, in bytes.
pub fn peak_memory(lines: &[Line], program: &str) -> Option<u64> {
    lines.iter().filter(|line| line.program == program).map(|line| line.figures.peak_memory).max()
}

/// Each figure's median by itself; none of none.
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
        stored: middle(figures, |figures| figures.stored)?,
    })
}
