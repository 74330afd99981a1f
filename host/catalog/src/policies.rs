//! Table `policies`: what keeps backups. A policy's former words, and a removed policy, stay for as long as their readers want them.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{Columns, all, insert, integer, json, one, put, read_count, read_json};
use crate::{Catalog, Error};

/// A retention policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// 32 hexadecimal digits.
    pub uid: String,
    /// Unique among live policies.
    pub name: String,
    /// What it says.
    pub spec: PolicySpec,
    /// Since when, in milliseconds since 1970.
    pub since_ms: i64,
    /// What it said before, oldest first.
    pub former: Vec<FormerSpec>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub updated_ms: i64,
    /// Grows with each change.
    pub resource_version: u64,
    /// When it was removed.
    pub removed_ms: Option<i64>,
}

impl PolicyRow {
    /// One that says so from this time on, in milliseconds since 1970.
    pub fn new(uid: String, name: String, spec: PolicySpec, at_ms: i64) -> Self {
        Self {
            uid,
            name,
            spec,
            since_ms: at_ms,
            former: Vec::new(),
            created_ms: at_ms,
            updated_ms: at_ms,
            resource_version: 1,
            removed_ms: None,
        }
    }
}

/// Which backups a policy is about, and what it keeps of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// `organization[/project[/instance]]`; empty for all.
    #[serde(default)]
    pub scope: String,
    /// Only backups with all of these labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Uids of the targets at which it holds; none for all.
    #[serde(default)]
    pub targets: Vec<String>,
    /// What it keeps.
    pub rules: RetentionRules,
}

/// What is kept of the backups of an instance: the union of what each of these asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionRules {
    /// Everything.
    #[serde(default)]
    pub forever: bool,
    /// The newest ones, so many.
    #[serde(default)]
    pub last: Option<u32>,
    /// Those that are at most so much older than the newest, in milliseconds.
    #[serde(default)]
    pub within_ms: Option<i64>,
    /// The newest of each hour, of so many hours that have one.
    #[serde(default)]
    pub hourly: Option<u32>,
    /// The same of days.
    #[serde(default)]
    pub daily: Option<u32>,
    /// The same of weeks.
    #[serde(default)]
    pub weekly: Option<u32>,
    /// The same of months.
    #[serde(default)]
    pub monthly: Option<u32>,
    /// The same of years.
    #[serde(default)]
    pub yearly: Option<u32>,
}

/// What a policy said for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerSpec {
    /// What it said.
    pub spec: PolicySpec,
    /// From this time, in milliseconds since 1970,
    pub since_ms: i64,
    /// until this.
    pub until_ms: i64,
}

impl Catalog {
    /// Adds a policy and returns it as recorded. Refused: [`Error::PolicyExists`].
    pub async fn insert_policy(&self, row: PolicyRow) -> Result<PolicyRow, Error> {
        self.write("recording a policy", move |db| {
            if by_name(db, &row.name)?.is_some() {
                return Err(Error::PolicyExists { name: row.name }.into());
            }
            insert(db, "policies", columns(&row)?)?;
            Ok(row)
        })
        .await
    }

    /// The live policy of this name.
    pub async fn policy_by_name(&self, name: &str) -> Result<Option<PolicyRow>, Error> {
        let name = name.to_owned();
        self.read("reading a policy", move |db| by_name(db, &name)).await
    }

    /// All policies by name, removed ones among them.
    pub async fn policies(&self) -> Result<Vec<PolicyRow>, Error> {
        self.read("reading the policies", every).await
    }

    /// Changes a live policy (not its uid or name) and returns it; a change that makes no difference is none. With `if_version`, only if it
    /// is still at that version, else [`Error::Stale`].
    pub async fn update_policy<F>(
        &self,
        uid: &str,
        if_version: Option<u64>,
        now_ms: i64,
        change: F,
    ) -> Result<PolicyRow, Error>
    where
        F: FnOnce(&mut PolicyRow) + Send + 'static,
    {
        let uid = uid.to_owned();
        self.write("changing a policy", move |db| {
            let found =
                one(db, "SELECT * FROM policies WHERE uid = ?1 AND removed_ms IS NULL", params![uid], from_row)?;
            let before = found.ok_or(Error::NotFound { what: "policy", id: uid })?;
            if if_version.is_some_and(|version| version != before.resource_version) {
                return Err(Error::Stale { what: "policy", uid: before.uid, found: before.resource_version }.into());
            }
            let mut row = before.clone();
            change(&mut row);
            (row.uid, row.name) = (before.uid.clone(), before.name.clone());
            if row == before {
                return Ok(before);
            }
            (row.updated_ms, row.resource_version) = (now_ms, before.resource_version + 1);
            put(db, "policies", "uid", columns(&row)?)?;
            Ok(row)
        })
        .await
    }

    /// Forgets policies that were removed before a time.
    pub async fn forget_policies(&self, removed_before_ms: i64) -> Result<(), Error> {
        self.write("forgetting removed policies", move |db| {
            db.execute("DELETE FROM policies WHERE removed_ms < ?1", params![removed_before_ms])?;
            Ok(())
        })
        .await
    }
}

fn by_name(db: &Connection, name: &str) -> Result<Option<PolicyRow>, Fault> {
    one(db, "SELECT * FROM policies WHERE name = ?1 AND removed_ms IS NULL", params![name], from_row)
}

pub(crate) fn every(db: &Connection) -> Result<Vec<PolicyRow>, Fault> {
    all(db, "SELECT * FROM policies ORDER BY name, uid", [], from_row)
}

pub(crate) fn store(db: &Connection, row: &PolicyRow) -> Result<(), Fault> {
    insert(db, "policies", columns(row)?)
}

fn columns(row: &PolicyRow) -> Result<Columns, Fault> {
    Ok(vec![
        ("uid", row.uid.clone().into()),
        ("name", row.name.clone().into()),
        ("spec", json(&row.spec)?),
        ("since_ms", row.since_ms.into()),
        ("former", json(&row.former)?),
        ("created_ms", row.created_ms.into()),
        ("updated_ms", row.updated_ms.into()),
        ("resource_version", integer(row.resource_version)),
        ("removed_ms", row.removed_ms.into()),
    ])
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<PolicyRow> {
    Ok(PolicyRow {
        uid: row.get("uid")?,
        name: row.get("name")?,
        spec: read_json(row, "spec")?,
        since_ms: row.get("since_ms")?,
        former: read_json(row, "former")?,
        created_ms: row.get("created_ms")?,
        updated_ms: row.get("updated_ms")?,
        resource_version: read_count(row, "resource_version")?,
        removed_ms: row.get("removed_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, policy};

    #[tokio::test]
    async fn a_policy_is_kept_with_what_it_said_before() {
        let catalog = Fixture::new().await;
        catalog.insert_policy(policy("p1", "standard")).await.unwrap();
        let error = catalog.insert_policy(policy("p2", "standard")).await.unwrap_err();
        assert!(matches!(error, Error::PolicyExists { .. }), "{error}");
        let change = |row: &mut PolicyRow| {
            row.former.push(FormerSpec { spec: row.spec.clone(), since_ms: 1_000, until_ms: 2_000 });
            (row.spec.rules.last, row.since_ms, row.name) = (Some(9), 2_000, "other".to_owned());
        };
        let row = catalog.update_policy("p1", Some(1), 2_000, change).await.unwrap();
        assert_eq!((row.resource_version, row.name.as_str(), row.former.len()), (2, "standard", 1));
        let error = catalog.update_policy("p1", Some(1), 3_000, change).await.unwrap_err();
        assert!(matches!(error, Error::Stale { found: 2, .. }), "{error}");
        assert_eq!(catalog.reopen().await.policy_by_name("standard").await.unwrap(), Some(row));
    }

    #[tokio::test]
    async fn a_removed_policy_is_there_until_nobody_asks_and_its_name_is_free() {
        let catalog = Fixture::new().await;
        catalog.insert_policy(policy("p1", "standard")).await.unwrap();
        catalog.update_policy("p1", None, 5_000, |row| row.removed_ms = Some(5_000)).await.unwrap();
        assert_eq!(catalog.policy_by_name("standard").await.unwrap(), None);
        let error = catalog.update_policy("p1", None, 6_000, |row| row.removed_ms = None).await.unwrap_err();
        assert_eq!(error.code(), "not-found");
        catalog.insert_policy(policy("p2", "standard")).await.unwrap();
        catalog.forget_policies(5_000).await.unwrap();
        assert_eq!(catalog.policies().await.unwrap().len(), 2);
        catalog.forget_policies(5_001).await.unwrap();
        let left: Vec<_> = catalog.policies().await.unwrap().into_iter().map(|row| row.uid).collect();
        assert_eq!(left, ["p2"]);
    }
}
