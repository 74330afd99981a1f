//! What people and programs see: the JSON forms of DESIGN §8, one definition for API and CLI.

// The names are the contract's; openapi.json says more about each.
#![allow(missing_docs)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A secret on its way in. `Debug` does not show it, and its memory is cleared.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<SecretText> for String {
    fn from(secret: SecretText) -> Self {
        secret.expose().to_owned()
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A page of a list; `next` is a cursor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// A protected database service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    pub uid: String,
    pub organization: String,
    pub project: String,
    pub name: String,
    pub engine: String,
    pub site: String,
    /// Secrets are shown as `"***"`.
    pub settings: BTreeMap<String, String>,
    pub created_at: String,
    pub updated_at: String,
    pub resource_version: String,
    pub status: InstanceStatus,
}

/// What is known of an instance now.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceStatus {
    /// Name of the newest backup that can be restored.
    pub last_backup: Option<String>,
    pub last_backup_at: Option<String>,
    /// `none`, `single-site`, `two-sites`: of the newest backup.
    pub protection: String,
    /// When the newest backup that is durable at another site had succeeded.
    #[serde(default)]
    pub last_offsite_backup_at: Option<String>,
    /// How old what is off site is: seconds since then.
    #[serde(default)]
    pub offsite_lag_seconds: Option<u64>,
}

/// `POST instances`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateInstance {
    pub organization: String,
    pub project: String,
    pub name: String,
    pub engine: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretText>,
    #[serde(default)]
    pub adopt: bool,
}

/// What a plugin's probe found.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceCheck {
    pub reachable: bool,
    pub version: Option<String>,
    pub role: Option<String>,
    /// Bytes, as the engine estimates.
    pub size_bytes: Option<u64>,
    pub problems: Vec<Problem>,
    /// Every server of the instance, in the order of its settings.
    pub members: Vec<Member>,
}

/// One server of an instance, as the plugin's probe found it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// `host:port`, or a Unix socket's path.
    pub address: String,
    /// Whether it answered.
    pub reachable: bool,
    /// `primary` or `standby`.
    pub role: Option<String>,
    pub version: Option<String>,
    /// Why no backup can be taken from it, if so.
    pub problem: Option<Problem>,
}

/// One thing to mend.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
    /// No backup can succeed before this is mended.
    pub blocking: bool,
}

/// A backup (DESIGN §8).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    pub uid: String,
    pub organization: String,
    pub project: String,
    pub instance: String,
    pub name: String,
    pub description: Option<String>,
    pub method: String,
    #[serde(rename = "type")]
    pub backup_type: String,
    /// `name@version`.
    pub plugin: String,
    pub labels: BTreeMap<String, String>,
    pub created_at: String,
    pub updated_at: String,
    pub resource_version: String,
    /// The server that it was taken from, once that is known.
    pub source: Option<Source>,
    /// Who holds it: while anybody does, nothing deletes it.
    #[serde(default)]
    pub holds: Vec<BackupHold>,
    /// It follows no policy: it is kept until its instance has a success of this time.
    #[serde(default)]
    pub keep_until: Option<String>,
    pub status: BackupStatus,
}

/// A person's pin on a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupHold {
    /// Who holds it.
    pub name: String,
    pub reason: String,
    pub at: String,
}

/// What holds a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateHold {
    /// Why it must stay.
    pub reason: String,
}

/// Which hold ends.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReleaseHold {
    /// Who held it; else all holds end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Where a backup was taken from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// `host:port` or a Unix socket's path, of one of the instance's members.
    #[serde(default)]
    pub member: Option<String>,
    /// `primary` or `standby` at that time.
    #[serde(default)]
    pub role: Option<String>,
}

/// State of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStatus {
    /// `Pending`, `Succeeded`, `Failed`, `Cancelled`, `Deleting`.
    pub state: String,
    pub phase: String,
    pub ready_to_use: bool,
    /// What keeps it, in words that stay the same: `last`, `daily`, `hold`, `last-success`, `no-policy`, ...
    pub retained_as: Vec<String>,
    pub reason: Option<String>,
    pub hint: Option<String>,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    pub entries: u64,
    pub logical_bytes: u64,
    pub stored_bytes: u64,
    pub warnings: Vec<String>,
    pub verified: Option<Verified>,
    pub protection: String,
    /// When it may go at the earliest, if only what ends keeps it.
    pub expires_at: Option<String>,
    pub locked_until: Option<String>,
    pub sites: Vec<SiteCopy>,
    /// What is known to be lost of it, by target. It is ready to use as long as one copy is whole.
    #[serde(default)]
    pub losses: Vec<BackupLosses>,
    /// The job that makes it, while it is Pending, or that made it.
    pub job: Option<String>,
}

/// What is known to be lost of a backup at one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupLosses {
    pub target: String,
    pub site: String,
    /// How many ranges are lost.
    pub total: u64,
    /// The first 100.
    pub ranges: Vec<BackupLoss>,
    pub found_at: String,
}

/// Bytes of an entry that are lost.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupLoss {
    /// None where the entries themselves are not known any more.
    pub entry: Option<String>,
    /// First byte.
    pub from: u64,
    /// Behind the last byte.
    pub to: u64,
}

/// The newest proof.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    pub level: String,
    pub target: String,
    pub at: String,
    pub passed: bool,
    pub detail: String,
}

/// A backup's copy at one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteCopy {
    pub site: String,
    pub target: String,
    /// `Pending`, `Copying`, `Durable`, `Expired`.
    pub state: String,
    pub durable_at: Option<String>,
    /// When policies let it go there.
    #[serde(default)]
    pub expired_at: Option<String>,
    /// Seconds from the backup's success until it was durable there, or until now.
    #[serde(default)]
    pub lag_seconds: Option<u64>,
    /// Why the last attempt failed, if it did.
    pub reason: Option<String>,
    /// Bytes the copy moved.
    pub copied_bytes: u64,
}

/// `POST instances/{}/backups`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateBackup {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub backup_type: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Kept for so long, and by no policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for_seconds: Option<u64>,
}

/// Queued work.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    pub id: String,
    /// `backup`, `restore`, `verify`, `replicate`, `export`, `check`, `prune`, `rewrap`, `shred`, `expire`, `scrub`.
    pub kind: String,
    /// `Queued`, `Running`, `Succeeded`, `Failed`, `Cancelled`.
    pub state: String,
    pub attempts: u32,
    /// What it works on, such as `acme/shop/pg/20261121061001`.
    pub subject: String,
    pub progress: Progress,
    pub error: Option<JobError>,
    /// What it found or made, by kind.
    pub result: Option<serde_json::Value>,
    pub created_at: String,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
    /// When it is tried next, while it waits after a failure.
    pub next_attempt_at: Option<String>,
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub phase: String,
    pub done: u64,
    pub total: Option<u64>,
    pub unit: String,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobError {
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
}

/// A line of a job's log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    pub sequence: u64,
    pub at: String,
    pub level: String,
    pub message: String,
}

/// A place that holds backups.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    pub name: String,
    /// `primary` or `secondary`.
    pub role: String,
    /// Without any secret.
    pub url: String,
    pub site: String,
    /// Secrets are shown as `"***"`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    pub created_at: String,
    pub resource_version: String,
    pub status: TargetStatus,
}

/// State of a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Backups durable there.
    pub backups: u64,
    /// Backups that are not there yet.
    pub behind: u64,
    /// When the oldest of these had succeeded.
    #[serde(default)]
    pub behind_since: Option<String>,
    /// Seconds since then; 0 where nothing is behind.
    #[serde(default)]
    pub lag_seconds: u64,
    pub conditional_writes: bool,
    /// What was found when it was tried.
    #[serde(default)]
    pub findings: Vec<TargetFinding>,
    pub last_error: Option<String>,
    /// How far reading every byte there is.
    #[serde(default)]
    pub scrub: TargetScrub,
}

/// How far reading every byte at a target is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetScrub {
    /// In how many days all of it is read; none where that is turned off.
    pub every_days: Option<u32>,
    /// When the pass began that is under way.
    pub began_at: Option<String>,
    /// What it has read.
    pub bytes_read: u64,
    /// When the last pass ended that read everything.
    pub last_ended_at: Option<String>,
    pub last_bytes_read: u64,
    /// Packs that this pass and the last found damaged.
    pub damaged: u64,
    /// Objects that they healed, and damaged packs whose chunks were moved.
    pub healed: u64,
    /// Backups of which something is lost there.
    pub backups_with_losses: u64,
}

/// One thing that was tried at a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetFinding {
    /// `write`, `read`, `list`, `replace`, `delete`, `conditional-writes`, and what its kind has besides.
    pub what: String,
    pub works: bool,
    pub detail: String,
}

/// `POST targets`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTarget {
    pub name: String,
    pub url: String,
    pub site: String,
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretText>,
}

/// `PATCH targets/{}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EditTarget {
    /// Only if it is still at this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Settings to be set; `null` takes a setting or a secret away.
    #[serde(default)]
    pub settings: BTreeMap<String, Option<String>>,
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretText>,
}

/// `POST restores`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRestore {
    /// `organization/project/instance[/backup]`; without a backup or with `latest`, the newest that can be restored.
    pub backup: String,
    /// An absolute directory on the appliance's own machine.
    pub to_directory: String,
    /// Old to new real paths, for tablespaces.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// `user[:group]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Which target to read from; else the primary, else any that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// `POST backups/{}/verify`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateVerification {
    /// `bytes` or `engine`.
    pub level: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// `GET status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub version: String,
    pub repository: String,
    /// `ready`, or `recovered` until `takeover`.
    pub mode: String,
    pub instances: u64,
    pub backups: u64,
    pub running_jobs: u64,
    pub queued_jobs: u64,
    /// `key-file`, `passphrase` or `credential`: what opens the keyring in the data directory.
    pub unlocked_by: String,
    /// The instance whose newest off-site backup is the oldest, among those that have any backup.
    #[serde(default)]
    pub worst_offsite: Option<OffsiteLag>,
    /// Things that want attention: no recovery recipient, no second site, backups behind.
    pub problems: Vec<Problem>,
    /// What could be better, though nothing is wrong.
    pub advice: Vec<Problem>,
}

/// How old what is off site is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffsiteLag {
    /// `organization/project/instance`.
    pub instance: String,
    /// When its newest off-site backup had succeeded; none if nothing of it is off site.
    pub last_offsite_backup_at: Option<String>,
    /// Seconds since then.
    pub lag_seconds: Option<u64>,
}

/// A recovery recipient, or one of a tenant's own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recipient {
    pub name: String,
    pub public: String,
    pub added_at: String,
    /// Whose backups it opens, and no others; none of a recovery recipient, who opens all.
    pub organization: Option<String>,
}

/// `POST keys/recipients`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateRecipient {
    pub name: String,
    /// `age1...`.
    pub public: String,
    /// Opens the backups of this organization alone, by slots of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
}

/// `POST keys/rotate`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateKeys {
    /// Only this organization's key; without it those of all, and of the appliance's own catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// A new signing key instead.
    #[serde(default)]
    pub signing: bool,
}

/// What a rotation began.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    /// Of the keyring that holds the new keys.
    pub generation: u64,
    /// What signatures are checked with from now on.
    pub verify_key: String,
    /// The job that rewraps the slots at the primary; its report names those of the other targets.
    pub job: Option<String>,
}

/// The result of a rewrap job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RewrapReport {
    pub target: String,
    pub site: String,
    pub backups: u64,
    /// Those that got new slots.
    pub rewrapped: u64,
    /// Backups whose slots cannot be read there, and why.
    pub unreadable: Vec<String>,
    /// Former slots and keyrings that the store did not let go, and why.
    pub kept: Vec<String>,
    /// Jobs that do the same at the other targets.
    pub followed_by: Vec<String>,
}

/// What the removal of a recovery recipient means.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipientRemoved {
    pub name: String,
    /// Of the first keyring that they cannot open.
    pub generation: u64,
    /// What they can still read.
    pub still_readable: Vec<String>,
    /// The job that rewraps the slots at the primary.
    pub job: String,
}

/// `POST keys/shred`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shred {
    /// `organization/project/instance/backup`, or an organization.
    pub subject: String,
    /// The name of the backup or of the organization once more.
    pub confirm: String,
}

/// A shredding that began and cannot be undone.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShredBegun {
    pub subject: String,
    /// One for each target.
    pub jobs: Vec<ShredJob>,
    /// What survives beyond the targets' own reports.
    pub survives: Vec<String>,
}

/// The job that shreds at one target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShredJob {
    pub target: String,
    pub site: String,
    pub job: String,
}

/// The result of a shred job.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShredReport {
    pub target: String,
    pub site: String,
    /// What survives there, and until when.
    pub survives: Vec<String>,
}

/// What a new kit needs besides its identity.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipientAdded {
    pub recipient: Recipient,
    pub repository: String,
    pub verify_key: String,
    /// Lines `site url`.
    pub targets: Vec<String>,
    /// The keyring sealed for the recovery recipients (an age file), base64: the client tries its identity on it. None for a tenant's own.
    pub sealed_keyring: Option<String>,
}

/// `GET repository/stats`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStats {
    /// The repository's id.
    pub repository: String,
    pub backups: u64,
    pub chunks: u64,
    pub packs: u64,
    pub logical_bytes: u64,
    pub stored_bytes: u64,
}

/// `POST repository/check`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateCheck {
    /// Else the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Every byte of every pack, not the structure alone.
    #[serde(default)]
    pub read_data: bool,
    /// Reads packs no faster than this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// Puts back what other targets have undamaged.
    #[serde(default)]
    pub heal: bool,
}

/// What a prune is asked to do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreatePrune {
    /// Else the primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Only says what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Deletes what is dead at once: for the only appliance, which knows that nobody else reads there.
    #[serde(default)]
    pub now: bool,
}

/// The result of a prune job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneReport {
    pub target: String,
    pub dry_run: bool,
    pub now: bool,
    /// Dead objects that are deleted seven days from now, or at once.
    pub condemned: PruneTally,
    /// Half-dead packs whose living chunks were moved.
    pub repacked: PruneTally,
    /// Bytes of those chunks.
    pub moved_bytes: u64,
    pub deleted: PruneTally,
    /// What is dead and stays, by reason: `condemned` (its seven days are not over), `young` (no head names it yet, it may be a part of
    /// work that goes on), `locked`, `refused` (the target does not let it go), `damaged`, `no-room` (to move what lives in half-dead packs).
    pub kept: BTreeMap<String, PruneKept>,
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneTally {
    pub objects: u64,
    pub bytes: u64,
}

/// What stays for one reason.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneKept {
    pub objects: u64,
    pub bytes: u64,
    /// When the first of it may be deleted.
    pub until: Option<String>,
}

/// A retention policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    pub name: String,
    /// `organization[/project[/instance]]`; none for all.
    pub scope: Option<String>,
    /// Only backups with all of these.
    pub labels: BTreeMap<String, String>,
    /// Names of the targets at which it holds; none for all.
    pub targets: Vec<String>,
    pub rules: PolicyRules,
    /// When its newest change may let backups go, if that is still to come.
    pub acts_at: Option<String>,
    pub created_at: String,
    pub updated_at: String,
    pub resource_version: String,
}

/// What a policy keeps: the union of its rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRules {
    #[serde(default)]
    pub forever: bool,
    /// The newest ones, so many.
    #[serde(default)]
    pub last: Option<u32>,
    /// Those that are at most so much older than the newest.
    #[serde(default)]
    pub within_seconds: Option<u64>,
    /// The newest of each hour (UTC), of so many hours that have one.
    #[serde(default)]
    pub hourly: Option<u32>,
    #[serde(default)]
    pub daily: Option<u32>,
    /// Weeks begin on Mondays.
    #[serde(default)]
    pub weekly: Option<u32>,
    #[serde(default)]
    pub monthly: Option<u32>,
    #[serde(default)]
    pub yearly: Option<u32>,
}

/// `POST policies`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreatePolicy {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub targets: Vec<String>,
    pub rules: PolicyRules,
}

/// `PATCH policies/{}`: what is given replaces what was there.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EditPolicy {
    /// Only if it is still at this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
    /// Empty for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<PolicyRules>,
}

/// What would become of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewedBackup {
    /// `organization/project/instance/name`.
    pub backup: String,
    pub uid: String,
    pub created_at: String,
    pub targets: Vec<PreviewedCopy>,
}

/// The same at one target. One where it expired already is not listed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PreviewedCopy {
    pub target: String,
    pub site: String,
    /// Whether it is there.
    pub durable: bool,
    /// `keep` or `delete`; of what is not there yet, whether it is to come.
    pub action: String,
    pub reasons: Vec<KeepReason>,
}

/// One reason to keep or delete a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeepReason {
    /// As in `retainedAs`; `expired` of what is to be deleted.
    pub word: String,
    pub detail: String,
    /// When the reason ends, where that is known.
    pub until: Option<String>,
}

/// The result of an expire job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpireReport {
    /// Backups that went from each target.
    pub expired: BTreeMap<String, u64>,
    /// Backups that are gone everywhere.
    pub deleted: u64,
    /// Records of backups that never succeeded.
    pub forgotten: u64,
}

/// The result of a check job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckReport {
    pub target: String,
    pub read_data: bool,
    /// Nothing is damaged, or nothing is any more.
    pub passed: bool,
    pub backups: u64,
    pub objects: u64,
    /// Of all objects, read or not.
    pub bytes: u64,
    pub packs_read: u64,
    pub bytes_read: u64,
    /// Objects put back from other targets, or made again.
    pub healed_objects: u64,
    pub healed_bytes: u64,
    /// Damaged packs that nobody relies on any more: what was intact of them, here or elsewhere, lies in new ones.
    #[serde(default)]
    pub mended_packs: u64,
    /// Chunks that were moved into new packs for that.
    #[serde(default)]
    pub mended_chunks: u64,
    /// What is damaged still.
    pub damages_found: u64,
    /// The first 10,000.
    pub damages: Vec<DamagedObject>,
    pub losses_found: u64,
    /// The first 10,000.
    pub losses: Vec<LostRange>,
}

/// An object that is gone, cut or changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DamagedObject {
    pub path: String,
    pub code: String,
    pub detail: String,
    /// Digest of the pack, if it is one.
    pub pack: Option<String>,
}

/// Bytes of a backup that cannot be read at the target.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LostRange {
    /// `organization/project/instance/name`; none for one that the catalog does not know, such as its own exports.
    pub backup: Option<String>,
    pub uid: String,
    /// None where the entries themselves are not known any more.
    pub entry: Option<String>,
    /// First byte.
    pub from: u64,
    /// Behind the last byte.
    pub to: u64,
}

/// An entry of a backup.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupEntry {
    pub path: String,
    /// `file`, `directory`, `symlink`.
    pub kind: String,
    pub size: u64,
    pub mode: u32,
    pub modified_at: String,
}

/// A loaded plugin.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginInfo {
    pub name: String,
    pub version: String,
    pub engine: String,
    /// BLAKE3 of the component.
    pub digest: String,
    /// `built-in` or `installed`.
    pub origin: String,
    pub installed_at: Option<String>,
    /// The interfaces that it asks for.
    pub imports: Vec<String>,
    /// The plugin's own description document.
    pub description: serde_json::Value,
}
