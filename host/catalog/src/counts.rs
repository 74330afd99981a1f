//! Figures over whole tables, for the status page.

use crate::rows::count;
use crate::{Catalog, Error};

/// How much the catalog knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Live instances.
    pub instances: u64,
    /// Backups that succeeded.
    pub backups: u64,
}

impl Catalog {
    /// Counts live instances and backups that succeeded.
    pub async fn counts(&self) -> Result<Counts, Error> {
        self.read("counting instances and backups", |db| {
            Ok(Counts {
                instances: count(db, "SELECT count(*) FROM instances WHERE removed_ms IS NULL", [])?,
                backups: count(db, "SELECT count(*) FROM backups WHERE state = 'Succeeded'", [])?,
            })
        })
        .await
    }
}
