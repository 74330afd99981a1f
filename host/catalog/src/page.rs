//! Pages of lists: as many items as asked for, and the cursor of the page that follows.

use crate::Error;
use crate::error::Fault;

/// A page. Following `next` until it is absent shows every item that is there all the while, each once.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// At most as many as asked for.
    pub items: Vec<T>,
    /// Cursor of the following page; absent after the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of `limit` items from what was read: up to one more than `limit`, which tells that there is another page.
    pub(crate) fn of(mut items: Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Self {
        let limit = limit.max(1) as usize;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

/// How many rows to read for a page of `limit` items.
pub(crate) fn rows_to_read(limit: u32) -> i64 {
    i64::from(limit.max(1)) + 1
}

/// Place in a list that is ordered by time and id, newest first.
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) ms: i64,
    pub(crate) id: String,
}

impl Moment {
    pub(crate) fn cursor(ms: i64, id: &str) -> String {
        format!("{ms}.{id}")
    }

    /// Reads a cursor; before the first page every row is still to come.
    pub(crate) fn parse(cursor: Option<&str>) -> Result<Self, Fault> {
        let Some(cursor) = cursor else {
            return Ok(Self { ms: i64::MAX, id: String::new() });
        };
        cursor
            .split_once('.')
            .and_then(|(ms, id)| Some(Self { ms: ms.parse().ok()?, id: id.to_owned() }))
            .ok_or_else(|| Error::BadCursor(cursor.to_owned()).into())
    }
}
