//! Deterministic CBOR (RFC 8949 §4.2.1): the little of it that stored structures use.
//!
//! Reading refuses every encoding that writing would not have made: long integers, indefinite lengths, unsorted or
//! repeated keys, tags, floats, null, trailing bytes. So a structure has exactly one stored form. A general decoder
//! accepts those, which is why the form is read here, strictly, in one pass and without allocating ahead of the input.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Why stored bytes are not what FORMAT.md says; a fact for the error that names the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// Nesting beyond this is refused; our own structures need less than half of it.
const DEPTH_MAX: u32 = 16;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

/// Appends an item's head: its major type and argument in the shortest form.
fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..=23 => out.push(major | argument as u8),
        24..=0xff => out.extend([major | 24, argument as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((argument as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            out.push(major | 26);
            out.extend((argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend(argument.to_be_bytes());
        }
    }
}

/// A strict reader over one buffer.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Malformed> {
        let count = usize::try_from(count).map_err(|_| Malformed("a length is beyond the object"))?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed("a length is beyond the object"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn head(&mut self) -> Result<(u8, u64), Malformed> {
        let first = self.take(1)?[0];
        let (major, short) = (first >> 5, first & 0x1f);
        let width = match short {
            0..=23 => return Ok((major, u64::from(short))),
            24..=27 if major != SIMPLE => 1 << (short - 24),
            _ => return Err(Malformed("a value has a form that is not stored")),
        };
        let mut argument = [0; 8];
        argument[8 - width..].copy_from_slice(self.take(width as u64)?);
        let argument = u64::from_be_bytes(argument);
        let least = match width {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            _ => 1 << 32,
        };
        if argument < least {
            return Err(Malformed("an integer is not in its shortest form"));
        }
        Ok((major, argument))
    }

    fn expect(&mut self, major: u8, otherwise: &'static str) -> Result<u64, Malformed> {
        match self.head()? {
            (found, argument) if found == major => Ok(argument),
            _ => Err(Malformed(otherwise)),
        }
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        let length = self.expect(TEXT, "a text was expected")?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.expect(BYTES, "a byte string was expected")?;
        self.take(length)
    }

    /// Checks and passes over one item of any kind: its bytes.
    fn any(&mut self, depth: u32) -> Result<&'a [u8], Malformed> {
        if depth == 0 {
            return Err(Malformed("values are nested too deeply"));
        }
        let start = self.rest;
        match self.head()? {
            (UNSIGNED | NEGATIVE, _) => {}
            (BYTES, length) => drop(self.take(length)?),
            (TEXT, length) => {
                std::str::from_utf8(self.take(length)?).map_err(|_| Malformed("a text is not UTF-8"))?;
            }
            (ARRAY, count) => {
                for _ in 0..count {
                    self.any(depth - 1)?;
                }
            }
            (MAP, count) => {
                let mut previous: Option<&[u8]> = None;
                for _ in 0..count {
                    let key = self.any(depth - 1)?;
                    if previous.is_some_and(|previous| previous >= key) {
                        return Err(Malformed("the keys of a map are not in order"));
                    }
                    previous = Some(key);
                    self.any(depth - 1)?;
                }
            }
            (SIMPLE, 20 | 21) => {}
            _ => return Err(Malformed("a value has a form that is not stored")),
        }
        Ok(&start[..start.len() - self.rest.len()])
    }
}

/// A value that has one stored form.
pub(crate) trait Value: Sized {
    fn put(&self, out: &mut Vec<u8>);
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed>;
    /// What a structure's field is when its key is not there; `None` for fields that must be.
    fn when_absent() -> Option<Self> {
        None
    }
    /// The field's key is left out.
    fn is_absent(&self) -> bool {
        false
    }
}

/// The stored form of a whole object.
pub(crate) fn encode(value: &impl Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.put(&mut out);
    out
}

/// Reads a whole object; bytes behind it are refused.
pub(crate) fn decode<T: Value>(bytes: &[u8]) -> Result<T, Malformed> {
    let mut reader = Reader::new(bytes);
    let value = T::take(&mut reader)?;
    if reader.rest().is_empty() { Ok(value) } else { Err(Malformed("bytes follow the end")) }
}

impl Value for u64 {
    fn put(&self, out: &mut Vec<u8>) {
        head(out, UNSIGNED, *self);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.expect(UNSIGNED, "an unsigned integer was expected")
    }
}

impl Value for u32 {
    fn put(&self, out: &mut Vec<u8>) {
        u64::from(*self).put(out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        u64::take(reader)?.try_into().map_err(|_| Malformed("an integer is out of range"))
    }
}

impl Value for i64 {
    fn put(&self, out: &mut Vec<u8>) {
        match u64::try_from(*self) {
            Ok(positive) => head(out, UNSIGNED, positive),
            Err(_) => head(out, NEGATIVE, !(*self) as u64),
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (major, argument) = reader.head()?;
        let value = i64::try_from(argument).map_err(|_| Malformed("an integer is out of range"))?;
        match major {
            UNSIGNED => Ok(value),
            NEGATIVE => Ok(!value),
            _ => Err(Malformed("an integer was expected")),
        }
    }
}

impl Value for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(if *self { TRUE } else { FALSE });
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        match reader.take(1)? {
            [TRUE] => Ok(true),
            [FALSE] => Ok(false),
            _ => Err(Malformed("true or false was expected")),
        }
    }
}

impl Value for String {
    fn put(&self, out: &mut Vec<u8>) {
        head(out, TEXT, self.len() as u64);
        out.extend(self.as_bytes());
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.text().map(str::to_owned)
    }
}

/// A byte string of any length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Value for Blob {
    fn put(&self, out: &mut Vec<u8>) {
        head(out, BYTES, self.0.len() as u64);
        out.extend(&self.0);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.bytes().map(|bytes| Self(bytes.to_vec()))
    }
}

impl<const N: usize> Value for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        head(out, BYTES, N as u64);
        out.extend(self);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        reader.bytes()?.try_into().map_err(|_| Malformed("a byte string has another length"))
    }
}

impl<T: Value> Value for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::take(reader).map(Some)
    }
    fn when_absent() -> Option<Self> {
        Some(None)
    }
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T: Value> Value for Arc<T> {
    fn put(&self, out: &mut Vec<u8>) {
        T::put(self, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        T::take(reader).map(Self::new)
    }
}

impl<T: Value> Value for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        head(out, ARRAY, self.len() as u64);
        self.iter().for_each(|value| value.put(out));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.expect(ARRAY, "a list was expected")?;
        // Grown as items come: a count in hostile bytes allocates nothing.
        let mut values = Self::new();
        for _ in 0..count {
            values.push(T::take(reader)?);
        }
        Ok(values)
    }
}

impl Value for BTreeMap<String, String> {
    fn put(&self, out: &mut Vec<u8>) {
        head(out, MAP, self.len() as u64);
        let mut pairs: Vec<_> = self.iter().collect();
        // Keys are ordered by their encoding, which begins with the length.
        pairs.sort_by_key(|(key, _)| (key.len(), *key));
        for (key, value) in pairs {
            key.put(out);
            value.put(out);
        }
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = reader.expect(MAP, "a map was expected")?;
        let mut map = Self::new();
        let mut previous: Option<&str> = None;
        for _ in 0..count {
            let key = reader.text()?;
            if previous.is_some_and(|previous| (previous.len(), previous) >= (key.len(), key)) {
                return Err(Malformed("the keys of a map are not in order"));
            }
            previous = Some(key);
            map.insert(key.to_owned(), String::take(reader)?);
        }
        Ok(map)
    }
}

macro_rules! tuple {
    ($count:literal: $($name:ident $index:tt),+) => {
        impl<$($name: Value),+> Value for ($($name,)+) {
            fn put(&self, out: &mut Vec<u8>) {
                head(out, ARRAY, $count);
                $( self.$index.put(out); )+
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
                if reader.expect(ARRAY, "a list was expected")? != $count {
                    return Err(Malformed("a list has another length"));
                }
                Ok(($($name::take(reader)?,)+))
            }
        }
    };
}
tuple!(2: A 0, B 1);
tuple!(3: A 0, B 1, C 2);
tuple!(5: A 0, B 1, C 2, D 3, E 4);

/// Fields with keys from 128 on: not understood here, kept as they are when the structure is written again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extra(Vec<(u64, Vec<u8>)>);

/// First key that a reader may ignore.
const EXTRA_FROM: u64 = 128;

/// Collects a structure's fields, given in ascending order of their keys.
#[derive(Default)]
pub(crate) struct MapWriter {
    count: u64,
    body: Vec<u8>,
}

impl MapWriter {
    pub(crate) fn field(&mut self, key: u64, value: &impl Value) {
        if !value.is_absent() {
            self.count += 1;
            key.put(&mut self.body);
            value.put(&mut self.body);
        }
    }
    pub(crate) fn finish(mut self, extra: &Extra, out: &mut Vec<u8>) {
        for (key, value) in &extra.0 {
            key.put(&mut self.body);
            self.body.extend(value);
        }
        head(out, MAP, self.count + extra.0.len() as u64);
        out.extend(self.body);
    }
}

/// Hands out a structure's fields, asked for in ascending order of their keys.
pub(crate) struct MapReader<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: u64,
    next: Option<u64>,
}

impl<'r, 'a> MapReader<'r, 'a> {
    pub(crate) fn new(reader: &'r mut Reader<'a>) -> Result<Self, Malformed> {
        let left = reader.expect(MAP, "a map was expected")?;
        let mut map = Self { reader, left, next: None };
        map.advance(None)?;
        Ok(map)
    }

    fn advance(&mut self, previous: Option<u64>) -> Result<(), Malformed> {
        self.next = None;
        if self.left > 0 {
            self.left -= 1;
            let key = u64::take(self.reader)?;
            if previous.is_some_and(|previous| previous >= key) {
                return Err(Malformed("the keys of a map are not in order"));
            }
            self.next = Some(key);
        }
        Ok(())
    }

    pub(crate) fn field<T: Value>(&mut self, key: u64) -> Result<T, Malformed> {
        if self.next != Some(key) {
            return T::when_absent().ok_or(Malformed("a field is missing or out of order"));
        }
        let value = T::take(self.reader)?;
        self.advance(Some(key))?;
        Ok(value)
    }

    pub(crate) fn finish(mut self) -> Result<Extra, Malformed> {
        let mut extra = Vec::new();
        while let Some(key) = self.next {
            if key < EXTRA_FROM {
                return Err(Malformed("a field is unknown"));
            }
            extra.push((key, self.reader.any(DEPTH_MAX)?.to_vec()));
            self.advance(Some(key))?;
        }
        Ok(Extra(extra))
    }
}

/// Declares a stored structure: a map with integer keys, given in ascending order.
macro_rules! structure {
    ($(#[$meta:meta])* $name:ident { $( $(#[$doc:meta])* $key:literal $field:ident: $type:ty ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name {
            $( $(#[$doc])* pub(crate) $field: $type, )*
            pub(crate) extra: $crate::format::cbor::Extra,
        }
        impl $crate::format::cbor::Value for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let mut map = $crate::format::cbor::MapWriter::default();
                $( map.field($key, &self.$field); )*
                map.finish(&self.extra, out);
            }
            fn take(reader: &mut $crate::format::cbor::Reader<'_>) -> Result<Self, $crate::format::Malformed> {
                let mut map = $crate::format::cbor::MapReader::new(reader)?;
                $( let $field = map.field($key)?; )*
                Ok(Self { $($field,)* extra: map.finish()? })
            }
        }
    };
}
pub(crate) use structure;

#[cfg(test)]
mod tests {
    use super::*;

    structure! {
        Sample {
            1 number: u64,
            2 name: Option<String>,
            24 list: Vec<(u64, bool)>,
        }
    }

    fn sample() -> Sample {
        Sample { number: 1000, name: Some("é".into()), list: vec![(1, true)], extra: Extra::default() }
    }

    #[test]
    fn a_structure_has_these_bytes() {
        assert_eq!(hex::encode(encode(&sample())), "a3011903e80262c3a9181881820 1f5".replace(' ', ""));
        assert_eq!(decode::<Sample>(&encode(&sample())), Ok(sample()));
    }

    #[test]
    fn other_encodings_of_the_same_structure_are_refused() {
        for (bytes, why) in [
            ("a2011a000003e8181880", "an integer is not in its shortest form"),
            ("a2181880011903e8", "a field is missing or out of order"),
            ("bf011903e8181880ff", "a value has a form that is not stored"),
            ("a2011903e818189fff", "a value has a form that is not stored"),
            ("a301010101181880", "the keys of a map are not in order"),
            ("a3010103011818 80", "a field is missing or out of order"),
            ("a3010118188018 1901", "a field is unknown"),
            ("a201011818 8000", "bytes follow the end"),
            ("a20101181880f6", "bytes follow the end"),
            ("a2010118189affffffff", "a length is beyond the object"),
            ("a201f6181880", "an unsigned integer was expected"),
        ] {
            let bytes = hex::decode(bytes.replace(' ', "")).unwrap();
            assert_eq!(decode::<Sample>(&bytes), Err(Malformed(why)), "{}", hex::encode(&bytes));
        }
    }

    #[test]
    fn keys_from_128_on_are_preserved() {
        let bytes = hex::decode("a30101181880188082f5a10102").unwrap();
        let read = decode::<Sample>(&bytes).unwrap();
        assert_eq!(encode(&read), bytes);
        let nested = [&hex::decode("a301011818801880").unwrap()[..], &[0x81; 40], &[0]].concat();
        assert_eq!(decode::<Sample>(&nested), Err(Malformed("values are nested too deeply")));
    }

    #[test]
    fn another_implementation_reads_the_same() {
        let bytes = encode(&sample());
        let mut decoder = minicbor::Decoder::new(&bytes);
        assert_eq!(decoder.map().unwrap(), Some(3));
        assert_eq!((decoder.u8().unwrap(), decoder.u64().unwrap()), (1, 1000));
        assert_eq!((decoder.u8().unwrap(), decoder.str().unwrap()), (2, "é"));
        assert_eq!((decoder.u8().unwrap(), decoder.array().unwrap()), (24, Some(1)));
        assert_eq!(decoder.array().unwrap(), Some(2));
        assert_eq!((decoder.u64().unwrap(), decoder.bool().unwrap()), (1, true));
        assert_eq!(decoder.position(), bytes.len());
        for value in [0, 23, 24, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX] {
            assert_eq!(minicbor::to_vec(value).unwrap(), encode(&value));
            assert_eq!(minicbor::to_vec(value as i64).unwrap(), encode(&(value as i64)));
        }
    }

    #[test]
    fn text_maps_are_ordered_by_their_encoding() {
        let map = BTreeMap::from([("aa".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
        let bytes = encode(&map);
        assert_eq!(hex::encode(&bytes), "a261626132626161 6131".replace(' ', ""));
        assert_eq!(decode(&bytes), Ok(map));
    }

    #[test]
    fn signed_integers_keep_their_value() {
        for value in [0, 1, -1, 23, -24, -25, i64::MAX, i64::MIN] {
            assert_eq!(decode(&encode(&value)), Ok(value));
        }
    }
}
