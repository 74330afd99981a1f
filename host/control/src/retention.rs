//! What keeps a backup, and what lets it go. Pure rules over what the catalog knows of an instance, with the time given.
//!
//! Policies that match the same backup at the same target unite what they keep. Ages are told against the instance's last success, never
//! against the clock: nothing goes because time passes while backups fail. What a change of policies would let go stays for a day.
//!
//! Invariants. What somebody holds, the last success, the last one that was verified, and the newest copy at each target never go; nor does
//! anything that is not yet durable wherever policies want it. What no policy matches is kept for ever. A copy of which something is known to
//! be lost counts as none.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_catalog::{CopyRow, CopyState, PolicyRow, PolicySpec, RetentionRow, RetentionRules};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// For so long a change of policies lets nothing go.
pub(crate) const PATIENCE_MS: i64 = DAY_MS;
/// Backups that failed or were cancelled leave once a success of their instance is so much younger: they hold nothing at any target.
pub(crate) const UNSUCCESSFUL_MS: i64 = 30 * DAY_MS;

const HOUR_MS: i64 = 60 * 60 * 1000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A target, as far as retention is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) uid: String,
    pub(crate) name: String,
    pub(crate) site: String,
    /// For so long nothing can be deleted there once it is durable.
    pub(crate) lock_ms: i64,
}

/// One thing that keeps a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    /// Stable: what `retainedAs` says.
    pub(crate) word: &'static str,
    pub(crate) detail: String,
    /// When it ends, where that is known: told against the last success where it is about age.
    pub(crate) until_ms: Option<i64>,
}

impl Reason {
    fn new(word: &'static str, detail: impl Into<String>) -> Self {
        Self { word, detail: detail.into(), until_ms: None }
    }

    fn until(self, until_ms: i64) -> Self {
        Self { until_ms: Some(until_ms), ..self }
    }
}

/// What becomes of a backup at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It stays, or is to come, for at least one reason.
    Keep(Vec<Reason>),
    /// It goes, or need not come, and why.
    Delete(String),
}

/// A backup at one place. Where its copy expired there is no verdict any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict<'a> {
    pub(crate) place: &'a Place,
    /// Whether it is durable and whole there now.
    pub(crate) is_there: bool,
    pub(crate) fate: Fate,
}

/// What becomes of a backup.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision<'a> {
    pub(crate) backup: &'a RetentionRow,
    pub(crate) verdicts: Vec<Verdict<'a>>,
}

impl Decision<'_> {
    /// Why it is kept, over all places where it is.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = &Reason> {
        self.verdicts.iter().filter(|verdict| verdict.is_there).flat_map(|verdict| match &verdict.fate {
            Fate::Keep(reasons) => reasons.as_slice(),
            Fate::Delete(_) => &[],
        })
    }

    /// When the last of it may go at the earliest; none if anything that has no end keeps it.
    pub(crate) fn expires_ms(&self) -> Option<i64> {
        self.reasons().map(|reason| reason.until_ms).try_fold(None, |latest, until| Some(latest.max(Some(until?))))?
    }
}

/// Decides about all backups of one instance that succeeded, oldest first.
pub(crate) fn decide<'a>(
    series: &'a [RetentionRow],
    places: &'a [Place],
    policies: &[PolicyRow],
    now_ms: i64,
) -> Vec<Decision<'a>> {
    let Some(last) = series.last() else { return Vec::new() };
    let states = states(policies, now_ms);
    let at_places: Vec<AtPlace<'_>> =
        places.iter().map(|place| AtPlace::of(series, place, &states, last.created_ms)).collect();
    let guards = Guards::of(series);
    let decide_one = |(number, backup)| {
        let verdicts = at_places.iter().filter_map(|at| {
            let there = at.there[number];
            if there == There::Gone {
                return None;
            }
            let fate = match (there, &at.wishes[number]) {
                (There::Durable, wish) => {
                    let mut reasons = guards.reasons(number, at, now_ms);
                    match wish {
                        Fate::Keep(wanted) => reasons.extend(wanted.iter().cloned()),
                        Fate::Delete(_) if reasons.is_empty() => reasons.extend(awaited(number, &at_places)),
                        Fate::Delete(_) => {}
                    }
                    if reasons.is_empty() { wish.clone() } else { Fate::Keep(reasons) }
                }
                (_, wish) => wish.clone(),
            };
            Some(Verdict { place: at.place, is_there: there == There::Durable, fate })
        });
        Decision { backup, verdicts: verdicts.collect() }
    };
    series.iter().enumerate().map(decide_one).collect()
}

/// Nothing goes anywhere before it is durable wherever policies want it.
fn awaited(number: usize, at_places: &[AtPlace<'_>]) -> Option<Reason> {
    let is_awaited =
        |at: &&AtPlace<'_>| at.there[number] == There::Absent && matches!(at.wishes[number], Fate::Keep(_));
    let names: Vec<_> = at_places.iter().filter(is_awaited).map(|at| at.place.name.as_str()).collect();
    (!names.is_empty()).then(|| Reason::new("not-durable-yet", format!("it is to be at {} first", names.join(", "))))
}

/// How a backup is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    Durable,
    Absent,
    /// Its copy expired.
    Gone,
}

fn there(backup: &RetentionRow, place: &Place) -> There {
    match backup.copies.iter().find(|copy| copy.target_uid == place.uid) {
        Some(copy) if is_whole(backup, copy) => There::Durable,
        Some(copy) if copy.expired_ms.is_some() => There::Gone,
        _ => There::Absent,
    }
}

fn is_whole(backup: &RetentionRow, copy: &CopyRow) -> bool {
    copy.state == CopyState::Durable && !backup.damaged_at.contains(&copy.target_uid)
}

/// All backups of an instance at one place, and what policies wish of each.
struct AtPlace<'a> {
    place: &'a Place,
    there: Vec<There>,
    wishes: Vec<Fate>,
}

impl<'a> AtPlace<'a> {
    fn of(series: &[RetentionRow], place: &'a Place, states: &[State<'_>], last_ms: i64) -> Self {
        let there: Vec<_> = series.iter().map(|backup| there(backup, place)).collect();
        // What is not there yet takes the place of nothing that is: a target that lags loses nothing by it.
        let durable = |number: &usize| there[*number] == There::Durable;
        let coming = |number: &usize| there[*number] != There::Gone;
        let follows = |number: &usize| series[*number].keep_until_ms.is_none();
        let all = || (0..series.len()).filter(follows);
        let of_state = |state: &State<'_>| {
            let mut wishes = state.wishes(series, place, &all().filter(coming).collect::<Vec<_>>(), last_ms);
            wishes.extend(state.wishes(series, place, &all().filter(durable).collect::<Vec<_>>(), last_ms));
            wishes
        };
        let by_state: Vec<_> = states.iter().map(|state| (state, of_state(state))).collect();
        let wish = |(number, backup): (usize, &RetentionRow)| match backup.keep_until_ms {
            Some(until_ms) => keep_until(until_ms, last_ms),
            None => over_time(number, backup, &by_state),
        };
        let wishes = series.iter().enumerate().map(wish).collect();
        Self { place, there, wishes }
    }
}

/// A backup that follows no policy.
fn keep_until(until_ms: i64, last_ms: i64) -> Fate {
    if last_ms < until_ms {
        return Fate::Keep(vec![Reason::new("keep-for", "it was asked for with a time of its own").until(until_ms)]);
    }
    Fate::Delete("the time that was asked for with it is over".to_owned())
}

/// What the policies say now; where they let a backup go that they kept within the last day, it stays until that day is over.
fn over_time(number: usize, backup: &RetentionRow, by_state: &[(&State<'_>, BTreeMap<usize, Fate>)]) -> Fate {
    let fate = |wishes: &BTreeMap<usize, Fate>| wishes.get(&number).cloned();
    let now = by_state.last().and_then(|(_, wishes)| fate(wishes));
    let Some(now @ Fate::Delete(_)) = now else {
        return now.unwrap_or_else(|| Fate::Keep(vec![Reason::new("no-policy", "no policy matches it")]));
    };
    let kept_until = by_state.iter().rev().find_map(|(state, wishes)| {
        let was_there = backup.created_ms < state.until_ms;
        (was_there && !matches!(fate(wishes), Some(Fate::Delete(_)))).then_some(state.until_ms)
    });
    match kept_until {
        Some(changed_ms) => Fate::Keep(vec![
            Reason::new("policy-change", "policies let it go only since a change").until(changed_ms + PATIENCE_MS),
        ]),
        None => now,
    }
}

/// The policies as they were for a while.
struct State<'a> {
    /// The end of that while; none of the present has come.
    until_ms: i64,
    policies: Vec<(&'a str, &'a PolicySpec)>,
}

/// What a policy said from one time to another.
struct Version<'a> {
    name: &'a str,
    spec: &'a PolicySpec,
    since_ms: i64,
    until_ms: i64,
}

/// The states of the policies within the last day; the last one is the present.
fn states(policies: &[PolicyRow], now_ms: i64) -> Vec<State<'_>> {
    let former = policies.iter().flat_map(|policy| {
        policy.former.iter().map(|former| Version {
            name: &policy.name,
            spec: &former.spec,
            since_ms: former.since_ms,
            until_ms: former.until_ms,
        })
    });
    let current = policies.iter().map(|policy| Version {
        name: &policy.name,
        spec: &policy.spec,
        // A clock that was set back since makes no policy one of the future.
        since_ms: policy.since_ms.min(now_ms),
        until_ms: policy.removed_ms.unwrap_or(i64::MAX),
    });
    let versions: Vec<_> = former.chain(current).collect();
    let begin_ms = now_ms - PATIENCE_MS;
    let changes: BTreeSet<i64> = versions
        .iter()
        .flat_map(|version| [version.since_ms, version.until_ms])
        .filter(|at_ms| begin_ms < *at_ms && *at_ms <= now_ms)
        .collect();
    let from = std::iter::once(begin_ms).chain(changes.iter().copied());
    let until = changes.iter().copied().chain(std::iter::once(i64::MAX));
    let state = |(from_ms, until_ms)| {
        let is_live = |version: &&Version<'_>| version.since_ms <= from_ms && from_ms < version.until_ms;
        let live = versions.iter().filter(is_live);
        State { until_ms, policies: live.map(|version| (version.name, version.spec)).collect() }
    };
    from.zip(until).map(state).collect()
}

impl State<'_> {
    /// What its policies say of each of these backups that any of them matches at the place.
    fn wishes(&self, series: &[RetentionRow], place: &Place, counted: &[usize], last_ms: i64) -> BTreeMap<usize, Fate> {
        let mut matching = BTreeMap::<usize, (Vec<&str>, Vec<Reason>)>::new();
        let holds_here = |spec: &&PolicySpec| spec.targets.is_empty() || spec.targets.contains(&place.uid);
        for (name, spec) in self.policies.iter().filter(|(_, spec)| holds_here(spec)) {
            let matched: Vec<_> = counted.iter().copied().filter(|number| matches(spec, &series[*number])).collect();
            for number in &matched {
                matching.entry(*number).or_default().0.push(name);
            }
            for (number, word, until_ms) in kept_by(&spec.rules, series, &matched, last_ms) {
                let reason = Reason { word, detail: format!("policy {name}"), until_ms };
                matching.entry(number).or_default().1.push(reason);
            }
        }
        let fate = |(names, reasons): (Vec<&str>, Vec<Reason>)| match reasons.is_empty() {
            true => Fate::Delete(format!("no rule of {} keeps it", names.join(", "))),
            false => Fate::Keep(reasons),
        };
        matching.into_iter().map(|(number, found)| (number, fate(found))).collect()
    }
}

/// Whether a policy is about a backup.
fn matches(spec: &PolicySpec, backup: &RetentionRow) -> bool {
    let names = [&backup.organization, &backup.project, &backup.instance];
    let in_scope = spec.scope.split('/').filter(|part| !part.is_empty()).zip(names).all(|(part, name)| part == name);
    in_scope && spec.labels.iter().all(|(key, value)| backup.labels.get(key) == Some(value))
}

/// A backup whose newest proof failed, or of which something is lost wherever it is, takes the place of no other.
fn is_doubtful(backup: &RetentionRow) -> bool {
    let is_lost = !backup.damaged_at.is_empty() && !backup.copies.iter().any(|copy| is_whole(backup, copy));
    is_lost || proof(backup) == Some(false)
}

fn proof(backup: &RetentionRow) -> Option<bool> {
    backup.verified.as_ref()?.get("passed")?.as_bool()
}

/// The period that a backup is of, by its time and its number in the series.
type Period = fn(i64, usize) -> i64;

/// Which of the matched backups the rules keep, by which word, and until when.
fn kept_by(
    rules: &RetentionRules,
    series: &[RetentionRow],
    matched: &[usize],
    last_ms: i64,
) -> Vec<(usize, &'static str, Option<i64>)> {
    let mut kept = Vec::new();
    if rules.forever {
        kept.extend(matched.iter().map(|number| (*number, "forever", None)));
    }
    if let Some(within_ms) = rules.within_ms {
        let ends = matched.iter().map(|number| (*number, series[*number].created_ms.saturating_add(within_ms)));
        kept.extend(
            ends.filter(|(_, end_ms)| *end_ms >= last_ms).map(|(number, end_ms)| (number, "within", Some(end_ms))),
        );
    }
    let counts: [(&str, Option<u32>, Period); 6] = [
        ("last", rules.last, |_, number| number as i64),
        ("hourly", rules.hourly, |at_ms, _| at_ms.div_euclid(HOUR_MS)),
        ("daily", rules.daily, |at_ms, _| at_ms.div_euclid(DAY_MS)),
        // The epoch was a Thursday; weeks begin on Mondays.
        ("weekly", rules.weekly, |at_ms, _| (at_ms.div_euclid(DAY_MS) + 3).div_euclid(7)),
        ("monthly", rules.monthly, |at_ms, _| month(at_ms)),
        ("yearly", rules.yearly, |at_ms, _| month(at_ms).div_euclid(12)),
    ];
    for (word, count, period) in counts {
        let Some(count) = count else { continue };
        let mut periods = BTreeSet::new();
        for number in matched.iter().rev() {
            let period = period(series[*number].created_ms, *number);
            if periods.len() >= count as usize || periods.contains(&period) {
                continue;
            }
            if !is_doubtful(&series[*number]) {
                periods.insert(period);
            }
            kept.push((*number, word, None));
        }
    }
    kept
}

/// Months since the year 0, in UTC.
fn month(at_ms: i64) -> i64 {
    let date = Timestamp::from_millisecond(at_ms).unwrap_or_default().to_zoned(TimeZone::UTC).date();
    i64::from(date.year()) * 12 + i64::from(date.month()) - 1
}

/// What never goes, whatever policies say.
struct Guards<'a> {
    series: &'a [RetentionRow],
    last_success: Option<usize>,
    last_verified: Option<usize>,
}

impl<'a> Guards<'a> {
    fn of(series: &'a [RetentionRow]) -> Self {
        Self {
            series,
            last_success: newest(series, |_| true),
            last_verified: series.iter().rposition(|backup| proof(backup) == Some(true)),
        }
    }

    /// Why a backup must stay at a place where it is.
    fn reasons(&self, number: usize, at: &AtPlace<'_>, now_ms: i64) -> Vec<Reason> {
        let backup = &self.series[number];
        let held = backup.holds.iter().map(|hold| Reason::new("hold", format!("{}: {}", hold.name, hold.reason)));
        let mut reasons: Vec<_> = held.collect();
        if self.last_success == Some(number) {
            reasons.push(Reason::new("last-success", "the newest backup of its instance"));
        }
        if self.last_verified == Some(number) {
            reasons.push(Reason::new("last-verified", "the newest one that was proven"));
        }
        if newest(self.series, |other| at.there[other] == There::Durable) == Some(number) {
            reasons.push(match at.place.site == backup.site {
                true => Reason::new("last-at-target", "the newest one there"),
                false => Reason::new("last-off-site", "the newest one there, at another site than its instance"),
            });
        }
        let durable_ms = backup.copies.iter().find(|copy| copy.target_uid == at.place.uid).and_then(|c| c.durable_ms);
        let unlocked_ms = durable_ms.map(|durable_ms| durable_ms.saturating_add(at.place.lock_ms));
        reasons.extend(
            unlocked_ms
                .filter(|unlocked_ms| at.place.lock_ms > 0 && *unlocked_ms > now_ms)
                .map(|unlocked_ms| Reason::new("locked", "the target does not let it go").until(unlocked_ms)),
        );
        reasons
    }
}

/// The newest of these, if it can be one that nothing speaks against.
fn newest(series: &[RetentionRow], is_one: impl Fn(usize) -> bool) -> Option<usize> {
    let ones = || (0..series.len()).rev().filter(|number| is_one(*number));
    ones().find(|number| !is_doubtful(&series[*number])).or_else(|| ones().next())
}

#[cfg(test)]
mod tests;
