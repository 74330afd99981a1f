//! A proxy before an S3 service that speaks HTTP with both sides, and has faults strike the requests that a test names.
//!
//! Requests and answers are passed on byte for byte, each request on a connection of its own to the service, so that signatures
//! and checksums are the client's and the service's matter. The first rule that meets a request and is not used up decides; a
//! request without one passes. The same requests in the same order meet the same faults.

mod fault;
mod message;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::Result;
use crate::certificates::Certified;

pub use fault::{Fault, Said};
use message::Message;

/// A request as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Its path: the bucket and the key.
    pub path: String,
    /// What follows behind `?`.
    pub query: String,
}

impl Asked {
    /// Whether it asks what there is.
    pub fn is_listing(&self) -> bool {
        self.method == "GET" && self.query.contains("list-type=2")
    }

    /// Whether it reads or looks up an object.
    pub fn is_reading(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD") && !self.is_listing()
    }
}

/// Which requests meet which fault.
struct Rule {
    meets: Box<dyn Fn(&Asked) -> bool + Send + Sync>,
    skip: usize,
    times: usize,
    fault: Fault,
}

/// What all connections share.
struct Shared {
    upstream: u16,
    rules: Mutex<Vec<Rule>>,
    asked: Mutex<Vec<Asked>>,
    struck: watch::Sender<usize>,
    /// How often all that stands still was let go.
    releases: watch::Sender<u64>,
    /// What it shows who asks for TLS. Without it there is none.
    acceptor: Mutex<Option<TlsAcceptor>>,
}

/// A proxy on the loopback address. It ends with its value.
pub struct Wire {
    port: u16,
    shared: Arc<Shared>,
    _end: oneshot::Sender<()>,
}

impl Wire {
    /// Serves a port of its own, and passes on to `upstream`.
    pub fn before(upstream: u16) -> Result<Self> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream,
            rules: Mutex::default(),
            asked: Mutex::default(),
            struck: watch::channel(0).0,
            releases: watch::channel(0).0,
            acceptor: Mutex::default(),
        });
        let (end, ended) = oneshot::channel::<()>();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let serving = shared.clone();
        // A thread of its own: its value may be dropped where no runtime may be.
        thread::spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(listener, serving) => {}
                    _ = ended => {}
                }
            });
        });
        Ok(Self { port, shared, _end: end })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it speaks TLS with clients, and shows this certificate.
    pub fn show(&self, certified: &Certified) -> Result {
        *lock(&self.shared.acceptor) = Some(certified.acceptor()?);
        Ok(())
    }

    /// Of the requests that `meets` picks, lets `skip` pass and has a fault strike the next `times`.
    pub fn strike(
        &self,
        meets: impl Fn(&Asked) -> bool + Send + Sync + 'static,
        skip: usize,
        times: usize,
        fault: Fault,
    ) {
        lock(&self.shared.rules).push(Rule { meets: Box::new(meets), skip, times, fault });
    }

    /// Forgets all rules, and lets go what stands still.
    pub fn clear(&self) {
        lock(&self.shared.rules).clear();
        self.release();
    }

    /// Ends the connections that stand still.
    pub fn release(&self) {
        self.shared.releases.send_modify(|releases| *releases += 1);
    }

    /// All requests so far, in the order in which they came.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// How many requests met a fault.
    pub fn struck(&self) -> usize {
        *self.shared.struck.borrow()
    }

    /// Returns once so many requests met a fault.
    pub async fn wait_until_struck(&self, requests: usize) {
        // The sender is ours: it cannot be gone.
        let _ = self.shared.struck.subscribe().wait_for(|struck| *struck >= requests).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        // How a connection ended is the client's and the server's matter.
        tokio::spawn(async move { shared.admit(client).await });
    }
}

/// What is left to do on a connection.
#[derive(PartialEq, Eq)]
enum Then {
    GoOn,
    End,
}

impl Shared {
    async fn admit(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let acceptor = lock(&self.acceptor).clone();
        match acceptor {
            Some(acceptor) => self.converse(acceptor.accept(client).await?).await,
            None => self.converse(client).await,
        }
    }

    async fn converse(&self, mut client: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        while let Some(request) = Message::request(&mut client).await? {
            if self.relay(request, &mut client).await? == Then::End {
                break;
            }
        }
        Ok(())
    }

    /// Notes a request and finds what strikes it, with the releases before that.
    fn meet(&self, request: &Message) -> (Option<Fault>, u64) {
        let (path, query) = request.place();
        let asked = Asked { method: request.method().into(), path: path.into(), query: query.into() };
        let mut rules = lock(&self.rules);
        let releases = *self.releases.borrow();
        let fault = rules.iter_mut().filter(|rule| (rule.meets)(&asked)).find_map(|rule| {
            if rule.skip > 0 {
                rule.skip -= 1;
                return None;
            }
            rule.times = rule.times.checked_sub(1)?;
            Some(rule.fault.clone())
        });
        lock(&self.asked).push(asked);
        if fault.is_some() {
            self.struck.send_modify(|struck| *struck += 1);
        }
        (fault, releases)
    }

    /// Passes one request on, and its answer back, as far as no fault is in the way.
    async fn relay(&self, mut request: Message, client: &mut (impl AsyncWrite + Unpin)) -> io::Result<Then> {
        let (fault, releases) = self.meet(&request);
        let Some(fault) = fault else {
            let answer = ask(self.upstream, &request).await?;
            return pass(client, &answer).await;
        };
        match fault {
            Fault::Answer(said) => pass(client, &said.to(request.method())).await,
            Fault::Exchange(said) => {
                ask(self.upstream, &request).await?;
                pass(client, &said.to(request.method())).await
            }
            Fault::Drop => Ok(Then::End),
            Fault::LoseAnswer => ask(self.upstream, &request).await.map(|_| Then::End),
            Fault::CutRequest => {
                let mut server = TcpStream::connect(("127.0.0.1", self.upstream)).await?;
                server.write_all(&fault::half(&request)).await?;
                Ok(Then::End)
            }
            Fault::CutAnswer => half(client, ask(self.upstream, &request).await?).await,
            Fault::ShortenAnswer => pass(client, &fault::shorten(ask(self.upstream, &request).await?)).await,
            Fault::Stall => self.stand_still(releases).await,
            Fault::StallAnswer => {
                half(client, ask(self.upstream, &request).await?).await?;
                self.stand_still(releases).await
            }
            Fault::FlipRequest => {
                fault::flip(&mut request);
                let answer = ask(self.upstream, &request).await?;
                pass(client, &answer).await
            }
            Fault::FlipAnswer => {
                let mut answer = ask(self.upstream, &request).await?;
                fault::flip(&mut answer);
                pass(client, &answer).await
            }
            Fault::Lengthen => pass(client, &fault::lengthen(ask(self.upstream, &request).await?)).await,
            Fault::Repeat => pass(client, &fault::repeat(ask(self.upstream, &request).await?)).await,
            Fault::Elsewhere(port) => {
                let answer = ask(port, &request).await?;
                pass(client, &answer).await
            }
        }
    }

    /// Nothing moves any more until somebody lets it.
    async fn stand_still(&self, releases: u64) -> io::Result<Then> {
        // The sender is ours: it cannot be gone.
        let _ = self.releases.subscribe().wait_for(|now| *now > releases).await;
        Ok(Then::End)
    }
}

/// A service's answer to a request.
async fn ask(port: u16, request: &Message) -> io::Result<Message> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut passed = request.clone();
    passed.set("connection", "close");
    server.write_all(&[passed.head(), passed.body].concat()).await?;
    let mut answer = Message::answer_to(request, &mut tokio::io::BufReader::new(server)).await?;
    answer.remove("connection");
    Ok(answer)
}

async fn pass(client: &mut (impl AsyncWrite + Unpin), answer: &Message) -> io::Result<Then> {
    client.write_all(&[answer.head(), answer.body.clone()].concat()).await?;
    client.flush().await?;
    Ok(Then::GoOn)
}

/// An answer up to its middle.
async fn half(client: &mut (impl AsyncWrite + Unpin), answer: Message) -> io::Result<Then> {
    client.write_all(&fault::half(&answer)).await?;
    client.flush().await?;
    Ok(Then::End)
}
