//! The programs that are measured, a file each.

mod base_backup;
mod holdfast;
mod pgbackrest;
mod restic;

use std::path::{Path, PathBuf};

use holdfast_tests::Result;

use crate::Work;
use crate::options::Options;
use crate::scratch::Scratch;
use crate::source::Source;

/// A program that backs up PostgreSQL.
pub trait Program {
    /// Its name in tables and on the command line.
    fn name(&self) -> &'static str;

    /// Begins anew, with an empty repository.
    fn begin(&mut self, source: &Source) -> Result;

    /// Does what has to be there before the clock starts; `false` where the program has no such work.
    fn prepare(&mut self, source: &Source, work: Work) -> Result<bool>;

    /// Does the work: this is what is measured.
    fn work(&mut self, source: &Source, work: Work) -> Result;

    /// The data directory that the last restore wrote.
    fn restored(&self) -> PathBuf;

    /// Where it stores, if it does.
    fn repository(&self) -> Option<&Path>;

    /// The process that does the work while its commands wait, if there is one.
    fn service(&self) -> Option<u32> {
        None
    }

    /// Ends what runs after a command's end.
    fn end(&mut self) -> Result {
        Ok(())
    }
}

/// The programs that were asked for, in the order of the table.
pub fn chosen<'a>(options: &Options, scratch: &'a Scratch) -> Vec<Box<dyn Program + 'a>> {
    let make = |name: &&str| -> Box<dyn Program + 'a> {
        match *name {
            "holdfast" => Box::new(holdfast::Holdfast::new(scratch)),
            "nowhere" => Box::new(base_backup::Nowhere),
            "zstd" => Box::new(base_backup::Zstd::new(scratch)),
            "pgbackrest" => Box::new(pgbackrest::PgBackRest::new(scratch)),
            _ => Box::new(restic::Restic::new(scratch)),
        }
    };
    options.only.iter().map(make).collect()
}
