//! Says who we are: trust, cleartext under TLS, MD5, SCRAM-SHA-256 and, under TLS, SCRAM-SHA-256-PLUS.
//!
//! The password is asked for only when the server wants one. With SCRAM the server must prove that it knows the password
//! too: a server that skips its proof is refused.

use std::io::{Read, Write};

use fallible_iterator::FallibleIterator;
use holdfast_sdk::{Error, Result};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{AuthenticationSaslBody, Message};
use postgres_protocol::message::frontend;

use crate::failure::protocol_error;
use crate::wire::Wire;

/// How bytes travel, as far as it matters to authentication.
pub enum Transport {
    /// Readable on the way.
    Plain,
    /// A Unix socket.
    Local,
    /// Under TLS, with the `tls-server-end-point` binding data where the certificate has any.
    Tls(Option<Vec<u8>>),
}

/// Who we are.
pub struct Login<'a> {
    /// The role.
    pub user: &'a str,
    /// The database; none for a replication connection.
    pub database: Option<&'a str>,
    /// How bytes travel.
    pub transport: Transport,
    /// Where the password comes from, if there is one.
    pub password: &'a dyn Fn() -> Result<Option<Vec<u8>>>,
}

impl Login<'_> {
    fn password(&self) -> Result<Vec<u8>> {
        let password = (self.password)()?.filter(|password| !password.is_empty());
        password.ok_or_else(|| {
            Error::new("password-missing", format!("the server wants a password of {}", self.user))
                .hint("Set it by `--secret-file password=FILE`.")
        })
    }
}

impl<R: Read, W: Write> Wire<R, W> {
    /// Starts the session; returns when the server is ready for statements.
    pub fn log_in(&mut self, login: &Login) -> Result<()> {
        let mut parameters = vec![("user", login.user), ("application_name", "holdfast"), ("client_encoding", "UTF8")];
        match login.database {
            Some(database) => parameters.push(("database", database)),
            None => parameters.push(("replication", "true")),
        }
        self.send(|buffer| frontend::startup_message(parameters, buffer))?;
        self.authenticate(login)?;
        loop {
            match self.message()? {
                Message::BackendKeyData(_) => {}
                Message::ReadyForQuery(_) => return Ok(()),
                Message::ErrorResponse(body) => return Err(self.refusal(&body)),
                _ => return Err(protocol_error("an unexpected message before the session began")),
            }
        }
    }

    fn authenticate(&mut self, login: &Login) -> Result<()> {
        match self.message()? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationCleartextPassword => {
                if matches!(login.transport, Transport::Plain) {
                    return Err(Error::new(
                        "password-exposed",
                        "the server wants the password in clear, and TLS is off",
                    )
                    .hint("Use scram-sha-256 in the server's pg_hba.conf, or turn TLS on."));
                }
                let password = login.password()?;
                self.send(|buffer| frontend::password_message(&password, buffer))?;
            }
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(login.user.as_bytes(), &login.password()?, body.salt());
                self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer))?;
            }
            Message::AuthenticationSasl(body) => self.scram(login, &body)?,
            Message::ErrorResponse(body) => return Err(self.refusal(&body)),
            Message::AuthenticationGss
            | Message::AuthenticationSspi
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential => {
                return Err(Error::new("authentication-unsupported", "the server wants GSSAPI, SSPI or Kerberos")
                    .hint("Give the role a line with scram-sha-256 in the server's pg_hba.conf."));
            }
            _ => return Err(protocol_error("an unexpected message instead of an authentication request")),
        }
        match self.message()? {
            Message::AuthenticationOk => Ok(()),
            Message::ErrorResponse(body) => Err(self.refusal(&body)),
            _ => Err(protocol_error("an unexpected message instead of the end of authentication")),
        }
    }

    fn scram(&mut self, login: &Login, offered: &AuthenticationSaslBody) -> Result<()> {
        let (mechanism, binding) = choose(offered, &login.transport)?;
        let mut scram = ScramSha256::new(&login.password()?, binding);
        self.send(|buffer| frontend::sasl_initial_response(mechanism, scram.message(), buffer))?;
        match self.message()? {
            Message::AuthenticationSaslContinue(body) => {
                check_iterations(body.data())?;
                scram.update(body.data()).map_err(bad_scram)?;
            }
            Message::ErrorResponse(body) => return Err(self.refusal(&body)),
            _ => return Err(protocol_error("an unexpected message in the SCRAM exchange")),
        }
        self.send(|buffer| frontend::sasl_response(scram.message(), buffer))?;
        match self.message()? {
            Message::AuthenticationSaslFinal(body) => scram.finish(body.data()).map_err(bad_scram),
            Message::ErrorResponse(body) => Err(self.refusal(&body)),
            _ => Err(protocol_error("the server did not prove that it knows the password")),
        }
    }
}

/// The best mechanism that both sides know. Who could bind to the channel but is not offered it says so (`y,,`): a server
/// that did offer it then knows that somebody in between removed the offer.
fn choose(offered: &AuthenticationSaslBody, transport: &Transport) -> Result<(&'static str, ChannelBinding)> {
    let (mut scram, mut plus) = (false, false);
    let mut mechanisms = offered.mechanisms();
    while let Some(mechanism) = mechanisms.next()? {
        scram |= mechanism == SCRAM_SHA_256;
        plus |= mechanism == SCRAM_SHA_256_PLUS;
    }
    match transport {
        Transport::Tls(Some(binding)) if plus => {
            Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(binding.clone())))
        }
        Transport::Tls(Some(_)) if scram => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
        _ if scram => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
        _ => Err(Error::new("authentication-unsupported", "the server offers no SCRAM-SHA-256 that can be used here")
            .hint("Set password_encryption = scram-sha-256 at the server, and the role's password again.")),
    }
}

/// Rounds of hashing that a server may ask for; its own default is 4,096. Each costs time before anything is proved.
const MAX_ITERATIONS: u64 = 100_000;

/// Refuses a server's first message of SCRAM, `r=NONCE,s=SALT,i=COUNT`, that asks for too much work.
fn check_iterations(message: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(message);
    let count = text.split(',').find_map(|part| part.strip_prefix("i="));
    match count.map(str::parse::<u64>) {
        Some(Ok(count)) if count > MAX_ITERATIONS => {
            Err(Error::new("authentication-unsupported", format!("the server wants {count} rounds of SCRAM hashing"))
                .hint(format!(
                    "Set scram_iterations at the server to at most {MAX_ITERATIONS}, and the role's password again."
                )))
        }
        // What is no number is malformed, and found so.
        _ => Ok(()),
    }
}

fn bad_scram(error: std::io::Error) -> Error {
    Error::new("server-not-authentic", format!("the server failed the SCRAM exchange: {error}"))
        .hint("Check that the address is the right server's: it does not know the password of the role.")
}

#[cfg(test)]
mod tests;
