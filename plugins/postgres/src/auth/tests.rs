use std::cell::RefCell;
use std::rc::Rc;

use base64::prelude::{BASE64_STANDARD, Engine};
use sha2::{Digest, Sha256};

use super::*;
use crate::failure::Peer;
use crate::wire::tests::{message, scripted};

fn login(transport: Transport, password: &dyn Fn() -> Result<Option<Vec<u8>>>) -> Login<'_> {
    Login { user: "backup", database: None, transport, password }
}

fn log_in(script: Vec<Vec<u8>>, transport: Transport) -> Result<()> {
    scripted(script.concat()).log_in(&login(transport, &|| Ok(Some(b"secret".to_vec()))))
}

fn request(kind: u32, data: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], data].concat())
}

const MECHANISMS: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

#[test]
fn trust_md5_and_cleartext_under_tls_are_let_in() {
    let ready = || [request(0, b""), message(b'Z', b"I")].concat();
    log_in(vec![ready()], Transport::Plain).expect("trust");
    log_in(vec![request(5, b"salt"), ready()], Transport::Plain).expect("md5");
    log_in(vec![request(3, b""), ready()], Transport::Tls(None)).expect("cleartext");
}

#[test]
fn a_password_never_goes_in_clear_without_tls() {
    let asked = std::cell::Cell::new(false);
    let password = || {
        asked.set(true);
        Ok(Some(b"secret".to_vec()))
    };
    let error = scripted(request(3, b"")).log_in(&login(Transport::Plain, &password)).expect_err("refused");
    assert_eq!(error.code, "password-exposed");
    assert!(!asked.get());
}

#[test]
fn a_server_that_skips_its_proof_is_refused() {
    let script = vec![request(10, MECHANISMS), request(0, b""), message(b'Z', b"I")];
    assert_eq!(log_in(script, Transport::Plain).expect_err("refused").code, "protocol-error");
}

#[test]
fn hostile_scram_messages_are_refused() {
    for first in ["", "r=x,s=eA==,i=4096", "e=other-error", "r=,s=,i=1"] {
        let script = vec![request(10, MECHANISMS), request(11, first.as_bytes())];
        assert_eq!(log_in(script, Transport::Plain).expect_err("refused").code, "server-not-authentic", "{first}");
    }
    assert!(log_in(vec![request(10, b"SCRAM-SHA-256")], Transport::Plain).is_err(), "a list without end");
}

#[test]
fn a_server_that_asks_for_years_of_hashing_is_refused() {
    for count in ["100001", "4294967295", "18446744073709551615"] {
        let first = format!("r=x,s=eA==,i={count}");
        let script = vec![request(10, MECHANISMS), request(11, first.as_bytes())];
        let error = log_in(script, Transport::Plain).expect_err("refused");
        assert!(error.code == "authentication-unsupported" && error.message.contains(count), "{}", error.message);
    }
}

#[test]
fn the_channel_is_bound_where_it_can_be() {
    let offered = |mechanisms: &[u8]| match scripted(request(10, mechanisms)).message().expect("valid") {
        Message::AuthenticationSasl(body) => body,
        _ => unreachable!("a SASL request"),
    };
    let chosen = |mechanisms: &[u8], transport: Transport| {
        let (mechanism, binding) = choose(&offered(mechanisms), &transport).ok()?;
        let scram = ScramSha256::new(b"secret", binding);
        let header: String = String::from_utf8_lossy(scram.message()).split("n=").next()?.into();
        Some((mechanism, header))
    };
    let binding = || Transport::Tls(Some(vec![1; 32]));
    assert_eq!(chosen(MECHANISMS, binding()), Some((SCRAM_SHA_256_PLUS, "p=tls-server-end-point,,".into())));
    assert_eq!(chosen(b"SCRAM-SHA-256\0\0", binding()), Some((SCRAM_SHA_256, "y,,".into())));
    assert_eq!(chosen(MECHANISMS, Transport::Tls(None)), Some((SCRAM_SHA_256, "n,,".into())));
    assert_eq!(chosen(MECHANISMS, Transport::Plain), Some((SCRAM_SHA_256, "n,,".into())));
    assert_eq!(chosen(b"SCRAM-SHA-256-PLUS\0\0", Transport::Plain), None);
    assert_eq!(chosen(b"OAUTHBEARER\0\0", binding()), None);
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let pad = |byte: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ byte).collect() };
    let inner = Sha256::digest([&pad(0x36)[..], &parts.concat()].concat());
    Sha256::digest([&pad(0x5C)[..], &inner[..]].concat()).into()
}

/// RFC 5802's `Hi`.
fn stretched(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = hmac(password, &[salt, &[0, 0, 0, 1]]);
    let mut sum = last;
    for _ in 1..iterations {
        last = hmac(password, &[&last]);
        sum.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

/// A server that knows the password `secret` and does its side of RFC 5802.
#[derive(Default)]
struct Server {
    step: u32,
    first: String,
    output: Vec<u8>,
    /// The channel binding input that it saw.
    bound: Vec<u8>,
    /// Whether it proves itself with a wrong signature.
    impostor: bool,
}

const SALT: &[u8] = b"0123456789abcdef";
const ITERATIONS: u32 = 4_096;

impl Server {
    fn hear(&mut self, bytes: &[u8]) {
        self.step += 1;
        match self.step {
            1 => self.output.extend(request(10, MECHANISMS)),
            2 => {
                let text = String::from_utf8_lossy(bytes).into_owned();
                let (_, bare) = text.split_once("n=").expect("a first message");
                let nonce = bare.split_once("r=").expect("a nonce").1;
                let answer = format!("r={nonce}server,s={},i={ITERATIONS}", BASE64_STANDARD.encode(SALT));
                self.first = format!("n={bare},{answer}");
                self.output.extend(request(11, answer.as_bytes()));
            }
            _ => self.judge(std::str::from_utf8(&bytes[5..]).expect("text")),
        }
    }

    fn judge(&mut self, last: &str) {
        let (without_proof, proof) = last.rsplit_once(",p=").expect("a proof");
        let bound = without_proof.strip_prefix("c=").and_then(|rest| rest.split(',').next()).expect("a binding");
        self.bound = BASE64_STANDARD.decode(bound).expect("a binding in base 64");
        let message = format!("{},{without_proof}", self.first);
        let salted = stretched(b"secret", SALT, ITERATIONS);
        let stored = Sha256::digest(hmac(&salted, &[b"Client Key"]));
        let mut key = hmac(&stored, &[message.as_bytes()]);
        let proof = BASE64_STANDARD.decode(proof).expect("a proof in base 64");
        key.iter_mut().zip(proof).for_each(|(key, byte)| *key ^= byte);
        if Sha256::digest(key) != stored {
            self.output.extend(message_of_refusal());
            return;
        }
        let mut signature = hmac(&hmac(&salted, &[b"Server Key"]), &[message.as_bytes()]);
        signature[0] ^= u8::from(self.impostor);
        self.output.extend(request(12, format!("v={}", BASE64_STANDARD.encode(signature)).as_bytes()));
        self.output.extend(request(0, b""));
        self.output.extend(message_ready());
    }
}

fn message_of_refusal() -> Vec<u8> {
    message(b'E', b"VFATAL\0C28P01\0Mpassword authentication failed\0\0")
}

fn message_ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// One end of a connection to a [`Server`].
struct End(Rc<RefCell<Server>>);

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut server = self.0.borrow_mut();
        let count = buffer.len().min(server.output.len());
        buffer[..count].copy_from_slice(&server.output[..count]);
        server.output.drain(..count);
        Ok(count)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.borrow_mut().hear(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Logs in to a server that does SCRAM, and returns what it saw of the channel binding.
fn scram(password: &'static [u8], transport: Transport, impostor: bool) -> Result<Vec<u8>> {
    let server = Rc::new(RefCell::new(Server { impostor, ..Server::default() }));
    let peer = Peer { address: "db:5432".into(), user: "backup".into(), database: None, plain: false };
    let mut wire = Wire::new(End(server.clone()), End(server.clone()), peer);
    wire.log_in(&login(transport, &move || Ok(Some(password.to_vec()))))?;
    let bound = server.borrow().bound.clone();
    Ok(bound)
}

#[test]
fn scram_lets_the_right_password_in_and_no_other() {
    assert_eq!(scram(b"secret", Transport::Plain, false).expect("let in"), b"n,,");
    assert_eq!(scram(b"Secret", Transport::Plain, false).expect_err("refused").code, "authentication-failed");
}

#[test]
fn scram_binds_to_the_channel() {
    let bound = scram(b"secret", Transport::Tls(Some(vec![7; 32])), false).expect("let in");
    assert_eq!(bound, [&b"p=tls-server-end-point,,"[..], &[7; 32]].concat());
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    assert_eq!(scram(b"secret", Transport::Plain, true).expect_err("refused").code, "server-not-authentic");
}
