//! Operations on backups.

use std::sync::Arc;

use futures_util::FutureExt as _;
use holdfast_catalog::{
    BackupRow, BackupState, CopyRow, CopyState, HoldRow, IdempotencyKey, InsertedBackup, InstanceRow, LossRow,
    TargetRow,
};
use holdfast_repository::{BackupId, BackupReader, DomainId, EntryKind, Hold, Repository};

use crate::appliance::State;
use crate::jobs::{self, JobKind};
use crate::names::{InstanceName, check_backup_name};
use crate::resources::{Backup, BackupEntry, CreateBackup, CreateHold, CreateVerification, Job, Page, ReleaseHold};
use crate::{Appliance, Error, ErrorKind, ListQuery, Principal, clock, instances, policies, targets, views};

/// Characters of a hold's reason.
const HOLD_REASON_MAX: usize = 500;

impl Appliance {
    /// Queues a backup. 422 while another backup of the instance runs; a repeated `idempotency_key` gets its first answer.
    pub async fn create_backup(
        &self,
        who: &Principal,
        name: &InstanceName,
        request: CreateBackup,
        idempotency_key: Option<&str>,
    ) -> Result<Backup, Error> {
        let state = &self.0;
        state.must_be_writer("a backup")?;
        let request_digest = request_digest(name, &request)?;
        let key = idempotency_key.map(|key| IdempotencyKey {
            principal: who.name.clone(),
            key: key.to_owned(),
            request_digest,
        });
        let instance = instances::find(state, name).await?;
        let row = new_row(state, &instance, request).await?;
        let payload = jobs::backup::Payload { backup: row.uid.clone() };
        let author = state.plugins.author(&row.engine);
        let job = jobs::new_job(JobKind::Backup, author, row.full_name(), &payload, Some(instance.uid))?;
        let row = match state.catalog.insert_backup_with_job(row, job, key).await? {
            InsertedBackup::New { backup, .. } => {
                state.queue.wake();
                state.audit(who, "backup.create", &backup.full_name()).await?;
                *backup
            }
            InsertedBackup::Repeated { backup_uid } => {
                state.catalog.backup_by_uid(&backup_uid).await?.ok_or_else(|| gone(&backup_uid))?
            }
        };
        self.view_backup(row).await
    }

    /// Backups, newest first.
    pub async fn backups(&self, query: ListQuery) -> Result<Page<Backup>, Error> {
        let limit = query.page_size()?;
        let page = self
            .0
            .catalog
            .list_backups(query.catalog_scope(), query.catalog_state()?, query.after.as_deref(), limit)
            .await?;
        let uids: Vec<_> = page.items.iter().map(|row| row.uid.clone()).collect();
        let copies = self.0.catalog.copies_of(&uids).await?;
        let targets = self.0.catalog.targets().await?;
        let retained = policies::retained(&self.0, &page.items).await?;
        let losses = self.0.catalog.losses_of(&uids).await?;
        let view = |row: &BackupRow| {
            let copies = views::Copies {
                copies: copies.get(&row.uid).map_or(&[], Vec::as_slice),
                losses: losses.get(&row.uid).map_or(&[], Vec::as_slice),
                targets: &targets,
            };
            views::backup(row, copies, retained.get(&row.uid))
        };
        Ok(Page { items: page.items.iter().map(view).collect(), next: page.next })
    }

    /// One backup; `backup` is a name, a uid or `latest`.
    pub async fn backup(&self, name: &InstanceName, backup: &str) -> Result<Backup, Error> {
        self.view_backup(find(&self.0, name, backup).await?).await
    }

    /// Entries of a backup by path.
    pub async fn backup_entries(
        &self,
        name: &InstanceName,
        backup: &str,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<Page<BackupEntry>, Error> {
        let row = find_usable(&self.0, name, backup).await?;
        let (_, _, reader) = open_at(&self.0, &row, None).await?;
        let limit = ListQuery { limit: Some(limit), ..ListQuery::default() }.page_size()?;
        let entries = reader.entries(prefix, after, limit as usize).await?;
        let next = views::cursor(&entries, limit, |entry| entry.path.clone());
        let items = entries.into_iter().map(|entry| BackupEntry {
            kind: match entry.kind {
                EntryKind::File => "file",
                EntryKind::Directory => "directory",
                EntryKind::Symlink(_) => "symlink",
            }
            .to_owned(),
            path: entry.path,
            size: entry.size.unwrap_or(0),
            mode: entry.mode,
            modified_at: clock::text(entry.modified.saturating_mul(1000)),
        });
        Ok(Page { items: items.collect(), next })
    }

    /// Queues a verification.
    pub async fn verify_backup(
        &self,
        who: &Principal,
        name: &InstanceName,
        backup: &str,
        request: CreateVerification,
    ) -> Result<Job, Error> {
        let state = &self.0;
        if !matches!(request.level.as_str(), "bytes" | "engine") {
            return Err(Error::invalid("bad-level", format!("'{}' is not a level of verification", request.level))
                .hint("The levels are: bytes, engine."));
        }
        if let Some(target) = &request.from {
            targets::find(state, target).await?;
        }
        let row = find_usable(state, name, backup).await?;
        let payload = jobs::verify::Payload { backup: row.uid.clone(), level: request.level, from: request.from };
        let author = state.plugins.author(&row.engine);
        let job = jobs::enqueue(state, JobKind::Verify, author, format!("{name}/{}", row.name), &payload).await?;
        state.audit(who, "backup.verify", &job.subject).await?;
        Ok(views::job(&job))
    }

    /// Deletes a backup everywhere, by name or uid. What it alone needs is condemned soon, and deleted seven days later.
    pub async fn delete_backup(&self, who: &Principal, name: &InstanceName, backup: &str) -> Result<(), Error> {
        let state = &self.0;
        state.must_be_writer("deleting a backup")?;
        if backup == "latest" {
            return Err(Error::invalid("latest-deleted", "'latest' cannot be deleted")
                .hint("Name the backup: what is the latest changes by itself."));
        }
        let row = find(state, name, backup).await?;
        if row.state == BackupState::Pending {
            return Err(Error::unprocessable("backup-running", format!("{name}/{} is running", row.name))
                .hint("Cancel its job first."));
        }
        let (domain, id) = ids(state, &row)?;
        let holders = holders(state, &row.uid).await?;
        let row = state.catalog.backup_deleting(&row.uid, clock::now_ms()).await?;
        for target in &holders {
            // One that could not be told of a release must not hold on to it.
            hold_at(state, &row, target).await?;
            state.repository(target).await?.remove_backup(domain, id, clock::unsigned(clock::now_ms())).await?;
        }
        for target in &holders {
            jobs::prune::soon(state, target).await?;
        }
        jobs::shred::forget_backup(state, &row.uid).await?;
        state.audit(who, "backup.delete", &format!("{name}/{}", row.name)).await?;
        jobs::export::soon(state).await
    }

    /// Holds a backup: while anybody does, nothing deletes it.
    pub async fn hold_backup(
        &self,
        who: &Principal,
        name: &InstanceName,
        backup: &str,
        request: CreateHold,
    ) -> Result<Backup, Error> {
        let state = &self.0;
        state.must_be_writer("holding a backup")?;
        let reason = request.reason.trim();
        if reason.is_empty() || reason.chars().count() > HOLD_REASON_MAX || reason.chars().any(char::is_control) {
            return Err(Error::invalid("bad-reason", "a hold needs a reason")
                .hint(format!("Say in at most {HOLD_REASON_MAX} characters why the backup must stay.")));
        }
        let row = find_usable(state, name, backup).await?;
        let hold = HoldRow { name: who.name.clone(), reason: reason.to_owned(), at_ms: clock::now_ms() };
        let row = state.catalog.backup_held(&row.uid, hold).await?;
        self.tell_holds(&row).await?;
        state.audit(who, "backup.hold", &row.full_name()).await?;
        self.view_backup(row).await
    }

    /// Ends one hold of a backup, or all of them.
    pub async fn release_backup(
        &self,
        who: &Principal,
        name: &InstanceName,
        backup: &str,
        request: ReleaseHold,
    ) -> Result<Backup, Error> {
        let state = &self.0;
        state.must_be_writer("releasing a backup")?;
        let row = find(state, name, backup).await?;
        let row = state.catalog.backup_released(&row.uid, request.name.as_deref(), clock::now_ms()).await?;
        self.tell_holds(&row).await?;
        state.audit(who, "backup.release", &row.full_name()).await?;
        self.view_backup(row).await
    }

    /// Writes a backup's holds into the heads of its targets. One that does not answer is told when the backup is to be deleted there: the catalog
    /// stands in the way until then.
    async fn tell_holds(&self, row: &BackupRow) -> Result<(), Error> {
        let state = &self.0;
        for target in holders(state, &row.uid).await? {
            if let Err(error) = hold_at(state, row, &target).await {
                tracing::warn!(backup = %row.full_name(), target = %target.name, %error, "a target was not told who holds the backup");
            }
        }
        jobs::export::soon(state).await
    }

    async fn view_backup(&self, row: BackupRow) -> Result<Backup, Error> {
        let copies = copies(&self.0, &row.uid).await?;
        let retained = policies::retained(&self.0, std::slice::from_ref(&row)).await?;
        let (losses, targets) = (losses(&self.0, &row.uid).await?, self.0.catalog.targets().await?);
        let copies = views::Copies { copies: &copies, losses: &losses, targets: &targets };
        Ok(views::backup(&row, copies, retained.get(&row.uid)))
    }
}

/// Makes a target's heads say of a backup's holds what the catalog says.
async fn hold_at(state: &State, row: &BackupRow, target: &TargetRow) -> Result<(), Error> {
    let (domain, id) = ids(state, row)?;
    let holds = row.holds.iter().map(|hold| Hold {
        name: hold.name.clone(),
        reason: hold.reason.clone(),
        at_ms: clock::unsigned(hold.at_ms),
    });
    Ok(state.repository(target).await?.set_holds(domain, id, holds.collect()).await?)
}

async fn new_row(state: &State, instance: &InstanceRow, request: CreateBackup) -> Result<BackupRow, Error> {
    let plugin = state.plugins.of_engine(&instance.engine)?;
    let description = plugin.description();
    let method = match &request.method {
        None => description.methods.first(),
        Some(name) => description.methods.iter().find(|method| method.name == *name),
    }
    .ok_or_else(|| {
        let known: Vec<_> = description.methods.iter().map(|method| method.name.as_str()).collect();
        Error::invalid(
            "unknown-method",
            format!("{} has no method '{}'", description.title, request.method.as_deref().unwrap_or_default()),
        )
        .hint(format!("Its methods are: {}.", known.join(", ")))
    })?;
    let backup_type = request.backup_type.unwrap_or_else(|| "full".to_owned());
    if !method.types.contains(&backup_type) {
        return Err(Error::invalid(
            "unknown-type",
            format!("the method {} makes no backups of type '{backup_type}'", method.name),
        )
        .hint(format!("It makes: {}.", method.types.join(", "))));
    }
    let now = clock::now_ms();
    let keep_until_ms = request.keep_for_seconds.map(|seconds| keep_until_ms(now, seconds)).transpose()?;
    let name = match request.name {
        Some(name) => {
            check_backup_name(&name)?;
            name
        }
        None => free_name(state, &instance.uid, now).await?,
    };
    Ok(BackupRow {
        uid: BackupId::random().to_string(),
        instance_uid: instance.uid.clone(),
        organization: instance.organization.clone(),
        project: instance.project.clone(),
        instance: instance.name.clone(),
        name,
        description: request.description,
        method: method.name.clone(),
        backup_type,
        plugin: views::plugin_name(description),
        component: plugin.digest().to_string(),
        engine: instance.engine.clone(),
        site: instance.site.clone(),
        labels: request.labels,
        state: BackupState::Pending,
        phase: "queued".to_owned(),
        reason: None,
        hint: None,
        created_ms: now,
        started_ms: None,
        finished_ms: None,
        entries: 0,
        logical_bytes: 0,
        stored_bytes: 0,
        warnings: Vec::new(),
        verified: None,
        document: None,
        parent: None,
        job_id: None,
        holds: Vec::new(),
        keep_until_ms,
        updated_ms: now,
        resource_version: 1,
    })
}

/// The end of a backup's own time.
fn keep_until_ms(now_ms: i64, seconds: u64) -> Result<i64, Error> {
    if (1..=policies::KEEP_SECONDS_MAX).contains(&seconds) {
        return Ok(now_ms + clock::signed(seconds * 1000));
    }
    Err(Error::invalid("bad-keep-for", "a backup is kept for a second to a century")
        .hint("Leave it out to have the policies keep the backup, or hold it with `holdfast backup hold`."))
}

/// The time as a name; a second later where a backup of that second exists.
async fn free_name(state: &State, instance_uid: &str, now: i64) -> Result<String, Error> {
    let mut at = now;
    loop {
        let name = clock::compact(at);
        if state.catalog.backup_by_name(instance_uid, &name).await?.is_none() {
            return Ok(name);
        }
        at += 1000;
    }
}

fn request_digest(name: &InstanceName, request: &CreateBackup) -> Result<String, Error> {
    let body = serde_json::to_vec(&(name.to_string(), request)).map_err(|error| {
        Error::new(ErrorKind::Internal, "encoding", format!("encoding the request failed: {error}"))
    })?;
    Ok(blake3::hash(&body).to_string())
}

fn gone(backup: &str) -> Error {
    Error::not_found("backup-not-found", format!("there is no backup {backup}"))
        .hint("`holdfast backup list` shows all.")
}

/// A backup by name, uid or `latest`. Backups of removed instances are found too.
pub(crate) async fn find(state: &State, name: &InstanceName, backup: &str) -> Result<BackupRow, Error> {
    let not_found = || gone(&format!("{name}/{backup}"));
    let instance = state.catalog.any_instance_by_name(&name.organization, &name.project, &name.instance).await?;
    let Some(instance_uid) = instance.map(|row| row.uid) else {
        return Err(Error::not_found("instance-not-found", format!("there is no instance {name}"))
            .hint("`holdfast instance list` shows all."));
    };
    if backup == "latest" {
        return state.catalog.latest_usable(&instance_uid).await?.ok_or_else(|| {
            Error::not_found("backup-not-found", format!("{name} has no backup that can be restored"))
                .hint(format!("Make one with `holdfast backup create {name} --wait`."))
        });
    }
    if let Some(row) = state.catalog.backup_by_name(&instance_uid, backup).await? {
        return Ok(row);
    }
    state.catalog.backup_by_uid(backup).await?.filter(|row| row.instance_uid == instance_uid).ok_or_else(not_found)
}

/// As [`find`], and it can be restored.
pub(crate) async fn find_usable(state: &State, name: &InstanceName, backup: &str) -> Result<BackupRow, Error> {
    let row = find(state, name, backup).await?;
    if row.state == BackupState::Succeeded {
        return Ok(row);
    }
    Err(Error::unprocessable("backup-not-ready", format!("{name}/{} is {}, not Succeeded", row.name, row.state))
        .hint("Only a backup that succeeded can be read; `latest` means the newest of those."))
}

/// Domain and id of a backup's row.
pub(crate) fn ids(state: &State, row: &BackupRow) -> Result<(DomainId, BackupId), Error> {
    let domain = state.keyring.current().domain_of(&row.organization);
    match (domain, row.uid.parse()) {
        (Some(domain), Ok(id)) => Ok((domain, id)),
        _ => Err(Error::new(
            ErrorKind::Internal,
            "no-domain",
            format!("the keyring has no domain for '{}'", row.organization),
        )),
    }
}

/// The targets at which a backup is durable, the primary first.
pub(crate) async fn holders(state: &State, uid: &str) -> Result<Vec<TargetRow>, Error> {
    let copies = copies(state, uid).await?;
    let mut targets = state.catalog.targets().await?;
    targets
        .retain(|target| copies.iter().any(|copy| copy.target_uid == target.uid && copy.state == CopyState::Durable));
    Ok(targets)
}

/// The same, those before the others at which nothing of it is known to be lost.
async fn whole_first(state: &State, uid: &str) -> Result<Vec<TargetRow>, Error> {
    let losses = losses(state, uid).await?;
    let mut targets = holders(state, uid).await?;
    targets.sort_by_key(|target| losses.iter().any(|loss| loss.target_uid == target.uid));
    Ok(targets)
}

/// The copies of one backup.
pub(crate) async fn copies(state: &State, uid: &str) -> Result<Vec<CopyRow>, Error> {
    Ok(state.catalog.copies_of(&[uid.to_owned()]).await?.remove(uid).unwrap_or_default())
}

/// What is known to be lost of one backup.
async fn losses(state: &State, uid: &str) -> Result<Vec<LossRow>, Error> {
    Ok(state.catalog.losses_of(&[uid.to_owned()]).await?.remove(uid).unwrap_or_default())
}

/// Refuses a backup of which something is lost at the target that is asked for, or at all of them.
pub(crate) async fn must_be_whole(state: &State, row: &BackupRow, from: Option<&str>) -> Result<(), Error> {
    let (copies, losses) = (copies(state, &row.uid).await?, losses(state, &row.uid).await?);
    let targets = state.catalog.targets().await?;
    let of = views::Copies { copies: &copies, losses: &losses, targets: &targets };
    let (reason, hint) = views::LOST;
    if of.is_damaged() {
        return Err(Error::unprocessable(
            "backup-damaged",
            format!("{} cannot be restored: {reason}", row.full_name()),
        )
        .hint(format!("`holdfast backup show` lists what is lost. {hint}")));
    }
    let asked = targets.iter().find(|target| Some(target.name.as_str()) == from);
    match asked.filter(|target| of.lost_at(target).is_some()) {
        Some(target) => {
            let message = format!("parts of {} are lost at {}", row.full_name(), target.name);
            Err(Error::unprocessable("backup-damaged", message)
                .hint("Leave --from out: what is lost there comes from another target."))
        }
        None => Ok(()),
    }
}

/// Opens a backup from the named target, else from the first that has it and answers, the primary first.
pub(crate) async fn open_at(
    state: &State,
    row: &BackupRow,
    from: Option<&str>,
) -> Result<(TargetRow, Repository, BackupReader), Error> {
    let mut failure = None;
    for target in sources(state, row, from).await? {
        match open_there(state, row, &target).await {
            Ok((repository, reader)) => return Ok((target, repository, reader)),
            // The next target may have it; the last one's reason is told.
            Err(error) => {
                tracing::warn!(backup = %row.uid, target = %target.name, %error, "the backup cannot be read here");
                failure = Some(error);
            }
        }
    }
    Err(failure.unwrap_or_else(|| nowhere(row)))
}

/// Where a backup may be read, in this order: at the named target, else wherever it is.
pub(crate) async fn sources(state: &State, row: &BackupRow, from: Option<&str>) -> Result<Vec<TargetRow>, Error> {
    match from {
        Some(name) => Ok(vec![targets::find(state, name).await?]),
        None => whole_first(state, &row.uid).await,
    }
}

/// Opens a backup at one target.
pub(crate) async fn open_there(
    state: &State,
    row: &BackupRow,
    target: &TargetRow,
) -> Result<(Repository, BackupReader), Error> {
    let (domain, id) = ids(state, row)?;
    let repository = state.repository(target).await?;
    let reader = repository.open_backup(domain, id).await?;
    Ok((repository, reader))
}

/// Has what is damaged at a target looked for at all others, whether they hold this backup or not: chunks are shared. Those that do not answer when
/// the first chunk is missing are left out.
pub(crate) fn look_elsewhere_too(state: &Arc<State>, reader: &BackupReader, target: &TargetRow) {
    let (state, uid) = (Arc::clone(state), target.uid.clone());
    reader.look_also_at(move || {
        let (state, uid) = (Arc::clone(&state), uid.clone());
        async move {
            let others =
                targets::others(&state, &uid).await.inspect_err(|error| tracing::warn!(%error, "no other targets"));
            others.unwrap_or_default().into_iter().filter_map(|(_, opened)| opened.ok()).collect()
        }
        .boxed()
    });
}

/// There is nothing to read a backup from.
pub(crate) fn nowhere(row: &BackupRow) -> Error {
    Error::unprocessable("backup-nowhere", format!("no target holds the backup {}", row.name))
        .hint("`holdfast backup show` lists its copies.")
}
