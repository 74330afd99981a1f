//! A backup's slots (FORMAT §6, keys): the ways to its data key, each of which opens alone.

use bytes::Bytes;

use crate::envelope::seal_envelope;
use crate::format::cbor::Blob;
use crate::format::keys::{Keys, SLOT_ORGANIZATION, SLOT_RECIPIENT, Slot};
use crate::format::{Kind, path};
use crate::keyring::{Keyring, seal_for};
use crate::seal::Secret;
use crate::{BackupId, DomainId, Error};

/// Makes a generation of a backup's keys, its data key wrapped by the newest organization key and for the tenant's own recipients: its path
/// and its bytes.
pub(crate) fn seal_keys(
    keyring: &Keyring,
    domain: DomainId,
    backup: BackupId,
    generation: u64,
    data_key: &Secret,
) -> Result<(String, Bytes), Error> {
    let organization = keyring.domain(domain)?;
    let (version, wrapped) = organization.wrap(backup, data_key)?;
    let mut slots = vec![Slot {
        kind: SLOT_ORGANIZATION,
        version: Some(version),
        wrapped: Blob(wrapped),
        recipient: None,
        extra: Default::default(),
    }];
    for tenant in organization.tenants() {
        slots.push(Slot {
            kind: SLOT_RECIPIENT,
            version: None,
            wrapped: Blob(seal_for([tenant.recipient.as_str()].into_iter(), &data_key.0)?),
            recipient: Some(tenant.recipient.clone()),
            extra: Default::default(),
        });
    }
    let keys = Keys { domain, backup, generation, slots, extra: Default::default() };
    let path = path::keys(domain, backup, generation);
    let bytes = seal_envelope(Kind::Keys, &path, &keys, None, keyring);
    Ok((path, bytes))
}

/// The data key in a backup's slots.
pub(crate) fn open_keys(keyring: &Keyring, domain: DomainId, backup: BackupId, keys: &Keys) -> Result<Secret, Error> {
    let organization = keyring.domain(domain)?;
    let mut opened = keys.slots.iter().filter_map(|slot| match slot.kind {
        SLOT_ORGANIZATION => organization.unwrap(backup, slot.version?, &slot.wrapped.0),
        SLOT_RECIPIENT => keyring.open_slot(&slot.wrapped.0),
        _ => None,
    });
    opened.next().ok_or(Error::NoKey { backup })
}

/// Whether slots are those that would be made now: by the newest organization key, for the tenant's recipients of now.
pub(crate) fn is_current(keyring: &Keyring, domain: DomainId, keys: &Keys) -> Result<bool, Error> {
    let newest = keyring.newest_key_version(domain)?;
    let organization = keyring.domain(domain)?;
    let tenants = keys.slots.iter().filter(|slot| slot.kind == SLOT_RECIPIENT).map(|slot| slot.recipient.as_deref());
    let is_wrapped = |slot: &Slot| slot.kind == SLOT_ORGANIZATION && slot.version == Some(newest);
    Ok(keys.slots.iter().any(is_wrapped) && tenants.eq(organization.tenants().iter().map(|one| Some(&*one.recipient))))
}
