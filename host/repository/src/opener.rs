//! Opens sealed chunks (FORMAT §3) one after the other with the same buffers.
//!
//! What is opened is a *chain*: a chunk and, behind it, each base that it takes to open it; mostly the chunk alone. A chunk is never
//! handed out unless its seal, its length and its hash all fit, and nothing is decompressed beyond the room made for it. Bases of what is
//! handed out need no hash of their own: each opened under a key that comes from its hash, and the plaintext made of them has the right one.

use zstd::zstd_safe::DCtx;

use crate::chunk::{
    BODY_HEAD, ChunkError, ChunkHash, ChunkKind, ChunkSecrets, DELTA_HEAD, NONCE, PATCH, PLAIN_MAX, PREFIXED, RAW,
    ZSTD, associated, zstd_failure,
};
use crate::patch::Places;
use crate::seal;

/// What a dictionary of zstd's own making begins with.
const DICTIONARY: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// The contexts and buffers with which one thread opens chunks.
pub(crate) struct ChunkOpener {
    decompressor: DCtx<'static>,
    /// The bodies of the chain that is being opened, its first chunk first. Buffers beyond its end are kept for the next one.
    bodies: Vec<Body>,
    /// The chunk that was decoded last: what the next one up the chain is a delta to.
    plain: Vec<u8>,
    /// Of the patch that is being decoded: where it differs from its base, and what is there.
    places: Places,
    bytes: Vec<u8>,
}

/// A chunk's head and, once decrypted, the encoded plaintext.
#[derive(Default)]
struct Body(Vec<u8>);

/// A chunk of a chain that was opened; its hash was not compared yet.
pub(crate) struct Version {
    pub(crate) hash: ChunkHash,
    pub(crate) plaintext: Vec<u8>,
}

impl ChunkOpener {
    pub(crate) fn new() -> Result<Self, std::io::Error> {
        let decompressor = DCtx::try_create().ok_or(std::io::ErrorKind::OutOfMemory)?;
        let (plain, places, bytes) = (Vec::new(), Places::default(), Vec::new());
        Ok(Self { decompressor, bodies: Vec::new(), plain, places, bytes })
    }

    /// Opens the first chunk of a chain, of whatever length it says it has.
    pub(crate) fn open(
        &mut self,
        secrets: &ChunkSecrets,
        kind: ChunkKind,
        hash: &ChunkHash,
        chain: &[impl AsRef<[u8]>],
    ) -> Result<&[u8], ChunkError> {
        self.decrypt(hash, chain)?;
        for number in (0..chain.len()).rev() {
            self.decode(number)?;
        }
        must_have_hash(secrets, kind, hash, &self.plain)?;
        Ok(&self.plain)
    }

    /// The chunk that was opened last; nothing of use after an error.
    pub(crate) fn plaintext(&self) -> &[u8] {
        &self.plain
    }

    /// What was had another way, in the place of a chunk that did not open.
    pub(crate) fn put(&mut self, plaintext: &[u8]) {
        self.plain.clear();
        self.plain.extend_from_slice(plaintext);
    }

    /// Opens all chunks of a chain of data chunks. Who goes on with one of them compares its hash.
    pub(crate) fn open_all(
        &mut self,
        hash: &ChunkHash,
        chain: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Version>, ChunkError> {
        let hashes = self.decrypt(hash, chain)?;
        let mut versions = Vec::with_capacity(chain.len());
        for (number, hash) in hashes.into_iter().enumerate().rev() {
            self.decode(number)?;
            versions.push(Version { hash, plaintext: self.plain.clone() });
        }
        versions.reverse();
        Ok(versions)
    }

    /// Whether sealed bytes are those of a chunk, as somebody sealed it: the hash of what it is a delta to, if it is one.
    pub(crate) fn authenticate(&mut self, hash: &ChunkHash, sealed: &[u8]) -> Result<Option<ChunkHash>, ChunkError> {
        if self.bodies.is_empty() {
            self.bodies.push(Body::default());
        }
        self.bodies[0].decrypt(hash, sealed)?;
        self.bodies[0].base()
    }

    /// Decrypts all bodies of a chain: each tells the hash of the next. The hashes, in the order of the chain.
    fn decrypt(&mut self, hash: &ChunkHash, chain: &[impl AsRef<[u8]>]) -> Result<Vec<ChunkHash>, ChunkError> {
        if self.bodies.len() < chain.len() {
            self.bodies.resize_with(chain.len(), Body::default);
        }
        let mut hashes = Vec::with_capacity(chain.len());
        let mut next = Some(*hash);
        for (body, sealed) in self.bodies.iter_mut().zip(chain) {
            let hash = next.ok_or(ChunkError::Base)?;
            body.decrypt(&hash, sealed.as_ref())?;
            next = body.base()?;
            hashes.push(hash);
        }
        // The chain ends where the index says so, and there only: what it ends with is no delta.
        if next.is_none() && !hashes.is_empty() { Ok(hashes) } else { Err(ChunkError::Base) }
    }

    /// Decodes a body of the chain. What it is a delta to was decoded before it.
    fn decode(&mut self, number: usize) -> Result<(), ChunkError> {
        let Body(body) = &self.bodies[number];
        let (head, encoded) = body.split_first_chunk::<BODY_HEAD>().ok_or(ChunkError::Body)?;
        let length = self.bodies[number].plain_length()?;
        match head[0] {
            RAW => {
                self.plain.clear();
                self.plain.extend_from_slice(encoded);
            }
            ZSTD => {
                make_room(&mut self.plain, length);
                decompress(&mut self.decompressor, &mut self.plain, encoded)?;
            }
            PREFIXED => {
                make_room(&mut self.bytes, length);
                decompress_with(&mut self.decompressor, &self.plain, &mut self.bytes, &body[DELTA_HEAD..])?;
                std::mem::swap(&mut self.plain, &mut self.bytes);
            }
            PATCH => self.apply_patch(number, length)?,
            _ => return Err(ChunkError::Body),
        }
        if self.plain.len() == length { Ok(()) } else { Err(ChunkError::Body) }
    }

    /// Makes the base to what it became. Meanwhile, what it has at the places lies behind it.
    fn apply_patch(&mut self, number: usize, length: usize) -> Result<(), ChunkError> {
        let Self { decompressor, bodies, plain, places, bytes } = self;
        let (first, frames) = bodies[number].0[DELTA_HEAD..].split_first_chunk().ok_or(ChunkError::Body)?;
        let frames = frames.split_at_checked(u32::from_le_bytes(*first) as usize);
        let (first, second) = frames.ok_or(ChunkError::Body)?;
        make_room(bytes, Places::encoded_max(length));
        decompress(decompressor, bytes, first)?;
        if bytes.len() > Places::encoded_max(length) {
            return Err(ChunkError::Body);
        }
        places.decode(bytes, length).map_err(|_| ChunkError::Body)?;

        let base = plain.len();
        places.append_old(plain);
        let total = places.total();
        make_room(bytes, total);
        decompress_with(decompressor, plain, bytes, second)?;
        if bytes.len() != total {
            return Err(ChunkError::Body);
        }
        plain.truncate(base);
        plain.resize(length, 0);
        places.overwrite(plain, bytes);
        Ok(())
    }
}

impl Body {
    fn decrypt(&mut self, hash: &ChunkHash, sealed: &[u8]) -> Result<(), ChunkError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE>().ok_or(ChunkError::Seal)?;
        self.0.clear();
        self.0.extend_from_slice(body);
        let length = seal::open_once(&hash.key().0, *nonce, &associated(&hash.id()), &mut self.0)?.len();
        self.0.truncate(length);
        Ok(())
    }

    fn plain_length(&self) -> Result<usize, ChunkError> {
        let [_, length @ ..] = *self.0.first_chunk::<BODY_HEAD>().ok_or(ChunkError::Body)?;
        let length = u32::from_le_bytes(length) as usize;
        if length <= PLAIN_MAX { Ok(length) } else { Err(ChunkError::Body) }
    }

    /// The hash of what this chunk is a delta to, if it is one.
    fn base(&self) -> Result<Option<ChunkHash>, ChunkError> {
        if !matches!(self.0.first(), Some(&(PREFIXED | PATCH))) {
            return Ok(None);
        }
        let hash = self.0.get(BODY_HEAD..DELTA_HEAD).and_then(<[u8]>::as_array);
        hash.map(|hash| Some(ChunkHash(*hash))).ok_or(ChunkError::Body)
    }
}

impl Version {
    /// Whether it is what its hash says.
    pub(crate) fn verify(&self, secrets: &ChunkSecrets) -> Result<(), ChunkError> {
        must_have_hash(secrets, ChunkKind::Data, &self.hash, &self.plaintext)
    }
}

/// Empties a buffer that is to take so many bytes.
fn make_room(buffer: &mut Vec<u8>, length: usize) {
    buffer.clear();
    buffer.reserve(length);
}

/// Decompresses a frame into the room that was made for it, or a little beyond: who asks compares the length.
fn decompress(decompressor: &mut DCtx<'static>, room: &mut Vec<u8>, frame: &[u8]) -> Result<(), ChunkError> {
    must_be_one_frame(frame)?;
    decompressor.decompress(room, frame).map(drop).map_err(|_| ChunkError::Body)
}

/// zstd takes none, and several, for as many bytes as they give.
fn must_be_one_frame(frame: &[u8]) -> Result<(), ChunkError> {
    match zstd::zstd_safe::find_frame_compressed_size(frame) {
        Ok(length) if length == frame.len() => Ok(()),
        _ => Err(ChunkError::Body),
    }
}

/// Decompresses a frame that was made with a prefix. What the prefix is to zstd, it is to it as a dictionary too, and that
/// needs no context of its own, which would cost more than the rest. But for a prefix that begins like a dictionary of zstd's making: it would
/// be taken for one.
fn decompress_with(
    decompressor: &mut DCtx<'static>,
    prefix: &[u8],
    room: &mut Vec<u8>,
    frame: &[u8],
) -> Result<(), ChunkError> {
    must_be_one_frame(frame)?;
    let decoded = if prefix.starts_with(&DICTIONARY) {
        let no_memory = || ChunkError::Compression(std::io::ErrorKind::OutOfMemory.into());
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.ref_prefix(prefix).map_err(zstd_failure)?;
        context.decompress(room, frame)
    } else {
        decompressor.decompress_using_dict(room, frame, prefix)
    };
    decoded.map(drop).map_err(|_| ChunkError::Body)
}

/// Always, even though the seal fits: it is the key commitment and the last check against our own errors.
fn must_have_hash(
    secrets: &ChunkSecrets,
    kind: ChunkKind,
    hash: &ChunkHash,
    plaintext: &[u8],
) -> Result<(), ChunkError> {
    if secrets.hash(kind, plaintext) == *hash { Ok(()) } else { Err(ChunkError::Hash) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkSealer, OVERHEAD};
    use crate::seal::Secret;

    fn secrets() -> ChunkSecrets {
        ChunkSecrets { data: Secret([1; 32]), list: Secret([2; 32]), table: Secret([3; 32]) }
    }

    #[test]
    fn chunks_open_again_and_only_as_themselves() {
        let mut sealer = ChunkSealer::new().unwrap();
        let mut opener = ChunkOpener::new().unwrap();
        for plaintext in [vec![], vec![0; 100_000], seal::random::<5000>().to_vec()] {
            let hash = secrets().hash(ChunkKind::Data, &plaintext);
            let sealed = sealer.seal(&hash, &plaintext, 1).unwrap().to_vec();
            assert!(sealed.len() <= plaintext.len() + OVERHEAD);
            assert_eq!(opener.open(&secrets(), ChunkKind::Data, &hash, &[&sealed[..]]).unwrap(), plaintext);
            let other = secrets().hash(ChunkKind::Data, b"other");
            assert!(matches!(opener.open(&secrets(), ChunkKind::Data, &other, &[&sealed[..]]), Err(ChunkError::Seal)));
            assert!(matches!(opener.open(&secrets(), ChunkKind::List, &hash, &[&sealed[..]]), Err(ChunkError::Hash)));
            for position in (0..sealed.len()).step_by(1 + sealed.len() / 100) {
                let mut spoilt = sealed.clone();
                spoilt[position] ^= 0x80;
                assert!(opener.open(&secrets(), ChunkKind::Data, &hash, &[&spoilt[..]]).is_err());
            }
        }
    }

    /// A chunk as a delta whose base is the prefix of all of it, as they were stored before there were patches.
    fn prefixed(hash: &ChunkHash, plaintext: &[u8], (base, prefix): (&ChunkHash, &[u8])) -> Vec<u8> {
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        compressor.context_mut().ref_prefix(prefix).unwrap();
        let frame = compressor.compress(plaintext).unwrap();
        sealed(hash, [&[PREFIXED][..], &(plaintext.len() as u32).to_le_bytes(), &base.0, &frame].concat())
    }

    /// Chains of versions that begin like this, each with a few bytes changed: sealed, with their hashes and plaintexts. Deltas of both
    /// encodings stand on each other.
    fn versions(count: usize, begin: &[u8]) -> Vec<(ChunkHash, Vec<u8>, Vec<u8>)> {
        let mut sealer = ChunkSealer::new().unwrap();
        let mut plaintext = [begin, &seal::random::<60_000>()].concat();
        let mut versions: Vec<(ChunkHash, Vec<u8>, Vec<u8>)> = Vec::new();
        for number in 0..count {
            plaintext[100 + number * 5_000..][..100].fill(number as u8);
            let hash = secrets().hash(ChunkKind::Data, &plaintext);
            let sealed = match versions.last() {
                None => sealer.seal(&hash, &plaintext, 1).unwrap().to_vec(),
                Some((base, _, before)) if number % 3 == 2 => prefixed(&hash, &plaintext, (base, before)),
                Some((base, _, before)) => sealer.seal_delta(&hash, &plaintext, (base, before), 1).unwrap().to_vec(),
            };
            versions.push((hash, sealed, plaintext.clone()));
        }
        versions
    }

    #[test]
    fn deltas_are_small_and_open_with_their_bases() {
        let mut opener = ChunkOpener::new().unwrap();
        // A base may begin like a dictionary of zstd's own.
        [versions(9, b"page"), versions(9, &DICTIONARY)]
            .iter()
            .for_each(|versions| open_all_ways(&mut opener, versions));
    }

    fn open_all_ways(opener: &mut ChunkOpener, versions: &[(ChunkHash, Vec<u8>, Vec<u8>)]) {
        for length in (1..=9).rev() {
            let chain: Vec<_> = versions[..length].iter().rev().map(|(_, sealed, _)| sealed).collect();
            let (hash, sealed, plaintext) = &versions[length - 1];
            assert!(length == 1 || sealed.len() < 1_000);
            assert_eq!(opener.open(&secrets(), ChunkKind::Data, hash, &chain).unwrap(), *plaintext);
            assert_eq!(opener.plaintext(), plaintext);
            let all = opener.open_all(hash, &chain).unwrap();
            let expected = versions[..length].iter().rev();
            assert!(
                all.iter().zip(expected).all(|(one, (hash, _, plain))| one.hash == *hash && one.plaintext == *plain)
            );
            assert!(all.len() == length && all.iter().all(|one| one.verify(&secrets()).is_ok()));
        }
    }

    #[test]
    fn a_chain_that_is_not_whole_or_not_its_own_is_refused() {
        let (versions, strangers) = (versions(3, &[]), versions(3, &[]));
        let mut opener = ChunkOpener::new().unwrap();
        let sealed = |number: usize| &versions[number].1[..];
        let mut open = |chain: &[&[u8]]| opener.open(&secrets(), ChunkKind::Data, &versions[2].0, chain).map(drop);
        assert!(open(&[sealed(2), sealed(1), sealed(0)]).is_ok());
        for chain in [
            &[][..],
            &[sealed(2)],
            &[sealed(2), sealed(1)],
            &[sealed(2), sealed(1), sealed(0), sealed(0)],
            &[sealed(2), sealed(0)],
            &[sealed(2), &strangers[1].1, &strangers[0].1],
            &[sealed(2), sealed(1), &strangers[0].1],
            &[sealed(1), sealed(0)],
        ] {
            assert!(open(chain).is_err());
        }
    }

    #[test]
    fn a_body_that_lies_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 1 << 20], 3).unwrap();
        for (encoding, length, bytes) in [
            (RAW, 5_u32, b"1234".to_vec()),
            (RAW, u32::MAX, b"1234".to_vec()),
            (ZSTD, 16, bomb.clone()),
            (ZSTD, 1 << 21, bomb),
            (ZSTD, 4, b"1234".to_vec()),
            (PREFIXED, 4, b"1234".to_vec()),
            (PREFIXED, 4, [7; 40].to_vec()),
            (PATCH, 4, b"1234".to_vec()),
            (PATCH, 4, [7; 40].to_vec()),
            (9, 4, b"1234".to_vec()),
        ] {
            // Its hash fits what it opens to: only the body is wrong.
            let hash = secrets().hash(ChunkKind::Data, &bytes);
            let body = [&[encoding][..], &length.to_le_bytes(), &bytes].concat();
            assert!(matches!(opened(&hash, body), Err(ChunkError::Body | ChunkError::Base)), "{encoding} {length}");
        }
        let hash = secrets().hash(ChunkKind::Data, b"");
        assert!(matches!(opened(&hash, vec![0; BODY_HEAD - 1]), Err(ChunkError::Body)));
    }

    #[test]
    fn a_patch_that_lies_is_refused() {
        let base = seal::random::<100>();
        let base_hash = secrets().hash(ChunkKind::Data, &base);
        let whole = ChunkSealer::new().unwrap().seal(&base_hash, &base, 1).unwrap().to_vec();
        let mut plaintext = base;
        plaintext[10..13].fill(7);
        let hash = secrets().hash(ChunkKind::Data, &plaintext);
        let frame = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).unwrap();
        let patch = |length: usize, places: &[u8], rest: &[u8]| {
            let length = (length as u32).to_le_bytes();
            let body = [&[PATCH, 100, 0, 0, 0], &base_hash.0[..], &length, places, rest].concat();
            let chain = [sealed(&hash, body), whole.clone()];
            ChunkOpener::new().unwrap().open(&secrets(), ChunkKind::Data, &hash, &chain).map(<[u8]>::to_vec)
        };
        let (places, bytes) = (frame(&[10, 3]), frame(&[7; 3]));
        assert_eq!(patch(places.len(), &places, &bytes).unwrap(), plaintext);
        for (places, bytes) in [
            (frame(&[98, 3]), bytes.clone()),
            (frame(&[10, 0]), frame(&[])),
            (frame(&[0, 1, 0x80, 0, 1].repeat(11)), frame(&[])),
            (frame(&[10, 3]), frame(&[7; 2])),
            (frame(&[10, 3]), frame(&[7; 4])),
            (vec![1, 2, 3], bytes.clone()),
            (places.clone(), vec![1, 2, 3]),
            ([&places[..], &frame(&[])].concat(), bytes.clone()),
            (places.clone(), [&bytes[..], &frame(&[])].concat()),
            (vec![], bytes.clone()),
        ] {
            assert!(matches!(patch(places.len(), &places, &bytes), Err(ChunkError::Body)), "{places:?} {bytes:?}");
        }
        for length in [0, places.len() - 1, places.len() + 1, usize::MAX] {
            assert!(matches!(patch(length, &places, &bytes), Err(ChunkError::Body)), "{length}");
        }
        assert!(matches!(patch(places.len(), &places, &frame(&[8; 3])), Err(ChunkError::Hash)));
    }

    /// A body sealed under the key of `hash`.
    fn sealed(hash: &ChunkHash, body: Vec<u8>) -> Vec<u8> {
        let mut sealed = [vec![5; NONCE], body].concat();
        seal::seal_once(&hash.key().0, [5; NONCE], &associated(&hash.id()), &mut sealed, NONCE);
        sealed
    }

    /// What a body sealed under the key of `hash` opens to.
    fn opened(hash: &ChunkHash, body: Vec<u8>) -> Result<Vec<u8>, ChunkError> {
        ChunkOpener::new().unwrap().open(&secrets(), ChunkKind::Data, hash, &[sealed(hash, body)]).map(<[u8]>::to_vec)
    }
}
