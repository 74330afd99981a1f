//! The envelope (FORMAT §2): what all signed objects share. Clear part first, sealed part, signature last.
//!
//! A signature binds an object to its repository and its path: it can be moved to neither another.

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::format::cbor::{self, Value};
use crate::format::{Kind, Malformed, PREAMBLE};
use crate::seal::{self, Purpose, SIGNATURE, Secret};
use crate::{Digest, Error, RepositoryId};

/// An object in its parts, not vouched for yet.
#[derive(Debug)]
pub(crate) struct Envelope<C> {
    kind: Kind,
    path: String,
    pub(crate) clear: C,
    bytes: Bytes,
    /// Where the sealed part begins.
    sealed: usize,
}

/// What signs: it has the repository's id and its signing key.
pub(crate) trait Signer {
    fn repository(&self) -> RepositoryId;
    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE];
}

/// What checks signatures.
pub(crate) trait Verifier {
    fn repository(&self) -> RepositoryId;
    fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool;
}

/// The bytes that are signed for an object at `path`, of whose unsigned bytes this is the hash.
fn signed_message(repository: RepositoryId, path: &str, unsigned: blake3::Hash) -> Vec<u8> {
    let mut message = b"holdfast v1 signature\0".to_vec();
    message.extend(repository.0);
    message.extend((path.len() as u16).to_le_bytes());
    message.extend(path.as_bytes());
    message.extend(unsigned.as_bytes());
    message
}

/// Makes an object: `seal` is the sealed part's key and plaintext.
pub(crate) fn seal_envelope(
    kind: Kind,
    path: &str,
    clear: &impl Value,
    seal: Option<(&Secret, &[u8])>,
    signer: &impl Signer,
) -> Bytes {
    let clear = cbor::encode(clear);
    let mut bytes = kind.preamble().to_vec();
    bytes.extend((clear.len() as u32).to_le_bytes());
    bytes.extend(clear);
    if let Some((key, plaintext)) = seal {
        let purpose = Purpose::object(kind, &bytes);
        seal::seal_part(&mut bytes, key, &purpose, plaintext);
    }
    let signature = signer.sign(&signed_message(signer.repository(), path, blake3::hash(&bytes)));
    bytes.extend(signature);
    bytes.into()
}

impl<C: Value> Envelope<C> {
    /// Takes an object apart.
    pub(crate) fn parse(kind: Kind, path: &str, bytes: Bytes) -> Result<Self, Error> {
        let (clear, sealed) = split(kind, &bytes).map_err(Error::damaged(path))?;
        let clear = cbor::decode(clear).map_err(Error::damaged(path))?;
        Ok(Self { kind, path: path.to_owned(), clear, bytes, sealed })
    }

    /// Takes an object apart and checks its signature.
    pub(crate) fn open(kind: Kind, path: &str, bytes: Bytes, verifier: &impl Verifier) -> Result<Self, Error> {
        let envelope = Self::parse(kind, path, bytes)?;
        envelope.verify(verifier)?;
        Ok(envelope)
    }

    /// Checks its signature; gives the digest of the whole object, for which its bytes need not be hashed again.
    pub(crate) fn verify(&self, verifier: &impl Verifier) -> Result<Digest, Error> {
        let (unsigned, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE);
        let mut hasher = blake3::Hasher::new();
        hasher.update(unsigned);
        let message = signed_message(verifier.repository(), &self.path, hasher.finalize());
        if verifier.is_signed(&message, signature) {
            Ok(Digest(*hasher.update(signature).finalize().as_bytes()))
        } else {
            Err(Error::Unsigned { path: self.path.clone() })
        }
    }

    /// Opens the sealed part.
    pub(crate) fn unseal(&self, key: &Secret) -> Result<Zeroizing<Vec<u8>>, Error> {
        let purpose = Purpose::object(self.kind, &self.bytes[..self.sealed]);
        let sealed = &self.bytes[self.sealed..self.bytes.len() - SIGNATURE];
        seal::open_part(key, &purpose, sealed).map_err(|_| Error::Sealed { path: self.path.clone() })
    }

    /// The clear part alone; the bytes go.
    pub(crate) fn into_clear(self) -> C {
        self.clear
    }

    /// For errors about what lies inside.
    pub(crate) fn damaged(&self) -> impl FnOnce(Malformed) -> Error + use<C> {
        Error::damaged(self.path.clone())
    }
}

/// The clear part, and where the sealed part begins.
fn split(kind: Kind, bytes: &[u8]) -> Result<(&[u8], usize), Malformed> {
    let rest = kind.strip(bytes)?;
    let (length, rest) = crate::format::split_u32(rest)?;
    let clear = rest.get(..length as usize).ok_or(Malformed("a length is beyond the object"))?;
    let sealed = PREAMBLE + 4 + clear.len();
    if bytes.len() < sealed + SIGNATURE {
        return Err(Malformed("the object ends too early"));
    }
    Ok((clear, sealed))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Key(RepositoryId);
    impl Signer for Key {
        fn repository(&self) -> RepositoryId {
            self.0
        }
        fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
            seal::sign(&Secret([5; 32]), message)
        }
    }
    impl Verifier for Key {
        fn repository(&self) -> RepositoryId {
            self.0
        }
        fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
            seal::is_signed(&seal::verify_key(&Secret([5; 32])), message, signature)
        }
    }
    const KEY: Key = Key(RepositoryId([1; 16]));

    fn sample() -> Bytes {
        seal_envelope(Kind::Index, "a/b", &7_u64, Some((&Secret([2; 32]), b"inside")), &KEY)
    }

    #[test]
    fn an_envelope_without_seal_has_these_bytes() {
        let bytes = seal_envelope(Kind::Keys, "k", &7_u64, None, &KEY);
        let unsigned = hex::decode("48465354060100000100000007").unwrap();
        let message =
            [&b"holdfast v1 signature\0"[..], &[1; 16], &[1, 0], b"k", blake3::hash(&unsigned).as_bytes()].concat();
        let signature = seal::sign(&Secret([5; 32]), &message);
        assert_eq!(bytes, [&unsigned[..], &signature].concat());
    }

    #[test]
    fn an_envelope_opens_at_its_own_place_alone() {
        let sample = sample();
        let open = |path: &str, key: &Key| Envelope::<u64>::open(Kind::Index, path, sample.clone(), key);
        let envelope = open("a/b", &KEY).unwrap();
        assert_eq!((envelope.clear, &**envelope.unseal(&Secret([2; 32])).unwrap()), (7, &b"inside"[..]));
        assert_eq!(envelope.verify(&KEY).unwrap(), Digest::of(&sample));
        assert!(matches!(envelope.unseal(&Secret([3; 32])), Err(Error::Sealed { .. })));
        assert!(matches!(open("a/c", &KEY), Err(Error::Unsigned { .. })));
        assert!(matches!(open("a/b", &Key(RepositoryId([2; 16]))), Err(Error::Unsigned { .. })));
    }

    #[test]
    fn every_changed_or_missing_byte_is_found() {
        let sample = sample();
        for position in 0..sample.len() {
            let mut spoilt = sample.to_vec();
            spoilt[position] ^= 1;
            assert!(Envelope::<u64>::open(Kind::Index, "a/b", spoilt.into(), &KEY).is_err(), "{position}");
            let cut = sample.slice(..position);
            assert!(Envelope::<u64>::open(Kind::Index, "a/b", cut, &KEY).is_err(), "{position}");
        }
    }
}
