//! Ours: `holdfast serve` with a primary target only, and its commands, as an operator has them.
//!
//! What counts is the server's process, with the command that waits for it in its CPU time.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_tests::appliance::Appliance;
use holdfast_tests::{Failure, ROLE, Result};

use super::Program;
use crate::postgres::Work;
use crate::postgres::source::Source;
use crate::scratch::Scratch;

const INSTANCE: &str = "bench/shop/pg";
const NEWEST: &str = "bench/shop/pg/latest";
const OLDEST: &str = "bench/shop/pg/first";

/// An appliance of one round.
pub struct Holdfast<'a> {
    scratch: &'a Scratch,
    running: Option<Running>,
}

struct Running {
    appliance: Appliance,
    process: u32,
    repository: PathBuf,
}

impl<'a> Holdfast<'a> {
    pub fn new(scratch: &'a Scratch) -> Self {
        Self { scratch, running: None }
    }

    fn appliance(&self) -> Result<&Appliance> {
        let running = self.running.as_ref().ok_or_else(|| Failure::new("the appliance does not run"))?;
        Ok(&running.appliance)
    }
}

impl Program for Holdfast<'_> {
    fn name(&self) -> &'static str {
        "holdfast"
    }

    fn begin(&mut self, source: &Source) -> Result {
        let data = self.scratch.join("holdfast");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        let mut appliance = Appliance::on(&data);
        appliance.configure("here", None)?;
        appliance.start()?;
        // By the socket, as `pg_basebackup` beside it.
        let cluster = source.cluster();
        let host = format!("host={}", cluster.socket_directory().display());
        let (port, user) = (format!("port={}", cluster.port()), format!("user={ROLE}"));
        let words = ["instance", "add", INSTANCE, "--engine", "postgres", "--no-schedule"];
        appliance.run(words.into_iter().chain(["--set", &host, "--set", &port, "--set", &user]))?.done()?;
        self.running = Some(Running { process: appliance.process()?, repository: data.join("repository"), appliance });
        Ok(())
    }

    fn lacks(&self, _: Work) -> Option<&'static str> {
        None
    }

    fn work(&mut self, _: &Source, work: Work, to: &Path) -> Result {
        let appliance = self.appliance()?;
        match work {
            Work::Restore | Work::RestoreLast => appliance.restore(NEWEST, to, &[], &["--wait"])?.done().map(drop),
            Work::RestoreFirst => appliance.restore(OLDEST, to, &[], &["--wait"])?.done().map(drop),
            Work::Verify => appliance.verify(NEWEST).map(drop),
            Work::First => {
                appliance.run(["backup", "create", INSTANCE, "--name=first", "--wait=primary"])?.done().map(drop)
            }
            _ => appliance.back_up(INSTANCE, "primary").map(drop),
        }
    }

    fn repository(&self) -> Option<&Path> {
        self.running.as_ref().map(|running| running.repository.as_path())
    }

    fn service(&self) -> Option<u32> {
        self.running.as_ref().map(|running| running.process)
    }

    fn end(&mut self) -> Result {
        self.running.take().map_or(Ok(()), |mut running| running.appliance.stop().map(drop))
    }
}
