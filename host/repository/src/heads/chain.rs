//! Reading the chain: find the newest head, walk back to a checkpoint or to 0, apply forward.
//!
//! A listing may lag or lie, so it only says where to begin; every head must be signed, in its place, and name the digest
//! of the one before it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::DomainState;
use crate::envelope::Envelope;
use crate::format::cbor;
use crate::format::directory::DirectoryChange;
use crate::format::head::{Head, INCOMPATIBLE_KNOWN};
use crate::format::{Kind, path};
use crate::keyring::Keyring;
use crate::place::Place;
use crate::{DomainId, Error};

/// A head whose sequence is a multiple of this is a checkpoint, if it is not too long.
pub(crate) const CHECKPOINT_EVERY: u64 = 256;
/// Heads that are fetched at once.
const FETCHES: usize = 16;

/// Brings a domain's state up to the newest head.
pub(crate) async fn read_on(
    place: &Place,
    keyring: &Keyring,
    domain: DomainId,
    state: &mut Arc<DomainState>,
) -> Result<(), Error> {
    if state.tip.is_none()
        && let Some(newest) = newest(place, keyring, domain).await?
    {
        for (sequence, head) in read_back(place, keyring, domain, newest).await? {
            follow_either(place, keyring, domain, state, sequence, Ok(head)).await?;
        }
    }
    // The listing may lag behind, and others may have committed since.
    loop {
        let sequence = state.next_sequence();
        match find(place, keyring, domain, sequence).await? {
            Some(bytes) if is_strange(place, keyring, domain, sequence, &bytes).await? => return Ok(()),
            Some(bytes) => {
                let head = parse(domain, sequence, bytes);
                follow_either(place, keyring, domain, state, sequence, head).await?;
            }
            None => return Ok(()),
        }
    }
}

/// Where the chain ends, by the listing. Of a place that keeps versions only what we signed counts: there a stranger's object can
/// stand in the way of nothing, for it can be written over and loses nothing.
async fn newest(place: &Place, keyring: &Keyring, domain: DomainId) -> Result<Option<u64>, Error> {
    let mut paths = place.paths_ever(&path::heads(domain)).await?;
    paths.extend(place.paths_ever(&path::twins(domain)).await?);
    let mut sequences: Vec<u64> = paths.iter().filter_map(|path| path::head_sequence(domain, path)).collect();
    sequences.sort_unstable();
    if !place.keeps_versions().await? {
        return Ok(sequences.pop());
    }
    while let Some(sequence) = sequences.pop() {
        match find(place, keyring, domain, sequence).await? {
            Some(bytes) if is_strange(place, keyring, domain, sequence, &bytes).await? => {}
            _ => return Ok(Some(sequence)),
        }
    }
    Ok(None)
}

/// A head, as far as the place has one that we signed.
async fn find(place: &Place, keyring: &Keyring, domain: DomainId, sequence: u64) -> Result<Option<Bytes>, Error> {
    let path = path::head(domain, sequence);
    if !place.keeps_versions().await? {
        // There is no other one: its signature is checked when it is applied, once.
        return place.find(&path).await;
    }
    place.find_genuine(&path, |bytes| is_signed(keyring, domain, sequence, bytes)).await
}

/// The second copy of a head, if it is sound.
async fn find_twin(place: &Place, keyring: &Keyring, domain: DomainId, sequence: u64) -> Result<Option<Bytes>, Error> {
    let is_ours = |bytes: &Bytes| is_signed(keyring, domain, sequence, bytes);
    let twin = place.find_genuine(&path::twin(domain, sequence), is_ours).await?.filter(is_ours);
    if twin.is_some() {
        tracing::warn!(%domain, sequence, location = %place.location(), "a head is damaged or gone: its second copy was read");
    }
    Ok(twin)
}

/// Whether an object under a head's name is none of ours, at a place where that does no harm. Elsewhere it is damage.
pub(crate) async fn is_strange(
    place: &Place,
    keyring: &Keyring,
    domain: DomainId,
    sequence: u64,
    bytes: &Bytes,
) -> Result<bool, Error> {
    Ok(place.keeps_versions().await? && !is_signed(keyring, domain, sequence, bytes))
}

fn is_signed(keyring: &Keyring, domain: DomainId, sequence: u64, bytes: &Bytes) -> bool {
    Envelope::<Head>::open(Kind::Head, &path::head(domain, sequence), bytes.clone(), keyring).is_ok()
}

/// The heads from the last checkpoint, or from 0, to `newest`.
async fn read_back(
    place: &Place,
    keyring: &Keyring,
    domain: DomainId,
    newest: u64,
) -> Result<Vec<(u64, Envelope<Head>)>, Error> {
    let mut heads = Vec::new();
    let mut last = newest;
    loop {
        let first = last - last % CHECKPOINT_EVERY;
        let mut block: Vec<(u64, Envelope<Head>)> = stream::iter((first..=last).rev())
            .map(|sequence| fetch(place, keyring, domain, sequence))
            .buffered(FETCHES)
            .try_collect()
            .await?;
        heads.append(&mut block);
        if first == 0 || heads.last().is_some_and(|(_, head)| head.clear.checkpoint) {
            heads.reverse();
            return Ok(heads);
        }
        last = first - 1;
    }
}

/// A head as it lies there, or its second copy where it is gone or no head at all.
async fn fetch(
    place: &Place,
    keyring: &Keyring,
    domain: DomainId,
    sequence: u64,
) -> Result<(u64, Envelope<Head>), Error> {
    let missing = || Error::ChainBroken { path: path::head(domain, sequence), reason: "it is missing" };
    let head = match find(place, keyring, domain, sequence).await {
        Ok(found) => found.ok_or_else(missing).and_then(|bytes| parse(domain, sequence, bytes)),
        Err(Error::Storage(error)) if error.is_permanent() => Err(error.into()),
        Err(error) => return Err(error),
    };
    // Of one that may be a checkpoint it is asked whether it is, before it is followed.
    let may_end = sequence > 0 && sequence.is_multiple_of(CHECKPOINT_EVERY);
    match head {
        Ok(head) if !may_end || head.verify(keyring).is_ok() => Ok((sequence, head)),
        head => match find_twin(place, keyring, domain, sequence).await? {
            Some(twin) => Ok((sequence, parse(domain, sequence, twin)?)),
            None => head.map(|head| (sequence, head)),
        },
    }
}

/// Follows what lies in a head's place, or its second copy where that is damaged.
async fn follow_either(
    place: &Place,
    keyring: &Keyring,
    domain: DomainId,
    state: &mut Arc<DomainState>,
    sequence: u64,
    head: Result<Envelope<Head>, Error>,
) -> Result<(), Error> {
    let followed = match head {
        Ok(head) => follow(keyring, domain, state, sequence, head),
        Err(error) => Err(error),
    };
    let Err(error) = followed else { return Ok(()) };
    match find_twin(place, keyring, domain, sequence).await? {
        Some(twin) => follow(keyring, domain, state, sequence, parse(domain, sequence, twin)?).map_err(|_| error),
        None => Err(error),
    }
}

/// Takes a head apart, and checks nothing yet.
pub(crate) fn parse(domain: DomainId, sequence: u64, bytes: Bytes) -> Result<Envelope<Head>, Error> {
    Envelope::parse(Kind::Head, &path::head(domain, sequence), bytes)
}

/// Checks that a head is ours and follows, and applies it.
fn follow(
    keyring: &Keyring,
    domain: DomainId,
    state: &mut Arc<DomainState>,
    sequence: u64,
    head: Envelope<Head>,
) -> Result<(), Error> {
    let change = check(keyring, domain, state, sequence, &head)?;
    let digest = head.digest();
    // Copied only where somebody still looks at what was.
    Arc::make_mut(state).apply(domain, head.clear, digest, change);
    Ok(())
}

/// Checks that a head is ours and follows; gives what it changes in the directory.
pub(crate) fn check(
    keyring: &Keyring,
    domain: DomainId,
    state: &DomainState,
    sequence: u64,
    envelope: &Envelope<Head>,
) -> Result<DirectoryChange, Error> {
    envelope.verify(keyring)?;
    let head = &envelope.clear;
    let path = || path::head(domain, sequence);
    let broken = |reason| Error::ChainBroken { path: path(), reason };
    let unknown = head.incompatible & !INCOMPATIBLE_KNOWN;
    if unknown != 0 {
        return Err(Error::NewerFormat { path: path(), bits: unknown });
    }
    if head.sequence != sequence {
        return Err(broken("its number is another"));
    }
    match state.tip {
        Some(tip) if head.previous != Some(tip.digest) => return Err(broken("it does not follow the head before it")),
        None if head.previous.is_some() && !head.checkpoint => return Err(broken("the heads before it are missing")),
        _ => {}
    }
    if head.epoch < state.epoch {
        return Err(broken("its epoch is below that of the head before it"));
    }
    let plaintext = envelope.unseal(keyring.domain(domain)?.index_key())?;
    cbor::decode(&plaintext).map_err(envelope.damaged())
}
