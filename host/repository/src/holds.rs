//! Holds: a person's pins on backups, kept in the heads of every target, so that no catalog that is lost, old or another's lets one go.

use std::collections::BTreeMap;

use crate::format::directory::StoredRecord;
use crate::heads::{Change, DomainState};
use crate::repository::Repository;
use crate::{BackupId, DomainId, Error, Hold};

impl Repository {
    /// Makes these the holds of a backup, all of them. It is no error if the backup is not here (any more).
    pub async fn set_holds(&self, domain: DomainId, backup: BackupId, holds: Vec<Hold>) -> Result<(), Error> {
        self.commit(domain, |state| {
            let held = state.records.get(&backup).filter(|stored| stored.holds != holds);
            let changed = held.map(|stored| StoredRecord { holds: holds.clone(), ..StoredRecord::clone(stored) });
            Ok(changed.map(|record| Change { records: vec![record], ..Change::default() }))
        })
        .await
    }

    /// The backups that are held, and by what.
    pub async fn holds(&self, domain: DomainId) -> Result<BTreeMap<BackupId, Vec<Hold>>, Error> {
        let state = self.state(domain).await?;
        let held = state.records.iter().filter(|(_, stored)| !stored.holds.is_empty());
        Ok(held.map(|(backup, stored)| (*backup, stored.holds.clone())).collect())
    }
}

/// Refuses to let a backup go that somebody holds.
pub(crate) fn must_not_be_held(state: &DomainState, backup: BackupId) -> Result<(), Error> {
    match state.records.get(&backup).and_then(|stored| stored.holds.first()) {
        Some(hold) => Err(Error::Held { backup, name: hold.name.clone(), reason: hold.reason.clone() }),
        None => Ok(()),
    }
}
