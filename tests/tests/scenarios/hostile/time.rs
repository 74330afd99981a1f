//! Guests that never end.

use super::case::Export::{Dump, Probe, Restore, Verify};
use super::case::{Case, component, harm, text};
use super::servers::Manner;
use holdfast_text_guests::{DONE, Guest};

/// Computes until the end of days.
const FOR_EVER: &str = "(loop $again (br $again))";
const AN_HOUR: &str = "(i64.const 3600000000000)";

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [Probe, Dump, Restore, Verify].map(|export| harm(export, "loop").exceeds("cpu")).into();
    cases.extend([
        harm(Dump, "recursion").crashes(&["stack"]),
        harm(Probe, "host-calls").exceeds("wall"),
        harm(Dump, "settings").exceeds("wall"),
        harm(Restore, "breaths").exceeds("wall"),
        harm(Dump, "wait").exceeds("wall"),
        harm(Verify, "pages").exceeds("wall"),
        harm(Probe, "dialling").against(Manner::Closing).exceeds("wall"),
        text(Probe, "loop-in-realloc", |guest| {
            guest
                .realloc(format!("{FOR_EVER} unreachable"))
                .probe(format!("(call $random (i32.const 9) (i32.const 64)) {DONE}"))
        })
        .exceeds("cpu"),
        text(Probe, "loop-after-return", |guest| guest.probe(DONE).items(after_probe(FOR_EVER))).exceeds("cpu"),
        text(Probe, "trap-after-return", |guest| guest.probe(DONE).items(after_probe("unreachable")))
            .crashes(&["unreachable"]),
        component(
            Probe,
            "asleep-in-wasi",
            Guest::new("asleep-in-wasi")
                .probe(format!("(call $block (call $sleep {AN_HOUR})) unreachable"))
                .component_with_wasi(),
        )
        .exceeds("wall"),
        component(
            Dump,
            "printing",
            Guest::new("printing")
                .text("again and again\n")
                .dump(
                    "(local.set $sink (call $stdout))
                    (loop $again
                        (call $print (local.get $sink) (i32.const 512) (i32.const 16) (i32.const 64)) (br $again))
                    unreachable",
                )
                .component_with_wasi(),
        )
        .exceeds("wall"),
    ]);
    cases
}

/// What is called when the host has read the probe's result.
fn after_probe(body: &str) -> String {
    format!(r#"(func (export "cabi_post_holdfast:engine/plugin@1.0.0-rc.1#probe") (param i32) {body})"#)
}
