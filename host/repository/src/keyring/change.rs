//! What makes a next generation of the keyring: domains, recipients, new keys, and keys destroyed.
//!
//! A generation is never changed. Former organization keys stay in it: slots at a target that is away are still wrapped by them.

use super::kit;
use super::stored::{ORGANIZATION, StoredDomain, StoredKeyring, StoredRecipient};
use super::{Keyring, new_domain};
use crate::seal::{self, Secret};
use crate::{DomainId, Error, RepositoryId};

impl Keyring {
    fn next(&self, change: impl FnOnce(&mut StoredKeyring)) -> Self {
        let mut stored = self.stored.clone();
        stored.generation += 1;
        change(&mut stored);
        Self::from_stored(stored)
    }

    /// A next generation with a domain for this organization.
    pub fn with_domain(&self, organization: &str) -> Self {
        self.next(|stored| stored.domains.push(new_domain(ORGANIZATION, Some(organization.to_owned()))))
    }

    /// A next generation without a domain: its keys and secrets are destroyed with the last copy of the generations before.
    pub fn without_domain(&self, domain: DomainId) -> Self {
        self.next(|stored| stored.domains.retain(|one| one.id != domain))
    }

    /// A next generation with one more recovery recipient (`age1...`). Errors: not an age recipient, name in use.
    pub fn with_recipient(&self, name: &str, recipient: &str, now_ms: u64) -> Result<Self, Error> {
        let recipient = new_recipient(&self.stored.recipients, name, recipient, now_ms)?;
        Ok(self.next(|stored| stored.recipients.push(recipient)))
    }

    /// A next generation without a recovery recipient, and with new organization keys in every domain, which that recipient never saw.
    ///
    /// Errors: there is no such recipient; it is the last one, without whom nobody could recover.
    pub fn without_recipient(&self, name: &str) -> Result<Self, Error> {
        let unknown = || Error::NoSuchRecipient { name: name.to_owned() };
        let position = self.stored.recipients.iter().position(|one| one.name == name).ok_or_else(unknown)?;
        if self.stored.recipients.len() == 1 {
            return Err(Error::LastRecipient { name: name.to_owned() });
        }
        Ok(self.next(|stored| {
            stored.recipients.remove(position);
            stored.domains.iter_mut().for_each(renew_organization_key);
        }))
    }

    /// A next generation with one more recipient of a tenant's own. Errors: as of [`Self::with_recipient`]; an unknown domain.
    pub fn with_tenant(&self, domain: DomainId, name: &str, recipient: &str, now_ms: u64) -> Result<Self, Error> {
        let recipient = new_recipient(self.domain(domain)?.tenants(), name, recipient, now_ms)?;
        Ok(self.next(|stored| {
            let domains = stored.domains.iter_mut().filter(|one| one.id == domain);
            domains.for_each(|one| one.tenants.get_or_insert_default().push(recipient.clone()));
        }))
    }

    /// A next generation without a recipient of a tenant's own: backups made from then on have no slot for them.
    pub fn without_tenant(&self, domain: DomainId, name: &str) -> Result<Self, Error> {
        if !self.domain(domain)?.tenants().iter().any(|one| one.name == name) {
            return Err(Error::NoSuchRecipient { name: name.to_owned() });
        }
        Ok(self.next(|stored| {
            for tenants in stored.domains.iter_mut().filter(|one| one.id == domain).map(|one| &mut one.tenants) {
                tenants.as_mut().into_iter().for_each(|tenants| tenants.retain(|one| one.name != name));
                *tenants = tenants.take().filter(|left| !left.is_empty());
            }
        }))
    }

    /// A next generation with a new version of the organization key in these domains.
    pub fn with_new_organization_keys(&self, domains: &[DomainId]) -> Self {
        self.next(|stored| {
            stored.domains.iter_mut().filter(|one| domains.contains(&one.id)).for_each(renew_organization_key);
        })
    }

    /// A next generation with a new signing key, signed by the one before: a kit that pins an earlier one leads to it.
    pub fn with_new_signing_key(&self) -> Self {
        self.next(|stored| {
            let next = Secret::random();
            let message = next_key_message(stored.repository, &seal::verify_key(&next));
            stored.former.push((self.verify_key.0, seal::sign(&stored.signing, &message)));
            stored.signing = next;
        })
    }
}

/// What a verify key signs of the one after it.
pub(super) fn next_key_message(repository: RepositoryId, next: &[u8; 32]) -> Vec<u8> {
    [&b"holdfast v1 next key"[..], &repository.0, next].concat()
}

fn renew_organization_key(domain: &mut StoredDomain) {
    let newest = domain.organization_keys.iter().map(|(version, _)| *version).max().unwrap_or(0);
    domain.organization_keys.push((newest + 1, Secret::random()));
}

/// A recipient beside others, checked.
fn new_recipient(
    others: &[StoredRecipient],
    name: &str,
    recipient: &str,
    now_ms: u64,
) -> Result<StoredRecipient, Error> {
    let recipient = recipient.trim();
    kit::parse_recipient(recipient)?;
    if others.iter().any(|other| other.name == name) {
        return Err(Error::NameInUse { name: name.to_owned() });
    }
    Ok(StoredRecipient {
        name: name.to_owned(),
        recipient: recipient.to_owned(),
        added_ms: now_ms,
        extra: Default::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Signer as _, Verifier as _};
    use crate::{BackupId, RecoveryKit};

    #[test]
    fn recipients_are_checked_and_named_once() {
        let keyring = Keyring::generate();
        let public = RecoveryKit::generate().recipient();
        let next = keyring.with_recipient("alice", &public, 5).unwrap();
        assert_eq!(next.recipients(), [("alice".to_owned(), public.clone(), 5)]);
        assert_eq!(next.generation(), 2);
        assert_eq!(next.with_recipient("alice", &public, 6).unwrap_err().code(), "name-in-use");
        assert_eq!(keyring.with_recipient("bob", "age1nope", 6).unwrap_err().code(), "invalid-recipient");
    }

    #[test]
    fn who_is_removed_never_saw_the_new_organization_keys() {
        let [alice, bob] = [RecoveryKit::generate(), RecoveryKit::generate()];
        let before = Keyring::generate().with_domain("acme").with_recipient("alice", &alice.recipient(), 1).unwrap();
        assert_eq!(before.without_recipient("alice").unwrap_err().code(), "last-recipient");
        let before = before.with_recipient("bob", &bob.recipient(), 2).unwrap();
        assert_eq!(before.without_recipient("eve").unwrap_err().code(), "no-such-recipient");
        let after = before.without_recipient("alice").unwrap();
        assert_eq!(after.recipients().len(), 1);
        for domain in after.domains() {
            let (backup, data_key) = (BackupId::random(), Secret::random());
            let (version, wrapped) = after.domain(domain).unwrap().wrap(backup, &data_key).unwrap();
            assert_eq!(version, 2);
            assert_eq!(after.domain(domain).unwrap().unwrap(backup, version, &wrapped), Some(data_key.clone()));
            assert_eq!(before.domain(domain).unwrap().unwrap(backup, version, &wrapped), None);
            // What was wrapped before still opens.
            let (version, wrapped) = before.domain(domain).unwrap().wrap(backup, &data_key).unwrap();
            assert_eq!(after.domain(domain).unwrap().unwrap(backup, version, &wrapped), Some(data_key));
        }
    }

    #[test]
    fn one_organization_is_rotated_alone() {
        let keyring = Keyring::generate().with_domain("acme").with_domain("other");
        let acme = keyring.domain_of("acme").unwrap();
        let next = keyring.with_new_organization_keys(&[acme]);
        let versions = next.domains().into_iter().filter(|domain| next.newest_key_version(*domain).unwrap() == 2);
        assert!(versions.eq([acme]));
    }

    #[test]
    fn a_new_signing_key_vouches_for_what_the_former_signed() {
        let keyring = Keyring::generate();
        let signature = keyring.sign(b"old");
        let next = keyring.with_new_signing_key().with_new_signing_key();
        assert!(next.verify_key() != keyring.verify_key() && next.is_signed(b"old", &signature));
        assert!(next.is_signed(b"new", &next.sign(b"new")) && !keyring.is_signed(b"new", &next.sign(b"new")));
    }

    #[test]
    fn a_destroyed_domain_is_unknown() {
        let keyring = Keyring::generate().with_domain("acme");
        let domain = keyring.domain_of("acme").unwrap();
        let next = keyring.without_domain(domain);
        assert!(next.domain_of("acme").is_none());
        assert!(matches!(next.domain(domain), Err(Error::UnknownDomain { .. })));
    }
}
