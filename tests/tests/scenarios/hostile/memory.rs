//! Guests that want more than they may have: of their own memory, and of the host's.

use super::case::Export::{Dump, Probe, Restore, Verify};
use super::case::{Case, harm, text};
use super::servers::Manner;

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        [Probe, Dump, Restore, Verify].map(|export| harm(export, "memory").exceeds("memory").says(&["64 MiB"])).into();
    cases.extend([
        harm(Restore, "backup-handles").exceeds("handles"),
        harm(Verify, "backup-handles").exceeds("handles"),
        harm(Probe, "connection-handles").against(Manner::Silent).exceeds("handles"),
        harm(Probe, "connections").against(Manner::Closing).exceeds("streams"),
        harm(Dump, "open-entries").exceeds("streams"),
        harm(Verify, "open-sources").exceeds("streams"),
        harm(Dump, "entry-records").exceeds("records").says(&["3 MiB"]),
        harm(Dump, "short-entries").exceeds("records"),
        harm(Dump, "annotations").exceeds("records"),
        harm(Probe, "giant-message").exceeds("host-call"),
        harm(Probe, "giant-error").fails("long", &["xxxx…"]),
        harm(Dump, "error-over-limit").exceeds("host-call"),
        harm(Dump, "giant-inventory").harmless(0),
        harm(Dump, "inventory-over-limit").exceeds("host-call"),
        harm(Probe, "random").crashes(&["random"]),
        harm(Probe, "many-sources").against(Manner::Silent).fails("invalid-argument", &["1024 sources"]),
        harm(Dump, "giant-list").fails("invalid-argument", &["65536 bytes"]),
        text(Probe, "table", |guest| {
            guest.items("(table $table 1 funcref)").probe(
                "(loop $again
                    (br_if $again (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
                unreachable",
            )
        })
        .exceeds("table"),
        text(Probe, "memory-at-once", |guest| guest.probe("(drop (memory.grow (i32.const 60000))) unreachable"))
            .exceeds("memory"),
        text(Probe, "message-over-all-memory", |guest| {
            guest
                .pages(512)
                .probe("(call $log (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 33554432)) unreachable")
        })
        .exceeds("host-call"),
    ]);
    cases
}
