//! `BASE_BACKUP` itself: the command in both grammars, and the results that frame the copied data.
//!
//! From version 15 on one copy carries everything, its archives and the manifest marked by a letter in front of each
//! piece; before, each archive and the manifest is a copy of its own. Version 12 sends no manifest.

use std::io::{Read, Write};

use holdfast_sdk::{Error, Result, io, job};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use crate::failure::{DATA_CORRUPTED, protocol_error, quote_literal};
use crate::lsn::Lsn;
use crate::session::Session;
use crate::wire::{Event, Row, Wire, column};

/// The first version with the new grammar and with one copy for all.
const ONE_COPY: u32 = 15;

/// How long to wait at a time for a checkpoint that may take many minutes.
const PATIENCE_MS: u32 = 1_000;

/// Most bytes of an archive's or a tablespace's name.
const MAX_NAMES: u64 = 8_192;

/// What to ask the server for.
pub struct Options<'a> {
    /// What the backup is called in `backup_label`.
    pub label: &'a str,
    /// `CRC32C`, `SHA256` or `NONE`; none where the server writes no manifest.
    pub manifest_checksums: Option<&'a str>,
}

/// The command in the grammar of the server's version.
fn command(options: &Options, major: u32) -> String {
    let label = quote_literal(options.label);
    let manifest = |comma: &str| {
        let sums = options.manifest_checksums;
        sums.map(|sums| format!("{comma} MANIFEST 'yes'{comma} MANIFEST_CHECKSUMS '{sums}'")).unwrap_or_default()
    };
    if major >= ONE_COPY {
        let manifest = manifest(",");
        format!(
            "BASE_BACKUP (LABEL {label}, PROGRESS true, CHECKPOINT 'fast', WAL true, WAIT false, TABLESPACE_MAP true{manifest})"
        )
    } else {
        let manifest = manifest("");
        format!("BASE_BACKUP LABEL {label} PROGRESS FAST WAL NOWAIT TABLESPACE_MAP{manifest}")
    }
}

/// Keeps the log that a backup needs at the server until the session ends.
pub fn reserve_log(session: &mut Session, slot: &str, major: u32) -> Result<()> {
    let reserve = if major >= ONE_COPY { "(RESERVE_WAL)" } else { "RESERVE_WAL" };
    session.query(&format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY PHYSICAL {reserve}"))?;
    Ok(())
}

/// A place in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Where in the log.
    pub lsn: Lsn,
    /// In which history.
    pub timeline: u32,
}

impl Point {
    fn read(rows: &[Row]) -> Result<Self> {
        let row = rows.first().ok_or_else(|| protocol_error("a backup without its position"))?;
        let timeline = column(row, 1)?.parse().map_err(|_| protocol_error("a timeline that is no number"))?;
        Ok(Self { lsn: column(row, 0)?.parse()?, timeline })
    }
}

/// A directory that the server sends as an archive of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// The tablespace's oid; none for the data directory.
    pub oid: Option<u32>,
    /// Where it lies at the server.
    pub path: String,
    /// The server's estimate.
    pub bytes: u64,
}

impl Space {
    fn read(row: &Row) -> Result<Self> {
        let number = |text: &str| text.parse::<u64>().map_err(|_| protocol_error("a tablespace's number"));
        let optional = |index: usize| row.get(index).and_then(Option::as_deref);
        let oid = optional(0).map(|oid| oid.parse().map_err(|_| protocol_error("a tablespace's oid"))).transpose()?;
        let kilobytes = optional(2).map(number).transpose()?.unwrap_or(0);
        Ok(Self { oid, path: optional(1).unwrap_or_default().to_owned(), bytes: kilobytes.saturating_mul(1024) })
    }
}

/// The next piece of a backup.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// The archive of this tablespace begins; none: of the data directory.
    Archive(Option<u32>),
    /// The manifest begins.
    Manifest,
    /// So many bytes of what began last are to be taken from the session's input.
    Data(u64),
}

/// A backup under way.
pub struct BaseBackup {
    major: u32,
    /// Where it began.
    pub start: Point,
    /// What is sent, in this order.
    pub spaces: Vec<Space>,
    /// Before version 15, how many copies began, and how many there are.
    copies: usize,
    copies_expected: usize,
    copying: bool,
}

impl BaseBackup {
    /// Begins. The server makes a checkpoint first, which may take long.
    pub fn begin(session: &mut Session, options: &Options, major: u32) -> Result<Self> {
        session.send(|buffer| frontend::query(&command(options, major), buffer))?;
        wait_through("checkpoint", session)?;
        let start = Point::read(&session.next_result()?)?;
        // The server looks at the size of every file now.
        wait_through("estimate", session)?;
        let spaces: Vec<Space> = session.next_result()?.iter().map(Space::read).collect::<Result<_>>()?;
        let copies_expected = spaces.len() + usize::from(options.manifest_checksums.is_some());
        Ok(Self { major, start, spaces, copies: 0, copies_expected, copying: false })
    }

    /// Whether archives end with their blocks of zeros.
    pub fn terminates_archives(&self) -> bool {
        self.major >= ONE_COPY
    }

    /// The next piece; none after the last.
    pub fn next<R: Read, W: Write>(&mut self, session: &mut Wire<R, W>) -> Result<Option<Piece>> {
        loop {
            match session.event()? {
                Event::CopyData(length) if self.copying && self.major >= ONE_COPY => {
                    if let Some(piece) = marked(session, length)? {
                        return Ok(Some(piece));
                    }
                }
                // A small file that needs no padding is followed by none of it.
                Event::CopyData(0) if self.copying => session.spend(1)?,
                Event::CopyData(length) if self.copying => return Ok(Some(Piece::Data(length))),
                Event::Message(Message::CopyOutResponse(_)) if !self.copying => {
                    self.copying = true;
                    if self.major >= ONE_COPY {
                        continue;
                    }
                    let space = self.spaces.get(self.copies);
                    self.copies += 1;
                    return Ok(Some(space.map_or(Piece::Manifest, |space| Piece::Archive(space.oid))));
                }
                Event::Message(Message::CopyDone) if self.copying => {
                    self.copying = false;
                    if self.major >= ONE_COPY || self.copies >= self.copies_expected {
                        return Ok(None);
                    }
                }
                Event::Message(Message::ErrorResponse(body)) => return Err(session.refusal(&body)),
                _ => return Err(protocol_error("an unexpected message in a base backup")),
            }
        }
    }

    /// Where it ended, once there are no more pieces, and the server's refusal if it found damaged pages: the backup is whole
    /// then all the same.
    pub fn end<R: Read, W: Write>(self, session: &mut Wire<R, W>) -> Result<(Point, Option<Error>)> {
        let end = Point::read(&session.next_result()?)?;
        match session.end_of_answer() {
            Ok(()) => Ok((end, None)),
            Err(error) if error.code == DATA_CORRUPTED => Ok((end, Some(error))),
            Err(error) => Err(error),
        }
    }
}

/// Waits for the next bytes, however long it takes, with the phase as progress: this silence is no idle connection.
fn wait_through(phase: &str, session: &Session) -> Result<()> {
    while io::wait(&[&session.input.0], PATIENCE_MS)?.is_empty() {
        job::progress(phase, 0, None, "bytes");
    }
    Ok(())
}

/// What the letter in front of a piece says; none for the server's own progress.
fn marked<R: Read, W: Write>(session: &mut Wire<R, W>, length: u64) -> Result<Option<Piece>> {
    let rest = length.checked_sub(1).ok_or_else(|| protocol_error("an empty piece of a base backup"))?;
    let mut mark = [0];
    session.read(&mut mark)?;
    if mark == *b"d" && rest > 0 {
        return Ok(Some(Piece::Data(rest)));
    }
    session.spend(length)?;
    if rest > MAX_NAMES {
        return Err(protocol_error(format!("names of {rest} bytes in a base backup")));
    }
    let mut body = vec![0; rest as usize];
    session.read(&mut body)?;
    match mark {
        [b'n'] => archive(&body).map(Some),
        [b'm'] => Ok(Some(Piece::Manifest)),
        [b'p'] => Ok(None),
        [other] => Err(protocol_error(format!("a piece of type {:?} in a base backup", char::from(other)))),
    }
}

/// The head of an archive: its file name, which is `base.tar` or the tablespace's oid, and the tablespace's path.
fn archive(body: &[u8]) -> Result<Piece> {
    let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).ok().and_then(|name| name.strip_suffix(".tar"));
    match name.map(|name| (name, name.parse())) {
        Some(("base", _)) => Ok(Piece::Archive(None)),
        Some((_, Ok(oid))) => Ok(Piece::Archive(Some(oid))),
        _ => Err(protocol_error("an archive with an unknown name")),
    }
}

#[cfg(test)]
mod tests;
