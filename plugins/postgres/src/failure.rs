//! What a server's refusal means to an operator: SQLSTATE to code, message and a hint that names what to change.

use std::net::IpAddr;

use fallible_iterator::FallibleIterator;
use holdfast_sdk::{Error, Result};
use postgres_protocol::message::backend::ErrorFields;

/// Who talks to whom, for messages.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The server's address, as the host names it.
    pub address: String,
    /// The role.
    pub user: String,
    /// The database; none on a replication connection.
    pub database: Option<String>,
    /// Whether the connection is one that TLS could protect, and does not.
    pub plain: bool,
}

/// An error or a notice in the server's own words. They are not trusted: the host escapes them where it shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `ERROR`, `FATAL`, `WARNING`, `NOTICE`, ...; never translated.
    pub severity: String,
    /// SQLSTATE.
    pub state: String,
    /// What happened.
    pub message: String,
    /// More of it.
    pub detail: String,
    /// What the server advises.
    pub hint: String,
    /// The file of the server's source that speaks, such as `basebackup.c`; never translated.
    pub file: String,
    /// The function there.
    pub routine: String,
}

/// The code of an error about damaged pages.
pub const DATA_CORRUPTED: &str = "data-corrupted";

/// Bytes kept of each text of the server's.
const MAX_TEXT: usize = 1_000;

impl Report {
    /// Reads an `ErrorResponse` or a `NoticeResponse`.
    pub fn read(mut fields: ErrorFields<'_>) -> Result<Self> {
        let mut report = Self::default();
        while let Some(field) = fields.next()? {
            let text: String = String::from_utf8_lossy(field.value_bytes()).chars().take(MAX_TEXT).collect();
            match field.type_() {
                b'S' if report.severity.is_empty() => report.severity = text,
                b'V' => report.severity = text,
                b'C' => report.state = text,
                b'M' => report.message = text,
                b'D' => report.detail = text,
                b'H' => report.hint = text,
                b'F' => report.file = text,
                b'R' => report.routine = text,
                _ => {}
            }
        }
        Ok(report)
    }

    /// The message and its detail in one line.
    pub fn text(&self) -> String {
        match self.detail.as_str() {
            "" => self.message.clone(),
            detail => format!("{} ({detail})", self.message),
        }
    }

    /// The error that an operator sees.
    pub fn explain(&self, peer: &Peer) -> Error {
        let meaning = self.meaning(peer);
        let message = format!("{} says: {} [{}]", peer.address, self.text(), self.state);
        let error = Error { code: meaning.code.into(), message, hint: None, retryable: meaning.retryable };
        match (meaning.hint, self.hint.as_str()) {
            (Some(hint), _) => error.hint(hint),
            (None, "") => error,
            (None, hint) => error.hint(hint),
        }
    }

    fn meaning(&self, peer: &Peer) -> Meaning {
        let user = quote_identifier(&peer.user);
        match self.state.as_str() {
            "28P01" => fatal(
                "authentication-failed",
                "Check the user, and set the password again by `--secret-file password=FILE`.",
            ),
            "28000" if self.message.contains("pg_hba.conf") => fatal("pg-hba-denied", self.access_rule(peer)),
            "28000" => fatal(
                "authentication-failed",
                format!("Check that the role {user} exists at the server and has LOGIN."),
            ),
            "3D000" => fatal("unknown-database", "Set `database` to one that exists; `postgres` does on most servers."),
            "42501" if self.is_about_replication(peer) => {
                fatal("missing-privilege", format!("At the server, run: ALTER ROLE {user} REPLICATION;"))
            }
            "42501" => Meaning { code: "missing-privilege", hint: None, retryable: false },
            "53300" if self.names("max_wal_senders") => later(
                "no-free-wal-sender",
                "Raise max_wal_senders in postgresql.conf and restart the server, or end another replication connection.",
            ),
            "53300" => later("too-many-connections", "Raise max_connections, or end other connections to the server."),
            "53400" => later(
                "no-free-replication-slot",
                "Raise max_replication_slots in postgresql.conf and restart the server, or drop a slot that nobody uses.",
            ),
            "55000" => self.unfit_state(),
            "57P03" => later("server-starting", "Wait until the server accepts connections, and try again."),
            // A slot that keeps more log than it may has its connection ended in the same words as a shutdown.
            "57P01" if peer.database.is_none() => later(
                "server-shut-down",
                "Start the server if it was shut down, and try again. If it was not, raise max_slot_wal_keep_size in postgresql.conf: \
                 more log was written during the backup than may be kept for it.",
            ),
            "57P01" | "57P02" => later("server-shut-down", "Start the server, and try again."),
            // Which state it is depends on where the server misses the file.
            "58P01" | "XX000" if self.names_log_segment() => later(
                "wal-removed",
                "Raise max_slot_wal_keep_size, and wal_keep_size or wal_keep_segments, in postgresql.conf: the server removed log that the backup needs.",
            ),
            "XX001" => fatal(
                DATA_CORRUPTED,
                "The server found damaged pages: see its log for the blocks, and repair or restore them before the next backup.",
            ),
            state if state.starts_with("53") => {
                Meaning { code: "server-out-of-resources", hint: None, retryable: true }
            }
            state if state.starts_with("58") => fatal(
                "server-storage-failed",
                "See the server's log: it could not read its own files, so check its disk and the files' owner.",
            ),
            state if state.starts_with("08") => Meaning { code: "connection-lost", hint: None, retryable: true },
            _ => Meaning { code: "server-error", hint: None, retryable: false },
        }
    }

    /// An object that is not in the state that a backup needs.
    fn unfit_state(&self) -> Meaning {
        if self.names("full_page_writes") {
            return fatal("full-page-writes-off", FULL_PAGE_WRITES_HINT);
        }
        if self.names("wal_level") {
            return fatal("wal-level-minimal", WAL_LEVEL_HINT);
        }
        // A standby that became a primary in the middle is found where a backup looks at the next file, and at its end.
        if matches!(self.routine.as_str(), "sendDir" | "do_pg_stop_backup" | "do_pg_backup_stop") {
            return later("server-changed", "Back up again: the server was promoted while the backup ran.");
        }
        Meaning { code: "server-error", hint: None, retryable: false }
    }

    /// Whether a word of the server's that no translation changes is in the report.
    fn names(&self, word: &str) -> bool {
        [&self.message, &self.detail, &self.hint].iter().any(|text| text.contains(word))
    }

    /// Whether the message has the name of a file of the log.
    fn names_log_segment(&self) -> bool {
        let words = self.message.split(|character: char| !character.is_ascii_alphanumeric());
        words.into_iter().any(|word| word.len() == 24 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    }

    /// Whether a privilege is missing without which there are no replication connections. On one, it is found missing in the
    /// beginning.
    fn is_about_replication(&self, peer: &Peer) -> bool {
        peer.database.is_none() && (self.routine.starts_with("Init") || self.message.contains("replication"))
    }

    /// The line of `pg_hba.conf` that would let us in.
    fn access_rule(&self, peer: &Peer) -> String {
        let database = peer.database.as_deref().map_or_else(|| "replication".to_owned(), quote_identifier);
        let user = quote_identifier(&peer.user);
        let address = match self.client_address() {
            Some(IpAddr::V4(address)) => format!("{address}/32"),
            Some(IpAddr::V6(address)) => format!("{address}/128"),
            None => "ADDRESS/32".to_owned(),
        };
        let rule = if peer.address.starts_with('/') {
            format!("local {database} {user} scram-sha-256")
        } else {
            format!("host {database} {user} {address} scram-sha-256")
        };
        let otherwise = if peer.plain {
            "Set `--set tls=verify-full` if the server lets the role in over TLS only. Else add"
        } else {
            "Add"
        };
        format!(
            "{otherwise} this line to the server's pg_hba.conf, before any that rejects it, and reload the server: {rule}"
        )
    }

    /// The address that the server sees us come from: it is quoted in the message, in whatever language.
    fn client_address(&self) -> Option<IpAddr> {
        let words =
            self.message.split(|character: char| !(character.is_ascii_hexdigit() || matches!(character, '.' | ':')));
        words.filter_map(|word| word.parse().ok()).next()
    }
}

/// What to do about a log that lacks what a backup needs.
pub const WAL_LEVEL_HINT: &str = "Set wal_level = replica in postgresql.conf, and restart the server.";

/// What to do about a standby whose primary leaves whole pages out of the log.
pub const FULL_PAGE_WRITES_HINT: &str =
    "Set full_page_writes = on in postgresql.conf of the primary, reload it, and wait for a checkpoint of the standby.";

struct Meaning {
    code: &'static str,
    hint: Option<String>,
    retryable: bool,
}

fn fatal(code: &'static str, hint: impl Into<String>) -> Meaning {
    Meaning { code, hint: Some(hint.into()), retryable: false }
}

fn later(code: &'static str, hint: impl Into<String>) -> Meaning {
    Meaning { code, hint: Some(hint.into()), retryable: true }
}

/// A name as SQL and `pg_hba.conf` take it: quoted only where it must be.
pub fn quote_identifier(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// A literal as SQL takes it, whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') { format!(" E'{}'", doubled.replace('\\', "\\\\")) } else { format!("'{doubled}'") }
}

/// Bytes that are no valid message of the protocol.
pub fn protocol_error(message: impl Into<String>) -> Error {
    Error::new("protocol-error", message).hint("Check that host and port are those of a PostgreSQL server.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer { address: "db:5432".into(), user: "backup".into(), database: None, plain: false }
    }

    fn explain(state: &str, message: &str, peer: &Peer) -> Error {
        Report { state: state.into(), message: message.into(), ..Report::default() }.explain(peer)
    }

    #[test]
    fn a_missing_access_rule_is_spelled_out() {
        let message =
            r#"no pg_hba.conf entry for replication connection from host "10.1.2.3", user "backup", no encryption"#;
        let error = explain("28000", message, &peer());
        assert_eq!(error.code, "pg-hba-denied");
        assert!(error.hint.expect("hint").ends_with(": host replication backup 10.1.2.3/32 scram-sha-256"));

        let message = r#"kein pg_hba.conf-Eintrag für Host »fe80::1«, Benutzer »Ops«, Datenbank »app«"#;
        let peer_of_database = Peer { user: "Ops".into(), database: Some("app".into()), ..peer() };
        let hint = explain("28000", message, &peer_of_database).hint.expect("hint");
        assert!(hint.ends_with(r#": host app "Ops" fe80::1/128 scram-sha-256"#), "{hint}");

        let local = Peer { address: "/run/postgresql/.s.PGSQL.5432".into(), ..peer() };
        let hint = explain("28000", "no pg_hba.conf entry", &local).hint.expect("hint");
        assert!(hint.ends_with(": local replication backup scram-sha-256"), "{hint}");
    }

    #[test]
    fn known_states_have_codes_and_hints() {
        for (state, message, code, hint) in [
            ("28P01", "password authentication failed for user \"backup\"", "authentication-failed", "password"),
            ("28000", "role \"backup\" does not exist", "authentication-failed", "backup"),
            ("3D000", "database \"x\" does not exist", "unknown-database", "database"),
            (
                "42501",
                "must be superuser or replication role to start walsender",
                "missing-privilege",
                "ALTER ROLE backup REPLICATION;",
            ),
            (
                "53300",
                "number of requested standby connections exceeds max_wal_senders (currently 0)",
                "no-free-wal-sender",
                "max_wal_senders",
            ),
            ("53300", "sorry, too many clients already", "too-many-connections", "max_connections"),
            ("53400", "all replication slots are in use", "no-free-replication-slot", "max_replication_slots"),
            (
                "58P01",
                "das angeforderte WAL-Segment 000000010000000000000002 wurde schon entfernt",
                "wal-removed",
                "max_slot_wal_keep_size",
            ),
            (
                "XX000",
                "requested WAL segment 000000010000000000000015 has already been removed",
                "wal-removed",
                "max_slot_wal_keep_size",
            ),
            ("58P01", "could not open directory", "server-storage-failed", "disk"),
            (
                "55000",
                "WAL generated with full_page_writes=off was replayed since last restartpoint",
                "full-page-writes-off",
                "of the primary",
            ),
        ] {
            let error = explain(state, message, &peer());
            assert_eq!(error.code, code, "{message}");
            assert!(error.hint.is_some_and(|text| text.contains(hint)), "{message}");
        }
        assert_eq!(explain("42P01", "relation does not exist", &peer()).code, "server-error");
    }

    #[test]
    fn what_is_said_in_another_language_is_known_by_where_it_is_said() {
        let said = |state: &str, routine: &str, message: &str| {
            let report =
                Report { state: state.into(), routine: routine.into(), message: message.into(), ..Report::default() };
            report.explain(&peer())
        };
        let role = said("42501", "InitPostgres", "keine Berechtigung, um WAL-Sender zu starten");
        assert!(role.hint.is_some_and(|hint| hint.contains("ALTER ROLE backup REPLICATION;")));
        for routine in ["sendDir", "do_pg_stop_backup", "do_pg_backup_stop"] {
            let promoted = said("55000", routine, "der Standby wurde während der Online-Sicherung befördert");
            assert!(promoted.code == "server-changed" && promoted.retryable, "{routine}");
        }
    }

    #[test]
    fn a_server_that_may_want_tls_is_spoken_of() {
        let plain = Peer { plain: true, ..peer() };
        let hint = explain("28000", "no pg_hba.conf entry for host", &plain).hint.expect("hint");
        assert!(hint.contains("tls=verify-full") && hint.ends_with("scram-sha-256"), "{hint}");
    }

    #[test]
    fn names_and_literals_are_quoted() {
        assert_eq!(quote_identifier("backup_1"), "backup_1");
        assert_eq!(quote_identifier("Back\"up"), "\"Back\"\"up\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), " E'a\\\\''b'");
    }
}
