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
use crate::{Description, Failure};

/// The WASM engine, its epoch clock and the authenticated cache of compiled code. One for each process.
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    engine: WasmEngine,
    linker: Linker<State>,
    cache: Cache,
}

/// Where compiled code is kept, and what authenticates it before it is loaded.
pub struct RuntimeOptions {
    /// Created if it is missing.
    pub cache_directory: PathBuf,
    /// Secret of this appliance: who knows it can have code run in the host.
    pub cache_key: [u8; 32],
}

/// How often guest code is looked at; every bound on its time is a multiple of this.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Compiling takes memory and time in proportion to the component.
const LARGEST_COMPONENT: usize = 64 << 20;

impl Runtime {
    /// Starts the engine and its clock. Errors: the cache directory cannot be made; the machine is not supported.
    pub fn new(options: RuntimeOptions) -> Result<Self, Failure> {
        let unsupported = |error: wasmtime::Error| {
            Failure::host("sandbox-unavailable", format!("cannot start the sandbox: {error:#}"))
        };
        let mut config = Config::new();
        config.wasm_component_model(true).epoch_interruption(true);
        let engine = WasmEngine::new(&config).map_err(unsupported)?;
        let linker = imports::linker(&engine).map_err(unsupported)?;
        start_clock(&engine)?;
        let cache = Cache::open(options)?;
        Ok(Self { shared: Arc::new(Shared { engine, linker, cache }) })
    }

    /// Compiles a component (or takes it from the cache), checks its imports, and asks it to describe itself.
    ///
    /// Errors: [`Failure::Unusable`] names what is wrong with it; any other means that `describe` itself failed.
    pub async fn load(&self, component: Arc<[u8]>) -> Result<Plugin, Failure> {
        if component.len() > LARGEST_COMPONENT {
            return Err(Failure::Unusable(format!("it has more than {} MiB", LARGEST_COMPONENT >> 20)));
        }
        let (shared, bytes) = (self.shared.clone(), component.clone());
        let (digest, pre) = tokio::task::spawn_blocking(move || shared.prepare(&bytes))
            .await
            .map_err(|error| Failure::host("internal", format!("compiling a plugin ended early: {error}")))??;
        let described = crate::run::describe(pre.clone()).await?;
        Ok(Plugin::new(pre, digest, component, Description::parse(described)?))
    }
}

impl Shared {
    fn prepare(&self, bytes: &[u8]) -> Result<(Digest, EnginePre<State>), Failure> {
        let digest = Digest::of(bytes);
        let component = self.cache.load(&self.engine, digest, bytes)?;
        imports::check(&component, &self.engine)?;
        Ok((digest, self.link(&component).map_err(|error| Failure::Unusable(format!("{error:#}")))?))
    }

    fn link(&self, component: &Component) -> wasmtime::Result<EnginePre<State>> {
        EnginePre::new(self.linker.instantiate_pre(component)?)
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
