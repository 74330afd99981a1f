//! Table `losses`: what of a backup is known to be lost at a target. No row means that nothing is.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{Columns, all, integer, json, of_backups, put, read_count, read_json};
use crate::{Catalog, Error};

/// What of a backup is lost at one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossRow {
    /// Of which backup.
    pub backup_uid: String,
    /// At which target.
    pub target_uid: String,
    /// How many ranges are lost.
    pub total: u64,
    /// The first of them.
    pub ranges: Vec<LostRangeRow>,
    /// When it was found, in milliseconds since 1970.
    pub found_ms: i64,
}

/// Bytes that are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostRangeRow {
    /// Path of the entry; none where entries themselves are not known any more.
    pub entry: Option<String>,
    /// First byte.
    pub from: u64,
    /// Behind the last byte.
    pub to: u64,
}

impl Catalog {
    /// Makes these all that is known to be lost at a target, and tells whether that is news. Backups that the catalog does not know are
    /// passed over.
    pub async fn set_losses(&self, target_uid: &str, losses: Vec<LossRow>) -> Result<bool, Error> {
        let target_uid = target_uid.to_owned();
        self.write("recording what is lost at a target", move |db| {
            let query = "SELECT * FROM losses WHERE target_uid = ?1 ORDER BY backup_uid";
            let before = all(db, query, params![target_uid], from_row)?;
            db.execute("DELETE FROM losses WHERE target_uid = ?1", params![target_uid])?;
            losses.iter().filter(|row| row.target_uid == target_uid).try_for_each(|row| store(db, row))?;
            let ranges = |rows: Vec<LossRow>| -> Vec<_> {
                rows.into_iter().map(|row| (row.backup_uid, row.total, row.ranges)).collect()
            };
            Ok(ranges(before) != ranges(all(db, query, params![target_uid], from_row)?))
        })
        .await
    }

    /// What is known to be lost of these backups, by backup's uid.
    pub async fn losses_of(&self, backup_uids: &[String]) -> Result<BTreeMap<String, Vec<LossRow>>, Error> {
        let backup_uids = backup_uids.to_vec();
        self.read("reading losses", move |db| of(db, &backup_uids)).await
    }

    /// How many backups are known to have losses at a target.
    pub async fn backups_with_losses_at(&self, target_uid: &str) -> Result<u64, Error> {
        let target_uid = target_uid.to_owned();
        self.read("counting losses", move |db| {
            let query = "SELECT count(*) AS backups FROM losses WHERE target_uid = ?1";
            Ok(all(db, query, params![target_uid], |row| read_count(row, "backups"))?.into_iter().sum())
        })
        .await
    }
}

/// By backup's uid.
pub(crate) fn of(db: &Connection, backup_uids: &[String]) -> Result<BTreeMap<String, Vec<LossRow>>, Fault> {
    of_backups(db, "losses", backup_uids, from_row, |row| &row.backup_uid)
}

/// All that is known to be lost.
pub(crate) fn every(db: &Connection) -> Result<Vec<LossRow>, Fault> {
    all(db, "SELECT * FROM losses ORDER BY backup_uid, target_uid", [], from_row)
}

pub(crate) fn store(db: &Connection, row: &LossRow) -> Result<(), Fault> {
    if crate::backups::by_uid(db, &row.backup_uid)?.is_none() {
        return Ok(());
    }
    put(db, "losses", "backup_uid, target_uid", columns(row)?)
}

fn columns(row: &LossRow) -> Result<Columns, Fault> {
    Ok(vec![
        ("backup_uid", row.backup_uid.clone().into()),
        ("target_uid", row.target_uid.clone().into()),
        ("total", integer(row.total)),
        ("ranges", json(&row.ranges)?),
        ("found_ms", row.found_ms.into()),
    ])
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<LossRow> {
    Ok(LossRow {
        backup_uid: row.get("backup_uid")?,
        target_uid: row.get("target_uid")?,
        total: read_count(row, "total")?,
        ranges: read_json(row, "ranges")?,
        found_ms: row.get("found_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TargetRole;
    use crate::fixtures::{Fixture, target};

    fn loss(backup: &str, target: &str) -> LossRow {
        LossRow {
            backup_uid: backup.to_owned(),
            target_uid: target.to_owned(),
            total: 3,
            ranges: vec![LostRangeRow { entry: Some("base/1".to_owned()), from: 0, to: 65_536 }],
            found_ms: 7,
        }
    }

    #[tokio::test]
    async fn what_is_found_at_a_target_takes_the_place_of_what_was_known_there() {
        let catalog = Fixture::new().await;
        catalog.insert_target(target("t1", TargetRole::Primary)).await.unwrap();
        catalog.insert_target(target("t2", TargetRole::Secondary)).await.unwrap();
        for (uid, created_ms) in [("b1", 1_000), ("b2", 2_000)] {
            catalog.succeeded(uid, "pg", created_ms).await;
        }
        catalog.set_losses("t1", vec![loss("b1", "t1"), loss("b2", "t1"), loss("unknown", "t1")]).await.unwrap();
        catalog.set_losses("t2", vec![loss("b2", "t2")]).await.unwrap();
        let known = async || catalog.losses_of(&["b1".to_owned(), "b2".to_owned()]).await.unwrap();
        assert_eq!(known().await["b2"], [loss("b2", "t1"), loss("b2", "t2")]);
        assert_eq!(catalog.backups_with_losses_at("t1").await.unwrap(), 2);

        assert!(catalog.set_losses("t1", vec![loss("b1", "t1")]).await.unwrap());
        let later = LossRow { found_ms: 9, ..loss("b1", "t1") };
        assert!(!catalog.set_losses("t1", vec![later]).await.unwrap(), "that is no news");
        assert_eq!(known().await["b2"], [loss("b2", "t2")]);
        catalog.backup_deleting("b1", 3_000).await.unwrap();
        catalog.backup_deleted("b1").await.unwrap();
        assert_eq!(catalog.backups_with_losses_at("t1").await.unwrap(), 0);
    }
}
