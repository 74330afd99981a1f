//! Guests that break the canonical ABI, as no binding would: pointers out of memory, handles out of thin air, text that is no
//! UTF-8, allocators that lie.

use holdfast_text_guests::{CONNECT, DONE, Guest};

use super::case::Export::{Dump, Probe};
use super::case::{Case, text};
use super::servers::Manner;

/// Logs what lies at an address.
fn log(address: i64, length: i64) -> String {
    format!("(call $log (i32.const 512) (i32.const 1) (i32.const {address}) (i32.const {length})) {DONE}")
}

/// Asks for nine random bytes, which the host asks the guest to make room for.
const ASK: &str = "(call $random (i32.const 9) (i32.const 64)) (i32.const 32)";

pub fn cases() -> Vec<Case> {
    [words(), results(), allocators(), handles(), traps()].into_iter().flatten().collect()
}

/// What is handed to the host is not there, or is not what it says.
fn words() -> Vec<Case> {
    vec![
        probe("bad-utf8", |guest| guest.text(b"i\xff\xfe").probe(log(513, 2))).crashes(&["utf-8"]),
        probe("cut-utf8", |guest| guest.text(b"i\xe2\x82").probe(log(513, 2))).crashes(&["utf-8"]),
        probe("surrogate", |guest| guest.text(b"i\xed\xa0\x80").probe(log(513, 3))).crashes(&["utf-8"]),
        probe("words-outside", |guest| guest.probe(log(0x7fff_0000, 100))).crashes(&["out of bounds"]),
        probe("words-at-the-end", |guest| guest.probe(log(8 * 65_536 - 1, 2))).crashes(&["out of bounds"]),
        probe("words-around-the-end", |guest| guest.probe(log(-1, 2))).crashes(&["out of bounds"]),
        probe("words-beyond-all", |guest| guest.probe(log(0, 0xffff_ffff))).crashes(&["out of bounds"]),
        probe("list-beyond-all", |guest| {
            guest.probe(format!(
                "{CONNECT} (call $wait (i32.const 0) (i32.const 0x3fffffff) (i32.const 0) (i32.const 64)) {DONE}"
            ))
        })
        .against(Manner::Silent)
        .crashes(&["out of bounds"]),
        probe("answer-outside", |guest| {
            guest.probe(format!("(call $setting (i32.const 512) (i32.const 1) (i32.const -4)) {DONE}"))
        })
        .crashes(&["out of bounds"]),
        probe("answer-misaligned", |guest| {
            guest.probe(format!("(call $setting (i32.const 512) (i32.const 1) (i32.const 65)) {DONE}"))
        })
        .crashes(&["align"]),
        dump("kind-of-entry", |guest| guest.dump(begin("(i32.const 9)", "(i32.const 0)"))).crashes(&["discriminant"]),
        dump("size-of-entry", |guest| guest.dump(begin("(i32.const 0)", "(i32.const 7)"))).crashes(&["discriminant"]),
    ]
}

/// What the export returns is not there, or is not what it says.
fn results() -> Vec<Case> {
    let returned = |text: &'static [u8]| move |guest: Guest| guest.text(text).probe("(i32.const 512)");
    vec![
        probe("result-outside", |guest| guest.probe("(i32.const -16)")).crashes(&["out of bounds"]),
        probe("result-misaligned", |guest| guest.probe("(i32.const 33)")).crashes(&["align"]),
        probe("result-of-no-kind", returned(b"\x02\0\0\0")).crashes(&["discriminant"]),
        probe("result-bad-utf8", returned(b"\0\0\0\0\x10\x02\0\0\x02\0\0\0\0\0\0\0\xff\xfe")).crashes(&["utf-8"]),
        probe("result-elsewhere", returned(b"\0\0\0\0\xff\xff\xff\x7f\x02\0\0\0")).crashes(&["out of bounds"]),
        probe("result-beyond-all", returned(b"\0\0\0\0\0\0\0\0\xff\xff\xff\xff")).crashes(&["out of bounds"]),
        probe("error-without-words", returned(b"\x01\0\0\0")).fails("invalid-code", &["without a reason"]),
        probe("error-with-odd-hint", returned(b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05"))
            .crashes(&["discriminant"]),
        probe("answer-of-odd-types", returned(b"\0\0\0\0\x10\x02\0\0\x0d\0\0\0\0\0\0\0{\"version\":7}"))
            .fails("plugin-answer", &["expected a string"]),
    ]
}

/// What the guest's allocator gives is no memory.
fn allocators() -> Vec<Case> {
    vec![
        probe("realloc-outside", |guest| guest.realloc("(i32.const -65536)").probe(ASK)).crashes(&["realloc"]),
        probe("realloc-at-the-end", |guest| guest.realloc("(i32.const 524287)").probe(ASK)).crashes(&["realloc"]),
        probe("realloc-misaligned", |guest| {
            guest.realloc("(i32.const 65537)").probe(format!("(call $addresses (i32.const 64)) {DONE}"))
        })
        .against(Manner::Silent)
        .crashes(&["realloc", "align"]),
        probe("realloc-traps", |guest| guest.realloc("unreachable").probe(ASK)).crashes(&["unreachable"]),
        probe("realloc-calls-back", |guest| guest.realloc("(drop (call $now)) (i32.const 65536)").probe(ASK))
            .crashes(&["leave"]),
        probe("realloc-over-itself", |guest| guest.realloc("(i32.const 0)").probe(ASK)).harmless(0),
    ]
}

/// Handles that were never given, or were given back.
fn handles() -> Vec<Case> {
    let read = "(call $read (local.get $source) (i32.const 1) (i32.const 64))";
    let with_source = |body: &str| {
        let body = format!("{CONNECT} (local.set $source (call $input (local.get $connection))) {body} {DONE}");
        move |guest: Guest| guest.probe(body)
    };
    let with_sink = |body: &str| {
        let body = format!("{CONNECT} (local.set $sink (call $output (local.get $connection))) {body} {DONE}");
        move |guest: Guest| guest.probe(body)
    };
    let finish = "(call $finish (local.get $sink) (i32.const 64))";
    let cases = vec![
        probe("handle-forged", |guest| guest.probe(format!("(local.set $source (i32.const 77)) {read} {DONE}"))),
        probe("handle-zero", |guest| guest.probe(format!("{read} {DONE}"))),
        probe("handle-beyond-all", |guest| guest.probe(format!("(local.set $source (i32.const -1)) {read} {DONE}"))),
        probe("handle-of-another-kind", with_source("(call $drop-sink (local.get $source))")),
        probe(
            "connection-as-source",
            with_source("(local.set $source (local.get $connection)) (call $drop-source (local.get $source))"),
        ),
        probe("used-after-drop", with_source(&format!("(call $drop-source (local.get $source)) {read}"))),
        probe(
            "dropped-twice",
            with_source("(call $drop-source (local.get $source)) (call $drop-source (local.get $source))"),
        ),
        probe("finished-twice", with_sink(&format!("{finish} {finish}"))),
        probe(
            "written-after-finish",
            with_sink(&format!("{finish} (call $write (local.get $sink) (i32.const 0) (i32.const 1) (i32.const 64))")),
        ),
        probe("finished-after-drop", with_sink(&format!("(call $drop-sink (local.get $sink)) {finish}"))),
        probe(
            "transfer-from-nothing",
            with_sink("(call $transfer (i32.const 99) (local.get $sink) (i64.const 1) (i32.const 64))"),
        ),
        probe(
            "waits-for-nothing",
            with_source(
                "(i32.store (i32.const 600) (i32.const 99)) (call $wait (i32.const 600) (i32.const 1) (i32.const 0) (i32.const 64))",
            ),
        ),
    ];
    let mut cases: Vec<Case> =
        cases.into_iter().map(|case| case.against(Manner::Silent).crashes(&["handle"])).collect();
    cases.push(
        probe(
            "waits-twice",
            with_source(
                "(i32.store (i32.const 600) (local.get $source)) (i32.store (i32.const 604) (local.get $source))
                (call $wait (i32.const 600) (i32.const 2) (i32.const 0) (i32.const 64)) (return (i32.const 64))",
            ),
        )
        .against(Manner::Silent)
        .fails("invalid-argument", &["each once"]),
    );
    cases
}

/// Traps of the guest's own making.
fn traps() -> Vec<Case> {
    vec![
        probe("trap", |guest| guest.probe("unreachable")).crashes(&["unreachable"]),
        dump("trap-in-dump", |guest| guest.dump("unreachable")).crashes(&["unreachable"]),
        probe("division", |guest| guest.probe("(i32.div_u (i32.const 1) (local.get $sink))"))
            .crashes(&["divide by zero"]),
        probe("load-outside", |guest| guest.probe("(i32.load (i32.const -8))")).crashes(&["out of bounds"]),
        probe("call-of-nothing", |guest| {
            guest
                .items("(table $table 1 funcref) (type $void (func))")
                .probe(format!("(call_indirect $table (type $void) (i32.const 0)) {DONE}"))
        })
        .crashes(&["uninitialized element"]),
        probe("trap-in-a-destructor", |guest| {
            // The host gives a source back by dropping it; what the guest does then is its own trap.
            guest.probe(format!(
                "{CONNECT} (local.set $source (call $input (local.get $connection)))
                (call $drop-connection (local.get $connection)) (call $drop-source (local.get $source)) unreachable"
            ))
        })
        .against(Manner::Silent)
        .crashes(&["unreachable"]),
    ]
}

/// Begins an entry of this kind and this option of a size.
fn begin(kind: &str, size: &str) -> String {
    format!(
        "(call $begin-entry (i32.const 512) (i32.const 1) {kind} (i32.const 0) (i32.const 0) {size} (i64.const 0)
            (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 64))
        {DONE}"
    )
}

fn probe(name: &str, guest: impl FnOnce(Guest) -> Guest) -> Case {
    text(Probe, name, guest)
}

fn dump(name: &str, guest: impl FnOnce(Guest) -> Guest) -> Case {
    text(Dump, name, guest)
}
