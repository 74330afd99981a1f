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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::file as control_file;
    use crate::label::tests::LABEL;
    use crate::lsn::Lsn;

    const LOG: &[&str] = &["000000010000000000000002", "000000010000000000000003"];

    fn judged(kept: &[(&str, &[u8])], log: &[&str]) -> Result<()> {
        let identity = Identity { system_identifier: "7300000000000000001".into(), timeline: 1 };
        let needed = WalRange { timeline: 1, start: Lsn(0x200_0028), end: Lsn(0x300_0100) };
        check(&Recorder::example(kept, log), &Server::example(false), &identity, &needed)
    }

    #[test]
    fn nothing_that_replay_needs_may_be_missing() {
        let control = control_file();
        let kept = [("backup_label", LABEL.as_bytes()), ("global/pg_control", control.as_slice())];
        judged(&kept, LOG).expect("whole");
        let missing = |kept: &[(&str, &[u8])], log: &[&str]| {
            let error = judged(kept, log).expect_err("incomplete");
            assert!(error.code == "backup-incomplete" && error.retryable);
            error.message
        };
        assert!(missing(&kept[1..], LOG).contains("no backup_label"));
        assert!(missing(&kept[..1], LOG).contains("no global/pg_control"));
        assert!(missing(&kept, &LOG[..1]).contains("pg_wal/000000010000000000000003"));
        assert!(missing(&kept, &LOG[1..]).contains("pg_wal/000000010000000000000002"));
    }

    #[test]
    fn what_is_of_another_backup_or_cluster_is_refused() {
        let label = LABEL.replace("0/2000028", "0/2000029");
        let control = control_file();
        let with = |label: &str, control: &[u8]| {
            judged(&[("backup_label", label.as_bytes()), ("global/pg_control", control)], LOG)
        };
        assert!(with(&label, &control).is_err());
        assert!(with(LABEL, &control[..100]).is_err());
        let mut foreign = control.clone();
        foreign[0] ^= 1;
        assert!(with(LABEL, &foreign).is_err(), "its checksum does not fit");
        let mut newer = control;
        newer[8..12].copy_from_slice(&9_900u32.to_le_bytes());
        with(LABEL, &newer).expect("a version that is not known is not condemned");
    }
}
