//! The local socket: how the appliance's own machine reaches it without a token.
//!
//! Invariant: only root and the appliance's own user are heard, by what the kernel says of the peer, whatever the file's mode is.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::Error;

/// Where the local socket of a data directory lies.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("holdfast.sock")
}

/// The listening socket; its file goes when this is dropped.
pub(crate) struct LocalSocket {
    pub(crate) listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Makes the socket, mode 0600. One that is there is stale: the data directory's lock lets no second appliance live.
    pub(crate) fn bind(data_dir: &Path) -> Result<Self, Error> {
        let path = socket_path(data_dir);
        let bind = || {
            if fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
                fs::remove_file(&path)?;
            }
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
            io::Result::Ok(listener)
        };
        match bind() {
            Ok(listener) => Ok(Self { listener, path }),
            Err(source) => Err(Error::Socket { path, source }),
        }
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // A file that stays is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the process at the other end is root's or our own user's.
pub(crate) fn is_trusted(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_ours_is_private_and_goes() {
        let data_dir = tempfile::tempdir().unwrap();
        drop(std::os::unix::net::UnixListener::bind(socket_path(data_dir.path())).unwrap());
        let socket = LocalSocket::bind(data_dir.path()).unwrap();
        let mode = fs::metadata(socket_path(data_dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (client, server) =
            tokio::join!(UnixStream::connect(socket_path(data_dir.path())), socket.listener.accept());
        assert!(client.is_ok() && is_trusted(&server.unwrap().0));
        drop(socket);
        assert!(!socket_path(data_dir.path()).exists());
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_not_removed() {
        let data_dir = tempfile::tempdir().unwrap();
        fs::write(socket_path(data_dir.path()), "precious").unwrap();
        assert!(LocalSocket::bind(data_dir.path()).is_err());
        assert_eq!(fs::read(socket_path(data_dir.path())).unwrap(), b"precious");
    }
}
