//! Guests that mean harm, or are merely wrong: each fails its own run in the way that is promised, and nothing else.

use std::time::Duration;

use crate::guest::{CONNECT, DONE, RESULT, Sandbox, code, component, limit, limited, member, watch, with_memory};
use holdfast_sandbox::{Author, Call, Destination, Failure, Grants, Limits, Member};
use holdfast_text_guests::Guest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UnixListener};

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

#[tokio::test]
async fn a_harmless_guest_answers() {
    let answer = Sandbox::new().probe(component("", DONE), Grants::default()).await;
    assert_eq!(answer.expect("an answer"), serde_json::json!({}));
}

#[tokio::test]
async fn an_endless_loop_ends() {
    let limits = Limits { cpu: Duration::from_millis(100), ..Limits::default() };
    let guest = component("", "(loop $again (br $again)) unreachable");
    assert_eq!(limit(Sandbox::new().probe(guest, limited(limits)).await), "cpu");
}

#[tokio::test]
async fn a_flood_of_host_calls_ends() {
    let limits = Limits { wall: Duration::from_millis(200), ..Limits::default() };
    let guest = component("", "(loop $again (drop (call $now )) (br $again)) unreachable");
    assert_eq!(limit(Sandbox::new().probe(guest, limited(limits)).await), "wall");
}

#[tokio::test]
async fn a_memory_bomb_is_refused() {
    let bomb = "(loop $again (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable";
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    assert_eq!(limit(Sandbox::new().probe(component("", bomb), limited(limits)).await), "memory");
    // A guest that begins with too much does not even describe itself.
    let loaded = Sandbox::new().runtime.load(with_memory(5_000, "", DONE), Author::Ours).await;
    assert!(matches!(loaded.err(), Some(Failure::Limit { limit: "memory", .. })));
}

#[tokio::test]
async fn too_many_handles_are_refused() {
    let (_listener, port) = listener().await;
    let guest = component(
        "",
        &format!("{CONNECT} (loop $again (drop (call $input (local.get $connection))) (br $again)) unreachable"),
    );
    assert_eq!(limit(Sandbox::new().probe(guest, member(port)).await), "handles");
}

#[tokio::test]
async fn too_many_bytes_in_one_call_are_refused() {
    let guest =
        with_memory(64, "", "(call $log (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2097152)) unreachable");
    assert_eq!(limit(Sandbox::new().probe(guest, Grants::default()).await), "host-call");
}

#[tokio::test]
async fn a_crash_is_reported_with_its_last_words() {
    let guest =
        component("errorwhy\n", "(call $log (i32.const 512) (i32.const 5) (i32.const 517) (i32.const 4)) unreachable");
    let plugin = Sandbox::new().load(guest).await;
    let (watch, heard) = watch();
    match plugin.run(Call::Probe, Grants::default(), watch).await {
        Err(Failure::Trapped { message }) => assert!(message.ends_with("its last words were: why\\n"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(*heard.0.lock().expect("unpoisoned"), ["error: why\\n"]);
}

#[tokio::test]
async fn a_silent_server_is_left_at_the_idle_limit() {
    let (_listener, port) = listener().await;
    let guest = component(
        "",
        &format!(
            "{CONNECT} (call $read (call $input (local.get $connection)) (i32.const 1) (i32.const 64)) unreachable"
        ),
    );
    let mut grants = member(port);
    grants.limits.idle = Duration::from_millis(50);
    assert_eq!(limit(Sandbox::new().probe(guest, grants).await), "idle");
}

/// A guest that waits for ever in a read.
fn blocked() -> std::sync::Arc<[u8]> {
    component(
        "",
        &format!(
            "{CONNECT} (call $read (call $input (local.get $connection)) (i32.const 1) (i32.const 64)) unreachable"
        ),
    )
}

#[tokio::test]
async fn a_guest_that_waits_for_a_server_can_be_cancelled() {
    let (listener, port) = listener().await;
    let plugin = Sandbox::new().load(blocked()).await;
    let (watch, _) = watch();
    let cancel = watch.cancel.clone();
    let run = tokio::spawn(async move { plugin.run(Call::Probe, member(port), watch).await });
    let (mut server, _) = listener.accept().await.expect("dialled");
    cancel.cancel();
    assert!(matches!(run.await.expect("no panic"), Err(Failure::Cancelled)));
    assert_eq!(server.read(&mut [0]).await.expect("closed in order"), 0);
}

#[tokio::test]
async fn a_run_that_nobody_waits_for_ends() {
    let (listener, port) = listener().await;
    let plugin = Sandbox::new().load(blocked()).await;
    let run = tokio::spawn(async move { plugin.run(Call::Probe, member(port), watch().0).await });
    let (mut server, _) = listener.accept().await.expect("dialled");
    run.abort();
    assert_eq!(server.read(&mut [0]).await.expect("closed in order"), 0);
}

#[tokio::test]
async fn only_granted_members_are_dialled() {
    let (listener, port) = listener().await;
    let second = format!("(call $connect (i32.const 1) (i32.const {RESULT})) (i32.const {RESULT})");
    assert_eq!(code(Sandbox::new().probe(component("", &second), member(port)).await), "not-granted");
    drop(listener);
    let first = format!("{CONNECT} unreachable");
    let refused = Sandbox::new().probe(component("", &first), member(port)).await;
    match refused {
        Err(Failure::Host { code, hint: Some(hint), retryable: true, .. }) => {
            assert_eq!(code, "connection-refused");
            assert!(hint.contains(&format!("127.0.0.1:{port}")), "{hint}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn secrets_are_kept_until_the_connection_is_safe() {
    let (_listener, port) = listener().await;
    let guest = || {
        component(
            "password",
            &format!(
                "(call $secret (i32.const 512) (i32.const 8) (i32.const {RESULT})) (if (i32.load8_u (i32.const {RESULT})) (then (return (i32.const {RESULT})))) {DONE}"
            ),
        )
    };
    let safe = |grants: Grants| Grants { secrets: [("password".to_owned(), b"hush".to_vec().into())].into(), ..grants };
    let mut grants = safe(member(port));
    grants.tls = Default::default();
    assert_eq!(code(Sandbox::new().probe(guest(), grants).await), "tls-required");
    assert!(Sandbox::new().probe(guest(), safe(member(port))).await.is_ok(), "the operator turned TLS off");
    let unix = Grants { members: vec![Member::Unix("/no/such/socket".into())], ..Grants::default() };
    assert!(Sandbox::new().probe(guest(), safe(unix)).await.is_ok(), "a Unix socket leaves no machine");
}

#[tokio::test]
async fn little_is_sent_before_tls() {
    let (_listener, port) = listener().await;
    let guest = |length: u32| {
        component(
            "",
            &format!(
                "{CONNECT} (call $write (call $output (local.get $connection)) (i32.const 0) (i32.const {length}) (i32.const {RESULT})) (if (i32.load8_u (i32.const {RESULT})) (then (return (i32.const {RESULT})))) {DONE}"
            ),
        )
    };
    let grants = || Grants { tls: Default::default(), ..member(port) };
    assert!(Sandbox::new().probe(guest(4_096), grants()).await.is_ok());
    assert_eq!(code(Sandbox::new().probe(guest(4_097), grants()).await), "tls-required");
    assert_eq!(code(Sandbox::new().probe(guest(65_537), member(port)).await), "invalid-argument");
}

#[tokio::test]
async fn bytes_ahead_of_tls_are_refused() {
    let (listener, port) = listener().await;
    let guest = component(
        "",
        &format!(
            "{CONNECT}
        (call $read-exact (call $input (local.get $connection)) (i32.const 1) (i32.const {RESULT}))
        (call $start-tls (local.get $connection) (i32.const 0) (i32.const 0) (i32.const {RESULT}))
        (i32.const {RESULT})"
        ),
    );
    let plugin = Sandbox::new().load(guest).await;
    let grants = Grants { tls: Default::default(), ..member(port) };
    let run = tokio::spawn(async move { plugin.run(Call::Probe, grants, watch().0).await });
    let (mut server, _) = listener.accept().await.expect("dialled");
    server.write_all(b"Sinjected").await.expect("sent");
    assert_eq!(code(run.await.expect("no panic")), "plaintext-buffered");
}

#[tokio::test]
async fn bytes_can_be_moved_from_a_connection_to_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bound");
    let guest = component(
        "",
        &format!(
            "{CONNECT}
        (local.set $source (call $input (local.get $connection)))
        (local.set $sink (call $output (local.get $connection)))
        (call $read-exact (local.get $source) (i32.const 2) (i32.const {RESULT}))
        (call $transfer (local.get $source) (local.get $sink) (i64.const 5) (i32.const {RESULT}))
        (if (i64.ne (i64.load (i32.const 72)) (i64.const 5)) (then unreachable))
        (call $finish (local.get $sink) (i32.const {RESULT}))
        (if (i64.ne (i64.load (i32.const 72)) (i64.const 5)) (then unreachable))
        {DONE}"
        ),
    );
    let plugin = Sandbox::new().load(guest).await;
    let grants = Grants { members: vec![Member::Unix(path)], ..Grants::default() };
    let run = tokio::spawn(async move { plugin.run(Call::Probe, grants, watch().0).await });
    let (mut server, _) = listener.accept().await.expect("dialled");
    server.write_all(b"->hello!").await.expect("sent");
    let mut echoed = Vec::new();
    server.read_to_end(&mut echoed).await.expect("closed in order");
    assert_eq!(echoed, b"hello");
    assert!(run.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn waiting_says_who_can_be_read() {
    let (listener, port) = listener().await;
    // The positions' list lies at 72: its address, then its length.
    let guest = component(
        "",
        &format!(
            "{CONNECT}
        (i32.store (i32.const 600) (call $input (local.get $connection)))
        {CONNECT}
        (i32.store (i32.const 604) (call $input (local.get $connection)))
        (call $wait (i32.const 600) (i32.const 2) (i32.const 60000) (i32.const {RESULT}))
        (if (i32.load8_u (i32.const {RESULT})) (then (return (i32.const {RESULT}))))
        (if (i32.ne (i32.load (i32.const 72)) (i32.const 1)) (then unreachable))
        (if (i32.ne (i32.load (i32.load (i32.const 68))) (i32.const 1)) (then unreachable))
        (call $wait (i32.const 600) (i32.const 1) (i32.const 1) (i32.const {RESULT}))
        (if (i32.load (i32.const 72)) (then unreachable))
        {DONE}"
        ),
    );
    let plugin = Sandbox::new().load(guest).await;
    let run = tokio::spawn(async move { plugin.run(Call::Probe, member(port), watch().0).await });
    let (_silent, _) = listener.accept().await.expect("dialled");
    let (mut second, _) = listener.accept().await.expect("dialled twice");
    second.write_all(b"x").await.expect("sent");
    let result = run.await.expect("no panic");
    assert!(result.is_ok(), "{result:?}");
}

/// Creates a file by the path in the text, writes to it `times` 1,000 bytes, and finishes it.
fn writer(path: &str, times: u32) -> std::sync::Arc<[u8]> {
    component(path, &format!(
        "(call $create-file (i32.const 0) (i32.const 0) (i32.const 512) (i32.const {length}) (i32.const 384) (i32.const {RESULT}))
        (if (i32.load8_u (i32.const {RESULT})) (then (return (i32.const {RESULT}))))
        (local.set $sink (i32.load (i32.const 68)))
        (local.set $source (i32.const {times}))
        (loop $again
            (call $write (local.get $sink) (i32.const 0) (i32.const 1000) (i32.const {RESULT}))
            (if (i32.load8_u (i32.const {RESULT})) (then (return (i32.const {RESULT}))))
            (local.set $source (i32.sub (local.get $source) (i32.const 1)))
            (br_if $again (local.get $source)))
        (call $finish (local.get $sink) (i32.const {RESULT}))
        {DONE}",
        length = path.len()
    ))
}

#[tokio::test]
async fn nothing_is_written_outside_the_destination() {
    let directory = tempfile::tempdir().expect("a directory");
    let (root, outside) = (directory.path().join("root"), directory.path().join("outside"));
    std::fs::create_dir_all(root.join("base")).expect("created");
    std::fs::create_dir(&outside).expect("created");
    let grants = || Grants {
        destination: Some(Destination { roots: vec![(String::new(), root.clone())], owner: None }),
        ..Grants::default()
    };
    let sandbox = Sandbox::new();
    assert_eq!(code(sandbox.probe(writer("file", 1), Grants::default()).await), "unknown-root");
    assert_eq!(code(sandbox.probe(writer("../outside/file", 1), grants()).await), "invalid-path");
    assert_eq!(code(sandbox.probe(writer("/tmp/file", 1), grants()).await), "invalid-path");
    std::fs::remove_dir(root.join("base")).expect("removed");
    std::os::unix::fs::symlink(&outside, root.join("base")).expect("linked");
    assert_eq!(code(sandbox.probe(writer("base/file", 1), grants()).await), "path-escapes");
    assert_eq!(std::fs::read_dir(&outside).expect("there").count(), 0);
    assert!(sandbox.probe(writer("file", 3), grants()).await.is_ok());
    assert_eq!(std::fs::metadata(root.join("file")).expect("there").len(), 3_000);
}

#[tokio::test]
async fn endless_output_ends_and_leaves_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let grants = Grants {
        destination: Some(Destination { roots: vec![(String::new(), directory.path().to_owned())], owner: None }),
        limits: Limits { output_bytes: 10_000, ..Limits::default() },
        ..Grants::default()
    };
    assert_eq!(limit(Sandbox::new().probe(writer("file", u32::MAX), grants).await), "output");
    assert!(!directory.path().join("file").exists());
}

#[tokio::test]
async fn a_guest_that_sleeps_in_wasi_is_killed() {
    let asleep = "(call $block (call $sleep (i64.const 3600000000000))) unreachable";
    let guest = Guest::new("guest").probe(asleep).component_with_wasi().into();
    let limits = Limits { wall: Duration::from_millis(50), ..Limits::default() };
    assert_eq!(limit(Sandbox::new().probe(guest, limited(limits)).await), "wall");
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_name() {
    let seven = "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 64)";
    let guest = component("", &format!("(call $spawn {seven}) unreachable"));
    match Sandbox::new().runtime.load(guest, Author::Ours).await.err() {
        Some(Failure::Unusable(message)) => {
            assert!(message.contains("holdfast:engine/process"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    for bytes in [&b""[..], b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"] {
        let loaded = Sandbox::new().runtime.load(bytes.into(), Author::Ours).await;
        assert!(matches!(loaded.err(), Some(Failure::Unusable(_))), "{bytes:?} is no plugin");
    }
}

#[tokio::test]
async fn tampered_code_is_compiled_anew() {
    let sandbox = Sandbox::new();
    let guest = component("", DONE);
    let digest = sandbox.load(guest.clone()).await.digest();
    let file = sandbox.directory.path().join(digest.to_string());
    let good = std::fs::read(&file).expect("kept");
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&file, &bad).expect("written");
    let again = crate::guest::runtime(sandbox.directory.path());
    assert!(again.load(guest, Author::Ours).await.is_ok());
    assert_ne!(std::fs::read(&file).expect("kept"), bad, "what lay there was replaced");
}
