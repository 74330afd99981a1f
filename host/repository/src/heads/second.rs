//! Second copies of heads (FORMAT §8) that were just written: made by who comes behind the commit, never by the commit itself, which neither waits
//! for them nor fails by them.
//!
//! What is remembered here is gone with the process: the scrub finds every head that has none.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::format::path;
use crate::repository::Repository;
use crate::{Digest, DomainId, Error};

/// So many heads are remembered; those before them are the scrub's.
const REMEMBERED: usize = 1024;

/// Heads that have no second copy yet, the newest last.
#[derive(Debug, Default)]
pub(crate) struct SingleHeads(Mutex<VecDeque<(DomainId, u64, Digest)>>);

impl SingleHeads {
    pub(crate) fn add(&self, domain: DomainId, sequence: u64, digest: Digest) {
        let mut heads = self.heads();
        if heads.len() == REMEMBERED {
            heads.pop_front();
        }
        heads.push_back((domain, sequence, digest));
    }

    fn take_newest(&self) -> Option<(DomainId, u64, Digest)> {
        self.heads().pop_back()
    }

    fn heads(&self) -> MutexGuard<'_, VecDeque<(DomainId, u64, Digest)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Repository {
    /// Writes the second copies of the heads that this process wrote and that have none yet, the newest first. How many were written. Where the
    /// reserve is given up none are: what room there is then is for deleting.
    ///
    /// Errors: a head is not there as it was written; this target does not take writes, or does not answer. The scrub comes back to
    /// what was left out.
    pub async fn copy_new_heads(&self) -> Result<u64, Error> {
        let (place, mut written) = (&self.inner.place, 0);
        while let Some((domain, sequence, digest)) = self.inner.single_heads.take_newest() {
            if written == 0 && place.length(path::RESERVE).await?.is_none() {
                break;
            }
            let head = place.committed(&path::head(domain, sequence), digest).await?;
            place.put(&path::twin(domain, sequence), head).await?;
            written += 1;
        }
        Ok(written)
    }
}
