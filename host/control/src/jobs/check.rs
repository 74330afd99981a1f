//! The check job: is everything at a target there and as it was committed, and what is lost if not. It
//! reports and changes nothing, unless it is asked to heal from the other targets.
//!
//! Reading all packs may take days: where it was is kept after each part, so that another attempt after a stop goes on from there.

use std::collections::BTreeMap;

use holdfast_repository::{Damage, Digest, DomainId, Repository};
use holdfast_sandbox::Events;
use serde::{Deserialize, Serialize};

use super::look::Look;
use super::{Context, kept, stop_if_cancelled};
use crate::resources::{CheckReport, DamagedObject};
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
    let mut look = Look::begin(context, target, payload.heal).await?;
    look.report.read_data = payload.read_data;
    let mut progress = Progress::load(context).await?;
    for domain in state.keyring.current().domains() {
        let mut read = Vec::new();
        if payload.read_data {
            read = packs(context, &look.repository, domain, &payload, &mut progress).await?;
            read.extend(refs(context, &look.repository, domain).await?);
        }
        look.at(domain, read).await?;
    }
    let report = CheckReport { packs_read: progress.packs, bytes_read: progress.bytes, ..look.end().await? };
    progress.forget(context).await?;
    serde_json::to_value(report)
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding a report failed: {error}")))
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

impl Progress {
    fn key(context: &Context) -> String {
        format!("check/{}", context.job.id)
    }

    async fn load(context: &Context) -> Result<Self, Error> {
        kept::load(&context.state, &Self::key(context)).await
    }

    async fn save(&self, context: &Context) -> Result<(), Error> {
        kept::save(&context.state, &Self::key(context), self).await
    }

    async fn forget(self, context: &Context) -> Result<(), Error> {
        Ok(context.state.catalog.remove_meta(&Self::key(context)).await?)
    }
}
