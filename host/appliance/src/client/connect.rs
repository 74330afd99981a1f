//! Where the appliance is, and a connection to it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::trust::Trust;
use super::{Connection, Login};
use crate::cli::Failure;

/// For a connection, TLS included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// A bearer token. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(String);

impl Token {
    /// From text, as a file holds it.
    pub fn new(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Failure::usage("the token is not one")
                .hint("It is one line of visible characters, such as the file `admin-token` holds."))
        }
    }

    /// `HOLDFAST_TOKEN`, if it is set.
    pub fn from_environment() -> Result<Option<Self>, Failure> {
        std::env::var("HOLDFAST_TOKEN").ok().map(|text| Self::new(&text)).transpose()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// Where an appliance is.
pub enum Endpoint {
    /// Its local socket.
    Socket(PathBuf),
    /// Its TLS address.
    Tls(Box<Tls>),
}

/// A TLS address and what is needed there.
pub struct Tls {
    /// Such as `backup.example.org:7443`.
    authority: String,
    /// What is dialled.
    host: String,
    port: u16,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
    token: Option<Token>,
}

impl Endpoint {
    /// By `HOLDFAST_URL`, else by the local socket, else as `login` saved it. A data directory that was chosen means its socket.
    pub fn find(chosen: Option<&Path>, data_dir: &Path) -> Result<Self, Failure> {
        if let Some(url) = variable("HOLDFAST_URL") {
            let saved = Login::load()?.filter(|login| login.url == url);
            let trust = match (variable("HOLDFAST_CA"), &saved) {
                (Some(ca), _) => Trust::Authorities(Some(PathBuf::from(ca))),
                (None, Some(login)) => login.trust()?,
                (None, None) => Trust::Authorities(None),
            };
            let token = Token::from_environment()?.or(saved.map(|login| login.token));
            return Self::tls(&url, trust, token);
        }
        let socket = holdfast_web::socket_path(data_dir);
        if chosen.is_none()
            && !socket.exists()
            && let Some(login) = Login::load()?
        {
            return Self::tls(&login.url, login.trust()?, Some(login.token));
        }
        Ok(Self::Socket(socket))
    }

    /// By a URL.
    pub fn tls(url: &str, trust: Trust, token: Option<Token>) -> Result<Self, Failure> {
        let wrong = |reason: &str| {
            Failure::usage(format!("'{url}' is not the URL of an appliance: {reason}"))
                .hint("It looks like https://HOST:7443.")
        };
        let parsed = Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if parsed.scheme() != "https" {
            return Err(wrong("it does not begin with https://"));
        }
        let (host, name) = match parsed.host() {
            Some(Host::Domain(domain)) => {
                let name = ServerName::try_from(domain.to_owned()).map_err(|error| wrong(&error.to_string()))?;
                (domain.to_owned(), name)
            }
            Some(Host::Ipv4(address)) => (address.to_string(), ServerName::from(std::net::IpAddr::from(address))),
            Some(Host::Ipv6(address)) => (address.to_string(), ServerName::from(std::net::IpAddr::from(address))),
            None => return Err(wrong("it has no host")),
        };
        let port = parsed.port_or_known_default().unwrap_or(443);
        let authority = parsed.authority().to_owned();
        Ok(Self::Tls(Box::new(Tls { authority, host, port, name, config: trust.client_config()?, token })))
    }

    /// The `Host` header.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Socket(_) => "localhost",
            Self::Tls(tls) => &tls.authority,
        }
    }

    /// The `Authorization` header.
    pub(super) fn authorization(&self) -> Option<String> {
        match self {
            Self::Socket(_) => None,
            Self::Tls(tls) => tls.token.as_ref().map(|token| format!("Bearer {}", token.0)),
        }
    }

    /// The connection broke, or could not be made.
    pub(super) fn lost(&self, reason: &str) -> Failure {
        match self {
            Self::Socket(path) => Failure::lost(format!(
                "the appliance does not answer at {}: {reason}",
                path.display()
            ))
            .hint(
                "Start it with `holdfast serve`, or say where it is by --data-dir, HOLDFAST_DATA_DIR or HOLDFAST_URL.",
            ),
            Self::Tls(tls) => Failure::lost(format!("the appliance does not answer at {}: {reason}", tls.authority))
                .hint("Look whether it runs there and listens on that address (`holdfast serve --listen`)."),
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> Result<Connection, Failure> {
        let connected = match self {
            Self::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) => handshake(stream).await,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(socket_denied(path)),
                Err(error) => Err(error.to_string()),
            },
            Self::Tls(tls) => match timeout(CONNECT_PATIENCE, tls.dial()).await {
                Ok(connected) => connected,
                Err(_) => Err("connecting took too long".to_owned()),
            },
        };
        connected.map_err(|reason| self.lost(&reason))
    }
}

/// Trying again does not help here.
fn socket_denied(path: &Path) -> Failure {
    Failure::new(crate::cli::Exit::Unreachable, format!("the local socket {} is not for this user", path.display()))
        .hint("Run the command as root or as the appliance's user, or use HOLDFAST_URL with HOLDFAST_TOKEN.")
}

impl Tls {
    async fn dial(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(self.config.clone());
        let stream = connector.connect(self.name.clone(), stream).await.map_err(|error| error.to_string())?;
        handshake(stream).await
    }
}

async fn handshake<I>(io: I) -> Result<Connection, String>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            // Whoever waits for an answer hears of it, too.
            tracing::debug!(%error, "the connection to the appliance ended");
        }
    });
    Ok(sender)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_spoken_to() {
        for wrong in ["http://localhost:7443", "localhost:7443", "https://", "nonsense"] {
            let failure = Endpoint::tls(wrong, Trust::Authorities(None), None).err().unwrap();
            assert!(failure.hint.unwrap().contains("https://HOST"), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_one_line_and_stays_unseen() {
        let token = Token::new(" abc123\n").unwrap();
        assert_eq!(token, Token("abc123".to_owned()));
        assert_eq!(format!("{token:?}"), "Token(***)");
        assert!(Token::new("two\nlines").is_err() && Token::new("").is_err());
    }

    #[tokio::test]
    async fn without_a_socket_the_hint_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let failure = Endpoint::Socket(directory.path().join("holdfast.sock")).connect().await.err().unwrap();
        assert!(failure.lost);
        assert_eq!(failure.exit, crate::cli::Exit::Unreachable);
        assert!(failure.hint.unwrap().contains("holdfast serve"));
    }
}
