//! All that one job may touch. What is not in here does not exist for the guest.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast_repository::{BackupReader, BackupWriter};
use zeroize::Zeroizing;

use crate::Limits;

/// All that one job may touch. The default grants nothing.
#[derive(Default)]
pub struct Grants {
    /// The instance's servers, which the guest names by their position.
    pub members: Vec<Member>,
    /// What connections must be like.
    pub tls: TlsPolicy,
    /// Settings the guest may read, secrets not among them.
    pub settings: BTreeMap<String, String>,
    /// Secrets the guest may read once its connection is safe.
    pub secrets: BTreeMap<String, Zeroizing<Vec<u8>>>,
    /// `archive`, write side.
    pub writer: Option<Arc<BackupWriter>>,
    /// `archive`, read side: the backup that a restore or a verification is about.
    pub current: Option<BackupReader>,
    /// `archive`, read side: the backup that an incremental dump builds on.
    pub parent: Option<BackupReader>,
    /// Where a restore may write.
    pub destination: Option<Destination>,
    /// Bounds on the run.
    pub limits: Limits,
    /// Addresses that are never dialled besides link-local and metadata addresses.
    pub denied: Vec<IpAddr>,
}

/// One server of the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// A host name or address, and a port.
    Tcp {
        /// Resolved by the host at each connection.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A Unix socket's full path, such as `/var/run/postgresql/.s.PGSQL.5432`.
    Unix(PathBuf),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How `start-tls` behaves; decided by the host, never by the guest.
#[derive(Clone)]
pub struct TlsPolicy {
    /// What is asked of the server's certificate.
    pub mode: TlsMode,
    /// PEM; the system's roots without it.
    pub ca: Option<String>,
    /// PEM chain and key.
    pub client: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for TlsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's key must not reach a log.
        f.debug_struct("TlsPolicy")
            .field("mode", &self.mode)
            .field("ca", &self.ca.is_some())
            .field("client", &self.client.is_some())
            .finish()
    }
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self { mode: TlsMode::VerifyFull, ca: None, client: None }
    }
}

/// What is asked of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// A chain to a known root, and the name that was dialled.
    VerifyFull,
    /// A chain to a known root, whatever the name.
    VerifyCa,
    /// Any certificate: against listeners only.
    Require,
    /// No TLS at all.
    Off,
}

/// Where a restore may write: named roots ("" is the main one), each an existing empty directory.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Names and directories.
    pub roots: Vec<(String, PathBuf)>,
    /// uid and gid for all that is created.
    pub owner: Option<(u32, u32)>,
}
