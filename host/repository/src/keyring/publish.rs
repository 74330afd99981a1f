//! The keyring at a target (FORMAT §7): publishing it for its recipients, and recovering it from there.
//!
//! Nothing is decrypted before its signature led to the verify key that the kit pins.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::Storage;

use super::change::next_key_message;
use super::stored::{Former, SignatureClear};
use super::tenant::{self, Vouched};
use super::{Keyring, RecoveryKit, kit};
use crate::envelope::{Envelope, Verifier, seal_envelope};
use crate::format::{Kind, path};
use crate::layout::RepositoryFile;
use crate::place::Place;
use crate::{Digest, Error, RepositoryId, seal};

/// Writes this keyring for its recipients, unless it is there. Without recipients there is nothing to write.
pub(crate) async fn publish(place: &Place, keyring: &Keyring) -> Result<(), Error> {
    if keyring.recipients().is_empty() || is_published(place, keyring).await? {
        return Ok(());
    }
    let Some(sealed) = kit::seal_for_recipients(keyring)? else { return Ok(()) };
    let clear = SignatureClear {
        generation: keyring.generation(),
        digest: Digest::of(&sealed),
        length: sealed.len() as u64,
        verify_key: keyring.verify_key().0,
        former: keyring.stored.former.clone(),
        extra: Default::default(),
    };
    let signature_path = path::keyring_signature(keyring.generation());
    let signature = seal_envelope(Kind::KeyringSignature, &signature_path, &clear, None, keyring);
    // The signature goes last: without it the age file is not current for anyone.
    place.put(&path::keyring(keyring.generation()), sealed.into()).await?;
    place.put(&signature_path, signature).await
}

/// Whether a sound pair of this generation is there. One that does not fit is left from a kill: it is written again.
async fn is_published(place: &Place, keyring: &Keyring) -> Result<bool, Error> {
    Ok(sealed_of(place, keyring, keyring.generation()).await?.is_some())
}

/// The age file of a generation, if there is one that this repository signed.
pub(crate) async fn sealed_of(place: &Place, keyring: &Keyring, generation: u64) -> Result<Option<Bytes>, Error> {
    let Some(digest) = signed_digest(place, keyring, generation).await? else { return Ok(None) };
    let is_signed = |sealed: &Bytes| Digest::of(sealed) == digest;
    Ok(place.find_genuine(&path::keyring(generation), is_signed).await?.filter(is_signed))
}

/// The digest that this repository signed for a generation, if it did.
async fn signed_digest(place: &Place, keyring: &Keyring, generation: u64) -> Result<Option<Digest>, Error> {
    let path = path::keyring_signature(generation);
    let open = |bytes: &Bytes| {
        let opened = Envelope::<SignatureClear>::open(Kind::KeyringSignature, &path, bytes.clone(), keyring);
        opened.ok().map(|signature| signature.clear.digest)
    };
    let found = place.find_genuine(&path, |bytes| open(bytes).is_some()).await?;
    Ok(found.and_then(|bytes| open(&bytes)))
}

/// The highest generation at a target that this repository signed.
pub(crate) async fn newest_generation(place: &Place, keyring: &Keyring) -> Result<Option<u64>, Error> {
    for generation in generations(place.paths_ever(path::KEYRING).await?.into_iter()) {
        if signed_digest(place, keyring, generation).await?.is_some() {
            return Ok(Some(generation));
        }
    }
    Ok(None)
}

/// Removes every published generation below one, which is here in a sound pair. Readers refuse them anyway once heads need more.
/// Returns those that the place did not let go, with its reason.
///
/// Errors: the store does not answer.
pub(crate) async fn retire(place: &Place, keyring: &Keyring) -> Result<Vec<(String, Error)>, Error> {
    if !is_published(place, keyring).await? {
        return Ok(Vec::new());
    }
    let mut kept = Vec::new();
    for one in place.list(path::KEYRING).await? {
        let Some(generation) = path::keyring_generation(&one.path) else { continue };
        if generation < keyring.generation() {
            match place.delete(&one.path).await {
                Ok(()) => {}
                Err(error) if error.is_permanent() => kept.push((one.path, error)),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(kept)
}

/// Generations that are listed, highest first.
fn generations(paths: impl Iterator<Item = String>) -> Vec<u64> {
    let mut generations: Vec<_> = paths.filter_map(|path| path::signature_generation(&path)).collect();
    generations.sort_unstable_by(|left, right| right.cmp(left));
    generations
}

/// Opens the keyring at a target with a recovery identity. Without a pin in the kit, only if `trust` is set. What the identity of a tenant opens
/// is a keyring that reads its own backups, and does nothing else.
///
/// Errors: no keyring there; no recipient fits this identity; the signature does not lead to the pinned verify key; another repository.
pub async fn recover_keyring(storage: Arc<dyn Storage>, kit: &RecoveryKit, trust: bool) -> Result<Keyring, Error> {
    let place = Place::new(storage)?;
    let found = repository_at(&place, kit).await?;
    let pinned = match (kit.repository(), kit.verify_key()) {
        (Some(expected), _) if expected != found => {
            return Err(Error::OtherRepository { location: place.location(), found, expected });
        }
        (Some(_), Some(verify_key)) => Some(verify_key.0),
        _ if trust => None,
        _ => return Err(Error::NotPinned),
    };
    let mut newest_error = None;
    for generation in generations(place.paths_ever(path::KEYRING).await?.into_iter()) {
        match open_published(&place, kit, found, pinned, generation).await {
            Ok(keyring) => return Ok(keyring),
            // A place that does not answer, or a kit of somebody else, is no reason to take an older keyring.
            Err(error @ (Error::Storage(_) | Error::WrongIdentity { .. })) if !error.is_not_found() => {
                return Err(error);
            }
            Err(error) => newest_error = newest_error.or(Some(error)),
        }
    }
    Err(newest_error.unwrap_or_else(|| Error::NoKeyring { location: place.location() }))
}

/// The repository that lies there: the one that the kit pins, where the place keeps several versions.
async fn repository_at(place: &Place, kit: &RecoveryKit) -> Result<RepositoryId, Error> {
    let is_pinned = |bytes: &Bytes| match (RepositoryFile::parse(bytes), kit.repository()) {
        (Ok(found), Some(pinned)) => found == pinned,
        (found, _) => found.is_ok(),
    };
    match place.find_genuine(path::REPOSITORY, is_pinned).await? {
        Some(bytes) => RepositoryFile::parse(&bytes),
        None => Err(Error::NoRepository { location: place.location() }),
    }
}

async fn open_published(
    place: &Place,
    kit: &RecoveryKit,
    repository: RepositoryId,
    pinned: Option<[u8; 32]>,
    generation: u64,
) -> Result<Keyring, Error> {
    let signature_path = path::keyring_signature(generation);
    let trusted = |bytes: &Bytes| trusted_signature(bytes, repository, pinned, generation);
    let lost = |path: String| Error::Lost { path, location: place.location() };
    let signature = place.find_genuine(&signature_path, |bytes| trusted(bytes).is_ok()).await?;
    let signed = trusted(&signature.ok_or_else(|| lost(signature_path))?)?;
    let is_signed = |sealed: &Bytes| Digest::of(sealed) == signed.digest && sealed.len() as u64 == signed.length;
    let sealed = place.find_genuine(&path::keyring(generation), is_signed).await?;
    let sealed = sealed.ok_or_else(|| lost(path::keyring(generation)))?;
    if !is_signed(&sealed) {
        return Err(Error::Exchanged { path: path::keyring(generation), expected: signed.digest });
    }
    let keyring = match kit.open_keyring(&sealed) {
        Err(refused @ Error::WrongIdentity { .. }) => {
            let SignatureClear { verify_key, former, .. } = signed;
            let of = Vouched { repository, generation, verify_key, former };
            return tenant::recover(place, kit, of).await?.ok_or(refused);
        }
        keyring => keyring?,
    };
    let fits = keyring.repository() == repository
        && keyring.verify_key().0 == signed.verify_key
        && keyring.generation() == generation;
    if fits { Ok(keyring) } else { Err(Error::UntrustedKeyring { path: path::keyring_signature(generation) }) }
}

/// What the signature of a published keyring says, once it leads to the pinned verify key.
fn trusted_signature(
    bytes: &Bytes,
    repository: RepositoryId,
    pinned: Option<[u8; 32]>,
    generation: u64,
) -> Result<SignatureClear, Error> {
    let path = path::keyring_signature(generation);
    let untrusted = || Error::UntrustedKeyring { path: path.clone() };
    let signature = Envelope::<SignatureClear>::parse(Kind::KeyringSignature, &path, bytes.clone())?;
    let signed = &signature.clear;
    signature.verify(&KeyOf { repository, verify_key: signed.verify_key }).map_err(|_| untrusted())?;
    let leads = pinned.is_none_or(|pinned| leads_to(repository, pinned, &signed.former, signed.verify_key));
    if leads && signed.generation == generation { Ok(signature.clear) } else { Err(untrusted()) }
}

/// A repository and one verify key that its signature must be of.
struct KeyOf {
    repository: RepositoryId,
    verify_key: [u8; 32],
}

impl Verifier for KeyOf {
    fn repository(&self) -> RepositoryId {
        self.repository
    }
    fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        seal::is_signed(&self.verify_key, message, signature)
    }
}

/// Whether the chain of signatures reaches from the pinned verify key to the present one.
fn leads_to(repository: RepositoryId, pinned: [u8; 32], former: &[Former], present: [u8; 32]) -> bool {
    if pinned == present {
        return true;
    }
    let Some(from) = former.iter().position(|(key, _)| *key == pinned) else { return false };
    let next_keys = former[from + 1..].iter().map(|(key, _)| *key).chain([present]);
    former[from..]
        .iter()
        .zip(next_keys)
        .all(|((key, signature), next)| seal::is_signed(key, &next_key_message(repository, &next), signature))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Secret;

    const REPOSITORY: RepositoryId = RepositoryId([7; 16]);

    fn key(seed: u8) -> [u8; 32] {
        seal::verify_key(&Secret([seed; 32]))
    }

    fn next(seed: u8, next: [u8; 32]) -> Former {
        (key(seed), seal::sign(&Secret([seed; 32]), &next_key_message(REPOSITORY, &next)))
    }

    #[test]
    fn an_old_kit_pins_the_whole_chain() {
        let former = [next(1, key(2)), next(2, key(3))];
        for pinned in 1..=3 {
            assert!(leads_to(REPOSITORY, key(pinned), &former, key(3)), "{pinned}");
        }
        assert!(!leads_to(REPOSITORY, key(4), &former, key(3)));
        assert!(!leads_to(REPOSITORY, key(1), &former, key(4)));
        assert!(!leads_to(REPOSITORY, key(1), &[next(1, key(9)), next(2, key(3))], key(3)));
        assert!(!leads_to(RepositoryId([8; 16]), key(1), &former, key(3)));
    }

    #[test]
    fn generations_are_tried_from_the_highest() {
        let paths = ["keyring/2.sig", "keyring/10.sig", "keyring/9.age", "keyring/x.sig"];
        assert_eq!(generations(paths.into_iter().map(str::to_owned)), [10, 2]);
    }
}
