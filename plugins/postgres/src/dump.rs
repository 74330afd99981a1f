//! Takes a base backup: everything the server sends becomes entries, and the backup is whole or it is an error.
//!
//! Whole means: both result sets that frame the copy arrived, every archive ended at its end, the manifest's own checksum
//! fits, and the server is the same one, in the same history, at the end as at the beginning.

use holdfast_sdk::document::{self, DumpRequest, Inventory, Position};
use holdfast_sdk::{Error, Result, job};

use crate::basebackup::{self, BaseBackup, Options, Piece, Point};
use crate::config;
use crate::failure::protocol_error;
use crate::inventory::{Details, Tablespace};
use crate::recorder::{ManifestEntry, Recorder};
use crate::server::{Identity, Server};
use crate::session::{self, Purpose, Session};
use crate::settings::Settings;
use crate::tar::Unpacker;

/// Does what the host asks for.
pub fn dump(request: &DumpRequest) -> Result<Inventory> {
    if request.method != "basebackup" || request.kind != "full" {
        return Err(Error::new("unsupported", format!("no method {} of type {}", request.method, request.kind))
            .hint("Use the method basebackup with type full."));
    }
    let settings = Settings::read()?;
    let mut session = session::open(&settings, Purpose::Replication)?;
    let server = Server::ask(&mut session)?;
    let before = Identity::ask(&mut session)?;
    let mut warnings = Vec::new();
    reserve_log(&mut session, request, &server, &mut warnings);

    let label = format!("holdfast {}", request.job);
    let options = Options { label: &label, manifest_checksums: settings.manifest_checksums };
    let backup = BaseBackup::begin(&mut session, &options, server.major)?;
    job::log("info", &format!("PostgreSQL {} {} begins at {}", server.version, server.role(), backup.start.lsn));
    let start = backup.start;
    let spaces = backup.spaces.clone();
    let expected = spaces.iter().map(|space| space.bytes).fold(0, u64::saturating_add);
    let mut recorder = Recorder::new(server.block_size, expected);
    let end = receive(&mut session, backup, &mut recorder).map_err(|error| session.name_loss(error))?;

    let after = Identity::ask(&mut session)?;
    check_same_server(&before, start, &after, end)?;
    warnings.extend(session.take_warnings());
    config::record(&settings, &mut session, &mut recorder, &mut warnings)?;

    let details = Details {
        block_size: server.block_size,
        wal_segment_size: server.wal_segment_size,
        relation_segment_blocks: server.relation_segment_blocks,
        data_checksums: server.data_checksums,
        tablespaces: spaces.into_iter().filter_map(Tablespace::of).collect(),
    };
    Ok(Inventory {
        entries: recorder.tally().entries,
        bytes: recorder.tally().bytes,
        server: document::Server {
            version: server.version.clone(),
            system_identifier: before.system_identifier,
            timeline: Some(start.timeline),
            role: server.role().to_owned(),
        },
        position: Some(Position { from: start.lsn.to_string(), to: end.lsn.to_string() }),
        warnings,
        details: details.into_document()?,
    })
}

/// Without a slot the backup may still succeed: if the log is gone at the end, it fails then.
fn reserve_log(session: &mut Session, request: &DumpRequest, server: &Server, warnings: &mut Vec<String>) {
    let job: String = request.job.chars().filter(char::is_ascii_alphanumeric).take(30).collect();
    // An earlier attempt of the same job may still hold its slot.
    let slot = format!("holdfast_{}_{}", job.to_ascii_lowercase(), hex::encode(job::random(4)));
    if let Err(error) = basebackup::reserve_log(session, &slot, server.major) {
        warnings.push(format!("no replication slot kept the log during the backup: {error}"));
    }
}

/// Takes all archives and the manifest, and returns where the backup ended.
fn receive(session: &mut Session, mut backup: BaseBackup, recorder: &mut Recorder) -> Result<Point> {
    let terminated = backup.terminates_archives();
    let spaces = backup.spaces.clone();
    let mut archives = 0;
    let mut manifests = 0;
    let mut open = Open::Nothing;
    while let Some(piece) = backup.next(session)? {
        match (piece, &mut open) {
            (Piece::Data(length), Open::Archive(unpacker)) => unpacker.feed(recorder, &mut session.input, length)?,
            (Piece::Data(length), Open::Manifest(manifest)) => manifest.feed(recorder, &mut session.input, length)?,
            (Piece::Data(_), Open::Nothing) => return Err(protocol_error("data before the first archive")),
            (Piece::Archive(oid), _) => {
                open.close(recorder, terminated)?;
                if !spaces.iter().any(|space| space.oid == oid) {
                    return Err(protocol_error("an archive of an unknown tablespace"));
                }
                recorder.enter(oid);
                archives += 1;
                open = Open::Archive(Box::new(Unpacker::new()));
            }
            (Piece::Manifest, _) => {
                open.close(recorder, terminated)?;
                manifests += 1;
                open = Open::Manifest(ManifestEntry::begin()?);
            }
        }
    }
    open.close(recorder, terminated)?;
    if archives != spaces.len() || manifests != 1 {
        return Err(incomplete(format!("{archives} of {} archives and {manifests} manifests", spaces.len())));
    }
    for file in ["backup_label", "global/pg_control"] {
        if !recorder.has(file) {
            return Err(incomplete(format!("no {file}")));
        }
    }
    backup.end(session)
}

/// What data belongs to.
enum Open {
    Nothing,
    Archive(Box<Unpacker<Recorder>>),
    Manifest(ManifestEntry),
}

impl Open {
    fn close(&mut self, recorder: &mut Recorder, terminated: bool) -> Result<()> {
        match std::mem::replace(self, Self::Nothing) {
            Self::Nothing => Ok(()),
            Self::Archive(unpacker) => unpacker.finish(terminated),
            Self::Manifest(manifest) => manifest.finish(recorder),
        }
    }
}

fn incomplete(what: String) -> Error {
    Error::new("backup-incomplete", format!("the server sent {what}"))
        .hint("See the server's log, and try again.")
        .retryable()
}

fn check_same_server(before: &Identity, start: Point, after: &Identity, end: Point) -> Result<()> {
    if before != after || start.timeline != before.timeline || end.timeline != start.timeline {
        return Err(Error::new(
            "server-changed",
            format!(
                "the server was {} on timeline {} at the start and is {} on timeline {} at the end",
                before.system_identifier, start.timeline, after.system_identifier, end.timeline
            ),
        )
        .hint("Back up again: the server was promoted or replaced while the backup ran.")
        .retryable());
    }
    if end.lsn < start.lsn {
        return Err(protocol_error(format!("a backup from {} to {}", start.lsn, end.lsn)));
    }
    Ok(())
}
