//! Why the server could not start. What a request did wrong is in `api/error.rs`.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, not ours, or not allowed.
    #[error("listening on {address} failed: {source}")]
    Listen {
        /// Where it was tried.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The local socket cannot be made.
    #[error("making the local socket {} failed: {source}", path.display())]
    Socket {
        /// Where it was tried.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the certificate cannot be read or written.
    #[error("the certificate's file {} failed: {source}", path.display())]
    CertificateFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The files hold no usable certificate and key.
    #[error("the certificate in {} is not usable: {reason}", directory.display())]
    Certificate {
        /// Where its files lie.
        directory: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

impl Error {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                "Another program listens there; stop it, or choose another address by --listen or `[server] listen`."
                    .to_owned()
            }
            Self::Listen { .. } => "Choose an address of this machine by --listen or `[server] listen`.".to_owned(),
            Self::Socket { .. } => {
                "The data directory must be writable, and its path shorter than 90 bytes.".to_owned()
            }
            Self::CertificateFile { .. } => {
                "The data directory must be readable and writable for the appliance's user.".to_owned()
            }
            Self::Certificate { directory, .. } => format!(
                "Put certificate.pem and key.pem that fit each other there, or remove {} to get a new self-signed certificate.",
                directory.display()
            ),
        }
    }
}
