//! Table `tokens`: who may ask. Only hashes of random tokens are here; comparing them is the caller's, in constant time.

use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};

use crate::error::Fault;
use crate::rows::{Columns, all, insert, one};
use crate::{Catalog, Error};

/// A bearer token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Whose it is.
    pub name: String,
    /// Hash of the token.
    pub hash: [u8; 32],
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// When it was last shown to be used.
    pub last_used_ms: Option<i64>,
}

impl Catalog {
    /// Adds a token. Refused: [`Error::TokenExists`].
    pub async fn insert_token(&self, name: &str, hash: [u8; 32], now_ms: i64) -> Result<(), Error> {
        let row = TokenRow { name: name.to_owned(), hash, created_ms: now_ms, last_used_ms: None };
        self.write("recording a token", move |db| {
            if one(db, "SELECT * FROM tokens WHERE name = ?1", params![row.name], from_row)?.is_some() {
                return Err(Error::TokenExists { name: row.name }.into());
            }
            store(db, &row)
        })
        .await
    }

    /// All tokens, by name.
    pub async fn tokens(&self) -> Result<Vec<TokenRow>, Error> {
        self.read("reading the tokens", every).await
    }

    /// Records that a token was used.
    pub async fn token_used(&self, name: &str, now_ms: i64) -> Result<(), Error> {
        let name = name.to_owned();
        self.write("recording the use of a token", move |db| {
            db.execute("UPDATE tokens SET last_used_ms = ?2 WHERE name = ?1", params![name, now_ms])?;
            Ok(())
        })
        .await
    }

    /// Removes a token; false if there was none.
    pub async fn revoke_token(&self, name: &str) -> Result<bool, Error> {
        let name = name.to_owned();
        self.write("revoking a token", move |db| {
            Ok(db.execute("DELETE FROM tokens WHERE name = ?1", params![name])? > 0)
        })
        .await
    }
}

pub(crate) fn every(db: &Connection) -> Result<Vec<TokenRow>, Fault> {
    all(db, "SELECT * FROM tokens ORDER BY name", [], from_row)
}

pub(crate) fn store(db: &Connection, row: &TokenRow) -> Result<(), Fault> {
    insert(db, "tokens", columns(row))
}

fn columns(row: &TokenRow) -> Columns {
    vec![
        ("name", row.name.clone().into()),
        ("hash", row.hash.to_vec().into()),
        ("created_ms", row.created_ms.into()),
        ("last_used_ms", row.last_used_ms.into()),
    ]
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<TokenRow> {
    Ok(TokenRow {
        name: row.get("name")?,
        hash: row.get("hash")?,
        created_ms: row.get("created_ms")?,
        last_used_ms: row.get("last_used_ms")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Fixture;

    #[tokio::test]
    async fn a_token_is_added_once_used_and_revoked() {
        let catalog = Fixture::new().await;
        catalog.insert_token("admin", [7; 32], 10).await.unwrap();
        let error = catalog.insert_token("admin", [8; 32], 11).await.unwrap_err();
        assert!(matches!(error, Error::TokenExists { .. }), "{error}");
        catalog.token_used("admin", 20).await.unwrap();
        let expected = TokenRow { name: "admin".to_owned(), hash: [7; 32], created_ms: 10, last_used_ms: Some(20) };
        assert_eq!(catalog.tokens().await.unwrap(), [expected]);
        assert!(catalog.revoke_token("admin").await.unwrap());
        assert!(!catalog.revoke_token("admin").await.unwrap());
        assert_eq!(catalog.tokens().await.unwrap(), []);
    }
}
