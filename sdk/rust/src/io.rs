//! Byte streams of the host: the resources themselves, and adapters that make them `std::io`.
//!
//! The adapters do not buffer: the host does. Where a plugin reads many small pieces, a `BufReader` of [`MAX_LIST`] bytes
//! saves calls.

use std::borrow::Borrow;
use std::io::{self, Read, Write};

pub use crate::bindings::holdfast::engine::io::{ByteSink, ByteSource, transfer, wait};
use crate::{Error, Result};

/// The most bytes that one call carries through a plugin's memory.
pub const MAX_LIST: usize = 65_536;

/// From here on [`transfer`] is cheaper than carrying bytes through the plugin's memory.
pub const MIN_TRANSFER: u64 = 4_096;

/// A source, owned or borrowed, as `std::io::Read`.
#[derive(Debug)]
pub struct Reader<S: Borrow<ByteSource>>(pub S);

impl<S: Borrow<ByteSource>> Read for Reader<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let max = buffer.len().min(MAX_LIST) as u32;
        let bytes = self.0.borrow().read(max).map_err(Error::from)?;
        buffer.get_mut(..bytes.len()).ok_or_else(too_many)?.copy_from_slice(&bytes);
        Ok(bytes.len())
    }
}

fn too_many() -> io::Error {
    io::Error::other("the host returned more bytes than were asked for")
}

/// A sink, owned or borrowed, as `std::io::Write`. `flush` does nothing: bytes are on their way when a write returns.
#[derive(Debug)]
pub struct Writer<S: Borrow<ByteSink>>(pub S);

impl<S: Borrow<ByteSink>> Write for Writer<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(MAX_LIST)];
        self.0.borrow().write(part).map_err(Error::from)?;
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Moves exactly `length` bytes at the host; a source that ends before is the error `unexpected-end`.
pub fn transfer_exact(source: &ByteSource, sink: &ByteSink, length: u64) -> Result<()> {
    let moved = transfer(source, sink, length)?;
    if moved < length {
        return Err(
            Error::new("unexpected-end", format!("the stream ended after {moved} of {length} bytes")).retryable()
        );
    }
    Ok(())
}
