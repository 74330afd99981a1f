//! Why a repository operation failed: one variant for each thing that an operator can tell apart.

use std::sync::Arc;

use crate::chunk::{ChunkError, ChunkHash};
use crate::{BackupId, Digest, DomainId, Malformed, RepositoryId, WriterId};

/// Why a repository operation failed. `Display` names the failed step and the object; [`Error::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The place that keeps the repository refused or did not answer.
    #[error(transparent)]
    Storage(#[from] holdfast_storage::Error),
    /// The runtime on which storage is called has stopped.
    #[error("the runtime of the repository has stopped")]
    RuntimeStopped,
    /// A step of the writer or the reader ended without a result.
    #[error("a worker stopped in the middle of its work")]
    WorkerStopped,
    /// A backup cannot go on because an earlier step of it failed.
    #[error("the backup cannot go on: {0}")]
    BackupBroken(Arc<Error>),
    /// The operation writes, and the repository was opened for reading.
    #[error("the repository at {location} was opened for reading only")]
    ReadOnly {
        /// Where it is.
        location: String,
    },

    /// A stored object has no valid form.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// Its path.
        path: String,
        /// What is wrong with it.
        reason: Malformed,
    },
    /// A stored object's signature is not this repository's.
    #[error("{path} does not carry this repository's signature")]
    Unsigned {
        /// Its path.
        path: String,
    },
    /// A sealed part does not open.
    #[error("{path} does not open with its key")]
    Sealed {
        /// Its path.
        path: String,
    },
    /// A stored object is not the one that a head names.
    #[error("{path} is not the object that was committed (expected BLAKE3 {expected})")]
    Exchanged {
        /// Its path.
        path: String,
        /// The digest by which it was committed.
        expected: Digest,
    },
    /// A stored object has not as many bytes as the one that a head names.
    #[error("{path} has {found} bytes instead of {expected}")]
    WrongLength {
        /// Its path.
        path: String,
        /// Bytes that were committed.
        expected: u64,
        /// Bytes that are there.
        found: u64,
    },
    /// An object that a head names is gone.
    #[error("{path} is named by a head, but it is not at {location}")]
    Lost {
        /// Its path.
        path: String,
        /// Where it should be.
        location: String,
    },
    /// The heads of a domain do not form one chain.
    #[error("the chain of heads is broken at {path}: {reason}")]
    ChainBroken {
        /// The head.
        path: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// A chunk cannot be sealed or opened.
    #[error("chunk {id}: {reason}")]
    Chunk {
        /// Its public id.
        id: String,
        /// What is wrong with it.
        reason: ChunkError,
    },
    /// No index says where a chunk is.
    #[error("chunk {id} is in no pack that is present")]
    ChunkLost {
        /// Its public id.
        id: String,
    },
    /// The local cache of the indexes, which is no part of the repository, cannot be read or written.
    #[error("{step} the index cache failed: {source}")]
    IndexCache {
        /// What was done.
        step: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A head needs something that this version does not know.
    #[error("{path} uses features that this version does not know ({bits:#x})")]
    NewerFormat {
        /// The head.
        path: String,
        /// The unknown feature bits.
        bits: u64,
    },

    /// Another repository lies at this place.
    #[error("repository {found} is at {location}, not {expected}")]
    OtherRepository {
        /// Where it is.
        location: String,
        /// What lies there.
        found: RepositoryId,
        /// What should lie there.
        expected: RepositoryId,
    },
    /// The place holds something that is no repository.
    #[error("{location} is neither empty nor a repository")]
    NotARepository {
        /// Where it is.
        location: String,
    },
    /// There is no repository to read.
    #[error("there is no repository at {location}")]
    NoRepository {
        /// Where it should be.
        location: String,
    },
    /// Another appliance has taken the repository over.
    #[error("domain {domain} was taken over: its epoch is {found}, ours is {own}")]
    Superseded {
        /// The domain in whose heads it was seen.
        domain: DomainId,
        /// The epoch that was met.
        found: u64,
        /// The epoch of this writer.
        own: u64,
    },
    /// A newer keyring than ours is published here.
    #[error("keyring generation {found} is at {location}, but this appliance has generation {own}")]
    OlderKeyring {
        /// Where it is.
        location: String,
        /// The generation there.
        found: u64,
        /// Ours.
        own: u64,
    },
    /// Heads need a keyring that is not at hand.
    #[error("the heads at {location} need keyring generation {needed}, and {own} is the newest at hand")]
    LostKeyring {
        /// Where the heads are.
        location: String,
        /// The generation that they need.
        needed: u64,
        /// Ours.
        own: u64,
    },
    /// The keyring has no such domain.
    #[error("the keyring has no domain {domain}")]
    UnknownDomain {
        /// The domain.
        domain: DomainId,
    },
    /// There is no such backup.
    #[error("backup {backup} is not at {location}")]
    NoSuchBackup {
        /// The backup.
        backup: BackupId,
        /// Where it was looked for.
        location: String,
    },
    /// A backup with this id exists already.
    #[error("backup {backup} exists already")]
    BackupExists {
        /// The backup.
        backup: BackupId,
    },
    /// A person holds the backup.
    #[error("backup {backup} is held by {name}: {reason}")]
    Held {
        /// The backup.
        backup: BackupId,
        /// Who holds it, or for what.
        name: String,
        /// Why.
        reason: String,
    },
    /// Something that this backup relies on was condemned while it was made.
    #[error("object {object}, which the backup relies on, is going to be deleted")]
    Condemned {
        /// Digest of a pack, an index, or an object of an earlier backup of that id.
        object: Digest,
    },
    /// What work stored first may have been cleaned up before it came to its end.
    #[error("the work took too long: it began at {began_ms} ms, and what it stored may have been cleaned up since")]
    TooLate {
        /// When it began, in milliseconds since 1970.
        began_ms: u64,
    },
    /// Clocks differ too much to tell how long something was condemned.
    #[error("our clock says {own_ms} ms, but {witness} says {other_ms} ms: nothing is deleted while they differ")]
    ClockSkew {
        /// Milliseconds since 1970 by our clock.
        own_ms: u64,
        /// By the other one.
        other_ms: u64,
        /// Whose it is.
        witness: &'static str,
    },
    /// Somebody else wrote here lately, and may rely on what would be deleted at once.
    #[error("another writer, {writer}, wrote to domain {domain} at {written_ms} ms")]
    OtherWriter {
        /// The domain.
        domain: DomainId,
        /// Who it is.
        writer: WriterId,
        /// When it last wrote, in milliseconds since 1970.
        written_ms: u64,
    },
    /// A backup's chunks are told only in relation to another backup.
    #[error("the refs of backup {backup} do not stand alone")]
    DependentRefs {
        /// The backup.
        backup: BackupId,
    },
    /// The organization key that a backup's slots are wrapped by is not the newest any more.
    #[error("the organization key of domain {domain} was rotated meanwhile")]
    KeysRotated {
        /// The domain.
        domain: DomainId,
    },
    /// No key of ours opens the backup.
    #[error("no key of this keyring opens backup {backup}")]
    NoKey {
        /// The backup.
        backup: BackupId,
    },

    /// An entry's path is not allowed.
    #[error("entry path {path:?} is not valid")]
    InvalidPath {
        /// The path.
        path: String,
    },
    /// An entry's path came before.
    #[error("entry {path} is there already")]
    DuplicatePath {
        /// The path.
        path: String,
    },
    /// An entry did not get as many bytes as it was declared to have.
    #[error("entry {path} was declared with {declared} bytes, but {received} came")]
    SizeMismatch {
        /// The path.
        path: String,
        /// Bytes declared.
        declared: u64,
        /// Bytes received.
        received: u64,
    },
    /// A page size that chunks cannot be aligned to.
    #[error("page size {page} of entry {path} is not between 1 byte and 1 MiB")]
    InvalidPageSize {
        /// The path.
        path: String,
        /// The page size.
        page: u32,
    },
    /// A directory or a link has no bytes.
    #[error("entry {path} is no file")]
    NotAFile {
        /// The path.
        path: String,
    },
    /// What is told about an entry does not fit a record.
    #[error("annotations of entry {path} exceed 64 KiB")]
    AnnotationsTooLong {
        /// The path.
        path: String,
    },
    /// There is no such entry.
    #[error("entry {path} is not in the backup")]
    NoSuchEntry {
        /// The path.
        path: String,
    },
    /// A digest that cannot be computed.
    #[error("digest {algorithm:?} is not known")]
    UnknownAlgorithm {
        /// Its name.
        algorithm: String,
    },

    /// No keyring is published here.
    #[error("there is no keyring at {location}")]
    NoKeyring {
        /// Where it was looked for.
        location: String,
    },
    /// The keyring is not signed by whom the kit pins.
    #[error("the signature of {path} does not lead to the verify key of the recovery kit")]
    UntrustedKeyring {
        /// The keyring's signature.
        path: String,
    },
    /// The kit pins no repository.
    #[error("the recovery kit does not say which repository it is for")]
    NotPinned,
    /// The identity is not among the recipients.
    #[error("identity {recipient} does not open the keyring")]
    WrongIdentity {
        /// The identity's public half.
        recipient: String,
    },
    /// A text is no age recipient.
    #[error("{text:?} is not an age recipient")]
    InvalidRecipient {
        /// The text.
        text: String,
    },
    /// A recipient's name is used.
    #[error("there is a recovery recipient named {name:?} already")]
    NameInUse {
        /// The name.
        name: String,
    },
    /// A recipient that nobody knows.
    #[error("there is no recovery recipient named {name:?}")]
    NoSuchRecipient {
        /// The name.
        name: String,
    },
    /// Without it nobody could recover.
    #[error("{name} is the last recovery recipient")]
    LastRecipient {
        /// The name.
        name: String,
    },
    /// A domain whose keys are at hand is no garbage.
    #[error("domain {domain} is not destroyed: the keyring has its keys")]
    DomainAlive {
        /// The domain.
        domain: DomainId,
    },
    /// A file is no recovery kit.
    #[error("this is not a recovery kit: {reason}")]
    InvalidKit {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A text is no unlock key.
    #[error("the unlock key is not 64 hex digits")]
    InvalidUnlockKey,
    /// The unlock key does not open the keyring.
    #[error("the keyring does not open with this unlock key")]
    WrongUnlockKey,
    /// The passphrase does not open the keyring.
    #[error("the keyring does not open with this passphrase")]
    WrongPassphrase,
    /// The costs by which a passphrase is stretched are beyond all measure.
    #[error("the keyring asks for {memory_kib} KiB, {passes} passes and {lanes} lanes to stretch its passphrase")]
    UnusableStretching {
        /// Memory, in KiB.
        memory_kib: u64,
        /// Passes over it.
        passes: u64,
        /// Lanes of it.
        lanes: u64,
    },
    /// A sealed secret does not open.
    #[error("a secret of the catalog does not open with this keyring")]
    SecretSealed,
    /// The cryptographic library refused a key of ours.
    #[error("a key of the keyring cannot be used")]
    UnusableKey,
}

impl Error {
    pub(crate) fn damaged(path: impl Into<String>) -> impl FnOnce(Malformed) -> Self {
        let path = path.into();
        move |reason| Self::Damaged { path, reason }
    }

    /// Names the chunk that cannot be sealed or opened.
    pub(crate) fn broken(hash: &ChunkHash) -> impl FnOnce(ChunkError) -> Self {
        let id = hash.id();
        move |reason| Self::Chunk { id: hex::encode(id.0), reason }
    }

    /// The object is not there, as opposed to a place that does not answer.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Storage(holdfast_storage::Error::NotFound { .. }))
    }

    /// There is no room left where the repository is.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Storage(holdfast_storage::Error::Full { .. }))
    }

    /// A stable code, `kebab-case`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::RuntimeStopped => "runtime-stopped",
            Self::WorkerStopped => "worker-stopped",
            Self::BackupBroken(error) => error.code(),
            Self::ReadOnly { .. } => "read-only",
            Self::Damaged { .. } => "damaged-object",
            Self::Unsigned { .. } => "bad-signature",
            Self::Sealed { .. } => "broken-seal",
            Self::Exchanged { .. } => "wrong-digest",
            Self::WrongLength { .. } => "wrong-length",
            Self::Lost { .. } => "lost-object",
            Self::ChainBroken { .. } => "broken-chain",
            Self::Chunk { .. } => "damaged-chunk",
            Self::ChunkLost { .. } => "lost-chunk",
            Self::IndexCache { .. } => "index-cache",
            Self::NewerFormat { .. } => "newer-format",
            Self::OtherRepository { .. } => "other-repository",
            Self::NotARepository { .. } => "not-a-repository",
            Self::NoRepository { .. } => "no-repository",
            Self::Superseded { .. } => "superseded",
            Self::OlderKeyring { .. } => "older-keyring",
            Self::LostKeyring { .. } => "lost-keyring",
            Self::UnknownDomain { .. } => "unknown-domain",
            Self::NoSuchBackup { .. } => "no-such-backup",
            Self::BackupExists { .. } => "backup-exists",
            Self::Held { .. } => "backup-held",
            Self::Condemned { .. } => "condemned-object",
            Self::TooLate { .. } => "too-late",
            Self::ClockSkew { .. } => "clock-skew",
            Self::OtherWriter { .. } => "other-writer",
            Self::DependentRefs { .. } => "dependent-refs",
            Self::KeysRotated { .. } => "keys-rotated",
            Self::NoKey { .. } => "no-key",
            Self::InvalidPath { .. } => "invalid-path",
            Self::DuplicatePath { .. } => "duplicate-path",
            Self::SizeMismatch { .. } => "size-mismatch",
            Self::InvalidPageSize { .. } => "invalid-page-size",
            Self::NotAFile { .. } => "not-a-file",
            Self::AnnotationsTooLong { .. } => "annotations-too-long",
            Self::NoSuchEntry { .. } => "no-such-entry",
            Self::UnknownAlgorithm { .. } => "unknown-algorithm",
            Self::NoKeyring { .. } => "no-keyring",
            Self::UntrustedKeyring { .. } => "untrusted-keyring",
            Self::NotPinned => "not-pinned",
            Self::WrongIdentity { .. } => "wrong-identity",
            Self::InvalidRecipient { .. } => "invalid-recipient",
            Self::NameInUse { .. } => "name-in-use",
            Self::NoSuchRecipient { .. } => "no-such-recipient",
            Self::LastRecipient { .. } => "last-recipient",
            Self::DomainAlive { .. } => "domain-alive",
            Self::InvalidKit { .. } => "invalid-kit",
            Self::InvalidUnlockKey => "invalid-unlock-key",
            Self::WrongUnlockKey => "wrong-unlock-key",
            Self::WrongPassphrase => "wrong-passphrase",
            Self::UnusableStretching { .. } => "unusable-stretching",
            Self::SecretSealed => "secret-sealed",
            Self::UnusableKey => "unusable-key",
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Storage(error) => return error.hint(),
            Self::BackupBroken(error) => return error.hint(),
            Self::IndexCache { .. } => {
                "Check the disk of the data directory, or that of the temporary directory without one, and its free space. What is damaged is made anew by itself."
            }
            Self::ChainBroken { .. } => {
                "Something other than Holdfast changed this place. Compare it with another target before anything is written to it."
            }
            damaged if damaged.tells_of_the_source() => {
                "Read the backup from another target, and check the storage of this one."
            }
            Self::NewerFormat { .. } => "Use the version of Holdfast that wrote it, or a newer one.",
            Self::OtherRepository { .. } => "Choose another place or prefix: each repository needs one of its own.",
            Self::NotARepository { .. } => {
                "Choose an empty place or prefix. If `domains` or `keyring` lie there, it is a repository whose `repository.json` is gone or not shown: remove nothing, and compare it with another target."
            }
            Self::NoRepository { .. } => "Check the URL and its prefix; a target holds a file named repository.json.",
            Self::Superseded { .. } => {
                "Another appliance writes to this repository now. Stop this one, or run `holdfast takeover` here if the other is gone for good."
            }
            Self::OlderKeyring { .. } => {
                "The data directory is older than the repository. Run `holdfast recover` into a new data directory."
            }
            Self::LostKeyring { .. } => {
                "That generation's .age or .sig file is damaged or gone there, or the data directory is old. Run `holdfast recover` from another target."
            }
            Self::Held { .. } => "Release it first: `holdfast backup release` says from what.",
            Self::Condemned { .. } => "Run the backup again: it will store these bytes anew.",
            Self::TooLate { .. } => {
                "Run it again. Work on a repository must end within three and a half days, half of the time for which what it stores is safe from prune."
            }
            Self::ClockSkew { .. } => "Set the clock of this machine, by NTP for example; then run it again.",
            Self::OtherWriter { .. } => {
                "Prune without --now: what is dead is deleted seven days after it was condemned, which is safe beside other writers."
            }
            Self::BackupExists { .. } => "Begin the backup again under a new id.",
            Self::InvalidPath { .. } => "Paths are relative, at most 4096 bytes, with no empty, `.` or `..` part.",
            Self::SizeMismatch { .. } => "The source changed or was cut short while it was read. Run the backup again.",
            Self::UnknownAlgorithm { .. } => "Use sha256, crc32c or blake3.",
            Self::NoKeyring { .. } => {
                "Only a target that was written to after a recovery recipient was added can be recovered from. Try another target."
            }
            Self::UntrustedKeyring { .. } => {
                "This may be a forged repository. Try another target; if you know that this one is yours, use a kit without the verify key and `--trust-keyring`."
            }
            Self::NotPinned => {
                "Use the kit that `holdfast key recipient add` wrote, or say `--trust-keyring` to trust what lies at the target."
            }
            Self::WrongIdentity { .. } => {
                "Use the identity file of one of the recovery recipients of this repository: the file that `holdfast key recipient add --generate` wrote."
            }
            Self::InvalidRecipient { .. } => "A recipient is the public half of an age identity and begins with age1.",
            Self::NoSuchRecipient { .. } => "`holdfast key recipient list` shows all.",
            Self::LastRecipient { .. } => {
                "Without a recipient nothing can be recovered once the appliance is lost. Add another one first."
            }
            Self::NameInUse { .. } => "Choose another name for the recipient.",
            Self::InvalidKit { .. } => "A recovery kit is a text file with one line that begins with AGE-SECRET-KEY-1.",
            Self::InvalidUnlockKey | Self::WrongUnlockKey => {
                "Put back the unlock key that belongs to this data directory, or run `holdfast recover` with a recovery kit."
            }
            Self::WrongPassphrase => {
                "Type it again; case and spaces count. If it is lost, run `holdfast recover` into a new data directory with a recovery kit."
            }
            Self::UnusableStretching { .. } => {
                "The file `keyring` in the data directory is not as Holdfast wrote it. Put it back, or run `holdfast recover` with a recovery kit."
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Whether it tells of the place that was read, or of what lies there: another place may have it.
    pub fn tells_of_the_source(&self) -> bool {
        match self {
            Self::Storage(error) => error.tells_of_the_source(),
            Self::BackupBroken(error) => error.tells_of_the_source(),
            Self::Damaged { .. }
            | Self::Unsigned { .. }
            | Self::Sealed { .. }
            | Self::Exchanged { .. }
            | Self::WrongLength { .. }
            | Self::Lost { .. }
            | Self::ChainBroken { .. }
            | Self::Chunk { .. }
            | Self::ChunkLost { .. } => true,
            _ => false,
        }
    }

    /// Trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Storage(error) => error.is_permanent(),
            Self::BackupBroken(error) => error.is_permanent(),
            Self::RuntimeStopped
            | Self::WorkerStopped
            | Self::IndexCache { .. }
            | Self::Condemned { .. }
            | Self::KeysRotated { .. }
            | Self::SizeMismatch { .. } => false,
            _ => true,
        }
    }
}
