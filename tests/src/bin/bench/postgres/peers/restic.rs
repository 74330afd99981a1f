//! Debian's restic over a directory that `pg_basebackup` made. Making it is not counted, though nobody could do without.

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::Result;
use holdfast_tests::cluster::finished;

use super::Program;
use super::base_backup::pg_basebackup;
use crate::postgres::Work;
use crate::postgres::source::Source;
use crate::scratch::Scratch;

/// Its repository, and the directory.
pub struct Restic<'a> {
    scratch: &'a Scratch,
    repository: PathBuf,
    directory: PathBuf,
}

impl<'a> Restic<'a> {
    pub fn new(scratch: &'a Scratch) -> Self {
        Self { scratch, repository: scratch.join("restic/repository"), directory: scratch.join("plain") }
    }

    fn command(&self, source: &Source) -> Command {
        let mut command = source.account().command("restic", "KILL");
        command.env("RESTIC_REPOSITORY", &self.repository).env("RESTIC_PASSWORD", "orchid");
        command.env("RESTIC_CACHE_DIR", self.scratch.join("restic/cache")).arg("--quiet");
        command
    }
}

impl Program for Restic<'_> {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn begin(&mut self, source: &Source) -> Result {
        self.scratch.empty("restic")?;
        finished(self.command(source).arg("init")).map(drop)
    }

    fn lacks(&self, work: Work) -> Option<&'static str> {
        matches!(work, Work::Daily | Work::RestoreLast | Work::RestoreFirst)
            .then_some("a day of it is as the one above")
    }

    fn prepare(&mut self, source: &Source, work: Work) -> Result {
        if !work.is_backup() {
            return Ok(());
        }
        // A new one each time, as a nightly job makes it.
        let directory = self.scratch.empty("plain")?;
        finished(pg_basebackup(source).args(["--format=plain", "--no-sync", "--pgdata"]).arg(directory)).map(drop)
    }

    fn work(&mut self, source: &Source, work: Work, to: &Path) -> Result {
        let mut command = self.command(source);
        match work {
            Work::Restore => command.args(["restore", "latest", "--target"]).arg(to),
            Work::Verify => command.args(["check", "--read-data"]),
            _ => command.arg("backup").arg(&self.directory),
        };
        finished(&mut command).map(drop)
    }

    /// It restores below the whole path that it saved.
    fn restored(&self, to: &Path) -> PathBuf {
        to.join(self.directory.strip_prefix("/").unwrap_or(&self.directory))
    }

    fn repository(&self) -> Option<&Path> {
        Some(&self.repository)
    }
}
