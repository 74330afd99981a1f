//! The backup job: the plugin dumps, the repository keeps, the head makes it exist, the catalog records it, the second site gets it.

use std::sync::Arc;

use holdfast_catalog::{BackupRow, BackupState, BackupSuccess, InstanceRow};
use holdfast_repository::{BackupId, BackupPlan, BackupRecord, BackupWriter, DomainId, Repository};
use holdfast_sandbox::{Call, Plugin};
use serde::{Deserialize, Serialize};

use super::{Context, Failed, recording};
use crate::appliance::State;
use crate::{Error, ErrorKind, clock, instances, jobs, rollback, targets, words};

/// What the job's row says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) backup: String,
}

/// What every plugin says at the end of a dump; the rest of the document is the engine's own.
#[derive(Debug, Deserialize)]
struct Inventory {
    entries: u64,
    bytes: u64,
    #[serde(default)]
    warnings: Vec<String>,
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Failed> {
    let state = &context.state;
    let row = load(state, &context.payload::<Payload>()?.backup).await?;
    let domain = state.domain(&row.organization).await?;
    let target = targets::primary(state).await?;
    let primary = state.repository(&target).await?;
    let id = parse_id(&row)?;

    // A kill between the head and the catalog's row: the backup exists, so it is only recorded.
    if let Some(record) =
        primary.backups(domain).await.map_err(Error::from)?.into_iter().find(|record| record.backup == id)
    {
        let document = primary.open_backup(domain, id).await.ok().map(|reader| reader.document().to_owned());
        return Ok(keep(context, &row, &target.uid, &record, document).await?);
    }

    let instance =
        state.catalog.instance_by_uid(&row.instance_uid).await.map_err(Error::from)?.filter(|i| i.removed_ms.is_none());
    let instance = instance.ok_or_else(|| Error::not_found("instance-not-found", "the instance was removed"))?;
    let plugin = state.plugins.of_engine(&row.engine)?;
    let parent = parent(state, &row, &primary, domain).await?;
    let started_ms = clock::now_ms();
    state.catalog.backup_started(&row.uid, "dumping", started_ms).await.map_err(Error::from)?;

    let plan = BackupPlan {
        backup: id,
        domain,
        parent,
        component: Some(plugin.component()),
        started_ms: clock::unsigned(started_ms),
        compression: state.compression,
    };
    let writer = Arc::new(primary.begin_backup(plan).await.map_err(Error::from)?);
    let document = match dump(context, &row, &instance, &plugin, &writer).await {
        Ok(document) => document,
        Err(error) => return Err(failed(error, &writer)),
    };
    let inventory = check(&document, &writer)?;

    let record = record(&row, &instance, &plugin, started_ms, &inventory)?;
    let writer = Arc::into_inner(writer).ok_or_else(|| {
        Error::new(ErrorKind::Internal, "writer-in-use", "the plugin's run ended and still holds the writer")
    })?;
    state.catalog.backup_phase(&row.uid, "committing", clock::now_ms()).await.map_err(Error::from)?;
    let document = document.to_string();
    let record = writer.commit(record, document.clone()).await.map_err(Error::from)?; // The backup exists only from here.
    recording::insist(&state.queue, &context.job.id, || rollback::remember(state, &target, &primary)).await?;
    Ok(keep(context, &row, &target.uid, &record, Some(document)).await?)
}

async fn load(state: &State, uid: &str) -> Result<BackupRow, Error> {
    state
        .catalog
        .backup_by_uid(uid)
        .await?
        .ok_or_else(|| Error::not_found("backup-not-found", format!("the catalog has no backup {uid}")))
}

fn parse_id(row: &BackupRow) -> Result<BackupId, Error> {
    row.uid.parse().map_err(|_| Error::new(ErrorKind::Internal, "bad-uid", format!("'{}' is not a uid", row.uid)))
}

/// The newest backup of the instance at the primary, whose unchanged chunks are asked for first.
async fn parent(
    state: &State,
    row: &BackupRow,
    primary: &Repository,
    domain: DomainId,
) -> Result<Option<BackupId>, Error> {
    let Some(latest) = state.catalog.latest_usable(&row.instance_uid).await? else { return Ok(None) };
    let there = primary.backups(domain).await?;
    Ok(there.iter().map(|record| record.backup).find(|id| id.to_string() == latest.uid))
}

async fn dump(
    context: &Context,
    row: &BackupRow,
    instance: &InstanceRow,
    plugin: &Plugin,
    writer: &Arc<BackupWriter>,
) -> Result<serde_json::Value, Error> {
    let mut grants = instances::grants(&context.state, instance, plugin)?;
    grants.writer = Some(writer.clone());
    let request = serde_json::json!({ "method": row.method, "type": row.backup_type, "job": &context.job.id[..12] });
    Ok(plugin.run(Call::Dump(request), grants, context.watch()).await?)
}

/// A server that never sent a byte is a matter of configuration and told at once; a stream that broke is worth another attempt.
fn failed(error: Error, writer: &BackupWriter) -> Failed {
    let (_, bytes) = writer.totals();
    Failed { retry: error.kind == ErrorKind::Unavailable && bytes > 0, error }
}

/// No silent success: the plugin's totals and the host's are the same, and something is there.
fn check(document: &serde_json::Value, writer: &BackupWriter) -> Result<Inventory, Error> {
    let fault = |code: &str, message: String| {
        Error::new(ErrorKind::Internal, code, message).hint("The backup was not kept. This is a fault of the plugin.")
    };
    let inventory: Inventory = serde_json::from_value(document.clone())
        .map_err(|error| fault("bad-inventory", format!("the plugin's inventory cannot be read: {error}")))?;
    let (entries, bytes) = writer.totals();
    if (inventory.entries, inventory.bytes) != (entries, bytes) {
        return Err(fault(
            "inventory-differs",
            format!(
                "the plugin counted {} entries and {} bytes, the host {entries} and {bytes}",
                inventory.entries, inventory.bytes
            ),
        ));
    }
    if bytes == 0 {
        return Err(fault("empty-backup", "the plugin sent no bytes".to_owned()));
    }
    Ok(inventory)
}

fn record(
    row: &BackupRow,
    instance: &InstanceRow,
    plugin: &Plugin,
    started_ms: i64,
    inventory: &Inventory,
) -> Result<BackupRecord, Error> {
    let instance_id = row
        .instance_uid
        .parse()
        .map_err(|_| Error::new(ErrorKind::Internal, "bad-uid", format!("'{}' is not a uid", row.instance_uid)))?;
    Ok(BackupRecord {
        backup: parse_id(row)?,
        instance: instance_id,
        organization: row.organization.clone(),
        project: row.project.clone(),
        instance_name: row.instance.clone(),
        name: row.name.clone(),
        description: row.description.clone(),
        labels: row.labels.clone(),
        engine: row.engine.clone(),
        method: row.method.clone(),
        backup_type: row.backup_type.clone(),
        plugin: row.plugin.clone(),
        component: plugin.digest(),
        created_ms: clock::unsigned(row.created_ms),
        started_ms: clock::unsigned(started_ms),
        finished_ms: clock::unsigned(clock::now_ms()),
        entries: inventory.entries,
        logical_bytes: inventory.bytes,
        stored_bytes: 0,
        parent: None,
        warnings: words::warnings(plugin, &inventory.warnings),
        verifications: Vec::new(),
        site: instance.site.clone(),
    })
}

/// Records a backup that exists, and sends it on its way to every other target. It is no failure of the backup that the catalog cannot take
/// it now.
async fn keep(
    context: &Context,
    row: &BackupRow,
    primary_uid: &str,
    record: &BackupRecord,
    document: Option<String>,
) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let success = BackupSuccess {
        entries: record.entries,
        logical_bytes: record.logical_bytes,
        stored_bytes: record.stored_bytes,
        warnings: record.warnings.clone(),
        document,
    };
    recording::insist(&state.queue, &context.job.id, || async {
        // An attempt before this one may have come as far as here.
        if load(state, &row.uid).await?.state == BackupState::Pending {
            state.catalog.backup_succeeded(&row.uid, primary_uid, success.clone(), clock::now_ms()).await?;
        }
        jobs::replicate::everywhere_soon(state).await?;
        jobs::expire::soon(state).await?;
        jobs::export::later(state).await
    })
    .await?;
    Ok(
        serde_json::json!({ "backup": row.uid, "entries": record.entries, "logicalBytes": record.logical_bytes, "storedBytes": record.stored_bytes }),
    )
}

/// A backup that is tried again says so.
pub(super) async fn note_wait(context: &Context) -> Result<(), Error> {
    let uid = context.payload::<Payload>()?.backup;
    context.state.catalog.backup_phase(&uid, "waiting for another attempt", clock::now_ms()).await?;
    Ok(())
}
