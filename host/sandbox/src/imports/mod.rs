//! What a guest may import: one host file for each interface of `wit/v1`, and WASI 0.2 with nothing in it.
//!
//! An interface that is not linked here cannot be imported: a component that wants it is refused when it is loaded, by name.

pub(crate) mod archive;
mod destination;
mod endpoint;
mod io;
mod job;
pub(crate) mod types;

use wasmtime::Engine as WasmEngine;
use wasmtime::component::{Component, HasSelf, Linker};

use crate::Failure;
use crate::state::State;
use crate::voice::harmless;

mod bindings {
    //! Generated from `wit/v1`.
    #![allow(missing_docs, clippy::all)]

    wasmtime::component::bindgen!({
        path: "../../wit/v1",
        world: "engine",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "holdfast:engine/io.byte-source": crate::streams::Source,
            "holdfast:engine/io.byte-sink": crate::streams::SinkSlot,
            "holdfast:engine/endpoint.connection": crate::socket::Socket,
            "holdfast:engine/archive.backup": holdfast_repository::BackupReader,
        },
        trappable_error_type: {
            "holdfast:engine/types.error" => crate::imports::types::CallError,
        },
    });
}

pub(crate) use bindings::{Engine, EnginePre};

use bindings::holdfast::engine as wit;

/// Bytes kept of the name of an import that is not offered.
const NAME: usize = 256;
const PACKAGE: &str = "holdfast:engine/";
const VERSION: &str = "1.0.0-rc.1";
/// The interfaces linked below.
const OFFERED: &[&str] = &["types", "io", "endpoint", "job", "archive", "destination"];

/// Links every interface that is offered.
pub(crate) fn linker(engine: &WasmEngine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wit::types::add_to_linker::<_, HasSelf<State>>(&mut linker, State::host_call)?;
    wit::io::add_to_linker::<_, HasSelf<State>>(&mut linker, State::host_call)?;
    wit::endpoint::add_to_linker::<_, HasSelf<State>>(&mut linker, State::host_call)?;
    wit::job::add_to_linker::<_, HasSelf<State>>(&mut linker, State::host_call)?;
    wit::archive::add_to_linker::<_, HasSelf<State>>(&mut linker, State::host_call)?;
    wit::destination::add_to_linker::<_, HasSelf<State>>(&mut linker, State::host_call)?;
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// What a component imports, by name. Refuses one that imports what is not offered.
pub(crate) fn check(component: &Component, engine: &WasmEngine) -> Result<Vec<String>, Failure> {
    let mut imports = Vec::new();
    for (name, _) in component.component_type().imports(engine) {
        if !is_offered(name) {
            let name = harmless(name, NAME);
            return Err(Failure::Unusable(format!("it imports {name}, which this version of Holdfast does not offer")));
        }
        imports.push(name.to_owned());
    }
    Ok(imports)
}

fn is_offered(import: &str) -> bool {
    let ours = import.strip_prefix(PACKAGE).and_then(|rest| rest.split_once('@'));
    match ours {
        Some((interface, version)) => version == VERSION && OFFERED.contains(&interface),
        // Of WASI, the linker knows better what there is.
        None => import.starts_with("wasi:"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_linked_interfaces_are_offered() {
        assert!(is_offered("holdfast:engine/io@1.0.0-rc.1"));
        assert!(is_offered("wasi:cli/stdout@0.2.3"));
        for import in [
            "holdfast:engine/process@1.0.0-rc.1",
            "holdfast:engine/io@2.0.0",
            "holdfast:engine/io",
            "env",
            "evil:host/shell@1.0.0",
        ] {
            assert!(!is_offered(import), "{import}");
        }
    }

    #[test]
    fn the_linker_knows_every_offered_interface() {
        let engine = WasmEngine::default();
        assert!(linker(&engine).is_ok());
    }
}
