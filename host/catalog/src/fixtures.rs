//! Catalogs and rows for the tests of this room.

use std::collections::BTreeMap;
use std::ops::Deref;

use tempfile::TempDir;

use crate::{
    BackupRow, BackupState, Catalog, IdempotencyKey, InsertedBackup, InstanceRow, JobRow, LaneLimits, NewJob,
    PluginRow, PolicyRow, PolicySpec, RetentionRules, TargetRole, TargetRow,
};

/// A catalog in a directory of its own.
pub(crate) struct Fixture {
    catalog: Catalog,
    directory: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap()).await
    }

    /// Closes the catalog and opens it again.
    pub(crate) async fn reopen(self) -> Self {
        drop(self.catalog);
        Self::at(self.directory).await
    }

    async fn at(directory: TempDir) -> Self {
        let catalog = Catalog::open(&directory.path().join("catalog.db")).await.unwrap();
        Self { catalog, directory }
    }

    /// Records a Pending backup of instance `instance` and its job, both named after `uid`.
    pub(crate) async fn pending(&self, uid: &str, instance: &str, created_ms: i64) -> (BackupRow, JobRow) {
        let key: Option<IdempotencyKey> = None;
        match self
            .insert_backup_with_job(
                backup(uid, instance, created_ms),
                job(&format!("job-{uid}"), "backup", instance),
                key,
            )
            .await
        {
            Ok(InsertedBackup::New { backup, job }) => (*backup, *job),
            other => panic!("{other:?}"),
        }
    }

    /// Records a backup that succeeded and is durable at no target.
    pub(crate) async fn succeeded(&self, uid: &str, instance: &str, created_ms: i64) -> BackupRow {
        let row = BackupRow {
            state: BackupState::Succeeded,
            finished_ms: Some(created_ms + 1),
            ..backup(uid, instance, created_ms)
        };
        self.upsert_backup(row.clone()).await.unwrap();
        row
    }
}

impl Deref for Fixture {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        &self.catalog
    }
}

pub(crate) fn instance(uid: &str, name: &str) -> InstanceRow {
    InstanceRow {
        uid: uid.to_owned(),
        organization: "acme".to_owned(),
        project: "shop".to_owned(),
        name: name.to_owned(),
        engine: "postgres".to_owned(),
        site: "here".to_owned(),
        settings: BTreeMap::from([("host".to_owned(), "db.example".to_owned())]),
        secrets: BTreeMap::from([("password".to_owned(), vec![0, 1, 0xfe, 0xff])]),
        created_ms: 1_000,
        updated_ms: 1_000,
        resource_version: 1,
        removed_ms: None,
    }
}

pub(crate) fn target(uid: &str, role: TargetRole) -> TargetRow {
    TargetRow {
        uid: uid.to_owned(),
        name: format!("target-{uid}"),
        role,
        url: format!("file:///srv/{uid}"),
        site: "there".to_owned(),
        settings: BTreeMap::new(),
        secrets: BTreeMap::from([("secret-key".to_owned(), vec![9; 40])]),
        conditional_writes: true,
        findings: "[]".to_owned(),
        last_error: None,
        newest_heads: "[]".to_owned(),
        created_ms: 1_000,
        updated_ms: 1_000,
        resource_version: 1,
        removed_ms: None,
    }
}

/// An installed plugin, for an engine of its own name.
pub(crate) fn plugin(name: &str) -> PluginRow {
    PluginRow {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        engine: name.to_owned(),
        digest: format!("digest of {name}"),
        installed_ms: 1_000,
    }
}

/// A policy that keeps the last two backups of everything.
pub(crate) fn policy(uid: &str, name: &str) -> PolicyRow {
    let rules = RetentionRules { last: Some(2), ..RetentionRules::default() };
    PolicyRow::new(uid.to_owned(), name.to_owned(), PolicySpec { rules, ..PolicySpec::default() }, 1_000)
}

/// A Pending backup; its instance's uid is `uid of <instance>`.
pub(crate) fn backup(uid: &str, instance: &str, created_ms: i64) -> BackupRow {
    BackupRow {
        uid: uid.to_owned(),
        instance_uid: format!("uid of {instance}"),
        organization: "acme".to_owned(),
        project: "shop".to_owned(),
        instance: instance.to_owned(),
        name: format!("name of {uid}"),
        description: Some("before the move".to_owned()),
        method: "basebackup".to_owned(),
        backup_type: "full".to_owned(),
        plugin: "postgres@0.1.0".to_owned(),
        component: "c0".repeat(32),
        engine: "postgres".to_owned(),
        site: "here".to_owned(),
        labels: BTreeMap::from([("ticket".to_owned(), "42".to_owned())]),
        state: BackupState::Pending,
        phase: "queued".to_owned(),
        reason: None,
        hint: None,
        created_ms,
        started_ms: None,
        finished_ms: None,
        entries: 0,
        logical_bytes: 0,
        stored_bytes: 0,
        warnings: Vec::new(),
        verified: None,
        document: None,
        parent: None,
        job_id: None,
        holds: Vec::new(),
        keep_until_ms: None,
        updated_ms: created_ms,
        resource_version: 1,
    }
}

/// A job in the lane `work`, due at once, with three attempts.
pub(crate) fn job(id: &str, kind: &str, instance: &str) -> NewJob {
    NewJob {
        id: id.to_owned(),
        kind: kind.to_owned(),
        subject: format!("acme/shop/{instance}"),
        payload: "{}".to_owned(),
        max_attempts: 3,
        not_before_ms: 0,
        instance_uid: Some(format!("uid of {instance}")),
        lane: "work".to_owned(),
    }
}

/// As many places in the lane `work`, one in each other.
pub(crate) fn places(work: u32) -> LaneLimits {
    LaneLimits { lanes: BTreeMap::from([("work".to_owned(), work)]), others: 1 }
}
