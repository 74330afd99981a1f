//! The programs that are measured, a file each.

mod base_backup;
mod holdfast;
mod pgbackrest;
mod restic;

use std::path::{Path, PathBuf};

use holdfast_tests::Result;

use crate::postgres::Work;
use crate::postgres::options::Options;
use crate::postgres::source::Source;
use crate::scratch::Scratch;

/// A program that backs up PostgreSQL.
pub trait Program {
    /// Its name in tables and on the command line.
    fn name(&self) -> &'static str;

    /// Begins anew, with an empty repository.
    fn begin(&mut self, source: &Source) -> Result;

    /// Why it does no such work, where it does not.
    fn lacks(&self, work: Work) -> Option<&'static str>;

    /// Makes what has to be there before the clock starts.
    fn prepare(&mut self, _source: &Source, _work: Work) -> Result {
        Ok(())
    }

    /// Does the work: this is what is measured. A restore fills the empty directory `to`.
    fn work(&mut self, source: &Source, work: Work, to: &Path) -> Result;

    /// The data directory within what a restore filled.
    fn restored(&self, to: &Path) -> PathBuf {
        to.into()
    }

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
