//! Garbage: objects of ours that no head names, left by work that was cut. They are harmless, and take room.
//!
//! A listing only says where to look. What is deleted is named by no newest head of any domain, has lain there for longer than any work may
//! take, and has a name that only we give.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{GRACE_MS, PruneOptions, Pruned, WORK_MS_MAX, Why};
use crate::format::path;
use crate::heads::DomainState;
use crate::repository::Repository;
use crate::{Digest, DomainId, Error};

type States = BTreeMap<DomainId, Arc<DomainState>>;

impl Repository {
    /// Deletes garbage that has lain here for longer than the grace period. A place that cannot tell how old an object is keeps it.
    ///
    /// Errors: a clock that is not to be trusted; a target that does not answer.
    pub async fn collect_garbage(&self, options: PruneOptions) -> Result<Pruned, Error> {
        if !options.dry_run {
            self.writable()?;
        }
        let mut pruned = Pruned::default();
        let states = self.states().await?;
        let mut now_ms = self.now_ms();
        for (domain, state) in &states {
            self.must_be_ours(*domain, state)?;
            now_ms = self.trusted_now(state).await?;
            if options.now {
                self.must_be_alone(*domain, state, now_ms).await?;
            }
        }
        for prefix in states.keys().map(|domain| path::domain(*domain)).chain([path::COMPONENTS.to_owned()]) {
            for listed in self.inner.place.list(&prefix).await? {
                if !is_garbage(&states, &listed.path) {
                    continue;
                }
                let Some(written_ms) = self.inner.place.written_ms(&listed.path).await? else { continue };
                let until_ms = written_ms.saturating_add(if options.now { 0 } else { GRACE_MS });
                if until_ms > now_ms && !options.now {
                    pruned.keep(Why::Young, listed.length, Some(until_ms));
                } else if let Some(until_ms) = self.inner.place.locked_until(&listed.path, now_ms).await? {
                    pruned.keep(Why::Locked, listed.length, Some(until_ms));
                } else if options.dry_run || self.delete_garbage(&listed.path).await? {
                    pruned.deleted.add(listed.length);
                }
            }
        }
        Ok(pruned)
    }

    /// Deletes one object unless a head names it by now: `false` then.
    async fn delete_garbage(&self, path: &str) -> Result<bool, Error> {
        if !is_garbage(&self.states().await?, path) {
            return Ok(false);
        }
        let Some(digest) = path::component_digest(path) else {
            self.inner.place.delete(path).await?;
            return Ok(true);
        };
        // The only name that anybody gives again: whoever needs the component may have found it here a moment ago.
        let component = self.component(digest).await;
        self.inner.place.delete(path).await?;
        if is_garbage(&self.states().await?, path) {
            return Ok(true);
        }
        self.inner.place.put(path, component?.into()).await?;
        Ok(false)
    }

    /// Puts a component back that a prune deleted while a backup that needs it was on its way. The backup exists by now, whether this
    /// works or not; the prune looks as well.
    pub(crate) async fn look_after_component(
        &self,
        digest: Digest,
        component: impl Future<Output = Result<Vec<u8>, Error>>,
    ) {
        let path = path::component(digest);
        let looked = async {
            if self.inner.place.length(&path).await?.is_none() {
                self.inner.place.put(&path, component.await?.into()).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = looked.await {
            tracing::warn!(%path, %error, "it is not certain that the component is there: run a check");
        }
    }

    /// The newest state of every domain.
    async fn states(&self) -> Result<States, Error> {
        let mut states = States::new();
        for domain in self.inner.keyring.current().domains() {
            states.insert(domain, self.state(domain).await?);
        }
        Ok(states)
    }

    /// Whether an object that no head names is so young that nobody deletes it while work goes on that finds it.
    pub(crate) async fn is_fresh(&self, path: &str) -> Result<bool, Error> {
        let written_ms = self.inner.place.written_ms(path).await?;
        Ok(written_ms.is_none_or(|written_ms| self.now_ms() <= written_ms.saturating_add(WORK_MS_MAX)))
    }
}

/// Whether an object has a name that we give, and no head names it.
fn is_garbage(states: &States, path: &str) -> bool {
    if path::component_digest(path).is_some() {
        return states.values().all(|state| state.object(path).is_none());
    }
    states.iter().any(|(domain, state)| {
        let pack = path::pack_digest(*domain, path).map(|pack| state.pack_length(&pack).is_none());
        let index = path::index_digest(*domain, path).map(|index: Digest| !state.indexes.contains_key(&index));
        let own = path::backup_object(*domain, path).map(|_| state.object(path).is_none());
        pack.or(index).or(own).unwrap_or(false)
    })
}
