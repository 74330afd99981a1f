//! Somebody in the middle who has a certificate that clients trust: ends a client's TLS, looks at everything, and hands it to the
//! real PostgreSQL over TLS of his own. Only channel binding tells a server that he is there. [`crate::meddler`] has no certificate.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Result;
use crate::certificates::Certified;

/// Asks for TLS, and is answered by one byte (protocol chapter 55.2.10).
pub(crate) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// The request to log in by SASL, and what in it offers to bind the login to the channel (protocol chapter 55.7).
const SASL: [u8; 4] = [0, 0, 0, 10];
const BOUND: &[u8] = b"SCRAM-SHA-256-PLUS\0";

/// He who listens on the loopback address. He ends with his value.
pub struct Interceptor {
    port: u16,
    sessions: Arc<AtomicU32>,
    _runtime: Runtime,
}

impl Interceptor {
    /// Before a server whose certificate is of this authority, with a certificate of his own.
    pub fn before(upstream: u16, authority: &Path, own: &Certified) -> Result<Self> {
        Self::start(upstream, authority, own, false)
    }

    /// The same, who takes the offer to bind the login to the channel out of what the server says.
    pub fn who_unbinds(upstream: u16, authority: &Path, own: &Certified) -> Result<Self> {
        Self::start(upstream, authority, own, true)
    }

    fn start(upstream: u16, authority: &Path, own: &Certified, unbinds: bool) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority)?)?;
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();

        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let port = listener.local_addr()?.port();
        let sessions = Arc::new(AtomicU32::new(0));
        let between = Between {
            upstream,
            acceptor: own.acceptor()?,
            connector: TlsConnector::from(Arc::new(client)),
            unbinds,
            sessions: sessions.clone(),
        };
        runtime.spawn(serve(listener, Arc::new(between)));
        Ok(Self { port, sessions, _runtime: runtime })
    }

    /// Where he listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sessions in which both sides have spoken TLS with him.
    pub fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Relaxed)
    }
}

struct Between {
    upstream: u16,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    unbinds: bool,
    sessions: Arc<AtomicU32>,
}

async fn serve(listener: TcpListener, between: Arc<Between>) {
    while let Ok((client, _)) = listener.accept().await {
        let between = between.clone();
        // How a session ended is the client's and the server's matter.
        tokio::spawn(async move { between.listen_in(client).await });
    }
}

impl Between {
    async fn listen_in(&self, mut client: TcpStream) -> std::io::Result<()> {
        client.read_exact(&mut [0; SSL_REQUEST.len()]).await?;
        client.write_all(b"S").await?;
        let mut client = self.acceptor.accept(client).await?;

        let mut server = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
        server.write_all(&SSL_REQUEST).await?;
        server.read_exact(&mut [0; 1]).await?;
        let name = ServerName::try_from("127.0.0.1").map_err(std::io::Error::other)?;
        let mut server = self.connector.connect(name, server).await?;

        self.sessions.fetch_add(1, Ordering::Relaxed);
        if self.unbinds {
            // The client begins: without a type, its length, and who it is.
            let mut length = [0; 4];
            client.read_exact(&mut length).await?;
            let mut startup = vec![0; rest_of(length)];
            client.read_exact(&mut startup).await?;
            server.write_all(&[&length[..], &startup].concat()).await?;
            let (kind, body) = message(&mut server).await?;
            client.write_all(&unbound(kind, &body)).await?;
        }
        copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }
}

/// Bytes after a length that counts itself.
fn rest_of(length: [u8; 4]) -> usize {
    (u32::from_be_bytes(length) as usize).saturating_sub(4).min(10_000)
}

async fn message(from: &mut (impl AsyncReadExt + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let (kind, mut length) = (from.read_u8().await?, [0; 4]);
    from.read_exact(&mut length).await?;
    let mut body = vec![0; rest_of(length)];
    from.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// A message as it was, without the offer to bind.
fn unbound(kind: u8, body: &[u8]) -> Vec<u8> {
    let offer = body.strip_prefix(&SASL).and_then(|offers| offers.strip_prefix(BOUND));
    let body = offer.map_or_else(|| body.to_vec(), |others| [&SASL[..], others].concat());
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
}
