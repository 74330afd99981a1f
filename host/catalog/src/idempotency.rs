//! Table `idempotency`: first answers to requests that may come again.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{insert, one};
use crate::{Catalog, Error};

/// A key that came with a request to back up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// Who asked; others may use the same key.
    pub principal: String,
    /// The key.
    pub key: String,
    /// Digest of the request (hexadecimal): the same key with another request is refused.
    pub request_digest: String,
}

impl Catalog {
    /// Forgets answers that were given before a time; returns how many.
    pub async fn prune_idempotency(&self, before_ms: i64) -> Result<u64, Error> {
        self.write("forgetting old idempotency keys", move |db| {
            Ok(db.execute("DELETE FROM idempotency WHERE created_ms < ?1", params![before_ms])? as u64)
        })
        .await
    }
}

/// Uid of the backup that the first request with this key made.
pub(crate) fn answered(db: &Connection, key: &IdempotencyKey) -> Result<Option<String>, Fault> {
    let query = "SELECT request_digest, backup_uid FROM idempotency WHERE principal = ?1 AND key = ?2";
    match one(db, query, params![key.principal, key.key], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))? {
        Some((digest, _)) if digest != key.request_digest => Err(Error::KeyReused { key: key.key.clone() }.into()),
        found => Ok(found.map(|(_, backup_uid)| backup_uid)),
    }
}

pub(crate) fn record(db: &Connection, key: &IdempotencyKey, backup_uid: &str, now_ms: i64) -> Result<(), Fault> {
    let columns = vec![
        ("principal", key.principal.clone().into()),
        ("key", key.key.clone().into()),
        ("request_digest", key.request_digest.clone().into()),
        ("backup_uid", backup_uid.to_owned().into()),
        ("created_ms", now_ms.into()),
    ];
    insert(db, "idempotency", columns)
}
