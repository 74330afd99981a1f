//! All rows worth keeping as one value: what the appliance exports to its targets and is born again from.
//!
//! Jobs, logs, audit rows and unfinished backups stay behind. Equal catalogs give equal snapshots.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{count, hex_values, put};
use crate::{
    BackupRow, Catalog, CopyRow, Error, InstanceRow, LossRow, PluginRow, PolicyRow, TargetRow, TokenRow, backups,
    copies, instances, losses, meta, plugins, policies, targets, tokens,
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
    /// All installed plugins. Absent in what 0.1.0 wrote.
    #[serde(default)]
    pub plugins: Vec<PluginRow>,
    /// All policies. Absent in what 0.1.0 wrote.
    #[serde(default)]
    pub policies: Vec<PolicyRow>,
    /// What is known to be lost. Absent in what 0.1.0 wrote.
    #[serde(default)]
    pub losses: Vec<LossRow>,
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
                plugins: plugins::every(db)?,
                policies: policies::every(db)?,
                losses: losses::every(db)?,
            })
        })
        .await
    }

    /// Fills an empty catalog: all of the snapshot, or nothing. Refused: [`Error::NotEmpty`], [`Error::NewerSnapshot`].
    pub async fn import(&self, snapshot: Snapshot) -> Result<(), Error> {
        if snapshot.version > SNAPSHOT_VERSION {
            return Err(Error::NewerSnapshot { found: snapshot.version, known: SNAPSHOT_VERSION });
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
    let query =
        "SELECT EXISTS (SELECT 1 FROM instances) + EXISTS (SELECT 1 FROM targets) + EXISTS (SELECT 1 FROM backups)
                 + EXISTS (SELECT 1 FROM tokens) + EXISTS (SELECT 1 FROM plugins) + EXISTS (SELECT 1 FROM policies)";
    Ok(count(db, query, [])? == 0)
}

fn fill(db: &Connection, snapshot: Snapshot) -> Result<(), Fault> {
    for (key, value) in snapshot.meta {
        put(db, "meta", "key", vec![("key", key.into()), ("value", value.into())])?;
    }
    snapshot.instances.iter().try_for_each(|row| instances::store(db, row))?;
    snapshot.targets.iter().try_for_each(|row| targets::store(db, row))?;
    snapshot.backups.iter().try_for_each(|row| backups::store(db, row))?;
    snapshot.copies.iter().try_for_each(|row| copies::store(db, row))?;
    snapshot.tokens.iter().try_for_each(|row| tokens::store(db, row))?;
    snapshot.plugins.iter().try_for_each(|row| plugins::store(db, row))?;
    snapshot.policies.iter().try_for_each(|row| policies::store(db, row))?;
    snapshot.losses.iter().try_for_each(|row| losses::store(db, row))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, instance, plugin, policy, target};
    use crate::{BackupState, BackupSuccess, TargetRole};

    async fn lived_in() -> Fixture {
        let catalog = Fixture::new().await;
        catalog.set_meta("repository", &[1, 2, 255]).await.unwrap();
        catalog.set_meta("mode", b"ready").await.unwrap();
        catalog.insert_instance(instance("u1", "pg"), false).await.unwrap();
        catalog.insert_instance(instance("u2", "gone"), false).await.unwrap();
        catalog.remove_instance("u2", 2_000).await.unwrap();
        catalog.insert_target(target("t1", TargetRole::Primary)).await.unwrap();
        catalog.insert_target(target("t2", TargetRole::Secondary)).await.unwrap();
        catalog.remove_target("t2", 3_000).await.unwrap();
        catalog.pending("b1", "pg", 4_000).await;
        let success = BackupSuccess { entries: 5, document: Some("{\"entries\":5}".to_owned()), ..Default::default() };
        catalog.backup_succeeded("b1", "t1", success, 5_000).await.unwrap();
        catalog.backup_verified("b1", serde_json::json!({"passed": true}), 6_000).await.unwrap();
        catalog.pending("b2", "pg", 7_000).await;
        catalog.insert_token("admin", [3; 32], 1_000).await.unwrap();
        catalog.insert_plugin(plugin("redis")).await.unwrap();
        catalog.insert_policy(policy("p1", "standard")).await.unwrap();
        let (backup_uid, target_uid) = ("b1".to_owned(), "t1".to_owned());
        let loss = LossRow { backup_uid, target_uid, total: 1, ranges: Vec::new(), found_ms: 8_000 };
        catalog.set_losses("t1", vec![loss]).await.unwrap();
        catalog
    }

    #[tokio::test]
    async fn a_catalog_is_born_again_from_its_snapshot() {
        let snapshot = lived_in().await.export(&["repository", "never set"]).await.unwrap();
        assert_eq!(snapshot.meta, BTreeMap::from([("repository".to_owned(), vec![1, 2, 255])]));
        let text = serde_json::to_string(&snapshot).unwrap();
        let read: Snapshot = serde_json::from_str(&text).unwrap();
        assert_eq!(read, snapshot);

        let reborn = Fixture::new().await;
        reborn.import(read).await.unwrap();
        assert_eq!(reborn.export(&["repository"]).await.unwrap(), snapshot);
        assert_eq!(reborn.latest_usable("uid of pg").await.unwrap().unwrap().uid, "b1");
        let error = reborn.insert_instance(instance("u3", "gone"), false).await.unwrap_err();
        assert!(matches!(error, Error::NameUsed { .. }), "{error}");
        assert_eq!(reborn.meta("mode").await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_snapshot_from_before_plugins_and_policies_is_read() {
        let mut text = serde_json::to_value(lived_in().await.export(&[]).await.unwrap()).unwrap();
        for later in ["plugins", "policies", "losses"] {
            text.as_object_mut().unwrap().remove(later).unwrap();
        }
        let snapshot: Snapshot = serde_json::from_value(text).unwrap();
        let later = (snapshot.plugins.len(), snapshot.policies.len(), snapshot.losses.len());
        assert_eq!((later, snapshot.targets.len()), ((0, 0, 0), 2));
    }

    #[tokio::test]
    async fn what_was_unfinished_stays_behind() {
        let snapshot = lived_in().await.export(&[]).await.unwrap();
        assert!(snapshot.backups.iter().all(|row| row.state != BackupState::Pending));
        assert_eq!(snapshot.backups.len(), 1);
    }

    #[tokio::test]
    async fn only_an_empty_catalog_is_filled() {
        let catalog = lived_in().await;
        let snapshot = catalog.export(&[]).await.unwrap();
        let error = catalog.import(snapshot.clone()).await.unwrap_err();
        assert!(matches!(error, Error::NotEmpty), "{error}");
        assert_eq!(catalog.export(&[]).await.unwrap(), snapshot);
    }

    #[tokio::test]
    async fn half_a_snapshot_is_never_imported() {
        let mut snapshot = lived_in().await.export(&[]).await.unwrap();
        snapshot.copies[0].target_uid = "unknown".to_owned();
        let catalog = Fixture::new().await;
        assert!(catalog.import(snapshot).await.is_err());
        assert_eq!(catalog.counts().await.unwrap().instances, 0);
    }

    #[tokio::test]
    async fn a_newer_snapshot_is_refused_and_a_newer_field_is_not() {
        let snapshot = lived_in().await.export(&[]).await.unwrap();
        let mut json = serde_json::to_value(&snapshot).unwrap();
        json["schedules"] = serde_json::json!([1]);
        assert_eq!(serde_json::from_value::<Snapshot>(json).unwrap(), snapshot);

        let newer = Snapshot { version: SNAPSHOT_VERSION + 1, ..snapshot };
        let error = Fixture::new().await.import(newer).await.unwrap_err();
        assert!(matches!(error, Error::NewerSnapshot { found: 2, known: 1 }), "{error}");
    }
}
