//! The operation that brings data back.

use crate::destination::Directories;
use crate::jobs::{self, JobKind};
use crate::names::backup_reference;
use crate::resources::{CreateRestore, Job};
use crate::{Appliance, Error, Principal, backups, targets, views};

impl Appliance {
    /// Queues a restore to a directory of this machine. Everything that can be checked is checked before it is queued.
    pub async fn create_restore(&self, who: &Principal, mut request: CreateRestore) -> Result<Job, Error> {
        let state = &self.0;
        let (name, backup) = backup_reference(&request.backup)?;
        let row = backups::find_usable(state, &name, &backup).await?;
        if let Some(target) = &request.from {
            targets::find(state, target).await?;
        }
        backups::must_be_whole(state, &row, request.from.as_deref()).await?;
        Directories::check(&request.to_directory, &request.map, request.owner.as_deref())?;
        // What `latest` means is settled now and not when the job runs.
        request.backup = format!("{name}/{}", row.name);
        let payload = jobs::restore::Payload { backup: row.uid.clone(), request };
        let author = state.plugins.author(&row.engine);
        let job = jobs::enqueue(state, JobKind::Restore, author, format!("{name}/{}", row.name), &payload).await?;
        state.audit(who, "restore", &job.subject).await?;
        Ok(views::job(&job))
    }
}
