//! Operations on the archive store as a whole.

use holdfast_catalog::{TargetRole, TargetRow};
use holdfast_sandbox::Author;

use crate::appliance::State;
use crate::jobs::{self, JobKind};
use crate::resources::{CreateCheck, CreatePrune, Job, RepositoryStats};
use crate::{Appliance, Error, Principal, targets, views};

impl Appliance {
    /// Figures of the primary; of the first target that answers while this appliance is recovered.
    pub async fn repository_stats(&self) -> Result<RepositoryStats, Error> {
        let state = &self.0;
        let stats = state.repository(&first_filled(state).await?).await?.stats().await?;
        Ok(RepositoryStats {
            repository: state.keyring.current().repository().to_string(),
            backups: stats.backups,
            chunks: stats.chunks,
            packs: stats.packs,
            logical_bytes: stats.logical_bytes,
            stored_bytes: stats.stored_bytes,
        })
    }

    /// Queues a check of one target.
    pub async fn check_repository(&self, who: &Principal, request: CreateCheck) -> Result<Job, Error> {
        let state = &self.0;
        if request.bytes_per_second == Some(0) {
            return Err(Error::invalid("bad-rate", "a rate of 0 bytes a second never ends")
                .hint("Leave the rate out to read as fast as possible."));
        }
        if request.heal {
            state.must_be_writer("healing")?;
        }
        let target = match &request.target {
            Some(name) => targets::find(state, name).await?,
            None => first_filled(state).await?,
        };
        let payload = jobs::check::Payload {
            target: target.name.clone(),
            read_data: request.read_data,
            bytes_per_second: request.bytes_per_second,
            heal: request.heal,
        };
        let job = jobs::enqueue(state, JobKind::Check, Author::Ours, target.name, &payload).await?;
        state.audit(who, "repository.check", &job.subject).await?;
        Ok(views::job(&job))
    }
}

impl Appliance {
    /// Queues a prune of one target.
    pub async fn prune_repository(&self, who: &Principal, request: CreatePrune) -> Result<Job, Error> {
        let state = &self.0;
        state.must_be_writer("pruning")?;
        let target = match &request.target {
            Some(name) => targets::find(state, name).await?,
            None => targets::primary(state).await?,
        };
        let payload = jobs::prune::Payload { target: target.name.clone(), dry_run: request.dry_run, now: request.now };
        // A dry run stands in no prune's way: it has a lane of its own.
        let subject = if request.dry_run { format!("{} (dry run)", target.name) } else { target.name };
        let job = jobs::enqueue(state, JobKind::Prune, Author::Ours, subject, &payload).await?;
        state.audit(who, "repository.prune", &job.subject).await?;
        Ok(views::job(&job))
    }
}

/// The primary; after a recovery, whose new primary is empty, the target that was recovered from.
async fn first_filled(state: &State) -> Result<TargetRow, Error> {
    let mut all = state.catalog.targets().await?;
    if state.is_recovered() {
        all.retain(|target| target.role != TargetRole::Primary);
    }
    all.into_iter().next().ok_or_else(|| Error::not_found("target-not-found", "there is no target to read from"))
}
