//! What lies at a target's root: which repository it is, and the keyring for its recipients. Both are made again from the keyring at hand.

use super::Damage;
use crate::format::path;
use crate::keyring::sealed_of;
use crate::layout::RepositoryFile;
use crate::repository::Repository;
use crate::{DomainId, Error};

/// Of no domain.
const NONE: DomainId = DomainId([0; 16]);

impl Repository {
    /// Damages of `repository.json` and of the present keyring, once that was written here.
    ///
    /// Errors: the target does not answer.
    pub async fn check_root(&self) -> Result<Vec<Damage>, Error> {
        let keyring = self.inner.keyring.current();
        let mut damages = Vec::new();
        if let Err(error) = self.must_be_here().await {
            damages.push(self.finding(NONE, path::REPOSITORY, error).await?);
        }
        let generation = keyring.generation();
        let pair = [path::keyring(generation), path::keyring_signature(generation)];
        let mut is_published = false;
        for path in &pair {
            is_published |= self.inner.place.length(path).await?.is_some();
        }
        for domain in keyring.domains() {
            is_published |= self.state(domain).await?.keyring >= generation;
        }
        let wants = is_published && !keyring.recipients().is_empty();
        if wants && sealed_of(&self.inner.place, &keyring, generation).await?.is_none() {
            let lost = Error::Lost { path: pair[0].clone(), location: self.location() };
            damages.push(Damage::of(NONE, &pair[0], &lost));
        }
        Ok(damages)
    }

    /// Writes both again where they are damaged. Their paths.
    pub async fn heal_root(&self, damages: &[Damage]) -> Result<Vec<String>, Error> {
        self.writable()?;
        let repository = self.inner.keyring.current().repository();
        for damage in damages {
            if damage.path == path::REPOSITORY {
                self.inner.place.put(path::REPOSITORY, RepositoryFile::text(repository).into()).await?;
            } else {
                self.publish_keyring().await?;
            }
        }
        Ok(damages.iter().map(|damage| damage.path.clone()).collect())
    }
}
