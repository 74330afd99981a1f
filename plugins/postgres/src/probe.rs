//! Looks at a server the way a backup will, and says what stands in its way: each with the line or setting to change.
//!
//! A replication connection is what a backup needs. Where it is refused but one for SQL is not, the refusal is a problem
//! like others; where neither can be had, it is the error.

use holdfast_sdk::document::{Probe, Problem};
use holdfast_sdk::{Error, Result};

use crate::config;
use crate::failure::{protocol_error, quote_identifier};
use crate::server::{Identity, Server, show};
use crate::session::{self, Purpose, Session};
use crate::settings::Settings;
use crate::wire::{Row, column};

/// A refused replication connection that is a problem of the server's configuration, not of reaching it.
const CONFIGURATION: &[&str] = &["missing-privilege", "pg-hba-denied", "no-free-wal-sender"];

/// Looks at the instance's server.
pub fn probe() -> Result<Probe> {
    let settings = Settings::read()?;
    match session::open(&settings, Purpose::Replication) {
        Ok(session) => look(&settings, session),
        Err(error) if CONFIGURATION.contains(&error.code.as_ref()) => {
            // Who cannot ask in SQL either is simply denied.
            let Ok(sql) = session::open(&settings, Purpose::Sql) else { return Err(error) };
            look_without_replication(&settings, sql, error)
        }
        Err(error) => Err(error),
    }
}

fn look(settings: &Settings, mut replication: Session) -> Result<Probe> {
    let server = Server::ask(&mut replication)?;
    let identity = Identity::ask(&mut replication)?;
    let mut problems = Vec::new();
    judge_settings(&mut replication, &server, &mut problems)?;
    let size_bytes = match session::open(settings, Purpose::Sql) {
        Ok(mut sql) => {
            judge_by_sql(&mut sql, settings, &mut problems)?;
            size(&mut sql)?
        }
        Err(error) => {
            problems.push(no_sql(settings, error));
            None
        }
    };
    Ok(Probe {
        version: server.version.clone(),
        role: server.role().to_owned(),
        size_bytes,
        server_id: identity.system_identifier,
        problems,
    })
}

/// What can be said without the connection that a backup needs.
fn look_without_replication(settings: &Settings, mut sql: Session, refusal: Error) -> Result<Probe> {
    let server = Server::ask(&mut sql)?;
    let rows = sql.query("SELECT system_identifier FROM pg_catalog.pg_control_system()")?;
    let server_id = crate::wire::single(&rows)?.to_owned();
    let mut problems = vec![Problem {
        code: refusal.code.into_owned(),
        message: refusal.message,
        hint: refusal.hint.unwrap_or_default(),
        blocking: true,
    }];
    judge_settings(&mut sql, &server, &mut problems)?;
    judge_by_sql(&mut sql, settings, &mut problems)?;
    let size_bytes = size(&mut sql)?;
    Ok(Probe { version: server.version.clone(), role: server.role().to_owned(), size_bytes, server_id, problems })
}

/// Problems that any role may see.
fn judge_settings(session: &mut Session, server: &Server, problems: &mut Vec<Problem>) -> Result<()> {
    if show(session, "wal_level")? == "minimal" {
        problems.push(blocking(
            "wal-level-minimal",
            "wal_level is minimal: the log does not carry what a backup needs",
            "Set wal_level = replica in postgresql.conf, and restart the server.",
        ));
    }
    if server.standby && show(session, "full_page_writes")? == "off" {
        problems.push(blocking(
            "full-page-writes-off",
            "the server is a standby, and full_page_writes is off",
            "Set full_page_writes = on in postgresql.conf of the primary, reload it, and wait for a checkpoint.",
        ));
    }
    if show(session, "max_replication_slots")? == "0" {
        problems.push(note(
            "no-replication-slots",
            "max_replication_slots is 0: nothing keeps the log that a backup needs while it runs",
            "Set max_replication_slots = 10 in postgresql.conf, and restart the server.",
        ));
    }
    let kept = show(session, "max_slot_wal_keep_size")?;
    if kept != "-1" {
        problems.push(note(
            "slot-log-limited",
            format!("max_slot_wal_keep_size is {kept}: a backup during which more log is written fails"),
            "Set max_slot_wal_keep_size in postgresql.conf to more than is written during a backup, and reload the server.",
        ));
    }
    if !server.data_checksums {
        problems.push(note(
            "data-checksums-off",
            "the cluster has no data checksums: damaged pages are backed up unnoticed",
            "Stop the server once and run pg_checksums --enable.",
        ));
    }
    Ok(())
}

/// Problems that take SQL to see.
fn judge_by_sql(sql: &mut Session, settings: &Settings, problems: &mut Vec<Problem>) -> Result<()> {
    let free = "SELECT pg_catalog.current_setting('max_replication_slots')::int - count(*) FROM pg_catalog.pg_replication_slots";
    if number(sql, free)? == Some(0) && !problems.iter().any(|problem| problem.code == "no-replication-slots") {
        problems.push(note(
            "no-free-replication-slot",
            "all replication slots are in use: nothing keeps the log that a backup needs while it runs",
            "Raise max_replication_slots in postgresql.conf, or drop a slot that nobody uses.",
        ));
    }
    let user = quote_identifier(&settings.user);
    if number(sql, READABLE)? == Some(0) {
        problems.push(note(
            "configuration-unreadable",
            format!("{user} may not read configuration files: those outside of the data directory are backed up from the settings only"),
            config::grant(&user),
        ));
    }
    let unlogged = "SELECT count(*) FROM pg_catalog.pg_class WHERE relpersistence = 'u' AND relkind IN ('r', 'm')";
    if let Some(count @ 1..) = number(sql, unlogged)? {
        problems.push(note(
            "unlogged-tables",
            format!("unlogged tables of the database {}, empty after a restore: {count}", settings.database),
            "Run ALTER TABLE ... SET LOGGED for those whose rows matter.",
        ));
    }
    Ok(())
}

/// Whether the role may read files of the server's, or need not because they lie in the data directory.
const READABLE: &str = "SELECT CASE \
    WHEN (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) THEN 1 \
    WHEN NOT pg_catalog.pg_has_role('pg_read_all_settings', 'USAGE') THEN 0 \
    WHEN pg_catalog.current_setting('config_file') LIKE pg_catalog.current_setting('data_directory') || '/%' THEN 1 \
    WHEN pg_catalog.pg_has_role('pg_read_server_files', 'USAGE') \
        AND pg_catalog.has_function_privilege('pg_catalog.pg_read_file(text)', 'EXECUTE') THEN 1 \
    ELSE 0 END";

/// Bytes of all databases; none if the role may not know.
fn size(sql: &mut Session) -> Result<Option<u64>> {
    let may =
        "pg_catalog.has_database_privilege(oid, 'CONNECT') OR pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')";
    let query = format!(
        "SELECT CASE WHEN bool_and({may}) THEN sum(CASE WHEN {may} THEN pg_catalog.pg_database_size(oid) END)::bigint END \
         FROM pg_catalog.pg_database"
    );
    number(sql, &query)
}

fn number(sql: &mut Session, query: &str) -> Result<Option<u64>> {
    let rows: Vec<Row> = sql.query(query)?;
    match rows.first() {
        Some(row) if row.first() == Some(&None) => Ok(None),
        Some(row) => column(row, 0)?.parse().map(Some).map_err(|_| protocol_error("a count that is no number")),
        None => Err(protocol_error("a count without a row")),
    }
}

fn no_sql(settings: &Settings, error: Error) -> Problem {
    let hint = error.hint.unwrap_or_else(|| format!("Let the role connect to the database {}.", settings.database));
    note(
        "no-sql-connection",
        format!("size and configuration are unknown, because SQL is refused: {}", error.message),
        hint,
    )
}

fn blocking(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { blocking: true, ..note(code, message, hint) }
}

fn note(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Problem {
    Problem { code: code.to_owned(), message: message.into(), hint: hint.into(), blocking: false }
}
