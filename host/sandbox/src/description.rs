//! What a plugin says of itself, checked once when it is loaded.

use crate::Failure;
use crate::voice::harmless;

/// What `describe` returns (JSON, camelCase; unknown fields are ignored).
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The plugin's name, such as `postgres`.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// The engine's id as in `--engine`, such as `postgres`.
    pub engine: String,
    /// For people, such as `PostgreSQL`.
    pub title: String,
    /// The first is the default.
    pub methods: Vec<Method>,
    /// In the order in which a form would ask.
    pub settings: Vec<Setting>,
    /// Port when `port` is not set.
    pub default_port: u16,
    /// File name of the server's Unix socket in the directory that `host` then names; `{port}` stands for the port. Without
    /// it the engine has no Unix sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_name: Option<String>,
}

/// A way in which the plugin backs up.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Method {
    /// Such as `basebackup`.
    pub name: String,
    /// Such as `full`; the first is the default.
    pub types: Vec<String>,
    /// `directory` (physical: restores to files) or `server`.
    pub restores_to: String,
    /// One line for people.
    pub description: String,
}

/// A setting of an instance of this engine.
#[derive(Clone, Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// As in `--set key=value`.
    pub key: String,
    /// One line for people.
    pub description: String,
    /// Kept sealed and handed out by `job.secret` only.
    #[serde(default)]
    pub secret: bool,
    /// An instance without it is refused.
    #[serde(default)]
    pub required: bool,
    /// What holds where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Allowed values, where they are few.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl Description {
    /// Reads and checks what `describe` returned.
    pub(crate) fn parse(document: serde_json::Value) -> Result<Self, Failure> {
        let description: Self = serde_json::from_value(document)
            .map_err(|error| Failure::Unusable(format!("its description is not as it must be: {error}")))?;
        for (field, value) in [("name", &description.name), ("engine", &description.engine)] {
            if !is_name(value) {
                let rule = "1 to 64 of a-z, 0-9, '-', '.', '_', and begin with a letter or a digit";
                return Err(Failure::Unusable(format!("its {field} must be {rule}")));
            }
        }
        if !is_version(&description.version) {
            return Err(Failure::Unusable("its version must be 1 to 64 of a-z, 0-9, '-', '.', '+', '_'".to_owned()));
        }
        // The operator names the socket's directory: no plugin leads out of it.
        if description.socket_name.as_deref().is_some_and(|name| !is_file_name(name)) {
            return Err(Failure::Unusable("its socketName must be a plain file name".to_owned()));
        }
        if description.methods.is_empty() || description.methods.iter().any(|method| method.types.is_empty()) {
            return Err(Failure::Unusable("it must have at least one method, and each method a type".to_owned()));
        }
        if description.methods.len() > MOST || description.settings.len() > MOST {
            return Err(Failure::Unusable(format!("it may have {MOST} methods and {MOST} settings")));
        }
        // A path would lead out of the directory that the operator named.
        if description
            .socket_name
            .as_ref()
            .is_some_and(|name| matches!(name.as_str(), "" | "." | "..") || name.contains('/'))
        {
            return Err(Failure::Unusable("its socketName must be the name of a file, without a directory".to_owned()));
        }
        if let Some(text) = description.texts().find(|text| harmless(text, TEXT) != *text) {
            let text = harmless(text, TEXT);
            return Err(Failure::Unusable(format!(
                "a text of its description is long or has control characters: {text}"
            )));
        }
        Ok(description)
    }

    /// All that is shown to people.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let methods = self.methods.iter().flat_map(|method| {
            let types = method.types.iter().map(String::as_str);
            types.chain([method.name.as_str(), method.restores_to.as_str(), method.description.as_str()])
        });
        let settings = self.settings.iter().flat_map(|setting| {
            let values = setting.values.iter().chain(&setting.default).map(String::as_str);
            values.chain([setting.key.as_str(), setting.description.as_str()])
        });
        let one = self.socket_name.iter().map(String::as_str).chain([self.title.as_str()]);
        one.chain(methods).chain(settings)
    }
}

/// Methods, and settings, that a plugin may have.
const MOST: usize = 256;
/// Bytes of each of its texts.
const TEXT: usize = 1_024;

/// Names go into file names, paths of the API and command lines, so they stay plain.
fn is_name(value: &str) -> bool {
    value.starts_with(|first: char| first.is_ascii_alphanumeric()) && is_version(value) && !value.contains('+')
}

fn is_file_name(value: &str) -> bool {
    value.len() <= 64 && !value.contains('/') && crate::paths::objection(value).is_none()
}

fn is_version(value: &str) -> bool {
    (1..=64).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'+' | b'_'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document() -> serde_json::Value {
        json!({
            "name": "demo", "version": "1.2.3-rc.1", "engine": "demo", "title": "Demo", "defaultPort": 1, "settings": [],
            "methods": [{"name": "m", "types": ["full"], "restoresTo": "server", "description": "d"}], "fromTheFuture": 1
        })
    }

    #[test]
    fn unknown_fields_are_ignored_and_names_are_checked() {
        assert_eq!(Description::parse(document()).expect("valid").engine, "demo");
        for (field, value) in [
            ("name", json!("")),
            ("name", json!("..")),
            ("engine", json!("../up")),
            ("version", json!("1 2")),
            ("socketName", json!("/run/docker.sock")),
            ("socketName", json!("..")),
            ("methods", json!([])),
            ("title", json!("De\u{1b}[2Jmo")),
            ("title", json!("o".repeat(2_000))),
            ("socketName", json!("../docker.sock")),
            ("socketName", json!("/run/docker.sock")),
            ("socketName", json!("..")),
            ("settings", json!([{"key": "a\nb", "description": "d"}])),
            ("settings", json!(vec![json!({"key": "a", "description": "d"}); 300])),
        ] {
            let mut bad = document();
            bad[field] = value;
            assert!(matches!(Description::parse(bad), Err(Failure::Unusable(_))), "{field}");
        }
    }
}
