//! Healing: what is damaged here and whole elsewhere is brought back; what can be made again is made again; and what is lost everywhere is told of.
//!
//! A whole object comes back as it was from any target that has it: no key is needed. An index that is nowhere else is made again from what packs say of
//! themselves, refs from the trees of their backup. What a pack held that is nowhere whole is mended chunk by chunk.
//!
//! Invariant: a damaged object is never made worse, and nothing that is intact is given up. Safe beside writers, and to run again.

use std::collections::BTreeSet;

use super::{Damage, LOST_CHUNK};
use crate::format::path;
use crate::heads::DomainState;
use crate::prune::Mended;
use crate::repository::Repository;
use crate::{Digest, DomainId, Error};

/// What [`Repository::heal`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healed {
    /// Paths of objects that are whole again, or were made again.
    pub paths: Vec<String>,
    /// Bytes that were put back.
    pub bytes: u64,
    /// What was done chunk by chunk.
    pub mended: Mended,
    /// What could not be mended.
    pub left: Vec<Damage>,
}

impl Repository {
    /// Heals what a check found damaged here from other targets, as far as they have it, and from what is intact here.
    ///
    /// Errors: this target does not take writes, does not answer, or has no room. A source that does not answer heals nothing.
    pub async fn heal(&self, domain: DomainId, sources: &[Self], mut damages: Vec<Damage>) -> Result<Healed, Error> {
        self.writable()?;
        let mut healed = Healed::default();
        damages = self.heal_heads(domain, damages, &mut healed).await?;
        for source in sources {
            damages = self.heal_whole(domain, source, damages, &mut healed).await?;
        }
        damages = self.remake_indexes(domain, damages, &mut healed).await?;
        damages = self.remake_lost_refs(domain, sources, damages, &mut healed).await?;
        let packs: BTreeSet<Digest> = damages.iter().filter_map(|damage| damage.pack).collect();
        if !packs.is_empty() || damages.iter().any(|damage| damage.code == LOST_CHUNK) {
            healed.mended = self.mend(domain, sources, packs).await?;
            damages.retain(|damage| damage.pack.is_none());
            if healed.mended.lost > 0 {
                self.forget_idle_refs(domain, sources).await?;
            }
        }
        healed.left = damages;
        Ok(healed)
    }

    /// Puts objects back that a source has as they were committed here; gives those that it has not.
    async fn heal_whole(
        &self,
        domain: DomainId,
        source: &Self,
        damages: Vec<Damage>,
        healed: &mut Healed,
    ) -> Result<Vec<Damage>, Error> {
        let state = self.state(domain).await?;
        let mut left = Vec::new();
        for damage in damages {
            match self.heal_one(domain, &state, source, &damage).await? {
                Some(bytes) => {
                    healed.bytes += bytes;
                    healed.paths.push(damage.path);
                }
                None => left.push(damage),
            }
        }
        Ok(left)
    }

    async fn heal_one(
        &self,
        domain: DomainId,
        state: &DomainState,
        source: &Self,
        damage: &Damage,
    ) -> Result<Option<u64>, Error> {
        // A finding that names an object because of what is missing elsewhere is no damage of that object.
        let Some(digest) = state.digest_of(domain, &damage.path).filter(|_| damage.code != LOST_CHUNK) else {
            return Ok(None);
        };
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
        let pack = path::pack_digest(domain, path).filter(|pack| self.is_live(pack));
        let index = path::index_digest(domain, path).filter(|index| self.is_index_live(index));
        pack.or(index).or_else(|| self.object(path).map(|(_, digest)| digest))
    }
}
