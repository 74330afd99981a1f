//! Without an appliance: a data directory made from a target and a recovery kit, and a restore straight from a target.
//!
//! Neither writes anything to the target, not even a probe.

mod comparison;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_catalog::{
    BackupRow, BackupState, Catalog, CopyRow, CopyState, HoldRow, InstanceRow, SNAPSHOT_VERSION, Snapshot, TargetRole,
    TargetRow,
};
use holdfast_repository::{
    BackupId, BackupReader, BackupRecord, DomainId, Keyring, RecoveryKit, Repository, SharedKeyring, WriterId,
    recover_keyring,
};
use holdfast_sandbox::{Compiler, Limits, RuntimeOptions, Watch};
use holdfast_storage::{Settings, Storage};
use serde::Serialize;

pub use comparison::Compared;

use crate::appliance::{MODE, RECOVERED};
use crate::data_dir::DataDir;
use crate::destination::Directories;
use crate::instances::seal_secrets;
use crate::names::backup_reference;
use crate::plugins::Plugins;
use crate::policies::UNCONFIRMED;
use crate::resources::{CreateRestore, Verified};
use crate::targets::{new_row, place};
use crate::{Error, clock, jobs, unlock};

/// What `recover` needs. `from` takes its credentials from `settings` (`access-key`, `secret-key`).
#[derive(Clone)]
pub struct RecoverRequest {
    /// URL of the target.
    pub from: String,
    /// Credentials and options of the target.
    pub settings: Settings,
    /// Text of the recovery kit.
    pub kit: String,
    /// Absent or empty.
    pub data_dir: PathBuf,
    /// Accept the keyring of a kit that pins none.
    pub trust_keyring: bool,
}

/// What `recover` found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    /// Id of the repository.
    pub repository: String,
    /// Instances that are known again.
    pub instances: u64,
    /// Backups that can be restored.
    pub backups: u64,
    /// `catalog export` or `heads`: what the catalog was made from.
    pub source: String,
    /// Newest head of each domain; compare them with the last ones that you know.
    pub heads: Vec<RecoveredHead>,
    /// Every other target that is known, and what it holds if it could be reached.
    pub compared: Vec<Compared>,
    /// What speaks for an older state here than there was once, or elsewhere.
    pub warnings: Vec<String>,
}

/// The newest head of a domain.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RecoveredHead {
    /// Id of the domain.
    pub domain: String,
    /// Its place in the chain.
    pub sequence: u64,
    /// When it was written.
    pub written_at: String,
    /// Its digest.
    pub digest: String,
    /// Raised by each take over.
    pub epoch: u64,
}

/// An offline restore.
#[derive(Clone)]
pub struct OfflineRestore {
    /// URL of the target.
    pub from: String,
    /// Credentials and options of the target.
    pub settings: Settings,
    /// Text of the recovery kit.
    pub kit: String,
    /// Accept the keyring of a kit that pins none.
    pub trust_keyring: bool,
    /// What to restore, and where to; its `from` is not used.
    pub restore: CreateRestore,
    /// Components that came with the binary.
    pub components: Vec<Arc<[u8]>>,
    /// Where plugins are compiled.
    pub compiler: Compiler,
}

/// A target that was opened with nothing but the kit.
struct Opened {
    keyring: SharedKeyring,
    repository: Repository,
    /// Settings that the storage learned when it was opened.
    learned: Settings,
}

impl Opened {
    async fn open(from: &str, settings: &Settings, kit: &str, trust: bool) -> Result<Self, Error> {
        let kit = RecoveryKit::parse(kit)?;
        let storage: Arc<dyn Storage> = holdfast_storage::open(from, settings)?;
        let keyring = SharedKeyring::new(recover_keyring(Arc::clone(&storage), &kit, trust).await?);
        let repository = Repository::open_read_only(Arc::clone(&storage), keyring.clone()).await?;
        Ok(Self { keyring, repository, learned: storage.learned() })
    }

    /// Every backup that the heads name, system exports not among them.
    async fn records(&self) -> Result<Vec<(DomainId, BackupRecord)>, Error> {
        let keyring = self.keyring.current();
        let mut records = Vec::new();
        for domain in keyring.domains().into_iter().filter(|domain| *domain != keyring.system_domain()) {
            records.extend(self.repository.backups(domain).await?.into_iter().map(|record| (domain, record)));
        }
        Ok(records)
    }

    /// The newest export of the catalog that can be read, with its reader.
    async fn snapshot(&self) -> Result<Option<(Snapshot, BackupReader)>, Error> {
        let system = self.keyring.current().system_domain();
        let mut exports = self.repository.backups(system).await?;
        exports.sort_by_key(|record| std::cmp::Reverse((record.finished_ms, record.backup)));
        for record in exports {
            let read = async {
                let reader = self.repository.open_backup(system, record.backup).await?;
                Ok::<_, Error>((jobs::export::read(&reader).await?, reader))
            };
            match read.await {
                Ok(found) => return Ok(Some(found)),
                Err(error) => {
                    tracing::warn!(export = %record.name, %error, "this export of the catalog cannot be read, an older one is tried")
                }
            }
        }
        Ok(None)
    }
}

/// Makes a data directory from a target and a recovery kit's text. Writes nothing to the target; leaves nothing behind when it fails.
pub async fn recover(mut request: RecoverRequest) -> Result<Recovered, Error> {
    let opened = Opened::open(&request.from, &request.settings, &request.kit, request.trust_keyring).await?;
    if opened.keyring.current().is_tenants() {
        return Err(Error::unprocessable("tenants-identity", "this identity opens the backups of an organization, and no keyring")
            .hint("Restore with it: `holdfast restore ORGANIZATION/PROJECT/INSTANCE/latest --from URL --identity FILE --to-directory DIR`. Only a recovery recipient's kit makes an appliance."));
    }
    request.settings.extend(opened.learned.clone());
    let records = opened.records().await?;
    let export = opened.snapshot().await?;
    // Heads know no policies: what is made from them alone lets nothing go before somebody says so.
    let knows_policies = export.is_some();
    let source = if knows_policies { "catalog export" } else { "heads" }.to_owned();
    let keyring = opened.keyring.current();

    let data = DataDir::create(&request.data_dir)?;
    let snapshot = match export {
        Some((snapshot, reader)) => with_components(snapshot, &reader, &data).await?,
        None => empty(),
    };
    let others = comparison::known_targets(&snapshot, &request)?;
    let (mut snapshot, target) = reborn(snapshot, &records, &request, &data, &keyring);
    recall_documents(&opened.repository, &records, &mut snapshot).await?;
    recall_holds(&opened, &mut snapshot).await?;
    let comparison = comparison::compare(&opened, &records, target.as_ref(), others).await?;
    let recovered = Recovered {
        repository: keyring.repository().to_string(),
        instances: snapshot.instances.iter().filter(|row| row.removed_ms.is_none()).count() as u64,
        backups: records.len() as u64,
        source,
        heads: heads(&opened.repository).await?,
        compared: comparison.compared,
        warnings: comparison.warnings,
    };
    let catalog = Catalog::open(&data.catalog()).await?;
    catalog.import(snapshot).await?;
    catalog.set_meta(MODE, RECOVERED.as_bytes()).await?;
    if !knows_policies {
        catalog.set_meta(UNCONFIRMED, b"").await?;
    }
    // The keyring goes last: without it `serve` refuses the directory.
    data.write_keyring(&keyring, &unlock::begin_beside(&data)?)?;
    Ok(recovered)
}

/// Puts the components of installed plugins in their place; a plugin whose component the export lacks is left out.
async fn with_components(mut snapshot: Snapshot, reader: &BackupReader, data: &DataDir) -> Result<Snapshot, Error> {
    let mut plugins = Vec::new();
    for plugin in snapshot.plugins {
        match jobs::export::read_component(reader, &plugin).await {
            Ok((digest, component)) => {
                data.write_component(digest, &component)?;
                plugins.push(plugin);
            }
            Err(error) => {
                tracing::warn!(plugin = plugin.name, %error, "an installed plugin is not recovered: install it again")
            }
        }
    }
    snapshot.plugins = plugins;
    Ok(snapshot)
}

async fn heads(repository: &Repository) -> Result<Vec<RecoveredHead>, Error> {
    let heads = repository.newest_heads().await?.into_iter();
    Ok(heads
        .map(|head| RecoveredHead {
            domain: head.domain.to_string(),
            sequence: head.sequence,
            written_at: clock::text(clock::signed(head.written_ms)),
            digest: head.digest.to_string(),
            epoch: head.epoch,
        })
        .collect())
}

fn empty() -> Snapshot {
    Snapshot {
        version: SNAPSHOT_VERSION,
        meta: BTreeMap::new(),
        instances: Vec::new(),
        targets: Vec::new(),
        backups: Vec::new(),
        copies: Vec::new(),
        tokens: Vec::new(),
        plugins: Vec::new(),
        policies: Vec::new(),
        losses: Vec::new(),
    }
}

/// The former catalog as it is true for the new appliance: backups are those that this target's heads name, and a primary in the former data directory
/// is an empty one in the new. With it the row of the target that was recovered from.
fn reborn(
    mut snapshot: Snapshot,
    records: &[(DomainId, BackupRecord)],
    request: &RecoverRequest,
    data: &DataDir,
    keyring: &Keyring,
) -> (Snapshot, Option<TargetRow>) {
    let now = clock::now_ms();
    let target = adopt_target(&mut snapshot, request, keyring);
    let primary = renew_primary(&mut snapshot, &target, data);
    // An organization without keys was shredded after this export.
    snapshot
        .backups
        .retain(|row| row.state == BackupState::Succeeded && keyring.domain_of(&row.organization).is_some());
    add_instances(&mut snapshot, records, now);
    add_backups(&mut snapshot, records, now);
    mark_durable(&mut snapshot, records, &target);
    // A new primary is empty, and this target holds what its heads name: the export may remember more. What expired here is not missed.
    let held: BTreeSet<_> = records.iter().map(|(_, record)| record.backup.to_string()).collect();
    let is_true = |copy: &CopyRow| copy.expired_ms.is_some() || held.contains(&copy.backup_uid);
    snapshot.copies.retain(|copy| copy.target_uid != primary && (copy.target_uid != target || is_true(copy)));
    let copied: BTreeSet<_> = snapshot
        .copies
        .iter()
        .filter(|copy| copy.state == CopyState::Durable)
        .map(|copy| copy.backup_uid.clone())
        .collect();
    snapshot.backups.retain(|row| copied.contains(&row.uid));
    let kept: BTreeSet<_> = snapshot.backups.iter().map(|row| row.uid.clone()).collect();
    snapshot.copies.retain(|copy| kept.contains(&copy.backup_uid));
    snapshot.losses.retain(|loss| loss.target_uid != primary);
    let row = snapshot.targets.iter().find(|row| row.uid == target).cloned();
    (snapshot, row)
}

/// Instances that only backups remember.
fn add_instances(snapshot: &mut Snapshot, records: &[(DomainId, BackupRecord)], now: i64) {
    let mut known: BTreeSet<_> = snapshot.instances.iter().map(|row| row.uid.clone()).collect();
    for (_, record) in records {
        if known.insert(record.instance.to_string()) {
            snapshot.instances.push(instance_row(record, now));
        }
    }
}

/// Backups that the heads name, with the proofs that came after the export.
fn add_backups(snapshot: &mut Snapshot, records: &[(DomainId, BackupRecord)], now: i64) {
    let mut known: BTreeMap<_, _> =
        snapshot.backups.iter().enumerate().map(|(place, row)| (row.uid.clone(), place)).collect();
    for (_, record) in records {
        let place = *known.entry(record.backup.to_string()).or_insert(snapshot.backups.len());
        if place == snapshot.backups.len() {
            snapshot.backups.push(backup_row(record, now));
        }
        let row = &mut snapshot.backups[place];
        row.verified = newest_proof(record).or_else(|| row.verified.take());
    }
}

/// Inventories of backups that the export did not know are in their manifests. One that cannot be read is left out: it only informs.
async fn recall_documents(
    repository: &Repository,
    records: &[(DomainId, BackupRecord)],
    snapshot: &mut Snapshot,
) -> Result<(), Error> {
    let mut rows: BTreeMap<_, _> =
        snapshot.backups.iter_mut().filter(|row| row.document.is_none()).map(|row| (row.uid.clone(), row)).collect();
    let mut wanted: BTreeMap<DomainId, Vec<BackupId>> = BTreeMap::new();
    for (domain, record) in records.iter().filter(|(_, record)| rows.contains_key(&record.backup.to_string())) {
        wanted.entry(*domain).or_default().push(record.backup);
    }
    for (domain, backups) in wanted {
        for (backup, document) in repository.documents(domain, &backups).await? {
            let Some(row) = rows.get_mut(&backup.to_string()) else { continue };
            match document {
                Ok(document) => row.document = Some(document),
                Err(error) => {
                    tracing::warn!(backup = %row.full_name(), %error, "the inventory of this backup cannot be read")
                }
            }
        }
    }
    Ok(())
}

/// Who holds a backup is in the heads, which are newer than any export.
async fn recall_holds(opened: &Opened, snapshot: &mut Snapshot) -> Result<(), Error> {
    let mut held = BTreeMap::new();
    for domain in opened.keyring.current().domains() {
        let holds = opened.repository.holds(domain).await?;
        held.extend(holds.into_iter().map(|(backup, holds)| (backup.to_string(), holds)));
    }
    for row in &mut snapshot.backups {
        let holds = held.remove(&row.uid).into_iter().flatten();
        row.holds = holds
            .map(|hold| HoldRow { name: hold.name, reason: hold.reason, at_ms: clock::signed(hold.at_ms) })
            .collect();
    }
    Ok(())
}

/// The row of the target that was recovered from, with the credentials that worked. Its uid.
fn adopt_target(snapshot: &mut Snapshot, request: &RecoverRequest, keyring: &Keyring) -> String {
    let known =
        snapshot.targets.iter().position(|row| row.removed_ms.is_none() && place(&row.url) == place(&request.from));
    let index = known.unwrap_or_else(|| {
        snapshot.targets.push(new_row("recovered-from", TargetRole::Secondary, request.from.clone(), "recovered"));
        snapshot.targets.len() - 1
    });
    let row = &mut snapshot.targets[index];
    row.url.clone_from(&request.from);
    let secrets = request.settings.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    row.secrets = seal_secrets(keyring, &format!("target/{}", row.uid), &secrets);
    row.settings.retain(|key, _| !request.settings.contains_key(key));
    row.uid.clone()
}

/// The primary's row. One that lay in a directory of the former machine is an empty one in the new data directory. Its uid.
fn renew_primary(snapshot: &mut Snapshot, recovered_from: &str, data: &DataDir) -> String {
    let index = snapshot
        .targets
        .iter()
        .position(|row| row.removed_ms.is_none() && row.role == TargetRole::Primary)
        .unwrap_or_else(|| {
            snapshot.targets.push(new_row("primary", TargetRole::Primary, data.default_primary(), "local"));
            snapshot.targets.len() - 1
        });
    let primary = &mut snapshot.targets[index];
    if primary.url.starts_with("file://") {
        if primary.uid == recovered_from {
            // Recovered from a copy of the primary itself: it stays where it is and serves as the other place.
            primary.role = TargetRole::Secondary;
            primary.name = "former-primary".to_owned();
            return renew_primary(snapshot, recovered_from, data);
        }
        primary.url = data.default_primary();
        primary.last_error = None;
    }
    primary.uid.clone()
}

/// The target that was recovered from holds what its heads name.
fn mark_durable(snapshot: &mut Snapshot, records: &[(DomainId, BackupRecord)], target_uid: &str) {
    let copies = &mut snapshot.copies;
    let at_target = copies.iter().enumerate().filter(|(_, copy)| copy.target_uid == target_uid);
    let known: BTreeMap<_, _> = at_target.map(|(place, copy)| (copy.backup_uid.clone(), place)).collect();
    for (_, record) in records {
        let (uid, at) = (record.backup.to_string(), clock::signed(record.finished_ms));
        match known.get(&uid) {
            Some(place) => {
                let copy = &mut copies[*place];
                (copy.state, copy.expired_ms) = (CopyState::Durable, None);
                copy.durable_ms.get_or_insert(at);
            }
            None => copies.push(CopyRow {
                backup_uid: uid,
                target_uid: target_uid.to_owned(),
                state: CopyState::Durable,
                durable_ms: Some(at),
                reason: None,
                copied_bytes: 0,
                expired_ms: None,
            }),
        }
    }
}

fn newest_proof(record: &BackupRecord) -> Option<serde_json::Value> {
    let proof = record.verifications.iter().max_by_key(|proof| proof.at_ms)?;
    serde_json::to_value(Verified::from(proof)).ok()
}

/// An instance that only its backups remember: enough to browse and restore; its connection must be set again.
fn instance_row(record: &BackupRecord, now: i64) -> InstanceRow {
    InstanceRow {
        uid: record.instance.to_string(),
        organization: record.organization.clone(),
        project: record.project.clone(),
        name: record.instance_name.clone(),
        engine: record.engine.clone(),
        site: record.site.clone(),
        settings: BTreeMap::new(),
        secrets: BTreeMap::new(),
        created_ms: clock::signed(record.created_ms),
        updated_ms: now,
        resource_version: 1,
        removed_ms: Some(now),
    }
}

/// A backup as the heads know it.
pub(crate) fn backup_row(record: &BackupRecord, now: i64) -> BackupRow {
    BackupRow {
        uid: record.backup.to_string(),
        instance_uid: record.instance.to_string(),
        organization: record.organization.clone(),
        project: record.project.clone(),
        instance: record.instance_name.clone(),
        name: record.name.clone(),
        description: record.description.clone(),
        method: record.method.clone(),
        backup_type: record.backup_type.clone(),
        plugin: record.plugin.clone(),
        component: record.component.to_string(),
        engine: record.engine.clone(),
        site: record.site.clone(),
        labels: record.labels.clone(),
        state: BackupState::Succeeded,
        phase: "done".to_owned(),
        reason: None,
        hint: None,
        created_ms: clock::signed(record.created_ms),
        started_ms: Some(clock::signed(record.started_ms)),
        finished_ms: Some(clock::signed(record.finished_ms)),
        entries: record.entries,
        logical_bytes: record.logical_bytes,
        stored_bytes: record.stored_bytes,
        warnings: record.warnings.clone(),
        verified: None,
        document: None,
        parent: record.parent.map(|parent| parent.to_string()),
        job_id: None,
        holds: Vec::new(),
        keep_until_ms: None,
        updated_ms: now,
        resource_version: 1,
    }
}

/// Restores straight from a target with a recovery kit, without any appliance.
pub async fn restore_offline(request: OfflineRestore, watch: Watch) -> Result<serde_json::Value, Error> {
    let (name, backup) = backup_reference(&request.restore.backup)?;
    let directories =
        Directories::check(&request.restore.to_directory, &request.restore.map, request.restore.owner.as_deref())?;
    let opened = Opened::open(&request.from, &request.settings, &request.kit, request.trust_keyring).await?;
    let mut records = opened.records().await?;
    records.retain(|(_, r)| {
        (r.organization.as_str(), r.project.as_str(), r.instance_name.as_str())
            == (&name.organization, &name.project, &name.instance)
    });
    let found = match backup.as_str() {
        "latest" => records.into_iter().max_by_key(|(_, record)| (record.finished_ms, record.backup)),
        wanted => records.into_iter().find(|(_, record)| record.name == wanted || record.backup.to_string() == wanted),
    };
    let (domain, record) = found.ok_or_else(|| {
        Error::not_found(
            "backup-not-found",
            format!("{} holds no backup {name}/{backup}", opened.repository.location()),
        )
        .hint("`holdfast recover` into an empty directory lists what there is, without changing the target.")
    })?;
    let reader = opened.repository.open_backup(domain, record.backup).await?;
    // Compiled code is kept beside nothing that lasts.
    let cache = std::env::temp_dir().join(format!("holdfast-{}", WriterId::random()));
    let options = RuntimeOptions {
        cache_directory: cache.clone(),
        cache_key: opened.keyring.current().derive("compiled code"),
        limits: Limits::default(),
        compiler: request.compiler,
    };
    let plugins = Plugins::load(options, &request.components).await?;
    let plugin = plugins.for_backup(&record.engine, &opened.repository, reader.component()).await;
    let restored = match plugin {
        Ok(plugin) => jobs::restore::write(&plugin, reader, &directories, plugins.limits(), watch).await,
        Err(error) => Err(error),
    };
    if let Err(error) = std::fs::remove_dir_all(&cache) {
        tracing::debug!(%error, "removing the cache of compiled code failed");
    }
    restored
}
