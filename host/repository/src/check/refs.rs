//! The second opinion on what lives: a walk through manifests, tables and lists, compared with the refs by which prune and replication go.

use std::collections::HashSet;

use super::Damage;
use crate::chunk::ChunkId;
use crate::format::path;
use crate::repository::Repository;
use crate::{BackupId, DomainId, Error};

/// How the refs of a backup differ from what its manifest reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The backup.
    pub backup: BackupId,
    /// Chunks that its trees name and its refs do not: a prune would not know that they live.
    pub missing: u64,
    /// Chunks that its refs name and that nothing reaches: those of entries that were begun anew, and bases of deltas that
    /// were stored whole by somebody else meanwhile. They are kept in vain.
    pub idle: u64,
}

impl Repository {
    /// Compares refs with trees, for all live backups of a domain. Needs their data keys; reads lists and tables, of data nothing.
    /// `progress` is told (done, total) backups.
    ///
    /// Errors: a backup that cannot be read, or a target that does not answer.
    pub async fn compare_refs(
        &self,
        domain: DomainId,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Vec<Difference>, Error> {
        let state = self.state(domain).await?;
        let (mut differences, total) = (Vec::new(), state.backups.len() as u64);
        for (backup, done) in state.backups.keys().zip(0..) {
            progress(done, total);
            differences.extend(self.compare_refs_of(domain, *backup).await?);
        }
        Ok(differences)
    }

    /// The same as findings of a check. What cannot be read is passed over: other steps find it.
    pub async fn check_refs(
        &self,
        domain: DomainId,
        progress: &(dyn Fn(u64, u64) + Send + Sync),
    ) -> Result<Vec<Damage>, Error> {
        let state = self.state(domain).await?;
        let (mut damages, total) = (Vec::new(), state.backups.len() as u64);
        for (backup, done) in state.backups.keys().zip(0..) {
            progress(done, total);
            match self.compare_refs_of(domain, *backup).await {
                Ok(difference) => {
                    damages.extend(difference.filter(|it| it.missing > 0).map(|it| incomplete(domain, it)))
                }
                Err(error) => self.finding(domain, "", error).await.map(drop)?,
            }
        }
        Ok(damages)
    }

    async fn compare_refs_of(&self, domain: DomainId, backup: BackupId) -> Result<Option<Difference>, Error> {
        let state = self.state(domain).await?;
        let named: HashSet<ChunkId> = self.chunks_of(&state, domain, backup).await?.into_iter().collect();
        let reached = self.open_backup(domain, backup).await?.reached().await?;
        let table = self.index_or_footers(domain, &state).await?;
        let mut bases = HashSet::new();
        for id in &reached {
            // What cannot be found is lost, whatever refs say; the rest of the check tells of it.
            let chain = table.known_chain(id)?.unwrap_or_default();
            bases.extend(chain.iter().filter_map(|location| location.base));
        }
        // Bases may be others than the writer's, where another one stored the chunk too; prune and copies find them by the index.
        let missing = reached.difference(&named).count() as u64;
        let idle = named.iter().filter(|id| !reached.contains(*id) && !bases.contains(*id)).count() as u64;
        Ok((missing + idle > 0).then_some(Difference { backup, missing, idle }))
    }
}

fn incomplete(domain: DomainId, difference: Difference) -> Damage {
    let Difference { backup, missing, .. } = difference;
    Damage {
        path: path::refs(domain, backup, 0),
        code: "incomplete-refs".into(),
        detail: format!("the refs of backup {backup} do not name {missing} of the chunks that it needs"),
        pack: None,
    }
}
