//! Table `meta`: the few facts about this appliance as a whole, by key.

use rusqlite::{Connection, params};

use crate::error::Fault;
use crate::rows::{one, put};
use crate::{Catalog, Error};

impl Catalog {
    /// The value of a key.
    pub async fn meta(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        let key = key.to_owned();
        self.read("reading a fact of the appliance", move |db| get(db, &key)).await
    }

    /// Sets the value of a key.
    pub async fn set_meta(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.write("recording a fact of the appliance", move |db| {
            put(db, "meta", "key", vec![("key", key.into()), ("value", value.into())])
        })
        .await
    }

    /// Forgets a key; it is no error if it is not there.
    pub async fn remove_meta(&self, key: &str) -> Result<(), Error> {
        let key = key.to_owned();
        self.write("forgetting a fact of the appliance", move |db| {
            db.execute("DELETE FROM meta WHERE key = ?1", params![key])?;
            Ok(())
        })
        .await
    }
}

pub(crate) fn get(db: &Connection, key: &str) -> Result<Option<Vec<u8>>, Fault> {
    one(db, "SELECT value FROM meta WHERE key = ?1", params![key], |row| row.get("value"))
}

#[cfg(test)]
mod tests {
    use crate::fixtures::Fixture;

    #[tokio::test]
    async fn a_fact_is_set_replaced_and_kept() {
        let catalog = Fixture::new().await;
        assert_eq!(catalog.meta("mode").await.unwrap(), None);
        catalog.set_meta("mode", b"recovered").await.unwrap();
        catalog.set_meta("mode", b"ready").await.unwrap();
        assert_eq!(catalog.meta("mode").await.unwrap().as_deref(), Some(&b"ready"[..]));
        catalog.set_meta("writer", b"w").await.unwrap();
        let catalog = catalog.reopen().await;
        assert_eq!(catalog.meta("writer").await.unwrap().as_deref(), Some(&b"w"[..]));
        catalog.remove_meta("writer").await.unwrap();
        catalog.remove_meta("writer").await.unwrap();
        assert_eq!(catalog.meta("writer").await.unwrap(), None);
    }
}
