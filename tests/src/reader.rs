//! `reader.py`, the independent reader of repositories, run as its users run it: on a local copy of a target, with a recovery kit.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::appliance::Answer;
use crate::{Failure, Result, ensure};

/// The program on one target.
pub struct Reader {
    python: PathBuf,
    target: PathBuf,
    kit: PathBuf,
}

impl Reader {
    /// Reads the target at a path with a recovery kit, in the environment that `cargo xtask setup` makes.
    pub fn new(target: &Path, kit: &Path) -> Result<Self> {
        Ok(Self { python: python()?, target: target.into(), kit: kit.into() })
    }

    /// Lists the backups: their ids and full names.
    pub fn list(&self) -> Result<Vec<(String, String)>> {
        let answer = self.run(&["list".as_ref()])?.done()?;
        let columns = |line: &str| {
            let mut columns = line.split('\t').map(String::from);
            columns.next().zip(columns.next())
        };
        let rows: Option<Vec<_>> = answer.stdout.lines().skip(1).map(columns).collect();
        rows.ok_or_else(|| Failure::new(format!("no list of backups: {answer}")))
    }

    /// Extracts a backup into a directory, which must be empty or absent.
    pub fn extract(&self, backup: &str, out: &Path) -> Result {
        self.try_to_extract(backup, out)?.done().map(drop)
    }

    /// Fails unless that is refused for a reason in which these words stand.
    pub fn must_refuse_to_extract(&self, backup: &str, out: &Path, words: &str) -> Result {
        let answer = self.try_to_extract(backup, out)?;
        ensure(answer.code == Some(1) && answer.stderr.contains(words) && !answer.stderr.contains("Traceback"), || {
            format!("it was to be refused for {words:?}: {answer}")
        })
    }

    fn try_to_extract(&self, backup: &str, out: &Path) -> Result<Answer> {
        self.run(&["extract".as_ref(), backup.as_ref(), out.as_os_str()])
    }

    fn run(&self, words: &[&OsStr]) -> Result<Answer> {
        let mut command = Command::new(&self.python);
        command.arg(script("reader.py")).arg(&self.target).arg("--identity").arg(&self.kit).args(words);
        Answer::of(&mut command)
    }
}

/// A program in Python of these tests.
pub fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The interpreter that has what `reader.py` needs: in cargo's target directory, somewhere above this program.
pub fn python() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let found = own.ancestors().map(|directory| directory.join("python/bin/python")).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new(format!("no Python environment near {}; `cargo xtask setup` makes it", own.display()))
    })
}
