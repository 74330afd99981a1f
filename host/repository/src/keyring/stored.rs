//! The keyring's stored form (FORMAT §7).

use crate::format::cbor::structure;
use crate::seal::Secret;
use crate::{Digest, DomainId, RepositoryId};

/// A former verify key and the signature that it made of the next one.
pub(crate) type Former = ([u8; 32], [u8; 64]);

structure! {
    /// All long-lived secrets.
    StoredKeyring {
        1 repository: RepositoryId,
        2 generation: u64,
        3 signing: Secret,
        4 former: Vec<Former>,
        5 domains: Vec<StoredDomain>,
        6 catalog: Secret,
        7 recipients: Vec<StoredRecipient>,
    }
}

structure! {
    /// A domain and its secrets.
    StoredDomain {
        1 id: DomainId,
        2 kind: u64,
        3 organization: Option<String>,
        4 data: Secret,
        5 list: Secret,
        6 table: Secret,
        7 index: Secret,
        8 chunker_seed: u64,
        9 organization_keys: Vec<(u64, Secret)>,
        /// Who opens the domain's backups by slots of their own. Beyond 127, so that 0.1.0 reads on.
        128 tenants: Option<Vec<StoredRecipient>>,
    }
}

/// [`StoredDomain::kind`] of what belongs to an organization.
pub(crate) const ORGANIZATION: u64 = 0;
/// [`StoredDomain::kind`] of the appliance's own catalog.
pub(crate) const SYSTEM: u64 = 1;

structure! {
    /// Who can open the published keyring, or a domain's backups.
    StoredRecipient {
        1 name: String,
        2 recipient: String,
        3 added_ms: u64,
    }
}

structure! {
    /// The clear part of a published keyring's signature.
    SignatureClear {
        1 generation: u64,
        2 digest: Digest,
        3 length: u64,
        4 verify_key: [u8; 32],
        5 former: Vec<Former>,
    }
}

structure! {
    /// The clear part of the keyring in the data directory.
    LocalClear {
        1 generation: u64,
        /// [`KEY_FILE`], [`PASSPHRASE`] or [`CREDENTIAL`].
        2 method: u64,
        /// Path of the key file, or name of the credential.
        3 place: Option<String>,
        4 salt: Option<[u8; 32]>,
        /// Memory in KiB, passes, lanes.
        5 costs: Option<(u64, u64, u64)>,
    }
}

/// [`LocalClear::method`]: the unlock key is in a file.
pub(crate) const KEY_FILE: u64 = 0;
/// [`LocalClear::method`]: the unlock key is stretched from a passphrase.
pub(crate) const PASSPHRASE: u64 = 1;
/// [`LocalClear::method`]: the unlock key is in a systemd credential.
pub(crate) const CREDENTIAL: u64 = 2;
