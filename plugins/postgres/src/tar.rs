//! The tar stream of a base backup, taken apart as it arrives: ustar as PostgreSQL writes it, with the GNU and pax
//! extensions for long names and large files.
//!
//! The server is not trusted: header checksums, names, types and sizes are checked, extension headers are bounded, and
//! nothing is held but one header. Bodies are never held: they go from the input to the [`Store`] directly.

mod header;

use std::io::Read;

use holdfast_sdk::{Error, Result};

use header::{Extensions, Header, Type};

/// Headers, and what bodies are padded to.
pub const BLOCK: usize = 512;

/// Long names and pax records take no more than this.
const MAX_EXTENSION: u64 = 64 * 1024;

/// Extension headers before one member: its name, its link, its records, and some that concern all.
const MAX_EXTENSIONS: u32 = 8;

/// Blocks of zeros at the end: two, and what fills up a record of ten kilobytes.
const MAX_END: u64 = 40 * BLOCK as u64;

/// What a member of the archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, with its bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link with its target.
    Symlink(String),
}

/// A member of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Relative, as [`names::sanitize`](crate::names::sanitize) makes it.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

/// Where members go.
pub trait Store {
    /// Where the archive comes from.
    type Input: Read;
    /// Where the bytes of one file go.
    type Sink;

    /// A member begins. Directories and links have no bytes.
    fn begin(&mut self, member: &Member) -> Result<Self::Sink>;
    /// Moves the next `length` bytes from the input to the member.
    fn append(&mut self, sink: &mut Self::Sink, input: &mut Self::Input, length: u64) -> Result<()>;
    /// All bytes of the member were there.
    fn end(&mut self, sink: Self::Sink) -> Result<()>;
}

enum State<K> {
    /// In a header, of which so many bytes are there.
    Header(usize),
    /// In a file with so many bytes and then so much padding to come.
    Body(K, u64, u64),
    /// In an extension header's body with so many bytes and then so much padding to come.
    Extension(Type, Vec<u8>, u64, u64),
    /// In padding.
    Padding(u64),
    /// After the first block of zeros, of which an archive has two at its end, and so many bytes more of them.
    End(u64),
}

/// Takes one archive apart.
pub struct Unpacker<S: Store> {
    state: State<S::Sink>,
    header: [u8; BLOCK],
    extensions: Extensions,
    /// Headers of extensions since the last member.
    extension_count: u32,
}

impl<S: Store> Unpacker<S> {
    /// At the beginning of an archive.
    pub fn new() -> Self {
        Self { state: State::Header(0), header: [0; BLOCK], extensions: Extensions::default(), extension_count: 0 }
    }

    /// Takes exactly the next `length` bytes of the archive from `input`.
    pub fn feed(&mut self, store: &mut S, input: &mut S::Input, mut length: u64) -> Result<()> {
        while length > 0 {
            let taken = self.step(store, input, length)?;
            length -= taken;
        }
        Ok(())
    }

    /// Goes on by up to `length` bytes, which are more than none, and says by how many.
    fn step(&mut self, store: &mut S, input: &mut S::Input, length: u64) -> Result<u64> {
        match &mut self.state {
            State::Header(filled) => {
                let part = length.min((BLOCK - *filled) as u64);
                let end = *filled + part as usize;
                input.read_exact(&mut self.header[*filled..end])?;
                *filled = end;
                if end == BLOCK {
                    self.state = self.next(store)?;
                }
                Ok(part)
            }
            State::Body(sink, remaining, _) => {
                let part = length.min(*remaining);
                store.append(sink, input, part)?;
                *remaining -= part;
                if *remaining == 0 {
                    let before = std::mem::replace(&mut self.state, State::Header(0));
                    if let State::Body(sink, _, padding) = before {
                        store.end(sink)?;
                        self.state = after_padding(padding);
                    }
                }
                Ok(part)
            }
            State::Extension(kind, data, remaining, padding) => {
                let part = length.min(*remaining);
                let start = data.len();
                data.resize(start + part as usize, 0);
                input.read_exact(&mut data[start..])?;
                *remaining -= part;
                if *remaining == 0 {
                    self.extensions.take(*kind, data)?;
                    self.state = after_padding(*padding);
                }
                Ok(part)
            }
            State::Padding(remaining) => {
                let part = length.min(*remaining);
                input.read_exact(&mut [0; BLOCK][..part as usize])?;
                self.state = after_padding(*remaining - part);
                Ok(part)
            }
            State::End(zeros) => {
                let mut block = [0; BLOCK];
                let part = length.min(BLOCK as u64);
                input.read_exact(&mut block[..part as usize])?;
                *zeros += part;
                if block != [0; BLOCK] || *zeros > MAX_END {
                    return Err(malformed("the archive goes on after its end"));
                }
                Ok(part)
            }
        }
    }

    /// What a complete header leads to.
    fn next(&mut self, store: &mut S) -> Result<State<S::Sink>> {
        if self.header == [0; BLOCK] {
            return Ok(State::End(0));
        }
        let header = Header::parse(&self.header)?;
        let padding = |size: u64| size.wrapping_neg() % BLOCK as u64;
        if header.kind.is_extension() {
            self.extension_count += 1;
            if self.extension_count > MAX_EXTENSIONS {
                return Err(malformed("extension headers without a member"));
            }
            return match header.size {
                0 => Ok(State::Header(0)),
                size @ 1..=MAX_EXTENSION => Ok(State::Extension(header.kind, Vec::new(), size, padding(size))),
                size => Err(malformed(format!("an extension header of {size} bytes"))),
            };
        }
        let member = header.member(std::mem::take(&mut self.extensions))?;
        self.extension_count = 0;
        let sink = store.begin(&member)?;
        match member.kind {
            Kind::File(size @ 1..) => Ok(State::Body(sink, size, padding(size))),
            _ => {
                store.end(sink)?;
                Ok(State::Header(0))
            }
        }
    }

    /// The archive ended. Anything but a border between members is an error; with `terminated`, so is the lack of the
    /// blocks of zeros, which servers before version 15 leave out.
    pub fn finish(self, terminated: bool) -> Result<()> {
        match self.state {
            State::End(_) => Ok(()),
            State::Header(0) if !terminated => Ok(()),
            _ => Err(malformed("the archive was cut before its end")),
        }
    }
}

fn after_padding<K>(padding: u64) -> State<K> {
    match padding {
        0 => State::Header(0),
        padding => State::Padding(padding),
    }
}

fn malformed(message: impl Into<String>) -> Error {
    Error::new("malformed-archive", format!("the server's tar stream is malformed: {}", message.into()))
}

#[cfg(test)]
mod tests;
