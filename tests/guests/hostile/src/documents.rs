//! Lies in the documents that end a call.

use holdfast_sdk::document::{Check, Inventory, Probe, Problem, Restored, Verified};

use crate::voice::TRICKS;

/// The names of all lies.
pub const TWISTS: &[&str] = &[
    "more-entries",
    "fewer-entries",
    "more-bytes",
    "fewer-bytes",
    "huge-counts",
    "tricky-warnings",
    "many-warnings",
    "tricky-server",
    "giant-inventory",
    "inventory-over-limit",
    "tricky-problem",
    "tricky-notes",
    "many-notes",
    "more-restored",
    "tricky-checks",
    "passed-in-spite-of-it",
];

pub fn twist_probe(lie: &str, probe: &mut Probe) {
    if lie == "tricky-problem" {
        let problem = Problem { code: "tricky".into(), message: TRICKS.into(), hint: TRICKS.into(), blocking: true };
        probe.version = TRICKS.into();
        probe.role = TRICKS.into();
        probe.problems.push(problem);
    }
}

pub fn twist_inventory(lie: &str, inventory: &mut Inventory) {
    match lie {
        "more-entries" => inventory.entries += 1,
        "fewer-entries" => inventory.entries -= 1,
        "more-bytes" => inventory.bytes += 1,
        "fewer-bytes" => inventory.bytes = 0,
        "huge-counts" => inventory.bytes = u64::MAX,
        "tricky-warnings" => inventory.warnings.push(TRICKS.into()),
        "tricky-server" => {
            inventory.server.role = TRICKS.into();
            inventory.server.member = Some(TRICKS.into());
        }
        "many-warnings" => inventory.warnings = vec!["again".into(); 50_000],
        "giant-inventory" => drop(inventory.details.insert("giant".into(), "x".repeat(900_000).into())),
        "inventory-over-limit" => drop(inventory.details.insert("giant".into(), "x".repeat(2 << 20).into())),
        _ => {}
    }
}

pub fn twist_restored(lie: &str, restored: &mut Restored) {
    match lie {
        "tricky-notes" => restored.notes.push(TRICKS.into()),
        "many-notes" => restored.notes = vec!["again".into(); 50_000],
        "more-restored" => restored.bytes += 1,
        _ => {}
    }
}

pub fn twist_verified(lie: &str, verified: &mut Verified) {
    let failed = Check { name: "failed".into(), passed: false, detail: TRICKS.into() };
    match lie {
        "tricky-checks" => *verified = Verified::of(vec![failed]),
        "passed-in-spite-of-it" => verified.checks.push(failed),
        _ => {}
    }
}
