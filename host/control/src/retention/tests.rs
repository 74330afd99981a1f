//! The rules by example, and their invariants on whatever backups, copies and policies there may be.

use holdfast_catalog::{CopyRow, FormerSpec, HoldRow};
use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;

/// A Wednesday, 2026-05-06T12:00:00Z.
const NOW_MS: i64 = 1_778_068_800_000;

fn places() -> Vec<Place> {
    [("primary", "here"), ("vault", "there"), ("second", "here")]
        .map(|(name, site)| Place {
            uid: format!("uid of {name}"),
            name: name.to_owned(),
            site: site.to_owned(),
            lock_ms: 0,
        })
        .into()
}

/// A backup that is durable at these of the places.
fn backup(uid: &str, created_ms: i64, durable: &[&str]) -> RetentionRow {
    RetentionRow {
        uid: uid.to_owned(),
        instance_uid: "uid of pg".to_owned(),
        organization: "acme".to_owned(),
        project: "shop".to_owned(),
        instance: "pg".to_owned(),
        name: uid.to_owned(),
        site: "here".to_owned(),
        labels: BTreeMap::new(),
        created_ms,
        verified: None,
        holds: Vec::new(),
        keep_until_ms: None,
        copies: durable.iter().map(|name| copy(uid, name, CopyState::Durable)).collect(),
        damaged_at: Vec::new(),
    }
}

fn damaged(mut backup: RetentionRow, places: &[&str]) -> RetentionRow {
    backup.damaged_at = places.iter().map(|name| format!("uid of {name}")).collect();
    backup
}

fn copy(uid: &str, place: &str, state: CopyState) -> CopyRow {
    CopyRow {
        backup_uid: uid.to_owned(),
        target_uid: format!("uid of {place}"),
        state,
        durable_ms: (state == CopyState::Durable).then_some(NOW_MS - DAY_MS),
        reason: None,
        copied_bytes: 0,
        expired_ms: None,
    }
}

fn proven(mut backup: RetentionRow, passed: bool) -> RetentionRow {
    backup.verified = Some(serde_json::json!({ "passed": passed }));
    backup
}

/// A policy that was there long ago.
fn policy(name: &str, rules: RetentionRules) -> PolicyRow {
    PolicyRow::new(name.to_owned(), name.to_owned(), PolicySpec { rules, ..PolicySpec::default() }, 0)
}

fn last(count: u32) -> RetentionRules {
    RetentionRules { last: Some(count), ..RetentionRules::default() }
}

/// What becomes of each durable copy at the first place: the words that keep it, or none.
fn words(series: &[RetentionRow], policies: &[PolicyRow], now_ms: i64) -> Vec<(String, Vec<&'static str>)> {
    let places = places();
    let decisions = decide(series, &places[..1], policies, now_ms);
    let of = |decision: &Decision<'_>| (decision.backup.uid.clone(), decision.reasons().map(|r| r.word).collect());
    decisions.iter().map(of).collect()
}

/// Uids of what goes from the first place.
fn goes(series: &[RetentionRow], policies: &[PolicyRow], now_ms: i64) -> Vec<String> {
    let words = words(series, policies, now_ms);
    words.into_iter().filter(|(_, words)| words.is_empty()).map(|(uid, _)| uid).collect()
}

/// One backup every so often, the newest last and now.
fn every(step_ms: i64, count: i64) -> Vec<RetentionRow> {
    (0..count).map(|n| backup(&format!("b{n}"), NOW_MS - (count - 1 - n) * step_ms, &["primary"])).collect()
}

#[test]
fn without_a_policy_everything_is_kept_and_says_so() {
    let kept = words(&every(DAY_MS, 3), &[], NOW_MS);
    assert_eq!(kept[0].1, ["no-policy"]);
    assert_eq!(kept[2].1, ["last-success", "last-at-target", "no-policy"]);
}

#[test]
fn the_newest_of_each_period_is_kept() {
    let rules = RetentionRules { daily: Some(3), weekly: Some(2), monthly: Some(2), ..RetentionRules::default() };
    // Twice a day for forty days, up to noon of a Wednesday.
    let series = every(DAY_MS / 2, 80);
    let kept = words(&series, &[policy("p", rules)], NOW_MS);
    let by = |word: &str| -> Vec<i64> {
        let has = kept.iter().enumerate().filter(|(_, (_, words))| words.contains(&word));
        has.map(|(number, _)| (NOW_MS - series[number].created_ms) / (DAY_MS / 2)).collect()
    };
    // Half days ago: noon of Monday, Tuesday, today; noon of last Sunday; noon of the last day of April.
    assert_eq!((by("daily"), by("weekly"), by("monthly")), (vec![4, 2, 0], vec![6, 0], vec![12, 0]));
    assert_eq!(
        goes(&series, &[policy("p", RetentionRules { yearly: Some(1), ..Default::default() })], NOW_MS).len(),
        79
    );
}

#[test]
fn ages_are_told_against_the_last_success() {
    let rules = RetentionRules { within_ms: Some(2 * DAY_MS), ..RetentionRules::default() };
    let series = every(DAY_MS, 5);
    let policies = [policy("p", rules)];
    assert_eq!(goes(&series, &policies, NOW_MS), ["b0", "b1"]);
    assert_eq!(goes(&series, &policies, NOW_MS + 1_000 * DAY_MS), ["b0", "b1"], "time alone takes nothing");
    let places = places();
    let decisions = decide(&series, &places[..1], &policies, NOW_MS);
    assert_eq!(decisions[3].expires_ms(), Some(series[3].created_ms + 2 * DAY_MS));
    assert_eq!(decisions[4].expires_ms(), None, "the last success has no end");
}

#[test]
fn what_must_stay_stays_and_says_why() {
    let mut series = every(DAY_MS, 6);
    series[0].holds.push(HoldRow { name: "alice".to_owned(), reason: "audit".to_owned(), at_ms: 1 });
    series[2] = proven(series[2].clone(), true);
    let kept = words(&series, &[policy("p", last(1))], NOW_MS);
    let of = |number: usize| kept[number].1.clone();
    assert_eq!((of(0), of(1), of(2), of(3)), (vec!["hold"], vec![], vec!["last-verified"], vec![]));
    assert_eq!(of(5), ["last-success", "last-at-target", "last"]);
}

#[test]
fn a_backup_that_was_found_damaged_takes_the_place_of_no_other() {
    let mut series = every(DAY_MS, 4);
    series[3] = proven(series[3].clone(), false);
    let kept = words(&series, &[policy("p", last(1))], NOW_MS);
    assert_eq!(kept[2].1, ["last-success", "last-at-target", "last"]);
    assert_eq!(kept[3].1, ["last"]);
    assert_eq!(goes(&series, &[policy("p", last(1))], NOW_MS), ["b0", "b1"]);
}

#[test]
fn a_target_keeps_what_policies_say_for_it_alone() {
    let both = |n: i64| backup(&format!("b{n}"), NOW_MS + n, &["primary", "vault"]);
    let series: Vec<_> = (0..4).map(both).collect();
    let mut short = policy("short", last(1));
    short.spec.targets = vec!["uid of primary".to_owned()];
    let mut long = policy("long", last(3));
    long.spec.targets = vec!["uid of vault".to_owned()];
    let places = places();
    let decisions = decide(&series, &places[..2], &[short, long], NOW_MS);
    let fates = |number: usize| -> Vec<bool> {
        decisions[number].verdicts.iter().map(|verdict| matches!(verdict.fate, Fate::Delete(_))).collect()
    };
    assert_eq!([fates(0), fates(1), fates(3)], [vec![true, true], vec![true, false], vec![false, false]]);
}

#[test]
fn a_copy_with_losses_counts_as_none() {
    let both = |n: i64| backup(&format!("b{n}"), NOW_MS + n, &["primary", "vault"]);
    let series = |damaged_at: &[&str]| [both(0), both(1), damaged(both(2), damaged_at)];
    let places = places();
    let goes = |series: &[RetentionRow]| -> Vec<Vec<bool>> {
        let decisions = decide(series, &places[..2], &[policy("p", last(1))], NOW_MS);
        let goes = |verdict: &Verdict<'_>| matches!(verdict.fate, Fate::Delete(_));
        decisions.iter().map(|decision| decision.verdicts.iter().map(goes).collect()).collect()
    };
    let [all, none] = [vec![true, true], vec![false, false]];
    assert_eq!(goes(&series(&[])), [all.clone(), all.clone(), none.clone()]);
    assert_eq!(
        goes(&series(&["primary"])),
        [all.clone(), vec![false, true], none.clone()],
        "the primary keeps a whole one"
    );
    assert_eq!(goes(&series(&["primary", "vault"])), [all, none.clone(), none]);
}

#[test]
fn nothing_goes_before_it_is_where_it_is_wanted() {
    let mut series = every(DAY_MS, 4);
    let mut short = policy("short", last(1));
    short.spec.targets = vec!["uid of primary".to_owned()];
    let places = places();
    let decisions = decide(&series, &places[..2], std::slice::from_ref(&short), NOW_MS);
    let Fate::Keep(reasons) = &decisions[0].verdicts[0].fate else { panic!("{decisions:?}") };
    assert_eq!((reasons[0].word, reasons[0].detail.as_str()), ("not-durable-yet", "it is to be at vault first"));

    // Where it expired nobody waits for it.
    series[0].copies.push(CopyRow { expired_ms: Some(1), ..copy("b0", "vault", CopyState::Pending) });
    let decisions = decide(&series, &places[..2], &[short], NOW_MS);
    assert!(matches!(decisions[0].verdicts[..], [Verdict { fate: Fate::Delete(_), .. }]), "{decisions:?}");
}

#[test]
fn a_target_that_lags_loses_nothing_by_it() {
    let mut series = every(DAY_MS, 5);
    for old in &mut series[..2] {
        old.copies.push(copy(&old.uid, "vault", CopyState::Durable));
    }
    let places = places();
    let decisions = decide(&series, &places[..2], &[policy("p", last(2))], NOW_MS);
    let at_vault = |number: usize| &decisions[number].verdicts[1];
    assert!((0..2).all(|number| matches!(at_vault(number).fate, Fate::Keep(_))), "{decisions:?}");
    // It need not get what it would let go at once.
    assert!(matches!(at_vault(2).fate, Fate::Delete(_)) && !at_vault(2).is_there);
    assert!((3..5).all(|number| matches!(at_vault(number).fate, Fate::Keep(_))), "{decisions:?}");
}

#[test]
fn a_backup_with_a_time_of_its_own_follows_no_policy() {
    let mut series = every(DAY_MS, 5);
    series[1].keep_until_ms = Some(series[1].created_ms + 2 * DAY_MS);
    series[2].keep_until_ms = Some(series[2].created_ms + 9 * DAY_MS);
    let kept = words(&series, &[policy("p", last(2))], NOW_MS);
    assert_eq!((kept[1].1.clone(), kept[2].1.clone(), kept[3].1.clone()), (vec![], vec!["keep-for"], vec!["last"]));
    assert_eq!(goes(&series, &[], NOW_MS), ["b1"], "its time ends where there is no policy too");
}

#[test]
fn locked_copies_wait_for_the_end_of_their_lock() {
    let series = every(DAY_MS, 3);
    let mut places = places();
    places[0].lock_ms = 5 * DAY_MS;
    let policies = [policy("p", last(1))];
    let until_ms = NOW_MS + 4 * DAY_MS;
    let decisions = decide(&series, &places[..1], &policies, NOW_MS);
    assert_eq!(decisions[0].expires_ms(), Some(until_ms));
    let decisions = decide(&series, &places[..1], &policies, until_ms);
    assert!(matches!(decisions[0].verdicts[0].fate, Fate::Delete(_)));
}

#[test]
fn a_tightened_policy_acts_after_a_day_and_a_loosened_one_at_once() {
    let series = every(DAY_MS, 5);
    let mut tightened = policy("p", last(1));
    let former = |rules| PolicySpec { rules, ..PolicySpec::default() };
    tightened.former = vec![FormerSpec { spec: former(last(4)), since_ms: 0, until_ms: NOW_MS }];
    tightened.since_ms = NOW_MS;
    let kept = words(&series, std::slice::from_ref(&tightened), NOW_MS + DAY_MS - 1);
    assert_eq!((kept[0].1.clone(), kept[1].1.clone()), (vec![], vec!["policy-change"]));
    assert_eq!(goes(&series, std::slice::from_ref(&tightened), NOW_MS + DAY_MS).len(), 4);

    let mut loosened = tightened;
    (loosened.spec.rules, loosened.former[0].spec.rules) = (last(4), last(1));
    assert_eq!(goes(&series, &[loosened], NOW_MS), ["b0"]);
}

#[test]
fn a_new_policy_takes_nothing_that_was_there_before_it_for_a_day() {
    let mut series = every(DAY_MS, 3);
    let mut new = policy("p", last(1));
    new.since_ms = NOW_MS + 1;
    let policies = [new];
    assert_eq!(goes(&series, &policies, NOW_MS + 2), [""; 0]);
    assert_eq!(goes(&series, &policies, NOW_MS + 1 + DAY_MS), ["b0", "b1"]);
    // What was made under it follows it at once.
    series.extend([10, 20].map(|later| backup(&format!("n{later}"), NOW_MS + later, &["primary"])));
    assert_eq!(goes(&series, &policies, NOW_MS + 30), ["n10"]);
}

#[test]
fn a_removed_policy_lets_nothing_go_that_no_other_matches() {
    let series = every(DAY_MS, 4);
    let (mut wide, narrow) = (policy("wide", last(3)), policy("narrow", last(1)));
    wide.removed_ms = Some(NOW_MS);
    let policies = [wide.clone(), narrow];
    assert_eq!(goes(&series, &policies, NOW_MS), ["b0"]);
    assert_eq!(goes(&series, &policies, NOW_MS + DAY_MS), ["b0", "b1", "b2"]);
    assert_eq!(goes(&series, &[wide], NOW_MS + DAY_MS), [""; 0], "nobody lets anything go any more");
}

#[test]
fn scope_and_labels_say_what_a_policy_is_about() {
    let mut labelled = backup("b", 1, &[]);
    labelled.labels.insert("tier".to_owned(), "gold".to_owned());
    let of = |scope: &str, labels: &[(&str, &str)]| PolicySpec {
        scope: scope.to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..PolicySpec::default()
    };
    for about in [of("", &[]), of("acme", &[]), of("acme/shop/pg", &[("tier", "gold")])] {
        assert!(matches(&about, &labelled), "{about:?}");
    }
    for other in [of("acm", &[]), of("acme/other", &[]), of("acme/shop/pg2", &[]), of("", &[("tier", "")])] {
        assert!(!matches(&other, &labelled), "{other:?}");
    }
}

fn any_rules() -> impl Strategy<Value = RetentionRules> {
    let count = || prop::option::weighted(0.3, 1_u32..4);
    let within = prop::option::weighted(0.3, 1..20 * DAY_MS);
    (1_u32..4, any::<bool>(), within, count(), count(), count(), count()).prop_map(
        |(last, by_last, within_ms, hourly, daily, weekly, monthly)| RetentionRules {
            forever: false,
            // Something is always kept, or nobody could have made the policy.
            last: (by_last || within_ms.is_none()).then_some(last),
            within_ms,
            hourly,
            daily,
            weekly,
            monthly,
            yearly: None,
        },
    )
}

fn any_spec() -> impl Strategy<Value = PolicySpec> {
    let targets = subsequence(places().into_iter().map(|place| place.uid).collect::<Vec<_>>(), 0..=3);
    let labels = subsequence(vec![("tier".to_owned(), "gold".to_owned())], 0..=1);
    (any_rules(), targets, labels).prop_map(|(rules, targets, labels)| PolicySpec {
        scope: "acme".to_owned(),
        labels: labels.into_iter().collect(),
        targets,
        rules,
    })
}

fn any_policy() -> impl Strategy<Value = PolicyRow> {
    let age = || 0..2 * DAY_MS;
    let removed = prop::option::weighted(0.2, age());
    (any_spec(), age(), prop::option::of((any_spec(), age())), removed).prop_map(|(spec, age_ms, former, removed)| {
        let since_ms = NOW_MS - age_ms;
        let former =
            former.map(|(spec, longer_ms)| FormerSpec { spec, since_ms: since_ms - longer_ms, until_ms: since_ms });
        PolicyRow {
            spec,
            since_ms,
            former: former.into_iter().collect(),
            removed_ms: removed.map(|age_ms| (NOW_MS - age_ms).max(since_ms)),
            ..policy("p", RetentionRules::default())
        }
    })
}

/// Age, copies, proof, whether it is held and labelled, and its own time.
type Drawn = (i64, Vec<Option<CopyState>>, Option<bool>, bool, bool, Option<i64>);

fn any_series() -> impl Strategy<Value = Vec<RetentionRow>> {
    let at_place =
        prop_oneof![4 => Just(Some(CopyState::Durable)), 1 => Just(None), 1 => Just(Some(CopyState::Pending))];
    let one = (
        0..40 * DAY_MS,
        prop::collection::vec(at_place, 3),
        prop::option::weighted(0.3, any::<bool>()),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.3),
        prop::option::weighted(0.1, 0..60 * DAY_MS),
    );
    prop::collection::vec(one, 0..14).prop_map(|mut all| {
        all.sort_by_key(|one| std::cmp::Reverse(one.0));
        let of = |(number, (age_ms, copies, proof, is_held, is_gold, keep_ms)): (usize, Drawn)| {
            let uid = format!("b{number:02}");
            let mut row = backup(&uid, NOW_MS - age_ms, &[]);
            for (place, state) in places().iter().zip(copies) {
                // Pending stands for what expired.
                row.copies.extend(state.map(|state| CopyRow {
                    expired_ms: (state == CopyState::Pending).then_some(1),
                    ..copy(&uid, &place.name, state)
                }));
            }
            row.verified = proof.map(|passed| serde_json::json!({ "passed": passed }));
            row.holds.extend(is_held.then(|| HoldRow { name: "a".to_owned(), reason: "b".to_owned(), at_ms: 1 }));
            row.labels.extend(is_gold.then(|| ("tier".to_owned(), "gold".to_owned())));
            row.keep_until_ms = keep_ms.map(|keep_ms| row.created_ms + keep_ms);
            row
        };
        all.into_iter().enumerate().map(of).collect()
    })
}

/// Place and backup of everything that goes.
fn going(series: &[RetentionRow], policies: &[PolicyRow], now_ms: i64) -> BTreeSet<(String, String)> {
    let places = places();
    let decisions = decide(series, &places, policies, now_ms);
    let verdicts = decisions.iter().flat_map(|decision| decision.verdicts.iter().map(move |v| (decision.backup, v)));
    verdicts
        .filter(|(_, verdict)| verdict.is_there && matches!(verdict.fate, Fate::Delete(_)))
        .map(|(backup, verdict)| (verdict.place.uid.clone(), backup.uid.clone()))
        .collect()
}

fn settled(mut policies: Vec<PolicyRow>) -> Vec<PolicyRow> {
    policies.retain(|policy| policy.removed_ms.is_none());
    for policy in &mut policies {
        (policy.since_ms, policy.former) = (0, Vec::new());
    }
    policies
}

proptest! {
    #[test]
    fn what_must_never_go_never_goes(series in any_series(), policies in prop::collection::vec(any_policy(), 0..4)) {
        let gone = going(&series, &policies, NOW_MS);
        for place in places() {
            let durable = |row: &&RetentionRow| there(row, &place) == There::Durable;
            let is_gone = |row: &RetentionRow| gone.contains(&(place.uid.clone(), row.uid.clone()));
            for held in series.iter().filter(|row| !row.holds.is_empty()) {
                prop_assert!(!is_gone(held), "held");
            }
            let verified = series.iter().rfind(|row| proof(row) == Some(true));
            prop_assert!(verified.is_none_or(|row| !is_gone(row)), "the last verified one");
            prop_assert!(series.iter().rfind(|row| !is_doubtful(row)).is_none_or(|row| !is_gone(row)), "the last success");
            let there: Vec<_> = series.iter().filter(durable).collect();
            prop_assert!(there.is_empty() || there.iter().any(|row| !is_gone(row)), "nothing is left at {}", place.name);
        }
    }

    #[test]
    fn nothing_goes_before_it_is_durable_wherever_it_is_wanted(
        series in any_series(),
        policies in prop::collection::vec(any_policy(), 0..4),
    ) {
        let places = places();
        for decision in decide(&series, &places, &policies, NOW_MS) {
            let goes = decision.verdicts.iter().any(|v| v.is_there && matches!(v.fate, Fate::Delete(_)));
            let awaited = decision.verdicts.iter().any(|v| !v.is_there && matches!(v.fate, Fate::Keep(_)));
            prop_assert!(!(goes && awaited), "{decision:?}");
        }
    }

    #[test]
    fn time_alone_takes_nothing(
        series in any_series(),
        policies in prop::collection::vec(any_policy(), 0..4),
        later_ms in 0..1_000 * DAY_MS,
    ) {
        let policies = settled(policies);
        prop_assert_eq!(going(&series, &policies, NOW_MS), going(&series, &policies, NOW_MS + later_ms));
    }

    #[test]
    fn a_further_policy_never_shortens_what_another_keeps(
        series in any_series(),
        policies in prop::collection::vec(any_policy(), 0..3),
        rules in any_rules(),
        further in any_policy(),
    ) {
        // Everything is matched: a policy that is the first of its backups does let go what was kept for ever.
        let mut policies = settled(policies);
        policies.push(policy("all", rules));
        let before = going(&series, &policies, NOW_MS);
        policies.extend(settled(vec![further]));
        let after = going(&series, &policies, NOW_MS);
        prop_assert!(after.is_subset(&before), "{after:?} {before:?}");
    }

    #[test]
    fn a_change_takes_nothing_for_a_day_that_would_have_stayed(
        series in any_series(),
        policies in prop::collection::vec(any_policy(), 0..3),
        changed in any_spec(),
        added in any_policy(),
        is_removed in any::<bool>(),
        hours in 0..24_i64,
    ) {
        let before = settled(policies);
        let mut after = before.clone();
        if let Some(first) = after.first_mut() {
            if is_removed {
                first.removed_ms = Some(NOW_MS);
            } else {
                let former = std::mem::replace(&mut first.spec, changed);
                first.former = vec![FormerSpec { spec: former, since_ms: 0, until_ms: NOW_MS }];
                first.since_ms = NOW_MS;
            }
        }
        after.push(PolicyRow { since_ms: NOW_MS, former: Vec::new(), removed_ms: None, ..added });
        // What was made in that very moment knows the change alone.
        let series: Vec<_> = series.into_iter().filter(|row| row.created_ms < NOW_MS).collect();
        let gone = going(&series, &after, NOW_MS + hours * HOUR_MS);
        let expected = going(&series, &before, NOW_MS);
        prop_assert!(gone.is_subset(&expected), "{gone:?} {expected:?}");
    }

    #[test]
    fn what_stayed_once_the_others_went_stays(
        series in any_series(),
        policies in prop::collection::vec(any_policy(), 0..4),
    ) {
        let gone = going(&series, &policies, NOW_MS);
        let mut left = series;
        for row in &mut left {
            for copy in &mut row.copies {
                if gone.contains(&(copy.target_uid.clone(), row.uid.clone())) {
                    (copy.state, copy.expired_ms) = (CopyState::Pending, Some(NOW_MS));
                }
            }
        }
        left.retain(|row| row.copies.iter().any(|copy| copy.state == CopyState::Durable));
        let more = going(&left, &policies, NOW_MS);
        prop_assert!(more.is_empty(), "{more:?}");
    }
}
