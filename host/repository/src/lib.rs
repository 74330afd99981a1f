//! The archive store: chunks, packs, indexes, manifests, keys, and the signed heads that make a backup exist.
//!
//! The stored form is `FORMAT.md`, which is the law. This room can restore with no catalog, no server and no appliance;
//! it knows nothing of axum, SQL or wasmtime. All storage calls run on the runtime that was current when the
//! repository was opened, so callers may poll from any other one (a guest's thread has its own).
//!
//! A byte's way out: [`writer`] cuts an entry into chunks, [`chunk`] hashes and seals them, [`pack`] collects them,
//! [`heads`] commits. Its way back: [`heads`], [`reader`], [`index`], [`opener`]. [`copy`] takes it to another target; [`check`] says what of it is
//! damaged or lost. [`keyring`] holds the keys to it, [`rewrap`] brings new ones to what exists.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod chunk;
mod clock;
mod copy;
mod envelope;
mod error;
mod footers;
mod format;
mod heads;
mod holds;
mod ids;
mod index;
mod keyring;
mod layout;
mod ledger;
mod locks;
mod model;
mod opener;
mod pack;
mod patch;
mod place;
mod pool;
mod prune;
mod reader;
mod repack;
mod repository;
mod rewrap;
mod runs;
mod seal;
mod shred;
mod slots;
mod stock;
mod tree;
mod untold;
mod writer;

pub use check::{Damage, Difference, Healed, Loss, PacksRead, Structure};
pub use chunk::ChunkError;
pub use clock::Clock;
pub use error::Error;
pub use format::Malformed;
pub use ids::{BackupId, Digest, DomainId, InstanceId, RepositoryId, WriterId};
pub use keyring::{
    Keyring, RecoveryKit, SharedKeyring, Stretching, UnlockKey, UnlockMethod, VerifyKey, recover_keyring,
};
pub use model::{
    BackupPlan, BackupRecord, Compression, ContentClass, Copied, Entry, EntryKind, HeadSeen, Hold, Stats, Verification,
};
pub use prune::{GRACE_MS, Kept, Mended, Progress, PruneOptions, Pruned, Tally, Why};
pub use reader::{BackupReader, ContentReader, EntryReader, Opener, PartReader};
pub use repository::Repository;
pub use rewrap::Rewrapped;
pub use shred::Overlap;
pub use writer::{BackupWriter, EntryWriter, INLINE_MAX};
