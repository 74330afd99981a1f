//! The keyring (FORMAT §7): every long-lived secret, its local seal, its recipients, and the recovery kit.
//!
//! Immutable: a change makes a next generation (`change.rs`). Nothing here is shown by `Debug`, and all of it is wiped when dropped.

mod change;
mod kit;
mod publish;
mod stored;
mod tenant;
mod unlock;

use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

pub use kit::RecoveryKit;
pub(crate) use kit::seal_for;
pub use publish::recover_keyring;
pub(crate) use publish::{newest_generation, publish, retire, sealed_of};
pub use unlock::{Stretching, UnlockKey, UnlockMethod};

use crate::chunk::ChunkSecrets;
use crate::envelope::{Envelope, Signer, Verifier, seal_envelope};
use crate::format::{Kind, cbor, path};
use crate::seal::{self, Purpose, SIGNATURE, Secret};
use crate::{BackupId, DomainId, Error, RepositoryId};
use stored::{LocalClear, SYSTEM, StoredDomain, StoredKeyring, StoredRecipient};

/// All long-lived secrets of a repository. Zeroized on drop; `Debug` shows nothing.
pub struct Keyring {
    stored: StoredKeyring,
    verify_key: VerifyKey,
    /// Opens slots, where no organization key is known.
    tenant: Option<Arc<RecoveryKit>>,
}

/// Ed25519 public key of the repository; hex as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyKey(pub [u8; 32]);

impl std::fmt::Display for VerifyKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Keyring")
            .field("repository", &self.stored.repository)
            .field("generation", &self.stored.generation)
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// A new repository's keyring, with its `system` domain.
    pub fn generate() -> Self {
        let stored = StoredKeyring {
            repository: RepositoryId::random(),
            generation: 1,
            signing: Secret::random(),
            former: Vec::new(),
            domains: vec![new_domain(SYSTEM, None)],
            catalog: Secret::random(),
            recipients: Vec::new(),
            extra: Default::default(),
        };
        Self::from_stored(stored)
    }

    fn from_stored(stored: StoredKeyring) -> Self {
        let verify_key = VerifyKey(seal::verify_key(&stored.signing));
        Self { stored, verify_key, tenant: None }
    }

    /// The repository that it is of.
    pub fn repository(&self) -> RepositoryId {
        self.stored.repository
    }

    /// Which keyring of this repository it is; each change counts one up.
    pub fn generation(&self) -> u64 {
        self.stored.generation
    }

    /// What the repository's signatures are checked with.
    pub fn verify_key(&self) -> VerifyKey {
        self.verify_key
    }

    /// The domain that holds the appliance's catalog.
    pub fn system_domain(&self) -> DomainId {
        let system = self.stored.domains.iter().find(|domain| domain.kind == SYSTEM);
        // `generate` makes it, and a keyring without it is refused when opened.
        system.map_or(DomainId([0; 16]), |domain| domain.id)
    }

    /// The domain of an organization, if it has one.
    pub fn domain_of(&self, organization: &str) -> Option<DomainId> {
        let is_its = |domain: &&StoredDomain| domain.organization.as_deref() == Some(organization);
        self.stored.domains.iter().find(is_its).map(|domain| domain.id)
    }

    /// All domains.
    pub fn domains(&self) -> Vec<DomainId> {
        self.stored.domains.iter().map(|domain| domain.id).collect()
    }

    /// Recovery recipients: (name, recipient, added ms)
    pub fn recipients(&self) -> Vec<(String, String, u64)> {
        told(&self.stored.recipients)
    }

    /// Recipients of a tenant's own, who open the backups of its domain alone: (name, recipient, added ms)
    pub fn tenants(&self, domain: DomainId) -> Result<Vec<(String, String, u64)>, Error> {
        Ok(told(self.domain(domain)?.tenants()))
    }

    /// Whether it is no keyring of an appliance, but what a tenant's identity opened.
    pub fn is_tenants(&self) -> bool {
        self.tenant.is_some()
    }

    /// Sealed for the data directory.
    pub fn seal(&self, unlock: &UnlockKey) -> Vec<u8> {
        let clear = unlock.method().to_clear(self.generation());
        let plaintext = self.encode();
        let sealed = Some((unlock.secret(), &plaintext[..]));
        seal_envelope(Kind::LocalKeyring, path::LOCAL_KEYRING, &clear, sealed, self).into()
    }

    /// Opens what [`Self::seal`] made. Errors: another unlock key; damaged.
    pub fn open(sealed: &[u8], unlock: &UnlockKey) -> Result<Self, Error> {
        let envelope = parse_local(sealed)?;
        let plaintext = envelope.unseal(unlock.secret()).map_err(|_| unlock.refused())?;
        let keyring = Self::decode(&plaintext)?;
        envelope.verify(&keyring)?;
        Ok(keyring)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(cbor::encode(&self.stored))
    }

    fn decode(plaintext: &[u8]) -> Result<Self, Error> {
        let stored: StoredKeyring = cbor::decode(plaintext).map_err(Error::damaged(path::LOCAL_KEYRING))?;
        if !stored.domains.iter().any(|domain| domain.kind == SYSTEM) {
            return Err(Error::damaged(path::LOCAL_KEYRING)(crate::Malformed("it has no system domain")));
        }
        Ok(Self::from_stored(stored))
    }

    /// Seals a secret of the catalog; `context` (such as a row's uid and key) is bound in.
    pub fn seal_secret(&self, context: &str, secret: &[u8]) -> Vec<u8> {
        let mut sealed = Vec::new();
        seal::seal_part(&mut sealed, &self.stored.catalog, &Purpose::catalog(context), secret);
        sealed
    }

    /// Opens a secret of the catalog that was sealed for this context.
    pub fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        seal::open_part(&self.stored.catalog, &Purpose::catalog(context), sealed).map_err(|_| Error::SecretSealed)
    }

    /// 32 bytes derived from the catalog key for a purpose of this appliance (such as authenticating compiled code).
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let info = ["holdfast v1 derive ", purpose].concat();
        *seal::derive(&self.stored.catalog.0, &[], info.as_bytes())
    }

    /// The secrets of a domain.
    pub(crate) fn domain(&self, domain: DomainId) -> Result<DomainKeys<'_>, Error> {
        let found = self.stored.domains.iter().find(|one| one.id == domain);
        found.map(DomainKeys).ok_or(Error::UnknownDomain { domain })
    }

    /// Opens a slot that is for a tenant's own recipient.
    pub(crate) fn open_slot(&self, wrapped: &[u8]) -> Option<Secret> {
        let opened = self.tenant.as_ref()?.open(wrapped).ok()?;
        <[u8; 32]>::try_from(&opened[..]).ok().map(Secret)
    }

    /// Version of the organization key by which a domain's new slots are wrapped.
    pub fn newest_key_version(&self, domain: DomainId) -> Result<u64, Error> {
        let keys = &self.domain(domain)?.0.organization_keys;
        Ok(keys.iter().map(|(version, _)| *version).max().unwrap_or(0))
    }

    /// Whether it gives a domain's backups the slots that another one gives them.
    pub(crate) fn makes_slots_as(&self, other: &Self, domain: DomainId) -> Result<bool, Error> {
        let is_same_key = self.newest_key_version(domain)? == other.newest_key_version(domain)?;
        Ok(is_same_key && self.domain(domain)?.tenants() == other.domain(domain)?.tenants())
    }

    /// Organizations that have a domain.
    pub fn organizations(&self) -> Vec<(DomainId, String)> {
        let named = |one: &StoredDomain| Some((one.id, one.organization.clone()?));
        self.stored.domains.iter().filter_map(named).collect()
    }

    /// Whether a domain holds the appliance's catalog rather than an organization's backups.
    pub fn is_system(&self, domain: DomainId) -> bool {
        domain == self.system_domain()
    }
}

fn parse_local(sealed: &[u8]) -> Result<Envelope<LocalClear>, Error> {
    Envelope::parse(Kind::LocalKeyring, path::LOCAL_KEYRING, bytes::Bytes::copy_from_slice(sealed))
}

impl Signer for Keyring {
    fn repository(&self) -> RepositoryId {
        self.stored.repository
    }
    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE] {
        seal::sign(&self.stored.signing, message)
    }
}

impl Verifier for Keyring {
    fn repository(&self) -> RepositoryId {
        self.stored.repository
    }
    fn is_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let former = self.stored.former.iter().rev().map(|(key, _)| key);
        std::iter::once(&self.verify_key.0).chain(former).any(|key| seal::is_signed(key, message, signature))
    }
}

/// The secrets of one domain.
pub(crate) struct DomainKeys<'a>(&'a StoredDomain);

impl DomainKeys<'_> {
    pub(crate) fn chunk_secrets(&self) -> ChunkSecrets {
        ChunkSecrets { data: self.0.data.clone(), list: self.0.list.clone(), table: self.0.table.clone() }
    }

    pub(crate) fn index_key(&self) -> &Secret {
        &self.0.index
    }

    pub(crate) fn chunker_seed(&self) -> u64 {
        self.0.chunker_seed
    }

    /// Recipients of the tenant's own.
    pub(crate) fn tenants(&self) -> &[StoredRecipient] {
        self.0.tenants.as_deref().unwrap_or_default()
    }

    /// Wraps a backup's data key by the newest organization key: its version, and the wrapped key.
    pub(crate) fn wrap(&self, backup: BackupId, data_key: &Secret) -> Result<(u64, Vec<u8>), Error> {
        let newest = self.0.organization_keys.iter().max_by_key(|(version, _)| *version);
        let (version, key) = newest.ok_or(Error::NoKey { backup })?;
        Ok((*version, seal::wrap(key, &backup.0, data_key)))
    }

    /// Unwraps a backup's data key.
    pub(crate) fn unwrap(&self, backup: BackupId, version: u64, wrapped: &[u8]) -> Option<Secret> {
        let (_, key) = self.0.organization_keys.iter().find(|(one, _)| *one == version)?;
        seal::unwrap(key, &backup.0, wrapped).ok()
    }
}

fn told(recipients: &[StoredRecipient]) -> Vec<(String, String, u64)> {
    recipients.iter().map(|one| (one.name.clone(), one.recipient.clone(), one.added_ms)).collect()
}

fn new_domain(kind: u64, organization: Option<String>) -> StoredDomain {
    StoredDomain {
        id: DomainId::random(),
        kind,
        organization,
        data: Secret::random(),
        list: Secret::random(),
        table: Secret::random(),
        index: Secret::random(),
        chunker_seed: u64::from_le_bytes(seal::random()),
        organization_keys: vec![(1, Secret::random())],
        tenants: None,
        extra: Default::default(),
    }
}

/// The appliance's current keyring, replaced as a whole.
#[derive(Clone, Debug)]
pub struct SharedKeyring(Arc<RwLock<Arc<Keyring>>>);

impl SharedKeyring {
    /// Shares a keyring.
    pub fn new(keyring: Keyring) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(keyring))))
    }

    /// The keyring of now.
    pub fn current(&self) -> Arc<Keyring> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on, this one.
    pub fn replace(&self, keyring: Keyring) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keyring);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_opens_with_its_unlock_key_alone() {
        let keyring = Keyring::generate().with_domain("acme");
        let unlock = UnlockKey::generate(UnlockMethod::default());
        let sealed = keyring.seal(&unlock);
        let opened =
            Keyring::open(&sealed, &UnlockKey::parse(&unlock.to_text(), UnlockMethod::default()).unwrap()).unwrap();
        assert_eq!(*opened.encode(), *keyring.encode());
        assert_eq!((opened.generation(), opened.domains().len()), (2, 2));
        assert_eq!(opened.domain_of("acme"), keyring.domain_of("acme"));
        assert!(opened.domain_of("other").is_none());
        let error = Keyring::open(&sealed, &UnlockKey::generate(UnlockMethod::default())).unwrap_err();
        assert_eq!(error.code(), "wrong-unlock-key");
        for position in (0..sealed.len()).step_by(7) {
            let mut spoilt = sealed.clone();
            spoilt[position] ^= 1;
            assert!(Keyring::open(&spoilt, &unlock).is_err(), "{position}");
        }
    }

    #[test]
    fn secrets_are_bound_to_their_context_and_never_shown() {
        let keyring = Keyring::generate();
        let sealed = keyring.seal_secret("instance/password", b"hunter2");
        assert_eq!(**keyring.open_secret("instance/password", &sealed).unwrap(), *b"hunter2");
        assert_eq!(keyring.open_secret("other/password", &sealed).unwrap_err().code(), "secret-sealed");
        assert!(Keyring::generate().open_secret("instance/password", &sealed).is_err());
        assert_ne!(keyring.derive("a"), keyring.derive("b"));
        assert_eq!(keyring.derive("a"), keyring.derive("a"));
        let shown = format!("{keyring:?} {:?}", SharedKeyring::new(Keyring::generate()));
        assert!(!shown.contains("signing") && !shown.contains('['), "{shown}");
    }
}
