//! Tiny plugins, written as WebAssembly text, and what they are run with. A guest does one thing in `probe`.

use std::path::Path;
use std::sync::{Arc, Mutex};

use holdfast_sandbox::{
    Author, Call, Compiler, Events, Failure, Grants, Limits, Member, Plugin, Runtime, RuntimeOptions, TlsMode,
    TlsPolicy, Watch,
};
use holdfast_text_guests::Guest;
use tokio_util::sync::CancellationToken;

pub use holdfast_text_guests::{CONNECT, DONE, RESULT};

/// A component whose `probe` is `body`, with `text` where [`holdfast_text_guests::TEXT`] says.
pub fn component(text: &str, body: &str) -> Arc<[u8]> {
    with_memory(8, text, body)
}

/// The same with a memory of `pages` from the beginning.
pub fn with_memory(pages: u32, text: &str, body: &str) -> Arc<[u8]> {
    Guest::new("guest").pages(pages).text(text).probe(body).component().into()
}

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
        self.runtime.load(component, Author::Ours).await.expect("a usable plugin")
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
