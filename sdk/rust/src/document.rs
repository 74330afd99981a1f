//! The JSON documents that plugin and host exchange. They may gain fields: readers ignore those that they do not know.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Who the plugin is: the answer to `describe`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// The plugin's name: a-z, 0-9, `-`, `.`, `+`, `_`.
    pub name: String,
    /// The plugin's own version.
    pub version: String,
    /// The engine's id, as in `--engine`.
    pub engine: String,
    /// The engine's name for people.
    pub title: String,
    /// Ways to back up; the first is the default.
    pub methods: Vec<Method>,
    /// In the order in which a form would ask.
    pub settings: Vec<Setting>,
    /// Port when `port` is not set.
    pub default_port: u16,
    /// File name of the server's Unix socket in the directory that `host` then names; `{port}` stands for the port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_name: Option<String>,
}

/// A way in which a plugin backs up.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Method {
    /// Such as `basebackup`.
    pub name: String,
    /// Such as `full`; the first is the default.
    pub types: Vec<String>,
    /// `directory` (restores to files) or `server`.
    pub restores_to: String,
    /// One line for people.
    pub description: String,
}

/// A setting of an instance of this engine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Setting {
    /// As in `--set key=value`.
    pub key: String,
    /// One line for people.
    pub description: String,
    /// Kept sealed, and handed out by `job::secret` only.
    pub secret: bool,
    /// An instance without it is refused.
    pub required: bool,
    /// What holds where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Allowed values, where they are few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What a look at the server found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// The server's version, such as `15.18`.
    pub version: String,
    /// `primary` or `standby`.
    pub role: String,
    /// Bytes that a full backup would read, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    /// What identifies the server's data for ever.
    pub server_id: String,
    /// What stands, or may stand, in the way of a backup.
    pub problems: Vec<Problem>,
    /// Each of the instance's members, in the order in which they were granted.
    #[serde(default)]
    pub members: Vec<Member>,
}

/// What a look at one member of an instance found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// As `endpoint::addresses` names it.
    pub address: String,
    /// Whether it answered.
    pub reachable: bool,
    /// `primary` or `standby`, where that is known.
    pub role: Option<String>,
    /// Its version, where that is known.
    pub version: Option<String>,
    /// Why no backup can be taken from it, if so.
    pub problem: Option<Problem>,
}

/// Something that an operator should know or do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Stable, kebab-case.
    pub code: String,
    /// A lowercase fact.
    pub message: String,
    /// A full sentence that says what to do.
    pub hint: String,
    /// Whether no backup can succeed before it is solved.
    pub blocking: bool,
}

/// What to dump.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DumpRequest {
    /// One of the description's methods.
    pub method: String,
    /// One of the method's types.
    #[serde(rename = "type")]
    pub kind: String,
    /// A short id of the job, to name things at the server by.
    pub job: String,
}

/// What a dump wrote: totals, never lists.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inventory {
    /// Entries of all kinds.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// The server as it was.
    pub server: Server,
    /// The range of the engine's log that the backup needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What an operator should know about this backup.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What the plugin itself wants to know when it restores or verifies.
    #[serde(flatten)]
    pub details: Map<String, Value>,
}

/// The identity of a server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its version, such as `15.18`.
    pub version: String,
    /// What identifies its data for ever.
    pub system_identifier: String,
    /// Its history, where the engine counts them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<u32>,
    /// `primary` or `standby`.
    pub role: String,
    /// Which of the instance's members it was, as `endpoint::addresses` names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
}

/// A range of the engine's log, in the engine's own words.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Where it begins.
    pub from: String,
    /// Where it ends.
    pub to: String,
}

/// How to restore.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RestoreRequest {
    /// Whether the operator agreed to replace what is there.
    pub overwrite: bool,
}

/// What a restore wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Files, without directories and links.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What an operator should know before using them.
    pub notes: Vec<String>,
}

/// How to verify.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyRequest {
    /// `engine`: by the engine's own rules.
    pub level: String,
}

/// The judgement on a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Whether all checks passed.
    pub passed: bool,
    /// Each of them.
    pub checks: Vec<Check>,
}

impl Verified {
    /// Passes if all checks did.
    pub fn of(checks: Vec<Check>) -> Self {
        Self { passed: checks.iter().all(|check| check.passed), checks }
    }
}

/// One question asked of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Stable, kebab-case.
    pub name: String,
    /// Whether the answer is good.
    pub passed: bool,
    /// What was looked at, or what is wrong.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_keeps_the_plugins_own_facts_beside_the_common_ones() {
        let text = r#"{"entries":1,"bytes":2,"server":{"version":"15.1","systemIdentifier":"7","role":"primary"},"blockSize":8192}"#;
        let inventory: Inventory = serde_json::from_str(text).expect("valid");
        assert_eq!(inventory.details["blockSize"], 8192);
        let again: Value = serde_json::to_value(&inventory).expect("serializable");
        assert_eq!(again["blockSize"], 8192);
        assert_eq!(again["server"]["systemIdentifier"], "7");
    }
}
