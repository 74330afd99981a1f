//! Chunks (FORMAT §3): their hash, public id and key, and how one is sealed.

use crate::opener::ChunkOpener;
use crate::patch::Places;
use crate::seal::{self, Secret, TAG};

/// Longest plaintext of a chunk, in bytes.
pub(crate) const PLAIN_MAX: usize = 16 << 20;
/// A chunk is stored raw unless compression takes at least one byte in so many off: what saves less is not worth its
/// decompression. There is no test before: zstd itself goes over noise at 4 to 5 GB/s, which no sample is cheaper than.
const WORTHWHILE: usize = 32;
pub(crate) const NONCE: usize = 12;
/// Bytes of a body before those of the plaintext: encoding and length.
pub(crate) const BODY_HEAD: usize = 5;
/// Bytes of a delta's body before those of its frames: the base's hash comes too.
pub(crate) const DELTA_HEAD: usize = BODY_HEAD + 32;
/// Deltas that lie upon each other at most.
pub(crate) const DEPTH_MAX: u8 = 8;
/// Most bytes that sealing adds to a plaintext.
pub(crate) const OVERHEAD: usize = NONCE + BODY_HEAD + TAG;
/// The lowest level at which zstd looks at all of a prefix as long as a chunk of pages and what changed of it.
const PREFIX_LEVEL: i32 = 2;
const ASSOCIATED: &[u8] = b"holdfast v1 chunk";

pub(crate) const RAW: u8 = 0;
pub(crate) const ZSTD: u8 = 1;
/// A delta whose base is the prefix of all its bytes: read, but not written any more.
pub(crate) const PREFIXED: u8 = 2;
/// A delta that tells the places where it differs from its base, and what is there.
pub(crate) const PATCH: u8 = 3;

/// The public name of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChunkId(pub(crate) [u8; 32]);

impl std::fmt::Debug for ChunkId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

/// What a list or a table holds of a chunk: secret, because the chunk's key comes from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ChunkHash(pub(crate) [u8; 32]);

impl std::fmt::Debug for ChunkHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "ChunkHash of {:?}", self.id())
    }
}

impl ChunkHash {
    pub(crate) fn id(&self) -> ChunkId {
        ChunkId(blake3::derive_key("holdfast v1 2026-11 chunk id", &self.0))
    }

    pub(crate) fn key(&self) -> Secret {
        Secret(blake3::derive_key("holdfast v1 2026-11 chunk key", &self.0))
    }
}

/// What a chunk holds. Equal bytes of different kinds are different chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkKind {
    Data,
    List,
    Table,
}

/// The secrets of a domain that its chunks are hashed with.
#[derive(Clone, Debug)]
pub(crate) struct ChunkSecrets {
    pub(crate) data: Secret,
    pub(crate) list: Secret,
    pub(crate) table: Secret,
}

impl ChunkSecrets {
    pub(crate) fn hash(&self, kind: ChunkKind, plaintext: &[u8]) -> ChunkHash {
        let secret = match kind {
            ChunkKind::Data => &self.data,
            ChunkKind::List => &self.list,
            ChunkKind::Table => &self.table,
        };
        ChunkHash(*blake3::keyed_hash(&secret.0, plaintext).as_bytes())
    }
}

/// Why a chunk cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// Its seal does not open.
    #[error("its seal is broken")]
    Seal,
    /// Its seal opens, but its plaintext is not the one that was named.
    #[error("its bytes are not those that were backed up")]
    Hash,
    /// Its body has no known form.
    #[error("its body is malformed")]
    Body,
    /// It opens, but it is not as long as the list that names it says.
    #[error("it is not as long as its list says")]
    Length,
    /// It is a delta, and what it was made against is not what the index names, or the other way round.
    #[error("it is not a delta to what its index says")]
    Base,
    /// The compressor failed.
    #[error("compression failed: {0}")]
    Compression(#[from] std::io::Error),
}

impl From<seal::DoesNotOpen> for ChunkError {
    fn from(_: seal::DoesNotOpen) -> Self {
        Self::Seal
    }
}

/// What one thread seals and opens chunks with.
pub(crate) struct ChunkCodec {
    pub(crate) sealer: ChunkSealer,
    pub(crate) opener: ChunkOpener,
}

impl ChunkCodec {
    pub(crate) fn new() -> Result<Self, std::io::Error> {
        Ok(Self { sealer: ChunkSealer::new()?, opener: ChunkOpener::new()? })
    }
}

/// Seals chunks one after the other with the same contexts and buffers.
pub(crate) struct ChunkSealer {
    compressor: zstd::bulk::Compressor<'static>,
    level: i32,
    compressed: Vec<u8>,
    sealed: Vec<u8>,
    patch: Patch,
}

/// The parts of a patch that is being made, and what that takes.
#[derive(Default)]
struct Patch {
    /// Where it differs from its base, as that is stored.
    places: Vec<u8>,
    /// What is there.
    bytes: Vec<u8>,
    /// What those are compressed with: the base, and what it has there.
    prefix: Vec<u8>,
    compressed: Vec<u8>,
}

impl ChunkSealer {
    pub(crate) fn new() -> Result<Self, std::io::Error> {
        let level = zstd::DEFAULT_COMPRESSION_LEVEL;
        let compressor = zstd::bulk::Compressor::new(level)?;
        Ok(Self { compressor, level, compressed: Vec::new(), sealed: Vec::new(), patch: Patch::default() })
    }

    /// The sealed form of a plaintext, compressed at zstd's `level` where that is worthwhile. It lies in the sealer's
    /// buffer, for the caller to copy to where it belongs.
    pub(crate) fn seal(&mut self, hash: &ChunkHash, plaintext: &[u8], level: i32) -> Result<&[u8], ChunkError> {
        if plaintext.len() > PLAIN_MAX {
            return Err(ChunkError::Body);
        }
        self.set_level(level)?;
        compress(&mut self.compressor, plaintext, &mut self.compressed)?;
        let saved = plaintext.len().saturating_sub(self.compressed.len());
        let (encoding, body) =
            if saved > plaintext.len() / WORTHWHILE { (ZSTD, &self.compressed[..]) } else { (RAW, plaintext) };
        Ok(seal_body(&mut self.sealed, hash, (encoding, plaintext.len()), &[body]))
    }

    /// The sealed form of a plaintext as a delta: it opens together with the chunk `base` only, whose plaintext is `before`.
    pub(crate) fn seal_delta(
        &mut self,
        hash: &ChunkHash,
        plaintext: &[u8],
        (base, before): (&ChunkHash, &[u8]),
        level: i32,
    ) -> Result<&[u8], ChunkError> {
        if plaintext.len() > PLAIN_MAX {
            return Err(ChunkError::Body);
        }
        self.patch.make(plaintext, before, level)?;
        self.set_level(level)?;
        compress(&mut self.compressor, &self.patch.places, &mut self.compressed)?;
        let length = (self.compressed.len() as u32).to_le_bytes();
        let parts = [&base.0[..], &length, &self.compressed, &self.patch.compressed];
        Ok(seal_body(&mut self.sealed, hash, (PATCH, plaintext.len()), &parts))
    }

    fn set_level(&mut self, level: i32) -> Result<(), std::io::Error> {
        if self.level != level {
            self.compressor.set_compression_level(level)?;
            self.level = level;
        }
        Ok(())
    }
}

impl Patch {
    /// Finds what makes `base` to `plaintext`. What the base has at the same places comes last in the prefix, where zstd looks first; in front of
    /// it lies the whole base, for what moved.
    fn make(&mut self, plaintext: &[u8], base: &[u8], level: i32) -> Result<(), std::io::Error> {
        [&mut self.places, &mut self.bytes, &mut self.prefix].into_iter().for_each(Vec::clear);
        let places = Places::between(base, plaintext);
        places.encode(&mut self.places);
        places.within(plaintext.len()).for_each(|place| self.bytes.extend(&plaintext[place]));
        self.prefix.extend(base);
        places.append_old(&mut self.prefix);
        // A context of its own, because it borrows the prefix; it is gone before the prefix is.
        let mut compressor = zstd::bulk::Compressor::new(level.max(PREFIX_LEVEL))?;
        compressor.context_mut().ref_prefix(&self.prefix).map_err(zstd_failure)?;
        compress(&mut compressor, &self.bytes, &mut self.compressed)
    }
}

/// Compresses into a buffer whose earlier content is gone.
fn compress(
    compressor: &mut zstd::bulk::Compressor<'_>,
    plaintext: &[u8],
    compressed: &mut Vec<u8>,
) -> Result<(), std::io::Error> {
    compressed.clear();
    compressed.reserve(zstd::zstd_safe::compress_bound(plaintext.len()));
    compressor.compress_to_buffer(plaintext, compressed).map(drop)
}

/// Seals a body whose bytes are these parts. The buffer's earlier content is gone.
fn seal_body<'b>(
    sealed: &'b mut Vec<u8>,
    hash: &ChunkHash,
    (encoding, plain_length): (u8, usize),
    parts: &[&[u8]],
) -> &'b [u8] {
    let nonce: [u8; NONCE] = seal::random();
    sealed.clear();
    sealed.reserve(parts.iter().map(|part| part.len()).sum::<usize>() + OVERHEAD);
    sealed.extend(nonce);
    sealed.push(encoding);
    sealed.extend((plain_length as u32).to_le_bytes());
    parts.iter().for_each(|part| sealed.extend(*part));
    seal::seal_once(&hash.key().0, nonce, &associated(&hash.id()), sealed, NONCE);
    sealed
}

/// What zstd's own interface says of a failure.
pub(crate) fn zstd_failure(code: zstd::zstd_safe::ErrorCode) -> std::io::Error {
    std::io::Error::other(zstd::zstd_safe::get_error_name(code))
}

/// What a chunk is sealed with besides its key: it opens under its own id only.
pub(crate) fn associated(id: &ChunkId) -> [u8; ASSOCIATED.len() + 32] {
    let mut bytes = [0; ASSOCIATED.len() + 32];
    bytes[..ASSOCIATED.len()].copy_from_slice(ASSOCIATED);
    bytes[ASSOCIATED.len()..].copy_from_slice(&id.0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> ChunkSecrets {
        ChunkSecrets { data: Secret([1; 32]), list: Secret([2; 32]), table: Secret([3; 32]) }
    }

    #[test]
    fn hash_id_and_key_are_these_bytes() {
        let hash = secrets().hash(ChunkKind::Data, b"chunk");
        assert_eq!(hash.0, *blake3::keyed_hash(&[1; 32], b"chunk").as_bytes());
        let mut hasher = blake3::Hasher::new_derive_key("holdfast v1 2026-11 chunk id");
        assert_eq!(hash.id().0, *hasher.update(&hash.0).finalize().as_bytes());
        assert_eq!(hex::encode(hash.id().0), "a99cec6a855dead3f887193d5f1268afa3cb398f8e85518389db7404a62a04bd");
        assert_ne!(hash.key().0, hash.id().0);
        assert_ne!(hash, secrets().hash(ChunkKind::List, b"chunk"));
    }

    #[test]
    fn a_body_is_encoding_length_and_bytes_under_the_chunk_key() {
        let mut codec = ChunkCodec::new().unwrap();
        let hash = secrets().hash(ChunkKind::Data, b"incompressible");
        let sealed = codec.sealer.seal(&hash, b"incompressible", 1).unwrap();
        let mut body = sealed[NONCE..].to_vec();
        let associated = [b"holdfast v1 chunk", &hash.id().0[..]].concat();
        let opened = seal::open_once(&hash.key().0, sealed[..NONCE].try_into().unwrap(), &associated, &mut body);
        assert_eq!(*opened.unwrap(), [&[0, 14, 0, 0, 0], &b"incompressible"[..]].concat());
    }

    #[test]
    fn every_level_opens_and_what_hardly_shrinks_is_raw() {
        let mut codec = ChunkCodec::new().unwrap();
        let mut mostly_noise = seal::random::<60_000>().to_vec();
        mostly_noise.resize(61_000, 0);
        let half_noise = [&seal::random::<30_000>()[..], &[0; 30_000]].concat();
        for (plaintext, is_raw) in [(mostly_noise, true), (half_noise, false)] {
            let hash = secrets().hash(ChunkKind::Data, &plaintext);
            for level in [1, 3, 19, 2] {
                let sealed = codec.sealer.seal(&hash, &plaintext, level).unwrap().to_vec();
                assert_eq!(sealed.len() == plaintext.len() + OVERHEAD, is_raw);
                assert_eq!(codec.opener.open(&secrets(), ChunkKind::Data, &hash, &[&sealed[..]]).unwrap(), plaintext);
            }
        }
    }
}
