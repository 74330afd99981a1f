//! A tenant's own way to its backups: an identity that opens no keyring, but slots. What it opens is enough to read, and signs nothing.
//!
//! The signatures of keyrings are public and lead from the kit's pin to the verify keys; a slot gives a data key, its manifest the
//! domain's secrets. Nothing is believed before its signature fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::stored::{Former, ORGANIZATION, StoredDomain, StoredKeyring};
use super::{Keyring, RecoveryKit, VerifyKey};
use crate::envelope::Envelope;
use crate::format::cbor::Value;
use crate::format::keys::Keys;
use crate::format::manifest::{BackupClear, Manifest};
use crate::format::{Kind, cbor, path};
use crate::place::Place;
use crate::seal::Secret;
use crate::{BackupId, DomainId, Error, RepositoryId};

/// Backups of a domain that are tried: whoever has a slot in one has it in all, but for those that a rotation has not reached.
const TRIED: usize = 64;

/// What a published keyring's signature vouches for.
pub(super) struct Vouched {
    pub(super) repository: RepositoryId,
    pub(super) generation: u64,
    pub(super) verify_key: [u8; 32],
    pub(super) former: Vec<Former>,
}

/// A keyring of the domains whose slots this kit opens; `None` if it opens none.
pub(super) async fn recover(place: &Place, kit: &RecoveryKit, of: Vouched) -> Result<Option<Keyring>, Error> {
    let mut keyring = without_domains(kit, of);
    for (domain, backups) in backups_by_domain(place).await? {
        for (backup, generation) in backups.into_iter().rev().take(TRIED) {
            match opened_domain(place, &keyring, domain, backup, generation).await {
                Ok(opened) => {
                    keyring.stored.domains.push(opened);
                    break;
                }
                Err(error @ Error::Storage(_)) if !error.is_not_found() => return Err(error),
                // Another organization's, or damaged: the next one may do.
                Err(_) => {}
            }
        }
    }
    Ok((!keyring.stored.domains.is_empty()).then_some(keyring))
}

fn without_domains(kit: &RecoveryKit, of: Vouched) -> Keyring {
    let stored = StoredKeyring {
        repository: of.repository,
        generation: of.generation,
        // Nothing is signed or sealed with what a tenant opens.
        signing: Secret::random(),
        former: of.former,
        domains: Vec::new(),
        catalog: Secret::random(),
        recipients: Vec::new(),
        extra: Default::default(),
    };
    Keyring { stored, verify_key: VerifyKey(of.verify_key), tenant: Some(Arc::new(kit.clone())) }
}

/// Every backup's newest slots, those among them that somebody deleted at a place that keeps versions.
async fn backups_by_domain(place: &Place) -> Result<BTreeMap<DomainId, BTreeMap<BackupId, u64>>, Error> {
    let mut found: BTreeMap<DomainId, BTreeMap<BackupId, u64>> = BTreeMap::new();
    for path in place.paths_ever(path::DOMAINS).await? {
        let id = path.strip_prefix(path::DOMAINS).and_then(|path| path.split('/').next());
        let Some(domain) = id.and_then(|id| id.parse().ok()) else { continue };
        if let Some((backup, generation)) = path::keys_generation(domain, &path) {
            let newest = found.entry(domain).or_default().entry(backup).or_default();
            *newest = generation.max(*newest);
        }
    }
    Ok(found)
}

/// The secrets of a domain, as the manifest of one of its backups has them.
async fn opened_domain(
    place: &Place,
    keyring: &Keyring,
    id: DomainId,
    backup: BackupId,
    generation: u64,
) -> Result<StoredDomain, Error> {
    let keys: Envelope<Keys> = signed(place, keyring, Kind::Keys, path::keys(id, backup, generation)).await?;
    let mut opened = keys.clear.slots.iter().filter_map(|slot| keyring.open_slot(&slot.wrapped.0));
    let data_key = opened.next().ok_or(Error::NoKey { backup })?;
    let envelope: Envelope<BackupClear> = signed(place, keyring, Kind::Manifest, path::manifest(id, backup)).await?;
    let manifest: Manifest = cbor::decode(&envelope.unseal(&data_key)?).map_err(envelope.damaged())?;
    let (data, list, table) = manifest.secrets;
    Ok(StoredDomain {
        id,
        kind: ORGANIZATION,
        organization: None,
        data,
        list,
        table,
        index: manifest.index_key,
        chunker_seed: 0,
        organization_keys: Vec::new(),
        tenants: None,
        extra: Default::default(),
    })
}

/// An object in the newest version that this repository signed.
async fn signed<C: Value>(place: &Place, keyring: &Keyring, kind: Kind, path: String) -> Result<Envelope<C>, Error> {
    let open = |bytes: &Bytes| Envelope::open(kind, &path, bytes.clone(), keyring);
    let found = place.find_genuine(&path, |bytes| open(bytes).is_ok()).await?;
    let bytes = found.ok_or_else(|| Error::Lost { path: path.clone(), location: place.location() })?;
    open(&bytes)
}
