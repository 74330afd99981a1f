//! Checking a repository at one target: is everything there that heads name, is it what was committed, and what is lost if not.
//!
//! Three steps, each of use alone: [`Repository::check_structure`] reads all but the packs, [`Repository::read_packs`] reads packs, in parts
//! of any size, and [`Repository::losses`] says which bytes of which entries cannot be read any more. [`Repository::heal`] alone writes. A target that does
//! not answer is an error; an object that is gone, cut or changed is a finding.

mod heads;
mod heal;
mod losses;
mod packs;
mod refs;
mod remake;
mod root;
mod structure;

pub use heal::Healed;
pub use refs::Difference;

use std::borrow::Cow;

use crate::format::path;
use crate::repository::Repository;
use crate::{BackupId, Digest, DomainId, Error};

/// The code of a finding about a backup: chunks that it holds are in no pack that is present.
const LOST_CHUNK: &str = "lost-chunk";

/// An object that is not as its head named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its path at the target.
    pub path: String,
    /// A stable code, as of the error that reading it gives.
    pub code: Cow<'static, str>,
    /// What is wrong, for people.
    pub detail: String,
    /// The pack, if it is one.
    pub pack: Option<Digest>,
}

/// Bytes of a backup that cannot be read at this target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The backup.
    pub backup: BackupId,
    /// Path of the entry; none where entries themselves are not known any more.
    pub entry: Option<String>,
    /// First byte that is lost: of the entry, or of the table of entries.
    pub start: u64,
    /// Behind the last byte that is lost.
    pub end: u64,
}

/// What [`Repository::check_structure`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Objects that heads name, packs among them.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Live backups.
    pub backups: u64,
    /// What is wrong.
    pub damages: Vec<Damage>,
}

/// A part of a domain's packs that was read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacksRead {
    /// Packs read.
    pub packs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub damages: Vec<Damage>,
    /// The last pack read, where more follow: go on behind it.
    pub next: Option<Digest>,
}

impl Damage {
    /// What an error tells of an object.
    fn of(domain: DomainId, path: &str, error: &Error) -> Self {
        let pack = path::pack_digest(domain, path);
        Self { path: path.to_owned(), code: error.code().into(), detail: error.to_string(), pack }
    }
}

impl Repository {
    /// Sorts findings from outages: an error about one object at a place that answers is a finding.
    async fn finding(&self, domain: DomainId, path: &str, error: Error) -> Result<Damage, Error> {
        if !self.inner.place.is_damage(&error).await {
            return Err(error);
        }
        Ok(Damage::of(domain, path, &error))
    }
}
