//! The shred job: destroys, at one target, the slots of a backup, or all that is left of an organization whose keys are destroyed. Tried for
//! ever: until a target was reached, what it holds can be read there.

use std::sync::Arc;

use holdfast_catalog::Scope;
use holdfast_repository::{BackupId, DomainId, Repository};
use holdfast_sandbox::{Author, Events};
use serde::{Deserialize, Serialize};

use super::{Context, JobKind};
use crate::appliance::State;
use crate::resources::ShredReport;
use crate::{Error, ErrorKind, clock, rollback, targets};

/// What the job's row says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) target: String,
    pub(crate) domain: String,
    /// One backup; without it the whole organization.
    pub(crate) backup: Option<String>,
    pub(crate) organization: String,
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let payload: Payload = context.payload()?;
    let Ok(target) = targets::find(state, &payload.target).await else {
        return Ok(serde_json::json!({ "note": "the target was removed, what it holds stays there" }));
    };
    let domain = id::<DomainId>(&payload.domain)?;
    if payload.backup.is_none() {
        destroy_keys(context, &payload.organization, domain).await?;
    }
    let repository = state.repository(&target).await?;
    let mut report = ShredReport { target: target.name.clone(), site: target.site.clone(), survives: Vec::new() };
    match &payload.backup {
        Some(backup) => shred_backup(&repository, domain, id(backup)?, &payload, &mut report).await?,
        None => erase(context, &repository, domain, &mut report).await?,
    }
    rollback::remember(state, &target, &repository).await?;
    if payload.backup.is_some() {
        super::prune::soon(state, &target).await?;
    }
    for line in &report.survives {
        context.reporter.log("warn", line);
    }
    serde_json::to_value(report)
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding a report failed: {error}")))
}

fn id<T: std::str::FromStr>(text: &str) -> Result<T, Error> {
    text.parse().map_err(|_| Error::new(ErrorKind::Internal, "bad-uid", format!("'{text}' is not a uid")))
}

async fn shred_backup(
    repository: &Repository,
    domain: DomainId,
    backup: BackupId,
    payload: &Payload,
    report: &mut ShredReport,
) -> Result<(), Error> {
    // Counted before nobody can tell any more.
    let overlap = repository.overlap(domain, backup).await?;
    // The catalog let it go: a target that was not told of a release must not hold on to it.
    repository.set_holds(domain, backup, Vec::new()).await?;
    let kept = repository.shred_backup(domain, backup, clock::unsigned(clock::now_ms())).await?;
    if overlap.shared > 0 {
        report.survives.push(format!(
            "{} of its {} chunks: other backups of {} hold them too, and they are readable through those for as long as one lives",
            overlap.shared, overlap.chunks, payload.organization
        ));
    }
    if overlap.chunks > overlap.shared {
        report.survives.push(format!(
            "its other {} chunks, which nobody can read, until prune removes them",
            overlap.chunks - overlap.shared
        ));
    }
    report.survives.extend(kept.iter().map(|slot| {
        format!("a slot that the store did not let go ({slot}): whoever has the organization key of its time reads the backup")
    }));
    Ok(())
}

/// The organization's backups leave the catalog, its keys and secrets leave the keyring, unless they did already. What has got the
/// organization's name since the job was asked for is left alone.
async fn destroy_keys(context: &Context, organization: &str, domain: DomainId) -> Result<(), Error> {
    let state = &context.state;
    for uid in backups_before(state, organization, context.job.created_ms).await? {
        context.stop_if_cancelled()?;
        forget_backup(state, &uid).await?;
    }
    forget_domain(state, domain).await
}

/// The row of a backup that is deleted. Another job may have been faster.
pub(crate) async fn forget_backup(state: &State, uid: &str) -> Result<(), holdfast_catalog::Error> {
    use holdfast_catalog::Error::NotFound;
    match state.catalog.backup_deleting(uid, clock::now_ms()).await {
        Ok(_) => match state.catalog.backup_deleted(uid).await {
            Err(NotFound { .. }) => Ok(()),
            deleted => deleted,
        },
        Err(NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The keys and secrets of a domain leave the keyring of this appliance.
pub(crate) async fn forget_domain(state: &State, domain: DomainId) -> Result<(), Error> {
    state
        .change_keyring(|keyring| Ok(keyring.domains().contains(&domain).then(|| keyring.without_domain(domain))))
        .await
}

async fn backups_before(state: &State, organization: &str, created_ms: i64) -> Result<Vec<String>, Error> {
    const PAGE: u32 = 1_000;
    let (mut uids, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = state.catalog.list_backups(Scope::from_path(organization), None, after.as_deref(), PAGE).await?;
        uids.extend(page.items.into_iter().filter(|row| row.created_ms <= created_ms).map(|row| row.uid));
        after = page.next;
        if after.is_none() {
            return Ok(uids);
        }
    }
}

/// First nobody may find the keys at this target any more, then what they opened is removed.
async fn erase(
    context: &Context,
    repository: &Repository,
    domain: DomainId,
    report: &mut ShredReport,
) -> Result<(), Error> {
    report.survives.extend(repository.retire_former_keyrings().await?.iter().map(|keyring| {
        format!("a keyring that the store did not let go ({keyring}): its recipients open what is left of the organization with it")
    }));
    let reporter = Arc::clone(&context.reporter);
    let progress = move |done, total| reporter.progress("removing", done, Some(total), "objects");
    let kept = repository.erase_domain(domain, &progress).await?;
    report.survives.extend(kept.iter().map(|object| format!("an object that the store did not let go: {object}")));
    Ok(())
}

/// Queues the destruction at every target, beside no copy under way there.
pub(crate) async fn everywhere(
    state: &State,
    subject: &str,
    organization: &str,
    domain: DomainId,
    backup: Option<BackupId>,
) -> Result<Vec<(String, String, String)>, Error> {
    let mut queued = Vec::new();
    for target in state.catalog.targets().await? {
        let payload = Payload {
            target: target.name.clone(),
            domain: domain.to_string(),
            backup: backup.map(|backup| backup.to_string()),
            organization: organization.to_owned(),
        };
        let mut job = super::new_job(JobKind::Shred, Author::Ours, subject.to_owned(), &payload, None)?;
        job.lane = JobKind::Shred.lane(&target.name, Author::Ours);
        let job = state.catalog.enqueue_job(job, clock::now_ms()).await?;
        queued.push((target.name, target.site, job.id));
    }
    state.queue.wake();
    Ok(queued)
}
