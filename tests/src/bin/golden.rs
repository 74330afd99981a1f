//! Makes the fixture of this version anew: a data directory with its repository, and the recovery kit that opens it.
//!
//! Run by hand, once a version, as `cargo xtask golden`; the scenarios in `golden.rs` hold later versions to what it wrote.

use std::fs;
use std::process::{Command, ExitCode};

use holdfast_tests::appliance::Appliance;
use holdfast_tests::cluster::Cluster;
use holdfast_tests::golden::{self, DATA, INSTANCE, KIT, Place, ROWS, TABLE};
use holdfast_tests::{PASSWORD, ROLE, Result, Workdir, ensure};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn main() -> ExitCode {
    match make() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("the fixture was not made: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn make() -> Result {
    let workdir = Workdir::new("golden")?;
    // Small segments, and a log that is full of zeros: the fixture lives in the source tree.
    let cluster = Cluster::create(&workdir.join("postgres"), &[("wal_init_zero", "on"), ("max_wal_size", "32MB")])?;
    cluster.create_backup_role(ROLE, PASSWORD)?;
    cluster.sql("postgres", &format!("CREATE TABLE {TABLE} AS {ROWS}; CHECKPOINT"))?;

    let place = Place::take(VERSION)?;
    let mut appliance = Appliance::on(&place.path().join(DATA));
    appliance.start()?;
    appliance.make_recovery_kit(&place.path().join(KIT))?;
    appliance.add_instance(INSTANCE, &cluster, &workdir, &[])?.done()?;
    appliance.back_up(INSTANCE, "primary")?;
    appliance.back_up(INSTANCE, "primary")?;
    // The catalog's export is in the repository too.
    appliance.wait_until_remembered(INSTANCE)?;
    appliance.stop()?;
    // The log and the compiled plugins are this machine's, not the version's.
    fs::remove_file(appliance.log())?;
    let cache = appliance.data().join("cache");
    if cache.exists() {
        fs::remove_dir_all(cache)?;
    }

    let fixture = golden::fixture(VERSION);
    ensure(!fixture.exists(), || format!("{} exists; a version's fixture is never made twice", fixture.display()))?;
    fs::create_dir_all(&fixture)?;
    let copied = Command::new("cp")
        .args(["--recursive", "--preserve=mode"])
        .arg(place.path().join("."))
        .arg(&fixture)
        .status()?
        .success();
    ensure(copied, || format!("{} could not be written", fixture.display()))
}
