//! From an address to a session: dials, knows the server by its key, logs in, opens the subsystem.
//!
//! Invariant: no password and no signature is sent to a server whose key is not the pinned one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{self, Handle};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::key::PrivateKeyWithHashAlg;
use russh::keys::ssh_key::HashAlg;
use russh_sftp::client::RawSftpSession;
use tokio::net::TcpStream;

use super::address::{Address, Credentials, Trust};
use super::session::{REQUEST_LIMIT, Session};
use crate::addresses;
use crate::error::{Attempt, Denial, Error, printable};

/// From the first packet to the open subsystem.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);
/// Silence after which the server is asked for a sign of life; three without an answer end the connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes that a server may send before we took them.
const WINDOW: u32 = 4 << 20;

/// Makes sessions on one server.
pub(super) struct Login {
    address: Address,
    credentials: Credentials,
    /// The key that was trusted when it was first seen.
    learned: Mutex<Option<String>>,
}

impl Login {
    pub(super) fn new(address: Address, credentials: Credentials) -> Self {
        Self { address, credentials, learned: Mutex::default() }
    }

    /// The server's name, whatever the port.
    pub(super) fn server(&self) -> &str {
        &self.address.host
    }

    /// The fingerprint that was learned, where the operator allowed that.
    pub(super) fn learned(&self) -> Option<String> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new session, or why there is none.
    pub(super) async fn open(&self, attempt: &Attempt) -> Result<Session, Error> {
        match tokio::time::timeout(LOGIN_LIMIT, self.try_open(attempt)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::Stalled { attempt: attempt.clone(), limit: LOGIN_LIMIT }),
        }
    }

    async fn try_open(&self, attempt: &Attempt) -> Result<Session, Error> {
        let unreachable = |detail: String| Error::Unreachable { attempt: attempt.clone(), detail };
        let socket = self.dial().await.map_err(|error| unreachable(error.to_string()))?;
        let seen = Arc::new(Mutex::new(None));
        let greeter = Greeter { accepted: self.accepted(), seen: Arc::clone(&seen) };
        let connected = client::connect_stream(Arc::new(config()), socket, greeter).await;
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut handle = match (connected, seen) {
            (Ok(handle), seen) => {
                self.learn(seen);
                handle
            }
            (Err(russh::Error::UnknownKey), Some(seen)) => {
                return Err(Error::UnknownServer { attempt: attempt.clone(), seen, is_pinned: self.is_pinned() });
            }
            (Err(error), _) => return Err(refused(attempt, &error)),
        };
        self.log_in(&mut handle, attempt).await?;
        let broken = |error: russh::Error| unreachable(printable(&error.to_string()));
        let channel = handle.channel_open_session().await.map_err(broken)?;
        channel.request_subsystem(true, "sftp").await.map_err(broken)?;
        let config = russh_sftp::client::Config { request_timeout_secs: REQUEST_LIMIT.as_secs(), ..Default::default() };
        let raw = RawSftpSession::new_with_config(channel.into_stream(), config);
        Session::begin(raw, handle).await.map_err(|failure| failure.of(attempt.clone()))
    }

    async fn dial(&self) -> std::io::Result<TcpStream> {
        let mut failed = std::io::Error::other("no address");
        for address in addresses::resolve(&self.address.host).await? {
            match TcpStream::connect((address, self.address.port)).await {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    return Ok(socket);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The fingerprints that are good; any, where none was learned yet.
    fn accepted(&self) -> Option<Vec<String>> {
        match &self.credentials.trust {
            Trust::Pinned(pins) => Some(pins.clone()),
            Trust::FirstSeen => self.learned().map(|pin| vec![pin]),
        }
    }

    fn is_pinned(&self) -> bool {
        self.accepted().is_some_and(|pins| !pins.is_empty())
    }

    fn learn(&self, seen: Option<String>) {
        if self.credentials.trust == Trust::FirstSeen {
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            *learned = learned.take().or(seen);
        }
    }

    /// By the key, and where the server does not take it or there is none, by the password.
    async fn log_in(&self, handle: &mut Handle<Greeter>, attempt: &Attempt) -> Result<(), Error> {
        let user = &self.address.user;
        let refused = |error: russh::Error| refused(attempt, &error);
        if let Some(key) = &self.credentials.key {
            let key = PrivateKeyWithHashAlg::new(Arc::clone(key), None);
            if handle.authenticate_publickey(user, key).await.map_err(refused)?.success() {
                return Ok(());
            }
        }
        if let Some(password) = &self.credentials.password
            && handle.authenticate_password(user, password).await.map_err(refused)?.success()
        {
            return Ok(());
        }
        let detail = format!("user {}", printable(user));
        Err(Error::Denied { attempt: attempt.clone(), denial: Denial::Login, detail })
    }
}

fn config() -> client::Config {
    client::Config { window_size: WINDOW, keepalive_interval: Some(KEEPALIVE), ..client::Config::default() }
}

/// What a handshake that failed means.
fn refused(attempt: &Attempt, error: &russh::Error) -> Error {
    let (attempt, detail) = (attempt.clone(), printable(&error.to_string()));
    match error {
        russh::Error::NoCommonAlgo { .. } => Error::Unsupported { attempt, detail },
        _ => Error::Unreachable { attempt, detail },
    }
}

/// Looks at the server's key before anything else is said to it.
pub(super) struct Greeter {
    /// Without a list, every key is good.
    accepted: Option<Vec<String>>,
    seen: Arc<Mutex<Option<String>>>,
}

impl client::Handler for Greeter {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let fingerprint = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => key.fingerprint(HashAlg::Sha256),
            PublicKeyOrCertificate::Certificate(certificate) => certificate.public_key().fingerprint(HashAlg::Sha256),
        }
        .to_string();
        let is_accepted = self.accepted.as_ref().is_none_or(|accepted| accepted.contains(&fingerprint));
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(fingerprint);
        Ok(is_accepted)
    }
}
