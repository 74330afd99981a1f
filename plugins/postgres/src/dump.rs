//! Takes a base backup: everything the server sends becomes entries, and the backup is whole or it is an error.
//!
//! Whole means: both result sets that frame the copy arrived, every archive ended at its end, the manifest's own checksum
//! fits where there is one, the label, the cluster's identity and the log are there, and the server is the same one, in the
//! same history, at the end as at the beginning.

use std::collections::BTreeSet;

use holdfast_sdk::document::{self, DumpRequest, Inventory, Position};
use holdfast_sdk::{Error, Result, job};

use crate::basebackup::{self, BaseBackup, Options, Piece, Point};
use crate::completeness::{self, incomplete};
use crate::config;
use crate::failure::{DATA_CORRUPTED, protocol_error};
use crate::inventory::{Details, Tablespace};
use crate::manifest::WalRange;
use crate::members::{self, Choice, PassedOver, Reached};
use crate::recorder::{ManifestEntry, Recorder};
use crate::relations::Relations;
use crate::server::{Identity, Server};
use crate::session::Session;
use crate::settings::{Corruption, Settings};
use crate::tar::Unpacker;

/// Damaged pages that an error names.
const MAX_NAMED: usize = 10;

/// Does what the host asks for.
pub fn dump(request: &DumpRequest) -> Result<Inventory> {
    if request.method != "basebackup" || request.kind != "full" {
        return Err(Error::new("unsupported", format!("no method {} of type {}", request.method, request.kind))
            .hint("Use the method basebackup with type full."));
    }
    let settings = Settings::read()?;
    let began = |reached: &mut Reached<Session>| Begun::at(reached, request, &settings);
    let Choice { reached, begun, passed_over, warning } = members::begin(&settings, began)?;
    for PassedOver { member, error } in &passed_over {
        job::log("warn", &format!("{} was passed over: {error}", member.address));
    }
    let Reached { member, mut session, server, identity: before } = reached;
    let Begun { backup, slot_limit, warning: unreserved } = begun;
    let mut warnings: Vec<String> = warning.into_iter().chain(unreserved).collect();
    let start = backup.start;
    let (version, role, address) = (&server.version, server.role(), &member.address);
    job::log("info", &format!("PostgreSQL {version} at {address}, a {role}: the backup begins at {}", start.lsn));
    let spaces = backup.spaces.clone();
    let mut recorder = Recorder::new(&server, &spaces);
    let received = receive(&mut session, backup, &mut recorder, server.writes_manifest());
    let (end, corrupted) = received.map_err(|error| explain_loss(session.name_loss(error), slot_limit))?;

    let after = Identity::ask(&mut session)?;
    check_same_server(&before, start, &after, end)?;
    let needed = WalRange { timeline: start.timeline, start: start.lsn, end: end.lsn };
    completeness::check(&recorder, &server, &before, &needed)?;
    warnings.extend(session.take_warnings());
    if let Some(refusal) = corrupted {
        let mut relations = Relations::new(&settings, &member, &spaces);
        let lines = session.take_damage().lines(server.relation_segment_blocks, |path| relations.name(path));
        warnings.extend(judge_damage(settings.corruption, lines, refusal)?);
    }
    config::record(&settings, &member, &mut session, &mut recorder, &mut warnings)?;

    let details = Details {
        block_size: server.block_size,
        wal_segment_size: server.wal_segment_size,
        relation_segment_blocks: server.relation_segment_blocks,
        data_checksums: server.data_checksums,
        manifest: server.writes_manifest(),
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
            member: Some(member.address),
        },
        position: Some(Position { from: start.lsn.to_string(), to: end.lsn.to_string() }),
        warnings,
        details: details.into_document()?,
    })
}

/// A backup that a server agreed to, and nothing of which is kept yet.
struct Begun {
    backup: BaseBackup,
    slot_limit: Option<String>,
    /// Said with the backup if no slot keeps its log.
    warning: Option<String>,
}

impl Begun {
    fn at(reached: &mut Reached<Session>, request: &DumpRequest, settings: &Settings) -> Result<Self> {
        let Reached { session, server, .. } = reached;
        let warning = reserve_log(session, request, server);
        let slot_limit = server.slot_limit(session)?;
        let label = format!("holdfast {}", request.job);
        let manifest_checksums = server.writes_manifest().then_some(settings.manifest_checksums);
        let backup = BaseBackup::begin(session, &Options { label: &label, manifest_checksums }, server.major)?;
        Ok(Self { backup, slot_limit, warning })
    }
}

/// Without a slot the backup may still succeed: if the log is gone at the end, it fails then.
fn reserve_log(session: &mut Session, request: &DumpRequest, server: &Server) -> Option<String> {
    let job: String = request.job.chars().filter(char::is_ascii_alphanumeric).take(30).collect();
    // An earlier attempt of the same job may still hold its slot.
    let slot = format!("holdfast_{}_{}", job.to_ascii_lowercase(), hex::encode(job::random(4)));
    let error = basebackup::reserve_log(session, &slot, server.major).err()?;
    Some(format!("no replication slot kept the log during the backup: {error}"))
}

/// A server ends the connection of a backup whose slot keeps too much log, and cannot say so in the middle of a copy.
fn explain_loss(error: Error, slot_limit: Option<String>) -> Error {
    match slot_limit {
        Some(limit) if error.code == "connection-lost" => error.hint(format!(
            "See the server's log for the reason. If it released the replication slot, raise max_slot_wal_keep_size, which is {limit}: \
             more log was written during the backup."
        )),
        _ => error,
    }
}

/// Takes all archives and the manifest, and returns where the backup ended, with the server's refusal if pages were damaged.
fn receive(
    session: &mut Session,
    mut backup: BaseBackup,
    recorder: &mut Recorder,
    with_manifest: bool,
) -> Result<(Point, Option<Error>)> {
    let terminated = backup.terminates_archives();
    let mut awaited: BTreeSet<Option<u32>> = backup.spaces.iter().map(|space| space.oid).collect();
    if awaited.len() < backup.spaces.len() {
        return Err(protocol_error("two tablespaces of one number"));
    }
    let mut manifests = 0;
    let mut open = Open::Nothing;
    while let Some(piece) = backup.next(session)? {
        match (piece, &mut open) {
            (Piece::Data(length), Open::Archive(unpacker)) => unpacker.feed(recorder, &mut session.input, length)?,
            (Piece::Data(length), Open::Manifest(manifest)) => manifest.feed(recorder, &mut session.input, length)?,
            (Piece::Data(_), Open::Nothing) => return Err(protocol_error("data before the first archive")),
            (Piece::Archive(oid), _) => {
                open.close(recorder, terminated)?;
                if !awaited.remove(&oid) {
                    return Err(protocol_error("an archive of an unknown tablespace, or the second of one"));
                }
                recorder.enter(oid);
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
    if !awaited.is_empty() || manifests != usize::from(with_manifest) {
        return Err(incomplete(&format!("{} archives too few, and {manifests} manifests", awaited.len())));
    }
    backup.end(session)
}

/// What the operator is told of damaged pages, or the error that they are.
fn judge_damage(corruption: Corruption, lines: Vec<String>, refusal: Error) -> Result<Vec<String>> {
    // The words in which pages were named may be of a language that is not understood: then they are warnings already.
    let lines = if lines.is_empty() { vec![refusal.message] } else { lines };
    match corruption {
        Corruption::Keep => Ok(lines),
        Corruption::Refuse => {
            let named = lines.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
            let more = match lines.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            Err(Error::new(DATA_CORRUPTED, format!("the server sent damaged pages: {named}{more}")).hint(
                "Repair or restore what is damaged, or keep such backups, with a warning for each page, by `--set corruption=keep`.",
            ))
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_may_be_a_slot_that_kept_too_much() {
        let lost =
            || Error::new("connection-lost", "db closed the connection").hint("See the server's log.").retryable();
        let explained = explain_loss(lost(), Some("16MB".into()));
        assert!(explained.retryable && explained.hint.is_some_and(|hint| hint.contains("which is 16MB")));
        assert_eq!(explain_loss(lost(), None), lost());
        let other = Error::new("server-error", "no");
        assert_eq!(explain_loss(other.clone(), Some("16MB".into())), other);
    }

    #[test]
    fn damage_is_kept_with_a_warning_or_refused_by_name() {
        let refusal = || Error::new(DATA_CORRUPTED, "db says: damaged");
        let lines: Vec<String> = (0..12).map(|block| format!("block {block}")).collect();
        let judge = |corruption, lines: &[String]| judge_damage(corruption, lines.to_vec(), refusal());
        assert_eq!(judge(Corruption::Keep, &lines).expect("kept"), lines);
        assert_eq!(judge(Corruption::Keep, &[]).expect("kept"), ["db says: damaged"]);
        let error = judge(Corruption::Refuse, &lines).expect_err("refused");
        assert!(error.code == DATA_CORRUPTED && !error.retryable);
        assert!(error.message.ends_with("block 8; block 9; and 2 more"), "{}", error.message);
    }
}
