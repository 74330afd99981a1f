//! Reading the chain: find the newest head, look back for a checkpoint or go to 0, apply forward.
//!
//! A listing may lag or lie, so it only says where to begin; every head must be signed, in its place, and name the digest
//! of the one before it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join;
use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::DomainState;
use crate::envelope::Envelope;
use crate::format::cbor;
use crate::format::directory::DirectoryChange;
use crate::format::head::{Head, INCOMPATIBLE_KNOWN};
use crate::format::{Kind, path};
use crate::keyring::Keyring;
use crate::place::Place;
use crate::{Digest, DomainId, Error};

/// A head whose sequence is a multiple of this is a checkpoint, if it is not too long.
pub(crate) const CHECKPOINT_EVERY: u64 = 256;
/// Heads that are fetched at once.
const FETCHES: usize = 32;

/// Brings a domain's state up to the newest head.
pub(crate) async fn read_on(
    place: &Place,
    keyring: &Arc<Keyring>,
    domain: DomainId,
    state: &mut Arc<DomainState>,
) -> Result<(), Error> {
    if state.tip.is_none()
        && let Some(newest) = newest(place, keyring, domain).await?
    {
        *state = read_through(place, keyring, domain, newest).await?;
    }
    // The listing may lag behind, and others may have committed since.
    loop {
        let sequence = state.next_sequence();
        match find(place, keyring, domain, sequence).await? {
            Some(bytes) if is_strange(place, keyring, domain, sequence, &bytes).await? => return Ok(()),
            Some(bytes) => {
                let head =
                    own_or_twin(place, keyring, domain, sequence, OwnHead::open(keyring, domain, sequence, bytes));
                follow_either(place, keyring, domain, state, sequence, head.await?).await?;
            }
            None => return Ok(()),
        }
    }
}

/// Where the chain ends, by the listing. Of a place that keeps versions only what we signed counts: there a stranger's object can
/// stand in the way of nothing, for it can be written over and loses nothing.
async fn newest(place: &Place, keyring: &Keyring, domain: DomainId) -> Result<Option<u64>, Error> {
    let (heads, twins) = (path::heads(domain), path::twins(domain));
    let (heads, twins) = try_join(place.paths_ever(&heads), place.paths_ever(&twins)).await?;
    let paths = heads.iter().chain(&twins);
    let mut sequences: Vec<u64> = paths.filter_map(|path| path::head_sequence(domain, path)).collect();
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
pub(crate) async fn find(
    place: &Place,
    keyring: &Keyring,
    domain: DomainId,
    sequence: u64,
) -> Result<Option<Bytes>, Error> {
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

/// What the heads from the last checkpoint on, or from 0, to `newest` add up to. Where one cannot be read, or does not follow, there is
/// no state at all: half a chain must not be taken for a whole one.
async fn read_through(
    place: &Place,
    keyring: &Arc<Keyring>,
    domain: DomainId,
    newest: u64,
) -> Result<Arc<DomainState>, Error> {
    let mut state = Arc::default();
    let (first, head) = beginning(place, keyring, domain, newest).await?;
    follow_either(place, keyring, domain, &mut state, first, head).await?;
    // Their numbers are known: they are fetched side by side and opened on all cores; only following them has an order.
    let begin = |sequence| {
        let (reader, keyring) = (place.clone(), Arc::clone(keyring));
        let reading = async move { read(&reader, &keyring, domain, sequence).await };
        place.runtime().spawn(reading).map(move |head| (sequence, head))
    };
    let mut heads = stream::iter(first + 1..=newest).map(begin).buffered(FETCHES);
    while let Some((sequence, head)) = heads.next().await {
        let head = head.map_err(|_| Error::RuntimeStopped)??;
        follow_either(place, keyring, domain, &mut state, sequence, head).await?;
    }
    Ok(state)
}

/// The last checkpoint up to `newest`, or the first head of all.
async fn beginning(place: &Place, keyring: &Keyring, domain: DomainId, newest: u64) -> Result<(u64, OwnHead), Error> {
    let mut sequence = newest - newest % CHECKPOINT_EVERY;
    loop {
        let head = read(place, keyring, domain, sequence).await?;
        if head.clear.checkpoint || sequence == 0 {
            return Ok((sequence, head));
        }
        sequence -= CHECKPOINT_EVERY;
    }
}

/// A head as it lies there, or its second copy where it is gone, damaged or not ours.
async fn read(place: &Place, keyring: &Keyring, domain: DomainId, sequence: u64) -> Result<OwnHead, Error> {
    let missing = || Error::ChainBroken { path: path::head(domain, sequence), reason: "it is missing" };
    let head = match find(place, keyring, domain, sequence).await {
        Ok(found) => found.ok_or_else(missing).and_then(|bytes| OwnHead::open(keyring, domain, sequence, bytes)),
        Err(Error::Storage(error)) if error.is_permanent() => Err(error.into()),
        Err(error) => return Err(error),
    };
    own_or_twin(place, keyring, domain, sequence, head).await
}

/// A head, or its second copy where it could not be opened.
async fn own_or_twin(
    place: &Place,
    keyring: &Keyring,
    domain: DomainId,
    sequence: u64,
    head: Result<OwnHead, Error>,
) -> Result<OwnHead, Error> {
    match head {
        Ok(head) => Ok(head),
        Err(error) => match find_twin(place, keyring, domain, sequence).await? {
            Some(twin) => OwnHead::open(keyring, domain, sequence, twin).map_err(|_| error),
            None => Err(error),
        },
    }
}

/// Follows a head, or its second copy where that one does not follow.
async fn follow_either(
    place: &Place,
    keyring: &Keyring,
    domain: DomainId,
    state: &mut Arc<DomainState>,
    sequence: u64,
    head: OwnHead,
) -> Result<(), Error> {
    let Err(error) = head.must_follow(domain, state) else {
        head.apply(domain, state);
        return Ok(());
    };
    let Some(twin) = find_twin(place, keyring, domain, sequence).await? else { return Err(error) };
    match OwnHead::open(keyring, domain, sequence, twin) {
        Ok(twin) if twin.must_follow(domain, state).is_ok() => {
            twin.apply(domain, state);
            Ok(())
        }
        _ => Err(error),
    }
}

/// A head of ours, opened; whether it follows the one before it is another question.
#[derive(Debug)]
pub(crate) struct OwnHead {
    pub(crate) digest: Digest,
    clear: Head,
    change: DirectoryChange,
}

impl OwnHead {
    /// Opens what lies in the place of the head of this number.
    ///
    /// Errors: it is damaged, not signed by us for this place, or needs a later version.
    pub(crate) fn open(keyring: &Keyring, domain: DomainId, sequence: u64, bytes: Bytes) -> Result<Self, Error> {
        let path = path::head(domain, sequence);
        let envelope = Envelope::<Head>::parse(Kind::Head, &path, bytes)?;
        let digest = envelope.verify(keyring)?;
        let unknown = envelope.clear.incompatible & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            return Err(Error::NewerFormat { path, bits: unknown });
        }
        if envelope.clear.sequence != sequence {
            return Err(Error::ChainBroken { path, reason: "its number is another" });
        }
        let plaintext = envelope.unseal(keyring.domain(domain)?.index_key())?;
        let change = cbor::decode(&plaintext).map_err(envelope.damaged())?;
        Ok(Self { digest, clear: envelope.into_clear(), change })
    }

    /// Refuses where it does not follow the newest head of `state`.
    pub(crate) fn must_follow(&self, domain: DomainId, state: &DomainState) -> Result<(), Error> {
        let head = &self.clear;
        let broken = |reason| Error::ChainBroken { path: path::head(domain, head.sequence), reason };
        match state.tip {
            Some(tip) if head.previous != Some(tip.digest) => Err(broken("it does not follow the head before it")),
            None if head.previous.is_some() && !head.checkpoint => Err(broken("the heads before it are missing")),
            _ if head.epoch < state.epoch => Err(broken("its epoch is below that of the head before it")),
            _ => Ok(()),
        }
    }

    /// Makes it the newest head of `state`, which it follows.
    pub(crate) fn apply(self, domain: DomainId, state: &mut Arc<DomainState>) {
        // Copied only where somebody still looks at what was.
        Arc::make_mut(state).apply(domain, self.clear, self.digest, self.change);
    }
}
