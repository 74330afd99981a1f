//! The restore job: opens the backup, lets its plugin write the directories, and leaves nothing half done. What is damaged at a target comes from
//! the others, unless one was asked for by name; where a target goes away, it begins anew from the next one that has the backup.

use std::sync::Arc;

use holdfast_catalog::BackupRow;
use holdfast_repository::{BackupReader, Repository};
use holdfast_sandbox::{Call, Events as _, Grants, Limits, Plugin, Watch};
use serde::{Deserialize, Serialize};

use super::Context;
use crate::destination::Directories;
use crate::resources::CreateRestore;
use crate::{Error, ErrorKind, backups, words};

/// What the job's row says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) backup: String,
    pub(crate) request: CreateRestore,
}

/// A plugin's answer.
#[derive(Debug, Deserialize)]
struct Restored {
    files: u64,
    bytes: u64,
    #[serde(default)]
    notes: Vec<String>,
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let Payload { backup, request } = context.payload()?;
    let row = state.catalog.backup_by_uid(&backup).await?;
    let row = row.ok_or_else(|| Error::not_found("backup-not-found", "the backup was deleted meanwhile"))?;
    let directories = Directories::check(&request.to_directory, &request.map, request.owner.as_deref())?;
    let mut failure = None;
    for target in backups::sources(state, &row, request.from.as_deref()).await? {
        let restored = match backups::open_there(state, &row, &target).await {
            Ok((repository, reader)) => {
                if request.from.is_none() {
                    backups::look_elsewhere_too(state, &reader, &target);
                }
                match from_opened(context, &row, (repository, reader), &directories).await {
                    Err(error) if !error.tells_of_the_source() => return Err(error),
                    restored => restored,
                }
            }
            Err(error) => Err(error),
        };
        match restored {
            Ok(restored) => return Ok(restored),
            // The next target may have it; the last one's reason is told.
            Err(error) => {
                let message = format!("{} cannot be restored from {}: {error}", row.full_name(), target.name);
                context.reporter.log("warn", &message);
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| backups::nowhere(&row)))
}

async fn from_opened(
    context: &Context,
    row: &BackupRow,
    (repository, reader): (Repository, BackupReader),
    directories: &Directories,
) -> Result<serde_json::Value, Error> {
    let plugins = &context.state.plugins;
    let plugin = plugins.for_backup(&row.engine, &repository, reader.component()).await?;
    let restored = write(&plugin, reader.clone(), directories, plugins.limits(), context.watch()).await;
    let found = reader.found_elsewhere();
    if found > 0 {
        let message =
            format!("{found} chunks are damaged or gone at {} and came from other targets", repository.location());
        context.reporter.log("warn", &message);
    }
    restored
}

/// Restores into checked directories; if that fails, they are emptied again.
pub(crate) async fn write(
    plugin: &Plugin,
    reader: BackupReader,
    directories: &Directories,
    limits: Limits,
    watch: Watch,
) -> Result<serde_json::Value, Error> {
    let (destination, _claim) = directories.claim()?;
    let grants = Grants { current: Some(reader), destination: Some(destination), limits, ..Grants::default() };
    let events = Arc::clone(&watch.events);
    let restored = plugin.run(Call::Restore(serde_json::json!({ "overwrite": false })), grants, watch).await;
    match restored.map_err(Error::from).and_then(|document| report(plugin, document)) {
        Ok(report) => Ok(report),
        Err(error) => {
            if let Err(error) = clear(directories).await {
                events.log("error", &format!("what was restored so far could not be removed: {error}"));
            }
            Err(error)
        }
    }
}

/// What is told of a restore. Its counts are those of the host too, else there would be no document.
fn report(plugin: &Plugin, document: serde_json::Value) -> Result<serde_json::Value, Error> {
    let restored: Restored = serde_json::from_value(document).map_err(|error| {
        Error::new(ErrorKind::Internal, "plugin-answer", format!("the plugin's answer cannot be read: {error}"))
            .hint("Nothing was kept. This is a fault of the plugin.")
    })?;
    let notes = words::notes(plugin, &restored.notes);
    Ok(serde_json::json!({ "files": restored.files, "bytes": restored.bytes, "notes": notes }))
}

/// Empties the directories, which may take as long as filling them did.
async fn clear(directories: &Directories) -> Result<(), Error> {
    let directories = directories.clone();
    tokio::task::spawn_blocking(move || directories.clear())
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, "internal", format!("removing files ended early: {error}")))?
}
