//! PostgreSQL's own `pg_basebackup`: to nowhere, which is as fast as the server sends; and compressed by the client, neither
//! encrypted nor deduplicated.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use holdfast_tests::Result;
use holdfast_tests::cluster::finished;

use super::Program;
use crate::postgres::Work;
use crate::postgres::source::Source;
use crate::scratch::Scratch;

/// The command that all uses of it share: the log that the backup needs comes in it, as in ours.
pub fn pg_basebackup(source: &Source) -> Command {
    let mut command = source.cluster().client("pg_basebackup");
    command.args(["--checkpoint=fast", "--wal-method=fetch"]);
    command
}

/// A tar stream to `/dev/null`.
pub struct Nowhere;

impl Program for Nowhere {
    fn name(&self) -> &'static str {
        "nowhere"
    }

    fn begin(&mut self, _: &Source) -> Result {
        Ok(())
    }

    fn lacks(&self, work: Work) -> Option<&'static str> {
        match work {
            Work::Daily => Some("every day is as the first one"),
            work => (!work.is_backup()).then_some("it stores nothing"),
        }
    }

    fn work(&mut self, source: &Source, _: Work, _: &Path) -> Result {
        let mut command = pg_basebackup(source);
        finished(command.args(["--format=tar", "--pgdata=-"]).stdout(Stdio::null())).map(drop)
    }

    fn repository(&self) -> Option<&Path> {
        None
    }
}

/// Tar files, compressed by zstd at level 3 in two threads.
pub struct Zstd<'a> {
    scratch: &'a Scratch,
    repository: PathBuf,
    backups: u32,
}

impl<'a> Zstd<'a> {
    pub fn new(scratch: &'a Scratch) -> Self {
        Self { scratch, repository: scratch.join("zstd"), backups: 0 }
    }

    fn newest(&self) -> PathBuf {
        self.repository.join(self.backups.to_string())
    }
}

impl Program for Zstd<'_> {
    fn name(&self) -> &'static str {
        "zstd"
    }

    fn begin(&mut self, _: &Source) -> Result {
        self.scratch.empty("zstd").map(drop)
    }

    fn lacks(&self, work: Work) -> Option<&'static str> {
        match work {
            Work::Verify => Some("it verifies no compressed backup"),
            Work::Daily | Work::RestoreLast | Work::RestoreFirst => Some("every day is as the first one"),
            _ => None,
        }
    }

    fn work(&mut self, source: &Source, work: Work, to: &Path) -> Result {
        let mut command = if work == Work::Restore {
            let mut tar = source.account().command("tar", "KILL");
            tar.args(["--extract", "--use-compress-program=zstd", "--file"]).arg(self.newest().join("base.tar.zst"));
            tar.arg("--directory").arg(to);
            tar
        } else {
            self.backups += 1;
            let mut backup = pg_basebackup(source);
            backup.args(["--format=tar", "--compress=client-zstd:level=3,workers=2", "--pgdata"]).arg(self.newest());
            backup
        };
        finished(&mut command).map(drop)
    }

    fn repository(&self) -> Option<&Path> {
        Some(&self.repository)
    }
}
