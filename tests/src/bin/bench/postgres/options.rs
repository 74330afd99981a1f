//! What the command line asks for.

use crate::options::Common;
use crate::postgres::Work;

/// Shown for anything that is not understood.
pub const USAGE: &str = "\
usage: cargo xtask bench postgres [OPTION]

  --gate        exit with 1 where a goal is missed or was not measured
  --rounds N    how often everything is done; medians are shown; 3 by default
  --gib N       size of the cluster; 2.25 by default
  --only A,B    these programs only: holdfast, nowhere, zstd, pgbackrest, restic
  --work A,B    this work only, besides the first backup: unchanged, clustered, scattered, restore, verify,
                and in the first round only: daily, restore-last, restore-first
  --dir DIR     make everything there, and keep the cluster for the next call
  -o json       the result as JSON
";

/// The programs that may be named by `--only`, in the order of the table.
pub const PROGRAMS: [&str; 5] = ["holdfast", "nowhere", "zstd", "pgbackrest", "restic"];

/// The options.
pub struct Options {
    /// How to measure.
    pub common: Common,
    /// Size of the cluster in GiB.
    pub gib: f64,
    /// Names out of [`PROGRAMS`].
    pub only: Vec<&'static str>,
    /// In the order of [`Work::ALL`]; the first backup is always among it.
    pub work: Vec<Work>,
}

impl Options {
    /// `None` for anything that is not understood.
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self { common: Common::default(), gib: 2.25, only: PROGRAMS.into(), work: Work::ALL.into() };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--gib" => options.gib = arguments.next()?.parse().ok().filter(|gib| (0.1..1000.0).contains(gib))?,
                "--only" => options.only = chosen(&arguments.next()?, &PROGRAMS, |name| name)?,
                "--work" => options.work = chosen(&arguments.next()?, &Work::ALL, Work::name)?,
                other => options.common.take(other, &mut arguments)?.then_some(())?,
            }
        }
        if !options.work.contains(&Work::First) {
            options.work.insert(0, Work::First);
        }
        Some(options)
    }
}

/// Those of `all` whose names stand in a list, in the order of `all`; `None` if one stands there that is not in it.
fn chosen<T: Copy>(list: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Option<Vec<T>> {
    let words: Vec<&str> = list.split(',').collect();
    let known = words.iter().all(|word| all.iter().any(|item| name(*item) == *word));
    known.then(|| all.iter().copied().filter(|item| words.contains(&name(*item))).collect())
}
