//! A connection to the instance's server: dialled and encrypted by the host, logged in here.

use holdfast_sdk::endpoint::{self, Connection};
use holdfast_sdk::io::{ByteSink, ByteSource, Reader, Writer};
use holdfast_sdk::{Error, Result, job};

use crate::auth::{Login, Transport};
use crate::failure::{Peer, protocol_error};
use crate::settings::Settings;
use crate::wire::Wire;

/// Asks for TLS before anything else (protocol chapter 55.2.10).
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// The name that PostgreSQL registered for its protocol in TLS.
const ALPN: &str = "postgresql";

const TLS_SERVER_END_POINT: &str = "tls-server-end-point";

/// A session over the host's streams.
pub type Session = Wire<Reader<ByteSource>, Writer<ByteSink>>;

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// Base backups.
    Replication,
    /// Questions in SQL, in this database.
    Sql(&'a str),
}

/// One of the instance's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its place among those that the job was granted.
    position: u32,
    /// Its address, as the host names it.
    pub address: String,
}

impl Member {
    /// All that the job was granted, in the operator's order.
    pub fn all() -> Vec<Self> {
        let members = (0..).zip(endpoint::addresses());
        members.map(|(position, address)| Self { position, address }).collect()
    }
}

#[cfg(test)]
impl Member {
    /// One at this address.
    pub fn of(address: &str) -> Self {
        Self { position: 0, address: address.to_owned() }
    }
}

/// Opens a session at a member.
pub fn open(settings: &Settings, member: &Member, purpose: Purpose) -> Result<Session> {
    let connection = endpoint::connect(member.position)?;
    let transport = encrypt(&connection, settings, &member.address)?;
    let database = match purpose {
        Purpose::Replication => None,
        Purpose::Sql(database) => Some(database),
    };
    let peer = Peer {
        address: member.address.clone(),
        user: settings.user.clone(),
        database: database.map(str::to_owned),
        plain: matches!(transport, Transport::Plain),
    };
    let mut session = Wire::new(Reader(connection.input()), Writer(connection.output()), peer);
    let password = || Ok(job::secret("password")?);
    session.log_in(&Login { user: &settings.user, database, transport, password: &password })?;
    Ok(session)
}

/// Upgrades the connection to TLS, unless the operator turned it off or it is a Unix socket.
fn encrypt(connection: &Connection, settings: &Settings, address: &str) -> Result<Transport> {
    if address.starts_with('/') {
        return Ok(Transport::Local);
    }
    if settings.tls_off {
        return Ok(Transport::Plain);
    }
    connection.output().write(&SSL_REQUEST)?;
    match connection.input().read_exact(1)?.as_slice() {
        b"S" => {
            connection.start_tls(&[ALPN.to_owned()])?;
            Ok(Transport::Tls(connection.channel_binding(TLS_SERVER_END_POINT)))
        }
        b"N" => Err(Error::new("tls-refused", format!("{address} does not offer TLS"))
            .hint(
                "Set ssl = on in the server's postgresql.conf. If it is on, somebody on the way has changed the server's answer: check the \
                 network. With `--set tls=off` everybody on the way could read the backup.",
            )),
        _ => Err(protocol_error(format!("{address} gave no answer that a PostgreSQL server gives"))),
    }
}
