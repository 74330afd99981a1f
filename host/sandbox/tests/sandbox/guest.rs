//! Tiny plugins, written as core WebAssembly text over the canonical ABI and encoded as components of the world `engine`.
//!
//! A guest does one thing in `probe`, which returns a pointer to a `result<json, error>`. A host call's failed result has its
//! error in the same place, so a guest hands it on by returning the call's own result.

use std::path::Path;
use std::sync::{Arc, Mutex};

use holdfast_sandbox::{
    Call, Compiler, Events, Failure, Grants, Limits, Member, Plugin, Runtime, RuntimeOptions, TlsMode, TlsPolicy, Watch,
};
use tokio_util::sync::CancellationToken;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const DESCRIPTION: &str = r#"{"name":"guest","version":"1","engine":"guest","title":"Guest","settings":[],"defaultPort":1,"methods":[{"name":"m","types":["full"],"restoresTo":"server","description":"d"}]}"#;

/// Where a host call may put its result, for a guest to return.
pub const RESULT: u32 = 64;

/// The functions of the host, by the names that guests call them by here.
const IMPORTS: &[(&str, &str, &str, &str)] = &[
    ("connect", "endpoint", "connect", "(param i32 i32)"),
    ("input", "endpoint", "[method]connection.input", "(param i32) (result i32)"),
    ("output", "endpoint", "[method]connection.output", "(param i32) (result i32)"),
    ("start-tls", "endpoint", "[method]connection.start-tls", "(param i32 i32 i32 i32)"),
    ("read", "io", "[method]byte-source.read", "(param i32 i32 i32)"),
    ("read-exact", "io", "[method]byte-source.read-exact", "(param i32 i32 i32)"),
    ("write", "io", "[method]byte-sink.write", "(param i32 i32 i32 i32)"),
    ("finish", "io", "[static]byte-sink.finish", "(param i32 i32)"),
    ("transfer", "io", "transfer", "(param i32 i32 i64 i32)"),
    ("wait", "io", "wait", "(param i32 i32 i32 i32)"),
    ("secret", "job", "secret", "(param i32 i32 i32)"),
    ("log", "job", "log", "(param i32 i32 i32 i32)"),
    ("now", "job", "now", "(result i64)"),
    ("random", "job", "random", "(param i32 i32)"),
    ("current", "archive", "current", "(param i32)"),
    ("open", "archive", "[method]backup.open", "(param i32 i32 i32 i64 i32 i64 i32)"),
    ("begin-entry", "archive", "begin-entry", "(param i32 i32 i32 i32 i32 i32 i64 i32 i64 i32 i32 i32 i32 i32)"),
    ("extract", "destination", "extract", "(param i32 i32 i32)"),
    ("settle", "destination", "settle", "(param i32)"),
    ("create-file", "destination", "create-file", "(param i32 i32 i32 i32 i32 i32)"),
    ("sleep", "wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration", "(param i64) (result i32)"),
    ("block", "wasi:io/poll@0.2.0", "[method]pollable.block", "(param i32)"),
    ("spawn", "process", "spawn", "(param i32 i32 i32 i32 i32 i32 i32)"),
];

/// A component whose `probe` is `body`, with `text` at address 512. Only what the body calls is imported.
pub fn component(text: &str, body: &str) -> Arc<[u8]> {
    with_memory(8, text, body)
}

/// The same with a memory of `pages` from the beginning.
pub fn with_memory(pages: u32, text: &str, body: &str) -> Arc<[u8]> {
    encode(&module(pages, text, body), "", "engine")
}

/// The core module of such a guest, as text.
pub fn module(pages: u32, text: &str, body: &str) -> String {
    let imports: String = IMPORTS
        .iter()
        .filter(|(name, ..)| body.contains(&format!("call ${name}\n")) || body.contains(&format!("call ${name} ")))
        .map(|(name, interface, function, signature)| {
            let ours = format!("holdfast:engine/{interface}@1.0.0-rc.1");
            let interface = if interface.contains(':') { interface } else { ours.as_str() };
            format!(r#"(import "{interface}" "{function}" (func ${name} {signature}))"#)
        })
        .collect();
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let exports: String = ["dump", "restore", "verify"]
        .iter()
        .map(|name| {
            format!(
                r#"(func (export "holdfast:engine/plugin@1.0.0-rc.1#{name}") (param i32 i32) (result i32) unreachable)"#
            )
        })
        .collect();
    format!(
        r#"(module {imports}
            (memory (export "memory") {pages})
            (global $free (mut i32) (i32.const 65536))
            (data (i32.const 16) "\00\08\00\00\{length:02x}\00\00\00")
            (data (i32.const 32) "\00\00\00\00\30\00\00\00\02\00\00\00")
            (data (i32.const 48) "{{}}")
            (data (i32.const 512) "{text}")
            (data (i32.const 2048) "{description}")
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.get $free)
                (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get 3)) (i32.const 7)) (i32.const -8))))
            (func (export "holdfast:engine/plugin@1.0.0-rc.1#describe") (result i32) (i32.const 16))
            (func (export "holdfast:engine/plugin@1.0.0-rc.1#probe") (result i32)
                (local $connection i32) (local $source i32) (local $sink i32)
                {body}
            )
            {exports})"#,
        length = DESCRIPTION.len(),
        text = escape(text),
        description = escape(DESCRIPTION),
    )
}

/// What a guest imports of WASI, for [`encode`].
pub const WASI: &str = "
    package guest:wasi;
    world wasi {
        import wasi:io/poll@0.2.0;
        import wasi:clocks/monotonic-clock@0.2.0;
        export holdfast:engine/plugin@1.0.0-rc.1;
    }
    package wasi:io@0.2.0 {
        interface poll { resource pollable { block: func(); } }
    }
    package wasi:clocks@0.2.0 {
        interface monotonic-clock {
            use wasi:io/poll@0.2.0.{pollable};
            subscribe-duration: func(when: u64) -> pollable;
        }
    }
";

/// A core module's text as a component of a world, given more packages in `wit`.
pub fn encode(module: &str, wit: &str, world: &str) -> Arc<[u8]> {
    let mut module = wat::parse_str(module).expect("the guest's text is right");
    let mut resolve = Resolve::default();
    let interface = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/v1");
    let (mut package, _) = resolve.push_dir(interface).expect("the interface parses");
    if !wit.is_empty() {
        package = resolve.push_str("guest.wit", wit).expect("the guest's interface parses");
    }
    let world = resolve.select_world(&[package], Some(world)).expect("there is a world");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).expect("embedded");
    let mut encoder = ComponentEncoder::default();
    encoder.validate(true);
    encoder.module(&module).expect("a module");
    encoder.encode().expect("a component").into()
}

/// Returns the result `{}`.
pub const DONE: &str = "(i32.const 32)";

/// Connects to the first member, or hands the error on.
pub const CONNECT: &str = "
    (call $connect (i32.const 0) (i32.const 64))
    (if (i32.load8_u (i32.const 64)) (then (return (i32.const 64))))
    (local.set $connection (i32.load (i32.const 68)))
";

/// A sandbox with a cache of its own.
pub struct Sandbox {
    pub runtime: Runtime,
    pub directory: tempfile::TempDir,
}

impl Sandbox {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { runtime: runtime(directory.path()), directory }
    }

    pub async fn load(&self, component: Arc<[u8]>) -> Plugin {
        self.runtime.load(component).await.expect("a usable plugin")
    }

    /// Loads a guest and runs its probe.
    pub async fn probe(&self, component: Arc<[u8]>, grants: Grants) -> Result<serde_json::Value, Failure> {
        self.load(component).await.run(Call::Probe, grants, watch().0).await
    }
}

pub fn runtime(cache: &Path) -> Runtime {
    let options = RuntimeOptions {
        cache_directory: cache.to_owned(),
        cache_key: [1; 32],
        limits: Limits::default(),
        compiler: Compiler::Here,
    };
    Runtime::new(options).expect("a runtime")
}

/// Keeps the lines of a job's log.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<String>>);

impl Events for Heard {
    fn log(&self, level: &str, message: &str) {
        self.0.lock().expect("unpoisoned").push(format!("{level}: {message}"));
    }
    fn progress(&self, _phase: &str, _done: u64, _total: Option<u64>, _unit: &str) {}
}

pub fn watch() -> (Watch, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    (Watch { events: heard.clone(), cancel: CancellationToken::new() }, heard)
}

/// One TCP member on this machine, without TLS.
pub fn member(port: u16) -> Grants {
    Grants {
        members: vec![Member::Tcp { host: "127.0.0.1".to_owned(), port }],
        tls: TlsPolicy { mode: TlsMode::Off, ..TlsPolicy::default() },
        ..Grants::default()
    }
}

pub fn limited(limits: Limits) -> Grants {
    Grants { limits, ..Grants::default() }
}

/// The code of a failure that the guest reported or handed on.
pub fn code(result: Result<serde_json::Value, Failure>) -> String {
    match result {
        Err(Failure::Reported { code, .. } | Failure::Host { code, .. }) => code,
        other => format!("{other:?}"),
    }
}

/// The limit that a run exceeded.
pub fn limit(result: Result<serde_json::Value, Failure>) -> String {
    match result {
        Err(Failure::Limit { limit, .. }) => limit.to_owned(),
        other => format!("{other:?}"),
    }
}
