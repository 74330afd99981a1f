//! The prune job: takes back what no backup at a target needs any more. What is dead is condemned, and deleted seven days later, and not
//! before its lock is over: for that the job queues itself again.
//!
//! Pruned at once (`now`), nothing else may go on at any target meanwhile: then it waits its turn as a failure that passes.

use holdfast_catalog::TargetRow;
use holdfast_repository::{BackupRecord, DomainId, PruneOptions, Pruned, Repository, Tally, Why};
use holdfast_sandbox::Events;
use serde::{Deserialize, Serialize};

use super::{Context, JobKind, stop_if_cancelled};
use crate::appliance::State;
use crate::resources::{PruneKept, PruneReport, PruneTally};
use crate::{Error, ErrorKind, clock, rollback, targets};

/// What the job's row says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) target: String,
    #[serde(default)]
    pub(crate) dry_run: bool,
    #[serde(default)]
    pub(crate) now: bool,
}

/// Exports of the catalog that are kept at a target: the newest is enough, and a few more cost little.
const EXPORTS: usize = 24;
/// Deletes that come together are pruned together.
const SOON_MS: i64 = 10_000;

/// After something died at a target.
pub(crate) async fn soon(state: &State, target: &TargetRow) -> Result<(), Error> {
    at(state, &target.name, clock::now_ms() + SOON_MS).await
}

/// Queues a prune for then, or one that is queued for later than that.
async fn at(state: &State, target: &str, when_ms: i64) -> Result<(), Error> {
    let payload = Payload { target: target.to_owned(), dry_run: false, now: false };
    super::enqueue_follow_up(state, JobKind::Prune, target.to_owned(), &payload, when_ms).await?;
    Ok(state.catalog.hurry_job(JobKind::Prune.name(), target, when_ms).await?)
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let (state, payload) = (&context.state, context.payload::<Payload>()?);
    state.must_be_writer("pruning")?;
    let target = targets::find(state, &payload.target).await?;
    let _alone = if payload.now && !payload.dry_run { Some(alone(state)?) } else { None };
    let repository = state.repository(&target).await?;
    let options = PruneOptions { dry_run: payload.dry_run, now: payload.now };
    let pruning = prune(context, &repository, options);
    // Dropping a prune is safe: the next one goes on.
    let pruned = tokio::select! {
        pruned = pruning => pruned?,
        () = context.cancel.cancelled() => return Err(Error::unprocessable("cancelled", "cancelled")),
    };
    if !options.dry_run {
        rollback::remember(state, &target, &repository).await?;
    }
    let waits = [Why::Condemned, Why::Locked].iter().filter_map(|why| pruned.kept.get(why)?.until_ms);
    if let Some(until_ms) = waits.min().filter(|_| !options.dry_run) {
        at(state, &target.name, clock::signed(until_ms)).await?;
    }
    serde_json::to_value(report(target.name, options, &pruned))
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding a report failed: {error}")))
}

/// Keeps all other work away that reads or writes at a target.
fn alone(state: &State) -> Result<tokio::sync::RwLockWriteGuard<'_, ()>, Error> {
    state.at_work.try_write().map_err(|_| {
        Error::new(ErrorKind::Unavailable, "busy", "other jobs are running, and may need what would be deleted at once")
            .hint("It is tried again in a minute. `holdfast job list` shows what runs; or prune without --now.")
    })
}

async fn prune(context: &Context, repository: &Repository, options: PruneOptions) -> Result<Pruned, Error> {
    let keyring = context.state.keyring.current();
    let mut pruned = Pruned::default();
    for domain in keyring.domains() {
        stop_if_cancelled(context)?;
        if keyring.is_system(domain) && !options.dry_run {
            retire_exports(repository, domain).await?;
        }
        let reporter = context.reporter.clone();
        let progress = move |phase: &'static str, done, total| reporter.progress(phase, done, Some(total), "");
        pruned.add(repository.prune(domain, options, &progress).await?);
    }
    stop_if_cancelled(context)?;
    pruned.add(repository.collect_garbage(options).await?);
    Ok(pruned)
}

/// Forgets exports of the catalog but the newest.
async fn retire_exports(repository: &Repository, system: DomainId) -> Result<(), Error> {
    let mut exports: Vec<BackupRecord> = repository.backups(system).await?;
    exports.sort_unstable_by_key(|record| std::cmp::Reverse((record.finished_ms, record.backup)));
    for old in exports.iter().skip(EXPORTS) {
        repository.remove_backup(system, old.backup, clock::unsigned(clock::now_ms())).await?;
    }
    Ok(())
}

fn report(target: String, options: PruneOptions, pruned: &Pruned) -> PruneReport {
    let kept = pruned.kept.iter().map(|(why, kept)| {
        let until = kept.until_ms.map(clock::signed).map(clock::text);
        (reason(*why).to_owned(), PruneKept { objects: kept.tally.objects, bytes: kept.tally.bytes, until })
    });
    PruneReport {
        target,
        dry_run: options.dry_run,
        now: options.now,
        condemned: tally(pruned.condemned),
        repacked: tally(pruned.repacked),
        moved_bytes: pruned.moved_bytes,
        deleted: tally(pruned.deleted),
        kept: kept.collect(),
    }
}

fn tally(tally: Tally) -> PruneTally {
    PruneTally { objects: tally.objects, bytes: tally.bytes }
}

/// Why something dead stays, in a word that stays the same.
fn reason(why: Why) -> &'static str {
    match why {
        Why::Condemned => "condemned",
        Why::Young => "young",
        Why::Refused => "refused",
        Why::Locked => "locked",
        Why::Damaged => "damaged",
        Why::NoRoom => "no-room",
    }
}
