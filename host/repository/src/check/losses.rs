//! The exact list of what is lost: a walk through the backups that a damage may touch, which reads no more than tables, lists, and what lies
//! in damaged packs.

use std::collections::HashSet;

use super::{Damage, Loss};
use crate::format::path;
use crate::heads::DomainState;
use crate::index::{IndexTable, Location};
use crate::repository::Repository;
use crate::{BackupId, Digest, DomainId, Error};

impl Repository {
    /// Which bytes of which live backups cannot be read at this target, given all damages that a check found.
    ///
    /// Errors: a target that does not answer.
    pub async fn losses(&self, domain: DomainId, damages: &[Damage]) -> Result<Vec<Loss>, Error> {
        let state = self.state(domain).await?;
        let suspects: HashSet<Digest> = damages.iter().filter_map(|damage| damage.pack).collect();
        let damaged: HashSet<&str> = damages.iter().map(|damage| damage.path.as_str()).collect();
        let index = self.index_or_footers(domain, &state).await?;
        let mut losses = Vec::new();
        for backup in state.backups.keys() {
            if self.is_touched(domain, &state, &index, *backup, &suspects, &damaged).await? {
                losses.extend(self.losses_of(domain, &state, *backup, &suspects).await?);
            }
        }
        Ok(losses)
    }

    /// Whether a damage may cost this backup anything: by its own objects, or by its refs.
    async fn is_touched(
        &self,
        domain: DomainId,
        state: &DomainState,
        index: &IndexTable,
        backup: BackupId,
        suspects: &HashSet<Digest>,
        damaged: &HashSet<&str>,
    ) -> Result<bool, Error> {
        let own = path::backup(domain, backup);
        if damaged.iter().any(|path| path.starts_with(&own)) {
            return Ok(true);
        }
        let ids = match self.chunks_of(state, domain, backup).await {
            Ok(ids) => ids,
            Err(error) => return self.finding(domain, &own, error).await.map(|_| true),
        };
        let is_suspect = |chain: Vec<Location>| chain.iter().any(|location| suspects.contains(&location.pack));
        for id in &ids {
            if index.known_chain(id)?.is_none_or(is_suspect) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn losses_of(
        &self,
        domain: DomainId,
        state: &DomainState,
        backup: BackupId,
        suspects: &HashSet<Digest>,
    ) -> Result<Vec<Loss>, Error> {
        let reader = match self.open_backup(domain, backup).await {
            Ok(reader) => reader,
            Err(error) => {
                self.finding(domain, "", error).await?;
                let bytes = state.records.get(&backup).map_or(0, |stored| stored.record.logical_bytes);
                return Ok(vec![Loss { backup, entry: None, start: 0, end: bytes }]);
            }
        };
        let lost = reader.lost(suspects).await?;
        Ok(lost.into_iter().map(|(entry, range)| Loss { backup, entry, start: range.start, end: range.end }).collect())
    }
}
