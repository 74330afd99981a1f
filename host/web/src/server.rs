//! The server: two listeners, one router. Bounded in connections; at its end it lets running requests finish, briefly.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use holdfast_control::Appliance;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::certificate::{self, Fingerprint, Identity};
use crate::connection::{PATIENCE, Peer, converse};
use crate::local_socket::{self, LocalSocket};
use crate::{Error, api};

/// Connections over TLS; more wait in the system's queue.
const REMOTE_MAX: usize = 512;
/// Connections over the local socket, counted apart: an administrator always gets in.
const LOCAL_MAX: usize = 128;
/// How long running requests may take when the server ends.
const FAREWELL: Duration = Duration::from_secs(10);

/// Where to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Address for TLS.
    pub listen: SocketAddr,
    /// Holds the local socket and the certificate.
    pub data_dir: PathBuf,
}

/// A server that is bound and answers once it runs.
pub struct Server {
    tcp: TcpListener,
    local: LocalSocket,
    identity: Identity,
    address: SocketAddr,
}

impl Server {
    /// Binds both listeners, making the certificate at the first start. The caller holds the data directory's lock.
    pub async fn bind(options: &ServeOptions) -> Result<Self, Error> {
        let listen = |source| Error::Listen { address: options.listen, source };
        let tcp = TcpListener::bind(options.listen).await.map_err(listen)?;
        let address = tcp.local_addr().map_err(listen)?;
        let identity = certificate::load_or_make(&options.data_dir, names(address))?;
        let local = LocalSocket::bind(&options.data_dir)?;
        Ok(Self { tcp, local, identity, address })
    }

    /// Where TLS is served; a port of 0 is already a real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// By which clients know this server.
    pub fn fingerprint(&self) -> Fingerprint {
        self.identity.fingerprint
    }

    /// Serves until `shutdown`, then ends event streams, waits a little for running requests and returns.
    pub async fn run(self, appliance: Appliance, shutdown: impl Future<Output = ()>) {
        let closing = CancellationToken::new();
        let router = api::router(appliance, closing.clone());
        let connections = Connections { router, closing, tracker: TaskTracker::new() };
        tokio::select! {
            () = accept_remote(&self.tcp, TlsAcceptor::from(self.identity.tls), &connections) => {}
            () = accept_local(&self.local, &connections) => {}
            () = shutdown => {}
        }
        connections.closing.cancel();
        connections.tracker.close();
        if timeout(FAREWELL, connections.tracker.wait()).await.is_err() {
            tracing::warn!(connections = connections.tracker.len(), "requests that did not end were cut");
        }
    }
}

/// What every connection needs.
struct Connections {
    router: Router,
    closing: CancellationToken,
    tracker: TaskTracker,
}

async fn accept_remote(listener: &TcpListener, tls: TlsAcceptor, connections: &Connections) {
    let places = Arc::new(Semaphore::new(REMOTE_MAX));
    loop {
        let place = take(&places).await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let (tls, router, closing) = (tls.clone(), connections.router.clone(), connections.closing.clone());
        connections.tracker.spawn(async move {
            let _place = place;
            // Answers are small and wanted at once.
            let _ = stream.set_nodelay(true);
            match timeout(PATIENCE, tls.accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, Peer::Remote, router, closing).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        });
    }
}

async fn accept_local(socket: &LocalSocket, connections: &Connections) {
    let places = Arc::new(Semaphore::new(LOCAL_MAX));
    loop {
        let place = take(&places).await;
        let stream = match socket.listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        if !local_socket::is_trusted(&stream) {
            tracing::warn!("a connection to the local socket from another user was cut");
            continue;
        }
        let (router, closing) = (connections.router.clone(), connections.closing.clone());
        connections.tracker.spawn(async move {
            let _place = place;
            converse(stream, Peer::Local, router, closing).await;
        });
    }
}

/// A place for one connection. `None` only from a closed semaphore; ours are never closed.
async fn take(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(places).acquire_owned().await.ok()
}

/// A failed accept is the client's (it went away) or ours for a while (no file descriptors): never a reason to stop, nor to spin.
async fn pause_after(error: &io::Error) {
    let client_left = matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset);
    if !client_left {
        tracing::error!(%error, "a connection could not be accepted");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Names and addresses for which a new certificate is valid.
fn names(listen: SocketAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let listen = listen.ip();
    if !listen.is_unspecified() && !listen.is_loopback() {
        names.push(listen.to_string());
    }
    names.extend(host_name(Path::new("/proc/sys/kernel/hostname")).filter(|name| name != "localhost"));
    names
}

/// This machine's name, if it is one that a certificate may carry.
fn host_name(path: &Path) -> Option<String> {
    let name = std::fs::read_to_string(path).ok()?.trim().to_owned();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    (!name.is_empty() && name.chars().all(fits)).then_some(name)
}
