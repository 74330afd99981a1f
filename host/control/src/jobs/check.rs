//! The check job: is everything at a target there and as it was committed, and what is lost if not. It
//! reports and changes nothing, unless it is asked to heal from the other targets.
//!
//! Reading all packs may take days: where it was is kept after each part, so that another attempt after a stop goes on from there.

use std::collections::BTreeMap;

use holdfast_repository::{Damage, Digest, DomainId, Loss, Repository};
use holdfast_sandbox::Events;
use serde::{Deserialize, Serialize};

use super::{Context, stop_if_cancelled};
use crate::resources::{CheckReport, DamagedObject, LostRange};
use crate::{Error, ErrorKind, targets};

/// What the job's row says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    pub(crate) target: String,
    pub(crate) read_data: bool,
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) heal: bool,
}

/// Bytes between two notes of the place.
const PART: u64 = 1 << 30;
/// Findings that a report lists one by one; it always has their number.
const LISTED: usize = 10_000;

/// How far reading packs is.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Progress {
    /// Domains that are done.
    done: Vec<String>,
    /// The last pack that was read of the next one.
    after: Option<String>,
    packs: u64,
    bytes: u64,
    /// Packs that were found damaged, by domain: they are looked at again at the end.
    damaged: BTreeMap<String, Vec<DamagedObject>>,
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    let payload: Payload = context.payload()?;
    let target = targets::find(state, &payload.target).await?;
    let repository = state.repository(&target).await?;
    let mut report = CheckReport { target: target.name, read_data: payload.read_data, ..CheckReport::default() };
    let domains = state.keyring.current().domains();
    let mut progress = Progress::load(context).await?;
    for domain in domains {
        let mut damages = structure(context, &repository, domain, &mut report).await?;
        if payload.read_data {
            damages.extend(packs(context, &repository, domain, &payload, &mut progress).await?);
            damages.extend(refs(context, &repository, domain).await?);
        }
        damages.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        damages.dedup_by(|left, right| left.path == right.path);
        if payload.heal {
            damages = heal(context, &repository, domain, &mut report, damages).await?;
        }
        let losses = if damages.is_empty() { Vec::new() } else { repository.losses(domain, &damages).await? };
        note(context, &mut report, &damages, losses).await?;
    }
    (report.packs_read, report.bytes_read) = (progress.packs, progress.bytes);
    report.passed = report.damages_found == 0;
    progress.forget(context).await?;
    serde_json::to_value(report)
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding a report failed: {error}")))
}

async fn structure(
    context: &Context,
    repository: &Repository,
    domain: DomainId,
    report: &mut CheckReport,
) -> Result<Vec<Damage>, Error> {
    context.stop_if_cancelled()?;
    let reporter = context.reporter.clone();
    let progress = move |done, total| reporter.progress("structure", done, Some(total), "objects");
    let seen = repository.check_structure(domain, &progress).await?;
    report.objects += seen.objects;
    report.bytes += seen.bytes;
    if !context.state.keyring.current().is_system(domain) {
        report.backups += seen.backups;
    }
    Ok(seen.damages)
}

/// Reads what is left of a domain's packs, part by part.
async fn packs(
    context: &Context,
    repository: &Repository,
    domain: DomainId,
    payload: &Payload,
    progress: &mut Progress,
) -> Result<Vec<Damage>, Error> {
    let name = domain.to_string();
    while !progress.done.contains(&name) {
        context.stop_if_cancelled()?;
        let (before, reporter) = (progress.bytes, context.reporter.clone());
        let told = move |bytes| reporter.progress("reading", before + bytes, None, "bytes");
        let after = progress.after.as_deref().and_then(|digest| digest.parse::<Digest>().ok());
        let read = repository.read_packs(domain, after, PART, payload.bytes_per_second, &told).await?;
        progress.packs += read.packs;
        progress.bytes += read.bytes;
        progress.after = read.next.map(|digest| digest.to_string());
        if read.next.is_none() {
            progress.done.push(name.clone());
        }
        progress.damaged.entry(name.clone()).or_default().extend(read.damages.iter().map(DamagedObject::from));
        progress.save(context).await?;
    }
    let damaged = progress.damaged.get(&name).into_iter().flatten();
    Ok(damaged.map(DamagedObject::to_damage).collect())
}

/// Compares what backups reach with the refs by which prune goes: an opinion that needs data keys and reads lists.
async fn refs(context: &Context, repository: &Repository, domain: DomainId) -> Result<Vec<Damage>, Error> {
    stop_if_cancelled(context)?;
    let reporter = context.reporter.clone();
    let progress = move |done, total| reporter.progress("comparing refs", done, Some(total), "backups");
    Ok(repository.check_refs(domain, &progress).await?)
}

/// Puts back what any other target has as it was committed; what is left is damaged everywhere.
async fn heal(
    context: &Context,
    repository: &Repository,
    domain: DomainId,
    report: &mut CheckReport,
    mut damages: Vec<Damage>,
) -> Result<Vec<Damage>, Error> {
    let state = &context.state;
    for source in state.catalog.targets().await?.into_iter().filter(|source| source.name != report.target) {
        context.stop_if_cancelled()?;
        if damages.is_empty() {
            break;
        }
        let source_repository = match state.repository(&source).await {
            Ok(repository) => repository,
            Err(error) => {
                context.reporter.log("warn", &format!("cannot heal from {}: {error}", source.name));
                continue;
            }
        };
        let healed = repository.heal(domain, &source_repository, damages).await?;
        damages = healed.left;
        report.healed_bytes += healed.bytes;
        report.healed_objects += healed.paths.len() as u64;
        for path in healed.paths {
            context.reporter.log("info", &format!("healed {path} from {}", source.name));
        }
    }
    if report.healed_objects == 0 {
        return Ok(damages);
    }
    // What was only a consequence of something healed is whole again.
    let structure = repository.check_structure(domain, &|_, _| ()).await?;
    damages.retain(|damage| damage.pack.is_some());
    damages.extend(structure.damages.into_iter().filter(|damage| damage.pack.is_none()));
    Ok(damages)
}

/// Names the losses as people know the backups.
async fn note(context: &Context, report: &mut CheckReport, damages: &[Damage], losses: Vec<Loss>) -> Result<(), Error> {
    report.damages_found += damages.len() as u64;
    report.losses_found += losses.len() as u64;
    let room = LISTED.saturating_sub(report.damages.len());
    report.damages.extend(damages.iter().take(room).map(DamagedObject::from));
    let room = LISTED.saturating_sub(report.losses.len());
    let mut names = BTreeMap::new();
    for loss in losses.into_iter().take(room) {
        let uid = loss.backup.to_string();
        if !names.contains_key(&uid) {
            let row = context.state.catalog.backup_by_uid(&uid).await?;
            let name = row.map(|row| format!("{}/{}/{}/{}", row.organization, row.project, row.instance, row.name));
            names.insert(uid.clone(), name);
        }
        let name = names.get(&uid).cloned().flatten();
        report.losses.push(LostRange { backup: name, uid, entry: loss.entry, from: loss.start, to: loss.end });
    }
    Ok(())
}

impl Progress {
    fn key(context: &Context) -> String {
        format!("check/{}", context.job.id)
    }

    async fn load(context: &Context) -> Result<Self, Error> {
        let kept = context.state.catalog.meta(&Self::key(context)).await?;
        // What another version left is no place to go on from.
        Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    async fn save(&self, context: &Context) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Internal, "encoding", format!("encoding a check's place failed: {error}"))
        })?;
        Ok(context.state.catalog.set_meta(&Self::key(context), &bytes).await?)
    }

    async fn forget(self, context: &Context) -> Result<(), Error> {
        Ok(context.state.catalog.remove_meta(&Self::key(context)).await?)
    }
}

impl From<&Damage> for DamagedObject {
    fn from(damage: &Damage) -> Self {
        let pack = damage.pack.map(|pack| pack.to_string());
        Self { path: damage.path.clone(), code: damage.code.to_string(), detail: damage.detail.clone(), pack }
    }
}

impl DamagedObject {
    fn to_damage(&self) -> Damage {
        let pack = self.pack.as_deref().and_then(|pack| pack.parse().ok());
        Damage { path: self.path.clone(), code: self.code.clone().into(), detail: self.detail.clone(), pack }
    }
}
