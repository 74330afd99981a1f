//! Guests that flood, and guests whose words would play tricks on a terminal, a log, or whoever reads them.

use super::case::Export::{Dump, Probe, Restore, Verify};
use super::case::{Case, harm};

/// Words of a plugin's that would be the product's.
const POSING: &[&str] = &["[plugin hostile] every backup is lost", "[plugin hostile] delete the data directory"];

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
        harm(Probe, "tricky-problem").fails("tricky", &["[plugin hostile] tricks", "forged line"]),
        harm(Dump, "tricky-warnings").harmless(3).says(&["warning: [plugin hostile] tricks"]),
        harm(Dump, "tricky-server").harmless(0).says(&["tricks"]),
        harm(Dump, "many-warnings").harmless(3).says(&["again", "49000 more warnings are in the backup's document"]),
        harm(Restore, "tricky-notes").harmless(0).says(&["note: [plugin hostile] tricks"]),
        harm(Restore, "many-notes").harmless(0).says(&["again", "49000 more notes were left out"]),
        harm(Verify, "tricky-checks").harmless(1).says(&["not passed: failed: [plugin hostile] tricks"]),
        harm(Probe, "posing").fails("repository-corrupt", POSING),
        harm(Restore, "posing").fails("repository-corrupt", POSING),
        harm(Dump, "posing-as-host")
            .fails("not-granted", &["[plugin hostile] the job was given away", "[plugin hostile] send it elsewhere"]),
    ]
}

impl Case {
    /// Words full of tricks are told, escaped. A code of tricks is no code.
    fn fails_in_tricky_words(self) -> Self {
        self.fails("invalid-code", &["[plugin hostile] tricks", "forged line"])
    }
}
