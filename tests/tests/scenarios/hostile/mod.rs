//! Plugins that mean harm, installed and run as an operator would: each ends by its limit or its lie in words that help, and
//! neither the server, nor other jobs, nor anything beside what was granted is touched.

mod abi;
mod archive;
mod case;
mod compiler;
mod destination;
mod loading;
mod memory;
mod network;
mod places;
mod records;
mod servers;
mod stage;
mod time;
mod trial;
mod voice;

use std::collections::BTreeSet;
use std::io::Write as _;

use holdfast_tests::{Result, ensure};

use case::Case;
use stage::must_withstand;

#[test]
fn a_guest_that_never_ends_is_ended() -> Result {
    must_withstand("time", time::cases())
}

#[test]
fn a_guest_gets_no_more_memory_than_it_may() -> Result {
    must_withstand("memory", memory::cases())
}

#[test]
fn a_guest_cannot_break_the_abi() -> Result {
    must_withstand("abi", abi::cases())
}

#[test]
fn a_guest_that_lies_about_its_backup_makes_none() -> Result {
    must_withstand("archive", archive::cases())
}

#[test]
fn a_guest_writes_nowhere_but_to_the_destination() -> Result {
    must_withstand("destination", destination::cases())
}

#[test]
fn a_guest_reaches_no_other_server_and_tells_no_secret_in_clear() -> Result {
    must_withstand("network", network::cases())
}

#[test]
fn a_guest_plays_no_tricks_on_whoever_reads() -> Result {
    must_withstand("voice", voice::cases())
}

#[test]
fn what_is_no_usable_plugin_is_refused_when_it_is_installed() -> Result {
    must_withstand("loading", loading::cases())
}

#[test]
fn hostile_guests_are_many_and_each_is_another() -> Result {
    let kinds: [fn() -> Vec<Case>; 8] = [
        time::cases,
        memory::cases,
        abi::cases,
        archive::cases,
        destination::cases,
        network::cases,
        voice::cases,
        loading::cases,
    ];
    let names: Vec<String> = kinds.iter().flat_map(|cases| cases()).map(|case| case.name).collect();
    let distinct: BTreeSet<&String> = names.iter().collect();
    ensure(distinct.len() == names.len(), || "two guests have one name".into())?;
    // Past the harness's capture of output.
    writeln!(std::io::stderr(), "{} hostile guests", names.len())?;
    ensure(names.len() >= 60, || format!("only {} hostile guests", names.len()))
}
