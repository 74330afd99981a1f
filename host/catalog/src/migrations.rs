//! The schema's history: numbered files, never edited, of which a catalog has had the first `user_version`.
//!
//! Either all that are missing are applied, or none. A file that a newer program wrote is refused untouched.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use crate::Error;
use crate::error::Fault;

/// All migrations; the one at place N makes schema N + 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_plugins.sql"),
    include_str!("../migrations/0003_findings.sql"),
    include_str!("../migrations/0004_holds.sql"),
    include_str!("../migrations/0005_policies.sql"),
    include_str!("../migrations/0006_losses.sql"),
];

/// Makes an empty file that only its owner can read, unless there is one; SQLite gives its companions the same permissions.
pub(crate) fn create_file(path: &Path) -> Result<(), Fault> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(sync_directory(path)?),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Brings the schema up to date.
pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    migrate_with(connection, path, MIGRATIONS)
}

fn migrate_with(connection: &mut Connection, path: &Path, migrations: &[&str]) -> Result<(), Fault> {
    let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(Error::NewerSchema { found, known }.into());
    }
    if found == known {
        return Ok(());
    }
    if found > 0 {
        copy_before(connection, path, found + 1)?;
    }
    // A migration may rebuild a table that others refer to; the references are checked at the end.
    connection.pragma_update(None, "foreign_keys", false)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    for migration in &migrations[found as usize..] {
        transaction.execute_batch(migration)?;
    }
    if transaction.prepare("PRAGMA foreign_key_check")?.exists([])? {
        let source = "a row refers to one that is not there".into();
        return Err(Error::Corrupt { step: "bringing the catalog up to date", source }.into());
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    tracing::info!(from = found, to = known, "the catalog's schema is up to date");
    Ok(())
}

/// Copies the catalog as it is to `<name>-before-<next>.db`. A copy that an interrupted attempt left is replaced: the catalog has not changed since.
fn copy_before(connection: &Connection, path: &Path, next: u32) -> Result<(), Fault> {
    let copy = copy_path(path, next);
    let Some(name) = copy.to_str() else {
        return Err(std::io::Error::new(ErrorKind::InvalidFilename, "the data directory's path is not UTF-8").into());
    };
    let empty = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&copy)?;
    connection.execute("VACUUM INTO ?1", [name])?;
    empty.sync_all()?;
    Ok(sync_directory(&copy)?)
}

fn copy_path(path: &Path, next: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-before-{next}.db"))
}

fn sync_directory(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => File::open(directory)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalog;

    fn version(connection: &Connection) -> u32 {
        connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn an_empty_file_becomes_a_catalog_that_only_its_owner_reads() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        let catalog = Catalog::open(&path).await.unwrap();
        catalog.set_meta("mode", b"ready").await.unwrap();
        for name in ["catalog.db", "catalog.db-wal"] {
            let mode = std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        drop(catalog);
        assert_eq!(version(&Connection::open(&path).unwrap()) as usize, MIGRATIONS.len());
        assert_eq!(Catalog::open(&path).await.unwrap().meta("mode").await.unwrap().as_deref(), Some(&b"ready"[..]));
    }

    #[tokio::test]
    async fn a_newer_catalog_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        drop(Catalog::open(&path).await.unwrap());
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 4711).unwrap();
        drop(connection);
        let error = Catalog::open(&path).await.unwrap_err();
        assert!(matches!(error, Error::NewerSchema { found: 4711, .. }), "{error}");
        assert_eq!(version(&Connection::open(&path).unwrap()), 4711);
    }

    #[test]
    fn a_copy_is_made_before_an_existing_catalog_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        let mut connection = Connection::open(&path).unwrap();
        let first = "CREATE TABLE things (name TEXT)";
        migrate_with(&mut connection, &path, &[first]).unwrap();
        assert!(!copy_path(&path, 1).exists());
        connection.execute("INSERT INTO things VALUES ('kept')", []).unwrap();
        // What an interrupted attempt may have left.
        std::fs::write(copy_path(&path, 2), "half a copy").unwrap();

        migrate_with(&mut connection, &path, &[first, "DELETE FROM things", "CREATE TABLE more (x)"]).unwrap();
        assert_eq!(version(&connection), 3);
        let copy = Connection::open(directory.path().join("catalog-before-2.db")).unwrap();
        assert_eq!(version(&copy), 1);
        assert_eq!(copy.query_row("SELECT name FROM things", [], |row| row.get::<_, String>(0)).unwrap(), "kept");
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        let mut connection = Connection::open(&path).unwrap();
        let first = "CREATE TABLE things (name TEXT)";
        migrate_with(&mut connection, &path, &[first]).unwrap();
        assert!(
            migrate_with(&mut connection, &path, &[first, "CREATE TABLE second (x)", "no such statement"]).is_err()
        );
        assert_eq!(version(&connection), 1);
        assert!(connection.prepare("SELECT * FROM second").is_err());
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_called_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("catalog.db");
        std::fs::write(
            &path,
            "this is a text, and long enough to be taken for a header of a database file. ".repeat(20),
        )
        .unwrap();
        assert_eq!(Catalog::open(&path).await.unwrap_err().code(), "catalog-damaged");
    }
}
