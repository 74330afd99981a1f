//! The WASM engine of the process: its configuration, its epoch clock, and what its linker offers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_repository::Digest;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine as WasmEngine};

use crate::cache::Cache;
use crate::imports::{self, EnginePre};
use crate::plugin::Plugin;
use crate::state::State;
use crate::voice::harmless;
use crate::{Author, Compiler, Description, Failure, Limits};

/// The WASM engine, its epoch clock and the authenticated cache of compiled code. One for each process.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    engine: WasmEngine,
    linker: Linker<State>,
    cache: Cache,
    limits: Limits,
}

/// Where compiled code is kept, what authenticates it before it is loaded, and what loading a plugin may take.
pub struct RuntimeOptions {
    /// Created if it is missing.
    pub cache_directory: PathBuf,
    /// Secret of this appliance: who knows it can have code run in the host.
    pub cache_key: [u8; 32],
    /// Bounds on `describe`, which is given half a minute at most.
    pub limits: Limits,
    /// Where components are compiled that are not in the cache.
    pub compiler: Compiler,
}

/// How often guest code is looked at; every bound on its time is a multiple of this.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Bytes kept of what is wrong with a component: it holds names that its author chose.
const WORDS: usize = 8 << 10;
/// Bytes of the largest component that is loaded: compiling takes memory and time in proportion to it.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;

impl Runtime {
    /// Starts the engine and its clock. Errors: the cache directory cannot be made; the machine is not supported.
    pub fn new(options: RuntimeOptions) -> Result<Self, Failure> {
        let unsupported = |error: wasmtime::Error| {
            Failure::host("sandbox-unavailable", format!("cannot start the sandbox: {error:#}"))
        };
        let engine = WasmEngine::new(&config()).map_err(unsupported)?;
        let linker = imports::linker(&engine).map_err(unsupported)?;
        start_clock(&engine)?;
        let RuntimeOptions { cache_directory, cache_key, limits, compiler } = options;
        let cache = Cache::open(cache_directory, cache_key, compiler)?;
        Ok(Self { shared: Arc::new(Shared { engine, linker, cache, limits }) })
    }

    /// Compiles a component (or takes it from the cache), checks its imports, and asks it to describe itself. What it says from then
    /// on is marked as its `author` needs.
    ///
    /// Errors: [`Failure::Unusable`] names what is wrong with it; any other means that `describe` itself failed.
    pub async fn load(&self, component: Arc<[u8]>, author: Author) -> Result<Plugin, Failure> {
        if component.len() > COMPONENT_BYTES_MAX {
            return Err(Failure::Unusable(format!("it has more than {} MiB", COMPONENT_BYTES_MAX >> 20)));
        }
        if let Some(objection) = objection(&component) {
            return Err(Failure::Unusable(objection.to_owned()));
        }
        let (shared, bytes) = (self.shared.clone(), component.clone());
        let prepared = tokio::task::spawn_blocking(move || shared.prepare(&bytes))
            .await
            .map_err(|error| Failure::host("internal", format!("compiling a plugin ended early: {error}")))??;
        let described = crate::run::describe(prepared.pre.clone(), self.shared.limits.clone()).await?;
        Ok(Plugin::new(prepared, component, Description::parse(described)?, author))
    }

    /// Forgets the compiled code of a component that will not be loaded again.
    pub fn forget(&self, digest: Digest) {
        self.shared.cache.remove(digest);
    }
}

/// A component that is compiled and linked, and has said nothing yet.
pub(crate) struct Prepared {
    pub(crate) pre: EnginePre<State>,
    pub(crate) digest: Digest,
    pub(crate) imports: Vec<String>,
}

impl Shared {
    fn prepare(&self, bytes: &[u8]) -> Result<Prepared, Failure> {
        let digest = Digest::of(bytes);
        let component = self.cache.load(&self.engine, digest, bytes)?;
        let imports = imports::check(&component, &self.engine)?;
        let unusable = |error: wasmtime::Error| Failure::Unusable(harmless(&format!("{error:#}"), WORDS));
        let pre = self.link(&component).map_err(unusable)?;
        Ok(Prepared { pre, digest, imports })
    }

    fn link(&self, component: &Component) -> wasmtime::Result<EnginePre<State>> {
        EnginePre::new(self.linker.instantiate_pre(component)?)
    }
}

/// What all engines have in common, wherever they compile or run.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true).epoch_interruption(true);
    config
}

/// Why bytes are no component at all, in words that say which mistake it is.
fn objection(bytes: &[u8]) -> Option<&'static str> {
    match bytes.get(..8) {
        Some(b"\0asm\x0d\0\x01\0") => None,
        Some(b"\0asm\x01\0\0\0") => Some("it is a core module, not a component"),
        _ => Some("it is not a WebAssembly component"),
    }
}

/// The clock is a thread: guest code may keep every other one busy. It ends with the engine.
fn start_clock(engine: &WasmEngine) -> Result<(), Failure> {
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("epoch-clock".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })
        .map_err(|error| Failure::host("sandbox-unavailable", format!("cannot start the sandbox's clock: {error}")))?;
    Ok(())
}
