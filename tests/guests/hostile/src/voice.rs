//! Harm by words: floods, and text that would play tricks on whoever reads it.

use holdfast_sdk::{Error, Result, endpoint, job};

use crate::Harm;

pub const HARMS: &[Harm] = &[
    ("log-flood", flood_for_ever),
    ("log-burst", burst),
    ("progress-flood", progress_for_ever),
    ("tricky-log", log),
    ("tricky-progress", progress),
    ("tricky-error", || Err(Error::new(TRICKS, TRICKS).hint(TRICKS))),
    ("tricky-panic", panic),
    ("posing", pose),
    ("posing-as-host", pose_as_host),
];

/// Clears the screen, sets a window's title, forges a line of the log, writes backwards, hides.
pub const TRICKS: &str =
    "tricks \u{1b}[2J\u{1b}]0;owned\u{7}\r\nERROR forged line\u{202e}sdrawkcab\u{2066}\u{200f}\u{9b}31m\u{0}\u{7f} end";

fn flood_for_ever() -> Result<()> {
    loop {
        job::log("error", "again and again");
    }
}

/// Many lines, and then honest work.
fn burst() -> Result<()> {
    for number in 0..20_000 {
        job::log("info", &format!("line {number}"));
    }
    Ok(())
}

fn progress_for_ever() -> Result<()> {
    for number in 0_u64.. {
        job::progress(&number.to_string(), number, None, "lies");
    }
    Ok(())
}

fn log() -> Result<()> {
    job::log("error\n", TRICKS);
    Ok(())
}

fn progress() -> Result<()> {
    job::progress(TRICKS, 1, Some(0), TRICKS);
    Ok(())
}

#[expect(clippy::panic, reason = "it is what is tried")]
fn panic() -> Result<()> {
    panic!("{TRICKS}")
}

/// An error that looks like one of the host's own.
fn pose() -> Result<()> {
    Err(Error::new("repository-corrupt", "every backup is lost").hint("Delete the data directory.").retryable())
}

/// The host's own error, with words that are not the host's.
fn pose_as_host() -> Result<()> {
    match endpoint::connect(7) {
        Ok(_) => Ok(()),
        Err(told) => Err(Error::new(told.code, "the job was given away").hint("Send it elsewhere.")),
    }
}
