//! Every stored byte that is not a chunk (FORMAT.md): object kinds, paths, and structures with integer keys.
//!
//! What is read here is hostile until a signature or a seal vouched for it: lengths are bounded, nothing panics.

pub(crate) mod cbor;
pub(crate) mod directory;
pub(crate) mod entry;
pub(crate) mod head;
pub(crate) mod index;
pub(crate) mod keys;
pub(crate) mod manifest;
pub(crate) mod path;
pub(crate) mod refs;

pub use cbor::Malformed;

/// What an object is: the fifth byte of its preamble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    KeyringSignature = 1,
    Pack = 2,
    Index = 3,
    Manifest = 4,
    Refs = 5,
    Keys = 6,
    Head = 7,
    LocalKeyring = 9,
}

/// Length of the preamble in bytes.
pub(crate) const PREAMBLE: usize = 8;

impl Kind {
    /// The eight bytes that every object of this kind begins with.
    pub(crate) fn preamble(self) -> [u8; PREAMBLE] {
        [b'H', b'F', b'S', b'T', self as u8, 1, 0, 0]
    }

    /// The bytes behind the preamble, if it is this kind's.
    pub(crate) fn strip(self, bytes: &[u8]) -> Result<&[u8], Malformed> {
        bytes.strip_prefix(&self.preamble()).ok_or(Malformed("the first bytes are not those of this kind of object"))
    }
}

/// Splits off a `u32` in little-endian.
pub(crate) fn split_u32(bytes: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Malformed("the object ends too early"))?;
    Ok((u32::from_le_bytes(*number), rest))
}

/// The same of a `u64`.
pub(crate) fn split_u64(bytes: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let (number, rest) = bytes.split_first_chunk().ok_or(Malformed("the object ends too early"))?;
    Ok((u64::from_le_bytes(*number), rest))
}

/// Splits off `count` pieces of `N` bytes.
pub(crate) fn split_pieces<const N: usize>(bytes: &[u8], count: u64) -> Result<(&[[u8; N]], &[u8]), Malformed> {
    let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(N));
    let (pieces, rest) =
        length.and_then(|length| bytes.split_at_checked(length)).ok_or(Malformed("a count is beyond the object"))?;
    Ok((pieces.as_chunks().0, rest))
}

/// `header length: u32 | header`: what binary objects begin with inside their seal.
pub(crate) fn put_header(out: &mut Vec<u8>, header: &impl cbor::Value) {
    let header = cbor::encode(header);
    out.extend((header.len() as u32).to_le_bytes());
    out.extend(header);
}

/// Reads such a header: it, and what follows.
pub(crate) fn split_header<T: cbor::Value>(bytes: &[u8]) -> Result<(T, &[u8]), Malformed> {
    let (length, rest) = split_u32(bytes)?;
    let (header, rest) = rest.split_at_checked(length as usize).ok_or(Malformed("a length is beyond the object"))?;
    Ok((cbor::decode(header)?, rest))
}
