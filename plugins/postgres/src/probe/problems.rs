//! What stands, or may stand, in the way of a backup: one function for each way to find out.

use holdfast_sdk::document::Problem;
use holdfast_sdk::{Error, Result, job};

use crate::basebackup;
use crate::config;
use crate::failure::{FULL_PAGE_WRITES_HINT, WAL_LEVEL_HINT, protocol_error, quote_identifier};
use crate::names;
use crate::server::{Server, show};
use crate::session::{Member, Session};
use crate::settings::Settings;
use crate::wire::{Row, column};

/// Another role than the one that is preferred: every backup will carry a warning.
pub fn of_role(settings: &Settings, member: &Member, server: &Server) -> Option<Problem> {
    let wanted = settings.prefer.role();
    (!settings.prefer.accepts(server)).then(|| {
        note(
            "preferred-role-missing",
            format!(
                "no {wanted} can be backed up: a backup would be taken from {}, a {}",
                member.address,
                server.role()
            ),
            format!("Name a {wanted} in the setting host, or leave the setting prefer out."),
        )
    })
}

/// Makes the slot that a backup makes; it goes with the session. A backup without one may still succeed.
pub fn of_slots(replication: &mut Session, server: &Server) -> Option<Problem> {
    let slot = format!("holdfast_probe_{}", hex::encode(job::random(4)));
    let error = basebackup::reserve_log(replication, &slot, server.major).err()?;
    let hint =
        "Raise max_replication_slots in postgresql.conf and restart the server, or drop a slot that nobody uses.";
    Some(note(
        "no-replication-slot",
        format!("no slot can keep the log that a backup needs while it runs: {}", error.message),
        error.hint.unwrap_or_else(|| hint.to_owned()),
    ))
}

/// Problems that any role may see.
pub fn of_settings(session: &mut Session, server: &Server, problems: &mut Vec<Problem>) -> Result<()> {
    if show(session, "wal_level")? == "minimal" {
        problems.push(blocking(
            "wal-level-minimal",
            "wal_level is minimal: the log does not carry what a backup needs",
            WAL_LEVEL_HINT,
        ));
    }
    if let Some(limit) = server.slot_limit(session)? {
        problems.push(note(
            "slot-log-limited",
            format!("max_slot_wal_keep_size is {limit}: a backup during which more log is written fails"),
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
pub fn by_sql(sql: &mut Session, settings: &Settings, server: &Server, problems: &mut Vec<Problem>) -> Result<()> {
    // What a standby itself is set to does not matter: the log that it replays is its primary's.
    let whole_pages = "SELECT full_page_writes::int FROM pg_catalog.pg_control_checkpoint()";
    if server.standby && number(sql, whole_pages)? == Some(0) {
        problems.push(blocking(
            "full-page-writes-off",
            "the server is a standby of a primary that has full_page_writes off: its copy of a page may be torn",
            FULL_PAGE_WRITES_HINT,
        ));
    }
    problems.extend(tablespaces(sql)?);
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

/// What a restore will have to be told.
fn tablespaces(sql: &mut Session) -> Result<Option<Problem>> {
    let rows = sql.query(
        "SELECT pg_catalog.pg_tablespace_location(oid) FROM pg_catalog.pg_tablespace \
         WHERE pg_catalog.pg_tablespace_location(oid) LIKE '/%' ORDER BY 1",
    )?;
    if rows.is_empty() {
        return Ok(None);
    }
    let places: Vec<&str> = rows.iter().map(|row| column(row, 0)).collect::<Result<_>>()?;
    let maps: Vec<String> = places.iter().map(|place| names::map_option(place)).collect();
    Ok(Some(note(
        "tablespaces",
        format!("tablespaces lie outside of the data directory: {}", places.join(", ")),
        format!("Say at each restore where they shall lie: {}.", maps.join(" ")),
    )))
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
pub fn size(sql: &mut Session) -> Result<Option<u64>> {
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

/// Without SQL a backup is as good, and less is known of it.
pub fn no_sql(settings: &Settings, error: Error) -> Problem {
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
