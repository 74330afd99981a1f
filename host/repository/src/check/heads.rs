//! The heads that the state was read from, as they lie there now: each must be the one that the next one names. No other target has them, so each
//! gets a second copy, some time after it was written.

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::{Damage, Healed};
use crate::envelope::Envelope;
use crate::format::head::Head;
use crate::format::{Kind, path};
use crate::heads::DomainState;
use crate::repository::Repository;
use crate::{Digest, DomainId, Error};

/// Heads that are fetched at once.
const FETCHES: usize = 8;

/// A head as it was found.
struct Found {
    sequence: u64,
    /// What lies in its two places, or why nothing can be read there.
    head: Result<Bytes, Error>,
    twin: Result<Bytes, Error>,
    /// The digest that the head after it names.
    expected: Digest,
}

impl Found {
    fn copies(&self, domain: DomainId) -> [(String, &Result<Bytes, Error>); 2] {
        [(path::head(domain, self.sequence), &self.head), (path::twin(domain, self.sequence), &self.twin)]
    }

    fn is_whole(&self, copy: &Result<Bytes, Error>) -> bool {
        copy.as_ref().is_ok_and(|bytes| Digest::of(bytes) == self.expected)
    }

    /// Its bytes, from the one place or the other.
    fn genuine(&self) -> Option<&Bytes> {
        [&self.head, &self.twin].into_iter().find(|copy| self.is_whole(copy)).and_then(|copy| copy.as_ref().ok())
    }
}

impl Repository {
    /// Heads and second copies that are not what they were. A second copy that is not there yet is no damage.
    pub(super) async fn check_heads(&self, domain: DomainId, state: &DomainState) -> Result<Vec<Damage>, Error> {
        let mut damages = Vec::new();
        for found in self.heads_again(domain, state).await? {
            for (path, copy) in found.copies(domain) {
                let is_twin = path == path::twin(domain, found.sequence);
                match copy {
                    Ok(_) if found.is_whole(copy) => {}
                    Ok(_) => {
                        let exchanged = Error::Exchanged { path: path.clone(), expected: found.expected };
                        damages.push(Damage::of(domain, &path, &exchanged));
                    }
                    Err(Error::Lost { .. }) if is_twin => {}
                    Err(error) => damages.push(Damage::of(domain, &path, error)),
                }
            }
        }
        Ok(damages)
    }

    /// Puts heads back from their second copies, and damaged second copies from their heads; gives the damages that are left.
    pub(super) async fn heal_heads(
        &self,
        domain: DomainId,
        damages: Vec<Damage>,
        healed: &mut Healed,
    ) -> Result<Vec<Damage>, Error> {
        if !damages.iter().any(|damage| path::head_sequence(domain, &damage.path).is_some()) {
            return Ok(damages);
        }
        let state = self.state(domain).await?;
        for found in self.heads_again(domain, &state).await? {
            let Some(bytes) = found.genuine() else { continue };
            for (path, copy) in found.copies(domain) {
                let is_damaged = damages.iter().any(|damage| damage.path == path);
                if is_damaged && !found.is_whole(copy) {
                    self.inner.place.put(&path, bytes.clone()).await?;
                    healed.bytes += bytes.len() as u64;
                    healed.paths.push(path);
                }
            }
        }
        Ok(damages.into_iter().filter(|damage| !healed.paths.contains(&damage.path)).collect())
    }

    /// Writes the second copies of heads that have none, of those that a reader needs. How many were written.
    ///
    /// Errors: this target does not take writes, or does not answer.
    pub async fn copy_heads(&self, domain: DomainId) -> Result<u64, Error> {
        self.writable()?;
        let state = self.state(domain).await?;
        let mut written = 0;
        for found in self.heads_again(domain, &state).await? {
            if let (Some(bytes), Err(Error::Lost { .. })) = (found.genuine(), &found.twin) {
                self.inner.place.put(&path::twin(domain, found.sequence), bytes.clone()).await?;
                written += 1;
            }
        }
        Ok(written)
    }

    /// Reads heads and second copies, from the newest back to the last checkpoint, or to the first that is in neither place.
    ///
    /// Errors: the target does not answer.
    async fn heads_again(&self, domain: DomainId, state: &DomainState) -> Result<Vec<Found>, Error> {
        let Some(tip) = state.tip else { return Ok(Vec::new()) };
        let reads = (0..=tip.sequence).rev().map(|sequence| {
            async move {
                let head = self.read_copy(path::head(domain, sequence)).await?;
                Ok::<_, Error>((sequence, head, self.read_copy(path::twin(domain, sequence)).await?))
            }
            .boxed()
        });
        let mut reads = stream::iter(reads).buffered(FETCHES);
        let (mut all, mut expected) = (Vec::new(), tip.digest);
        while let Some(read) = reads.next().await {
            let (sequence, head, twin) = read?;
            let found = Found { sequence, head, twin, expected };
            let genuine = found.genuine().cloned();
            all.push(found);
            let Some(bytes) = genuine else { break };
            let head = Envelope::<Head>::parse(Kind::Head, &path::head(domain, sequence), bytes)?.clear;
            match head.previous {
                Some(previous) if !head.checkpoint => expected = previous,
                _ => break,
            }
        }
        Ok(all)
    }

    /// An object, or what is wrong with it.
    async fn read_copy(&self, path: String) -> Result<Result<Bytes, Error>, Error> {
        match self.inner.place.find(&path).await {
            Ok(Some(bytes)) => Ok(Ok(bytes)),
            Ok(None) => Ok(Err(Error::Lost { path, location: self.location() })),
            Err(error) if self.inner.place.is_damage(&error).await => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }
}
