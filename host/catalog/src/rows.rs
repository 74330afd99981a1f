//! Between rows and structs: the one place that writes INSERT, and readers of columns that are not plain.
//!
//! Each table's file lists its columns once for writing and once for reading.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::str::FromStr;

use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OptionalExtension, Params, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Fault;

/// A row's columns with their values.
pub(crate) type Columns = Vec<(&'static str, Value)>;

/// Reads a struct from a row.
pub(crate) type FromRow<T> = fn(&Row<'_>) -> rusqlite::Result<T>;

/// Inserts a row.
pub(crate) fn insert(db: &Connection, table: &str, columns: Columns) -> Result<(), Fault> {
    execute(db, &insert_statement(table, &columns), columns)
}

/// Inserts a row, or changes the one with the same `key` in place (what refers to it stays).
pub(crate) fn put(db: &Connection, table: &str, key: &str, columns: Columns) -> Result<(), Fault> {
    let assignments: Vec<_> = columns.iter().map(|(name, _)| format!("{name} = excluded.{name}")).collect();
    let statement =
        format!("{} ON CONFLICT ({key}) DO UPDATE SET {}", insert_statement(table, &columns), assignments.join(", "));
    execute(db, &statement, columns)
}

fn insert_statement(table: &str, columns: &Columns) -> String {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), vec!["?"; names.len()].join(", "))
}

fn execute(db: &Connection, statement: &str, columns: Columns) -> Result<(), Fault> {
    db.prepare_cached(statement)?.execute(rusqlite::params_from_iter(columns.into_iter().map(|(_, value)| value)))?;
    Ok(())
}

/// All rows that a query gives.
pub(crate) fn all<T>(db: &Connection, query: &str, params: impl Params, read: FromRow<T>) -> Result<Vec<T>, Fault> {
    Ok(db.prepare_cached(query)?.query_map(params, read)?.collect::<Result<_, _>>()?)
}

/// The rows of these backups in a table that has some for each target, by backup's uid.
pub(crate) fn of_backups<T>(
    db: &Connection,
    table: &str,
    backup_uids: &[String],
    read: FromRow<T>,
    backup_uid: fn(&T) -> &String,
) -> Result<BTreeMap<String, Vec<T>>, Fault> {
    let query = format!(
        "SELECT * FROM {table} WHERE backup_uid IN (SELECT value FROM json_each(?1)) ORDER BY backup_uid, target_uid"
    );
    let mut rows = BTreeMap::<_, Vec<_>>::new();
    for row in all(db, &query, [json(&backup_uids)?], read)? {
        rows.entry(backup_uid(&row).clone()).or_default().push(row);
    }
    Ok(rows)
}

/// The one row that a query gives, if any.
pub(crate) fn one<T>(db: &Connection, query: &str, params: impl Params, read: FromRow<T>) -> Result<Option<T>, Fault> {
    Ok(db.prepare_cached(query)?.query_row(params, read).optional()?)
}

/// The number that a query gives.
pub(crate) fn count(db: &Connection, query: &str, params: impl Params) -> Result<u64, Fault> {
    Ok(db.prepare_cached(query)?.query_row(params, |row| unsigned(0, row.get(0)?))?)
}

/// An unsigned number as SQLite keeps it. Counts beyond 2^63 do not occur; a claim of more is kept as the most there is.
pub(crate) fn integer(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A value as JSON text.
pub(crate) fn json(value: &impl Serialize) -> Result<Value, Fault> {
    Ok(Value::Text(serde_json::to_string(value)?))
}

/// A value as JSON text, or NULL.
pub(crate) fn optional_json<T: Serialize>(value: Option<&T>) -> Result<Value, Fault> {
    value.map_or(Ok(Value::Null), json)
}

/// Sealed secrets as JSON text with hexadecimal values.
pub(crate) fn sealed(secrets: &BTreeMap<String, Vec<u8>>) -> Result<Value, Fault> {
    json(&hex_values::encode(secrets))
}

/// Reads a count.
pub(crate) fn read_count(row: &Row<'_>, column: &str) -> rusqlite::Result<u64> {
    unsigned(row.as_ref().column_index(column)?, row.get(column)?)
}

fn unsigned(index: usize, number: i64) -> rusqlite::Result<u64> {
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(index, number))
}

/// Reads JSON text.
pub(crate) fn read_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|e| unreadable(row, column, e))
}

/// Reads JSON text, or NULL.
pub(crate) fn read_optional_json<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| serde_json::from_str(&text).map_err(|e| unreadable(row, column, e))).transpose()
}

/// Reads sealed secrets.
pub(crate) fn read_sealed(row: &Row<'_>, column: &str) -> rusqlite::Result<BTreeMap<String, Vec<u8>>> {
    hex_values::decode(read_json(row, column)?).map_err(|e| unreadable(row, column, e))
}

/// Reads the word of an enumeration.
pub(crate) fn read_word<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    T: FromStr<Err: StdError + Send + Sync + 'static>,
{
    let word: String = row.get(column)?;
    word.parse().map_err(|e| unreadable(row, column, e))
}

fn unreadable(row: &Row<'_>, column: &str, error: impl StdError + Send + Sync + 'static) -> rusqlite::Error {
    match row.as_ref().column_index(column) {
        Ok(index) => rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error)),
        Err(unknown) => unknown,
    }
}

/// Maps of bytes in JSON: hexadecimal values.
pub(crate) mod hex_values {
    use super::BTreeMap;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Bytes = BTreeMap<String, Vec<u8>>;

    pub(crate) fn encode(map: &Bytes) -> BTreeMap<&str, String> {
        map.iter().map(|(key, value)| (key.as_str(), hex::encode(value))).collect()
    }

    pub(crate) fn decode(map: BTreeMap<String, String>) -> Result<Bytes, hex::FromHexError> {
        map.into_iter().map(|(key, value)| Ok((key, hex::decode(value)?))).collect()
    }

    pub(crate) fn serialize<S: Serializer>(map: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        encode(map).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        decode(BTreeMap::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
