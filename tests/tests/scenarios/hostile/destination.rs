//! Guests that would write elsewhere, or leave half of something behind.

use std::time::Duration;

use super::case::Export::{Probe, Restore, Verify};
use super::case::{Case, harm};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> =
        ["file-up", "file-in-the-middle", "file-absolute", "file-nul", "directory-up", "link-up"]
            .map(|name| harm(Restore, name).fails("invalid-path", &["not usable"]))
            .into();
    cases.extend([
        harm(Restore, "extract-up").fails("invalid-path", &["not usable"]),
        harm(Restore, "file-twice").fails("already-exists", &["first"]),
        harm(Restore, "file-nowhere").fails("not-found", &["nowhere"]),
        harm(Restore, "file-beneath-file").fails("not-found", &["first/file"]),
        harm(Restore, "file-without-root").fails("unknown-root", &["/etc"]),
        harm(Restore, "roots").fails("unknown-root", &["../.."]),
        harm(Restore, "link-to-anything").fails("unknown-root", &["/etc"]),
        harm(Restore, "through-a-link").fails("path-escapes", &["symbolic link"]),
        harm(Restore, "extract-through-a-link").fails("path-escapes", &["symbolic link"]),
        harm(Restore, "extract-nothing").fails("no-such-entry", &["nothing"]),
        harm(Restore, "extract-many").fails("invalid-argument", &["1024 files"]),
        harm(Restore, "swallowed").fails("no-such-entry", &["nothing"]),
        harm(Restore, "endless-file").exceeds("output"),
        harm(Restore, "endless-directories").exceeds("entries").and_is_removed_within(Duration::from_secs(30)),
        harm(Restore, "half").crashes(&["enough of it"]),
        harm(Restore, "closed-directory").fails("left", &["closed directory"]),
        harm(Restore, "more-restored").fails("result-differs", &["1570001", "1570000"]),
        harm(Restore, "uncounted-file").fails("result-differs", &["2 files", "wrote 3"]),
        harm(Probe, "file-absolute").fails("unknown-root", &["no destination"]),
        harm(Verify, "file-twice").fails("unknown-root", &["no destination"]),
    ]);
    cases
}
