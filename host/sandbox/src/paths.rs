//! The one rule for names that a guest gives: relative, plain, and never up or out.

/// Bytes that a path may have.
pub(crate) const LONGEST: usize = 4_096;

/// Why `path` is not a name of an entry or of a file beneath a root, if it is not.
pub(crate) fn objection(path: &str) -> Option<&'static str> {
    if path.is_empty() || path.len() > LONGEST {
        return Some("it must have 1 to 4096 bytes");
    }
    if path.chars().any(char::is_control) {
        return Some("it has a control character");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("it must be relative, without an empty, '.' or '..' part");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_paths_pass() {
        for good in ["a", "base/1/1259", "pg_wal/ä b", "..a/b..", "a/.b"] {
            assert_eq!(objection(good), None, "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\0b", "a\nb"] {
            assert!(objection(bad).is_some(), "{bad:?}");
        }
        assert!(objection(&"a".repeat(LONGEST + 1)).is_some());
    }
}
