//! Digests that plugins compare with what their engines say.

use crate::Error;
use crate::seal::Sha256;

/// A digest in steps.
pub(super) enum Hasher {
    Sha256(Sha256),
    Crc32c(crc_fast::Digest),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    pub(super) fn new(algorithm: &str) -> Result<Self, Error> {
        match algorithm {
            "sha256" => Ok(Self::Sha256(Sha256::new())),
            "crc32c" => Ok(Self::Crc32c(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))),
            "blake3" => Ok(Self::Blake3(Box::default())),
            _ => Err(Error::UnknownAlgorithm { algorithm: algorithm.to_owned() }),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(digest) => digest.update(bytes),
            Self::Crc32c(digest) => digest.update(bytes),
            Self::Blake3(digest) => drop(digest.update(bytes)),
        }
    }

    /// The digest's bytes; a CRC is big-endian, as it is written in hex.
    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(digest) => digest.finish(),
            Self::Crc32c(digest) => (digest.finalize() as u32).to_be_bytes().to_vec(),
            Self::Blake3(digest) => digest.finalize().as_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_the_check_string_are_known() {
        let digest = |algorithm| {
            let mut hasher = Hasher::new(algorithm).unwrap();
            hasher.update(b"1234");
            hasher.update(b"56789");
            hex::encode(hasher.finish())
        };
        assert_eq!(digest("crc32c"), "e3069283");
        assert_eq!(digest("sha256"), "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
        assert_eq!(digest("blake3"), blake3::hash(b"123456789").to_hex().as_str());
        assert!(Hasher::new("md5").is_err());
    }
}
