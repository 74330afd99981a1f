//! Messages of the frontend/backend protocol, version 3, over any pair of byte streams.
//!
//! The server is not trusted: every length is bounded before anything is read, and a message that is not well formed, or
//! not expected, is an error. Only `CopyData` may be large, and its body is left to the caller to move.

use std::io::{Read, Write};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use holdfast_sdk::{Error, Result};
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;

use crate::corruption::Damage;
use crate::failure::{Peer, Report, protocol_error};

/// No message besides `CopyData` is larger: a row with a whole configuration file is the largest we ask for.
const MAX_MESSAGE: usize = 4 << 20;

/// All rows of one result together.
const MAX_RESULT: usize = 8 << 20;

/// What a row costs besides its bytes.
const ROW_COST: usize = 64;

/// All messages of one session besides `CopyData`: more come from nobody who means well.
const MAX_SESSION: u64 = 256 << 20;

/// Warnings of the server that are kept; more are only counted.
const MAX_WARNINGS: usize = 20;

const COPY_DATA: u8 = b'd';

/// Columns of a row as text.
pub type Row = Vec<Option<String>>;

/// What the server sent.
pub enum Event {
    /// A whole message.
    Message(Message),
    /// The head of a `CopyData`: so many bytes of it are to be taken from the input next.
    CopyData(u64),
}

/// A connection after its transport is set up.
pub struct Wire<R, W> {
    /// What the server sends.
    pub input: R,
    output: W,
    peer: Peer,
    version: Option<String>,
    warnings: Vec<String>,
    warnings_dropped: usize,
    damage: Damage,
    /// Bytes of messages so far.
    received: u64,
}

impl<R: Read, W: Write> Wire<R, W> {
    /// Over these two streams.
    pub fn new(input: R, output: W, peer: Peer) -> Self {
        Self {
            input,
            output,
            peer,
            version: None,
            warnings: Vec::new(),
            warnings_dropped: 0,
            damage: Damage::default(),
            received: 0,
        }
    }

    /// `server_version` as the server reported it, such as `15.18 (Debian 15.18-0+deb12u1)`.
    pub fn version(&self) -> &str {
        self.version.as_deref().unwrap_or_default()
    }

    /// The server's warnings so far.
    pub fn take_warnings(&mut self) -> Vec<String> {
        let mut warnings = std::mem::take(&mut self.warnings);
        if self.warnings_dropped > 0 {
            warnings.push(format!("{} more warnings of the server", self.warnings_dropped));
        }
        warnings
    }

    /// What the server said about damaged pages so far.
    pub fn take_damage(&mut self) -> Damage {
        std::mem::take(&mut self.damage)
    }

    /// Sends what `build` writes.
    pub fn send(&mut self, build: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<()> {
        let mut buffer = BytesMut::new();
        build(&mut buffer)?;
        self.output.write_all(&buffer).map_err(|error| self.lost(error))
    }

    /// The next message, or the head of a `CopyData`. Notices and parameters are taken care of.
    pub fn event(&mut self) -> Result<Event> {
        loop {
            let mut head = [0; 5];
            self.read(&mut head)?;
            let [tag, length @ ..] = head;
            let length = u32::from_be_bytes(length)
                .checked_sub(4)
                .ok_or_else(|| protocol_error("a message shorter than its head"))?;
            if tag == COPY_DATA {
                return Ok(Event::CopyData(length.into()));
            }
            self.spend(head.len() as u64 + u64::from(length))?;
            match self.body(head, length as usize)? {
                Message::NoticeResponse(notice) => self.note(Report::read(notice.fields())?),
                Message::NotificationResponse(_) => {}
                Message::ParameterStatus(parameter) => {
                    if parameter.name()? == "server_version" {
                        self.version = Some(parameter.value()?.chars().take(100).collect());
                    }
                }
                message => return Ok(Event::Message(message)),
            }
        }
    }

    /// Counts bytes that are neither stored nor asked for in such numbers.
    pub fn spend(&mut self, bytes: u64) -> Result<()> {
        self.received += bytes;
        if self.received > MAX_SESSION {
            return Err(protocol_error(format!("more than {MAX_SESSION} bytes of messages")));
        }
        Ok(())
    }

    fn body(&mut self, head: [u8; 5], length: usize) -> Result<Message> {
        if length > MAX_MESSAGE {
            return Err(protocol_error(format!("a message of {length} bytes")));
        }
        let mut message = BytesMut::zeroed(head.len() + length);
        message[..head.len()].copy_from_slice(&head);
        self.read(&mut message[head.len()..])?;
        let message =
            Message::parse(&mut message).map_err(|error| protocol_error(format!("a malformed message: {error}")))?;
        message.ok_or_else(|| protocol_error("an incomplete message"))
    }

    /// The next message; a `CopyData` is not expected.
    pub fn message(&mut self) -> Result<Message> {
        match self.event()? {
            Event::Message(message) => Ok(message),
            Event::CopyData(_) => Err(protocol_error("copied data where none was asked for")),
        }
    }

    /// Runs one statement and returns its rows. After an error of the server's the connection can be used on.
    pub fn query(&mut self, statement: &str) -> Result<Vec<Row>> {
        self.send(|buffer| frontend::query(statement, buffer))?;
        let mut rows = Rows::default();
        let mut refusal = None;
        loop {
            let message = match self.message() {
                Ok(message) => message,
                // A fatal refusal ends the connection: the refusal is the reason then.
                Err(error) => return Err(refusal.unwrap_or(error)),
            };
            match message {
                Message::DataRow(row) => rows.push(&row)?,
                Message::ErrorResponse(body) => refusal = Some(self.refusal(&body)),
                Message::ReadyForQuery(_) => return refusal.map_or(Ok(rows.rows), Err),
                Message::RowDescription(_) | Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
                _ => return Err(protocol_error("an unexpected message in the answer to a query")),
            }
        }
    }

    /// The rows of the next of several results of one statement.
    pub fn next_result(&mut self) -> Result<Vec<Row>> {
        let mut rows = Rows::default();
        loop {
            match self.message()? {
                Message::DataRow(row) => rows.push(&row)?,
                Message::ErrorResponse(body) => return Err(self.refusal(&body)),
                Message::CommandComplete(_) => return Ok(rows.rows),
                Message::RowDescription(_) => {}
                _ => return Err(protocol_error("an unexpected message in the answer to a command")),
            }
        }
    }

    /// Waits for the end of the answer to a statement. After an error of the server's the connection can be used on.
    pub fn end_of_answer(&mut self) -> Result<()> {
        let mut refusal = None;
        loop {
            match self.message() {
                Ok(Message::ErrorResponse(body)) => refusal = Some(self.refusal(&body)),
                Ok(Message::ReadyForQuery(_)) => return refusal.map_or(Ok(()), Err),
                Ok(Message::CommandComplete(_)) => {}
                Ok(_) => return Err(protocol_error("an unexpected message at the end of an answer")),
                Err(error) => return Err(refusal.unwrap_or(error)),
            }
        }
    }

    /// What an error of the server's means.
    pub fn refusal(&self, body: &ErrorResponseBody) -> Error {
        Report::read(body.fields()).map_or_else(|error| error, |report| report.explain(&self.peer))
    }

    /// Fills `buffer` from the server.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<()> {
        self.input.read_exact(buffer).map_err(|error| self.lost(error))
    }

    fn lost(&self, error: std::io::Error) -> Error {
        self.name_loss(error.into())
    }

    /// Says who went away, where an error says only that a stream ended.
    pub fn name_loss(&self, error: Error) -> Error {
        match error.code.as_ref() {
            "unexpected-end" => Error::new("connection-lost", format!("{} closed the connection", self.peer.address))
                .hint("See the server's log for the reason.")
                .retryable(),
            _ => error,
        }
    }

    fn note(&mut self, report: Report) {
        if report.severity != "WARNING" || self.damage.take(&report) {
            return;
        }
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(report.text());
        } else {
            self.warnings_dropped += 1;
        }
    }
}

/// Rows of a result, bounded.
#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    bytes: usize,
}

impl Rows {
    fn push(&mut self, body: &DataRowBody) -> Result<()> {
        self.bytes += ROW_COST + body.buffer().len();
        if self.bytes > MAX_RESULT {
            return Err(protocol_error(format!("a result of more than {MAX_RESULT} bytes")));
        }
        let mut row = Row::new();
        let mut ranges = body.ranges();
        while let Some(range) = ranges.next()? {
            let text =
                range.map(|range| body.buffer().get(range).map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
            match text {
                Some(None) => return Err(protocol_error("a column outside of its row")),
                Some(text) => row.push(text),
                None => row.push(None),
            }
        }
        self.rows.push(row);
        Ok(())
    }
}

/// A column that must be there and not be null.
pub fn column(row: &Row, index: usize) -> Result<&str> {
    row.get(index).and_then(Option::as_deref).ok_or_else(|| protocol_error(format!("a row without its column {index}")))
}

/// The first column of the first row.
pub fn single(rows: &[Row]) -> Result<&str> {
    column(rows.first().ok_or_else(|| protocol_error("a result without rows"))?, 0)
}

#[cfg(test)]
pub mod tests {
    use std::io::Cursor;

    use super::*;

    /// A server that says what it was told to, whatever it hears.
    pub fn scripted(bytes: Vec<u8>) -> Wire<Cursor<Vec<u8>>, Vec<u8>> {
        let peer = Peer { address: "db:5432".into(), user: "backup".into(), database: None, plain: false };
        Wire::new(Cursor::new(bytes), Vec::new(), peer)
    }

    pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[tag][..], &length, body].concat()
    }

    pub fn data_row(columns: &[Option<&str>]) -> Vec<u8> {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for column in columns {
            body.extend(column.map_or(-1, |text| text.len() as i32).to_be_bytes());
            body.extend(column.unwrap_or_default().as_bytes());
        }
        message(b'D', &body)
    }

    fn error() -> Vec<u8> {
        message(b'E', b"SFEHLER\0VERROR\0C42501\0Mno\0\0")
    }

    #[test]
    fn a_query_gives_its_rows_and_collects_warnings() {
        let script = [
            message(b'S', b"server_version\x0015.1 (X)\0"),
            message(b'N', b"SWARNUNG\0VWARNING\0C01000\0Mcareful\0\0"),
            message(b'N', b"SINFO\0VINFO\0C00000\0Mnever mind\0\0"),
            data_row(&[Some("a"), None]),
            message(b'C', b"SELECT 1\0"),
            message(b'Z', b"I"),
        ];
        let mut wire = scripted(script.concat());
        assert_eq!(wire.query("SELECT").expect("valid"), [vec![Some("a".to_owned()), None]]);
        assert_eq!(wire.version(), "15.1 (X)");
        assert_eq!(wire.take_warnings(), ["careful"]);
        assert_eq!(wire.output, b"Q\0\0\0\x0bSELECT\0");
    }

    #[test]
    fn after_an_error_the_connection_goes_on() {
        let script = [error(), message(b'Z', b"I"), message(b'C', b"SELECT 0\0"), message(b'Z', b"I")];
        let mut wire = scripted(script.concat());
        assert_eq!(wire.query("a").expect_err("refused").code, "missing-privilege");
        assert!(wire.query("b").expect("valid").is_empty());
    }

    #[test]
    fn an_error_before_the_connection_ends_is_the_reason() {
        assert_eq!(scripted(error()).query("a").expect_err("refused").code, "missing-privilege");
        let lost = scripted(vec![]).query("a").expect_err("lost");
        assert!(lost.code == "connection-lost" && lost.retryable);
    }

    #[test]
    fn hostile_messages_are_errors_and_cost_no_memory() {
        for bytes in [
            vec![b'Z', 0, 0, 0, 3],
            vec![b'Z', 0xFF, 0xFF, 0xFF, 0xFF],
            vec![b'D', 0x7F, 0xFF, 0xFF, 0xFF],
            message(b'D', &[0, 2, 0, 0, 0, 9, b'x']),
            message(b'D', &[0, 1, 0xFF, 0xFF, 0xFF, 0xFE]),
            message(b'?', b""),
            message(b'R', &[0, 0, 0, 99]),
            message(b'E', b"S"),
            message(b'S', b"no end"),
            message(b'd', b"data"),
            message(b'G', &[0, 0, 0]),
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
        ] {
            assert!(scripted(bytes.clone()).query("a").is_err(), "{bytes:?}");
        }
        let flood: Vec<u8> = data_row(&[Some(&"x".repeat(1 << 20))]).repeat(9);
        assert_eq!(scripted(flood).query("a").expect_err("too much").code, "protocol-error");
        let empty_rows = data_row(&[]).repeat(MAX_RESULT / ROW_COST + 1);
        assert_eq!(scripted(empty_rows).query("a").expect_err("too much").code, "protocol-error");
    }

    /// Gives the same bytes for ever.
    struct Endless(Vec<u8>, usize);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = (&self.0[self.1..]).read(buffer)?;
            self.1 = (self.1 + count) % self.0.len();
            Ok(count)
        }
    }

    #[test]
    fn endless_messages_end_in_an_error() {
        let notice = [b"SWARNING\0VWARNING\0M".as_slice(), "x".repeat(1 << 20).as_bytes(), b"\0\0"].concat();
        for body in [message(b'N', &notice), message(b'S', &[b"a\0".as_slice(), &[b'b'; 1 << 20], b"\0"].concat())] {
            let peer = Peer { address: "db".into(), user: "backup".into(), database: None, plain: false };
            let mut wire = Wire::new(Endless(body, 0), Vec::new(), peer);
            assert_eq!(wire.query("a").expect_err("endless").code, "protocol-error");
            assert!(wire.take_warnings().iter().map(String::len).sum::<usize>() < 100_000);
        }
    }
}
