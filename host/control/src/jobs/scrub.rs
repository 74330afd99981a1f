//! The scrub job: reads a part of a target's packs at each turn, those first that were read the longest ago, so that every byte is read within the
//! days that the operator gives it. What it finds damaged is healed from wherever it is intact, and what is lost then is written down.
//!
//! A pass goes through all packs and ends with a look at everything else. How far it is lies in the catalog, so a stop costs at most
//! one part; a pass that fell behind, because the appliance did not run, catches up in its next turn.

use holdfast_catalog::{TargetRole, TargetRow};
use holdfast_repository::{Damage, Digest, DomainId, Repository};
use holdfast_sandbox::Events;
use serde::{Deserialize, Serialize};

use super::look::Look;
use super::{Context, JobKind, kept, stop_if_cancelled};
use crate::appliance::State;
use crate::resources::{CheckReport, TargetScrub};
use crate::{Error, clock, targets};

/// Milliseconds between two turns.
pub(super) const EVERY_MS: i64 = 3 * 60 * 60 * 1000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// Bytes between two notes of the place.
const PART: u64 = 64 << 20;
/// Never slower than this, in bytes a second: a part ends in about a minute.
const RATE_MIN: u64 = 1 << 20;

/// In how many days every byte is read; none: never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubDays {
    /// At the primary.
    pub primary: Option<u32>,
    /// At every other target.
    pub offsite: Option<u32>,
}

impl Default for ScrubDays {
    fn default() -> Self {
        Self { primary: Some(7), offsite: Some(30) }
    }
}

impl ScrubDays {
    fn at(self, target: &TargetRow) -> Option<u32> {
        if target.role == TargetRole::Primary { self.primary } else { self.offsite }
    }

    /// Milliseconds that a pass at a target may take. A seventh is left for turns that come late.
    fn pass_ms(self, target: &TargetRow) -> Option<i64> {
        Some(i64::from(self.at(target)?) * DAY_MS * 6 / 7)
    }
}

/// What the job's row says.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    target: String,
}

/// How far reading is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Pass {
    began_ms: i64,
    /// Domains that are done.
    done: Vec<String>,
    /// The last pack that was read of the next one.
    after: Option<String>,
    packs: u64,
    bytes: u64,
    /// Packs that were found damaged.
    damaged: u64,
    /// Objects that were healed, and damaged packs whose chunks were moved.
    healed: u64,
}

/// What is kept of a target's scrubbing.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Scrubbing {
    pass: Option<Pass>,
    /// The last pass that went through everything, and when it ended.
    last: Option<(Pass, i64)>,
}

/// Queues a turn.
pub(super) async fn soon(state: &State, target: &TargetRow) -> Result<(), Error> {
    if state.scrub.pass_ms(target).is_none() {
        return Ok(());
    }
    let payload = Payload { target: target.name.clone() };
    super::enqueue_follow_up(state, JobKind::Scrub, target.name.clone(), &payload, clock::now_ms()).await
}

/// What a target's status says of it.
pub(crate) async fn status(state: &State, target: &TargetRow) -> Result<TargetScrub, Error> {
    let Scrubbing { pass, last } = Scrubbing::load(state, target).await?;
    Ok(TargetScrub {
        every_days: state.scrub.at(target),
        began_at: pass.as_ref().map(|pass| clock::text(pass.began_ms)),
        bytes_read: pass.as_ref().map_or(0, |pass| pass.bytes),
        last_ended_at: last.as_ref().map(|(_, ended_ms)| clock::text(*ended_ms)),
        last_bytes_read: last.as_ref().map_or(0, |(pass, _)| pass.bytes),
        damaged: pass.iter().chain(last.as_ref().map(|(pass, _)| pass)).map(|pass| pass.damaged).sum(),
        healed: pass.iter().chain(last.as_ref().map(|(pass, _)| pass)).map(|pass| pass.healed).sum(),
        backups_with_losses: state.catalog.backups_with_losses_at(&target.uid).await?,
    })
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let (state, payload) = (&context.state, context.payload::<Payload>()?);
    state.must_be_writer("scrubbing")?;
    let target = targets::find(state, &payload.target).await?;
    let Some(pass_ms) = state.scrub.pass_ms(&target) else {
        return Ok(serde_json::json!({ "note": "scrubbing is turned off for this target" }));
    };
    let repository = state.repository(&target).await?;
    let now_ms = clock::now_ms();
    let mut scrubbing = Scrubbing::load(state, &target).await?;
    let mut pass = scrubbing.pass.take().unwrap_or_else(|| Pass { began_ms: now_ms, ..Pass::default() });
    let total = total(context, &repository).await?;
    let goal = goal(total, now_ms - pass.began_ms + EVERY_MS, pass_ms);
    let rate = rate(goal.saturating_sub(pass.bytes));
    let mut found = Vec::new();
    while let Some(domain) = next(state, &pass).filter(|_| pass.bytes < goal || goal >= total) {
        found = read(context, &repository, domain, rate, &mut pass).await?.into_iter().map(|it| (domain, it)).collect();
        if !found.is_empty() {
            // The place is noted once this is healed: a stop before that finds it again.
            break;
        }
        scrubbing.pass = Some(pass.clone());
        scrubbing.save(state, &target).await?;
    }
    let is_over = next(state, &pass).is_none();
    let report = if is_over || !found.is_empty() {
        let report = look(context, &target, found).await?;
        pass.healed += report.healed_objects + report.mended_packs;
        Some(report)
    } else {
        for domain in state.keyring.current().domains() {
            repository.copy_heads(domain).await?;
        }
        None
    };
    let result = serde_json::json!({
        "target": target.name, "packsRead": pass.packs, "bytesRead": pass.bytes, "bytes": total, "passEnded": is_over, "found": report,
    });
    scrubbing.pass = if is_over {
        scrubbing.last = Some((pass, clock::now_ms()));
        None
    } else {
        Some(pass)
    };
    scrubbing.save(state, &target).await?;
    Ok(result)
}

/// The domain that a pass is at; none once it went through all of them.
fn next(state: &State, pass: &Pass) -> Option<DomainId> {
    let mut domains = state.keyring.current().domains().into_iter();
    domains.find(|domain| !pass.done.contains(&domain.to_string()))
}

/// Reads the next part of a domain's packs.
async fn read(
    context: &Context,
    repository: &Repository,
    domain: DomainId,
    rate: u64,
    pass: &mut Pass,
) -> Result<Vec<Damage>, Error> {
    let (before, reporter) = (pass.bytes, context.reporter.clone());
    let told = move |bytes| reporter.progress("reading", before + bytes, None, "bytes");
    let after = pass.after.as_deref().and_then(|digest| digest.parse::<Digest>().ok());
    // Dropping it is safe: the next turn reads this part again.
    let read = tokio::select! {
        read = repository.read_packs(domain, after, PART, Some(rate), &told) => read?,
        () = context.cancel.cancelled() => return Err(Error::unprocessable("cancelled", "cancelled")),
    };
    pass.packs += read.packs;
    pass.bytes += read.bytes;
    pass.damaged += read.damages.len() as u64;
    pass.after = read.next.map(|digest| digest.to_string());
    if read.next.is_none() {
        pass.done.push(domain.to_string());
    }
    Ok(read.damages)
}

/// Looks at everything but the packs, and heals what it and the reading have found. Nobody may prune at once meanwhile: that would take new
/// packs for garbage.
async fn look(context: &Context, target: &TargetRow, found: Vec<(DomainId, Damage)>) -> Result<CheckReport, Error> {
    let _at_work = context.state.at_work.read().await;
    let mut look = Look::begin(context, target.clone(), true).await?;
    for domain in context.state.keyring.current().domains() {
        stop_if_cancelled(context)?;
        let own = found.iter().filter(|(of, _)| *of == domain);
        look.at(domain, own.map(|(_, damage)| damage.clone()).collect()).await?;
    }
    look.end().await
}

/// Bytes of all packs at a target.
async fn total(context: &Context, repository: &Repository) -> Result<u64, Error> {
    let mut total = 0;
    for domain in context.state.keyring.current().domains() {
        total += repository.pack_bytes(domain).await?;
    }
    Ok(total)
}

/// Up to where a pass must be by then: all of it once its time is over.
fn goal(total: u64, elapsed_ms: i64, pass_ms: i64) -> u64 {
    let (elapsed, whole) = (u128::from(clock::unsigned(elapsed_ms)), u128::from(clock::unsigned(pass_ms.max(1))));
    u64::try_from(u128::from(total) * elapsed.min(whole) / whole).unwrap_or(total)
}

/// Spreads what is to be read in a turn over half of the time until the next one.
fn rate(bytes: u64) -> u64 {
    (bytes / clock::unsigned(EVERY_MS / 2000)).max(RATE_MIN)
}

impl Scrubbing {
    fn key(target: &TargetRow) -> String {
        format!("scrub/{}", target.uid)
    }

    async fn load(state: &State, target: &TargetRow) -> Result<Self, Error> {
        kept::load(state, &Self::key(target)).await
    }

    async fn save(&self, state: &State, target: &TargetRow) -> Result<(), Error> {
        kept::save(state, &Self::key(target), self).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Fixture;

    #[test]
    fn a_pass_is_read_evenly_and_whole_once_its_time_is_over() {
        let week = 7 * DAY_MS;
        assert_eq!(goal(7_000, DAY_MS, week), 1_000);
        assert_eq!(goal(7_000, week, week), 7_000);
        assert_eq!(goal(7_000, 30 * week, week), 7_000, "what was missed is caught up once");
        assert_eq!(goal(7_000, -DAY_MS, week), 0, "a clock that was set back reads nothing twice");
        assert_eq!(goal(u64::MAX, week, week), u64::MAX);
    }

    #[tokio::test]
    async fn a_late_pass_reads_everything_and_heals_what_it_finds() {
        let fixture = Fixture::new().await;
        let (state, vault) = (fixture.state(), fixture.add_target("vault").await);
        fixture.back_up(1_000).await;
        let packs = fixture.packs_at(&vault);
        let good: Vec<Vec<u8>> = packs.iter().map(|pack| std::fs::read(pack).unwrap()).collect();
        for (pack, bytes) in packs.iter().zip(&good) {
            let mut bytes = bytes.clone();
            bytes[20] ^= 1;
            std::fs::write(pack, bytes).unwrap();
        }
        let late = Scrubbing { pass: Some(Pass { began_ms: 1, ..Pass::default() }), last: None };
        late.save(state, &vault).await.unwrap();
        // What is found is healed before reading goes on in the next turn.
        let mut turns = 0;
        while status(state, &vault).await.unwrap().last_ended_at.is_none() {
            soon(state, &vault).await.unwrap();
            run(&fixture.claimed("scrub").await).await.unwrap();
            turns += 1;
            assert!(turns <= 5, "a pass that is late ends");
        }
        let healed: Vec<Vec<u8>> = packs.iter().map(|pack| std::fs::read(pack).unwrap()).collect();
        assert!(!good.is_empty() && healed == good);
        let told = status(state, &vault).await.unwrap();
        assert_eq!((told.damaged, told.healed), (good.len() as u64, good.len() as u64));
        assert_eq!((told.every_days, told.backups_with_losses), (Some(30), 0));
        assert!(told.last_bytes_read >= good.iter().map(|pack| pack.len() as u64).sum());
    }

    #[test]
    fn a_turn_is_spread_over_half_of_the_time_until_the_next_one() {
        assert_eq!(rate(0), RATE_MIN);
        let turn = 1_u64 << 40;
        assert!(rate(turn) * clock::unsigned(EVERY_MS / 1000) >= 2 * turn - clock::unsigned(EVERY_MS));
    }

    #[test]
    fn a_pass_leaves_time_for_turns_that_come_late() {
        let days = ScrubDays { primary: Some(7), offsite: None };
        let row = |role| targets::new_row("t", role, "file:///t".to_owned(), "here");
        assert_eq!(days.pass_ms(&row(TargetRole::Primary)), Some(6 * DAY_MS));
        assert_eq!(days.pass_ms(&row(TargetRole::Secondary)), None);
    }
}
