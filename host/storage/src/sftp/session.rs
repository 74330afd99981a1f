//! One SFTP session: the protocol's requests, each with the name of its step, and what the server offers besides.
//!
//! Reads and writes go out several at a time, and never more of them: memory is bounded by the window, not by the object.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use russh::client::Handle;
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as Refusal;
use russh_sftp::client::rawsession::SftpResult;
use russh_sftp::extensions::{FSYNC, HARDLINK};
use russh_sftp::protocol::{File, FileAttributes, OpenFlags, Packet, Status, StatusCode};

use super::failure::Failure;
use super::login::Greeter;

/// What one request may take, before its session counts as dead.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Bytes in one request: every server takes as many.
const PIECE: usize = 32 << 10;
/// Requests of one object on their way at once.
const PIECES_AT_ONCE: usize = 32;
/// OpenSSH's rename that replaces; the protocol's own must not.
const POSIX_RENAME: &str = "posix-rename@openssh.com";
/// What fewer bytes than these of free space mean, when the server only says "failure".
const ROOM_BYTES_MIN: u64 = 1 << 20;

/// Which extensions the server announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offers {
    pub(super) sync: bool,
    pub(super) link: bool,
    pub(super) replace: bool,
}

/// What lies under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    File(u64),
    Directory,
    /// A link, a device, a pipe: none of ours.
    Other,
}

impl Node {
    /// By the type in the mode: the library's own tests take a link for a file.
    pub(super) fn of(attributes: &FileAttributes) -> Self {
        const TYPE: u32 = 0o170_000;
        match (attributes.permissions.map(|mode| mode & TYPE), attributes.size) {
            (Some(0o100_000), Some(size)) => Self::File(size),
            (Some(0o040_000), _) => Self::Directory,
            _ => Self::Other,
        }
    }
}

pub(super) struct Session {
    raw: RawSftpSession,
    /// Ends the connection when it is dropped.
    handle: Handle<Greeter>,
    pub(super) offers: Offers,
}

/// Names the step of a request that failed.
fn step<T>(name: &'static str) -> impl FnOnce(Refusal) -> Result<T, Failure> {
    move |refusal| Err(Failure::new(name, refusal))
}

impl Session {
    /// Greets the server.
    pub(super) async fn begin(raw: RawSftpSession, handle: Handle<Greeter>) -> Result<Self, Failure> {
        let version = raw.init().await.or_else(step("greeting"))?;
        let offers = |name: &str| version.extensions.contains_key(name);
        let offers = Offers { sync: offers(FSYNC), link: offers(HARDLINK), replace: offers(POSIX_RENAME) };
        Ok(Self { raw, handle, offers })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.handle.is_closed()
    }

    /// Opens a file to be read.
    pub(super) async fn open(&self, path: &str) -> Result<String, Failure> {
        let opened = self.raw.open(path, OpenFlags::READ, FileAttributes::default()).await;
        Ok(opened.or_else(step("opening"))?.handle)
    }

    /// Makes a file that was not there, readable by its owner only.
    pub(super) async fn create(&self, path: &str) -> Result<String, Failure> {
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let attributes = FileAttributes { permissions: Some(0o600), ..FileAttributes::default() };
        Ok(self.raw.open(path, flags, attributes).await.or_else(step("making a temporary file"))?.handle)
    }

    pub(super) async fn close(&self, handle: &str) -> Result<(), Failure> {
        self.raw.close(handle).await.map(drop).or_else(step("closing"))
    }

    /// What an open file is.
    pub(super) async fn attributes(&self, handle: &str) -> Result<FileAttributes, Failure> {
        Ok(self.raw.fstat(handle).await.or_else(step("reading its length"))?.attrs)
    }

    /// What lies under a path, links not followed.
    pub(super) async fn look_up(&self, path: &str) -> Result<FileAttributes, Failure> {
        Ok(self.raw.lstat(path).await.or_else(step("looking up"))?.attrs)
    }

    /// Reads `length` bytes that are known to be there.
    pub(super) async fn read(&self, handle: &str, start: u64, length: u64) -> Result<Bytes, Failure> {
        let pieces = (0..length).step_by(PIECE).map(|offset| async move {
            let wanted = (length - offset).min(PIECE as u64) as usize;
            self.read_piece(handle, start + offset, wanted).await
        });
        let mut whole = BytesMut::with_capacity(length as usize);
        let mut pieces = stream::iter(pieces).buffered(PIECES_AT_ONCE);
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// A server may answer with less than was asked for.
    async fn read_piece(&self, handle: &str, offset: u64, wanted: usize) -> Result<Vec<u8>, Failure> {
        let mut piece = Vec::with_capacity(wanted);
        while piece.len() < wanted {
            let missing = wanted - piece.len();
            let read = self.raw.read(handle, offset + piece.len() as u64, missing as u32).await;
            let data = read.or_else(step("reading"))?.data;
            if data.is_empty() || data.len() > missing {
                return Err(Failure::Senseless("other bytes came than were asked for"));
            }
            piece.extend_from_slice(&data);
        }
        Ok(piece)
    }

    /// Writes all bytes from the file's beginning, and makes them durable where the server can.
    pub(super) async fn fill(&self, handle: &str, bytes: &Bytes) -> Result<(), Failure> {
        let pieces = (0..bytes.len()).step_by(PIECE).map(|offset| {
            let piece = bytes.slice(offset..(offset + PIECE).min(bytes.len()));
            async move { self.raw.write(handle, offset as u64, piece.to_vec()).await.or_else(step("writing")) }
        });
        stream::iter(pieces).buffer_unordered(PIECES_AT_ONCE).try_for_each(|_| async { Ok(()) }).await?;
        self.sync(handle).await
    }

    async fn sync(&self, handle: &str) -> Result<(), Failure> {
        match self.offers.sync {
            true => self.raw.fsync(handle).await.map(drop).or_else(step("syncing")),
            false => Ok(()),
        }
    }

    /// Makes the names in a directory durable: `false` where that cannot be done. A directory can be opened like a file by
    /// OpenSSH's server; where it cannot be, nothing else would do it.
    pub(super) async fn sync_directory(&self, path: &str) -> Result<bool, Failure> {
        if !self.offers.sync {
            return Ok(false);
        }
        let handle = match self.open(path).await {
            Err(failure) if failure.is_answer() => return Ok(false),
            opened => opened?,
        };
        let synced = self.sync(&handle).await;
        self.close(&handle).await?;
        match synced {
            Err(failure) if failure.is_unsupported() => Ok(false),
            synced => synced.map(|()| true),
        }
    }

    /// Makes a directory: `false` where one was.
    pub(super) async fn make_directory(&self, path: &str) -> Result<bool, Failure> {
        let attributes = FileAttributes { permissions: Some(0o700), ..FileAttributes::default() };
        let made = self.raw.mkdir(path, attributes).await.map(drop).or_else(step("making a directory"));
        match made {
            Ok(()) => Ok(true),
            // The protocol has no word for "exists", and above a root that is ours making may be forbidden.
            Err(failure) if !failure.is_answer() => Err(failure),
            Err(failure) => match self.raw.stat(path).await {
                // Above the root a link may lead to it.
                Ok(found) if Node::of(&found.attrs) == Node::Directory => Ok(false),
                _ => Err(failure),
            },
        }
    }

    /// Gives a file a second name that nothing has.
    pub(super) async fn link(&self, from: &str, to: &str) -> Result<(), Failure> {
        self.raw.hardlink(from, to).await.map(drop).or_else(step("linking"))
    }

    /// Renames; the protocol forbids that it replaces.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), Failure> {
        self.raw.rename(from, to).await.map(drop).or_else(step("renaming"))
    }

    /// Renames, replacing what had the name.
    pub(super) async fn replace(&self, from: &str, to: &str) -> Result<(), Failure> {
        let mut names = Vec::new();
        for name in [from, to] {
            names.extend((name.len() as u32).to_be_bytes());
            names.extend(name.bytes());
        }
        done(self.raw.extended(POSIX_RENAME, names).await).or_else(step("renaming"))
    }

    pub(super) async fn remove(&self, path: &str) -> Result<(), Failure> {
        self.raw.remove(path).await.map(drop).or_else(step("removing"))
    }

    /// What a directory holds; nothing, where there is none. At most `limit` entries.
    pub(super) async fn entries(&self, path: &str, limit: usize) -> Result<Vec<File>, Failure> {
        let handle = match self.raw.opendir(path).await.or_else(step("listing")) {
            Err(failure) if failure.is_absence() => return Ok(Vec::new()),
            opened => opened?.handle,
        };
        let mut found = Vec::new();
        let outcome = loop {
            match self.raw.readdir(handle.as_str()).await {
                Ok(page) => found.extend(page.files),
                Err(Refusal::Status(Status { status_code: StatusCode::Eof, .. })) => break Ok(found),
                Err(refusal) => break Err(Failure::new("listing", refusal)),
            }
            if found.len() > limit {
                break Err(Failure::Senseless("the listing does not come to an end"));
            }
        };
        self.close(&handle).await?;
        outcome
    }

    /// Whether the file system below a path has no room: a server says "failure" where it means that.
    pub(super) async fn is_full(&self, path: &str) -> bool {
        let room = self.raw.statvfs(path).await;
        room.is_ok_and(|room| room.blocks_avail.saturating_mul(room.fragment_size) < ROOM_BYTES_MIN)
    }
}

/// The answer to an extension that has none but its status.
fn done(answer: SftpResult<Packet>) -> SftpResult<()> {
    match answer? {
        Packet::Status(status) if status.status_code == StatusCode::Ok => Ok(()),
        Packet::Status(status) => Err(Refusal::Status(status)),
        _ => Err(Refusal::UnexpectedPacket),
    }
}
