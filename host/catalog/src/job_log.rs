//! Table `job_log`: what jobs said. Bounded: a job that says too much is cut, and the log says so.

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{all, count, insert, integer, read_count};
use crate::{Catalog, Error, jobs};

/// Most lines that are kept of one job; the last of them says that there were more.
pub const JOB_LOG_LINES_MAX: u64 = 10_000;
/// Most bytes that are kept of one line.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// A line of a job's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRow {
    /// From 1, without gaps.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// `error`, `warn`, `info`, `debug`.
    pub level: String,
    /// What was said.
    pub message: String,
}

impl Catalog {
    /// Adds a line to a job's log, as far as there is room. Refused: [`Error::NotFound`].
    pub async fn append_log(&self, job_id: &str, at_ms: i64, level: &str, message: &str) -> Result<(), Error> {
        let (job_id, level, message) = (job_id.to_owned(), level.to_owned(), cut(message).to_owned());
        self.write("writing a job's log", move |db| {
            if jobs::by_id(db, &job_id)?.is_none() {
                return Err(Error::NotFound { what: "job", id: job_id }.into());
            }
            let sequence =
                1 + count(db, "SELECT coalesce(max(sequence), 0) FROM job_log WHERE job_id = ?1", params![job_id])?;
            match sequence {
                ..JOB_LOG_LINES_MAX => store(db, &job_id, sequence, at_ms, level, message),
                JOB_LOG_LINES_MAX => {
                    let note = "the log is full; later lines are not kept".to_owned();
                    store(db, &job_id, sequence, at_ms, "warn".to_owned(), note)
                }
                _ => Ok(()),
            }
        })
        .await
    }

    /// Lines of a job's log that follow the line `after_sequence` (0: from the beginning).
    pub async fn log_lines(&self, job_id: &str, after_sequence: u64, limit: u32) -> Result<Vec<LogRow>, Error> {
        let job_id = job_id.to_owned();
        self.read("reading a job's log", move |db| {
            let query = "SELECT * FROM job_log WHERE job_id = ?1 AND sequence > ?2 ORDER BY sequence LIMIT ?3";
            all(db, query, params![job_id, integer(after_sequence), limit], from_row)
        })
        .await
    }
}

fn cut(message: &str) -> &str {
    &message[..message.floor_char_boundary(LINE_BYTES_MAX)]
}

fn store(
    db: &Connection,
    job_id: &str,
    sequence: u64,
    at_ms: i64,
    level: String,
    message: String,
) -> Result<(), Fault> {
    let columns = vec![
        ("job_id", job_id.to_owned().into()),
        ("sequence", integer(sequence)),
        ("at_ms", at_ms.into()),
        ("level", level.into()),
        ("message", message.into()),
    ];
    insert(db, "job_log", columns)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<LogRow> {
    Ok(LogRow {
        sequence: read_count(row, "sequence")?,
        at_ms: row.get("at_ms")?,
        level: row.get("level")?,
        message: row.get("message")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{Fixture, job};

    #[tokio::test]
    async fn lines_follow_each_other() {
        let catalog = Fixture::new().await;
        catalog.enqueue_job(job("j", "verify", "pg"), 1).await.unwrap();
        for message in ["one", "two", "three"] {
            catalog.append_log("j", 5, "info", message).await.unwrap();
        }
        let lines = catalog.log_lines("j", 1, 1).await.unwrap();
        let expected = LogRow { sequence: 2, at_ms: 5, level: "info".to_owned(), message: "two".to_owned() };
        assert_eq!(lines, [expected]);
        assert_eq!(catalog.log_lines("j", 2, 10).await.unwrap().len(), 1);
        assert_eq!(catalog.append_log("k", 5, "info", "x").await.unwrap_err().code(), "not-found");
    }

    #[tokio::test]
    async fn a_job_that_says_too_much_is_cut_and_the_log_says_so() {
        let catalog = Fixture::new().await;
        catalog.enqueue_job(job("j", "verify", "pg"), 1).await.unwrap();
        let almost_full = JOB_LOG_LINES_MAX - 2;
        catalog
            .write("filling the log", move |db| {
                (1..=almost_full).try_for_each(|n| store(db, "j", n, 1, "info".to_owned(), "x".to_owned()))
            })
            .await
            .unwrap();
        for message in ["the last line", "one too many", "another"] {
            catalog.append_log("j", 5, "info", message).await.unwrap();
        }
        let lines = catalog.log_lines("j", almost_full, 10).await.unwrap();
        let messages: Vec<_> = lines.iter().map(|line| line.message.as_str()).collect();
        assert_eq!(messages, ["the last line", "the log is full; later lines are not kept"]);
        assert_eq!(lines[1].sequence, JOB_LOG_LINES_MAX);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(LINE_BYTES_MAX);
        assert_eq!(cut(&long).len(), LINE_BYTES_MAX);
        assert_eq!(cut(&format!("x{long}")).len(), LINE_BYTES_MAX - 1);
    }
}
