//! Operations on retention policies: what keeps backups, and what a look ahead says of each.
//!
//! A change is remembered together with what was said before: what it would let go stays for a day, in which it can be taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use holdfast_catalog::{BackupRow, FormerSpec, PolicyRow, PolicySpec, RetentionRow, RetentionRules, Scope, TargetRow};
use holdfast_repository::WriterId;

use crate::appliance::State;
use crate::names::check_part;
use crate::resources::{
    CreatePolicy, EditPolicy, KeepReason, Page, Policy, PolicyRules, PreviewedBackup, PreviewedCopy, Status,
};
use crate::retention::{self, Decision, Fate, PATIENCE_MS, Place, Reason, Verdict};
use crate::{Appliance, Error, Principal, clock, jobs, targets, views};

/// Meta key: there while nothing expires because the catalog was rebuilt from heads, which know no policies.
pub(crate) const UNCONFIRMED: &str = "expiry-unconfirmed";

/// The largest count that a rule takes.
const COUNT_MAX: u32 = 100_000;
/// The longest time for which anything is kept by its age, in seconds: a century.
pub(crate) const KEEP_SECONDS_MAX: u64 = 100 * 365 * 24 * 60 * 60;

/// For so long it is not asked again what keeps backups of which nothing changed.
const SAID_MS: i64 = 10_000;

impl Appliance {
    /// Live policies by name.
    pub async fn policies(&self) -> Result<Page<Policy>, Error> {
        let names = target_names(&self.0).await?;
        let live = self.0.catalog.policies().await?.into_iter().filter(|row| row.removed_ms.is_none());
        Ok(Page { items: live.map(|row| view(&row, &names)).collect(), next: None })
    }

    /// One policy.
    pub async fn policy(&self, name: &str) -> Result<Policy, Error> {
        self.view_policy(&find(&self.0, name).await?).await
    }

    /// Adds a policy. What it would let go of the backups that are there stays for a day.
    pub async fn create_policy(&self, who: &Principal, request: CreatePolicy) -> Result<Policy, Error> {
        let state = &self.0;
        state.must_be_writer("adding a policy")?;
        check_part("policy", &request.name)?;
        let now = clock::now_ms();
        let spec = PolicySpec {
            scope: checked_scope(request.scope.unwrap_or_default())?,
            labels: checked_labels(request.labels)?,
            targets: target_uids(state, &request.targets).await?,
            rules: checked_rules(request.rules)?,
        };
        let row = PolicyRow::new(WriterId::random().to_string(), request.name, spec, now);
        let row = state.catalog.insert_policy(row).await?;
        self.policy_changed(who, "policy.add", &row.name).await?;
        self.view_policy(&row).await
    }

    /// Changes a policy: what is given replaces what was said before. What the change would let go stays for a day.
    pub async fn edit_policy(&self, who: &Principal, name: &str, request: EditPolicy) -> Result<Policy, Error> {
        let state = &self.0;
        state.must_be_writer("changing a policy")?;
        let row = find(state, name).await?;
        let if_version = request.resource_version.as_deref().map(views::resource_version).transpose()?;
        let mut spec = row.spec.clone();
        if let Some(scope) = request.scope {
            spec.scope = checked_scope(scope)?;
        }
        if let Some(labels) = request.labels {
            spec.labels = checked_labels(labels)?;
        }
        if let Some(names) = request.targets {
            spec.targets = target_uids(state, &names).await?;
        }
        if let Some(rules) = request.rules {
            spec.rules = checked_rules(rules)?;
        }
        let now = clock::now_ms();
        let row = state.catalog.update_policy(&row.uid, if_version, now, move |row| say(row, spec, now)).await?;
        self.policy_changed(who, "policy.edit", name).await?;
        self.view_policy(&row).await
    }

    /// Removes a policy. No backup goes by that: what nothing else matches is kept for ever, what others match stays for a day at least.
    pub async fn remove_policy(&self, who: &Principal, name: &str) -> Result<(), Error> {
        let state = &self.0;
        state.must_be_writer("removing a policy")?;
        let (row, now) = (find(state, name).await?, clock::now_ms());
        state.catalog.update_policy(&row.uid, None, now, move |row| row.removed_ms = Some(now)).await?;
        self.policy_changed(who, "policy.remove", name).await
    }

    /// What would become of each backup in a scope if it were decided now, or once all changes of policies act.
    pub async fn preview_retention(
        &self,
        scope: Option<&str>,
        after_changes: bool,
    ) -> Result<Page<PreviewedBackup>, Error> {
        let state = &self.0;
        let policies = state.catalog.policies().await?;
        let at_ms = if after_changes { settled_ms(&policies, clock::now_ms()) } else { clock::now_ms() };
        let places = places(state).await?;
        let series =
            series(state, state.catalog.instances_with_backups(Scope::from_path(scope.unwrap_or_default())).await?)
                .await?;
        let mut items = Vec::new();
        for series in series.values() {
            items.extend(retention::decide(series, &places, &policies, at_ms).iter().map(preview));
        }
        Ok(Page { items, next: None })
    }

    /// Lets backups expire again after a rebuild of the catalog from heads alone: the policies are as they are to be.
    pub async fn confirm_retention(&self, who: &Principal) -> Result<Status, Error> {
        let state = &self.0;
        state.must_be_writer("expiring backups")?;
        state.catalog.remove_meta(UNCONFIRMED).await?;
        state.audit(who, "retention.confirm", "").await?;
        jobs::expire::soon(state).await?;
        self.status().await
    }

    async fn policy_changed(&self, who: &Principal, action: &str, name: &str) -> Result<(), Error> {
        self.0.audit(who, action, name).await?;
        jobs::export::soon(&self.0).await
    }

    async fn view_policy(&self, row: &PolicyRow) -> Result<Policy, Error> {
        Ok(view(row, &target_names(&self.0).await?))
    }
}

/// Takes in what a policy says from now on. What it said is needed for as long as a change lets nothing go.
fn say(row: &mut PolicyRow, spec: PolicySpec, now_ms: i64) {
    if row.spec == spec {
        return;
    }
    row.former.retain(|former| former.until_ms > now_ms - PATIENCE_MS);
    let former = std::mem::replace(&mut row.spec, spec);
    row.former.push(FormerSpec { spec: former, since_ms: row.since_ms, until_ms: now_ms });
    row.since_ms = now_ms;
}

/// The first time at which every change acts.
fn settled_ms(policies: &[PolicyRow], now_ms: i64) -> i64 {
    let changes = policies.iter().map(|policy| policy.removed_ms.unwrap_or(policy.since_ms));
    changes.map(|at_ms| at_ms + PATIENCE_MS).fold(now_ms, i64::max)
}

/// The live policy of that name.
async fn find(state: &State, name: &str) -> Result<PolicyRow, Error> {
    state.catalog.policy_by_name(name).await?.ok_or_else(|| {
        Error::not_found("policy-not-found", format!("there is no policy '{name}'"))
            .hint("`holdfast policy list` shows all.")
    })
}

/// The live targets, as far as retention is concerned.
pub(crate) async fn places(state: &State) -> Result<Vec<Place>, Error> {
    let place =
        |row: TargetRow| Place { lock_ms: targets::lock_ms(&row), uid: row.uid, name: row.name, site: row.site };
    Ok(state.catalog.targets().await?.into_iter().map(place).collect())
}

/// All backups of these instances that succeeded, by instance, oldest first.
pub(crate) async fn series(
    state: &State,
    instance_uids: Vec<String>,
) -> Result<BTreeMap<String, Vec<RetentionRow>>, Error> {
    let mut series = BTreeMap::<_, Vec<_>>::new();
    for row in state.catalog.retention_rows(instance_uids).await? {
        series.entry(row.instance_uid.clone()).or_default().push(row);
    }
    Ok(series)
}

/// What keeps a backup, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retained {
    pub(crate) words: Vec<String>,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) locked_ms: Option<i64>,
}

/// What was said last of all backups of some instances. It takes a look at all of them to say it of one, and a list has many pages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// The number of the catalog's changes before it was looked at.
    change: u64,
    at_ms: i64,
    by_instance: BTreeMap<String, Arc<BTreeMap<String, Retained>>>,
}

impl Said {
    /// The same as far as it holds: until the catalog changes, and for a while, for some of it ends by the clock.
    fn holding_at(self, change: u64, now_ms: i64) -> Self {
        let is_recent = (self.at_ms..self.at_ms + SAID_MS).contains(&now_ms);
        if self.change == change && is_recent { self } else { Self { change, at_ms: now_ms, ..Self::default() } }
    }
}

/// What keeps each of these backups, by its uid.
pub(crate) async fn retained(state: &State, backups: &[BackupRow]) -> Result<BTreeMap<String, Retained>, Error> {
    let (change, now) = (*state.catalog.changes().borrow(), clock::now_ms());
    let mut said = state.said.lock().unwrap_or_else(PoisonError::into_inner).clone().holding_at(change, now);
    let instances: BTreeSet<&String> = backups.iter().map(|row| &row.instance_uid).collect();
    let unsaid: Vec<String> =
        instances.into_iter().filter(|uid| !said.by_instance.contains_key(*uid)).cloned().collect();
    if !unsaid.is_empty() {
        let (places, policies) = (places(state).await?, state.catalog.policies().await?);
        let mut series = series(state, unsaid.clone()).await?;
        for uid in unsaid {
            let series = series.remove(&uid).unwrap_or_default();
            let decisions = retention::decide(&series, &places, &policies, now);
            let summaries = decisions.iter().map(|decision| (decision.backup.uid.clone(), summary(decision)));
            said.by_instance.insert(uid, Arc::new(summaries.collect()));
        }
        *state.said.lock().unwrap_or_else(PoisonError::into_inner) = said.clone();
    }
    let of = |row: &BackupRow| Some((row.uid.clone(), said.by_instance.get(&row.instance_uid)?.get(&row.uid)?.clone()));
    Ok(backups.iter().filter_map(of).collect())
}

fn summary(decision: &Decision<'_>) -> Retained {
    let mut words: Vec<_> = decision.reasons().map(|reason| reason.word.to_owned()).collect();
    words.sort_unstable();
    words.dedup();
    let locks = decision.reasons().filter(|reason| reason.word == "locked");
    Retained { words, expires_ms: decision.expires_ms(), locked_ms: locks.filter_map(|lock| lock.until_ms).max() }
}

fn preview(decision: &Decision<'_>) -> PreviewedBackup {
    let backup = decision.backup;
    PreviewedBackup {
        backup: backup.full_name(),
        uid: backup.uid.clone(),
        created_at: clock::text(backup.created_ms),
        targets: decision.verdicts.iter().map(preview_copy).collect(),
    }
}

fn preview_copy(verdict: &Verdict<'_>) -> PreviewedCopy {
    let (action, reasons) = match &verdict.fate {
        Fate::Keep(reasons) => ("keep", reasons.iter().map(keep_reason).collect()),
        Fate::Delete(detail) => {
            ("delete", vec![KeepReason { word: "expired".to_owned(), detail: detail.clone(), until: None }])
        }
    };
    PreviewedCopy {
        target: verdict.place.name.clone(),
        site: verdict.place.site.clone(),
        durable: verdict.is_there,
        action: action.to_owned(),
        reasons,
    }
}

fn keep_reason(reason: &Reason) -> KeepReason {
    KeepReason { word: reason.word.to_owned(), detail: reason.detail.clone(), until: reason.until_ms.map(clock::text) }
}

/// Names of all targets by uid, removed ones among them: a policy may name one.
async fn target_names(state: &State) -> Result<BTreeMap<String, String>, Error> {
    let removed = state.catalog.removed_targets().await?;
    let all = state.catalog.targets().await?.into_iter().chain(removed);
    Ok(all.map(|row| (row.uid, row.name)).collect())
}

async fn target_uids(state: &State, names: &[String]) -> Result<Vec<String>, Error> {
    let mut uids = Vec::new();
    for name in names {
        uids.push(targets::find(state, name).await?.uid);
    }
    uids.sort_unstable();
    uids.dedup();
    Ok(uids)
}

fn view(row: &PolicyRow, target_names: &BTreeMap<String, String>) -> Policy {
    let name_of = |uid: &String| target_names.get(uid).unwrap_or(uid).clone();
    let acts_ms = row.since_ms + PATIENCE_MS;
    Policy {
        name: row.name.clone(),
        scope: (!row.spec.scope.is_empty()).then(|| row.spec.scope.clone()),
        labels: row.spec.labels.clone(),
        targets: row.spec.targets.iter().map(name_of).collect(),
        rules: view_rules(&row.spec.rules),
        acts_at: (acts_ms > clock::now_ms()).then(|| clock::text(acts_ms)),
        created_at: clock::text(row.created_ms),
        updated_at: clock::text(row.updated_ms),
        resource_version: row.resource_version.to_string(),
    }
}

fn view_rules(rules: &RetentionRules) -> PolicyRules {
    PolicyRules {
        forever: rules.forever,
        last: rules.last,
        within_seconds: rules.within_ms.map(|ms| clock::unsigned(ms) / 1000),
        hourly: rules.hourly,
        daily: rules.daily,
        weekly: rules.weekly,
        monthly: rules.monthly,
        yearly: rules.yearly,
    }
}

fn checked_rules(rules: PolicyRules) -> Result<RetentionRules, Error> {
    let bad = |message: String| Error::invalid("bad-rule", message);
    let counts = [
        ("last", rules.last),
        ("hourly", rules.hourly),
        ("daily", rules.daily),
        ("weekly", rules.weekly),
        ("monthly", rules.monthly),
        ("yearly", rules.yearly),
    ];
    for (name, count) in counts.iter().filter_map(|(name, count)| Some((name, (*count)?))) {
        if !(1..=COUNT_MAX).contains(&count) {
            return Err(bad(format!("the rule '{name}' cannot keep {count}"))
                .hint(format!("A rule keeps 1 to {COUNT_MAX}; leave it out to keep none by it.")));
        }
    }
    if rules.within_seconds.is_some_and(|seconds| !(1..=KEEP_SECONDS_MAX).contains(&seconds)) {
        return Err(bad("the rule 'within' is out of range".to_owned())
            .hint("It takes from a second to a century; `forever` keeps everything."));
    }
    if !rules.forever && rules.within_seconds.is_none() && counts.iter().all(|(_, count)| count.is_none()) {
        return Err(bad("a policy without a rule would keep nothing".to_owned())
            .hint("Say what it keeps, such as `--keep-within 30d`, `--keep-daily 7` or `--keep-forever`."));
    }
    Ok(RetentionRules {
        forever: rules.forever,
        last: rules.last,
        within_ms: rules.within_seconds.map(|seconds| clock::signed(seconds * 1000)),
        hourly: rules.hourly,
        daily: rules.daily,
        weekly: rules.weekly,
        monthly: rules.monthly,
        yearly: rules.yearly,
    })
}

/// Empty, or one to three names.
fn checked_scope(scope: String) -> Result<String, Error> {
    let parts: Vec<_> = scope.split('/').collect();
    if parts.len() > 3 {
        return Err(Error::invalid("bad-scope", format!("'{scope}' is not a scope"))
            .hint("A scope is ORGANIZATION, ORGANIZATION/PROJECT or ORGANIZATION/PROJECT/INSTANCE."));
    }
    if !scope.is_empty() {
        parts
            .iter()
            .zip(["organization", "project", "instance"])
            .try_for_each(|(part, what)| check_part(what, part))?;
    }
    Ok(scope)
}

fn checked_labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Error> {
    match labels.keys().any(String::is_empty) {
        true => Err(Error::invalid("bad-label", "a label has no name").hint("Labels are written KEY=VALUE.")),
        false => Ok(labels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_holds_until_something_changes_or_time_passes() {
        let by_instance = BTreeMap::from([("uid".to_owned(), Arc::default())]);
        let said = Said { change: 7, at_ms: 1_000, by_instance };
        let holds = |change, now_ms| !said.clone().holding_at(change, now_ms).by_instance.is_empty();
        assert!(holds(7, 1_000) && holds(7, 1_000 + SAID_MS - 1));
        assert!(!holds(8, 1_000), "the catalog changed");
        assert!(!holds(7, 1_000 + SAID_MS), "a lock may have ended");
        assert!(!holds(7, 999), "the clock was set back");
    }

    fn row(last: u32) -> PolicyRow {
        PolicyRow::new("p".to_owned(), "standard".to_owned(), spec(last), 0)
    }

    fn spec(last: u32) -> PolicySpec {
        PolicySpec { rules: RetentionRules { last: Some(last), ..RetentionRules::default() }, ..PolicySpec::default() }
    }

    #[test]
    fn what_a_policy_said_is_remembered_for_as_long_as_it_counts() {
        let mut policy = row(9);
        say(&mut policy, spec(9), 10);
        assert_eq!(policy, row(9), "nothing was changed");
        say(&mut policy, spec(5), 100);
        say(&mut policy, spec(3), 200);
        let said = |policy: &PolicyRow| policy.former.iter().map(|f| f.spec.rules.last).collect::<Vec<_>>();
        assert_eq!(said(&policy), [Some(9), Some(5)]);
        say(&mut policy, spec(1), 100 + PATIENCE_MS);
        assert_eq!((said(&policy), policy.since_ms), (vec![Some(5), Some(3)], 100 + PATIENCE_MS));
        assert_eq!(settled_ms(&[policy], 300), 100 + 2 * PATIENCE_MS);
    }

    #[test]
    fn a_policy_must_keep_something() {
        let message = |rules| checked_rules(rules).map_err(|error| error.code);
        assert!(message(PolicyRules { daily: Some(7), ..PolicyRules::default() }).is_ok());
        assert!(message(PolicyRules { forever: true, ..PolicyRules::default() }).is_ok());
        for bad in [
            PolicyRules::default(),
            PolicyRules { last: Some(0), ..PolicyRules::default() },
            PolicyRules { yearly: Some(COUNT_MAX + 1), ..PolicyRules::default() },
            PolicyRules { within_seconds: Some(0), ..PolicyRules::default() },
            PolicyRules { within_seconds: Some(u64::MAX), ..PolicyRules::default() },
        ] {
            assert_eq!(message(bad), Err("bad-rule".to_owned()));
        }
    }

    #[test]
    fn a_scope_is_one_to_three_names() {
        for good in ["", "acme", "acme/shop", "acme/shop/pg"] {
            assert!(checked_scope(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["/", "acme/", "acme//pg", "acme/shop/pg/2026", "a b"] {
            assert!(checked_scope(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
