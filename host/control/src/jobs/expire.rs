//! The expire job: lets go what nothing keeps, target by target. It runs after each success, after copies, and once a day.
//!
//! First the catalog says what is to go, and counts on it no more; then the heads of the targets let it go, and a prune is queued. A stop
//! between the two costs nothing: the next job finds in the heads what the catalog let go. So are deletions finished that were cut off.

use std::collections::BTreeSet;

use holdfast_catalog::{BackupState, Scope, TargetRow};
use holdfast_sandbox::Events;

use super::{Context, JobKind, prune, shred};
use crate::appliance::State;
use crate::policies::{self, UNCONFIRMED};
use crate::resources::ExpireReport;
use crate::retention::{self, Decision, Fate};
use crate::{Error, ErrorKind, clock, rollback};

/// Queues it, unless it waits already.
pub(crate) async fn soon(state: &State) -> Result<(), Error> {
    super::enqueue_follow_up(state, JobKind::Expire, "retention".to_owned(), &(), 0).await
}

pub(super) async fn run(context: &Context) -> Result<serde_json::Value, Error> {
    let state = &context.state;
    state.must_be_writer("expiring backups")?;
    if state.catalog.meta(UNCONFIRMED).await?.is_some() {
        return Ok(serde_json::json!({ "note": "nothing expires before `holdfast policy confirm`" }));
    }
    let report = expire(state, clock::now_ms(), &*context.reporter).await?;
    serde_json::to_value(report)
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding a report failed: {error}")))
}

async fn expire(state: &State, now_ms: i64, events: &dyn Events) -> Result<ExpireReport, Error> {
    let mut report = ExpireReport {
        forgotten: state.catalog.forget_unsuccessful(retention::UNSUCCESSFUL_MS).await?,
        ..ExpireReport::default()
    };
    state.catalog.forget_policies(now_ms - retention::PATIENCE_MS).await?;
    let (places, policies) = (policies::places(state).await?, state.catalog.policies().await?);
    let instances = state.catalog.instances_with_backups(Scope::all()).await?;
    for series in policies::series(state, instances).await?.values() {
        for decision in retention::decide(series, &places, &policies, now_ms) {
            let_go(state, &decision, now_ms, events).await?;
        }
    }
    // Only what was to be deleted before the targets were told is gone from them afterwards.
    let deleting = deleting(state).await?;
    let mut failure = None;
    for target in state.catalog.targets().await? {
        match remove_at(state, &target).await {
            Ok(0) => {}
            Ok(removed) => drop(report.expired.insert(target.name, removed)),
            // The other targets are no worse for it.
            Err(error) => {
                events.log("warn", &format!("what expired is still at {}: {error}", target.name));
                failure = Some(error);
            }
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    for uid in deleting {
        shred::forget_backup(state, &uid).await?;
        report.deleted += 1;
    }
    if report.deleted > 0 || !report.expired.is_empty() {
        super::export::later(state).await?;
    }
    Ok(report)
}

/// Records what a decision lets go. Somebody may have held or deleted the backup meanwhile: then it is theirs.
async fn let_go(state: &State, decision: &Decision<'_>, now_ms: i64, events: &dyn Events) -> Result<(), Error> {
    use holdfast_catalog::Error::{BackupState as Changed, Held, NotFound};
    let (mut going, mut stays, mut is_anywhere) = (Vec::new(), false, false);
    for verdict in &decision.verdicts {
        is_anywhere |= verdict.is_there;
        match &verdict.fate {
            Fate::Delete(why) => going.push((verdict, why)),
            Fate::Keep(_) => stays = true,
        }
    }
    if going.is_empty() || !is_anywhere {
        return Ok(());
    }
    let uid = &decision.backup.uid;
    let recorded = if stays {
        let targets = going.iter().map(|(verdict, _)| verdict.place.uid.clone()).collect();
        state.catalog.copies_expired(uid, targets, now_ms).await
    } else {
        state.catalog.backup_deleting(uid, now_ms).await.map(drop)
    };
    match recorded {
        Ok(()) => {}
        Err(Held { .. } | NotFound { .. } | Changed { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    for (verdict, why) in going.into_iter().filter(|(verdict, _)| verdict.is_there) {
        let name = decision.backup.full_name();
        events.log("info", &format!("{name} expires at {}: {why}", verdict.place.name));
    }
    Ok(())
}

/// Backups whose deletion was begun.
async fn deleting(state: &State) -> Result<Vec<String>, Error> {
    const PAGE: u32 = 1_000;
    let (mut uids, mut after) = (Vec::new(), None::<String>);
    loop {
        let state_wanted = Some(BackupState::Deleting);
        let page = state.catalog.list_backups(Scope::all(), state_wanted, after.as_deref(), PAGE).await?;
        uids.extend(page.items.into_iter().map(|row| row.uid));
        after = page.next;
        if after.is_none() {
            return Ok(uids);
        }
    }
}

/// Has a target's heads let go what the catalog let go. How many backups.
async fn remove_at(state: &State, target: &TargetRow) -> Result<u64, Error> {
    let gone: BTreeSet<_> = state.catalog.expired_at(&target.uid).await?.into_iter().collect();
    if gone.is_empty() {
        return Ok(0);
    }
    let repository = state.repository(target).await?;
    let mut removed = 0;
    for domain in state.keyring.current().domains() {
        let there = repository.backups(domain).await?.into_iter().map(|record| record.backup);
        for backup in there.filter(|backup| gone.contains(&backup.to_string())) {
            // Nobody held it when the catalog let it go: a target that was not told of a release must not hold on to it.
            repository.set_holds(domain, backup, Vec::new()).await?;
            repository.remove_backup(domain, backup, clock::unsigned(clock::now_ms())).await?;
            removed += 1;
        }
    }
    if removed > 0 {
        rollback::remember(state, target, &repository).await?;
        prune::soon(state, target).await?;
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use holdfast_catalog::HoldRow;

    use super::*;
    use crate::fixtures::Fixture;
    use crate::jobs::Silent;
    use crate::targets;

    /// A primary and a vault, and three backups at both.
    async fn three_backups() -> (Fixture, TargetRow, TargetRow, Vec<String>) {
        let fixture = Fixture::new().await;
        let vault = fixture.add_target("vault").await;
        let primary = targets::primary(fixture.state()).await.unwrap();
        let mut uids = Vec::new();
        for created_ms in [1_000, 2_000, 3_000] {
            uids.push(fixture.back_up(created_ms).await);
        }
        (fixture, primary, vault, uids)
    }

    async fn run_expire(fixture: &Fixture) -> ExpireReport {
        expire(fixture.state(), clock::now_ms(), &Silent).await.unwrap()
    }

    #[tokio::test]
    async fn a_backup_goes_from_one_target_and_stays_at_the_other() {
        let (fixture, primary, vault, uids) = three_backups().await;
        fixture.keep_last(1, &[&vault]).await;
        let report = run_expire(&fixture).await;
        assert_eq!((report.expired["vault"], report.expired.len(), report.deleted), (2, 1, 0));
        assert_eq!(fixture.held_at(&vault).await, uids[2..]);
        assert_eq!(fixture.held_at(&primary).await, uids);
        let states = [("primary", "Durable"), ("vault", "Expired")].map(|(t, s)| (t.to_owned(), s.to_owned()));
        assert_eq!(fixture.copies_of(&uids[0]).await, states);
        let state = fixture.state();
        assert_eq!(state.catalog.backups_missing_at(&vault.uid, 9).await.unwrap(), [], "it is not copied there again");
        let prunes = state.catalog.list_jobs(Default::default(), None, 100).await.unwrap().items;
        let prunes = prunes.iter().filter(|job| job.kind == "prune").map(|job| job.subject.as_str());
        assert_eq!(prunes.collect::<Vec<_>>(), ["vault"], "where something died");
        assert!(run_expire(&fixture).await.expired.is_empty(), "there is no more to do");
    }

    #[tokio::test]
    async fn what_goes_everywhere_is_deleted() {
        let (fixture, primary, vault, uids) = three_backups().await;
        fixture.keep_last(2, &[]).await;
        let report = run_expire(&fixture).await;
        assert_eq!((report.deleted, report.expired["primary"], report.expired["vault"]), (1, 1, 1));
        for target in [&primary, &vault] {
            assert_eq!(fixture.held_at(target).await, uids[1..]);
        }
        assert_eq!(fixture.state().catalog.backup_by_uid(&uids[0]).await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_somebody_holds_survives_every_policy() {
        let (fixture, primary, vault, uids) = three_backups().await;
        fixture.keep_last(1, &[]).await;
        let hold = HoldRow { name: "alice".to_owned(), reason: "audit".to_owned(), at_ms: 1 };
        fixture.state().catalog.backup_held(&uids[0], hold).await.unwrap();
        assert_eq!(run_expire(&fixture).await.deleted, 1);
        for target in [&primary, &vault] {
            assert_eq!(fixture.held_at(target).await, [uids[0].clone(), uids[2].clone()]);
        }
    }

    #[tokio::test]
    async fn a_job_that_was_cut_off_is_finished_by_the_next() {
        let (mut fixture, primary, vault, uids) = three_backups().await;
        let catalog = &fixture.state().catalog;
        catalog.copies_expired(&uids[0], vec![vault.uid.clone()], 1).await.unwrap();
        catalog.backup_deleting(&uids[1], 1).await.unwrap();
        fixture.reopen().await;
        let report = run_expire(&fixture).await;
        assert_eq!((report.expired["vault"], report.expired["primary"], report.deleted), (2, 1, 1));
        assert_eq!(fixture.held_at(&vault).await, uids[2..]);
        assert_eq!(fixture.held_at(&primary).await, [uids[0].clone(), uids[2].clone()]);
    }

    #[tokio::test]
    async fn nothing_expires_before_a_rebuild_from_heads_is_confirmed() {
        let (fixture, primary, _, uids) = three_backups().await;
        fixture.keep_last(1, &[]).await;
        let state = fixture.state();
        state.catalog.set_meta(UNCONFIRMED, b"").await.unwrap();
        soon(state).await.unwrap();
        let context = fixture.claimed("expire").await;
        assert!(run(&context).await.unwrap()["note"].as_str().unwrap().contains("confirm"));
        assert_eq!(fixture.held_at(&primary).await, uids);
        state.catalog.remove_meta(UNCONFIRMED).await.unwrap();
        assert_eq!(run(&context).await.unwrap()["deleted"], 2);
    }
}
