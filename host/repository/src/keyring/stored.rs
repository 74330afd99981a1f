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
    }
}

/// [`StoredDomain::kind`] of what belongs to an organization.
pub(crate) const ORGANIZATION: u64 = 0;
/// [`StoredDomain::kind`] of the appliance's own catalog.
pub(crate) const SYSTEM: u64 = 1;

structure! {
    /// Who can open the published keyring.
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
        /// 0: by a key file.
        2 unlock: u64,
    }
}
