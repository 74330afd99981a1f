//! Healing whole objects: another target has the same bytes under the same name, so they are put back as they were. No key is needed.

use super::Damage;
use crate::heads::DomainState;
use crate::repository::Repository;
use crate::{Digest, DomainId, Error};

/// What [`Repository::heal`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// Paths of objects that are whole again.
    pub paths: Vec<String>,
    /// Bytes that were put back.
    pub bytes: u64,
    /// What the source could not mend.
    pub left: Vec<Damage>,
}

impl Repository {
    /// Puts objects back that a check found damaged here, from a target that has them as they were committed. What cannot be had there stays
    /// as it is: a damaged object is never made worse.
    ///
    /// Errors: this target does not take writes. A source that does not answer heals nothing.
    pub async fn heal(&self, domain: DomainId, source: &Repository, damages: Vec<Damage>) -> Result<Healed, Error> {
        self.writable()?;
        let state = self.state(domain).await?;
        let mut healed = Healed::default();
        for damage in damages {
            match self.heal_one(domain, &state, source, &damage).await? {
                Some(bytes) => {
                    healed.bytes += bytes;
                    healed.paths.push(damage.path);
                }
                None => healed.left.push(damage),
            }
        }
        Ok(healed)
    }

    async fn heal_one(
        &self,
        domain: DomainId,
        state: &DomainState,
        source: &Repository,
        damage: &Damage,
    ) -> Result<Option<u64>, Error> {
        let Some(digest) = state.digest_of(domain, &damage.path) else { return Ok(None) };
        match source.inner.place.committed(&damage.path, digest).await {
            Ok(bytes) => {
                let length = bytes.len() as u64;
                self.inner.place.put(&damage.path, bytes).await?;
                Ok(Some(length))
            }
            Err(error) => {
                tracing::info!(path = %damage.path, source = %source.location(), %error, "cannot heal from here");
                Ok(None)
            }
        }
    }
}

impl DomainState {
    /// The digest by which a present object was committed.
    fn digest_of(&self, domain: DomainId, path: &str) -> Option<Digest> {
        use crate::format::path;
        let pack = path::pack_digest(domain, path).filter(|pack| self.is_live(pack));
        let index = path::index_digest(domain, path).filter(|index| self.is_index_live(index));
        pack.or(index).or_else(|| self.object(path).map(|(_, digest)| digest))
    }
}
