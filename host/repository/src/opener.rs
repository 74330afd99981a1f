//! Opens sealed chunks (FORMAT §3) one after the other with the same buffers.
//!
//! What is opened is a *chain*: a chunk and, behind it, each base that it takes to open it; mostly the chunk alone. A chunk is never
//! handed out unless its seal, its length and its hash all fit, and nothing is decompressed beyond its length. Bases of what is handed
//! out need no hash of their own: each opened under a key that comes from its hash, and the plaintext made of them has the right one.

use zstd::zstd_safe::DCtx;

use crate::chunk::{
    BODY_HEAD, ChunkError, ChunkHash, ChunkKind, ChunkSecrets, DELTA, DELTA_HEAD, NONCE, PLAIN_MAX, RAW, ZSTD,
    associated, zstd_failure,
};
use crate::seal;

/// What a dictionary of zstd's own making begins with.
const DICTIONARY: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// The contexts and buffers with which one thread opens chunks.
pub(crate) struct ChunkOpener {
    decompressor: DCtx<'static>,
    /// The chain that is being opened, its first chunk first. Buffers beyond its end are kept for the next one.
    links: Vec<Link>,
}

/// A chunk of a chain.
#[derive(Default)]
struct Link {
    /// Its head and, once decrypted, the encoded plaintext.
    body: Vec<u8>,
    plain: Vec<u8>,
}

/// A chunk of a chain that was opened.
pub(crate) struct Version<'o> {
    pub(crate) hash: ChunkHash,
    pub(crate) plaintext: &'o [u8],
}

impl ChunkOpener {
    pub(crate) fn new() -> Result<Self, std::io::Error> {
        let decompressor = DCtx::try_create().ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { decompressor, links: Vec::new() })
    }

    /// Opens the first chunk of a chain, of whatever length it says it has.
    pub(crate) fn open(
        &mut self,
        secrets: &ChunkSecrets,
        kind: ChunkKind,
        hash: &ChunkHash,
        chain: &[impl AsRef<[u8]>],
    ) -> Result<Vec<u8>, ChunkError> {
        self.decrypt(hash, chain)?;
        let mut plaintext = vec![0; self.links[0].plain_length()?];
        self.decode(chain.len(), &mut plaintext)?;
        must_have_hash(secrets, kind, hash, &plaintext)?;
        Ok(plaintext)
    }

    /// Opens the first chunk of a chain, which is as long as `plaintext`; that holds nothing of use after an error.
    pub(crate) fn open_into(
        &mut self,
        secrets: &ChunkSecrets,
        kind: ChunkKind,
        hash: &ChunkHash,
        chain: &[impl AsRef<[u8]>],
        plaintext: &mut [u8],
    ) -> Result<(), ChunkError> {
        self.decrypt(hash, chain)?;
        if self.links[0].plain_length()? != plaintext.len() {
            return Err(ChunkError::Length);
        }
        self.decode(chain.len(), plaintext)?;
        must_have_hash(secrets, kind, hash, plaintext)
    }

    /// Opens all chunks of a chain of data chunks.
    pub(crate) fn open_all(
        &mut self,
        secrets: &ChunkSecrets,
        hash: &ChunkHash,
        chain: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Version<'_>>, ChunkError> {
        let hashes = self.decrypt(hash, chain)?;
        let mut first = std::mem::take(&mut self.links[0].plain);
        first.resize(self.links[0].plain_length()?, 0);
        self.decode(chain.len(), &mut first)?;
        self.links[0].plain = first;
        let opened = hashes.into_iter().zip(&self.links);
        opened
            .map(|(hash, link)| {
                must_have_hash(secrets, ChunkKind::Data, &hash, &link.plain)?;
                Ok(Version { hash, plaintext: &link.plain })
            })
            .collect()
    }

    /// Whether sealed bytes are those of a chunk, as somebody sealed it: the hash of what it is a delta to, if it is one.
    pub(crate) fn authenticate(&mut self, hash: &ChunkHash, sealed: &[u8]) -> Result<Option<ChunkHash>, ChunkError> {
        if self.links.is_empty() {
            self.links.push(Link::default());
        }
        self.links[0].decrypt(hash, sealed)?;
        self.links[0].base()
    }

    /// Decrypts all bodies of a chain: each tells the hash of the next. The hashes, in the order of the chain.
    fn decrypt(&mut self, hash: &ChunkHash, chain: &[impl AsRef<[u8]>]) -> Result<Vec<ChunkHash>, ChunkError> {
        if self.links.len() < chain.len() {
            self.links.resize_with(chain.len(), Link::default);
        }
        let mut hashes = Vec::with_capacity(chain.len());
        let mut next = Some(*hash);
        for (link, sealed) in self.links.iter_mut().zip(chain) {
            let hash = next.ok_or(ChunkError::Base)?;
            link.decrypt(&hash, sealed.as_ref())?;
            next = link.base()?;
            hashes.push(hash);
        }
        // The chain ends where the index says so, and there only.
        if next.is_none() && !hashes.is_empty() { Ok(hashes) } else { Err(ChunkError::Base) }
    }

    /// Decodes a chain of `length` from its end; the first chunk's plaintext goes where it fits exactly.
    fn decode(&mut self, length: usize, plaintext: &mut [u8]) -> Result<(), ChunkError> {
        for position in (1..length).rev() {
            let (before, bases) = self.links.split_at_mut(position + 1);
            let link = &mut before[position];
            link.plain.resize(link.plain_length()?, 0);
            decode(&mut self.decompressor, &link.body, bases.first(), &mut link.plain)?;
        }
        let (first, bases) = self.links.split_at(1);
        decode(&mut self.decompressor, &first[0].body, bases.first(), plaintext)
    }
}

impl Link {
    fn decrypt(&mut self, hash: &ChunkHash, sealed: &[u8]) -> Result<(), ChunkError> {
        let (nonce, body) = sealed.split_first_chunk::<NONCE>().ok_or(ChunkError::Seal)?;
        self.body.clear();
        self.body.extend_from_slice(body);
        let length = seal::open_once(&hash.key().0, *nonce, &associated(&hash.id()), &mut self.body)?.len();
        self.body.truncate(length);
        Ok(())
    }

    fn plain_length(&self) -> Result<usize, ChunkError> {
        let [_, length @ ..] = *self.body.first_chunk::<BODY_HEAD>().ok_or(ChunkError::Body)?;
        let length = u32::from_le_bytes(length) as usize;
        if length <= PLAIN_MAX { Ok(length) } else { Err(ChunkError::Body) }
    }

    /// The hash of what this chunk is a delta to, if it is one.
    fn base(&self) -> Result<Option<ChunkHash>, ChunkError> {
        if self.body.first() != Some(&DELTA) {
            return Ok(None);
        }
        let hash = self.body.get(BODY_HEAD..DELTA_HEAD).and_then(<[u8]>::as_array);
        hash.map(|hash| Some(ChunkHash(*hash))).ok_or(ChunkError::Body)
    }
}

/// Decodes a body into as many bytes as it must give.
fn decode(
    decompressor: &mut DCtx<'static>,
    body: &[u8],
    base: Option<&Link>,
    plaintext: &mut [u8],
) -> Result<(), ChunkError> {
    let (head, encoded) = body.split_first_chunk::<BODY_HEAD>().ok_or(ChunkError::Body)?;
    let written = match head[0] {
        RAW if encoded.len() == plaintext.len() => {
            plaintext.copy_from_slice(encoded);
            encoded.len()
        }
        ZSTD => decompressor.decompress(plaintext, encoded).map_err(|_| ChunkError::Body)?,
        DELTA => {
            let base = base.ok_or(ChunkError::Base)?;
            decode_delta(decompressor, &body[DELTA_HEAD..], &base.plain, plaintext)?
        }
        _ => return Err(ChunkError::Body),
    };
    if written == plaintext.len() { Ok(()) } else { Err(ChunkError::Body) }
}

/// What the prefix is to zstd, it is to it as a dictionary too, and that needs no context of its own, which would cost more than the
/// delta. But for a prefix that begins like a dictionary of zstd's making: it would be taken for one.
fn decode_delta(
    decompressor: &mut DCtx<'static>,
    frame: &[u8],
    prefix: &[u8],
    plaintext: &mut [u8],
) -> Result<usize, ChunkError> {
    let decoded = if prefix.starts_with(&DICTIONARY) {
        let no_memory = || ChunkError::Compression(std::io::ErrorKind::OutOfMemory.into());
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.ref_prefix(prefix).map_err(zstd_failure)?;
        context.decompress(plaintext, frame)
    } else {
        decompressor.decompress_using_dict(plaintext, frame, prefix)
    };
    decoded.map_err(|_| ChunkError::Body)
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

    #[test]
    fn a_chunk_opens_into_room_of_its_own_length_alone() {
        let mut opener = ChunkOpener::new().unwrap();
        let plaintext = vec![7; 5000];
        let hash = secrets().hash(ChunkKind::Data, &plaintext);
        let sealed = ChunkSealer::new().unwrap().seal(&hash, &plaintext, 1).unwrap().to_vec();
        let mut open = |room: &mut [u8]| opener.open_into(&secrets(), ChunkKind::Data, &hash, &[&sealed[..]], room);
        for length in [0, 4999, 5001] {
            assert!(matches!(open(&mut vec![0; length]), Err(ChunkError::Length)), "{length}");
        }
        let mut room = vec![0; 5000];
        open(&mut room).unwrap();
        assert_eq!(room, plaintext);
    }

    /// Chains of versions that begin like this, each with a few bytes changed: sealed, with their hashes and plaintexts.
    fn versions(count: usize, begin: &[u8]) -> Vec<(ChunkHash, Vec<u8>, Vec<u8>)> {
        let mut sealer = ChunkSealer::new().unwrap();
        let mut plaintext = [begin, &seal::random::<60_000>()].concat();
        let mut versions: Vec<(ChunkHash, Vec<u8>, Vec<u8>)> = Vec::new();
        for number in 0..count {
            plaintext[100 + number * 5_000..][..100].fill(number as u8);
            let hash = secrets().hash(ChunkKind::Data, &plaintext);
            let sealed = match versions.last() {
                Some((base, _, prefix)) => sealer.seal_delta(&hash, &plaintext, (base, prefix), 1),
                None => sealer.seal(&hash, &plaintext, 1),
            };
            versions.push((hash, sealed.unwrap().to_vec(), plaintext.clone()));
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
            let mut room = vec![0; plaintext.len()];
            opener.open_into(&secrets(), ChunkKind::Data, hash, &chain, &mut room).unwrap();
            assert_eq!(room, *plaintext);
            let all = opener.open_all(&secrets(), hash, &chain).unwrap();
            let expected = versions[..length].iter().rev();
            assert!(
                all.iter().zip(expected).all(|(one, (hash, _, plain))| one.hash == *hash && one.plaintext == plain)
            );
            assert_eq!(all.len(), length);
        }
    }

    #[test]
    fn a_chain_that_is_not_whole_or_not_its_own_is_refused() {
        let (versions, strangers) = (versions(3, &[]), versions(3, &[]));
        let mut opener = ChunkOpener::new().unwrap();
        let sealed = |number: usize| &versions[number].1[..];
        let mut open = |chain: &[&[u8]]| opener.open(&secrets(), ChunkKind::Data, &versions[2].0, chain);
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
            (DELTA, 4, b"1234".to_vec()),
            (DELTA, 4, [7; 40].to_vec()),
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

    /// What a body sealed under the key of `hash` opens to.
    fn opened(hash: &ChunkHash, body: Vec<u8>) -> Result<Vec<u8>, ChunkError> {
        let mut sealed = [vec![5; NONCE], body].concat();
        seal::seal_once(&hash.key().0, [5; NONCE], &associated(&hash.id()), &mut sealed, NONCE);
        ChunkOpener::new().unwrap().open(&secrets(), ChunkKind::Data, hash, &[&sealed[..]])
    }
}
