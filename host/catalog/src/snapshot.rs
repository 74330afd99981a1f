//! All rows worth keeping as one value: what the appliance exports to its targets and is born again from.
//!
//! Jobs, logs, audit rows and unfinished backups stay behind. Equal catalogs give equal snapshots.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{count, hex_values, put};
use crate::{
    BackupRow, Catalog, CopyRow, Error, InstanceRow, TargetRow, TokenRow, backups, copies,
    instances, meta, targets, tokens,
};

/// The version of [`Snapshot`] that this program writes. Fields may be added under it; older programs ignore them.
pub const SNAPSHOT_VERSION: u32 = 1;

/// All rows worth keeping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// See [`SNAPSHOT_VERSION`].
    pub version: u32,
    /// Facts of the appliance, those that were asked for.
    #[serde(with = "hex_values")]
    pub meta: BTreeMap<String, Vec<u8>>,
    /// All instances, removed ones too: their names stay reserved.
    pub instances: Vec<InstanceRow>,
    /// All targets, removed ones too: copies refer to them.
    pub targets: Vec<TargetRow>,
    /// All finished backups.
    pub backups: Vec<BackupRow>,
    /// Their copies.
    pub copies: Vec<CopyRow>,
    /// All tokens, hashed.
    pub tokens: Vec<TokenRow>,
}

impl Catalog {
    /// All rows worth keeping, of one moment, with the facts of these keys.
    pub async fn export(&self, meta_keys: &[&str]) -> Result<Snapshot, Error> {
        let keys: Vec<String> = meta_keys.iter().map(|key| (*key).to_owned()).collect();
        self.read("exporting the catalog", move |db| {
            let mut facts = BTreeMap::new();
            for key in keys {
                if let Some(value) = meta::get(db, &key)? {
                    facts.insert(key, value);
                }
            }
            Ok(Snapshot {
                version: SNAPSHOT_VERSION,
                meta: facts,
                instances: instances::every(db)?,
                targets: targets::every(db)?,
                backups: backups::every_finished(db)?,
                copies: copies::every_finished(db)?,
                tokens: tokens::every(db)?,
            })
        })
        .await
    }

    /// Fills an empty catalog: all of the snapshot, or nothing. Refused: [`Error::NotEmpty`], [`Error::NewerSnapshot`].
    pub async fn import(&self, snapshot: Snapshot) -> Result<(), Error> {
        if snapshot.version > SNAPSHOT_VERSION {
            return Err(Error::NewerSnapshot {
                found: snapshot.version,
                known: SNAPSHOT_VERSION,
            });
        }
        self.write("importing a catalog", move |db| {
            if !is_empty(db)? {
                return Err(Error::NotEmpty.into());
            }
            fill(db, snapshot)
        })
        .await
    }
}

fn is_empty(db: &Connection) -> Result<bool, Fault> {
    let query = "SELECT EXISTS (SELECT 1 FROM instances) + EXISTS (SELECT 1 FROM targets) + EXISTS (SELECT 1 FROM backups)
                 + EXISTS (SELECT 1 FROM tokens)";
    Ok(count(db, query, [])? == 0)
}

fn fill(db: &Connection, snapshot: Snapshot) -> Result<(), Fault> {
    for (key, value) in snapshot.meta {
        put(
            db,
            "meta",
            "key",
            vec![("key", key.into()), ("value", value.into())],
        )?;
    }
    snapshot
        .instances
        .iter()
        .try_for_each(|row| instances::store(db, row))?;
    snapshot
        .targets
        .iter()
        .try_for_each(|row| targets::store(db, row))?;
    snapshot
        .backups
        .iter()
        .try_for_each(|row| backups::store(db, row))?;
    snapshot
        .copies
        .iter()
        .try_for_each(|row| copies::store(db, row))?;
    snapshot
        .tokens
        .iter()
        .try_for_each(|row| tokens::store(db, row))
}
