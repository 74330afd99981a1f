//! One connection, shared by its handle and its two halves: reads through a buffer of 64 KiB at most, writes at once, and upgrades
//! to TLS in place.
//!
//! Bulk bytes go past the buffer: a read into a chunk takes what lies behind the chunk's room, the next message's beginning, along in the
//! same system call, and only that is copied twice.
//!
//! The lock is held within a single poll and never across a wait, so a guest may move bytes from a connection to itself.

use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_util::io::poll_read_buf;

use crate::dial::Dialled;
use crate::grants::Member;
use crate::guard::Guard;
use crate::imports::types::{CallError, refused, refused_for_now};
use crate::limits::Place;
use crate::streams::LIST;

/// Bytes that may be sent in clear where TLS is asked for: the engines' requests to start it are a few dozen.
const PLAIN: u64 = 4 << 10;
/// Bytes that are read ahead of those that are asked for: a message's head is among them, and few of its body's.
const AHEAD: usize = 4 << 10;

/// Reads whatever is there, once something is.
fn poll_read_parts(
    cx: &mut Context<'_>,
    mut poll_ready: impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
    mut read: impl FnMut() -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(poll_ready(cx))?;
        match read() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return Poll::Ready(read),
        }
    }
}

#[derive(Clone)]
pub struct Socket {
    member: Member,
    /// Whether bytes may be sent in clear without limit.
    plain: bool,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    stream: Stream,
    buffer: BytesMut,
    /// Where bytes behind a chunk's room are read to.
    ahead: Box<[u8; AHEAD]>,
    /// The other side will send no more.
    ended: bool,
    /// An error found while waiting for several sources, kept for the next read.
    broken: Option<io::Error>,
    sent: u64,
    _place: Place,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// In the handshake, or after it failed.
    Gone,
}

impl Socket {
    /// `plain`: the policy asks for no TLS.
    pub(crate) fn new(member: Member, dialled: Dialled, plain: bool, place: Place) -> Self {
        let (stream, plain) = match dialled {
            Dialled::Tcp(stream) => (Stream::Tcp(stream), plain),
            Dialled::Unix(stream) => (Stream::Unix(stream), true),
        };
        let inner = Inner {
            stream,
            buffer: BytesMut::new(),
            ahead: Box::new([0; AHEAD]),
            ended: false,
            broken: None,
            sent: 0,
            _place: place,
        };
        Self { member, plain, inner: Arc::new(Mutex::new(inner)) }
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// Gives the stream out for a handshake; [`Self::secure`] brings it back. Until then the connection is gone.
    pub(crate) fn begin_tls(&self) -> Result<TcpStream, CallError> {
        let mut inner = self.inner();
        if !inner.buffer.is_empty() {
            let message = format!("{} sent {} bytes ahead of the TLS handshake", self.member, inner.buffer.len());
            return Err(refused(
                "plaintext-buffered",
                message,
                "Somebody may be tampering with the connection: check the network.",
            ));
        }
        match std::mem::replace(&mut inner.stream, Stream::Gone) {
            Stream::Tcp(stream) => Ok(stream),
            other => {
                let (code, message) = match &other {
                    Stream::Tls(_) => ("tls-already", "the connection already has TLS"),
                    Stream::Unix(_) => ("tls-off", "a Unix socket has no TLS"),
                    _ => ("connection-lost", "the connection ended in its TLS handshake"),
                };
                inner.stream = other;
                Err(refused(code, message, "This is a defect of the plugin: report it to its author."))
            }
        }
    }

    pub(crate) fn secure(&self, stream: TlsStream<TcpStream>) {
        self.inner().stream = Stream::Tls(Box::new(stream));
    }

    /// RFC 5929 `tls-server-end-point`, once there is TLS.
    pub(crate) fn end_point_binding(&self) -> Option<Vec<u8>> {
        match &self.inner().stream {
            Stream::Tls(stream) => crate::tls::end_point_binding(stream),
            _ => None,
        }
    }

    /// Up to `max` bytes as soon as some are there; none at the end. Not more than the buffer holds.
    pub(crate) async fn read(&self, guard: &Guard, max: usize) -> Result<Bytes, CallError> {
        self.waiting(guard, |inner, cx| {
            if inner.buffer.is_empty() {
                ready!(inner.poll_fill(cx, max))?;
            }
            let length = inner.buffer.len().min(max);
            Poll::Ready(Ok(inner.buffer.split_to(length).freeze()))
        })
        .await
    }

    /// Exactly `length` bytes, which the buffer can hold; fewer at the end.
    pub(crate) async fn read_exact(&self, guard: &Guard, length: usize) -> Result<Bytes, CallError> {
        loop {
            let whole = self
                .waiting(guard, |inner, cx| {
                    if inner.buffer.len() < length && !inner.ended {
                        ready!(inner.poll_fill(cx, length))?;
                    }
                    let enough = inner.buffer.len() >= length || inner.ended;
                    let length = inner.buffer.len().min(length);
                    Poll::Ready(Ok(enough.then(|| inner.buffer.split_to(length).freeze())))
                })
                .await?;
            // Each read of the network is a wait of its own: a slow server is not an idle one.
            if let Some(bytes) = whole {
                return Ok(bytes);
            }
        }
    }

    /// Bytes straight into `space`, past the buffer once it is empty; 0 at the end.
    pub(crate) async fn read_into(&self, guard: &Guard, space: &mut [u8]) -> Result<usize, CallError> {
        self.waiting(guard, |inner, cx| inner.poll_read_into(cx, space)).await
    }

    /// Whether a read would not wait; asks to be woken if it would.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner();
        if inner.buffer.is_empty()
            && inner.broken.is_none()
            && let Err(error) = ready!(inner.poll_fill(cx, AHEAD))
        {
            inner.broken = Some(error);
        }
        Poll::Ready(())
    }

    /// Sends all of `bytes`.
    pub(crate) async fn write(&self, guard: &Guard, mut bytes: &[u8]) -> Result<(), CallError> {
        self.admit(bytes.len() as u64)?;
        while !bytes.is_empty() {
            let count = self.waiting(guard, |inner, cx| inner.poll_write(cx, bytes)).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        self.waiting(guard, |inner, cx| inner.poll_flush(cx)).await
    }

    /// Half-closes and returns the bytes sent.
    pub(crate) async fn finish(&self, guard: &Guard) -> Result<u64, CallError> {
        self.waiting(guard, |inner, cx| inner.poll_shutdown(cx)).await?;
        Ok(self.inner().sent)
    }

    /// Counts bytes to be sent, and refuses them where they need TLS first.
    fn admit(&self, bytes: u64) -> Result<(), CallError> {
        let mut inner = self.inner();
        let safe = self.plain || matches!(inner.stream, Stream::Tls(_));
        if !safe && inner.sent + bytes > PLAIN {
            let message = format!("more than {PLAIN} bytes were to be sent to {} before TLS", self.member);
            return Err(refused(
                "tls-required",
                message,
                "The plugin must start TLS first; or set tls=off if the network is safe.",
            ));
        }
        inner.sent += bytes;
        Ok(())
    }

    async fn waiting<T>(
        &self,
        guard: &Guard,
        mut work: impl FnMut(&mut Inner, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Result<T, CallError> {
        let result = guard.wait_for_peer(poll_fn(|cx| work(&mut self.inner(), cx))).await?;
        result.map_err(|error| {
            if let Some(refusal) = crate::tls::ended_by_alert(&self.member.to_string(), &error) {
                return refusal;
            }
            let hint = format!("Check the log of the server at {}, and the network between.", self.member);
            refused_for_now("connection-lost", format!("the connection to {} broke: {error}", self.member), hint)
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Reads once into the buffer, up to so many bytes and a few ahead; nothing new means the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<()>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        let room = wanted.clamp(AHEAD, LIST).saturating_sub(self.buffer.len());
        self.buffer.reserve(room);
        let mut space = (&mut self.buffer).limit(room);
        let count = match &mut self.stream {
            Stream::Tcp(stream) => ready!(poll_read_buf(Pin::new(stream), cx, &mut space))?,
            Stream::Unix(stream) => ready!(poll_read_buf(Pin::new(stream), cx, &mut space))?,
            Stream::Tls(stream) => ready!(poll_read_buf(Pin::new(stream), cx, &mut space))?,
            Stream::Gone => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        self.ended = count == 0;
        Poll::Ready(Ok(()))
    }

    fn poll_read_into(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        if !self.buffer.is_empty() {
            let length = self.buffer.len().min(space.len());
            space[..length].copy_from_slice(&self.buffer.split_to(length));
            return Poll::Ready(Ok(length));
        }
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let room = space.len();
        let count = match &mut self.stream {
            Stream::Tcp(stream) => {
                let mut parts = [IoSliceMut::new(space), IoSliceMut::new(&mut *self.ahead)];
                ready!(poll_read_parts(cx, |cx| stream.poll_read_ready(cx), || stream.try_read_vectored(&mut parts)))?
            }
            Stream::Unix(stream) => {
                let mut parts = [IoSliceMut::new(space), IoSliceMut::new(&mut *self.ahead)];
                ready!(poll_read_parts(cx, |cx| stream.poll_read_ready(cx), || stream.try_read_vectored(&mut parts)))?
            }
            Stream::Tls(stream) => {
                let mut space = ReadBuf::new(space);
                ready!(Pin::new(stream).poll_read(cx, &mut space))?;
                space.filled().len()
            }
            Stream::Gone => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        };
        self.ended = count == 0;
        self.buffer.extend_from_slice(&self.ahead[..count.saturating_sub(room)]);
        Poll::Ready(Ok(count.min(room)))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(match self.writer() {
            Some(stream) => stream.poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        })?;
        Poll::Ready(if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(count) })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.writer() {
            Some(stream) => stream.poll_flush(cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.writer() {
            Some(stream) => stream.poll_shutdown(cx),
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn writer(&mut self) -> Option<Pin<&mut (dyn AsyncWrite + Send + Unpin)>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Some(Pin::new(stream)),
            Stream::Unix(stream) => Some(Pin::new(stream)),
            Stream::Tls(stream) => Some(Pin::new(stream.as_mut())),
            Stream::Gone => None,
        }
    }
}
