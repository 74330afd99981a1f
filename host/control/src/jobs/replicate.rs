//! The replicate job: makes every backup that a target lacks exist there, the newest of each instance first. Tried for ever.
//!
//! A target with a window is copied to while it is open; what is under way when it closes is finished.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use holdfast_catalog::{BackupRow, CopyRow, CopyState, TargetRole, TargetRow};
use holdfast_repository::Repository;
use holdfast_sandbox::Events;

use super::{Context, JobKind};
use crate::appliance::State;
use crate::{Error, backups, clock, rollback, targets};

/// Queues replication to a target for when its window is open, unless it is queued. One that runs may already be past what is new: it
/// does not count.
pub(crate) async fn soon(state: &State, target: &TargetRow) -> Result<(), Error> {
    let opens_ms = targets::pace(target)?.opens_at(clock::now_ms()).unwrap_or(0);
    super::enqueue_follow_up(state, JobKind::Replicate, target.name.clone(), &(), opens_ms).await
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

/// As [`soon`]; one that waits after a failure, or for its window, is tried at once.
pub(crate) async fn now(state: &State, target: &TargetRow) -> Result<(), Error> {
    hurried(state).insert(target.uid.clone());
    soon(state, target).await?;
    state.catalog.hurry_job(JobKind::Replicate.name(), &target.name, clock::now_ms()).await?;
    state.queue.wake();
    Ok(())
}

fn hurried(state: &State) -> MutexGuard<'_, BTreeSet<String>> {
    state.hurried.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When the window opens again, if it is closed.
fn closed_until(target: &TargetRow, is_hurried: bool) -> Result<Option<i64>, Error> {
    Ok(if is_hurried { None } else { targets::pace(target)?.opens_at(clock::now_ms()) })
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let Ok(target) = targets::find(state, &context.job.subject).await else {
        return Ok(serde_json::json!({ "copied": 0, "note": "the target was removed" }));
    };
    let is_hurried = hurried(state).remove(&target.uid);
    if let Some(opens_ms) = closed_until(&target, is_hurried)? {
        soon(state, &target).await?;
        let opens = clock::text(opens_ms);
        return Ok(
            serde_json::json!({ "copied": 0, "note": format!("the window of {} opens at {opens}", target.name) }),
        );
    }
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
        if closed_until(&target, is_hurried)?.is_some() {
            soon(state, &target).await?;
            break;
        }
        bytes += copy_recorded(context, &row, &target, &repository).await?;
        copied += 1;
    }
    rollback::remember(state, &target, &repository).await?;
    state.catalog.set_target_error(&target.uid, None, clock::now_ms()).await?;
    if copied > 0 {
        // Something may have stayed elsewhere for as long as it was not here.
        super::expire::soon(state).await?;
    }
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
        expired_ms: None,
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
    let (_, source, _) = backups::open_at(state, row, None).await?;
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
