//! The rewrap job: after a rotation, wraps the slots of every backup at a target by the newest organization keys, and removes the keyrings
//! that cannot open them. The primary goes first, the others take its new slots verbatim. Tried for ever.

use std::sync::Arc;

use holdfast_catalog::{JobRow, TargetRole};
use holdfast_repository::{Keyring, Repository};
use holdfast_sandbox::{Author, Events};

use super::{Context, JobKind};
use crate::appliance::State;
use crate::resources::RewrapReport;
use crate::{Error, ErrorKind, rollback, targets};

/// Meta key: a rotation is under way, and its job is not queued yet.
const DUE: &str = "rewrap-due";

/// Makes a rotation: a stop between the new keyring and its job is healed at the next start. The primary's job queues the others' at its
/// end.
pub(crate) async fn rotate(
    state: &State,
    change: impl FnOnce(&Keyring) -> Result<Keyring, Error>,
) -> Result<JobRow, Error> {
    state.catalog.set_meta(DUE, b"yes").await?;
    state.change_keyring(|keyring| change(keyring).map(Some)).await?;
    begin(state).await
}

async fn begin(state: &State) -> Result<JobRow, Error> {
    let primary = targets::primary(state).await?;
    let job = super::enqueue(state, JobKind::Rewrap, Author::Ours, primary.name, &()).await?;
    // The new keyring is everywhere as soon as it can be, whatever the primary's slots take.
    for target in state.catalog.targets().await?.iter().filter(|target| target.role != TargetRole::Primary) {
        super::replicate::now(state, target).await?;
    }
    state.catalog.set_meta(DUE, b"no").await?;
    Ok(job)
}

/// Queues what a stop kept from being queued. What needs nothing is soon done.
pub(super) async fn heal(state: &State) -> Result<(), Error> {
    if state.catalog.meta(DUE).await?.is_some_and(|due| due == b"yes") && !state.is_recovered() {
        begin(state).await?;
    }
    Ok(())
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let Ok(target) = targets::find(state, &context.job.subject).await else {
        return Ok(serde_json::json!({ "note": "the target was removed" }));
    };
    let repository = state.repository(&target).await?;
    let primary = match target.role {
        TargetRole::Primary => None,
        TargetRole::Secondary => Some(state.repository(&targets::primary(state).await?).await?),
    };
    let mut report = RewrapReport { target: target.name.clone(), site: target.site.clone(), ..RewrapReport::default() };
    rewrap(context, &repository, primary.as_ref(), &mut report).await?;
    report.kept.extend(repository.retire_former_keyrings().await?);
    rollback::remember(state, &target, &repository).await?;
    if target.role == TargetRole::Primary {
        report.followed_by = follow(state).await?;
    }
    for line in report.unreadable.iter().chain(&report.kept) {
        context.reporter.log("warn", line);
    }
    serde_json::to_value(report)
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding a report failed: {error}")))
}

async fn rewrap(
    context: &Context,
    repository: &Repository,
    primary: Option<&Repository>,
    report: &mut RewrapReport,
) -> Result<(), Error> {
    for domain in context.state.keyring.current().domains() {
        context.stop_if_cancelled()?;
        let reporter = Arc::clone(&context.reporter);
        let before = report.backups;
        let progress = move |done, total| {
            reporter.progress("rewrapping", before + done, Some(before + total), "backups");
        };
        let seen = repository.rewrap(domain, primary, &progress).await?;
        report.backups += seen.backups;
        report.rewrapped += seen.rewrapped;
        report.unreadable.extend(seen.unreadable);
        report.kept.extend(seen.kept);
    }
    Ok(())
}

/// Queues the jobs of all targets but the primary.
async fn follow(state: &State) -> Result<Vec<String>, Error> {
    let mut jobs = Vec::new();
    for target in state.catalog.targets().await?.into_iter().filter(|target| target.role != TargetRole::Primary) {
        jobs.push(super::enqueue(state, JobKind::Rewrap, Author::Ours, target.name, &()).await?.id);
    }
    Ok(jobs)
}
