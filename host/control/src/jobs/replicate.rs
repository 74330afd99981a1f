//! The replicate job: makes every backup that a target lacks exist there, the newest of each instance first. Tried for ever.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use holdfast_catalog::{BackupRow, CopyRow, CopyState, TargetRole, TargetRow};
use holdfast_repository::Repository;
use holdfast_sandbox::Events;

use super::{Context, JobKind};
use crate::appliance::State;
use crate::{Error, backups, clock, rollback, targets};

/// Queues replication to a target, unless it is queued. One that runs may already be past what is new: it does not count.
pub(crate) async fn soon(state: &State, target: &TargetRow) -> Result<(), Error> {
    super::enqueue_follow_up(state, JobKind::Replicate, target.name.clone(), &(), 0).await
}

/// As [`soon`], to every target but the primary.
pub(crate) async fn everywhere_soon(state: &State) -> Result<(), Error> {
    for target in state.catalog.targets().await? {
        if target.role != TargetRole::Primary {
            soon(state, &target).await?;
        }
    }
    Ok(())
}

/// As [`soon`]; one that waits after a failure is tried at once.
pub(crate) async fn now(state: &State, target: &TargetRow) -> Result<(), Error> {
    soon(state, target).await?;
    state.catalog.hurry_job(JobKind::Replicate.name(), &target.name, clock::now_ms()).await?;
    state.queue.wake();
    Ok(())
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let Ok(target) = targets::find(state, &context.job.subject).await else {
        return Ok(serde_json::json!({ "copied": 0, "note": "the target was removed" }));
    };
    let repository = state.repository(&target).await?;
    repository.publish_keyring().await?;
    let (mut copied, mut bytes) = (0_u64, 0_u64);
    let mut changes_there = None;
    loop {
        // Only a change makes a newer export necessary in the middle of a backlog.
        let changes = state.changes.load(Ordering::Acquire);
        if changes_there != Some(changes) {
            copy_export(context, &target, &repository).await?;
            changes_there = Some(changes);
        }
        let Some(row) = state.catalog.backups_missing_at(&target.uid, 1).await?.into_iter().next() else { break };
        if context.cancel.is_cancelled() {
            return Err(Error::unprocessable("cancelled", "cancelled"));
        }
        bytes += copy_recorded(context, &row, &target, &repository).await?;
        copied += 1;
    }
    rollback::remember(state, &target, &repository).await?;
    state.catalog.set_target_error(&target.uid, None, clock::now_ms()).await?;
    Ok(serde_json::json!({ "copied": copied, "bytes": bytes }))
}

/// Copies one backup, and records how its copy stands before and after. Bytes moved.
async fn copy_recorded(
    context: &Context,
    row: &BackupRow,
    target: &TargetRow,
    repository: &Repository,
) -> Result<u64, Error> {
    let catalog = &context.state.catalog;
    let copy = CopyRow {
        backup_uid: row.uid.clone(),
        target_uid: target.uid.clone(),
        state: CopyState::Copying,
        durable_ms: None,
        reason: None,
        copied_bytes: 0,
    };
    catalog.set_copy(copy.clone()).await?;
    match self::copy(context, row, target, repository).await {
        Ok(copied_bytes) => {
            catalog
                .set_copy(CopyRow {
                    state: CopyState::Durable,
                    durable_ms: Some(clock::now_ms()),
                    copied_bytes,
                    ..copy
                })
                .await?;
            Ok(copied_bytes)
        }
        Err(error) => {
            catalog.set_copy(CopyRow { state: CopyState::Pending, reason: Some(error.to_string()), ..copy }).await?;
            Err(error)
        }
    }
}

/// Copies one backup from whichever target has it. Bytes moved.
async fn copy(context: &Context, row: &BackupRow, target: &TargetRow, repository: &Repository) -> Result<u64, Error> {
    let state = &context.state;
    let (source, _) = backups::open(state, row, None).await?;
    let (domain, id) = backups::ids(state, row)?;
    let reporter = Arc::clone(&context.reporter);
    let name = row.full_name();
    let phase = format!("copying {name}");
    let progress = |done, total| reporter.progress(&phase, done, Some(total), "bytes");
    let copying = repository.copy_backup(&source, domain, id, &progress);
    // Dropping a copy is safe: without its head nothing of it exists.
    let copied = tokio::select! {
        copied = copying => copied?,
        () = context.cancel.cancelled() => return Err(Error::unprocessable("cancelled", "cancelled")),
    };
    context.reporter.log(
        "info",
        &format!("{name} is durable at {}: {} objects, {} bytes sent", target.site, copied.objects, copied.bytes),
    );
    Ok(copied.bytes)
}

/// The newest export of the catalog goes before the backups: what is safe at this target can be reborn from it, settings and all.
async fn copy_export(context: &Context, target: &TargetRow, repository: &Repository) -> Result<(), Error> {
    let state = &context.state;
    if target.role == TargetRole::Primary {
        return Ok(());
    }
    super::export::if_changed(state).await?;
    let system = state.keyring.current().system_domain();
    let primary = state.repository(&targets::primary(state).await?).await?;
    let newest = primary.backups(system).await?.into_iter().max_by_key(|record| (record.finished_ms, record.backup));
    let Some(newest) = newest else { return Ok(()) };
    if !repository.backups(system).await?.iter().any(|record| record.backup == newest.backup) {
        repository.copy_backup(&primary, system, newest.backup, &|_, _| {}).await?;
    }
    Ok(())
}

/// The target remembers why it is behind.
pub(super) async fn note_failure(context: &Context, error: &Error) -> Result<(), Error> {
    let state = &context.state;
    if let Ok(target) = targets::find(state, &context.job.subject).await {
        state.catalog.set_target_error(&target.uid, Some(error.to_string()), clock::now_ms()).await?;
    }
    Ok(())
}
