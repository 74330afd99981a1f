//! Rows as people see them.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_catalog::{
    BackupRow, BackupState, CopyRow, CopyState, HoldRow, InstanceRow, JobRow, JobState, LossRow, TargetCounts,
    TargetRow,
};
use holdfast_repository::Verification;
use holdfast_sandbox::Description;

use crate::jobs::{JobKind, replicate};
use crate::losses::Lost;
use crate::plugins::Loaded;
use crate::policies::Retained;
use crate::resources::{
    Backup, BackupHold, BackupLoss, BackupLosses, BackupStatus, Instance, InstanceStatus, Job, JobError, PluginInfo,
    Progress, SiteCopy, Source, Target, TargetScrub, TargetStatus, Verified,
};
use crate::{Error, clock, words};

/// The cursor after a full page of what has no page of its own.
pub(crate) fn cursor<T>(rows: &[T], limit: u32, of: impl Fn(&T) -> String) -> Option<String> {
    (rows.len() == limit as usize).then(|| rows.last().map(of)).flatten()
}

/// A row's version, as it was shown.
pub(crate) fn resource_version(text: &str) -> Result<u64, Error> {
    text.parse().map_err(|_| Error::invalid("bad-version", format!("'{text}' is not a resource version")))
}

/// `name@version`.
pub(crate) fn plugin_name(description: &Description) -> String {
    format!("{}@{}", description.name, description.version)
}

pub(crate) fn plugin(Loaded { plugin, installed_ms }: &Loaded) -> PluginInfo {
    let description = plugin.description();
    PluginInfo {
        name: description.name.clone(),
        version: description.version.clone(),
        engine: description.engine.clone(),
        digest: plugin.digest().to_string(),
        origin: if installed_ms.is_some() { "installed" } else { "built-in" }.to_owned(),
        installed_at: installed_ms.map(clock::text),
        imports: plugin.imports().to_vec(),
        description: serde_json::to_value(description).unwrap_or_default(),
    }
}

pub(crate) fn instance(
    row: &InstanceRow,
    latest: Option<&(BackupRow, Vec<CopyRow>)>,
    offsite_ms: Option<i64>,
    targets: &[TargetRow],
) -> Instance {
    Instance {
        uid: row.uid.clone(),
        organization: row.organization.clone(),
        project: row.project.clone(),
        name: row.name.clone(),
        engine: row.engine.clone(),
        site: row.site.clone(),
        settings: shown_settings(&row.settings, &row.secrets),
        created_at: clock::text(row.created_ms),
        updated_at: clock::text(row.updated_ms),
        resource_version: row.resource_version.to_string(),
        status: InstanceStatus {
            last_backup: latest.map(|(backup, _)| backup.name.clone()),
            last_backup_at: latest.and_then(|(backup, _)| backup.finished_ms).map(clock::text),
            protection: latest.map_or("none", |(_, copies)| protection(copies, targets)).to_owned(),
            last_offsite_backup_at: offsite_ms.map(clock::text),
            offsite_lag_seconds: offsite_ms.map(seconds_since),
        },
    }
}

/// Whole seconds from then until now; 0 for what is still to come.
pub(crate) fn seconds_since(ms: i64) -> u64 {
    clock::unsigned(clock::now_ms() - ms) / 1000
}

/// Settings, and of secrets only that there are some.
fn shown_settings(
    settings: &BTreeMap<String, String>,
    secrets: &BTreeMap<String, Vec<u8>>,
) -> BTreeMap<String, String> {
    let hidden = secrets.keys().map(|key| (key.clone(), "***".to_owned()));
    settings.iter().map(|(key, value)| (key.clone(), value.clone())).chain(hidden).collect()
}

/// At how many sites a backup is durable: `none`, `single-site`, `two-sites`.
fn protection(copies: &[CopyRow], targets: &[TargetRow]) -> &'static str {
    let sites: BTreeSet<_> = targets
        .iter()
        .filter(|target| copies.iter().any(|copy| copy.target_uid == target.uid && copy.state == CopyState::Durable))
        .map(|target| target.site.as_str())
        .collect();
    match sites.len() {
        0 => "none",
        1 => "single-site",
        _ => "two-sites",
    }
}

/// A backup's copies, what is lost of them, and where they lie.
#[derive(Clone, Copy)]
pub(crate) struct Copies<'a> {
    pub(crate) copies: &'a [CopyRow],
    pub(crate) losses: &'a [LossRow],
    pub(crate) targets: &'a [TargetRow],
}

impl Copies<'_> {
    /// Whether something of it is known to be lost at every target where it is durable. What only some of them lack a restore takes from the
    /// others.
    pub(crate) fn is_damaged(&self) -> bool {
        let is_durable = |target: &&TargetRow| {
            let mut copies = self.copies.iter();
            copies.any(|copy| copy.target_uid == target.uid && copy.state == CopyState::Durable)
        };
        let mut lost: Option<Lost> = None;
        for holder in self.targets.iter().filter(is_durable) {
            let here = self.lost_at(holder).map_or_else(Lost::nothing, Lost::of);
            lost = Some(lost.map_or_else(|| here.clone(), |before| before.and(&here)));
        }
        lost.is_some_and(|lost| !lost.is_nothing())
    }

    /// What is lost at a target.
    pub(crate) fn lost_at(&self, target: &TargetRow) -> Option<&LossRow> {
        self.losses.iter().find(|loss| loss.target_uid == target.uid)
    }
}

/// Why a backup that succeeded is not ready to use, and what to do.
pub(crate) const LOST: (&str, &str) = (
    "parts of it are lost at every target that holds it",
    "`holdfast repository check --read-data --heal --target T` brings back what is intact anywhere. What is lost for good is stored anew by the next backup that holds it.",
);

pub(crate) fn backup(row: &BackupRow, of: Copies<'_>, retained: Option<&Retained>) -> Backup {
    let Copies { copies, targets, .. } = of;
    let is_lost = row.state == BackupState::Succeeded && of.is_damaged();
    let (lost_reason, lost_hint) = is_lost.then_some(LOST).unzip();
    let sites = targets.iter().map(|target| {
        let copy = copies.iter().find(|copy| copy.target_uid == target.uid);
        SiteCopy {
            site: target.site.clone(),
            target: target.name.clone(),
            state: copy_state(copy).to_owned(),
            durable_at: copy.and_then(|copy| copy.durable_ms).map(clock::text),
            expired_at: copy.and_then(|copy| copy.expired_ms).map(clock::text),
            lag_seconds: row.finished_ms.filter(|_| lags(row, copy)).map(|finished_ms| {
                let until_ms = copy.and_then(|copy| copy.durable_ms).unwrap_or_else(clock::now_ms);
                clock::unsigned(until_ms - finished_ms) / 1000
            }),
            reason: copy.and_then(|copy| copy.reason.clone()),
            copied_bytes: copy.map_or(0, |copy| copy.copied_bytes),
        }
    });
    Backup {
        uid: row.uid.clone(),
        organization: row.organization.clone(),
        project: row.project.clone(),
        instance: row.instance.clone(),
        name: row.name.clone(),
        description: row.description.clone(),
        method: row.method.clone(),
        backup_type: row.backup_type.clone(),
        plugin: row.plugin.clone(),
        labels: row.labels.clone(),
        created_at: clock::text(row.created_ms),
        updated_at: clock::text(row.updated_ms),
        resource_version: row.resource_version.to_string(),
        source: row.document.as_deref().and_then(source),
        holds: row.holds.iter().map(hold).collect(),
        keep_until: row.keep_until_ms.map(clock::text),
        status: BackupStatus {
            state: row.state.to_string(),
            phase: row.phase.clone(),
            ready_to_use: row.state == BackupState::Succeeded && !is_lost,
            retained_as: retained.map(|retained| retained.words.clone()).unwrap_or_default(),
            reason: row.reason.clone().or(lost_reason.map(str::to_owned)),
            hint: row.hint.clone().or(lost_hint.map(str::to_owned)),
            started_at: row.started_ms.map(clock::text),
            finished_at: row.finished_ms.map(clock::text),
            entries: row.entries,
            logical_bytes: row.logical_bytes,
            stored_bytes: row.stored_bytes,
            warnings: row.warnings.clone(),
            verified: row.verified.clone().and_then(|value| serde_json::from_value::<Verified>(value).ok()),
            protection: protection(copies, targets).to_owned(),
            expires_at: retained.and_then(|retained| retained.expires_ms).map(clock::text),
            locked_until: retained.and_then(|retained| retained.locked_ms).map(clock::text),
            sites: sites.collect(),
            losses: targets.iter().filter_map(|target| Some(losses(target, of.lost_at(target)?))).collect(),
            job: row.job_id.clone(),
        },
    }
}

/// How a copy is; one that policies let go is not on its way.
fn copy_state(copy: Option<&CopyRow>) -> &'static str {
    match copy {
        Some(copy) if copy.expired_ms.is_some() => "Expired",
        Some(copy) => copy.state.as_str(),
        None => CopyState::Pending.as_str(),
    }
}

/// Whether it means anything for how long a copy was not there.
fn lags(row: &BackupRow, copy: Option<&CopyRow>) -> bool {
    row.state == BackupState::Succeeded && copy.is_none_or(|copy| copy.expired_ms.is_none())
}

fn losses(target: &TargetRow, lost: &LossRow) -> BackupLosses {
    let ranges = lost.ranges.iter();
    BackupLosses {
        target: target.name.clone(),
        site: target.site.clone(),
        total: lost.total,
        ranges: ranges.map(|range| BackupLoss { entry: range.entry.clone(), from: range.from, to: range.to }).collect(),
        found_at: clock::text(lost.found_ms),
    }
}

fn hold(hold: &HoldRow) -> BackupHold {
    BackupHold { name: hold.name.clone(), reason: hold.reason.clone(), at: clock::text(hold.at_ms) }
}

/// What a plugin's inventory says of the server.
fn source(document: &str) -> Option<Source> {
    #[derive(serde::Deserialize)]
    struct Inventory {
        server: Source,
    }
    let mut document = serde_json::from_str(document).ok()?;
    words::make_harmless(&mut document);
    serde_json::from_value::<Inventory>(document).ok().map(|inventory| inventory.server)
}

impl From<&Verification> for Verified {
    fn from(proof: &Verification) -> Self {
        Self {
            level: proof.level.clone(),
            target: proof.target.clone(),
            at: clock::text(clock::signed(proof.at_ms)),
            passed: proof.passed,
            detail: proof.detail.clone(),
        }
    }
}

pub(crate) fn target(row: &TargetRow, counts: TargetCounts, scrub: TargetScrub) -> Target {
    Target {
        name: row.name.clone(),
        role: row.role.to_string(),
        url: row.url.clone(),
        site: row.site.clone(),
        settings: shown_settings(&row.settings, &row.secrets),
        created_at: clock::text(row.created_ms),
        resource_version: row.resource_version.to_string(),
        status: TargetStatus {
            backups: counts.durable,
            behind: counts.behind,
            behind_since: counts.behind_since_ms.map(clock::text),
            lag_seconds: counts.behind_since_ms.map_or(0, seconds_since),
            conditional_writes: row.conditional_writes,
            findings: serde_json::from_str(&row.findings).unwrap_or_default(),
            last_error: row.last_error.clone(),
            scrub,
        },
    }
}

/// What a job is at. A copy that was queued for later waits for nothing but the window of its target.
fn phase(row: &JobRow) -> String {
    let is_for_later = row.state == JobState::Queued && row.attempts == 0 && row.not_before_ms > clock::now_ms();
    if is_for_later && row.kind == JobKind::Replicate.name() {
        replicate::waits_until(row.not_before_ms)
    } else {
        row.progress.phase.clone()
    }
}

pub(crate) fn job(row: &JobRow) -> Job {
    Job {
        id: row.id.clone(),
        kind: row.kind.clone(),
        state: row.state.to_string(),
        attempts: row.attempts,
        subject: row.subject.clone(),
        progress: Progress {
            phase: phase(row),
            done: row.progress.done,
            total: row.progress.total,
            unit: row.progress.unit.clone(),
        },
        error: row.error.as_ref().map(|error| JobError {
            code: error.code.clone(),
            message: error.message.clone(),
            hint: error.hint.clone(),
        }),
        result: row.result.clone(),
        created_at: clock::text(row.created_ms),
        started_at: row.started_ms.map(clock::text),
        finished_at: row.finished_ms.map(clock::text),
        next_attempt_at: (row.state == JobState::Queued && row.attempts > 0).then(|| clock::text(row.not_before_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_tells_where_a_backup_came_from() {
        let of = |document: &str| source(document).map(|source| (source.member, source.role));
        let known = r#"{"entries":1,"server":{"version":"15.1","role":"standby","member":"db2:5432"}}"#;
        assert_eq!(of(known), Some((Some("db2:5432".to_owned()), Some("standby".to_owned()))));
        assert_eq!(of(r#"{"server":{"role":"primary"}}"#), Some((None, Some("primary".to_owned()))));
        assert_eq!(of(r#"{"entries":1}"#), None);
    }
}
