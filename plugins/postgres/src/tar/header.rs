//! One header of a tar stream, and what extension headers before it say.

use holdfast_sdk::Result;

use super::{BLOCK, Kind, MAX_EXTENSION, Member, malformed};
use crate::names;

/// What follows a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    File,
    Directory,
    Symlink,
    /// GNU: the next member's name.
    LongName,
    /// GNU: the next member's link target.
    LongLink,
    /// pax: records about the next member.
    Records,
    /// pax: records about all members. Nothing of them matters here.
    GlobalRecords,
}

impl Type {
    /// Whether it is about another member, and none itself.
    pub fn is_extension(self) -> bool {
        matches!(self, Self::LongName | Self::LongLink | Self::Records | Self::GlobalRecords)
    }
}

/// A header whose checksum fitted.
pub struct Header<'a> {
    pub kind: Type,
    pub size: u64,
    name: &'a [u8],
    prefix: &'a [u8],
    link: &'a [u8],
    mode: u64,
    modified: u64,
}

impl<'a> Header<'a> {
    pub fn parse(block: &'a [u8; BLOCK]) -> Result<Self> {
        // The checksum is the sum of all bytes, with its own field counted as blanks.
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
        if number(&block[148..156])? != sum - own + 8 * u64::from(b' ') {
            return Err(malformed("a header's checksum does not fit"));
        }
        let kind = match block[156] {
            b'0' | 0 => Type::File,
            b'2' => Type::Symlink,
            b'5' => Type::Directory,
            b'L' => Type::LongName,
            b'K' => Type::LongLink,
            b'x' => Type::Records,
            b'g' => Type::GlobalRecords,
            other => return Err(malformed(format!("a member of type {:?}", char::from(other)))),
        };
        // Only the POSIX form of the header has a prefix; in GNU's other fields are there.
        let prefix = if &block[257..263] == b"ustar\0" { text(&block[345..500]) } else { b"" };
        Ok(Self {
            kind,
            size: number(&block[124..136])?,
            name: text(&block[..100]),
            prefix,
            link: text(&block[157..257]),
            mode: number(&block[100..108])?,
            modified: number(&block[136..148])?,
        })
    }

    /// The member, as the extension headers before it correct it.
    pub fn member(&self, extensions: Extensions) -> Result<Member> {
        let name = extensions.name.unwrap_or_else(|| match self.prefix {
            b"" => self.name.to_vec(),
            prefix => [prefix, b"/", self.name].concat(),
        });
        let size = extensions.size.unwrap_or(self.size);
        let kind = match self.kind {
            Type::File => Kind::File(size),
            Type::Directory if size == 0 => Kind::Directory,
            Type::Symlink if size == 0 => {
                let target = extensions.link.unwrap_or_else(|| self.link.to_vec());
                Kind::Symlink(String::from_utf8_lossy(&target).into_owned())
            }
            _ => return Err(malformed("a directory or link with content")),
        };
        let modified = i64::try_from(self.modified).map_err(|_| malformed("a time out of range"))?;
        Ok(Member { path: names::sanitize(&name)?, kind, mode: (self.mode & 0o777) as u32, modified })
    }
}

/// What extension headers say about the next member.
#[derive(Default)]
pub struct Extensions {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extensions {
    /// Takes the body of an extension header.
    pub fn take(&mut self, kind: Type, data: &[u8]) -> Result<()> {
        match kind {
            Type::LongName => self.name = Some(text(data).to_vec()),
            Type::LongLink => self.link = Some(text(data).to_vec()),
            Type::Records => self.take_records(data)?,
            _ => {}
        }
        Ok(())
    }

    /// pax records: `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn take_records(&mut self, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let bad = || malformed("a pax record");
            let blank = data.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = decimal(&data[..blank]).filter(|length| *length <= MAX_EXTENSION).ok_or_else(bad)? as usize;
            let record = data.get(blank + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(bad)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(decimal(value).ok_or_else(bad)?),
                _ => {}
            }
            data = &data[length..];
        }
        Ok(())
    }
}

/// A field up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// Octal digits among blanks, or, where the first bit is set, a big endian number.
fn number(field: &[u8]) -> Result<u64> {
    let bad = || malformed("a number");
    if let Some((first @ 0x80.., rest)) = field.split_first() {
        let mut value = u64::from(first & 0x7F);
        for byte in rest {
            value = value.checked_mul(256).ok_or_else(bad)? | u64::from(*byte);
        }
        return Ok(value);
    }
    let digits = std::str::from_utf8(text(field)).map_err(|_| bad())?.trim_matches(' ');
    match digits {
        "" => Ok(0),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => u64::from_str_radix(digits, 8).map_err(|_| bad()),
        _ => Err(bad()),
    }
}
