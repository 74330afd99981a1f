//! Rollback: a target that lies in an older state than was seen there before, or in another one.
//!
//! The catalog remembers each target's newest heads. No writer of ours ever removes or changes a head, so one that was seen and is gone
//! tells of a store that was brought back. Such a target is refused, never written to.

use holdfast_catalog::TargetRow;
use holdfast_repository::{Digest, DomainId, HeadSeen, Repository};
use serde::{Deserialize, Serialize};

use crate::appliance::State;
use crate::{Error, ErrorKind, clock};

/// A head as the catalog remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Remembered {
    domain: String,
    sequence: u64,
    digest: String,
    written_ms: u64,
}

impl From<&HeadSeen> for Remembered {
    fn from(head: &HeadSeen) -> Self {
        Self {
            domain: head.domain.to_string(),
            sequence: head.sequence,
            digest: head.digest.to_string(),
            written_ms: head.written_ms,
        }
    }
}

impl Remembered {
    /// Where to look for it; none of a domain that this version cannot name.
    fn place(&self) -> Option<(DomainId, Digest)> {
        Some((self.domain.parse().ok()?, self.digest.parse().ok()?))
    }
}

fn remembered(target: &TargetRow) -> Vec<Remembered> {
    serde_json::from_str(&target.newest_heads).unwrap_or_else(|error| {
        tracing::warn!(target = target.name, %error, "what was seen at this target cannot be read");
        Vec::new()
    })
}

/// Heads that were seen at a target and are not there any more, in words. A domain that was shredded since is not missed.
pub(crate) async fn missed(
    target: &TargetRow,
    repository: &Repository,
    domains: &[DomainId],
) -> Result<Vec<String>, Error> {
    let mut missed = Vec::new();
    for head in remembered(target) {
        let Some((domain, digest)) = head.place().filter(|(domain, _)| domains.contains(domain)) else { continue };
        if !repository.holds_head(domain, head.sequence, digest).await? {
            missed.push(format!(
                "head {} of domain {domain}, written at {}, is not there any more",
                head.sequence,
                clock::text(clock::signed(head.written_ms))
            ));
        }
    }
    Ok(missed)
}

/// Refuses a target that lies in an older state.
pub(crate) async fn must_hold_all(state: &State, target: &TargetRow, repository: &Repository) -> Result<(), Error> {
    let missed = missed(target, repository, &state.keyring.current().domains()).await?;
    if missed.is_empty() {
        return Ok(());
    }
    Err(Error::conflict("rolled-back", format!("the target {} lies in an older state, or was changed: {}", target.name, missed.join("; ")))
        .hint("Nothing is written to it. Compare it with another target. If this state is all that there is, recover from it into a new data directory; a secondary target may be removed and added again."))
}

/// Remembers the newest heads of a target, each of which is there. One that was seen later stays remembered.
pub(crate) async fn remember(state: &State, target: &TargetRow, repository: &Repository) -> Result<(), Error> {
    let seen = repository.newest_heads().await?;
    let row = state.catalog.target_by_uid(&target.uid).await?.unwrap_or_else(|| target.clone());
    let merged = merge(remembered(&row), &seen);
    store(state, target, &merged).await
}

/// Remembers what is there now and nothing else: somebody decided that this is the state to go on from.
pub(crate) async fn start_over(state: &State, target: &TargetRow, repository: &Repository) -> Result<(), Error> {
    let seen = repository.newest_heads().await?;
    store(state, target, &merge(Vec::new(), &seen)).await
}

fn merge(mut known: Vec<Remembered>, seen: &[HeadSeen]) -> Vec<Remembered> {
    for head in seen.iter().map(Remembered::from) {
        match known.iter_mut().find(|one| one.domain == head.domain) {
            Some(one) if one.sequence < head.sequence => *one = head,
            Some(_) => {}
            None => known.push(head),
        }
    }
    known
}

async fn store(state: &State, target: &TargetRow, heads: &[Remembered]) -> Result<(), Error> {
    let text = serde_json::to_string(heads)
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding heads failed: {error}")))?;
    Ok(state.catalog.set_target_heads(&target.uid, text, clock::now_ms()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(domain: u8, sequence: u64) -> HeadSeen {
        HeadSeen { domain: DomainId([domain; 16]), sequence, digest: Digest([7; 32]), written_ms: 9, epoch: 0 }
    }

    #[test]
    fn what_was_seen_later_stays_remembered() {
        let known = merge(Vec::new(), &[seen(1, 5), seen(2, 9)]);
        let merged = merge(known, &[seen(1, 6), seen(2, 3), seen(3, 0)]);
        assert_eq!(merged.iter().map(|head| head.sequence).collect::<Vec<_>>(), [6, 9, 0]);
    }
}
