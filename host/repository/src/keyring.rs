//! The keyring (FORMAT §7): every long-lived secret, its local seal, its recipients, and the recovery kit.
use crate::{DomainId, Error, RepositoryId};
use std::sync::Arc;

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> [u8; N] { todo!() }

/// All long-lived secrets of a repository. Zeroized on drop; `Debug` shows nothing.
pub struct Keyring {}
/// Ed25519 public key of the repository; hex as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyKey(pub [u8; 32]);
/// Opens the keyring in the data directory: 32 bytes, hex in its file.
pub struct UnlockKey {}

impl Keyring {
    /// A new repository's keyring, with its `system` domain.
    pub fn generate() -> Self { todo!() }
    pub fn repository(&self) -> RepositoryId { todo!() }
    pub fn generation(&self) -> u64 { todo!() }
    pub fn verify_key(&self) -> VerifyKey { todo!() }
    /// The domain that holds the appliance's catalog.
    pub fn system_domain(&self) -> DomainId { todo!() }
    /// The domain of an organization, if it has one.
    pub fn domain_of(&self, organization: &str) -> Option<DomainId> { todo!() }
    /// All domains.
    pub fn domains(&self) -> Vec<DomainId> { todo!() }
    /// A next generation with a domain for this organization.
    pub fn with_domain(&self, organization: &str) -> Self { todo!() }
    /// A next generation with one more recovery recipient (`age1...`). Errors: not an age recipient, name in use.
    pub fn with_recipient(&self, name: &str, recipient: &str, now_ms: u64) -> Result<Self, Error> { todo!() }
    /// (name, recipient, added ms)
    pub fn recipients(&self) -> Vec<(String, String, u64)> { todo!() }
    /// Sealed for the data directory.
    pub fn seal(&self, unlock: &UnlockKey) -> Vec<u8> { todo!() }
    pub fn open(sealed: &[u8], unlock: &UnlockKey) -> Result<Self, Error> { todo!() }
    /// Seals a secret of the catalog; `context` (such as a row's uid and key) is bound in.
    pub fn seal_secret(&self, context: &str, secret: &[u8]) -> Vec<u8> { todo!() }
    pub fn open_secret(&self, context: &str, sealed: &[u8]) -> Result<zeroize::Zeroizing<Vec<u8>>, Error> { todo!() }
    /// 32 bytes derived from the catalog key for a purpose of this appliance (such as authenticating compiled code).
    pub fn derive(&self, purpose: &str) -> [u8; 32] { todo!() }
}
impl UnlockKey {
    pub fn generate() -> Self { todo!() }
    pub fn parse(text: &str) -> Result<Self, Error> { todo!() }
    pub fn to_text(&self) -> zeroize::Zeroizing<String> { todo!() }
}

/// The appliance's current keyring, replaced as a whole.
#[derive(Clone)]
pub struct SharedKeyring {}
impl SharedKeyring {
    pub fn new(keyring: Keyring) -> Self { todo!() }
    pub fn current(&self) -> Arc<Keyring> { todo!() }
    pub fn replace(&self, keyring: Keyring) { todo!() }
}

/// An age identity file whose comment lines pin the repository, its verify key and its targets.
pub struct RecoveryKit {}
impl RecoveryKit {
    /// A new identity, not pinned yet.
    pub fn generate() -> Self { todo!() }
    /// Pins it. `targets` are lines like `there s3://bucket/prefix?endpoint=…`.
    pub fn pin(&mut self, repository: RepositoryId, verify_key: VerifyKey, targets: Vec<String>) { todo!() }
    pub fn parse(text: &str) -> Result<Self, Error> { todo!() }
    pub fn to_text(&self) -> zeroize::Zeroizing<String> { todo!() }
    /// The public half, `age1...`.
    pub fn recipient(&self) -> String { todo!() }
    pub fn repository(&self) -> Option<RepositoryId> { todo!() }
    pub fn verify_key(&self) -> Option<VerifyKey> { todo!() }
    /// Opens a sealed keyring, to try a new kit.
    pub fn open_keyring(&self, sealed: &[u8]) -> Result<Keyring, Error> { todo!() }
}
