//! Somebody in the middle who has no certificate: all he can do is to change what both sides say before TLS protects it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::Result;
use crate::interceptor::SSL_REQUEST;

/// What he does.
#[derive(Clone, Copy, Debug)]
pub enum Meddling {
    /// He says that the server has no TLS, and hands on what comes then.
    Refuse,
    /// He puts a message of his own behind the server's consent to TLS: that everybody is logged in.
    Inject,
    /// He takes the newest version out of the client's hello.
    Downgrade,
}

/// Everybody is logged in.
const LOGGED_IN: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// The extension by which a client's hello offers TLS 1.3 (RFC 8446, 4.2.1), and one that says nothing (RFC 8701).
const VERSIONS: [u8; 2] = [0, 43];
const NOTHING: [u8; 2] = [0x0A, 0x0A];
/// TLS 1.3, as that extension lists it.
const NEWEST: [u8; 2] = [3, 4];

/// He who listens on the loopback address. He ends with his value.
pub struct Meddler {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    _runtime: Runtime,
}

/// What he came to see.
#[derive(Default)]
struct Seen {
    sessions: u32,
    /// What the client said after he had done what he does, where that is in clear.
    in_clear: Vec<u8>,
}

impl Meddler {
    /// Before a server.
    pub fn before(upstream: u16, meddling: Meddling) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::default());
        runtime.spawn(serve(listener, upstream, meddling, seen.clone()));
        Ok(Self { port, seen, _runtime: runtime })
    }

    /// Where he listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sessions in which a client came to him.
    pub fn sessions(&self) -> u32 {
        held(&self.seen).sessions
    }

    /// What clients told him in clear.
    pub fn in_clear(&self) -> Vec<u8> {
        held(&self.seen).in_clear.clone()
    }
}

fn held(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, upstream: u16, meddling: Meddling, seen: Arc<Mutex<Seen>>) {
    while let Ok((client, _)) = listener.accept().await {
        let seen = seen.clone();
        // How a session ended is the client's and the server's matter.
        tokio::spawn(async move { meddling.meddle(client, upstream, &seen).await });
    }
}

impl Meddling {
    async fn meddle(self, mut client: TcpStream, upstream: u16, seen: &Mutex<Seen>) -> std::io::Result<()> {
        client.read_exact(&mut [0; SSL_REQUEST.len()]).await?;
        held(seen).sessions += 1;
        if matches!(self, Self::Refuse) {
            client.write_all(b"N").await?;
            let mut said = Vec::new();
            client.take(10_000).read_to_end(&mut said).await?;
            held(seen).in_clear.extend(said);
            return Ok(());
        }
        let mut server = TcpStream::connect(("127.0.0.1", upstream)).await?;
        server.write_all(&SSL_REQUEST).await?;
        let consent = server.read_u8().await?;
        if matches!(self, Self::Inject) {
            client.write_all(&[&[consent], LOGGED_IN].concat()).await?;
        } else {
            client.write_u8(consent).await?;
            let hello = hello(&mut client).await?;
            server.write_all(&older(hello)).await?;
        }
        copy_bidirectional(&mut client, &mut server).await?;
        Ok(())
    }
}

/// The client's first record, with its head (RFC 8446, 5.1).
async fn hello(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut record = vec![0; 5];
    client.read_exact(&mut record).await?;
    let length = u16::from_be_bytes([record[3], record[4]]);
    record.resize(5 + usize::from(length), 0);
    client.read_exact(&mut record[5..]).await?;
    Ok(record)
}

/// A hello that offers nothing newer than TLS 1.2, of the same length.
fn older(mut hello: Vec<u8>) -> Vec<u8> {
    // The extension: its type, its length, the length of its list, and its first version.
    let at = hello.windows(7).position(|bytes| {
        let [kind @ .., _, length, list, major, minor] = bytes else { return false };
        kind == VERSIONS && *length == list + 1 && [*major, *minor] == NEWEST
    });
    if let Some(at) = at {
        hello[at..at + 2].copy_from_slice(&NOTHING);
    }
    hello
}
