//! Guests that flood, and guests whose words would play tricks on a terminal, a log, or whoever reads them.

use super::case::Export::{Dump, Probe, Restore, Verify};
use super::case::{Case, harm};

pub fn cases() -> Vec<Case> {
    vec![
        harm(Dump, "log-flood").exceeds("wall"),
        harm(Dump, "log-burst").harmless(0),
        harm(Restore, "progress-flood").exceeds("wall"),
        harm(Dump, "tricky-log").harmless(0),
        harm(Dump, "tricky-progress").harmless(0),
        harm(Probe, "tricky-error").fails_in_tricky_words(),
        harm(Dump, "tricky-error").fails_in_tricky_words(),
        harm(Restore, "tricky-error").fails_in_tricky_words(),
        harm(Verify, "tricky-error").fails_in_tricky_words(),
        harm(Probe, "tricky-panic").crashes(&["panicked", "tricks"]),
        harm(Dump, "tricky-panic").crashes(&["panicked", "tricks"]),
        harm(Probe, "tricky-problem").fails("tricky", &["tricks", "forged line"]),
        harm(Dump, "tricky-warnings").harmless(3).says(&["warning: tricks"]),
        harm(Dump, "tricky-server").harmless(0).says(&["tricks"]),
        harm(Dump, "many-warnings").harmless(3).says(&["again"]),
        harm(Restore, "tricky-notes").harmless(0).says(&["note: tricks"]),
        harm(Restore, "many-notes").harmless(0).says(&["again"]),
        harm(Verify, "tricky-checks").harmless(1).says(&["not passed: failed: tricks"]),
        harm(Probe, "posing").fails("repository-corrupt", &["every backup"]),
        harm(Restore, "posing").fails("repository-corrupt", &["every backup"]),
    ]
}

impl Case {
    /// Words full of tricks are told, escaped. A code of tricks is no code.
    fn fails_in_tricky_words(self) -> Self {
        self.fails("invalid-code", &["tricks", "forged line"])
    }
}
