//! Harm to time: guests that never end.

use std::hint::black_box;

use holdfast_sdk::{Result, archive, endpoint, io, job};

use crate::Harm;

pub const HARMS: &[Harm] = &[
    ("loop", compute),
    ("recursion", recurse),
    ("host-calls", call),
    ("breaths", breathe),
    ("wait", wait),
    ("dialling", dial),
    ("settings", ask),
    ("pages", list),
];

fn compute() -> Result<()> {
    let mut number = 1_u64;
    loop {
        number = black_box(number.wrapping_mul(3));
    }
}

fn recurse() -> Result<()> {
    #[expect(unconditional_recursion, reason = "it is what is tried")]
    fn deeper(depth: u64) -> u64 {
        black_box(deeper(black_box(depth + 1)) + 1)
    }
    black_box(deeper(0));
    Ok(())
}

fn call() -> Result<()> {
    loop {
        black_box(job::now());
    }
}

/// Never computes for long without a host call: no bound but that of the whole run ends it.
fn breathe() -> Result<()> {
    loop {
        let until = job::monotonic() + 100_000_000;
        while job::monotonic() < until {
            for number in 0..1_000_000_u64 {
                black_box(number);
            }
        }
    }
}

/// Waits for nobody, for seven weeks.
fn wait() -> Result<()> {
    io::wait(&[], u32::MAX)?;
    Ok(())
}

fn dial() -> Result<()> {
    loop {
        drop(endpoint::connect(0));
    }
}

fn ask() -> Result<()> {
    loop {
        black_box(job::setting("host"));
    }
}

/// Lists the backup again and again.
fn list() -> Result<()> {
    let backup = crate::honest::current()?;
    loop {
        black_box(backup.entries("", "", archive::PAGE)?);
    }
}
