//! Locks of what a new head relies on, at a place that locks objects: extended before the head is written, so that everything
//! a backup needs is kept as long as the backup itself.
//!
//! What is new was locked when it was written. What was there is extended in coarse steps: rarely, and then for longer.
//! Invariant: no head is written that relies on an object whose lock ends before the place's days are over.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_storage::{Lock, LockMode, Retention};

use crate::format::path;
use crate::heads::{Change, DomainState};
use crate::keyring::Keyring;
use crate::place::Place;
use crate::{DomainId, Error};

/// Objects that are looked at at once.
const SIDE_BY_SIDE: usize = 16;

/// Until when objects are known to be locked, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    known: Mutex<BTreeMap<String, u64>>,
}

impl Locks {
    /// Sees to it that all that a change relies on stays as long as what is new. Without locks there is nothing to do.
    pub(crate) async fn extend(
        &self,
        place: &Place,
        keyring: &Keyring,
        domain: DomainId,
        state: &DomainState,
        change: &Change,
    ) -> Result<(), Error> {
        let Some(lock) = place.lock() else { return Ok(()) };
        let least = lock.least_ms();
        let mut needed = needed(keyring, domain, state, change);
        needed.retain(|(path, _)| self.known().get(path).is_none_or(|until| *until < least));
        let extending = needed.into_iter().map(|(path, length)| async move {
            if let Some(until) = extend_one(place, &path, length, lock).await? {
                self.known().insert(path, until);
            }
            Ok::<_, Error>(())
        });
        stream::iter(extending).buffer_unordered(SIDE_BY_SIDE).try_for_each(|()| async { Ok(()) }).await
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Paths of what a change relies on, with their lengths where they are known.
fn needed(keyring: &Keyring, domain: DomainId, state: &DomainState, change: &Change) -> Vec<(String, Option<u64>)> {
    let packs = change.relied_on.iter().map(|pack| (path::pack(domain, *pack), state.pack_length(pack)));
    // Readers take all indexes that are present, and the heads from the last checkpoint on.
    let counting = state.indexes.iter().filter(|(index, _)| !state.is_condemned(index));
    let indexes = counting.map(|(index, length)| (path::index(domain, *index), Some(*length)));
    let next = state.next_sequence();
    let heads = (state.checkpoint..next).map(|sequence| (path::head(domain, sequence), None));
    let components = change.records.iter().filter_map(|stored| {
        let path = path::component(stored.record.component);
        let (length, _) = state.object(&path)?;
        Some((path, Some(length)))
    });
    let generation = keyring.generation();
    let keyring = [path::REPOSITORY.to_owned(), path::keyring(generation), path::keyring_signature(generation)];
    packs.chain(indexes).chain(heads).chain(components).chain(keyring.map(|path| (path, None))).collect()
}

/// Extends every version that may be the one: an overwritten object's right version is not always the newest. Until when all
/// of them are locked, if there is any.
async fn extend_one(place: &Place, path: &str, length: Option<u64>, lock: Lock) -> Result<Option<u64>, Error> {
    let mut least = None;
    for version in place.versions(path).await? {
        if version.path != path || length.is_some_and(|length| length != version.length) {
            continue;
        }
        let until = match place.retention(path, &version.id).await? {
            Some(Retention { until_ms, .. }) if until_ms >= lock.least_ms() => until_ms,
            found => {
                // What nobody may shorten cannot be made weaker either.
                let mode =
                    found.filter(|found| found.mode == LockMode::Compliance).map_or(lock.mode, |found| found.mode);
                let extended = Retention { mode, ..lock.extended() };
                place.set_retention(path, &version.id, extended).await?;
                extended.until_ms
            }
        };
        least = Some(least.map_or(until, |least: u64| least.min(until)));
    }
    Ok(least)
}
