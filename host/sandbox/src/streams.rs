//! The two ends of every stream: sources (a socket, an entry's content) and sinks (a socket, an entry, a file).
//!
//! Bytes on their way from a socket to an entry are read straight into the chunk that they become part of.

use bytes::Bytes;
use holdfast_repository::{ContentReader, EntryWriter};

use crate::file::NewFile;
use crate::guard::Guard;
use crate::imports::types::{CallError, misused};
use crate::limits::{Output, Place};
use crate::socket::Socket;

/// Bytes that one list has at most, in either direction, and that a source buffers.
pub(crate) const LIST: usize = 64 << 10;

/// What can be read.
pub enum Source {
    Socket(Socket),
    Content(Content),
}

/// An entry's bytes, a chunk at a time.
pub struct Content {
    reader: ContentReader,
    chunk: Bytes,
    _place: Place,
}

impl Content {
    pub(crate) fn new(reader: ContentReader, place: Place) -> Self {
        Self { reader, chunk: Bytes::new(), _place: place }
    }

    /// Up to `max` bytes without copying; none at the end.
    async fn piece(&mut self, guard: &Guard, max: usize) -> Result<Bytes, CallError> {
        while self.chunk.is_empty() {
            match guard.wait(self.reader.next()).await?? {
                Some(chunk) => self.chunk = chunk,
                None => return Ok(Bytes::new()),
            }
        }
        let length = self.chunk.len().min(max);
        Ok(self.chunk.split_to(length))
    }
}

impl Source {
    /// Up to `max` bytes as soon as some are there; none at the end.
    pub(crate) async fn piece(&mut self, guard: &Guard, max: usize) -> Result<Bytes, CallError> {
        match self {
            Self::Socket(socket) => socket.read(guard, max).await,
            Self::Content(content) => content.piece(guard, max).await,
        }
    }

    /// Exactly `length` bytes, at most [`LIST`]; fewer at the end.
    pub(crate) async fn exact(&mut self, guard: &Guard, length: usize) -> Result<Vec<u8>, CallError> {
        let content = match self {
            Self::Socket(socket) => return Ok(socket.read_exact(guard, length).await?.into()),
            Self::Content(content) => content,
        };
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let piece = content.piece(guard, length - bytes.len()).await?;
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Bytes straight into `space`; 0 at the end.
    async fn read_into(&mut self, guard: &Guard, space: &mut [u8]) -> Result<usize, CallError> {
        match self {
            Self::Socket(socket) => socket.read_into(guard, space).await,
            Self::Content(content) => {
                let piece = content.piece(guard, space.len()).await?;
                space[..piece.len()].copy_from_slice(&piece);
                Ok(piece.len())
            }
        }
    }
}

/// What can be written. Dropped unfinished, it leaves nothing behind.
pub(crate) enum Sink {
    Socket(Socket),
    Entry(Box<EntryWriter>),
    File(Box<NewFile>),
}

/// Where the table keeps a sink: empty while `transfer` has it out, so that a source can be borrowed beside it.
pub struct SinkSlot {
    sink: Option<Sink>,
    _place: Option<Place>,
}

impl SinkSlot {
    /// A sink with a place of its own; the half of a connection shares the connection's.
    pub(crate) fn new(sink: Sink, place: Option<Place>) -> Self {
        Self { sink: Some(sink), _place: place }
    }

    pub(crate) fn take(&mut self) -> Result<Sink, CallError> {
        self.sink.take().ok_or_else(|| misused("invalid-argument", "the sink is in use"))
    }

    pub(crate) fn put(&mut self, sink: Sink) {
        self.sink = Some(sink);
    }

    pub(crate) fn get(&mut self) -> Result<&mut Sink, CallError> {
        self.sink.as_mut().ok_or_else(|| misused("invalid-argument", "the sink is in use"))
    }
}

impl Sink {
    /// Takes all of `bytes`.
    pub(crate) async fn write(&mut self, guard: &Guard, output: &Output, bytes: &[u8]) -> Result<(), CallError> {
        match self {
            Self::Socket(socket) => socket.write(guard, bytes).await,
            Self::Entry(entry) => {
                output.take(bytes.len())?;
                Ok(guard.wait(entry.write(bytes)).await??)
            }
            Self::File(file) => {
                output.take(bytes.len())?;
                file.write(bytes)
            }
        }
    }

    /// Ends the stream and returns the bytes that it took.
    pub(crate) async fn finish(self, guard: &Guard) -> Result<u64, CallError> {
        match self {
            Self::Socket(socket) => socket.finish(guard).await,
            Self::Entry(entry) => Ok(guard.wait(entry.finish()).await??),
            Self::File(file) => file.finish(),
        }
    }
}

/// Moves up to `length` bytes and returns how many there were before the source's end.
pub(crate) async fn transfer(
    source: &mut Source,
    sink: &mut Sink,
    length: u64,
    guard: &Guard,
    output: &Output,
) -> Result<u64, CallError> {
    let mut moved = 0;
    while moved < length {
        // Neither side need ever wait, and no epoch looks in here.
        guard.check()?;
        let wanted = usize::try_from(length - moved).unwrap_or(usize::MAX);
        let count = match sink {
            Sink::Entry(entry) => {
                let space = entry.space();
                let wanted = wanted.min(space.len());
                let count = source.read_into(guard, &mut space[..wanted]).await?;
                output.take(count)?;
                guard.wait(entry.advance(count)).await??;
                count
            }
            Sink::Socket(_) | Sink::File(_) => {
                let piece = source.piece(guard, wanted).await?;
                sink.write(guard, output, &piece).await?;
                piece.len()
            }
        };
        if count == 0 {
            break;
        }
        moved += count as u64;
    }
    Ok(moved)
}
