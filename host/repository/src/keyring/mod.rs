//! The keyring (FORMAT §7): every long-lived secret, its local seal, its recipients, and the recovery kit.
//!
//! Immutable: a change makes a next generation. Nothing here is shown by `Debug`, and all of it is wiped when dropped.

mod kit;
mod publish;
mod stored;

use std::sync::{Arc, PoisonError, RwLock};

use zeroize::Zeroizing;

pub use kit::RecoveryKit;
pub use publish::recover_keyring;
pub(crate) use publish::{newest_generation, publish};

use crate::chunk::ChunkSecrets;
use crate::envelope::{Envelope, Signer, Verifier, seal_envelope};
use crate::format::{Kind, cbor, path};
use crate::seal::{self, Purpose, SIGNATURE, Secret};
use crate::{BackupId, DomainId, Error, RepositoryId};
use stored::{LocalClear, ORGANIZATION, SYSTEM, StoredDomain, StoredKeyring, StoredRecipient};

/// All long-lived secrets of a repository. Zeroized on drop; `Debug` shows nothing.
pub struct Keyring {
    stored: StoredKeyring,
    verify_key: VerifyKey,
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
        Self { stored, verify_key }
    }

    fn next(&self, change: impl FnOnce(&mut StoredKeyring)) -> Self {
        let mut stored = self.stored.clone();
        stored.generation += 1;
        change(&mut stored);
        Self { stored, verify_key: self.verify_key }
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

    /// A next generation with a domain for this organization.
    pub fn with_domain(&self, organization: &str) -> Self {
        self.next(|stored| stored.domains.push(new_domain(ORGANIZATION, Some(organization.to_owned()))))
    }

    /// A next generation with one more recovery recipient (`age1...`). Errors: not an age recipient, name in use.
    pub fn with_recipient(&self, name: &str, recipient: &str, now_ms: u64) -> Result<Self, Error> {
        let recipient = recipient.trim();
        kit::parse_recipient(recipient)?;
        if self.stored.recipients.iter().any(|other| other.name == name) {
            return Err(Error::NameInUse { name: name.to_owned() });
        }
        let recipient = StoredRecipient {
            name: name.to_owned(),
            recipient: recipient.to_owned(),
            added_ms: now_ms,
            extra: Default::default(),
        };
        Ok(self.next(|stored| stored.recipients.push(recipient)))
    }

    /// (name, recipient, added ms)
    pub fn recipients(&self) -> Vec<(String, String, u64)> {
        let told = |one: &StoredRecipient| (one.name.clone(), one.recipient.clone(), one.added_ms);
        self.stored.recipients.iter().map(told).collect()
    }

    /// Sealed for the data directory.
    pub fn seal(&self, unlock: &UnlockKey) -> Vec<u8> {
        let clear = LocalClear { generation: self.generation(), unlock: 0, extra: Default::default() };
        let plaintext = self.encode();
        let sealed = Some((&unlock.0, &plaintext[..]));
        seal_envelope(Kind::LocalKeyring, path::LOCAL_KEYRING, &clear, sealed, self).into()
    }

    /// Opens what [`Self::seal`] made. Errors: another unlock key; damaged.
    pub fn open(sealed: &[u8], unlock: &UnlockKey) -> Result<Self, Error> {
        let bytes = bytes::Bytes::copy_from_slice(sealed);
        let envelope = Envelope::<LocalClear>::parse(Kind::LocalKeyring, path::LOCAL_KEYRING, bytes)?;
        let plaintext = envelope.unseal(&unlock.0).map_err(|_| Error::WrongUnlockKey)?;
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

    /// Whether a domain holds the appliance's catalog rather than an organization's backups.
    pub fn is_system(&self, domain: DomainId) -> bool {
        domain == self.system_domain()
    }
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
        extra: Default::default(),
    }
}

/// Opens the keyring in the data directory: 32 bytes, hex in its file.
#[derive(Debug)]
pub struct UnlockKey(Secret);

impl UnlockKey {
    /// A new random key.
    pub fn generate() -> Self {
        Self(Secret::random())
    }

    /// Reads its text form; space around it does not count.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut secret = Secret([0; 32]);
        hex::decode_to_slice(text.trim(), &mut secret.0).map_err(|_| Error::InvalidUnlockKey)?;
        Ok(Self(secret))
    }

    /// 64 hex digits.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0.0))
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
        let unlock = UnlockKey::generate();
        let sealed = keyring.seal(&unlock);
        let opened = Keyring::open(&sealed, &UnlockKey::parse(&unlock.to_text()).unwrap()).unwrap();
        assert_eq!(*opened.encode(), *keyring.encode());
        assert_eq!((opened.generation(), opened.domains().len()), (2, 2));
        assert_eq!(opened.domain_of("acme"), keyring.domain_of("acme"));
        assert!(opened.domain_of("other").is_none());
        let error = Keyring::open(&sealed, &UnlockKey::generate()).unwrap_err();
        assert_eq!(error.code(), "wrong-unlock-key");
        for position in (0..sealed.len()).step_by(7) {
            let mut spoilt = sealed.clone();
            spoilt[position] ^= 1;
            assert!(Keyring::open(&spoilt, &unlock).is_err(), "{position}");
        }
    }

    #[test]
    fn unlock_keys_are_checked() {
        assert!(UnlockKey::parse(&format!(" {}\n", "ab".repeat(32))).is_ok());
        for text in ["", "ab", &"xy".repeat(32), &"ab".repeat(33)] {
            assert_eq!(UnlockKey::parse(text).unwrap_err().code(), "invalid-unlock-key");
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
}
