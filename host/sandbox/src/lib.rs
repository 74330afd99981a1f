//! Runs engine plugins: the only room that knows wasmtime. One guest, one store, one thread, one job's grants.
//!
//! A guest can do only what its [`Grants`] name, within its [`Limits`]; a trap, a loop or a lie fails its job and nothing
//! else. Nothing that a guest does may panic the host or make it wait past a limit.
//!
//! The way in: [`Runtime::load`] checks and compiles a component into a [`Plugin`]; [`Plugin::run`] calls one export on a
//! thread of its own; what the guest imports is in `imports`, a file an interface.

mod cache;
mod certificate;
mod compiler;
mod description;
mod dial;
mod extraction;
mod failure;
mod file;
mod grants;
mod guard;
mod holes;
mod imports;
mod limits;
mod order;
mod paths;
mod plugin;
mod run;
mod runtime;
mod socket;
mod state;
mod streams;
mod tls;
mod tree;
mod voice;
mod wasi;

pub use compiler::{COMPILE_COMPONENT, Compiler, CompilerLimits, compile_stdin};
pub use description::{Description, Method, Setting};
pub use failure::Failure;
pub use grants::{Destination, Grants, Member, TlsMode, TlsPolicy};
pub use limits::Limits;
pub use plugin::{Call, Plugin};
pub use runtime::{COMPONENT_BYTES_MAX, Runtime, RuntimeOptions};
pub use voice::{Author, Events, Watch, harmless, is_code};
