//! A session of the frontend/backend protocol, version 3, that is let in without a password and asks for one COPY: each row is
//! a message of its own, looked at here and joined into pieces of 64 KiB.

use holdfast_sdk::io::{ByteSink, ByteSource, MAX_LIST};
use holdfast_sdk::{Error, Result};

/// Whom the server lets in.
const STARTUP: &[u8] = b"\0\x03\0\0user\0postgres\0database\0bench\0\0";

const COPY_DATA: u8 = b'd';
const ERROR: u8 = b'E';
const READY: u8 = b'Z';

/// Tag and length of a message.
const HEAD: usize = 5;

/// Asks, and writes what all `CopyData` messages carry.
pub fn copy(input: &ByteSource, output: &ByteSink, query: &str, sink: &ByteSink) -> Result<()> {
    let mut rows = Rows { sink, joined: Vec::with_capacity(MAX_LIST) };
    let mut stream = Stream { input, buffer: Vec::with_capacity(2 * MAX_LIST) };
    output.write(&framed(None, STARTUP))?;
    stream.until_ready(&mut rows)?;
    output.write(&framed(Some(b'Q'), &[query.as_bytes(), b"\0"].concat()))?;
    stream.until_ready(&mut rows)?;
    rows.flush()
}

/// A message with its length, which counts itself and not the tag.
fn framed(tag: Option<u8>, body: &[u8]) -> Vec<u8> {
    let length = (body.len() + 4) as u32;
    tag.into_iter().chain(length.to_be_bytes()).chain(body.iter().copied()).collect()
}

struct Stream<'a> {
    input: &'a ByteSource,
    /// Read and not yet taken: less than a message when more is read.
    buffer: Vec<u8>,
}

impl Stream<'_> {
    /// Takes messages until the server waits for a command.
    fn until_ready(&mut self, rows: &mut Rows) -> Result<()> {
        loop {
            let piece = self.input.read(MAX_LIST as u32)?;
            if piece.is_empty() {
                return Err(Error::new("unexpected-end", "the server closed the connection"));
            }
            self.buffer.extend_from_slice(&piece);
            let (taken, is_ready) = take(&self.buffer, rows)?;
            self.buffer.drain(..taken);
            if is_ready {
                return Ok(());
            }
        }
    }
}

/// Takes the whole messages at the beginning of `bytes`: how many bytes they have, and whether the last said that the server is
/// ready.
fn take(bytes: &[u8], rows: &mut Rows) -> Result<(usize, bool)> {
    let mut rest = bytes;
    while let Some(&[tag, a, b, c, d]) = rest.first_chunk::<HEAD>() {
        let end = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(1);
        let body = match rest.get(HEAD..end) {
            Some(body) => body,
            None if !(HEAD..=MAX_LIST).contains(&end) => {
                return Err(Error::new("protocol-error", "a message too long, or too short"));
            }
            None => break,
        };
        match tag {
            COPY_DATA => rows.push(body)?,
            ERROR => return Err(Error::new("server-error", String::from_utf8_lossy(body).replace('\0', " "))),
            _ => {}
        }
        rest = &rest[end..];
        if tag == READY {
            return Ok((bytes.len() - rest.len(), true));
        }
    }
    Ok((bytes.len() - rest.len(), false))
}

/// Joins rows into pieces that are worth a call.
struct Rows<'a> {
    sink: &'a ByteSink,
    joined: Vec<u8>,
}

impl Rows<'_> {
    fn push(&mut self, row: &[u8]) -> Result<()> {
        if self.joined.len() + row.len() > MAX_LIST {
            self.flush()?;
        }
        self.joined.extend_from_slice(row);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.sink.write(&self.joined)?;
        self.joined.clear();
        Ok(())
    }
}
