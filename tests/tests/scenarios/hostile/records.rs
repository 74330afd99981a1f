//! What the host keeps of a backup's entries until its end is bounded without any configuration.

use std::io::Write as _;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::{Result, Workdir, ensure, guest};

/// The most that the server may have resident: its own, and what is kept of entries by default, with what holds it together.
const MEMORY: u64 = 700_000_000;

#[test]
fn a_guest_that_makes_entries_for_ever_fills_no_memory_by_default() -> Result {
    let workdir = Workdir::new("hostile-records")?;
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.configure("here", None)?;
    appliance.start()?;
    appliance.run(["plugin", "install", &guest("hostile")?.display().to_string()])?.done()?;
    for harm in ["entry-records", "short-entries", "annotations"] {
        // Each by itself: what an allocator keeps for later is not counted twice.
        appliance.stop()?;
        appliance.start()?;
        let (instance, setting) = (format!("acme/hostile/{harm}"), format!("dump={harm}"));
        let words = ["instance", "add", &instance, "--engine", "hostile", "--no-schedule", "--set", &setting];
        appliance.run(words)?.done()?;
        appliance.run(["backup", "create", &instance, "--wait"])?.refused(&["records (384 MiB"])?;
        let peak = appliance.peak_memory_bytes()?;
        // Past the harness's capture of output.
        writeln!(std::io::stderr(), "{harm}: {} MB resident at most", peak / 1_000_000)?;
        ensure(peak < MEMORY, || format!("{harm}: {} MB were resident", peak / 1_000_000))?;
    }
    Ok(())
}
