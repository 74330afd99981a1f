//! How each resource looks in a table.

use holdfast_control::Recovered;
use holdfast_control::resources::{
    Backup, BackupEntry, BackupLoss, BackupLosses, CheckReport, Instance, InstanceCheck, Job, LogLine, Member,
    PluginInfo, Policy, PolicyRules, PreviewedBackup, Problem, PruneReport, Recipient, RecipientRemoved,
    RepositoryStats, RewrapReport, Rotation, Source, Status, Target, TargetScrub,
};
use serde::Serialize;

use super::output::{Shown, optional, size, time};

impl Shown for Instance {
    const HEADINGS: &'static [&'static str] = &["name", "engine", "site", "last backup", "at", "protection"];

    fn cells(&self) -> Vec<String> {
        let status = &self.status;
        vec![
            self.name(),
            self.engine.clone(),
            self.site.clone(),
            optional(status.last_backup.as_ref()),
            status.last_backup_at.as_deref().map(time).unwrap_or_default(),
            protection(&status.protection),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}/{}", self.organization, self.project, self.name)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        details.extend([
            ("last off site", self.status.last_offsite_backup_at.as_deref().map(time).unwrap_or_default()),
            ("settings", pairs(&self.settings)),
            ("created", time(&self.created_at)),
            ("uid", self.uid.clone()),
        ]);
        details
    }
}

impl Shown for InstanceCheck {
    const HEADINGS: &'static [&'static str] = &["reachable", "version", "role", "size"];

    fn cells(&self) -> Vec<String> {
        let reachable = if self.reachable { "yes" } else { "no" };
        vec![
            reachable.to_owned(),
            optional(self.version.as_ref()),
            optional(self.role.as_ref()),
            self.size_bytes.map(size).unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        optional(self.version.as_ref())
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        details.extend(self.members.iter().map(member));
        details.extend(self.problems.iter().map(problem));
        details
    }
}

impl Shown for Backup {
    const HEADINGS: &'static [&'static str] =
        &["name", "state", "method", "type", "size", "stored", "protection", "verified", "created"];

    fn cells(&self) -> Vec<String> {
        let status = &self.status;
        let state =
            if status.state == "Pending" { format!("Pending ({})", status.phase) } else { status.state.clone() };
        let verified =
            status.verified.as_ref().map(|v| if v.passed { v.level.clone() } else { format!("{} FAILED", v.level) });
        vec![
            self.name(),
            state,
            self.method.clone(),
            self.backup_type.clone(),
            size(status.logical_bytes),
            size(status.stored_bytes),
            protection(&status.protection),
            verified.unwrap_or_default(),
            time(&self.created_at),
        ]
    }

    fn name(&self) -> String {
        format!("{}/{}/{}/{}", self.organization, self.project, self.instance, self.name)
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let status = &self.status;
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        details.extend([
            ("reason", optional(status.reason.as_ref())),
            ("hint", optional(status.hint.as_ref())),
            ("finished", status.finished_at.as_deref().map(time).unwrap_or_default()),
            ("entries", status.entries.to_string()),
            ("plugin", self.plugin.clone()),
            ("source", self.source.as_ref().map(source).unwrap_or_default()),
            ("labels", pairs(&self.labels)),
            ("description", optional(self.description.as_ref())),
            ("job", optional(status.job.as_ref())),
            ("uid", self.uid.clone()),
        ]);
        details.extend([
            ("kept as", status.retained_as.join(", ")),
            ("kept until", self.keep_until.as_deref().map(time).unwrap_or_default()),
            ("expires", status.expires_at.as_deref().map(time).unwrap_or_default()),
            ("locked until", status.locked_until.as_deref().map(time).unwrap_or_default()),
        ]);
        details.extend(self.holds.iter().map(|hold| ("held by", format!("{}: {}", hold.name, hold.reason))));
        details.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
        details.extend(status.sites.iter().map(|copy| {
            let trouble = copy.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            ("copy", format!("{} at {} ({}){trouble}", copy.state, copy.site, copy.target))
        }));
        let ready = if status.ready_to_use { "yes" } else { "NO" };
        details.push(("ready to use", ready.to_owned()));
        details.extend(status.losses.iter().flat_map(losses));
        details
    }
}

/// How far a scrub is, in words.
fn scrub(scrub: &TargetScrub) -> String {
    let Some(days) = scrub.every_days else { return "turned off".to_owned() };
    let TargetScrub { damaged, healed, backups_with_losses, .. } = scrub;
    let found = format!("{damaged} packs damaged, {healed} objects healed, {backups_with_losses} backups with losses");
    format!("every {days} days; {} read in this pass; {found}", size(scrub.bytes_read))
}

/// What is lost of a backup at one target, a line each.
fn losses(losses: &BackupLosses) -> Vec<(&'static str, String)> {
    let line = |loss: &BackupLoss| {
        let entry = loss.entry.as_deref().unwrap_or("its entries");
        ("lost", format!("at {}: {entry}, bytes {} to {}", losses.target, loss.from, loss.to))
    };
    let mut lines: Vec<_> = losses.ranges.iter().map(line).collect();
    let more = losses.total.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(("lost", format!("at {}: {more} more ranges", losses.target)));
    }
    lines
}

impl Shown for BackupEntry {
    const HEADINGS: &'static [&'static str] = &["path", "kind", "size", "mode", "modified"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.path.clone(),
            self.kind.clone(),
            size(self.size),
            format!("{:04o}", self.mode & 0o7777),
            time(&self.modified_at),
        ]
    }

    fn name(&self) -> String {
        self.path.clone()
    }
}

impl Shown for Job {
    const HEADINGS: &'static [&'static str] = &["id", "kind", "subject", "state", "phase", "attempts", "created"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone(),
            self.kind.clone(),
            self.subject.clone(),
            self.state.clone(),
            self.progress.phase.clone(),
            self.attempts.to_string(),
            time(&self.created_at),
        ]
    }

    fn name(&self) -> String {
        self.id.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        if let Some(error) = &self.error {
            details.extend([("error", error.message.clone()), ("hint", optional(error.hint.as_ref()))]);
        }
        details.extend([
            ("result", self.result.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("finished", self.finished_at.as_deref().map(time).unwrap_or_default()),
            ("next attempt", self.next_attempt_at.as_deref().map(time).unwrap_or_default()),
        ]);
        details
    }
}

impl Shown for LogLine {
    const HEADINGS: &'static [&'static str] = &["at", "level", "message"];

    fn cells(&self) -> Vec<String> {
        vec![time(&self.at), self.level.clone(), self.message.clone()]
    }

    fn name(&self) -> String {
        self.sequence.to_string()
    }
}

impl Shown for Target {
    const HEADINGS: &'static [&'static str] = &["name", "role", "site", "url", "backups", "behind", "last error"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.role.clone(),
            self.site.clone(),
            self.url.clone(),
            self.status.backups.to_string(),
            self.status.behind.to_string(),
            optional(self.status.last_error.as_ref()),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        details.extend([
            ("behind since", self.status.behind_since.as_deref().map(time).unwrap_or_default()),
            ("all bytes read", self.status.scrub.last_ended_at.as_deref().map(time).unwrap_or_default()),
            ("scrub", scrub(&self.status.scrub)),
            ("settings", pairs(&self.settings)),
        ]);
        details.extend(self.status.findings.iter().map(|finding| {
            let works = if finding.works { "yes" } else { "NO" };
            ("found", format!("{}: {works}, {}", finding.what, finding.detail))
        }));
        details
    }
}

impl Shown for Policy {
    const HEADINGS: &'static [&'static str] = &["name", "scope", "labels", "targets", "keeps", "last change acts"];

    fn cells(&self) -> Vec<String> {
        let all = |text: String| if text.is_empty() { "all".to_owned() } else { text };
        vec![
            self.name.clone(),
            all(optional(self.scope.as_ref())),
            pairs(&self.labels),
            all(self.targets.join(", ")),
            rules(&self.rules),
            self.acts_at.as_deref().map(time).unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Such as `last 3, within 30d, 12 monthly`.
fn rules(rules: &PolicyRules) -> String {
    let counted = [
        ("hourly", rules.hourly),
        ("daily", rules.daily),
        ("weekly", rules.weekly),
        ("monthly", rules.monthly),
        ("yearly", rules.yearly),
    ];
    let within = rules.within_seconds.map(|seconds| match seconds % 86_400 {
        0 => format!("within {}d", seconds / 86_400),
        _ => format!("within {seconds}s"),
    });
    let mut words: Vec<_> = rules.forever.then(|| "everything".to_owned()).into_iter().collect();
    words.extend(rules.last.map(|last| format!("last {last}")));
    words.extend(within);
    words.extend(counted.into_iter().filter_map(|(word, count)| Some(format!("{} {word}", count?))));
    words.join(", ")
}

impl Shown for PreviewedBackup {
    const HEADINGS: &'static [&'static str] = &["backup", "created", "at each target"];

    fn cells(&self) -> Vec<String> {
        let copies = self.targets.iter().map(|copy| {
            let reasons = copy.reasons.iter().map(|reason| {
                let until = reason.until.as_deref().map(|until| format!(" until {}", time(until))).unwrap_or_default();
                format!("{} ({}){until}", reason.word, reason.detail)
            });
            let action = if copy.action == "delete" { "DELETE" } else { "keep" };
            let action = if copy.durable { action.to_owned() } else { format!("not there yet, {action}") };
            format!("{}: {action}: {}", copy.target, reasons.collect::<Vec<_>>().join(", "))
        });
        vec![self.backup.clone(), time(&self.created_at), copies.collect::<Vec<_>>().join("\n")]
    }

    fn name(&self) -> String {
        self.backup.clone()
    }
}

impl Shown for Status {
    const HEADINGS: &'static [&'static str] =
        &["version", "repository", "mode", "instances", "backups", "running jobs", "queued jobs"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.version.clone(),
            self.repository.clone(),
            self.mode.clone(),
            self.instances.to_string(),
            self.backups.to_string(),
            self.running_jobs.to_string(),
            self.queued_jobs.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.repository.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        details.push(("unlocked by", self.unlocked_by.clone()));
        details.extend(self.worst_offsite.as_ref().map(|worst| {
            let age = worst.last_offsite_backup_at.as_deref().map_or("never".to_owned(), time);
            ("last off site", format!("{age} ({})", worst.instance))
        }));
        details.extend(self.problems.iter().map(problem));
        details.extend(self.advice.iter().map(|advice| ("advice", problem(advice).1)));
        details
    }
}

/// What opens a keyring from now on.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Unlocked {
    /// As `[keyring] unlock` would say it.
    pub unlocked_by: String,
}

impl Shown for Unlocked {
    const HEADINGS: &'static [&'static str] = &["unlocked by"];

    fn cells(&self) -> Vec<String> {
        vec![self.unlocked_by.clone()]
    }

    fn name(&self) -> String {
        self.unlocked_by.clone()
    }
}

impl Shown for Recipient {
    const HEADINGS: &'static [&'static str] = &["name", "opens", "public", "added"];

    fn cells(&self) -> Vec<String> {
        let opens = self.organization.as_ref().map_or("everything".to_owned(), |own| format!("backups of {own}"));
        vec![self.name.clone(), opens, self.public.clone(), time(&self.added_at)]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

impl Shown for RecipientRemoved {
    const HEADINGS: &'static [&'static str] = &["removed", "keyring generation"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.generation.to_string()]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        details.push(("rewrap job", self.job.clone()));
        details.extend(self.still_readable.iter().map(|what| ("still readable", what.clone())));
        details
    }
}

impl Shown for Rotation {
    const HEADINGS: &'static [&'static str] = &["keyring generation", "verify key", "rewrap job"];

    fn cells(&self) -> Vec<String> {
        vec![self.generation.to_string(), self.verify_key.clone(), optional(self.job.as_ref())]
    }

    fn name(&self) -> String {
        optional(self.job.as_ref())
    }
}

impl Shown for RewrapReport {
    const HEADINGS: &'static [&'static str] = &["target", "site", "backups", "rewrapped", "left as they were"];

    fn cells(&self) -> Vec<String> {
        let left = self.unreadable.len() + self.kept.len();
        vec![
            self.target.clone(),
            self.site.clone(),
            self.backups.to_string(),
            self.rewrapped.to_string(),
            left.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.target.clone()
    }
}

/// What a shredding destroyed, and what survives it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shredded {
    /// The backup or the organization.
    pub subject: String,
    /// How it is at each target.
    pub targets: Vec<ShredAt>,
    /// What survives beyond them.
    pub survives: Vec<String>,
}

/// A shredding at one target.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShredAt {
    /// Name of the target.
    pub target: String,
    /// Where it is.
    pub site: String,
    /// It was reached.
    pub done: bool,
    /// What survives there.
    pub survives: Vec<String>,
}

impl Shown for Shredded {
    const HEADINGS: &'static [&'static str] = &["shredded"];

    fn cells(&self) -> Vec<String> {
        vec![self.subject.clone()]
    }

    fn name(&self) -> String {
        self.subject.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        for ShredAt { target, site, done, survives } in &self.targets {
            details.push((if *done { "done at" } else { "NOT DONE at" }, format!("{target} ({site})")));
            details.extend(survives.iter().map(|what| ("survives there", what.clone())));
        }
        details.extend(self.survives.iter().map(|what| ("survives", what.clone())));
        details
    }
}

impl Shown for RepositoryStats {
    const HEADINGS: &'static [&'static str] = &["repository", "backups", "chunks", "packs", "logical", "stored"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.repository.clone(),
            self.backups.to_string(),
            self.chunks.to_string(),
            self.packs.to_string(),
            size(self.logical_bytes),
            size(self.stored_bytes),
        ]
    }

    fn name(&self) -> String {
        self.repository.clone()
    }
}

impl Shown for CheckReport {
    const HEADINGS: &'static [&'static str] =
        &["target", "passed", "backups", "objects", "size", "packs read", "read", "healed", "damaged", "lost ranges"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.target.clone(),
            if self.passed { "yes" } else { "NO" }.to_owned(),
            self.backups.to_string(),
            self.objects.to_string(),
            size(self.bytes),
            self.packs_read.to_string(),
            size(self.bytes_read),
            self.healed_objects.to_string(),
            self.damages_found.to_string(),
            self.losses_found.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.target.clone()
    }
}

impl Shown for PruneReport {
    const HEADINGS: &'static [&'static str] =
        &["target", "condemned", "size", "repacked", "moved", "deleted", "freed", "kept"];

    fn cells(&self) -> Vec<String> {
        let kept: u64 = self.kept.values().map(|kept| kept.objects).sum();
        vec![
            self.target.clone(),
            self.condemned.objects.to_string(),
            size(self.condemned.bytes),
            self.repacked.objects.to_string(),
            size(self.moved_bytes),
            self.deleted.objects.to_string(),
            size(self.deleted.bytes),
            kept.to_string(),
        ]
    }

    fn name(&self) -> String {
        self.target.clone()
    }
}

impl Shown for PluginInfo {
    const HEADINGS: &'static [&'static str] = &["name", "version", "engine", "origin", "digest"];

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.version.clone(), self.engine.clone(), self.origin.clone(), self.digest.clone()]
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let mut details: Vec<_> = Self::HEADINGS.iter().copied().zip(self.cells()).collect();
        details.push(("installed", self.installed_at.as_deref().map(time).unwrap_or_default()));
        details.extend(described(&self.description["methods"], "name").map(|words| ("method", words)));
        details.extend(described(&self.description["settings"], "key").map(|words| ("setting", words)));
        details.extend(self.imports.iter().map(|import| ("asks for", import.clone())));
        details
    }
}

/// `name: description` of each item of a plugin's description; a secret says so.
fn described<'a>(items: &'a serde_json::Value, name: &'a str) -> impl Iterator<Item = String> + 'a {
    items.as_array().into_iter().flatten().map(move |item| {
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        let secret = if item["secret"] == true { " (secret)" } else { "" };
        format!("{}{secret}: {}", text(name), text("description"))
    })
}

impl Shown for Recovered {
    const HEADINGS: &'static [&'static str] = &["repository", "instances", "backups", "source"];

    fn cells(&self) -> Vec<String> {
        vec![self.repository.clone(), self.instances.to_string(), self.backups.to_string(), self.source.clone()]
    }

    fn name(&self) -> String {
        self.repository.clone()
    }

    fn details(&self) -> Vec<(&'static str, String)> {
        let heads = self.heads.iter().map(|head| {
            let words =
                format!("{} of {}, written {}, {}", head.sequence, head.domain, time(&head.written_at), head.digest);
            ("newest head", words)
        });
        let others = self.compared.iter().map(|other| {
            let seen = match &other.unreachable {
                Some(reason) => format!("not reached: {reason}"),
                None => format!("{} backups, {} of them not here", other.backups, other.missing_here),
            };
            ("other target", format!("{} ({}): {seen}", other.target, other.url))
        });
        let warnings = self.warnings.iter().map(|warning| ("WARNING", warning.clone()));
        Self::HEADINGS.iter().copied().zip(self.cells()).chain(heads).chain(others).chain(warnings).collect()
    }
}

/// What is not there any more.
#[derive(Debug, Serialize)]
pub struct Removed {
    removed: String,
}

impl Removed {
    /// Something of this name.
    pub fn new(name: impl ToString) -> Self {
        Self { removed: name.to_string() }
    }
}

impl Shown for Removed {
    const HEADINGS: &'static [&'static str] = &["removed"];

    fn cells(&self) -> Vec<String> {
        vec![self.removed.clone()]
    }

    fn name(&self) -> String {
        self.removed.clone()
    }
}

/// What an offline restore did.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    to_directory: String,
    result: serde_json::Value,
}

impl Restored {
    /// Into a directory, with the plugin's own words.
    pub fn new(to_directory: String, result: serde_json::Value) -> Self {
        Self { to_directory, result }
    }
}

impl Shown for Restored {
    const HEADINGS: &'static [&'static str] = &["directory", "files", "size"];

    fn cells(&self) -> Vec<String> {
        let number = |key: &str| self.result[key].as_u64();
        vec![
            self.to_directory.clone(),
            number("files").map(|files| files.to_string()).unwrap_or_default(),
            number("bytes").map(size).unwrap_or_default(),
        ]
    }

    fn name(&self) -> String {
        self.to_directory.clone()
    }
}

fn member(member: &Member) -> (&'static str, String) {
    let known = [member.role.as_deref(), member.version.as_deref()].into_iter().flatten().collect::<Vec<_>>();
    let state = match &member.problem {
        Some(problem) => problem.message.clone(),
        None if member.reachable => known.join(", "),
        None => "does not answer".to_owned(),
    };
    ("member", format!("{}: {state}", member.address))
}

/// Such as `db2:5432 (standby)`.
fn source(source: &Source) -> String {
    let role = source.role.as_ref().map(|role| format!("({role})"));
    source.member.clone().into_iter().chain(role).collect::<Vec<_>>().join(" ")
}

fn problem(problem: &Problem) -> (&'static str, String) {
    let hint = problem.hint.as_ref().map(|hint| format!("\n{hint}")).unwrap_or_default();
    (if problem.blocking { "PROBLEM" } else { "problem" }, format!("{}{hint}", problem.message))
}

fn pairs(values: &std::collections::BTreeMap<String, String>) -> String {
    values.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

/// In words that cannot be misread.
fn protection(state: &str) -> String {
    match state {
        "two-sites" => "two sites".to_owned(),
        "single-site" => "not protected against site loss".to_owned(),
        other => other.to_owned(),
    }
}
