//! A TCP proxy before a server, with faults at exact bytes of what the server sends: slow, held, closed, reset.
//!
//! Bytes are counted over all connections since the fault was set. A fault strikes once; what comes later passes.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::{Result, wait_until};

/// What happens to the bytes that a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// They pass at this many bytes a second.
    Slow(u32),
    /// After so many, nothing moves in either direction, until [`Proxy::release`]; without it the connection is half open.
    Hold(u64),
    /// After so many, the client sees the end of the connection.
    Close(u64),
    /// After so many, the client sees the connection reset.
    Reset(u64),
}

/// What all connections share.
struct Shared {
    upstream: u16,
    plan: Mutex<Plan>,
    is_held: watch::Sender<bool>,
}

struct Plan {
    fault: Fault,
    passed: u64,
}

/// What to do after a part of some bytes passed.
enum Then {
    GoOn,
    Hold,
    Close,
    Reset,
}

/// A proxy on the loopback address. It ends with its value.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

impl Proxy {
    /// Serves a port of its own, and forwards to `upstream`.
    pub fn before(upstream: u16) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let plan = Mutex::new(Plan { fault: Fault::None, passed: 0 });
        let shared = Arc::new(Shared { upstream, plan, is_held: watch::channel(false).0 });
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)))?;
        let port = listener.local_addr()?.port();
        runtime.spawn(serve(listener, shared.clone()));
        Ok(Self { port, shared, _runtime: runtime })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Sets what happens from now on, and counts from zero.
    pub fn set(&self, fault: Fault) {
        *self.shared.plan() = Plan { fault, passed: 0 };
        self.shared.is_held.send_replace(false);
    }

    /// How many bytes of the server's passed since the fault was set.
    pub fn passed(&self) -> u64 {
        self.shared.plan().passed
    }

    /// Returns once the bytes are held.
    pub fn wait_until_held(&self, within: Duration) -> Result {
        let held = self.shared.is_held.subscribe();
        wait_until("the proxy holds the stream", within, || Ok(held.borrow().then_some(())))
    }

    /// Lets everything pass again.
    pub fn release(&self) {
        self.shared.is_held.send_replace(false);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        // How a connection ended is the client's and the server's matter.
        tokio::spawn(async move { shared.relay(client).await });
    }
}

impl Shared {
    fn plan(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forwards until either side ends.
    async fn relay(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let server = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
        let (from_client, mut to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let then = tokio::select! {
            then = self.down(from_server, &mut to_client) => then?,
            done = self.up(&from_client, to_server) => { done?; Then::Close }
        };
        if let (Then::Reset, Ok(client)) = (then, from_client.reunite(to_client)) {
            client.set_zero_linger()?;
        }
        Ok(())
    }

    async fn up(&self, from: &OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            from.readable().await?;
            match from.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    self.pass().await;
                    to.write_all(&buffer[..length]).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn down(&self, mut from: OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<Then> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = from.read(&mut buffer).await?;
            if length == 0 {
                return Ok(Then::Close);
            }
            let (part, then) = self.plan().take(length);
            self.pass().await;
            to.write_all(&buffer[..part]).await?;
            match then {
                Then::GoOn => self.slow_down(part).await,
                Then::Hold => {
                    self.is_held.send_replace(true);
                    self.pass().await;
                    to.write_all(&buffer[part..length]).await?;
                }
                end => return Ok(end),
            }
        }
    }

    /// Returns at once, or when nothing is held any more.
    async fn pass(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.is_held.subscribe().wait_for(|held| !held).await;
    }

    async fn slow_down(&self, bytes: usize) {
        let Fault::Slow(bytes_per_second) = self.plan().fault else { return };
        tokio::time::sleep(Duration::from_secs_f64(bytes as f64 / f64::from(bytes_per_second))).await;
    }
}

impl Plan {
    /// Counts bytes that came; how many of them pass, and what happens after those.
    fn take(&mut self, length: usize) -> (usize, Then) {
        let (at, then) = match self.fault {
            Fault::None | Fault::Slow(_) => (u64::MAX, Then::GoOn),
            Fault::Hold(at) => (at, Then::Hold),
            Fault::Close(at) => (at, Then::Close),
            Fault::Reset(at) => (at, Then::Reset),
        };
        let left = at - self.passed;
        if left > length as u64 {
            self.passed += length as u64;
            return (length, Then::GoOn);
        }
        *self = Self { fault: Fault::None, passed: at };
        (left as usize, then)
    }
}
