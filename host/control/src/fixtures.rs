//! An appliance for the tests of this room: open, and with nothing that runs by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_catalog::{CopyRow, CopyState, LaneLimits, PolicyRow, PolicySpec, RetentionRules, TargetRow};
use holdfast_repository::{BackupId, BackupPlan, BackupRecord, InstanceId};
use holdfast_sandbox::{Compiler, Limits};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::appliance::{State, open};
use crate::jobs::{Context, Reporter};
use crate::resources::CreateTarget;
use crate::{Appliance, Options, Principal, backups, clock, jobs, recovery, targets};

/// An appliance in a directory of its own. Jobs run when a test runs them.
pub(crate) struct Fixture {
    state: Option<Arc<State>>,
    directory: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let mut fixture = Self { state: None, directory: tempfile::tempdir().unwrap() };
        fixture.reopen().await;
        fixture
    }

    pub(crate) fn state(&self) -> &Arc<State> {
        self.state.as_ref().unwrap()
    }

    /// Closes everything and opens it again.
    pub(crate) async fn reopen(&mut self) {
        drop(self.state.take());
        let options = Options {
            data_dir: self.directory.path().join("data"),
            unlocking: Default::default(),
            components: Vec::new(),
            primary_url: None,
            primary_site: None,
            workers: 1,
            limits: Limits::default(),
            compiler: Compiler::Here,
            compression: Default::default(),
            scrub: Default::default(),
        };
        self.state = Some(open(options).await.unwrap());
    }

    /// Adds a secondary target at the primary's site.
    pub(crate) async fn add_target(&self, name: &str) -> TargetRow {
        let request = CreateTarget {
            name: name.to_owned(),
            url: format!("file://{}", self.directory.path().join(name).display()),
            site: "local".to_owned(),
            settings: Default::default(),
            secrets: Default::default(),
        };
        let who = Principal { name: "test".to_owned() };
        Appliance(self.state().clone()).create_target(&who, request).await.unwrap();
        targets::find(self.state(), name).await.unwrap()
    }

    /// The files of a local target's packs.
    pub(crate) fn packs_at(&self, target: &TargetRow) -> Vec<PathBuf> {
        let packs =
            |path: &PathBuf| path.parent().and_then(Path::parent).is_some_and(|folder| folder.ends_with("packs"));
        files_below(Path::new(target.url.trim_start_matches("file://"))).into_iter().filter(packs).collect()
    }

    /// The next job of this kind, claimed and with all that it runs with.
    pub(crate) async fn claimed(&self, kind: &str) -> Context {
        let state = self.state().clone();
        let limits = LaneLimits { lanes: Default::default(), others: 9 };
        let job = loop {
            let job = state.catalog.claim_job(clock::now_ms(), limits.clone()).await.unwrap().unwrap();
            if job.kind == kind {
                break job;
            }
        };
        let (cancel, reporter) = (CancellationToken::new(), Arc::new(Reporter::default()));
        Context { state, job, cancel, reporter }
    }

    /// Makes a backup of acme/shop/pg of this time, durable at every target. Its uid.
    pub(crate) async fn back_up(&self, created_ms: i64) -> String {
        let state = self.state();
        let domain = state.domain("acme").await.unwrap();
        let primary = state.repository(&targets::primary(state).await.unwrap()).await.unwrap();
        let (backup, at_ms) = (BackupId::random(), clock::unsigned(created_ms));
        let plan = BackupPlan {
            backup,
            domain,
            parent: None,
            component: None,
            started_ms: at_ms,
            compression: state.compression,
        };
        let writer = primary.begin_backup(plan).await.unwrap();
        jobs::export::write_entry(&writer, "rows".to_owned(), created_ms, b"some rows").await.unwrap();
        let record = BackupRecord {
            organization: "acme".to_owned(),
            project: "shop".to_owned(),
            instance_name: "pg".to_owned(),
            name: clock::compact(created_ms),
            site: "local".to_owned(),
            ..BackupRecord::new(backup, InstanceId([7; 16]), at_ms)
        };
        let record = writer.commit(record, "{}".to_owned()).await.unwrap();
        let row = recovery::backup_row(&record, created_ms);
        state.catalog.upsert_backup(row).await.unwrap();
        for target in state.catalog.targets().await.unwrap() {
            let there = state.repository(&target).await.unwrap();
            if there.location() != primary.location() {
                there.copy_backup(&primary, domain, backup, &|_, _| {}).await.unwrap();
            }
            self.set_durable(&backup.to_string(), &target).await;
        }
        backup.to_string()
    }

    async fn set_durable(&self, backup_uid: &str, target: &TargetRow) {
        let copy = CopyRow {
            backup_uid: backup_uid.to_owned(),
            target_uid: target.uid.clone(),
            state: CopyState::Durable,
            durable_ms: Some(clock::now_ms()),
            reason: None,
            copied_bytes: 1,
            expired_ms: None,
        };
        self.state().catalog.set_copy(copy).await.unwrap();
    }

    /// A policy that was there long ago: it keeps the newest ones, so many, at these targets.
    pub(crate) async fn keep_last(&self, count: u32, targets: &[&TargetRow]) {
        let spec = PolicySpec {
            targets: targets.iter().map(|target| target.uid.clone()).collect(),
            rules: RetentionRules { last: Some(count), ..RetentionRules::default() },
            ..PolicySpec::default()
        };
        let policy = PolicyRow::new("p".to_owned(), "standard".to_owned(), spec, 0);
        self.state().catalog.insert_policy(policy).await.unwrap();
    }

    /// Uids of the backups of acme that a target's heads name, in order.
    pub(crate) async fn held_at(&self, target: &TargetRow) -> Vec<String> {
        let state = self.state();
        let domain = state.domain("acme").await.unwrap();
        let records = state.repository(target).await.unwrap().backups(domain).await.unwrap();
        let mut uids: Vec<_> = records.iter().map(|record| (record.created_ms, record.backup.to_string())).collect();
        uids.sort_unstable();
        uids.into_iter().map(|(_, uid)| uid).collect()
    }

    /// How a backup's copies are, by target: `Durable`, `Expired` and so on; none of a backup that is gone.
    pub(crate) async fn copies_of(&self, uid: &str) -> Vec<(String, String)> {
        let state = self.state();
        let Some(row) = state.catalog.backup_by_uid(uid).await.unwrap() else { return Vec::new() };
        let copies = backups::copies(state, uid).await.unwrap();
        let targets = state.catalog.targets().await.unwrap();
        let copies = crate::views::Copies { copies: &copies, losses: &[], targets: &targets };
        let shown = crate::views::backup(&row, copies, None);
        shown.status.sites.into_iter().map(|copy| (copy.target, copy.state)).collect()
    }
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
