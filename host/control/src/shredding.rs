//! Shredding: a backup, or all of an organization, made unreadable by destroying its keys. It cannot be undone, and it says what survives.

use holdfast_catalog::{BackupState, Scope};

use crate::appliance::State;
use crate::jobs::{self, shred};
use crate::names::{backup_reference, check_part};
use crate::resources::{Shred, ShredBegun, ShredJob};
use crate::{Appliance, Error, Principal, backups, clock};

impl Appliance {
    /// Destroys the keys of a backup (`organization/project/instance/backup`) or of an organization, at every target.
    ///
    /// Errors: the confirmation is another name; something of it still runs; an organization whose instances are not removed.
    pub async fn shred(&self, who: &Principal, request: Shred) -> Result<ShredBegun, Error> {
        let state = &self.0;
        state.must_be_writer("shredding")?;
        let begun = if request.subject.contains('/') {
            shred_backup(state, &request).await?
        } else {
            shred_organization(state, &request).await?
        };
        state.audit(who, "key.shred", &begun.subject).await?;
        jobs::export::soon(state).await?;
        Ok(begun)
    }
}

async fn shred_backup(state: &State, request: &Shred) -> Result<ShredBegun, Error> {
    let (name, backup) = backup_reference(&request.subject)?;
    if backup == "latest" {
        return Err(Error::invalid("latest-shredded", "'latest' cannot be shredded")
            .hint("Name the backup: what is the latest changes by itself."));
    }
    let row = backups::find(state, &name, &backup).await?;
    must_be_confirmed(&request.confirm, &row.name)?;
    if row.state == BackupState::Pending {
        return Err(Error::unprocessable("backup-running", format!("{name}/{} is running", row.name))
            .hint("Cancel its job first."));
    }
    let (domain, id) = backups::ids(state, &row)?;
    let subject = format!("{name}/{}", row.name);
    // From here on nothing copies or restores it; a stop before the jobs are queued leaves it to be shredded again.
    state.catalog.backup_deleting(&row.uid, clock::now_ms()).await?;
    let jobs = shred::everywhere(state, &subject, &row.organization, domain, Some(id)).await?;
    state.catalog.backup_deleted(&row.uid).await?;
    let mut survives = elsewhere(state).await?;
    survives.push("its name, labels, times and sizes: in earlier heads at every target and in earlier exports of the catalog, sealed".to_owned());
    Ok(begun(subject, jobs, survives))
}

async fn shred_organization(state: &State, request: &Shred) -> Result<ShredBegun, Error> {
    let organization = &request.subject;
    check_part("organization", organization)?;
    must_be_confirmed(&request.confirm, organization)?;
    let domain = state.keyring.current().domain_of(organization).ok_or_else(|| {
        Error::not_found("organization-not-found", format!("{organization} has no keys: it never had a backup"))
            .hint("`holdfast backup list` names the organizations of all backups.")
    })?;
    must_be_idle(state, organization).await?;
    let jobs = shred::everywhere(state, organization, organization, domain, None).await?;
    // At once, so that no backup begins under keys that are about to be destroyed.
    shred::forget_domain(state, domain).await?;
    let mut survives = elsewhere(state).await?;
    survives.push("the names and settings of its instances, and the names of its backups: in earlier exports of the catalog, sealed".to_owned());
    Ok(begun(organization.clone(), jobs, survives))
}

fn begun(subject: String, jobs: Vec<(String, String, String)>, survives: Vec<String>) -> ShredBegun {
    let jobs = jobs.into_iter().map(|(target, site, job)| ShredJob { target, site, job });
    ShredBegun { subject, jobs: jobs.collect(), survives }
}

fn must_be_confirmed(given: &str, name: &str) -> Result<(), Error> {
    if given == name {
        return Ok(());
    }
    Err(Error::invalid("not-confirmed", format!("'{given}' is not the name of what would be shredded"))
        .hint(format!("What is shredded cannot be brought back by anybody. If it is meant: --confirm {name}")))
}

/// An organization that is still backed up would only begin anew.
async fn must_be_idle(state: &State, organization: &str) -> Result<(), Error> {
    let scope = || Scope::from_path(organization);
    let instances = state.catalog.list_instances(scope(), None, 1).await?;
    if let Some(instance) = instances.items.first() {
        let name = format!("{}/{}/{}", instance.organization, instance.project, instance.name);
        return Err(Error::conflict("organization-in-use", format!("{organization} has the instance {name}"))
            .hint("Remove its instances first: `holdfast instance remove NAME`."));
    }
    let running = state.catalog.list_backups(scope(), Some(BackupState::Pending), None, 1).await?;
    match running.items.first() {
        Some(backup) => Err(Error::unprocessable("backup-running", format!("{} is running", backup.full_name()))
            .hint("Cancel its job first.")),
        None => Ok(()),
    }
}

/// What no appliance can reach.
async fn elsewhere(state: &State) -> Result<Vec<String>, Error> {
    let mut survives = vec![
        "what somebody copied from a target before, where they also have a keyring of before: nobody can take that back".to_owned(),
        "where a store keeps former versions or locks objects: slots and keyrings of before, until those end".to_owned(),
    ];
    for target in state.catalog.removed_targets().await? {
        survives.push(format!(
            "what lies at {}: the target {} was removed, and nothing is changed there",
            target.url, target.name
        ));
    }
    Ok(survives)
}
