//! What callers give and get: entries, plans, records, totals. Plain data.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{BackupId, Digest, DomainId, InstanceId};

/// What the chunker sees in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentClass {
    /// Cut at fixed sizes, aligned to this page size in bytes.
    Pages(u32),
    /// Cut by content.
    Bytes,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A byte stream.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(String),
}

/// One named byte stream inside a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Relative, `/` between parts, no empty, `.` or `..` part.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Declared size in bytes; enforced when given. Always there in what is read back (files).
    pub size: Option<u64>,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
    /// What the plugin noted about it.
    pub annotations: BTreeMap<String, String>,
}

/// What a backup is before its first byte.
#[derive(Clone, Debug)]
pub struct BackupPlan {
    /// Chosen by the caller, so that a retried job can tell its attempts apart.
    pub backup: BackupId,
    /// The domain it is in.
    pub domain: DomainId,
    /// Earlier backup of the same instance at this target, whose unchanged chunks are asked for first.
    pub parent: Option<BackupId>,
    /// The plugin's component: stored at the target if it is not there yet. None for what the appliance itself writes.
    pub component: Option<Arc<[u8]>>,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// How hard its chunks are compressed.
    pub compression: Compression,
}

/// Bounds of the compression level (zstd's) of new chunks. The writer goes from one to the other by back-pressure: the harder
/// the workers are pressed, the nearer to the lower level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Taken while the workers are the bottleneck.
    pub level_min: i32,
    /// Taken while the workers wait for the source or for the target.
    pub level_max: i32,
}

impl Compression {
    /// Levels that there are: beyond, memory grows and hardly anything shrinks.
    pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=12;

    /// The level under a pressure that is from 0 to `most`.
    pub(crate) fn level(self, pressure: usize, most: usize) -> i32 {
        let steps = self.level_max.saturating_sub(self.level_min).max(0) as usize + 1;
        self.level_max - (pressure.min(most) * steps / (most + 1)) as i32
    }
}

impl Default for Compression {
    /// In chunks of 64 KiB of database pages, level 3 takes 1.4 times the CPU of level 1 and stores between nothing and 6 % less
    /// of rows (numbers gain most, documents nothing); from level 4 on only the cost grows.
    fn default() -> Self {
        Self { level_min: 1, level_max: 3 }
    }
}

/// All that the head's directory says about a backup (FORMAT §8). Times in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRecord {
    /// Its id.
    pub backup: BackupId,
    /// The instance it is of.
    pub instance: InstanceId,
    /// Name of the organization.
    pub organization: String,
    /// Name of the project.
    pub project: String,
    /// Name of the instance.
    pub instance_name: String,
    /// Name of the backup.
    pub name: String,
    /// What a person wrote about it.
    pub description: Option<String>,
    /// What people call it.
    pub labels: BTreeMap<String, String>,
    /// The database product.
    pub engine: String,
    /// How it was made.
    pub method: String,
    /// `full`, `incremental` or `log`.
    pub backup_type: String,
    /// `name@version`.
    pub plugin: String,
    /// The plugin's component.
    pub component: Digest,
    /// When it was asked for.
    pub created_ms: u64,
    /// When its first byte was awaited.
    pub started_ms: u64,
    /// When its last byte was durable.
    pub finished_ms: u64,
    /// Entries of every kind.
    pub entries: u64,
    /// Bytes of all files.
    pub logical_bytes: u64,
    /// Bytes that are stored for it, sealed.
    pub stored_bytes: u64,
    /// The backup that it is an increment of.
    pub parent: Option<BackupId>,
    /// What went less than well.
    pub warnings: Vec<String>,
    /// Proofs that it can be restored, failed ones too.
    pub verifications: Vec<Verification>,
    /// The site of the instance.
    pub site: String,
}

impl BackupRecord {
    /// A full backup of this moment, in milliseconds since 1970. What its writer counts is zero, and whatever else may be said of
    /// it is empty.
    pub fn new(backup: BackupId, instance: InstanceId, at_ms: u64) -> Self {
        Self {
            backup,
            instance,
            organization: String::new(),
            project: String::new(),
            instance_name: String::new(),
            name: String::new(),
            description: None,
            labels: BTreeMap::new(),
            engine: String::new(),
            method: String::new(),
            backup_type: "full".to_owned(),
            plugin: String::new(),
            component: Digest::of(&[]),
            created_ms: at_ms,
            started_ms: at_ms,
            finished_ms: at_ms,
            entries: 0,
            logical_bytes: 0,
            stored_bytes: 0,
            parent: None,
            warnings: Vec::new(),
            verifications: Vec::new(),
            site: String::new(),
        }
    }
}

/// One proof, or failed proof, of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// `bytes`, `engine` or `drill`.
    pub level: String,
    /// Where the bytes were read from.
    pub target: String,
    /// When.
    pub at_ms: u64,
    /// It was proven.
    pub passed: bool,
    /// What was found.
    pub detail: String,
}

/// A person's pin: while a backup has one, nothing removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Who holds it, or for what: a backup has one of each name.
    pub name: String,
    /// Why.
    pub reason: String,
    /// Since when, in milliseconds since 1970.
    pub at_ms: u64,
}

/// What the domains of all organizations hold; the appliance's own catalog does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live backups.
    pub backups: u64,
    /// Different chunks in packs that are present.
    pub chunks: u64,
    /// Packs that are present.
    pub packs: u64,
    /// Bytes of all files.
    pub logical_bytes: u64,
    /// Bytes of all objects that are present, sealed.
    pub stored_bytes: u64,
}

/// The newest head of one domain, for the rollback check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadSeen {
    /// The domain it is in.
    pub domain: DomainId,
    /// Number of the newest head.
    pub sequence: u64,
    /// Digest of its bytes.
    pub digest: Digest,
    /// When its writer wrote it.
    pub written_ms: u64,
    /// Its epoch.
    pub epoch: u64,
}

/// What a copy to another target moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Objects sent.
    pub objects: u64,
    /// Bytes sent.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_falls_as_the_pressure_grows() {
        let compression = Compression { level_min: 1, level_max: 3 };
        let levels = [0, 3, 4, 6, 7, 9, 99].map(|pressure| compression.level(pressure, 9));
        assert_eq!(levels, [3, 3, 2, 2, 1, 1, 1]);
        let fixed = Compression { level_min: 5, level_max: 5 };
        assert_eq!([0, 5, 9].map(|pressure| fixed.level(pressure, 9)), [5, 5, 5]);
    }
}
