//! What else is known of a repository that is recovered: heads that were seen at the target once, and the other targets, as far as they
//! can be reached. Nothing is written to any of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_catalog::{Snapshot, TargetRow};
use holdfast_repository::{BackupRecord, DomainId, RecoveryKit, Repository};
use holdfast_storage::Storage;
use serde::Serialize;

use super::{Opened, RecoverRequest, RecoveredHead, heads};
use crate::targets::{place, storage};
use crate::{Error, clock, rollback};

/// How long another target may take: it is only looked at.
const PATIENCE: Duration = Duration::from_secs(20);

/// Another target of the repository.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Its name, or the site that the recovery kit says.
    pub target: String,
    /// Where it is.
    pub url: String,
    /// Why nothing is known of it, if so.
    pub unreachable: Option<String>,
    /// Its newest head of each domain.
    pub heads: Vec<RecoveredHead>,
    /// Backups there.
    pub backups: u64,
    /// Those of them that the recovered target lacks.
    pub missing_here: u64,
}

/// What comparing found.
pub(super) struct Comparison {
    pub(super) compared: Vec<Compared>,
    pub(super) warnings: Vec<String>,
}

/// Another target, not looked at yet.
pub(super) struct Known {
    name: String,
    url: String,
    /// The catalog's row, if the export has one.
    row: Option<TargetRow>,
    /// By the credentials of this recovery, where the export has none.
    storage: Option<Arc<dyn Storage>>,
}

/// What one of them holds.
struct Found {
    heads: Vec<RecoveredHead>,
    records: Vec<BackupRecord>,
    missed: Vec<String>,
}

/// The targets of the export and of the kit, but for the one that is recovered from.
pub(super) fn known_targets(snapshot: &Snapshot, request: &RecoverRequest) -> Result<Vec<Known>, Error> {
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for row in snapshot.targets.iter().filter(|row| row.removed_ms.is_none()) {
        let (name, url) = (row.name.clone(), row.url.clone());
        known.insert(place(&row.url).to_owned(), Known { name, url, row: Some(row.clone()), storage: None });
    }
    let kit = RecoveryKit::parse(&request.kit)?;
    for (site, url) in kit.targets().iter().filter_map(|line| line.split_once(' ')) {
        let settings = if url.starts_with("s3://") { request.settings.clone() } else { Default::default() };
        let open = || Known {
            name: site.to_owned(),
            url: url.to_owned(),
            row: None,
            storage: holdfast_storage::open(url, &settings).ok(),
        };
        known.entry(place(url).to_owned()).or_insert_with(open);
    }
    known.remove(place(&request.from));
    Ok(known.into_values().collect())
}

/// Looks at all of them side by side.
pub(super) async fn compare(
    opened: &Opened,
    records: &[(DomainId, BackupRecord)],
    target: Option<&TargetRow>,
    others: Vec<Known>,
) -> Result<Comparison, Error> {
    let mut comparison = Comparison { compared: Vec::new(), warnings: Vec::new() };
    if let Some(target) = target {
        let missed = rollback::missed(target, &opened.repository, &opened.keyring.current().domains()).await?;
        comparison
            .warnings
            .extend(missed.into_iter().map(|missed| format!("this target lies in an older state: {missed}")));
    }
    let looks = join_all(others.iter().map(|other| look(opened, other))).await;
    for (other, found) in others.into_iter().zip(looks) {
        comparison.add(records, other, found);
    }
    Ok(comparison)
}

async fn look(opened: &Opened, other: &Known) -> Result<Found, Error> {
    let look = async {
        let keyring = opened.keyring.current();
        let storage = match (&other.row, &other.storage) {
            (Some(row), _) => storage(row, &keyring)?,
            (None, Some(storage)) => storage.clone(),
            (None, None) => return Err(Error::invalid("bad-url", "its URL cannot be read")),
        };
        let repository = Repository::open_read_only(storage, opened.keyring.clone()).await?;
        let there = Opened { keyring: opened.keyring.clone(), repository, learned: Default::default() };
        let missed = match &other.row {
            Some(row) => rollback::missed(row, &there.repository, &keyring.domains()).await?,
            None => Vec::new(),
        };
        let records = there.records().await?.into_iter().map(|(_, record)| record).collect();
        Ok(Found { heads: heads(&there.repository).await?, records, missed })
    };
    let too_slow = |_| Error::unprocessable("too-slow", format!("it did not answer within {} s", PATIENCE.as_secs()));
    tokio::time::timeout(PATIENCE, look).await.map_err(too_slow)?
}

impl Comparison {
    fn add(&mut self, records: &[(DomainId, BackupRecord)], other: Known, found: Result<Found, Error>) {
        let mut compared = Compared {
            target: other.name,
            url: other.url,
            unreachable: None,
            heads: Vec::new(),
            backups: 0,
            missing_here: 0,
        };
        match found {
            Ok(found) => self.warn(records, &mut compared, found),
            Err(error) => {
                if error.code == "older-keyring" {
                    self.warnings.push(format!("{} has a newer keyring than this target: {error}", compared.target));
                }
                compared.unreachable = Some(error.to_string());
            }
        }
        self.compared.push(compared);
    }

    fn warn(&mut self, records: &[(DomainId, BackupRecord)], compared: &mut Compared, found: Found) {
        let here: std::collections::BTreeSet<_> = records.iter().map(|(_, record)| record.backup).collect();
        let missing: Vec<_> = found.records.iter().filter(|record| !here.contains(&record.backup)).collect();
        if let Some(newest) = missing.iter().map(|record| record.finished_ms).max() {
            self.warnings.push(format!(
                "{} holds {} backups that this target lacks, the newest of {}: this target is behind, or was brought back to an older state",
                compared.target,
                missing.len(),
                clock::text(clock::signed(newest))
            ));
        }
        self.warnings.extend(
            found.missed.into_iter().map(|missed| format!("{} lies in an older state: {missed}", compared.target)),
        );
        compared.backups = found.records.len() as u64;
        compared.missing_here = missing.len() as u64;
        compared.heads = found.heads;
    }
}
