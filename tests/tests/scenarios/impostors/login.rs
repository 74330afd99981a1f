//! Lies before the backup begins: in the login and in the first answers.

use std::io;

use holdfast_tests::Result;
use holdfast_tests::impostor::{Impostor, Peer};

use super::{for_ever, must_fail};

/// An offer of SCRAM; what the client says first.
fn scram(peer: &mut Peer) -> io::Result<String> {
    peer.message(b'R', b"\0\0\0\x0ASCRAM-SHA-256\0\0")?;
    let first = String::from_utf8_lossy(&peer.answer()?).into_owned();
    Ok(first.rsplit("r=").next().unwrap_or_default().to_owned())
}

#[test]
fn a_server_that_lies_before_the_backup_is_found_out() -> Result {
    let big_row = |peer: &mut Peer| {
        peer.admit()?;
        peer.answer()?;
        for_ever(|| peer.message(b'D', &[&[0, 1, 0, 0, 0xEA, 0x60][..], &[b'x'; 60_000]].concat()))
    };
    must_fail(
        "impostor-login",
        vec![
            (
                "http",
                Impostor::who_logs_in(|peer| peer.raw(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))?,
                &["protocol-error"],
            ),
            ("short", Impostor::who_logs_in(|peer| peer.raw(b"R\0\0\0\x03"))?, &["protocol-error"]),
            ("negative", Impostor::who_logs_in(|peer| peer.raw(b"R\xFF\xFF\xFF\xFF"))?, &["protocol-error"]),
            ("huge", Impostor::who_logs_in(|peer| peer.raw(b"S\x7F\xFF\xFF\xFF"))?, &["protocol-error"]),
            ("nothing", Impostor::who_logs_in(|_| Ok(()))?, &["connection-lost"]),
            ("silence", Impostor::who_logs_in(|peer| peer.answer().map(drop))?, &["idle"]),
            ("garbage", Impostor::who_logs_in(|peer| peer.raw(&[0xA5; 100_000]))?, &["protocol-error"]),
            (
                "notices",
                Impostor::who_logs_in(|peer| {
                    for_ever(|| {
                        peer.message(b'N', &[&b"SWARNING\0VWARNING\0C01000\0M"[..], &[b'w'; 8_000], b"\0\0"].concat())
                    })
                })?,
                &["protocol-error"],
            ),
            (
                "parameters",
                Impostor::who_logs_in(|peer| {
                    for_ever(|| peer.message(b'S', &[&b"a\0"[..], &[b'b'; 8_000], b"\0"].concat()))
                })?,
                &["protocol-error"],
            ),
            ("rows", Impostor::who_logs_in(big_row)?, &["protocol-error"]),
            (
                "unproven",
                Impostor::who_logs_in(|peer| {
                    scram(peer)?;
                    peer.admit()
                })?,
                &["protocol-error", "server-not-authentic"],
            ),
            (
                "iterations",
                Impostor::who_logs_in(|peer| {
                    let nonce = scram(peer)?;
                    peer.message(
                        b'R',
                        format!("\0\0\0\x0Br={nonce}x,s=c2FsdHNhbHRzYWx0c2FsdA==,i=2147483647").as_bytes(),
                    )?;
                    peer.answer().map(drop)
                })?,
                &["iteration"],
            ),
        ],
    )
}
