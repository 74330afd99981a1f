//! Whether what arrived is a whole backup of the server that was asked, beyond what its archives say of themselves.
//!
//! `backup_label` must begin where the server said it would, `pg_control` must be of its cluster, and the log must be there
//! from the start to the end: without one of them there is no restore, so there is no backup.

use holdfast_sdk::{Error, Result};

use crate::control::{Control, Flaw};
use crate::label;
use crate::lsn::{segment_name, segments};
use crate::manifest::WalRange;
use crate::names;
use crate::recorder::Recorder;
use crate::server::{Identity, Server};

/// Fails unless replay of `needed` can begin, and can end.
pub fn check(recorder: &Recorder, server: &Server, identity: &Identity, needed: &WalRange) -> Result<()> {
    let label = recorder.kept("backup_label").ok_or_else(|| incomplete("no backup_label"))?;
    let objections = label::objections(&String::from_utf8_lossy(label), needed, server.wal_segment_size);
    if !objections.is_empty() {
        return Err(incomplete(&format!("a backup_label that is not of this backup: {}", objections.join("; "))));
    }
    let control = recorder.kept("global/pg_control").ok_or_else(|| incomplete("no global/pg_control"))?;
    check_control(control, identity)?;
    for segment in segments(needed.start, needed.end, server.wal_segment_size) {
        let name = segment_name(needed.timeline, segment, server.wal_segment_size);
        if !recorder.has_log(&name) {
            return Err(incomplete(&format!("no whole {}{name}", names::LOG)));
        }
    }
    Ok(())
}

fn check_control(bytes: &[u8], identity: &Identity) -> Result<()> {
    match Control::parse(bytes) {
        Ok(control) if control.system_identifier.to_string() == identity.system_identifier => Ok(()),
        Ok(control) => Err(incomplete(&format!("a global/pg_control of the cluster {}", control.system_identifier))),
        // A version that came after this plugin: what it cannot judge it does not condemn.
        Err(Flaw::Unknown(_)) => Ok(()),
        Err(flaw) => Err(incomplete(&format!("a global/pg_control that cannot be used: {flaw}"))),
    }
}

/// What the server left out or sent wrongly. Another attempt may be luckier: a file may have been caught in mid-change.
pub fn incomplete(what: &str) -> Error {
    Error::new("backup-incomplete", format!("the server sent {what}"))
        .hint("See the server's log, and try again.")
        .retryable()
}
