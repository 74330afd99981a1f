//! Opens sealed chunks (FORMAT §3) one after the other with the same buffers.
//!
//! A chunk is never handed out unless its seal, its length and its hash all fit, and nothing is decompressed beyond its length.

use crate::chunk::{
    BODY_HEAD, ChunkError, ChunkHash, ChunkKind, ChunkSecrets, DELTA, NONCE, PLAIN_MAX, RAW, ZSTD, associated,
};
use crate::seal;

/// The contexts and buffers with which one thread opens chunks.
pub(crate) struct ChunkOpener {
    decompressor: zstd::bulk::Decompressor<'static>,
    /// The body that is being opened: its head and, once decrypted, the encoded plaintext.
    body: Vec<u8>,
}

impl ChunkOpener {
    pub(crate) fn new() -> Result<Self, std::io::Error> {
        Ok(Self { decompressor: zstd::bulk::Decompressor::new()?, body: Vec::new() })
    }

    /// Opens a chunk of whatever length it says it has.
    pub(crate) fn open(
        &mut self,
        secrets: &ChunkSecrets,
        kind: ChunkKind,
        hash: &ChunkHash,
        sealed: &[u8],
    ) -> Result<Vec<u8>, ChunkError> {
        self.decrypt(hash, sealed)?;
        let mut plaintext = vec![0; self.plain_length()?];
        self.decode(secrets, kind, hash, &mut plaintext)?;
        Ok(plaintext)
    }

    /// Opens a chunk that is as long as `plaintext`, which holds nothing of use after an error.
    pub(crate) fn open_into(
        &mut self,
        secrets: &ChunkSecrets,
        kind: ChunkKind,
        hash: &ChunkHash,
        sealed: &[u8],
        plaintext: &mut [u8],
    ) -> Result<(), ChunkError> {
        self.decrypt(hash, sealed)?;
        if self.plain_length()? != plaintext.len() {
            return Err(ChunkError::Length);
        }
        self.decode(secrets, kind, hash, plaintext)
    }

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

    fn decode(
        &mut self,
        secrets: &ChunkSecrets,
        kind: ChunkKind,
        hash: &ChunkHash,
        plaintext: &mut [u8],
    ) -> Result<(), ChunkError> {
        let (head, encoded) = self.body.split_first_chunk::<BODY_HEAD>().ok_or(ChunkError::Body)?;
        let written = match head[0] {
            RAW if encoded.len() == plaintext.len() => {
                plaintext.copy_from_slice(encoded);
                encoded.len()
            }
            ZSTD => self.decompressor.decompress_to_buffer(encoded, plaintext).map_err(|_| ChunkError::Body)?,
            DELTA => return Err(ChunkError::Delta),
            _ => return Err(ChunkError::Body),
        };
        if written != plaintext.len() {
            return Err(ChunkError::Body);
        }
        // Always, even though the seal fits: it is the key commitment and the last check against our own errors.
        if secrets.hash(kind, plaintext) == *hash { Ok(()) } else { Err(ChunkError::Hash) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkCodec, OVERHEAD};
    use crate::seal::Secret;

    fn secrets() -> ChunkSecrets {
        ChunkSecrets { data: Secret([1; 32]), list: Secret([2; 32]), table: Secret([3; 32]) }
    }

    #[test]
    fn chunks_open_again_and_only_as_themselves() {
        let mut codec = ChunkCodec::new().unwrap();
        let mut opener = ChunkOpener::new().unwrap();
        for plaintext in [vec![], vec![0; 100_000], seal::random::<5000>().to_vec()] {
            let hash = secrets().hash(ChunkKind::Data, &plaintext);
            let sealed = codec.seal(&hash, &plaintext, 1).unwrap().to_vec();
            assert!(sealed.len() <= plaintext.len() + OVERHEAD);
            assert_eq!(opener.open(&secrets(), ChunkKind::Data, &hash, &sealed).unwrap(), plaintext);
            let other = secrets().hash(ChunkKind::Data, b"other");
            assert!(matches!(opener.open(&secrets(), ChunkKind::Data, &other, &sealed), Err(ChunkError::Seal)));
            assert!(matches!(opener.open(&secrets(), ChunkKind::List, &hash, &sealed), Err(ChunkError::Hash)));
            for position in (0..sealed.len()).step_by(1 + sealed.len() / 100) {
                let mut spoilt = sealed.clone();
                spoilt[position] ^= 0x80;
                assert!(opener.open(&secrets(), ChunkKind::Data, &hash, &spoilt).is_err());
            }
        }
    }

    #[test]
    fn a_chunk_opens_into_room_of_its_own_length_alone() {
        let mut opener = ChunkOpener::new().unwrap();
        let plaintext = vec![7; 5000];
        let hash = secrets().hash(ChunkKind::Data, &plaintext);
        let sealed = ChunkCodec::new().unwrap().seal(&hash, &plaintext, 1).unwrap().to_vec();
        let mut open = |room: &mut [u8]| opener.open_into(&secrets(), ChunkKind::Data, &hash, &sealed, room);
        for length in [0, 4999, 5001] {
            assert!(matches!(open(&mut vec![0; length]), Err(ChunkError::Length)), "{length}");
        }
        let mut room = vec![0; 5000];
        open(&mut room).unwrap();
        assert_eq!(room, plaintext);
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
            (9, 4, b"1234".to_vec()),
        ] {
            // Its hash fits what it opens to: only the body is wrong.
            let hash = secrets().hash(ChunkKind::Data, &bytes);
            let body = [&[encoding][..], &length.to_le_bytes(), &bytes].concat();
            assert!(matches!(opened(&hash, body), Err(ChunkError::Body | ChunkError::Delta)), "{encoding} {length}");
        }
        let hash = secrets().hash(ChunkKind::Data, b"");
        assert!(matches!(opened(&hash, vec![0; BODY_HEAD - 1]), Err(ChunkError::Body)));
    }

    /// What a body sealed under the key of `hash` opens to.
    fn opened(hash: &ChunkHash, body: Vec<u8>) -> Result<Vec<u8>, ChunkError> {
        let mut sealed = [vec![5; NONCE], body].concat();
        seal::seal_once(&hash.key().0, [5; NONCE], &associated(&hash.id()), &mut sealed, NONCE);
        ChunkOpener::new().unwrap().open(&secrets(), ChunkKind::Data, hash, &sealed)
    }
}
