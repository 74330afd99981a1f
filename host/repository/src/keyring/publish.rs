//! The keyring at a target (FORMAT §7): publishing it for its recipients, and recovering it from there.
//!
//! Nothing is decrypted before its signature led to the verify key that the kit pins.

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
    let signature_path = path::keyring_signature(keyring.generation());
    let Some(signature) = place.find(&signature_path).await? else { return Ok(false) };
    let Ok(signature) = Envelope::<SignatureClear>::open(Kind::KeyringSignature, &signature_path, signature, keyring)
    else {
        return Ok(false);
    };
    let sealed = place.find(&path::keyring(keyring.generation())).await?;
    Ok(sealed.is_some_and(|sealed| Digest::of(&sealed) == signature.clear.digest))
}

/// The highest generation at a target that this repository signed.
pub(crate) async fn newest_generation(place: &Place, keyring: &Keyring) -> Result<Option<u64>, Error> {
    let listed = place.list(path::KEYRING).await?;
    for generation in generations(listed.into_iter().map(|one| one.path)) {
        let path = path::keyring_signature(generation);
        let Some(bytes) = place.find(&path).await? else { continue };
        if Envelope::<SignatureClear>::open(Kind::KeyringSignature, &path, bytes, keyring).is_ok() {
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
pub async fn recover_keyring(storage: &dyn Storage, kit: &RecoveryKit, trust: bool) -> Result<Keyring, Error> {
    let found = repository_at(storage).await?;
    let pinned = match (kit.repository(), kit.verify_key()) {
        (Some(expected), _) if expected != found => {
            return Err(Error::OtherRepository { location: storage.location(), found, expected });
        }
        (Some(_), Some(verify_key)) => Some(verify_key.0),
        _ if trust => None,
        _ => return Err(Error::NotPinned),
    };
    let listed = storage.list(path::KEYRING).await?;
    let mut newest_error = None;
    for generation in generations(listed.into_iter().map(|one| one.path)) {
        match open_published(storage, kit, found, pinned, generation).await {
            Ok(keyring) => return Ok(keyring),
            // A place that does not answer, or a kit of somebody else, is no reason to take an older keyring.
            Err(error @ (Error::Storage(_) | Error::WrongIdentity { .. })) if !error.is_not_found() => {
                return Err(error);
            }
            Err(error) => newest_error = newest_error.or(Some(error)),
        }
    }
    Err(newest_error.unwrap_or_else(|| Error::NoKeyring { location: storage.location() }))
}

async fn repository_at(storage: &dyn Storage) -> Result<RepositoryId, Error> {
    match storage.get(path::REPOSITORY, None).await {
        Ok(bytes) => RepositoryFile::parse(&bytes),
        Err(holdfast_storage::Error::NotFound { .. }) => Err(Error::NoRepository { location: storage.location() }),
        Err(error) => Err(error.into()),
    }
}

/// What the signature of a published keyring says, once it leads to the pinned verify key.
async fn read_signature(
    storage: &dyn Storage,
    repository: RepositoryId,
    pinned: Option<[u8; 32]>,
    generation: u64,
) -> Result<SignatureClear, Error> {
    let path = path::keyring_signature(generation);
    let untrusted = || Error::UntrustedKeyring { path: path.clone() };
    let signature = storage.get(&path, None).await?;
    let signature = Envelope::<SignatureClear>::parse(Kind::KeyringSignature, &path, signature)?;
    let signed = &signature.clear;
    signature.verify(&KeyOf { repository, verify_key: signed.verify_key }).map_err(|_| untrusted())?;
    let leads = pinned.is_none_or(|pinned| leads_to(repository, pinned, &signed.former, signed.verify_key));
    if leads && signed.generation == generation { Ok(signature.clear) } else { Err(untrusted()) }
}

async fn open_published(
    storage: &dyn Storage,
    kit: &RecoveryKit,
    repository: RepositoryId,
    pinned: Option<[u8; 32]>,
    generation: u64,
) -> Result<Keyring, Error> {
    let signed = read_signature(storage, repository, pinned, generation).await?;
    let sealed = storage.get(&path::keyring(generation), None).await?;
    if Digest::of(&sealed) != signed.digest || sealed.len() as u64 != signed.length {
        return Err(Error::Exchanged { path: path::keyring(generation), expected: signed.digest });
    }
    let keyring = match kit.open_keyring(&sealed) {
        Err(refused @ Error::WrongIdentity { .. }) => {
            let SignatureClear { verify_key, former, .. } = signed;
            let of = Vouched { repository, generation, verify_key, former };
            return tenant::recover(storage, kit, of).await?.ok_or(refused);
        }
        keyring => keyring?,
    };
    let fits = keyring.repository() == repository
        && keyring.verify_key().0 == signed.verify_key
        && keyring.generation() == generation;
    if fits { Ok(keyring) } else { Err(Error::UntrustedKeyring { path: path::keyring_signature(generation) }) }
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
