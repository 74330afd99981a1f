//! Sealing, signing and randomness: with `keyring/`, the only place that knows the cryptographic library.
//!
//! A sealed part opens under one key only (its commitment is compared before any frame is opened) and for one purpose
//! only (kind and clear part are bound into the key). Secrets are wiped when dropped and never shown.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::rand::SecureRandom;
use ring::{hkdf, signature};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::format::cbor::{Reader, Value};
use crate::format::{Kind, Malformed};

/// Plaintext bytes of a full frame.
const FRAME: usize = 256 * 1024;
/// Bytes that authentication adds.
pub(crate) const TAG: usize = 16;
/// Bytes before the frames of a sealed part: salt and commitment.
const PART_HEAD: usize = 64;
/// Bytes of an Ed25519 signature.
pub(crate) const SIGNATURE: usize = 64;

/// 32 secret bytes.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    pub(crate) fn random() -> Self {
        Self(random())
    }
}

impl Value for Secret {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Value::take(reader).map(Self)
    }
}

/// The bytes do not open under this key: they were changed, or the key is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it does not open with its key")]
pub struct DoesNotOpen;

/// The result of a call that the library refuses only for lengths that ours are constants against.
///
/// Going on without the result would store something unsealed or unsigned, so there is no other way out.
fn certain<T, E>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|_| unreachable!("the cryptographic library refused a length that it takes"))
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system's generator fails only where there is none. Going on with other bytes would give secrets away.
    if ring::rand::SystemRandom::new().fill(&mut bytes).is_err() {
        panic!("the system has no random bytes");
    }
    bytes
}

/// What a sealed part is for: bound into its key.
pub(crate) struct Purpose(Vec<u8>);

impl Purpose {
    /// The sealed part of an object whose bytes before it (but for packs: whose preamble) are `before`.
    pub(crate) fn object(kind: Kind, before: &[u8]) -> Self {
        let digest = blake3::hash(before);
        Self([&b"holdfast v1 seal"[..], &[kind as u8], digest.as_bytes()].concat())
    }
    /// A secret in the catalog at the place that `context` names.
    pub(crate) fn catalog(context: &str) -> Self {
        Self([&b"holdfast v1 secret"[..], blake3::hash(context.as_bytes()).as_bytes()].concat())
    }
}

/// HKDF-SHA-256 from a secret to `N` bytes.
pub(crate) fn derive<const N: usize>(secret: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; N]> {
    struct Length<const N: usize>;
    impl<const N: usize> hkdf::KeyType for Length<N> {
        fn len(&self) -> usize {
            N
        }
    }
    let mut bytes = Zeroizing::new([0; N]);
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let filled = extracted.expand(&[info], Length::<N>).and_then(|derived| derived.fill(&mut *bytes));
    certain(filled);
    bytes
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(certain(UnboundKey::new(&AES_256_GCM, key)))
}

/// The key of one sealed part and its commitment.
fn part_keys(parent: &Secret, salt: &[u8], purpose: &Purpose) -> (LessSafeKey, [u8; 32]) {
    let derived = derive::<64>(&parent.0, salt, &purpose.0);
    let (mut key, mut commitment) = (Zeroizing::new([0; 32]), [0; 32]);
    key.copy_from_slice(&derived[..32]);
    commitment.copy_from_slice(&derived[32..]);
    (cipher(&key), commitment)
}

fn frame_nonce(number: u64, is_final: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[0] = is_final.into();
    nonce[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Bytes that sealing adds to a plaintext of `length` bytes.
pub(crate) fn part_overhead(length: usize) -> usize {
    PART_HEAD + (length / FRAME + 1) * TAG
}

/// Appends `salt | commitment | frames` of the plaintext.
pub(crate) fn seal_part(out: &mut Vec<u8>, parent: &Secret, purpose: &Purpose, plaintext: &[u8]) {
    let salt: [u8; 32] = random();
    let (key, commitment) = part_keys(parent, &salt, purpose);
    out.reserve(plaintext.len() + part_overhead(plaintext.len()));
    out.extend(salt);
    out.extend(commitment);
    let frames = plaintext.len() / FRAME;
    for number in 0..=frames {
        // The last frame is always shorter than a full one, so that the end cannot be mistaken.
        let frame = &plaintext[number * FRAME..plaintext.len().min((number + 1) * FRAME)];
        let start = out.len();
        out.extend(frame);
        let nonce = frame_nonce(number as u64, number == frames);
        let tag = certain(key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[start..]));
        out.extend(tag.as_ref());
    }
}

/// Opens what [`seal_part`] made.
pub(crate) fn open_part(parent: &Secret, purpose: &Purpose, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, DoesNotOpen> {
    let (salt, rest) = sealed.split_first_chunk::<32>().ok_or(DoesNotOpen)?;
    let (commitment, frames) = rest.split_first_chunk::<32>().ok_or(DoesNotOpen)?;
    let (key, expected) = part_keys(parent, salt, purpose);
    // BLAKE3's hash type compares in constant time.
    if blake3::Hash::from_bytes(expected) != blake3::Hash::from_bytes(*commitment) {
        return Err(DoesNotOpen);
    }
    let last = (frames.len() / (FRAME + TAG)) as u64;
    let mut plaintext = Zeroizing::new(Vec::with_capacity(frames.len()));
    let mut rest = frames;
    for number in 0..=last {
        let (frame, behind) = rest.split_at(rest.len().min(FRAME + TAG));
        let mut frame = Zeroizing::new(frame.to_vec());
        let opened = key
            .open_in_place(frame_nonce(number, number == last), Aad::empty(), &mut frame)
            .map_err(|_| DoesNotOpen)?;
        plaintext.extend_from_slice(opened);
        rest = behind;
    }
    Ok(plaintext)
}

/// Seals `buffer[from..]` in place under a key that has never been used with this nonce, and appends the tag.
pub(crate) fn seal_once(key: &[u8; 32], nonce: [u8; 12], associated: &[u8], buffer: &mut Vec<u8>, from: usize) {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = certain(cipher(key).seal_in_place_separate_tag(nonce, Aad::from(associated), &mut buffer[from..]));
    buffer.extend(tag.as_ref());
}

/// Opens in place what [`seal_once`] made; the plaintext lies at the buffer's start.
pub(crate) fn open_once<'b>(
    key: &[u8; 32],
    nonce: [u8; 12],
    associated: &[u8],
    sealed: &'b mut [u8],
) -> Result<&'b mut [u8], DoesNotOpen> {
    cipher(key)
        .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(associated), sealed)
        .map_err(|_| DoesNotOpen)
}

/// Wraps a data key by an organization key (FORMAT §6, slot kind 0).
pub(crate) fn wrap(organization_key: &Secret, backup: &[u8; 16], data_key: &Secret) -> Vec<u8> {
    let salt: [u8; 32] = random();
    let key = derive::<32>(&organization_key.0, &salt, b"holdfast v1 slot");
    let mut wrapped = Vec::with_capacity(32 + 32 + TAG);
    wrapped.extend(salt);
    wrapped.extend(&data_key.0);
    seal_once(&key, [0; 12], backup, &mut wrapped, 32);
    wrapped
}

/// Unwraps what [`wrap`] made.
pub(crate) fn unwrap(organization_key: &Secret, backup: &[u8; 16], wrapped: &[u8]) -> Result<Secret, DoesNotOpen> {
    let (salt, sealed) = wrapped.split_first_chunk::<32>().ok_or(DoesNotOpen)?;
    let key = derive::<32>(&organization_key.0, salt, b"holdfast v1 slot");
    let mut sealed = Zeroizing::new(sealed.to_vec());
    let opened = open_once(&key, [0; 12], backup, &mut sealed)?;
    <[u8; 32]>::try_from(&*opened).map(Secret).map_err(|_| DoesNotOpen)
}

fn key_pair(seed: &Secret) -> signature::Ed25519KeyPair {
    certain(signature::Ed25519KeyPair::from_seed_unchecked(&seed.0))
}

/// The public half of a signing key.
pub(crate) fn verify_key(seed: &Secret) -> [u8; 32] {
    certain(signature::KeyPair::public_key(&key_pair(seed)).as_ref().try_into())
}

/// An Ed25519 signature.
pub(crate) fn sign(seed: &Secret, message: &[u8]) -> [u8; SIGNATURE] {
    certain(key_pair(seed).sign(message).as_ref().try_into())
}

/// Whether an Ed25519 signature is this key's over this message.
pub(crate) fn is_signed(verify_key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::ED25519, verify_key).verify(message, signature).is_ok()
}

/// SHA-256 in steps.
pub(crate) struct Sha256(ring::digest::Context);

impl Sha256 {
    pub(crate) fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.finish().as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose() -> Purpose {
        Purpose::object(Kind::Index, b"before")
    }

    fn sealed(plaintext: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        seal_part(&mut out, &Secret([1; 32]), &purpose(), plaintext);
        assert_eq!(out.len(), plaintext.len() + part_overhead(plaintext.len()));
        out
    }

    #[test]
    fn parts_of_every_length_open_again() {
        for length in [0, 1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME, 3 * FRAME + 7] {
            let plaintext: Vec<u8> = (0..length).map(|position| position as u8).collect();
            let opened = open_part(&Secret([1; 32]), &purpose(), &sealed(&plaintext)).unwrap();
            assert_eq!(*opened, plaintext, "{length}");
        }
    }

    #[test]
    fn a_part_opens_for_its_key_and_purpose_alone() {
        let part = sealed(b"secret");
        assert_eq!(open_part(&Secret([2; 32]), &purpose(), &part), Err(DoesNotOpen));
        let other = Purpose::object(Kind::Refs, b"before");
        assert_eq!(open_part(&Secret([1; 32]), &other, &part), Err(DoesNotOpen));
        for position in 0..part.len() {
            let mut spoilt = part.clone();
            spoilt[position] ^= 1;
            assert_eq!(open_part(&Secret([1; 32]), &purpose(), &spoilt), Err(DoesNotOpen), "{position}");
        }
    }

    #[test]
    fn a_part_cannot_be_cut_or_grown_between_frames() {
        let part = sealed(&vec![7; 2 * FRAME + 5]);
        for length in [0, 63, 64, PART_HEAD + FRAME + TAG, PART_HEAD + 2 * (FRAME + TAG), part.len() - 1] {
            assert_eq!(open_part(&Secret([1; 32]), &purpose(), &part[..length]), Err(DoesNotOpen), "{length}");
        }
        let grown = [&part[..], &[0; TAG]].concat();
        assert_eq!(open_part(&Secret([1; 32]), &purpose(), &grown), Err(DoesNotOpen));
    }

    #[test]
    fn a_wrapped_key_is_bound_to_its_backup() {
        let wrapped = wrap(&Secret([1; 32]), &[2; 16], &Secret([3; 32]));
        assert_eq!(wrapped.len(), 80);
        assert_eq!(unwrap(&Secret([1; 32]), &[2; 16], &wrapped), Ok(Secret([3; 32])));
        assert_eq!(unwrap(&Secret([1; 32]), &[9; 16], &wrapped), Err(DoesNotOpen));
        assert_eq!(unwrap(&Secret([9; 32]), &[2; 16], &wrapped), Err(DoesNotOpen));
    }

    #[test]
    fn key_derivation_is_rfc_5869() {
        // Test case 1 of the RFC.
        let okm = derive::<42>(
            &[0x0b; 22],
            &hex::decode("000102030405060708090a0b0c").unwrap(),
            &hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap(),
        );
        let expected = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865";
        assert_eq!(hex::encode(*okm), expected);
    }

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret([0x41; 32])), "Secret");
    }
}
