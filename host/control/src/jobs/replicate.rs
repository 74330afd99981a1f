//! The replicate job: makes every backup that a target lacks exist there, the newest of each instance first. Tried for ever.
//!
//! A target with a window is copied to while it is open: when it closes, the objects that are on their way arrive, and the rest of their backup
//! waits. What arrived is not sent again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use holdfast_catalog::{BackupRow, CopyRow, CopyState, TargetRole, TargetRow};
use holdfast_repository::Repository;
use holdfast_sandbox::Events;

use super::{Context, JobKind};
use crate::appliance::State;
use crate::pace::Pace;
use crate::{Error, backups, clock, rollback, targets};

/// Queues replication to a target for when its window is open, unless it is queued. One that runs may already be past what is new: it
/// does not count.
pub(crate) async fn soon(state: &State, target: &TargetRow) -> Result<(), Error> {
    let opens_ms = targets::pace(target)?.opens_at(clock::now_ms()).unwrap_or(0);
    at(state, target, opens_ms).await
}

async fn at(state: &State, target: &TargetRow, opens_ms: i64) -> Result<(), Error> {
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

/// A target's window, as one job sees it.
struct Window {
    pace: Pace,
    /// Somebody wants the target to be copied to at any time.
    is_hurried: bool,
    /// Tells the time, in milliseconds since 1970.
    now_ms: Now,
}

type Now = Box<dyn Fn() -> i64 + Send + Sync>;

impl Window {
    /// When it opens again, if it is closed.
    fn closed_until(&self) -> Option<i64> {
        if self.is_hurried { None } else { self.pace.opens_at((self.now_ms)()) }
    }
}

/// Where a job copies to.
struct Destination {
    target: TargetRow,
    repository: Repository,
    window: Window,
}

/// What people are told of what a window holds up.
pub(crate) fn waits_until(opens_ms: i64) -> String {
    format!("waits for its window until {}", clock::text(opens_ms))
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    run_by(context, Box::new(clock::now_ms)).await
}

/// Runs it by this clock, which tells when the window closes.
async fn run_by(context: &Context, now_ms: Now) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let Ok(target) = targets::find(state, &context.job.subject).await else {
        return Ok(serde_json::json!({ "copied": 0, "note": "the target was removed" }));
    };
    let is_hurried = hurried(state).remove(&target.uid);
    let window = Window { pace: targets::pace(&target)?, is_hurried, now_ms };
    if let Some(opens_ms) = window.closed_until() {
        at(state, &target, opens_ms).await?;
        return Ok(serde_json::json!({ "copied": 0, "note": waits_until(opens_ms) }));
    }
    let repository = state.repository(&target).await?;
    repository.publish_keyring().await?;
    let there = Destination { target, repository, window };
    let (mut copied, mut bytes) = (0_u64, 0_u64);
    let mut changes_there = None;
    let note = loop {
        // Only a change makes a newer export necessary in the middle of a backlog.
        let changes = state.changes.load(Ordering::Acquire);
        if changes_there != Some(changes) {
            copy_export(context, &there).await?;
            changes_there = Some(changes);
        }
        let Some(row) = state.catalog.backups_missing_at(&there.target.uid, 1).await?.into_iter().next() else {
            break None;
        };
        context.stop_if_cancelled()?;
        if let Some(opens_ms) = there.window.closed_until() {
            at(state, &there.target, opens_ms).await?;
            break Some(waits_until(opens_ms));
        }
        if let Some(sent) = copy_recorded(context, &row, &there).await? {
            bytes += sent;
            copied += 1;
        }
    };
    rollback::remember(state, &there.target, &there.repository).await?;
    state.catalog.set_target_error(&there.target.uid, None, clock::now_ms()).await?;
    if copied > 0 {
        // Something may have stayed elsewhere for as long as it was not here.
        super::expire::soon(state).await?;
    }
    Ok(serde_json::json!({ "copied": copied, "bytes": bytes, "note": note }))
}

/// Copies one backup, and records how its copy stands before and after. Bytes moved; nothing of a copy that the window holds up.
async fn copy_recorded(context: &Context, row: &BackupRow, there: &Destination) -> Result<Option<u64>, Error> {
    let catalog = &context.state.catalog;
    let copy = CopyRow {
        backup_uid: row.uid.clone(),
        target_uid: there.target.uid.clone(),
        state: CopyState::Copying,
        durable_ms: None,
        reason: None,
        copied_bytes: 0,
        expired_ms: None,
    };
    catalog.set_copy(copy.clone()).await?;
    let pending = |reason| CopyRow { state: CopyState::Pending, reason, ..copy.clone() };
    match self::copy(context, row, there).await {
        Ok(None) => {
            catalog.set_copy(pending(there.window.closed_until().map(waits_until))).await?;
            Ok(None)
        }
        Ok(Some(copied_bytes)) => {
            catalog
                .set_copy(CopyRow {
                    state: CopyState::Durable,
                    durable_ms: Some(clock::now_ms()),
                    copied_bytes,
                    ..copy
                })
                .await?;
            Ok(Some(copied_bytes))
        }
        Err(error) => {
            catalog.set_copy(pending(Some(error.to_string()))).await?;
            Err(error)
        }
    }
}

/// Copies one backup from whichever target has it. Bytes moved; none where the window closed under way.
async fn copy(context: &Context, row: &BackupRow, there: &Destination) -> Result<Option<u64>, Error> {
    let state = &context.state;
    let (_, source, _) = backups::open_at(state, row, None).await?;
    let (domain, id) = backups::ids(state, row)?;
    let name = row.full_name();
    let phase = format!("copying {name}");
    let progress = |done, total| context.reporter.progress(&phase, done, Some(total), "bytes");
    let is_open = || there.window.closed_until().is_none();
    let copying = there.repository.copy_backup_while(&source, domain, id, &progress, &is_open);
    // Dropping a copy is safe: without its head nothing of it exists.
    let copied = tokio::select! {
        copied = copying => copied?,
        () = context.cancel.cancelled() => return Err(Error::unprocessable("cancelled", "cancelled")),
    };
    let Some(copied) = copied else { return Ok(None) };
    context.reporter.log(
        "info",
        &format!("{name} is durable at {}: {} objects, {} bytes sent", there.target.site, copied.objects, copied.bytes),
    );
    Ok(Some(copied.bytes))
}

/// The newest export of the catalog goes before the backups: what is safe at this target can be reborn from it, settings and all.
async fn copy_export(context: &Context, Destination { target, repository, .. }: &Destination) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::fixtures::Fixture;

    /// 1 January 2026, 23:00 and 06:00 the next day, UTC.
    const OPEN_MS: i64 = 1_767_308_400_000;
    const CLOSED_MS: i64 = OPEN_MS + 7 * 60 * 60 * 1000;

    /// Tells an open time so often, and a closed one from then on.
    fn closes_after(answers: u64) -> Now {
        let given = AtomicU64::new(0);
        Box::new(move || if given.fetch_add(1, Ordering::SeqCst) < answers { OPEN_MS } else { CLOSED_MS })
    }

    #[tokio::test]
    async fn a_window_that_closes_under_way_stops_a_copy_and_the_next_one_ends_it() {
        let fixture = Fixture::new().await;
        let uid = fixture.back_up(1_000).await;
        let (state, vault) = (fixture.state(), fixture.add_target("vault").await);
        let change = |row: &mut TargetRow| {
            row.settings.insert("window".to_owned(), "22:00-06:00".to_owned());
        };
        state.catalog.update_target(&vault.uid, None, 1, change).await.unwrap();
        // When it begins, before the backup, and after its first object.
        let ended = run_by(&fixture.claimed("replicate").await, closes_after(3)).await.unwrap();
        let note = "waits for its window until 2026-01-02T22:00:00Z";
        assert_eq!((ended["copied"].as_u64(), ended["note"].as_str()), (Some(0), Some(note)));
        let copies = backups::copies(state, &uid).await.unwrap();
        let copy = copies.iter().find(|copy| copy.target_uid == vault.uid).unwrap();
        assert_eq!((copy.state, copy.reason.as_deref()), (CopyState::Pending, Some(note)));
        assert_eq!(fixture.held_at(&vault).await, Vec::<String>::new());

        let ended = run_by(&fixture.claimed("replicate").await, Box::new(|| OPEN_MS)).await.unwrap();
        assert_eq!((ended["copied"].as_u64(), ended["note"].as_str()), (Some(1), None));
        assert_eq!(fixture.held_at(&vault).await, [uid]);
    }
}
