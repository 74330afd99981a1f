//! Guests that would break out of the archive, or say of their backup what is not true.

use holdfast_text_guests::answer;

use super::case::Export::{Dump, Probe, Restore, Verify};
use super::case::{Case, harm, text};
use super::servers::Manner;

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        "path-up",
        "path-in-the-middle",
        "path-absolute",
        "path-dot",
        "path-empty",
        "path-control",
        "path-nul",
        "path-long",
    ]
    .map(|name| harm(Dump, name).fails("invalid-path", &["not usable"]))
    .into();
    cases.extend([
        harm(Dump, "path-twice").fails("already-exists", &["first"]),
        harm(Dump, "path-open").fails("already-exists", &["second"]),
        harm(Dump, "size").fails("size-mismatch", &["sized"]),
        harm(Dump, "size-less").fails("size-mismatch", &["sized"]),
        harm(Dump, "class").fails("invalid-argument", &["3 bytes"]),
        harm(Dump, "extra").fails("invalid-argument", &["extra"]),
        harm(Dump, "extra-twice").fails("invalid-argument", &["repeats a key"]),
        harm(Dump, "annotate-nothing").fails("no-such-entry", &["nothing"]),
        harm(Dump, "annotate-much").fails("annotations-too-long", &["first"]),
        harm(Dump, "bytes-in-a-directory").fails("not-a-file", &["directory"]),
        harm(Dump, "long-link").fails("invalid-argument", &["too long"]),
        harm(Dump, "reuse").fails("unsupported", &["parent"]),
        harm(Dump, "parent").fails("no-parent", &[]),
        harm(Dump, "unfinished").harmless(0),
        harm(Dump, "endless").exceeds("output"),
        harm(Dump, "endless-transfer").against(Manner::Endless).exceeds("output"),
        harm(Dump, "endless-entries").exceeds("entries"),
        harm(Dump, "more-entries").fails("inventory-differs", &["3 entries", "the host 2"]),
        harm(Dump, "fewer-entries").fails("inventory-differs", &["1 entries"]),
        harm(Dump, "more-bytes").fails("inventory-differs", &["1570001 bytes"]),
        harm(Dump, "fewer-bytes").fails("inventory-differs", &["0 bytes"]),
        harm(Dump, "huge-counts").fails("inventory-differs", &["18446744073709551615"]),
        harm(Probe, "not-granted").fails("not-granted", &["writes no backup"]),
        harm(Restore, "not-granted").fails("not-granted", &["writes no backup"]),
        harm(Verify, "not-granted").fails("not-granted", &["writes no backup"]),
        harm(Verify, "passed-in-spite-of-it").harmless(1),
        dump("nothing-at-all", r#"{"entries":0,"bytes":0}"#).fails("empty-backup", &["no bytes"]),
        dump("negative-counts", r#"{"entries":-1,"bytes":-1}"#).fails("bad-inventory", &["inventory"]),
        dump("counts-in-words", r#"{"entries":"two","bytes":"\u001b[2J"}"#).fails("bad-inventory", &["inventory"]),
        dump("counts-beyond-numbers", r#"{"entries":1e400,"bytes":0}"#).fails("invalid-result", &["JSON"]),
        dump("inventory-list", "[]").fails("invalid-result", &["not a JSON object"]),
        dump("inventory-of-nothing", "").fails("invalid-result", &["not a JSON object"]),
        dump("inventory-deep", &"[".repeat(1_400)).fails("invalid-result", &["not a JSON object"]),
    ]);
    cases
}

/// A guest that writes nothing and returns this inventory.
fn dump(name: &str, inventory: &str) -> Case {
    text(Dump, name, |guest| guest.text(inventory).dump(answer(inventory.len())))
}
