//! Messages of HTTP/1.1 as a proxy needs them: heads word by word as they came, bodies whole and without their framing.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest head, and longest body, in bytes: no peer of a test sends more.
const HEAD_MAX: usize = 64 << 10;
const BODY_MAX: usize = 64 << 20;

/// A request or an answer.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The first line and the headers, without the framing of the body.
    lines: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// An answer of these parts.
    pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Self {
        let mut lines = vec![format!("HTTP/1.1 {status} as a fault wants it")];
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        Self { lines, body: body.to_vec() }
    }

    /// The next request of a connection; none where the client is done.
    pub(super) async fn request(peer: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<Option<Self>> {
        let Some(lines) = head(peer).await? else { return Ok(None) };
        let mut message = Self { lines, body: Vec::new() };
        if message.header("expect").is_some() {
            peer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        message.read_body(peer, 0).await?;
        Ok(Some(message))
    }

    /// The answer to a request, on a connection that ends with it.
    pub(super) async fn answer_to(request: &Self, peer: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        loop {
            let lines = head(peer).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let mut message = Self { lines, body: Vec::new() };
            match message.status() {
                100..=199 => continue,
                204 | 304 => return Ok(message),
                _ if request.method() == "HEAD" => return Ok(message),
                _ => message.read_body(peer, BODY_MAX).await?,
            }
            message.remove("transfer-encoding");
            return Ok(message.reframed());
        }
    }

    /// Reads a body; `unframed` bytes at most where nothing says how long it is.
    async fn read_body(&mut self, peer: &mut (impl AsyncRead + Unpin), unframed: usize) -> io::Result<()> {
        if self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return self.read_chunks(peer).await;
        }
        let Some(length) = self.header("content-length") else {
            peer.take(unframed as u64).read_to_end(&mut self.body).await?;
            return Ok(());
        };
        let length = length.parse().ok().filter(|length| *length <= BODY_MAX).ok_or(io::ErrorKind::InvalidData)?;
        self.body.resize(length, 0);
        peer.read_exact(&mut self.body).await.map(drop)
    }

    async fn read_chunks(&mut self, peer: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        loop {
            let size = line(peer).await?;
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
            let size = size.ok().filter(|size| self.body.len() + size <= BODY_MAX).ok_or(io::ErrorKind::InvalidData)?;
            let begin = self.body.len();
            self.body.resize(begin + size, 0);
            peer.read_exact(&mut self.body[begin..]).await?;
            // The end of the chunk, or of the trailers.
            while !line(peer).await?.is_empty() {}
            if size == 0 {
                return Ok(());
            }
        }
    }

    pub(super) fn method(&self) -> &str {
        self.word(0)
    }

    /// The path and the query of a request.
    pub(super) fn place(&self) -> (&str, &str) {
        self.word(1).split_once('?').unwrap_or((self.word(1), ""))
    }

    pub(super) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_default()
    }

    fn word(&self, number: usize) -> &str {
        self.lines[0].split(' ').nth(number).unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.lines[1..].iter().filter_map(|line| line.split_once(':'));
        headers.find(|(one, _)| one.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(super) fn remove(&mut self, name: &str) {
        let is_it = |line: &String| line.split_once(':').is_some_and(|(one, _)| one.eq_ignore_ascii_case(name));
        self.lines.retain(|line| !is_it(line));
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.lines.push(format!("{name}: {value}"));
    }

    /// The bytes on the wire, up to the body's first one.
    pub(super) fn head(&self) -> Vec<u8> {
        (self.lines.join("\r\n") + "\r\n\r\n").into_bytes()
    }

    /// Has the head say how long the body is now.
    pub(super) fn reframed(mut self) -> Self {
        self.set("content-length", &self.body.len().to_string());
        self
    }
}

/// The lines of a head; none where the peer is done.
async fn head(peer: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<String>>> {
    let mut lines = Vec::new();
    let mut length = 0;
    loop {
        let line = match line(peer).await {
            Err(_) if lines.is_empty() => return Ok(None),
            line => line?,
        };
        length += line.len();
        if length > HEAD_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match line.is_empty() {
            true => return Ok(Some(lines)),
            false => lines.push(line),
        }
    }
}

/// A line without its end.
async fn line(peer: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && line.len() < HEAD_MAX {
        line.push(peer.read_u8().await?);
    }
    line.truncate(line.len().saturating_sub(2));
    String::from_utf8(line).map_err(io::Error::other)
}
