//! A plugin's words in its documents, made fit for people: what they read on a terminal or in a log must not play tricks, must not
//! be without end, and must not be taken for ours where the plugin is not.
//!
//! Only texts for people are changed. What a plugin keeps for itself stays as it is.

use holdfast_sandbox::{Plugin, harmless, is_code};
use serde_json::Value;

/// Bytes kept of a text.
const TEXT: usize = 8 << 10;
/// Texts kept of a list.
const TEXTS: usize = 1_000;
/// Bytes kept of a warning.
const WARNING: usize = 1 << 10;

/// One text.
pub(crate) fn text(plugin: &Plugin, text: &str) -> String {
    plugin.attribute(&harmless(text, TEXT))
}

/// A name that programs read: one that is none is not passed on.
pub(crate) fn code(text: &str) -> String {
    if is_code(text) { text.to_owned() } else { "invalid-code".to_owned() }
}

/// The warnings of a backup. Its head holds them for as long as it lives, so they are few and short; the backup's own document has
/// all of them.
pub(crate) fn warnings(plugin: &Plugin, texts: &[String]) -> Vec<String> {
    bounded(texts, WARNING, |text| plugin.attribute(text), "more warnings are in the backup's document")
}

/// The notes of a restore.
pub(crate) fn notes(plugin: &Plugin, texts: &[String]) -> Vec<String> {
    bounded(texts, TEXT, |text| plugin.attribute(text), "more notes were left out")
}

/// At most [`TEXTS`] texts of so many bytes; one more says how many more there are, and where.
fn bounded(texts: &[String], bytes: usize, attribute: impl Fn(&str) -> String, more: &str) -> Vec<String> {
    let mut kept: Vec<String> = texts.iter().take(TEXTS).map(|text| attribute(&harmless(text, bytes))).collect();
    if texts.len() > TEXTS {
        kept.push(format!("{} {more}", texts.len() - TEXTS));
    }
    kept
}

/// All texts of a document, however deep; lists are cut.
pub(crate) fn make_harmless(document: &mut Value) {
    match document {
        Value::String(string) => *string = harmless(string, TEXT),
        Value::Array(items) => {
            items.truncate(TEXTS);
            items.iter_mut().for_each(make_harmless);
        }
        Value::Object(fields) => fields.values_mut().for_each(make_harmless),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_lose_their_tricks_and_lists_end() {
        let mut document = json!({"notes": ["a\u{1b}[2Jb"], "many": vec!["x"; 5_000], "files": 7});
        make_harmless(&mut document);
        assert_eq!((&document["notes"][0], &document["files"]), (&json!("a\\u{1b}[2Jb"), &json!(7)));
        assert_eq!(document["many"].as_array().map(Vec::len), Some(TEXTS));
    }

    #[test]
    fn a_list_that_is_cut_ends_with_where_the_rest_is() {
        let cut =
            |count: usize| bounded(&vec!["é\n".repeat(1_000); count], WARNING, |text| format!("x: {text}"), "more");
        let kept = cut(TEXTS + 500);
        assert_eq!((kept.len(), kept[TEXTS].as_str()), (TEXTS + 1, "500 more"));
        assert!(kept[..TEXTS].iter().all(|text| text.starts_with("x: é\\n") && text.len() < WARNING + 16));
        assert_eq!(cut(TEXTS).len(), TEXTS);
    }
}
