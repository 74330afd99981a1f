//! A plugin's words in its documents, made fit for people: what they read on a terminal or in a log must not play tricks.
//!
//! Only texts for people are changed. What a plugin keeps for itself stays as it is.

use holdfast_sandbox::harmless;
use serde_json::Value;

/// Bytes kept of a text.
const TEXT: usize = 8 << 10;
/// Texts kept of a list.
const TEXTS: usize = 1_000;

/// One text.
pub(crate) fn text(text: &str) -> String {
    harmless(text, TEXT)
}

/// A list of texts; what is beyond its bound is counted.
pub(crate) fn texts(texts: &[String]) -> Vec<String> {
    let mut kept: Vec<String> = texts.iter().take(TEXTS).map(|one| text(one)).collect();
    if texts.len() > TEXTS {
        kept.push(format!("{} more were left out", texts.len() - TEXTS));
    }
    kept
}

/// All texts of a document, however deep; lists are cut.
pub(crate) fn make_harmless(document: &mut Value) {
    match document {
        Value::String(string) => *string = text(string),
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
        let kept = texts(&vec!["a\nb".to_owned(); TEXTS + 2]);
        assert_eq!((kept[0].as_str(), kept[TEXTS].as_str()), ("a\\nb", "2 more were left out"));
    }
}
