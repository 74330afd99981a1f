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
pub enum Purpose {
    /// Base backups.
    Replication,
    /// Questions in SQL.
    Sql,
}

/// Opens a session at the instance's first member.
pub fn open(settings: &Settings, purpose: Purpose) -> Result<Session> {
    let address = endpoint::addresses().into_iter().next();
    let address = address.ok_or_else(|| Error::new("not-granted", "the job was given no server to connect to"))?;
    let connection = endpoint::connect(0)?;
    let transport = encrypt(&connection, settings, &address)?;
    let database = (purpose == Purpose::Sql).then_some(settings.database.as_str());
    let peer = Peer { address, user: settings.user.clone(), database: database.map(str::to_owned) };
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
            .hint("Set ssl = on in the server's postgresql.conf, or `--set tls=off` for the instance.")),
        _ => Err(protocol_error(format!("{address} gave no answer that a PostgreSQL server gives"))),
    }
}
