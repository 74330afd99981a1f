//! What the border between host and plugin costs: a program of the sandbox's own, `boundary`, measures it and says in its head
//! what it compares with what. Here are its server and its judge.

use std::env;
use std::io::Write as _;
use std::process::Command;

use holdfast_tests::cluster::{Cluster, finished};
use holdfast_tests::{Failure, Result, guest};
use serde_json::{Value, json};

use crate::goal::{Bound, Goal};
use crate::options::Common;
use crate::scratch::Scratch;

/// Shown for anything that is not understood.
pub const USAGE: &str = "\
usage: cargo xtask bench sandbox [OPTION]

  --gate        exit with 1 where a goal is missed
  --rounds N    how often everything is done; medians are shown; 3 by default
  --rows N      millions of rows to copy; 9 by default
  --dir DIR     make everything there, and keep the cluster for the next call
  -o json       the result as JSON
";

/// The guest knows this name too.
const DATABASE: &str = "bench";

const COPY: &str = "COPY pgbench_accounts TO STDOUT";

/// Bytes of a transfer.
const TRANSFER: u64 = 4 << 30;

/// Rows of pgbench's table for each unit of scale.
const SCALE_ROWS: u32 = 100_000;

/// The options.
pub struct Options {
    /// How to measure.
    pub common: Common,
    /// Millions of rows.
    rows: u32,
}

impl Options {
    /// `None` for anything that is not understood.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { common: Common::default(), rows: 9 };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--rows" => options.rows = arguments.next()?.parse().ok().filter(|rows| (1..1_000).contains(rows))?,
                other => options.common.take(other, &mut arguments)?.then_some(())?,
            }
        }
        Some(options)
    }
}

/// Measures and prints; whether all goals are met.
pub fn bench(options: &Options) -> Result<bool> {
    let scratch = Scratch::new(options.common.directory.as_deref())?;
    let cluster = scratch.cluster(&format!("{} million rows", options.rows), |root| {
        let cluster = Cluster::create(root, &[("autovacuum", "off"), ("max_wal_size", "4GB")])?;
        cluster.sql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        cluster.fill(DATABASE, options.rows * 1_000_000 / SCALE_ROWS)?;
        cluster.sql(DATABASE, "VACUUM FREEZE; CHECKPOINT;")?;
        Ok(cluster)
    })?;
    let times: Value = serde_json::from_str(&finished(&mut boundary(options, &cluster)?)?)?;
    let measured = Measured {
        transfer: Pair::of(&times["transfer"])?,
        rows: Pair::of(&times["rows"])?,
        start: median(&times["start"])?,
    };
    measured.print(options)?;
    Ok(measured.goals().iter().all(Goal::is_met))
}

/// The program with its arguments.
fn boundary(options: &Options, cluster: &Cluster) -> Result<Command> {
    let own = env::current_exe()?;
    let beside = |name: &str| own.with_file_name("examples").join(name);
    let mut psql = cluster.client("psql");
    psql.args(["--no-psqlrc", "--quiet", "--dbname", DATABASE, "--command", COPY]);
    let mut command = Command::new(beside("boundary"));
    command.args([guest("bench")?, guest("bench")?.with_file_name("../plugins/postgres.wasm")]);
    command.args([options.common.rounds.to_string(), TRANSFER.to_string()]);
    command.arg(cluster.socket_directory().join(format!(".s.PGSQL.{}", cluster.port()))).arg(COPY);
    command.arg(psql.get_program()).args(psql.get_args());
    Ok(command)
}

/// Medians in seconds.
struct Measured {
    transfer: Pair,
    rows: Pair,
    start: f64,
}

struct Pair {
    native: f64,
    guest: f64,
}

impl Pair {
    fn of(times: &Value) -> Result<Self> {
        Ok(Self { native: median(&times["native"])?, guest: median(&times["guest"])? })
    }
}

fn median(times: &Value) -> Result<f64> {
    let mut all: Vec<f64> = times.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied().ok_or_else(|| Failure::new("something was not measured"))
}

impl Measured {
    fn goals(&self) -> [Goal; 3] {
        let goal = |title, bound, unit, figure| Goal { title, bound, unit, figure: Some(figure) };
        [
            goal(
                "transfer, speed to native code's",
                Bound::AtLeast(0.8),
                "x",
                self.transfer.native / self.transfer.guest,
            ),
            goal("rows, wall to psql's", Bound::AtMost(1.1), "x", self.rows.guest / self.rows.native),
            goal("start of a cached plugin", Bound::AtMost(10.0), " ms", self.start * 1e3),
        ]
    }

    fn print(&self, options: &Options) -> Result {
        let mut output = std::io::stdout().lock();
        let Self { transfer, rows, start } = self;
        if options.common.json {
            let pair = |pair: &Pair| json!({ "nativeSeconds": pair.native, "guestSeconds": pair.guest });
            let result = json!({
                "rounds": options.common.rounds, "transferBytes": TRANSFER, "transfer": pair(transfer),
                "rowMillions": options.rows, "rows": pair(rows), "startSeconds": start,
                "goals": self.goals().iter().map(Goal::json).collect::<Vec<_>>(),
            });
            return Ok(writeln!(output, "{result:#}")?);
        }
        let line = |title: &str, native: f64, guest: f64| {
            format!("{title:<40}{native:>12.3}{guest:>12.3}{:>10.2}", guest / native)
        };
        writeln!(output, "\nThe border of the sandbox, medians of {}, seconds\n", options.common.rounds)?;
        writeln!(output, "{:<40}{:>12}{:>12}{:>10}", "", "native", "guest", "ratio")?;
        writeln!(
            output,
            "{}",
            line(&format!("transfer of {} GiB, socket to socket", TRANSFER >> 30), transfer.native, transfer.guest)
        )?;
        writeln!(
            output,
            "{}",
            line(&format!("{} million rows by COPY; native: psql", options.rows), rows.native, rows.guest)
        )?;
        writeln!(output, "{:<40}{:>12}{start:>12.4}\n", "start of a cached plugin", "")?;
        self.goals().iter().try_for_each(|goal| writeln!(output, "{goal}"))?;
        Ok(())
    }
}
