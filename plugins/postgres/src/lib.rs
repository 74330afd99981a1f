//! PostgreSQL for Holdfast: base backups by the replication protocol, spoken here and not by `pg_basebackup`.
//!
//! `dump` reads top to bottom how a backup is taken, `restore` how a directory comes back, `verify` what a backup is
//! judged by. The server is never trusted: lengths are bounded, and what is malformed or unexpected is an error.

mod auth;
mod basebackup;
mod completeness;
mod config;
mod control;
mod corruption;
mod crc32c;
mod dump;
mod failure;
mod inventory;
mod label;
mod lsn;
mod manifest;
mod members;
mod names;
mod page;
mod probe;
mod recorder;
mod relations;
mod restore;
mod rewrite;
mod server;
mod session;
mod settings;
mod tar;
mod verify;
mod wal;
mod wire;

use holdfast_sdk::document::{
    Description, DumpRequest, Inventory, Probe, RestoreRequest, Restored, Verified, VerifyRequest,
};
use holdfast_sdk::{Engine, Result};

struct Postgres;

impl Engine for Postgres {
    fn describe() -> Description {
        settings::description()
    }

    fn probe() -> Result<Probe> {
        probe::probe()
    }

    fn dump(request: DumpRequest) -> Result<Inventory> {
        dump::dump(&request)
    }

    fn restore(_: RestoreRequest) -> Result<Restored> {
        restore::restore()
    }

    fn verify(request: VerifyRequest) -> Result<Verified> {
        verify::verify(&request)
    }
}

holdfast_sdk::register!(Postgres);
