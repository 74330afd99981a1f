//! Deleting what was condemned: the objects first, then the head that drops them. In between they are named and condemned, so that
//! nobody asks for them, and nobody stores anything under their names.

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::GRACE_MS;
use super::work::Work;
use crate::envelope::Envelope;
use crate::format::head::{Head, Object};
use crate::format::{Kind, path};
use crate::heads::{Change, DomainState};
use crate::repository::Repository;
use crate::{DomainId, Error};

/// Objects deleted before a head drops them: so few that the newest head is known to be young at each.
const BATCH: usize = 1024;
/// Objects that are deleted at once.
const DELETES: usize = 8;

impl Work<'_> {
    /// Deletes what was condemned long enough ago.
    pub(super) async fn sweep(&mut self) -> Result<(), Error> {
        loop {
            self.follow().await?;
            let due = self.due();
            if due.is_empty() {
                return Ok(());
            }
            (self.progress)("deleting", self.pruned.deleted.objects, self.pruned.deleted.objects + due.len() as u64);
            let gone = self.delete(due).await?;
            self.drop_from_heads(&gone).await?;
            gone.iter().for_each(|(_, length, _)| self.pruned.deleted.add(*length));
        }
    }

    /// The next objects to be deleted.
    fn due(&self) -> Vec<Object> {
        let condemned = self.state.condemned();
        let mut due = self.condemned_objects();
        due.retain(|(_, _, digest)| {
            let is_over = condemned.get(digest).is_some_and(|since| self.is_over(*since));
            let stays = self.refused.contains_key(digest) || self.locked.contains_key(digest);
            is_over && !self.census.lives(digest) && !stays
        });
        due.truncate(BATCH);
        due
    }

    /// Deletes objects; gives those that are gone. A delete of what is locked is refused, or only hides it: it waits.
    async fn delete(&mut self, due: Vec<Object>) -> Result<Vec<Object>, Error> {
        let (place, now_ms) = (&self.repository.inner.place, self.now_ms);
        let delete = |object: Object| async move { (place.delete_unlocked(&object.0, now_ms).await, object) }.boxed();
        let deletes = due.into_iter().map(delete);
        let mut deletes = stream::iter(deletes.collect::<Vec<_>>()).buffer_unordered(DELETES);
        let (mut gone, mut failure) = (Vec::new(), None);
        while let Some((deleted, object)) = deletes.next().await {
            match deleted {
                Ok(None) => gone.push(object),
                Ok(Some(until_ms)) => drop(self.locked.insert(object.2, until_ms)),
                Err(Error::Storage(error)) if error.is_permanent() => {
                    tracing::warn!(path = %object.0, %error, "a dead object cannot be deleted");
                    self.refused.insert(object.2, object.1);
                }
                Err(error) => failure = Some(error),
            }
        }
        // An outage: what is gone is still told, so that the next prune has less to do.
        match failure {
            Some(error) if gone.is_empty() => Err(error),
            _ => Ok(gone),
        }
    }

    /// Drops objects that are gone from what is present.
    async fn drop_from_heads(&self, gone: &[Object]) -> Result<(), Error> {
        if gone.is_empty() {
            return Ok(());
        }
        self.repository
            .commit(self.domain, |state| {
                let still_named = gone.iter().filter(|(_, _, digest)| state.is_condemned(digest));
                let dropped: Vec<String> = still_named.map(|(path, _, _)| path.clone()).collect();
                Ok((!dropped.is_empty()).then(|| Change { dropped, ..Change::default() }))
            })
            .await
    }
}

impl Repository {
    /// Refuses where anybody but us wrote a head within the grace period.
    pub(super) async fn must_be_alone(&self, domain: DomainId, state: &DomainState, now_ms: u64) -> Result<(), Error> {
        let Some(tip) = state.tip else { return Ok(()) };
        for sequence in (0..=tip.sequence).rev() {
            let path = path::head(domain, sequence);
            let Some(bytes) = self.inner.place.find(&path).await? else { return Ok(()) };
            let head = Envelope::<Head>::open(Kind::Head, &path, bytes, &*self.inner.keyring.current())?.clear;
            if head.written_ms.saturating_add(GRACE_MS) <= now_ms {
                return Ok(());
            }
            if head.writer != self.writer() {
                return Err(Error::OtherWriter { domain, writer: head.writer, written_ms: head.written_ms });
            }
        }
        Ok(())
    }
}
