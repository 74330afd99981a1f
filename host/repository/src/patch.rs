//! Patches (FORMAT §3): a chunk as what differs from its base at the same offsets.
//!
//! Pages of a database change in many small places. What lies between those is neither stored nor decoded: it stays as it
//! was in the base.

use std::ops::Range;

use crate::format::Malformed;

/// So many equal bytes end a place; fewer cost less within it than another place does.
const GAP: usize = 6;
/// Bytes that are compared at once.
const BLOCK: usize = 16;
/// Most places are a few bytes long: so many are copied in one register, which takes a fraction of what a call takes.
const WORD: usize = 8;

/// Where a chunk differs from its base: ranges of its bytes, in order, none of them empty, none touching the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Places(Vec<Range<usize>>);

impl Places {
    /// Where `new` differs from `old`; what lies beyond the end of `old` does.
    pub(crate) fn between(old: &[u8], new: &[u8]) -> Self {
        let common = old.len().min(new.len());
        let mut places = Vec::new();
        let mut at = 0;
        while at < common {
            let start = at + equal(&old[at..common], &new[at..common]);
            let end = end_of_place(&old[..common], &new[..common], start);
            places.extend((start < end).then_some(start..end));
            at = end;
        }
        match places.last_mut() {
            _ if common == new.len() => {}
            Some(last) if common < last.end + GAP => last.end = new.len(),
            _ => places.push(common..new.len()),
        }
        Self(places)
    }

    /// Appends the stored form: of each place, how far it is behind the one before, and how long it is.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut at = 0;
        for place in &self.0 {
            put(place.start - at, out);
            put(place.len(), out);
            at = place.end;
        }
    }

    /// Reads the stored form, for a chunk of so many bytes.
    pub(crate) fn decode(&mut self, mut encoded: &[u8], length: usize) -> Result<(), Malformed> {
        self.0.clear();
        let mut at = 0;
        while !encoded.is_empty() {
            let start = at + take(&mut encoded)?;
            let end = start + take(&mut encoded)?;
            let touches = start == at && !self.0.is_empty();
            if touches || start == end || end > length {
                return Err(Malformed("a place of a patch is empty, beyond its chunk, or no place of its own"));
            }
            self.0.push(start..end);
            at = end;
        }
        Ok(())
    }

    /// Longest stored form for a chunk of so many bytes, which bounds what a patch that lies costs. Two integers of a byte
    /// tell of seven bytes at least ([`GAP`]), but for the first two.
    pub(crate) fn encoded_max(length: usize) -> usize {
        length / 2 + 2
    }

    /// Bytes at the places.
    pub(crate) fn total(&self) -> usize {
        self.0.iter().map(ExactSizeIterator::len).sum()
    }

    /// What a version that is `length` bytes long has at the places, as far as it goes.
    pub(crate) fn within(&self, length: usize) -> impl Iterator<Item = Range<usize>> {
        self.0.iter().map(move |place| place.start.min(length)..place.end.min(length))
    }

    /// Appends to a version what it has at the places, as far as it goes.
    pub(crate) fn append_old(&self, version: &mut Vec<u8>) {
        for place in self.within(version.len()) {
            let end = version.len() + place.len();
            match version[place.start..].first_chunk::<WORD>().copied() {
                Some(word) if place.len() <= WORD => {
                    version.extend_from_slice(&word);
                    version.truncate(end);
                }
                _ => version.extend_from_within(place),
            }
        }
    }

    /// Writes `bytes`, which are [`Self::total`], to the places.
    pub(crate) fn overwrite(&self, plaintext: &mut [u8], mut bytes: &[u8]) {
        for place in &self.0 {
            let length = place.len();
            let here = &mut plaintext[place.start..];
            match (here.first_chunk_mut::<WORD>(), bytes.first_chunk::<WORD>()) {
                (Some(old), Some(new)) if length <= WORD => {
                    let kept = u64::MAX.checked_shl(8 * length as u32).unwrap_or(0);
                    *old = (u64::from_le_bytes(*old) & kept | u64::from_le_bytes(*new) & !kept).to_le_bytes();
                }
                _ => here[..length].copy_from_slice(&bytes[..length]),
            }
            bytes = &bytes[length..];
        }
    }
}

/// Appends an integer in groups of seven bits, the lowest first; all bytes but the last have the highest bit set.
fn put(mut integer: usize, out: &mut Vec<u8>) {
    while integer >= 0x80 {
        out.push(integer as u8 | 0x80);
        integer >>= 7;
    }
    out.push(integer as u8);
}

/// Takes an integer, of four bytes at most: chunks are not longer than such ones tell.
fn take(encoded: &mut &[u8]) -> Result<usize, Malformed> {
    let mut integer = 0;
    for group in 0..4 {
        let (byte, rest) = encoded.split_first().ok_or(Malformed("the places of a patch are cut short"))?;
        *encoded = rest;
        integer |= usize::from(byte & 0x7f) << (7 * group);
        if *byte < 0x80 {
            return Ok(integer);
        }
    }
    Err(Malformed("an integer in the places of a patch is too long"))
}

/// How many bytes are equal at the beginning of two slices of one length.
fn equal(old: &[u8], new: &[u8]) -> usize {
    let blocks = old.chunks_exact(BLOCK).zip(new.chunks_exact(BLOCK));
    let equal = blocks.take_while(|(old, new)| old == new).count() * BLOCK;
    equal + old[equal..].iter().zip(&new[equal..]).take_while(|(old, new)| old == new).count()
}

/// Where the place ends that begins at `start`, which differs or is the end.
fn end_of_place(old: &[u8], new: &[u8], start: usize) -> usize {
    let mut end = start;
    let mut at = start;
    while at < old.len() && at < end + GAP {
        at += 1;
        if old[at - 1] != new[at - 1] {
            end = at;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(places: &Places) -> Vec<u8> {
        let mut encoded = Vec::new();
        places.encode(&mut encoded);
        encoded
    }

    #[test]
    fn places_are_these_bytes() {
        let old = vec![0; 1_000];
        let mut new = old.clone();
        new.resize(1_003, 9);
        for at in [0, 1, 100, 105, 106, 500, 507] {
            new[at] = 1;
        }
        let places = Places::between(&old, &new);
        assert_eq!(places, Places(vec![0..2, 100..107, 500..501, 507..508, 1_000..1_003]));
        // The end of what grew is a part of what changed shortly before it.
        new[995] = 1;
        assert_eq!(Places::between(&old, &new).0.last(), Some(&(995..1_003)));
        let expected = [0, 2, 98, 7, 0x89, 3, 1, 6, 1, 0xec, 3, 3];
        assert_eq!(encoded(&places), expected);
        assert_eq!(places.total(), 14);
        let mut read = Places::default();
        for _ in 0..2 {
            read.decode(&expected, 1_003).unwrap();
            assert_eq!(read, places);
        }
    }

    #[test]
    fn places_that_lie_are_refused() {
        for encoded in [
            &[0, 11][..],
            &[10, 1],
            &[3],
            &[3, 0],
            &[0, 2, 1, 8],
            &[0, 2, 0, 2],
            &[3, 0x80],
            &[0xff, 0xff, 0xff, 0x7f, 1],
            &[0x80, 0x80, 0x80, 0x80, 0, 1],
        ] {
            assert!(Places::default().decode(encoded, 10).is_err(), "{encoded:?}");
        }
        Places::default().decode(&[9, 1], 10).unwrap();
        Places::default().decode(&[0x83, 0, 7], 10).unwrap();
        Places::default().decode(&[], 0).unwrap();
    }

    /// A version, and another one: bytes changed here and there, and the end cut off or grown.
    fn versions() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let changes = prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8), 0..60);
        (prop::collection::vec(0..4_u8, 0..600), changes, 0..700_usize).prop_map(|(old, changes, length)| {
            let mut new = old.clone();
            for (index, value) in changes.into_iter().filter(|_| !old.is_empty()) {
                new[index.index(old.len())] = value;
            }
            new.resize(if length < 600 { new.len().min(length) } else { length }, 1);
            (old, new)
        })
    }

    proptest! {
        #[test]
        fn a_base_becomes_what_was_compared_with_it((old, new) in versions()) {
            let places = Places::between(&old, &new);
            let encoded = encoded(&places);
            prop_assert!(encoded.len() <= Places::encoded_max(new.len()));
            let mut read = Places::default();
            read.decode(&encoded, new.len()).unwrap();
            prop_assert_eq!(&read, &places);
            let bytes: Vec<u8> = places.within(new.len()).flat_map(|place| new[place].to_vec()).collect();
            let mut plaintext = old.clone();
            plaintext.resize(new.len(), 0);
            read.overwrite(&mut plaintext, &bytes);
            prop_assert_eq!(plaintext, new);
            let mut with_old = old.clone();
            places.append_old(&mut with_old);
            let expected: Vec<u8> = places.within(old.len()).flat_map(|place| old[place].to_vec()).collect();
            prop_assert_eq!(&with_old[..old.len()], &old);
            prop_assert_eq!(&with_old[old.len()..], expected);
        }
    }
}
