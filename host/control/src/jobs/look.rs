//! A look at a target, whole or in parts: what is damaged, what of it can be healed, and what is lost then. What is lost is written down for the
//! backups that it touches.
//!
//! Packs that were found damaged are remembered until they are whole again or nobody relies on them: so what a look at the
//! structure alone says of losses is all that is known.

use std::collections::BTreeMap;

use holdfast_catalog::{LossRow, LostRangeRow, TargetRow};
use holdfast_repository::{Damage, DomainId, Loss, Repository};
use holdfast_sandbox::Events;
use serde::{Deserialize, Serialize};

use super::{Context, export, kept};
use crate::appliance::State;
use crate::resources::{CheckReport, DamagedObject, LostRange};
use crate::{Error, clock, targets};

/// Findings that a report lists one by one; it always has their number.
const LISTED: usize = 10_000;
/// Ranges that a backup's record lists; it always has their number.
const RECORDED: usize = 100;

/// What is being looked at, and what was seen so far.
pub(super) struct Look<'a> {
    context: &'a Context,
    pub(super) target: TargetRow,
    pub(super) repository: Repository,
    /// Where what is damaged may be whole; nothing is healed without it.
    sources: Option<Vec<Repository>>,
    known: Known,
    losses: BTreeMap<String, Vec<Loss>>,
    pub(super) report: CheckReport,
}

impl<'a> Look<'a> {
    /// Begins with what lies at the target's root.
    pub(super) async fn begin(context: &'a Context, target: TargetRow, heals: bool) -> Result<Self, Error> {
        let state = &context.state;
        let repository = state.repository(&target).await?;
        let sources = if heals { Some(sources(context, &target).await?) } else { None };
        let known = Known::load(state, &target).await?;
        let report = CheckReport { target: target.name.clone(), ..CheckReport::default() };
        let mut look = Self { context, target, repository, sources, known, losses: BTreeMap::new(), report };
        let mut damages = look.repository.check_root().await?;
        if look.sources.is_some() {
            for path in look.repository.heal_root(&damages).await? {
                look.has_healed(&path);
            }
            damages.clear();
        }
        look.note(&damages, Vec::new()).await?;
        Ok(look)
    }

    /// Looks at a domain, given what reading its packs has found.
    pub(super) async fn at(&mut self, domain: DomainId, read: Vec<Damage>) -> Result<(), Error> {
        let mut damages = self.structure(domain).await?;
        // What was read a while ago may have been healed since, or nobody relies on it any more.
        let (packs, others): (Vec<Damage>, Vec<Damage>) = read.into_iter().partition(|damage| damage.pack.is_some());
        let mut suspects = self.known.of(domain);
        suspects.extend(packs.iter().filter_map(|damage| damage.pack));
        suspects.sort_unstable();
        suspects.dedup();
        damages.extend(self.repository.read_again(domain, &suspects).await?);
        damages.extend(others);
        damages.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        damages.dedup_by(|left, right| left.path == right.path);
        if let Some(sources) = self.sources.clone() {
            damages = self.heal(domain, &sources, damages).await?;
            self.repository.copy_heads(domain).await?;
        }
        self.known.set(domain, &damages);
        self.known.save(&self.context.state, &self.target).await?;
        let losses = if damages.is_empty() { Vec::new() } else { self.repository.losses(domain, &damages).await? };
        self.note(&damages, losses).await
    }

    /// Writes down what is lost now, of all that was looked at.
    pub(super) async fn end(mut self) -> Result<CheckReport, Error> {
        let (state, found_ms) = (&self.context.state, clock::now_ms());
        let target_uid = &self.target.uid;
        let rows = std::mem::take(&mut self.losses).into_iter().map(|(backup_uid, losses)| LossRow {
            backup_uid,
            target_uid: target_uid.clone(),
            total: losses.len() as u64,
            ranges: losses.into_iter().take(RECORDED).map(range).collect(),
            found_ms,
        });
        let is_news = state.catalog.set_losses(target_uid, rows.collect()).await?;
        if is_news && !state.is_recovered() {
            export::soon(state).await?;
        }
        self.report.passed = self.report.damages_found == 0;
        Ok(self.report)
    }

    async fn structure(&mut self, domain: DomainId) -> Result<Vec<Damage>, Error> {
        self.context.stop_if_cancelled()?;
        let reporter = self.context.reporter.clone();
        let progress = move |done, total| reporter.progress("structure", done, Some(total), "objects");
        let seen = self.repository.check_structure(domain, &progress).await?;
        self.report.objects += seen.objects;
        self.report.bytes += seen.bytes;
        if !self.context.state.keyring.current().is_system(domain) {
            self.report.backups += seen.backups;
        }
        Ok(seen.damages)
    }

    /// Heals what can be healed; what is left is damaged everywhere.
    async fn heal(
        &mut self,
        domain: DomainId,
        sources: &[Repository],
        damages: Vec<Damage>,
    ) -> Result<Vec<Damage>, Error> {
        self.context.stop_if_cancelled()?;
        let healed = self.repository.heal(domain, sources, damages).await?;
        healed.paths.iter().for_each(|path| self.has_healed(path));
        self.report.healed_bytes += healed.bytes + healed.mended.bytes;
        self.report.mended_packs += healed.mended.packs;
        self.report.mended_chunks += healed.mended.chunks;
        if healed.mended.packs > 0 {
            let mended = healed.mended;
            self.context.reporter.log(
                "info",
                &format!("moved {} chunks of {} damaged packs into new ones", mended.chunks, mended.packs),
            );
        }
        if healed.paths.is_empty() && healed.mended.packs + healed.mended.chunks == 0 {
            return Ok(healed.left);
        }
        // What was only a consequence of something healed is whole again.
        Ok(self.repository.check_structure(domain, &|_, _| ()).await?.damages)
    }

    fn has_healed(&mut self, path: &str) {
        self.report.healed_objects += 1;
        self.context.reporter.log("info", &format!("healed {path}"));
    }

    /// Names the losses as people know the backups.
    async fn note(&mut self, damages: &[Damage], losses: Vec<Loss>) -> Result<(), Error> {
        let report = &mut self.report;
        report.damages_found += damages.len() as u64;
        report.losses_found += losses.len() as u64;
        let room = LISTED.saturating_sub(report.damages.len());
        report.damages.extend(damages.iter().take(room).map(DamagedObject::from));
        let mut names = BTreeMap::new();
        for loss in losses {
            let uid = loss.backup.to_string();
            if report.losses.len() < LISTED {
                if !names.contains_key(&uid) {
                    let row = self.context.state.catalog.backup_by_uid(&uid).await?;
                    names.insert(uid.clone(), row.map(|row| row.full_name()));
                }
                let (backup, entry) = (names.get(&uid).cloned().flatten(), loss.entry.clone());
                report.losses.push(LostRange { backup, uid: uid.clone(), entry, from: loss.start, to: loss.end });
            }
            self.losses.entry(uid).or_default().push(loss);
        }
        Ok(())
    }
}

fn range(Loss { entry, start, end, .. }: Loss) -> LostRangeRow {
    LostRangeRow { entry, from: start, to: end }
}

/// All other targets that can be opened.
async fn sources(context: &Context, target: &TargetRow) -> Result<Vec<Repository>, Error> {
    let mut sources = Vec::new();
    for (source, opened) in targets::others(&context.state, &target.uid).await? {
        match opened {
            Ok(repository) => sources.push(repository),
            Err(error) => context.reporter.log("warn", &format!("cannot heal from {}: {error}", source.name)),
        }
    }
    Ok(sources)
}

/// Packs of a target that were found damaged, by domain.
#[derive(Default, Serialize, Deserialize)]
struct Known(BTreeMap<String, Vec<String>>);

impl Known {
    fn key(target: &TargetRow) -> String {
        format!("damaged/{}", target.uid)
    }

    async fn load(state: &State, target: &TargetRow) -> Result<Self, Error> {
        kept::load(state, &Self::key(target)).await
    }

    async fn save(&self, state: &State, target: &TargetRow) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(state.catalog.remove_meta(&Self::key(target)).await?);
        }
        kept::save(state, &Self::key(target), self).await
    }

    fn of(&self, domain: DomainId) -> Vec<holdfast_repository::Digest> {
        let packs = self.0.get(&domain.to_string()).into_iter().flatten();
        packs.filter_map(|pack| pack.parse().ok()).collect()
    }

    fn set(&mut self, domain: DomainId, damages: &[Damage]) {
        let packs: Vec<String> = damages.iter().filter_map(|damage| damage.pack).map(|pack| pack.to_string()).collect();
        if packs.is_empty() {
            self.0.remove(&domain.to_string())
        } else {
            self.0.insert(domain.to_string(), packs)
        };
    }
}

impl From<&Damage> for DamagedObject {
    fn from(damage: &Damage) -> Self {
        let pack = damage.pack.map(|pack| pack.to_string());
        Self { path: damage.path.clone(), code: damage.code.to_string(), detail: damage.detail.clone(), pack }
    }
}

impl DamagedObject {
    pub(super) fn to_damage(&self) -> Damage {
        let pack = self.pack.as_deref().and_then(|pack| pack.parse().ok());
        Damage { path: self.path.clone(), code: self.code.clone().into(), detail: self.detail.clone(), pack }
    }
}
