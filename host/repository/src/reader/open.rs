//! Opens a backup: head, keys, manifest, indexes.

use std::sync::Arc;

use futures_util::{FutureExt as _, StreamExt as _, stream};

use super::chunks::Chunks;
use super::table::Table;
use super::{BackupReader, Inner};
use crate::chunk::ChunkSecrets;
use crate::envelope::Envelope;
use crate::format::keys::Keys;
use crate::format::manifest::{BackupClear, Manifest};
use crate::format::{Kind, cbor, path};
use crate::heads::DomainState;
use crate::keyring::Keyring;
use crate::repository::Repository;
use crate::rewrap::AT_ONCE;
use crate::seal::Secret;
use crate::slots::open_keys;
use crate::tree::{Cut, Tree};
use crate::{BackupId, DomainId, Error, Malformed};

impl Repository {
    /// Opens a backup's manifest.
    ///
    /// Errors: no such backup; something that it needs is damaged or lost.
    pub async fn open_backup(&self, domain: DomainId, backup: BackupId) -> Result<BackupReader, Error> {
        let state = self.state(domain).await?;
        self.require(&state, backup)?;
        let keyring = self.inner.keyring.current();
        let (state, data_key) = match self.data_key(&keyring, &state, domain, backup).await {
            // New slots may have taken their place since the heads were read.
            Err(Error::Lost { .. }) => {
                let state = self.state(domain).await?;
                let data_key = self.data_key(&keyring, &state, domain, backup).await?;
                (state, data_key)
            }
            data_key => (state, data_key?),
        };
        let manifest = self.manifest(&keyring, &state, domain, backup, &data_key).await?;
        let index = self.index_or_footers(domain, &state).await?;
        let (level, root, bytes) = manifest.table;
        let tree =
            Tree::new(Cut::Variable, level, root.0, bytes).map_err(Error::damaged(path::manifest(domain, backup)))?;
        let (data, list, table) = manifest.secrets;
        let secrets = ChunkSecrets { data, list, table };
        let chunks = Chunks::new(self.inner.place.clone(), self.inner.pool.clone(), domain, index, secrets);
        let inner = Inner {
            document: manifest.document,
            component: manifest.component,
            chunks: Arc::new(chunks),
            table: Table::new(tree),
        };
        Ok(BackupReader { inner: Arc::new(inner) })
    }

    /// The plugins' inventories of backups, from their manifests: small objects, read side by side.
    ///
    /// Errors, one for each backup: as of [`Self::open_backup`].
    pub async fn documents(
        &self,
        domain: DomainId,
        backups: &[BackupId],
    ) -> Result<Vec<(BackupId, Result<String, Error>)>, Error> {
        let (state, keyring) = (self.state(domain).await?, self.inner.keyring.current());
        let reads = backups.iter().map(|backup| {
            let read = self.document(&keyring, &state, domain, *backup);
            read.map(|document| (*backup, document)).boxed()
        });
        Ok(stream::iter(reads.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await)
    }

    async fn document(
        &self,
        keyring: &Keyring,
        state: &DomainState,
        domain: DomainId,
        backup: BackupId,
    ) -> Result<String, Error> {
        self.require(state, backup)?;
        let data_key = self.data_key(keyring, state, domain, backup).await?;
        Ok(self.manifest(keyring, state, domain, backup, &data_key).await?.document)
    }

    /// An object of a backup, as its head named it.
    pub(crate) async fn object<C: cbor::Value>(
        &self,
        keyring: &Keyring,
        state: &DomainState,
        kind: Kind,
        path: &str,
    ) -> Result<Envelope<C>, Error> {
        let lost = || Error::Lost { path: path.to_owned(), location: self.location() };
        let (_, digest) = state.object(path).ok_or_else(lost)?;
        let bytes = self.inner.place.committed(path, digest).await?;
        Envelope::open(kind, path, bytes, keyring)
    }

    async fn data_key(
        &self,
        keyring: &Keyring,
        state: &DomainState,
        domain: DomainId,
        backup: BackupId,
    ) -> Result<Secret, Error> {
        let generation = state.backups.get(&backup).map_or(0, |live| live.keys);
        let path = path::keys(domain, backup, generation);
        let keys = self.object::<Keys>(keyring, state, Kind::Keys, &path).await?.clear;
        open_keys(keyring, domain, backup, &keys)
    }

    async fn manifest(
        &self,
        keyring: &Keyring,
        state: &DomainState,
        domain: DomainId,
        backup: BackupId,
        data_key: &Secret,
    ) -> Result<Manifest, Error> {
        let path = path::manifest(domain, backup);
        let envelope = self.object::<BackupClear>(keyring, state, Kind::Manifest, &path).await?;
        let plaintext = envelope.unseal(data_key)?;
        let manifest: Manifest = cbor::decode(&plaintext).map_err(envelope.damaged())?;
        if (manifest.domain, manifest.backup) == (domain, backup) {
            Ok(manifest)
        } else {
            Err(envelope.damaged()(Malformed("it is of another backup")))
        }
    }
}
