//! JSON values as YAML: blocks for what has parts, JSON's own quoting for strings. Every JSON string is a YAML string, so none is guessed at.

use serde_json::Value;

/// The value as a YAML document.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

/// Writes a value that begins on a line of its own.
fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (name, value) in members {
                pad(indent, out);
                out.push_str(&key(name));
                out.push(':');
                member(value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                pad(indent, out);
                out.push('-');
                member(item, indent, out);
            }
        }
        leaf => {
            pad(indent, out);
            out.push_str(&scalar(leaf));
            out.push('\n');
        }
    }
}

/// Writes what follows `key:` or `-`.
fn member(value: &Value, indent: usize, out: &mut String) {
    let has_parts = match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if has_parts {
        out.push('\n');
        block(value, indent + 2, out);
    } else {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Empty containers, numbers, booleans and null read the same in both. YAML wants more characters escaped than JSON does.
fn scalar(value: &Value) -> String {
    let text = value.to_string();
    let escape = |c: char| matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    text.chars().map(|c| if escape(c) { format!("\\u{:04x}", c as u32) } else { c.to_string() }).collect()
}

/// Names like ours stay bare; `y`, `no`, `null` and whatever else might mean something is quoted.
fn key(name: &str) -> String {
    let plain = name.len() > 3
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !["null", "true", "false"].contains(&name.to_ascii_lowercase().as_str());
    if plain { name.to_owned() } else { scalar(&Value::String(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_nest_by_indentation() {
        let value = json!({"items": [{"name": "a: b\n", "sites": [], "labels": {"no": "yes"}}, 7], "next": null});
        let expected = "items:\n  -\n    labels:\n      \"no\": \"yes\"\n    name: \"a: b\\n\"\n    sites: []\n  - 7\nnext: null\n";
        let expected_in_order = "items:\n  -\n    name: \"a: b\\n\"\n    sites: []\n    labels:\n      \"no\": \"yes\"\n  - 7\nnext: null\n";
        let found = text(&value);
        assert!(found == expected || found == expected_in_order, "{found}");
    }

    #[test]
    fn nothing_unprintable_stays_raw() {
        assert_eq!(text(&json!("a\u{7f}\u{2028}\u{1}")), "\"a\\u007f\\u2028\\u0001\"\n");
        assert_eq!(text(&json!({})), "{}\n");
    }
}
