//! Debian's pgBackRest with its fastest safe settings and block incremental backups: zstd 3, AES, two processes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_tests::Result;
use holdfast_tests::cluster::finished;

use super::Program;
use crate::postgres::Work;
use crate::postgres::source::Source;
use crate::scratch::Scratch;

/// Its repository and the files beside it.
pub struct PgBackRest<'a> {
    scratch: &'a Scratch,
    repository: PathBuf,
}

impl<'a> PgBackRest<'a> {
    pub fn new(scratch: &'a Scratch) -> Self {
        Self { scratch, repository: scratch.join("pgbackrest/repository") }
    }

    fn command(&self, source: &Source) -> Command {
        let mut command = source.account().command("pgbackrest", "KILL");
        command.arg("--config").arg(self.scratch.join("pgbackrest/configuration")).arg("--stanza=bench");
        command
    }

    fn configuration(&self, source: &Source) -> String {
        let own = self.scratch.join("pgbackrest");
        let (own, cluster) = (own.display(), source.cluster());
        // Nothing is archived: what a backup needs to become consistent is still at the source.
        format!(
            "[global]\n\
             repo1-path={}\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=orchid\nrepo1-retention-full=9\n\
             beta=y\nrepo1-bundle=y\nrepo1-block=y\ncompress-type=zst\ncompress-level=3\nprocess-max=2\n\
             start-fast=y\narchive-check=n\n\
             log-level-console=warn\nlog-level-file=off\nlog-path={own}\nlock-path={own}/lock\nspool-path={own}\n\
             [bench]\n\
             pg1-path={}\npg1-socket-path={}\npg1-port={}\npg1-user=postgres\n",
            self.repository.display(),
            cluster.data().display(),
            cluster.socket_directory().display(),
            cluster.port(),
        )
    }
}

impl Program for PgBackRest<'_> {
    fn name(&self) -> &'static str {
        "pgbackrest"
    }

    fn begin(&mut self, source: &Source) -> Result {
        let own = self.scratch.empty("pgbackrest")?;
        fs::create_dir(&self.repository)?;
        source.account().own(&self.repository)?;
        fs::write(own.join("configuration"), self.configuration(source))?;
        finished(self.command(source).arg("stanza-create")).map(drop)
    }

    fn lacks(&self, work: Work) -> Option<&'static str> {
        if matches!(work, Work::RestoreLast | Work::RestoreFirst) {
            return Some("what a chain of ours costs is compared");
        }
        // Its `verify` ends well and says "missing" of every such file: it looks for them under another name.
        (work == Work::Verify).then_some("2.45 does not find the files of block incremental backups")
    }

    fn work(&mut self, source: &Source, work: Work, to: &Path) -> Result {
        let mut command = self.command(source);
        match work {
            Work::First => command.args(["--type=full", "backup"]),
            Work::Restore => {
                command.arg("--pg1-path").arg(to);
                // The server that is started on it stops reading the log when it is consistent.
                command.args(["--type=immediate", "--target-action=promote", "restore"])
            }
            _ => command.args(["--type=incr", "backup"]),
        };
        finished(&mut command).map(drop)
    }

    fn repository(&self) -> Option<&Path> {
        Some(&self.repository)
    }
}
