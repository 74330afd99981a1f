//! Harm by way of the network: other servers, clear text, secrets, and servers that are hostile themselves.

use holdfast_sdk::endpoint::{self, Connection};
use holdfast_sdk::io;
use holdfast_sdk::{Error, Result, job};

use crate::Harm;

pub const HARMS: &[Harm] = &[
    ("second-member", || dial(1)),
    ("last-member", || dial(u32::MAX)),
    ("only-member", || dial(0)),
    ("secret-in-clear", || tell_secret("password")),
    ("secret-of-others", tell_all_secrets),
    ("much-in-clear", send_much),
    ("little-and-often", send_often),
    ("downgrade", || downgrade(&endpoint::connect(0)?)),
    ("injected", start_late),
    ("silent-handshake", start_late),
    ("tls-after-failure", start_twice),
    ("names-of-protocols", offer_much),
    ("drip", read_for_ever),
    ("drip-exactly", read_exactly),
    ("silence", read_once),
    ("silence-by-transfer", skip),
    ("unread", write_for_ever),
    ("echo", echo),
];

fn dial(position: u32) -> Result<()> {
    endpoint::connect(position)?;
    Ok(())
}

/// What was got is shown, so that a scenario finds it in the error.
fn tell_secret(key: &str) -> Result<()> {
    let secret = job::secret(key)?;
    let shown = secret.map(|secret| String::from_utf8_lossy(&secret).into_owned());
    Err(Error::new("told", format!("the secret {key} is {shown:?}")))
}

/// Keys that other instances have, and paths to where they might lie.
fn tell_all_secrets() -> Result<()> {
    let keys = ["client-key", "token", "acme/hostile/bystander/password", "../bystander/password", "instance/password"];
    let mut found = Vec::new();
    for key in keys {
        if let Some(secret) = job::secret(key)? {
            found.push(String::from_utf8_lossy(&secret).into_owned());
        }
        found.extend(job::setting(key));
    }
    Err(Error::new("told", format!("secrets of others: {found:?}")))
}

fn send_much() -> Result<()> {
    let output = endpoint::connect(0)?.output();
    output.write(&[0; 4_096])?;
    output.write(&[0])?;
    Ok(())
}

/// Two halves of one connection have one bound.
fn send_often() -> Result<()> {
    let connection = endpoint::connect(0)?;
    loop {
        connection.output().write(&[0; 100])?;
    }
}

/// Goes on in clear when the server speaks no TLS.
fn downgrade(connection: &Connection) -> Result<()> {
    match connection.start_tls(&[]) {
        Ok(()) => Err(Error::new("secured", "the server speaks TLS after all")),
        Err(_) => tell_secret("password"),
    }
}

/// Reads a byte, so that what came with it lies in the buffer when TLS begins.
fn start_late() -> Result<()> {
    let connection = endpoint::connect(0)?;
    connection.input().read_exact(1)?;
    Ok(connection.start_tls(&[])?)
}

/// A connection whose handshake failed is gone, in clear too.
fn start_twice() -> Result<()> {
    let connection = endpoint::connect(0)?;
    if connection.start_tls(&[]).is_ok() {
        return Err(Error::new("secured", "the server speaks TLS after all"));
    }
    Ok(connection.output().write(b"in clear")?)
}

fn offer_much() -> Result<()> {
    let names: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    Ok(endpoint::connect(0)?.start_tls(&names)?)
}

fn read_for_ever() -> Result<()> {
    let source = endpoint::connect(0)?.input();
    loop {
        source.read(1)?;
    }
}

fn read_exactly() -> Result<()> {
    endpoint::connect(0)?.input().read_exact(65_536)?;
    Ok(())
}

fn read_once() -> Result<()> {
    endpoint::connect(0)?.input().read(1)?;
    Ok(())
}

fn skip() -> Result<()> {
    endpoint::connect(0)?.input().skip(u64::MAX)?;
    Ok(())
}

fn write_for_ever() -> Result<()> {
    let output = endpoint::connect(0)?.output();
    loop {
        output.write(&[0; 65_536])?;
    }
}

/// From a connection to itself, for as long as the other side plays along.
fn echo() -> Result<()> {
    let connection = endpoint::connect(0)?;
    io::transfer(&connection.input(), &connection.output(), u64::MAX)?;
    Ok(())
}
