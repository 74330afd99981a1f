//! Configuration that lies outside of the data directory, as on every Debian: a base backup does not have it.
//!
//! Read as it is where the role may; else `postgresql.conf` is made again from the settings. The job's log says so, and the probe: a warning
//! with every backup would teach people to overlook warnings.

use std::fmt::Write;

use holdfast_sdk::{Result, job};

use crate::failure::quote_literal;
use crate::names;
use crate::recorder::Recorder;
use crate::rewrite::quote;
use crate::server::show;
use crate::session::{self, Member, Purpose, Session};
use crate::settings::Settings;
use crate::wire::{column, single};

/// The three files, with the settings that say where they are.
const FILES: [(&str, &str); 3] =
    [("postgresql.conf", "config_file"), ("pg_hba.conf", "hba_file"), ("pg_ident.conf", "ident_file")];

/// Settings that a restored server cannot replay the log without, or should not lose; any role may ask for them.
const ESSENTIAL: &[&str] = &[
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "wal_level",
    "track_commit_timestamp",
];

/// Where the settings of a running server come from that are not in the data directory already.
const SOURCES: &str = "'configuration file', 'command line', 'environment variable'";

/// Writes the configuration that the backup lacks so far.
pub fn record(
    settings: &Settings,
    member: &Member,
    replication: &mut Session,
    recorder: &mut Recorder,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let mut sql = match session::open(settings, member, Purpose::Sql(&settings.database)) {
        Ok(sql) => Some(sql),
        Err(error) => {
            if FILES.iter().all(|(file, _)| recorder.has(file)) {
                return Ok(());
            }
            warnings.push(format!("settings could not be asked for by SQL: {error}"));
            None
        }
    };
    let places = sql.as_mut().and_then(|sql| Places::ask(sql).ok());
    for (index, (file, _)) in FILES.iter().enumerate() {
        let path = match &places {
            Some(places) if places.is_inside(index) => continue,
            Some(places) => Some(&places.files[index]),
            None if recorder.has(file) => continue,
            None => None,
        };
        let text = path.zip(sql.as_mut()).and_then(|(path, sql)| read(sql, path).ok());
        match (text, *file) {
            (Some(text), file) => recorder.write(&format!("{}{file}", names::CONFIG), text.as_bytes())?,
            (None, "postgresql.conf") => {
                let text = match &mut sql {
                    Some(sql) => from_settings(sql)?,
                    None => from_essentials(replication)?,
                };
                recorder.write(&format!("{}{file}", names::CONFIG), text.as_bytes())?;
                note_unreadable(settings, "postgresql.conf", "it was made again from the settings");
            }
            (None, file) => note_unreadable(settings, file, "a restore writes a minimal one"),
        }
    }
    if let (Some(places), Some(sql)) = (&places, &mut sql) {
        record_included(sql, places, recorder, warnings)?;
    }
    Ok(())
}

fn note_unreadable(settings: &Settings, file: &str, consequence: &str) {
    let user = crate::failure::quote_identifier(&settings.user);
    let note = format!(
        "{file} lies outside of the data directory and {user} may not read it: {consequence}. {}",
        grant(&user)
    );
    job::log("warn", &note);
}

/// What lets a role read configuration files.
pub fn grant(user: &str) -> String {
    format!(
        "To keep it as it is, run at the server, in the database that the instance names: \
         GRANT pg_read_all_settings, pg_read_server_files TO {user}; GRANT EXECUTE ON FUNCTION pg_read_file(text) TO {user};"
    )
}

/// Where configuration lies.
struct Places {
    data: String,
    /// As in [`FILES`].
    files: Vec<String>,
}

impl Places {
    fn ask(sql: &mut Session) -> Result<Self> {
        let mut ask = |name: &str| show(sql, name);
        let data = ask("data_directory")?;
        Ok(Self { data, files: FILES.iter().map(|(_, setting)| ask(setting)).collect::<Result<_>>()? })
    }

    fn is_inside(&self, index: usize) -> bool {
        below(&self.data, &self.files[index]).is_some()
    }

    /// A path relative to the directory of `postgresql.conf`, for files that lie there but not in the data directory.
    fn included<'a>(&self, path: &'a str) -> Option<&'a str> {
        let (directory, _) = self.files[0].rsplit_once('/')?;
        let relative = below(directory, path)?;
        let known = self.files.iter().any(|file| file == path);
        (!known && below(&self.data, path).is_none()).then_some(relative)
    }
}

/// `path` relative to `directory`, if it lies in it.
fn below<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(directory.trim_end_matches('/'))?.strip_prefix('/').filter(|relative| !relative.is_empty())
}

fn read(sql: &mut Session, path: &str) -> Result<String> {
    let rows = sql.query(&format!("SELECT pg_catalog.pg_read_file({})", quote_literal(path)))?;
    Ok(single(&rows)?.to_owned())
}

/// Files that `postgresql.conf` includes from beside it, such as `conf.d/x.conf`.
fn record_included(
    sql: &mut Session,
    places: &Places,
    recorder: &mut Recorder,
    warnings: &mut Vec<String>,
) -> Result<()> {
    if places.is_inside(0) {
        return Ok(());
    }
    let query = "SELECT DISTINCT sourcefile FROM pg_catalog.pg_settings WHERE sourcefile IS NOT NULL ORDER BY 1";
    for row in sql.query(query)? {
        let path = column(&row, 0)?;
        let Some(relative) = places.included(path) else { continue };
        match (names::sanitize(relative.as_bytes()), read(sql, path)) {
            (Ok(name), Ok(text)) => recorder.write(&format!("{}{name}", names::CONFIG), text.as_bytes())?,
            (Err(error), _) | (_, Err(error)) => warnings.push(format!("{path} is not in the backup: {error}")),
        }
    }
    Ok(())
}

/// `postgresql.conf` from what the server says it runs with. Values are in base units, so nothing is rounded.
fn from_settings(sql: &mut Session) -> Result<String> {
    let query = format!(
        "SELECT name, reset_val FROM pg_catalog.pg_settings WHERE source IN ({SOURCES}) AND context <> 'internal' \
         AND reset_val IS NOT NULL AND name NOT IN ('config_file', 'data_directory', 'hba_file', 'ident_file', 'external_pid_file') \
         ORDER BY name"
    );
    let mut text = heading();
    for row in sql.query(&query)? {
        assign(&mut text, column(&row, 0)?, column(&row, 1)?);
    }
    Ok(text)
}

/// The least that a restored server needs, from a connection that knows no SQL.
fn from_essentials(replication: &mut Session) -> Result<String> {
    let mut text = heading();
    for name in ESSENTIAL {
        let value = show(replication, name)?;
        assign(&mut text, name, &value);
    }
    Ok(text)
}

fn heading() -> String {
    "# Made by a backup from the settings of the running server: its own file could not be read.\n".to_owned()
}

fn assign(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name} = {}", quote(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_lies_where() {
        let places = Places {
            data: "/var/lib/postgresql/15/main".into(),
            files: ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"]
                .map(|file| format!("/etc/postgresql/15/main/{file}"))
                .to_vec(),
        };
        assert!(!places.is_inside(0));
        assert_eq!(places.included("/etc/postgresql/15/main/conf.d/a.conf"), Some("conf.d/a.conf"));
        assert_eq!(places.included("/etc/postgresql/15/main/pg_hba.conf"), None);
        assert_eq!(places.included("/var/lib/postgresql/15/main/postgresql.auto.conf"), None);
        assert_eq!(places.included("/srv/shared.conf"), None);
        assert_eq!(below("/data", "/database/x"), None);
    }

    #[test]
    fn values_survive_quoting() {
        let mut text = String::new();
        assign(&mut text, "search_path", r#""$user", it's \ here"#);
        assert_eq!(text, "search_path = '\"$user\", it''s \\\\ here'\n");
    }
}
