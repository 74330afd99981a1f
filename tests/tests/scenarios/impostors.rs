//! A server that lies cannot do more than fail its own backup: it fails soon, says why, in bounded memory, and writes nothing outside.

mod archive;
mod around;
mod login;
mod restored;

use std::fs;
use std::io;

use holdfast_tests::appliance::Appliance;
use holdfast_tests::impostor::Impostor;
use holdfast_tests::{Result, Workdir, ensure};

/// What one run may take here: a test cannot wait for a day.
const LIMITS: &str = "[limits]\ncpu = \"2s\"\nwall = \"30s\"\nidle = \"5s\"\noutput = \"200MiB\"\nentries = 100000\n";

/// The most that the appliance may have resident, in bytes.
const MEMORY: u64 = 300_000_000;

/// An appliance of its own, with tight limits.
fn wary(workdir: &Workdir) -> Result<Appliance> {
    let mut appliance = Appliance::on(&workdir.join("appliance"));
    appliance.configure("here", None)?;
    let configuration = appliance.data().join("holdfast.toml");
    fs::write(&configuration, fs::read_to_string(&configuration)? + LIMITS)?;
    appliance.start()?;
    Ok(appliance)
}

/// Plays each impostor to one backup: it must fail, with one of these words in what it says.
fn must_fail(name: &str, cases: Vec<(&str, Impostor, &[&str])>) -> Result {
    let workdir = Workdir::new(name)?;
    let appliance = wary(&workdir)?;
    let mut wrong = Vec::new();
    for (case, impostor, words) in cases {
        let instance = format!("acme/impostors/{case}");
        appliance.add_instance_at(&instance, impostor.port(), &workdir, &[])?.done()?;
        let attempt = appliance.attempt(&instance)?;
        let said = attempt.error.to_string();
        match attempt.succeeded() {
            Err(failure) => wrong.push(failure.during(case).to_string()),
            Ok(false) if words.iter().any(|word| said.contains(word)) => {}
            Ok(_) => wrong.push(format!("{case}: expected {words:?}, got {said}")),
        }
    }
    let peak = appliance.peak_memory_bytes()?;
    ensure(wrong.is_empty(), || wrong.join("\n"))?;
    ensure(peak < MEMORY, || format!("{} MB were resident", peak / 1_000_000))?;
    // It goes on as if nothing had happened.
    appliance.json(["instance", "list"]).map(drop)
}

/// Again and again, until nobody listens any more.
fn for_ever(mut act: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        act()?;
    }
}
