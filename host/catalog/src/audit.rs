//! Table `audit`: who did what. Rows are only ever added.

use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use crate::page::rows_to_read;
use crate::rows::{all, insert, read_count};
use crate::{Catalog, Error, Page};

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Grows by one or more from row to row.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Name of the principal.
    pub who: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub subject: String,
    /// Anything else worth knowing; may be empty.
    pub detail: String,
}

impl Catalog {
    /// Records that something was done.
    pub async fn audit(&self, at_ms: i64, who: &str, action: &str, subject: &str, detail: &str) -> Result<(), Error> {
        let [who, action, subject, detail] = [who, action, subject, detail].map(str::to_owned);
        self.write("recording an audit row", move |db| {
            let columns = vec![
                ("at_ms", at_ms.into()),
                ("who", who.into()),
                ("action", action.into()),
                ("subject", subject.into()),
                ("detail", detail.into()),
            ];
            insert(db, "audit", columns)
        })
        .await
    }

    /// What was done, newest first.
    pub async fn list_audit(&self, after: Option<&str>, limit: u32) -> Result<Page<AuditRow>, Error> {
        let before: i64 = match after {
            None => i64::MAX,
            Some(cursor) => cursor.parse().map_err(|_| Error::BadCursor(cursor.to_owned()))?,
        };
        self.read("listing audit rows", move |db| {
            let query = "SELECT * FROM audit WHERE sequence < ?1 ORDER BY sequence DESC LIMIT ?2";
            let rows = all(db, query, params![before, rows_to_read(limit)], from_row)?;
            Ok(Page::of(rows, limit, |row| row.sequence.to_string()))
        })
        .await
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        sequence: read_count(row, "sequence")?,
        at_ms: row.get("at_ms")?,
        who: row.get("who")?,
        action: row.get("action")?,
        subject: row.get("subject")?,
        detail: row.get("detail")?,
    })
}

#[cfg(test)]
mod tests {
    use crate::fixtures::Fixture;

    #[tokio::test]
    async fn rows_come_newest_first_page_by_page() {
        let catalog = Fixture::new().await;
        for at in 0..5 {
            catalog.audit(at, "admin", "instance.add", "acme/shop/pg", "").await.unwrap();
        }
        let mut seen = Vec::new();
        let mut after = None;
        loop {
            let page = catalog.list_audit(after.as_deref(), 2).await.unwrap();
            seen.extend(page.items.iter().map(|row| row.at_ms));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, [4, 3, 2, 1, 0]);
        assert_eq!(catalog.list_audit(Some("yesterday"), 2).await.unwrap_err().code(), "bad-cursor");
    }
}
