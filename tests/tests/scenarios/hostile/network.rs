//! Guests that would reach other servers or tell secrets in clear, and servers that play along.

use holdfast_text_guests::{DONE, Guest, describe};

use super::case::Export::{Describe, Probe, Restore, Verify};
use super::case::{Case, component, harm};
use super::servers::Manner;

pub fn cases() -> Vec<Case> {
    vec![
        harm(Probe, "second-member").against(Manner::Closing).fails("not-granted", &["position 1"]),
        harm(Probe, "last-member").against(Manner::Closing).fails("not-granted", &["position 4294967295"]),
        harm(Probe, "only-member").fails("not-granted", &["there are 0"]),
        harm(Restore, "only-member").fails("not-granted", &["there are 0"]),
        harm(Verify, "only-member").fails("not-granted", &["there are 0"]),
        harm(Probe, "secret-in-clear").with_tls().against(Manner::Silent).fails("tls-required", &["before TLS"]),
        harm(Probe, "secret-of-others").against(Manner::Silent).fails("told", &["others: []"]),
        harm(Restore, "secret-of-others").fails("told", &["others: []"]),
        harm(Probe, "much-in-clear").with_tls().against(Manner::Silent).fails("tls-required", &["4096 bytes"]),
        harm(Probe, "little-and-often").with_tls().against(Manner::Silent).fails("tls-required", &["4096 bytes"]),
        harm(Probe, "downgrade").with_tls().against(Manner::Saying(b"N")).fails("tls-required", &["before TLS"]),
        harm(Probe, "tls-after-failure")
            .with_tls()
            .against(Manner::Saying(b"no TLS here"))
            .fails("connection-lost", &[]),
        harm(Probe, "injected")
            .with_tls()
            .against(Manner::Saying(b"Sinjected"))
            .fails("plaintext-buffered", &["8 bytes"]),
        // Bounded by `connect`.
        harm(Probe, "silent-handshake").with_tls().against(Manner::Saying(b"S")).fails("tls-failed", &["in time"]),
        harm(Probe, "names-of-protocols").with_tls().against(Manner::Silent).fails("invalid-argument", &["16 names"]),
        harm(Probe, "drip").against(Manner::Dripping).exceeds("wall"),
        harm(Probe, "drip-exactly").against(Manner::Dripping).exceeds("wall"),
        harm(Probe, "silence").against(Manner::Silent).exceeds("idle"),
        harm(Probe, "silence-by-transfer").against(Manner::Endless).exceeds("wall"),
        harm(Probe, "unread").against(Manner::Silent).exceeds("idle"),
        harm(Probe, "echo").against(Manner::Echoing).exceeds("wall"),
        component(Describe, "any-socket", with_socket("any-socket", "../../../var/run/docker.sock"))
            .refused(&["socketName"]),
        component(Describe, "own-socket", with_socket("own-socket", "/run/holdfast.sock")).refused(&["socketName"]),
        wasi(
            "sockets-of-wasi",
            // Whatever the answer is, an error is in its first byte.
            "(call $socket (i32.const 0) (i32.const 64))
            (if (i32.eqz (i32.load8_u (i32.const 64))) (then
                (call $start-connect (i32.load (i32.const 68)) (call $network) (i32.const 0)
                    (i32.const 53) (i32.const 127) (i32.const 0) (i32.const 0) (i32.const 1)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 64))))
            (if (i32.eqz (i32.load8_u (i32.const 64))) (then unreachable))",
        )
        .harmless(0),
        wasi(
            "names-of-wasi",
            "(call $resolve (call $network) (i32.const 512) (i32.const 9) (i32.const 64))
            (if (i32.eqz (i32.load8_u (i32.const 64))) (then unreachable))",
        )
        .harmless(0),
        wasi("files-of-wasi", "(call $directories (i32.const 64)) (if (i32.load (i32.const 68)) (then unreachable))")
            .harmless(0),
        wasi(
            "environment-of-wasi",
            "(call $environment (i32.const 64)) (if (i32.load (i32.const 68)) (then unreachable))",
        )
        .harmless(0),
        wasi("exit-of-wasi", "(call $exit (i32.const 0))").crashes(&["exit"]),
    ]
}

/// A guest that asks WASI for something in its probe, and traps if it gets it.
fn wasi(name: &str, body: &str) -> Case {
    let guest = Guest::new(name).text("localhost").probe(format!("{body} {DONE}"));
    component(Probe, name, guest.component_with_wasi())
}

/// A plugin whose server's socket would lie in another directory than the one that the operator names.
fn with_socket(name: &str, socket: &str) -> Vec<u8> {
    let description = describe(name).replacen('{', &format!(r#"{{"socketName":"{socket}","#), 1);
    Guest::new(name).description(description).component()
}
