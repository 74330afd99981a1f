//! What this plugin wants to know of a backup when it restores or verifies it: its own part of the inventory.

use holdfast_sdk::document::Inventory;
use holdfast_sdk::{Error, Result, archive};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::basebackup::Space;
use crate::lsn;

/// A tablespace outside of the data directory, or within `pg_tblspc` itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tablespace {
    /// Its oid.
    pub oid: u32,
    /// Where it lay; relative if in the data directory.
    pub path: String,
}

impl Tablespace {
    /// None for the data directory itself.
    pub fn of(space: Space) -> Option<Self> {
        Some(Self { oid: space.oid?, path: space.path })
    }

    /// Whether it lies in the data directory.
    pub fn is_in_place(&self) -> bool {
        !self.path.starts_with('/')
    }
}

/// The plugin's own fields of an inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Bytes of a page.
    pub block_size: u32,
    /// Bytes of a segment of the log.
    pub wal_segment_size: u64,
    /// Pages of a relation in one file.
    pub relation_segment_blocks: u32,
    /// Whether pages have checksums.
    pub data_checksums: bool,
    /// Whether the server listed the files in a manifest: from version 13 on.
    #[serde(default = "listed")]
    pub manifest: bool,
    /// All but the two that are part of the data directory.
    pub tablespaces: Vec<Tablespace>,
}

/// Inventories that do not say are of a time when no server without manifests was backed up.
fn listed() -> bool {
    true
}

impl Details {
    /// As fields of an inventory.
    pub fn into_document(self) -> Result<Map<String, Value>> {
        match serde_json::to_value(self)? {
            Value::Object(fields) => Ok(fields),
            _ => Err(Error::new("invalid-document", "the inventory's details are no object")),
        }
    }

    /// From an inventory, checked.
    pub fn of(inventory: &Inventory) -> Result<Self> {
        let details: Self = serde_json::from_value(Value::Object(inventory.details.clone()))
            .map_err(|error| Error::from(error).during("the backup's inventory"))?;
        let pages = details.block_size.is_power_of_two() && (512..=65_536).contains(&details.block_size);
        if !pages || !lsn::is_segment_size(details.wal_segment_size) {
            return Err(Error::new("invalid-document", "the backup's inventory has impossible sizes"));
        }
        Ok(details)
    }
}

/// The backup that the job is about, with its inventory.
pub fn current() -> Result<(archive::Backup, Inventory)> {
    let backup = archive::current().ok_or_else(|| Error::new("not-granted", "the job was given no backup to read"))?;
    let inventory = serde_json::from_str(&backup.document())
        .map_err(|error| Error::from(error).during("the backup's inventory"))?;
    Ok((backup, inventory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_go_both_ways_and_are_checked() {
        let details = Details {
            block_size: 8192,
            wal_segment_size: 16 << 20,
            relation_segment_blocks: 131_072,
            data_checksums: true,
            manifest: false,
            tablespaces: vec![Tablespace { oid: 16385, path: "/srv/fast".into() }],
        };
        let text = r#"{"entries":0,"bytes":0,"server":{"version":"15.1","systemIdentifier":"7","role":"primary"}}"#;
        let mut inventory: Inventory = serde_json::from_str(text).expect("valid");
        assert!(Details::of(&inventory).is_err(), "another plugin's");
        inventory.details = details.clone().into_document().expect("an object");
        assert_eq!(Details::of(&inventory).expect("valid"), details);
        inventory.details.remove("manifest");
        assert!(Details::of(&inventory).expect("valid").manifest, "as it was before");
        inventory.details["walSegmentSize"] = 1.into();
        assert!(Details::of(&inventory).is_err());
    }
}
