//! Which paths an object may have: relative, plain ASCII, the same at every kind of store.
//!
//! It refuses whatever could leave the root (`..`, an empty part, a leading `/`) or mean two things in two
//! stores. `tmp/` belongs to the local store's temporary files and is reserved everywhere, so that one
//! repository can be copied between stores by any tool.

use crate::error::{Attempt, Error};

/// Longest path in bytes: leaves room for a prefix in S3's 1,024.
const BYTES_MAX: usize = 512;
/// Longest part in bytes, as file systems have it.
const PART_BYTES_MAX: usize = 255;
/// The reserved first part.
pub(crate) const TEMPORARY: &str = "tmp";

/// Refuses a path that no object may have.
pub(crate) fn check(attempt: &Attempt) -> Result<(), Error> {
    fault(&attempt.path).map_or(Ok(()), |reason| Err(Error::BadPath { attempt: attempt.clone(), reason }))
}

/// Refuses a prefix that no object's path can have. Unlike a path it may be empty, and end anywhere.
pub(crate) fn check_prefix(attempt: &Attempt) -> Result<(), Error> {
    let whole = attempt.path.strip_suffix('/').unwrap_or(&attempt.path);
    let reason = if whole.is_empty() && attempt.path.is_empty() { None } else { shape_fault(whole) };
    reason.map_or(Ok(()), |reason| Err(Error::BadPath { attempt: attempt.clone(), reason }))
}

/// Whether an object may have this path.
pub(crate) fn is_valid(path: &str) -> bool {
    fault(path).is_none()
}

/// What is wrong with a path, if anything is.
pub(crate) fn fault(path: &str) -> Option<&'static str> {
    match path.split('/').next() {
        Some(TEMPORARY) => Some("begins with `tmp`, which is reserved"),
        _ => shape_fault(path),
    }
}

fn shape_fault(path: &str) -> Option<&'static str> {
    if path.len() > BYTES_MAX {
        return Some("is longer than 512 bytes");
    }
    path.split('/').find_map(part_fault)
}

fn part_fault(part: &str) -> Option<&'static str> {
    match part {
        "" => Some("has an empty part, or begins or ends with `/`"),
        "." | ".." => Some("has a part that is `.` or `..`"),
        _ if part.len() > PART_BYTES_MAX => Some("has a part of more than 255 bytes"),
        _ if !part.bytes().all(is_allowed) => Some("has characters other than letters, digits and `.`, `_`, `-`, `/`"),
        _ => None,
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Operation;

    #[test]
    fn paths_that_leave_the_root_or_mean_two_things_are_refused() {
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "../a", "a/./b", "a b", "a\\b", "ä", "a\0b", "tmp",
            "tmp/a",
        ] {
            assert!(!is_valid(bad), "{bad:?}");
        }
        assert!(!is_valid(&"a/".repeat(300)));
        assert!(!is_valid(&"a".repeat(256)));
    }

    #[test]
    fn the_repository_s_paths_are_allowed() {
        for good in
            ["repository.json", "RECOVER.txt", "domains/0a/packs/aa/00ff", "keyring/1.age", "a/tmp/b", "..a", "tmpx"]
        {
            assert!(is_valid(good), "{good:?}");
        }
    }

    #[test]
    fn a_prefix_may_be_empty_or_end_anywhere_and_never_climb() {
        let check = |path: &str| check_prefix(&Attempt::new(Operation::List, path, "here")).is_ok();
        assert!(["", "a", "a/", "a/b", "a/b/"].into_iter().all(check));
        assert!(!["/", "/a", "..", "a/../", "a//"].into_iter().any(check));
    }
}
