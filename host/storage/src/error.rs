//! Why a storage operation failed: one enum, told in the operator's words.
//!
//! Every message names the operation, the path and the place; none holds a secret. What a store says itself is
//! untrusted: it is shortened and stripped of control characters. `is_permanent` is known here and nowhere else.

use std::fmt;
use std::time::Duration;

/// What was asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// [`crate::Storage::get`]
    Get,
    /// [`crate::Storage::put`]
    Put,
    /// [`crate::Storage::put_if_absent`]
    PutIfAbsent,
    /// [`crate::Storage::head`]
    Head,
    /// [`crate::Storage::list`]
    List,
    /// [`crate::Storage::delete`]
    Delete,
    /// [`crate::Storage::retention`], [`crate::Storage::set_retention`]
    Lock,
}

impl Operation {
    fn verb(self) -> &'static str {
        match self {
            Self::Get => "read",
            Self::Put | Self::PutIfAbsent => "write",
            Self::Head => "look up",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Lock => "lock",
        }
    }
}

/// Which operation, on which path, at which place: the beginning of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What was asked.
    pub operation: Operation,
    /// On which path, or below which prefix.
    pub path: String,
    /// [`crate::Storage::location`]
    pub location: String,
}

impl Attempt {
    /// Names an operation.
    pub fn new(operation: Operation, path: impl Into<String>, location: impl Into<String>) -> Self {
        Self { operation, path: path.into(), location: location.into() }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, path, location) = (self.operation.verb(), &self.path, &self.location);
        match path.as_str() {
            "" => write!(f, "cannot {verb} {location}"),
            path => write!(f, "cannot {verb} {path} at {location}"),
        }
    }
}

/// Who or what said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The store does not know these keys, or their signature is wrong.
    Credentials,
    /// The keys are known and may not do this.
    Permission,
    /// Our clock and the store's are too far apart for signatures.
    Clock,
    /// The file system's permissions, or a read-only mount.
    FileSystem,
    /// The server knows neither the user's key nor the password.
    Login,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Credentials => "the store refuses the credentials",
            Self::Permission => "the credentials do not allow it",
            Self::Clock => "the clocks of this machine and of the store are too far apart",
            Self::FileSystem => "the file system does not allow it",
            Self::Login => "the server does not let this user in",
        })
    }
}

/// Why a storage operation failed. `Display` says which operation on which path at which place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such object.
    #[error("{path} is not at {location}")]
    NotFound {
        /// The place.
        location: String,
        /// The object's path.
        path: String,
    },
    /// There is no such bucket.
    #[error("{attempt}: there is no bucket {bucket}")]
    NoBucket {
        /// What was tried.
        attempt: Attempt,
        /// Its name.
        bucket: String,
    },
    /// The bucket is in another region than the URL says.
    #[error("{attempt}: the bucket is not in this region ({detail})")]
    WrongRegion {
        /// What was tried.
        attempt: Attempt,
        /// The store's own words.
        detail: String,
        /// Where it is, if the store says so.
        region: Option<String>,
    },
    /// The store, or the file system, says no.
    #[error("{attempt}: {denial} ({detail})")]
    Denied {
        /// What was tried.
        attempt: Attempt,
        /// Who said no.
        denial: Denial,
        /// The store's own words.
        detail: String,
    },
    /// The endpoint's certificate is not trusted.
    #[error("{attempt}: the endpoint's certificate is not trusted ({detail})")]
    Untrusted {
        /// What was tried.
        attempt: Attempt,
        /// What is wrong with it.
        detail: String,
    },
    /// The server shows a key that is not the pinned one, or none is pinned.
    #[error("{attempt}: the server shows the key {seen}, {}", if *is_pinned { "which is not the one in `host-key`" } else { "and no `host-key` says which is right" })]
    UnknownServer {
        /// What was tried.
        attempt: Attempt,
        /// The fingerprint of the key.
        seen: String,
        /// Whether another key was expected.
        is_pinned: bool,
    },
    /// No connection, or it broke.
    #[error("{attempt}: the endpoint cannot be reached ({detail})")]
    Unreachable {
        /// What was tried.
        attempt: Attempt,
        /// Where it broke.
        detail: String,
    },
    /// The store asks for patience, or has a fault of its own.
    #[error("{attempt}: the store is busy or broken ({detail})")]
    Busy {
        /// What was tried.
        attempt: Attempt,
        /// The store's own words.
        detail: String,
    },
    /// Nothing came to an end in the time that an attempt has.
    #[error("{attempt}: nothing came to an end within {} s", limit.as_secs())]
    Stalled {
        /// What was tried.
        attempt: Attempt,
        /// The time it had.
        limit: Duration,
    },
    /// No room: a full disk or an exhausted quota.
    #[error("{attempt}: no room is left ({detail})")]
    Full {
        /// What was tried.
        attempt: Attempt,
        /// The store's own words.
        detail: String,
    },
    /// The file system failed. Never tried again: after a failed sync nobody knows what is on the disk.
    #[error("{attempt}: {step} failed ({source})")]
    Io {
        /// What was tried.
        attempt: Attempt,
        /// The step that failed.
        step: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// A step failed on the server's own machine. Never tried again: nobody knows what is on its disk.
    #[error("{attempt}: {step} failed on the server ({detail})")]
    Remote {
        /// What was tried.
        attempt: Attempt,
        /// The step that failed.
        step: &'static str,
        /// The server's own words.
        detail: String,
    },
    /// Bytes were damaged on the way.
    #[error("{attempt}: bytes were damaged on the way ({detail})")]
    Corrupt {
        /// What was tried.
        attempt: Attempt,
        /// Which check failed.
        detail: String,
    },
    /// The answer makes no sense.
    #[error("{attempt}: the answer makes no sense ({detail})")]
    Protocol {
        /// What was tried.
        attempt: Attempt,
        /// What is wrong with it.
        detail: String,
    },
    /// The store does not accept the request as it is.
    #[error("{attempt}: the store refuses the request ({detail})")]
    Refused {
        /// What was tried.
        attempt: Attempt,
        /// The store's own words.
        detail: String,
    },
    /// The store does not have what the request needs.
    #[error("{attempt}: the store does not support it ({detail})")]
    Unsupported {
        /// What was tried.
        attempt: Attempt,
        /// The store's own words.
        detail: String,
    },
    /// The probe found that the store does not do what it acknowledges.
    #[error("{location} does not keep what it acknowledges: {detail}")]
    Misbehaves {
        /// The place.
        location: String,
        /// What was seen.
        detail: String,
    },
    /// An object is longer than [`crate::OBJECT_BYTES_MAX`].
    #[error("{attempt}: {length} bytes are more than an object may have")]
    TooLarge {
        /// What was tried.
        attempt: Attempt,
        /// Its length in bytes.
        length: u64,
    },
    /// A path that no object may have.
    #[error("{attempt}: the path {reason}")]
    BadPath {
        /// What was tried.
        attempt: Attempt,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A URL that names no place.
    #[error("{url} is not a storage URL: {reason}")]
    BadUrl {
        /// The URL without user, password and query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting that is unknown, missing or malformed.
    #[error("the setting `{name}` {reason}")]
    BadSetting {
        /// Its name; the value is never shown.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process is shutting down.
    #[error("{attempt}: the process is shutting down")]
    Stopped {
        /// What was tried.
        attempt: Attempt,
    },
}

impl Error {
    /// A URL that names no place; what may hold a secret in it is left out.
    pub(crate) fn bad_url(url: &str, reason: impl Into<String>) -> Self {
        Self::BadUrl { url: without_secrets(url), reason: reason.into() }
    }

    /// A setting that cannot be used.
    pub(crate) fn bad_setting(name: &str, reason: impl Into<String>) -> Self {
        Self::BadSetting { name: name.to_owned(), reason: reason.into() }
    }

    /// A failed step on the file system.
    pub(crate) fn file(attempt: Attempt, step: &'static str, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { attempt, detail: source.to_string() },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { attempt, denial: Denial::FileSystem, detail: format!("{step}: {source}") }
            }
            _ => Self::Io { attempt, step, source },
        }
    }

    /// A stable code, `kebab-case`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "not-found",
            Self::NoBucket { .. } => "bucket-not-found",
            Self::WrongRegion { .. } => "wrong-region",
            Self::Denied { denial: Denial::Credentials | Denial::Login, .. } => "credentials-refused",
            Self::Denied { denial: Denial::Clock, .. } => "clock-skew",
            Self::Denied { .. } => "access-denied",
            Self::Untrusted { .. } => "certificate-untrusted",
            Self::UnknownServer { .. } => "host-key-unknown",
            Self::Unreachable { .. } => "storage-unreachable",
            Self::Busy { .. } => "storage-busy",
            Self::Stalled { .. } => "storage-stalled",
            Self::Full { .. } => "storage-full",
            Self::Io { .. } => "storage-io",
            Self::Remote { .. } => "storage-remote",
            Self::Corrupt { .. } => "transfer-corrupt",
            Self::Protocol { .. } => "storage-protocol",
            Self::Refused { .. } => "storage-refused",
            Self::Unsupported { .. } => "storage-unsupported",
            Self::Misbehaves { .. } => "storage-misbehaves",
            Self::TooLarge { .. } => "object-too-large",
            Self::BadPath { .. } => "bad-path",
            Self::BadUrl { .. } => "bad-url",
            Self::BadSetting { .. } => "bad-setting",
            Self::Stopped { .. } => "stopped",
        }
    }

    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoBucket { bucket, .. } => {
                return Some(format!(
                    "Create the bucket {bucket}, or correct its name in the URL; buckets are not made by Holdfast."
                ));
            }
            Self::WrongRegion { region: Some(region), .. } => {
                return Some(format!("Put `region={region}` into the URL."));
            }
            Self::WrongRegion { .. } => "Put the bucket's region into the URL, as `region=…`.",
            Self::Denied { denial: Denial::Credentials, .. } => {
                "Check the settings `access-key` and `secret-key`, and that the keys are still valid."
            }
            Self::Denied { denial: Denial::Permission, .. } => {
                "Allow these keys to get, put and delete objects below the prefix and to list the bucket (s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket; with `lock` also s3:GetObjectVersion, s3:ListBucketVersions, s3:GetObjectRetention, s3:PutObjectRetention)."
            }
            Self::Denied { denial: Denial::Clock, .. } => "Set this machine's clock, best by NTP.",
            Self::Denied { denial: Denial::FileSystem, .. } => {
                "Let the user that Holdfast runs as, or that the URL names, own this directory, and check that it is mounted read-write."
            }
            Self::Denied { denial: Denial::Login, .. } => {
                "Check the user in the URL, that the server has this key's public half in its authorized keys or takes this password, and that it lets the user use SFTP."
            }
            Self::UnknownServer { seen, is_pinned: false, .. } => {
                return Some(format!(
                    "Run `ssh-keygen -lf` on the server's host key there; if it shows the same, add `--set host-key={seen}`. `--set host-key=first-seen` trusts whatever answers."
                ));
            }
            Self::UnknownServer { .. } => {
                "Somebody may be in the middle. If the server really has a new key, compare it there with `ssh-keygen -lf` and put its fingerprint into `host-key`."
            }
            Self::Untrusted { .. } => {
                "Name the certificate authority of the endpoint by `--set ca=FILE`, or add it to this machine's trusted ones, and check that the URL has the name in the certificate."
            }
            Self::Unreachable { .. } => {
                "Check the endpoint in the URL, that it runs, and that this machine's network and firewall let it through."
            }
            Self::Busy { .. } => "Try again later; if it stays so, look into the store's own log.",
            Self::Stalled { .. } => {
                "Check the network to the endpoint; a connection that is half open or too slow looks like this."
            }
            Self::Full { .. } => {
                "Free space there or raise the quota; deleting backups works on a full disk too. Then try again."
            }
            Self::Io { .. } => "Look into the kernel's log for faults of this disk or mount before trusting it again.",
            Self::Remote { .. } => {
                "Look into the server's own logs and its disk, and check that no file has the name of a directory there."
            }
            Self::Corrupt { .. } => "Try again; if it stays so, suspect this machine's memory or a proxy on the way.",
            Self::Protocol { .. } => {
                "Check that the endpoint is the service that the URL says, and not a proxy's or a console's address."
            }
            Self::Refused { .. } => {
                "Check `style=` and `checksum=` in the URL; many stores need `style=path` and `checksum=when-required`. With `lock` the bucket must have been made with object lock."
            }
            Self::Unsupported { .. } => {
                "Use another store; an S3 store that lacks checksums takes `checksum=when-required` or `checksum=none` in the URL, and an SFTP server needs an Ed25519 or ECDSA host key and renames that replace."
            }
            Self::Misbehaves { .. } => "Do not keep backups in this store.",
            Self::BadUrl { .. } => {
                "Write `file:///absolute/path`, `s3://bucket/prefix?endpoint=https://host:port&region=…&style=path` or `sftp://user@host:22/absolute/path`; keys belong into settings."
            }
            Self::BadSetting { .. } => {
                "An S3 target takes `access-key`, `secret-key` and, if need be, `session-token`, `ca`, `checksum`, `style`, `storage-class`, `lock` with `lock-days`; an SFTP target `host-key` and `private-key` (with its `passphrase`) or `password`; a directory none."
            }
            Self::NotFound { .. } | Self::TooLarge { .. } | Self::BadPath { .. } | Self::Stopped { .. } => return None,
        };
        Some(hint.to_owned())
    }

    /// Trying again cannot help.
    pub fn is_permanent(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable { .. }
                | Self::Busy { .. }
                | Self::Stalled { .. }
                | Self::Corrupt { .. }
                | Self::Protocol { .. }
                | Self::Stopped { .. }
        )
    }

    /// Whether it tells of the place, or of what lies there: another place may have it. The others tell of what was asked, or of us.
    pub fn tells_of_the_source(&self) -> bool {
        !matches!(self, Self::BadPath { .. } | Self::BadUrl { .. } | Self::BadSetting { .. } | Self::Stopped { .. })
    }
}

/// A URL as it may be shown: user, password and query are cut out, for somebody may have put a key there.
pub(crate) fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return printable(url);
    };
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
    let host = host.rsplit('@').next().unwrap_or_default();
    printable(&format!("{scheme}://{host}{path}"))
}

/// Foreign text as it may be shown: one line, no control characters, at most 300 characters.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_user_password_and_query() {
        let shown = Error::bad_url("s3://AK:topsecret@bucket/prefix?secret-key=hidden", "has a user").to_string();
        assert_eq!(shown, "s3://bucket/prefix is not a storage URL: has a user");
    }

    #[test]
    fn foreign_text_stays_on_one_line() {
        assert_eq!(printable("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(printable(&"x".repeat(1000)).len(), 300);
    }

    #[test]
    fn a_full_disk_is_told_apart_and_not_tried_again() {
        let attempt = Attempt::new(Operation::Put, "packs/aa", "file:///srv");
        let error = Error::file(attempt, "writing", std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(error.code(), "storage-full");
        assert!(error.is_permanent());
        assert!(error.hint().is_some());
        assert!(error.to_string().starts_with("cannot write packs/aa at file:///srv: no room is left"));
    }

    #[test]
    fn a_failed_sync_is_permanent() {
        let attempt = Attempt::new(Operation::Put, "packs/aa", "file:///srv");
        assert!(Error::file(attempt, "fdatasync", std::io::Error::from_raw_os_error(5)).is_permanent());
    }
}
