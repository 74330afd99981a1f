//! The export job: the catalog's rows, and the components of installed plugins, as an ordinary backup in the system domain, so
//! that they are at every target.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use holdfast_catalog::{PluginRow, Snapshot};
use holdfast_repository::{
    BackupId, BackupPlan, BackupReader, BackupRecord, BackupWriter, ContentClass, Digest, Entry, EntryKind, InstanceId,
};

use super::{Context, JobKind};
use crate::appliance::State;
use crate::{Error, ErrorKind, clock, jobs, targets};

/// Path of the catalog's rows.
const ENTRY: &str = "catalog.json";
/// Installed components lie in this directory, by digest. Those that an earlier export held take no more room.
const COMPONENTS: &str = "plugins";
/// Changes that come together are exported together: after instances, targets, keys.
const SOON_MS: i64 = 1_000;
/// After backups, whose facts are in the heads anyway.
const LATER_MS: i64 = 120_000;

/// After a change that heads do not hold.
pub(crate) async fn soon(state: &State) -> Result<(), Error> {
    state.changes.fetch_add(1, Ordering::AcqRel);
    super::enqueue_follow_up(state, JobKind::Export, "catalog".to_owned(), &(), clock::now_ms() + SOON_MS).await?;
    Ok(state.catalog.hurry_job(JobKind::Export.name(), "catalog", clock::now_ms() + SOON_MS).await?)
}

/// After a change that heads hold too.
pub(crate) async fn later(state: &State) -> Result<(), Error> {
    super::enqueue_follow_up(state, JobKind::Export, "catalog".to_owned(), &(), clock::now_ms() + LATER_MS).await
}

/// At once, if there is a change that heads do not hold: a backup that counts as safe at another site is there together with the settings
/// of its instance.
pub(super) async fn if_changed(state: &State) -> Result<(), Error> {
    if state.exported_changes.load(Ordering::Acquire) == state.changes.load(Ordering::Acquire) {
        return Ok(());
    }
    export(state).await.map(drop)
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    if state.is_recovered() {
        return Ok(serde_json::json!({ "note": "nothing is exported before the take over" }));
    }
    let record = export(state).await?;
    jobs::replicate::everywhere_soon(state).await?;
    Ok(serde_json::json!({ "backup": record.backup.to_string(), "bytes": record.logical_bytes }))
}

async fn export(state: &State) -> Result<BackupRecord, Error> {
    // Counted first: a change that comes meanwhile may not be in it.
    let changes = state.changes.load(Ordering::Acquire);
    let snapshot = state.catalog.export(&[]).await?;
    let bytes = serde_json::to_vec(&snapshot).map_err(|error| {
        Error::new(ErrorKind::Internal, "encoding", format!("encoding the catalog failed: {error}"))
    })?;
    let record = write(state, &bytes, &snapshot.plugins).await?;
    state.exported_changes.fetch_max(changes, Ordering::AcqRel);
    Ok(record)
}

async fn write(state: &State, rows: &[u8], plugins: &[PluginRow]) -> Result<BackupRecord, Error> {
    let primary = state.repository(&targets::primary(state).await?).await?;
    let now = clock::now_ms();
    let backup = BackupId::random();
    let plan = BackupPlan {
        backup,
        domain: state.keyring.current().system_domain(),
        parent: None,
        component: None,
        started_ms: clock::unsigned(now),
        compression: state.compression,
    };
    let writer = primary.begin_backup(plan).await?;
    write_entry(&writer, ENTRY.to_owned(), now, rows).await?;
    for plugin in plugins {
        match plugin.digest.parse().map_err(|_| bad_digest(plugin)).and_then(|digest| state.data.read_component(digest))
        {
            Ok(component) => write_entry(&writer, component_path(&plugin.digest), now, &component).await?,
            // The appliance tells of it as a problem; the rows are worth exporting all the same.
            Err(error) => tracing::warn!(plugin = plugin.name, %error, "a plugin is exported without its component"),
        }
    }
    Ok(writer.commit(record(backup, now), "{}".to_owned()).await?)
}

/// Writes one small file.
pub(crate) async fn write_entry(writer: &BackupWriter, path: String, now: i64, bytes: &[u8]) -> Result<(), Error> {
    let entry = Entry {
        path,
        kind: EntryKind::File,
        size: Some(bytes.len() as u64),
        mode: 0o600,
        modified: now / 1000,
        annotations: BTreeMap::new(),
    };
    let mut content = writer.begin_entry(entry, ContentClass::Bytes).await?;
    content.write(bytes).await?;
    content.finish().await?;
    Ok(())
}

fn component_path(digest: &str) -> String {
    format!("{COMPONENTS}/{digest}")
}

fn bad_digest(plugin: &PluginRow) -> Error {
    let message = format!("the component of {} is not of the digest '{}'", plugin.name, plugin.digest);
    Error::new(ErrorKind::Internal, "bad-digest", message)
}

/// The totals are the writer's.
fn record(backup: BackupId, now: i64) -> BackupRecord {
    BackupRecord {
        instance_name: "catalog".to_owned(),
        name: clock::compact(now),
        engine: "holdfast".to_owned(),
        method: "export".to_owned(),
        plugin: concat!("holdfast@", env!("CARGO_PKG_VERSION")).to_owned(),
        ..BackupRecord::new(backup, InstanceId([0; 16]), clock::unsigned(now))
    }
}

/// Reads the rows of an export back.
pub(crate) async fn read(reader: &BackupReader) -> Result<Snapshot, Error> {
    serde_json::from_slice(&read_entry(reader, ENTRY).await?).map_err(|error| {
        Error::unprocessable("bad-export", format!("the catalog's export cannot be read: {error}"))
            .hint("It may come from a newer version; use that version to recover.")
    })
}

/// Reads the component of an installed plugin back: its digest, and its bytes, which are of that digest.
pub(crate) async fn read_component(reader: &BackupReader, plugin: &PluginRow) -> Result<(Digest, Vec<u8>), Error> {
    let digest = plugin.digest.parse().map_err(|_| bad_digest(plugin))?;
    let component = read_entry(reader, &component_path(&plugin.digest)).await?;
    if Digest::of(&component) != digest { Err(bad_digest(plugin)) } else { Ok((digest, component)) }
}

async fn read_entry(reader: &BackupReader, path: &str) -> Result<Vec<u8>, Error> {
    let mut content = reader.open(path, 0, None).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = content.next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}
