//! Builds every plugin under `plugins/` for wasm and encodes each as a component: `target/plugins/NAME.wasm`. So are the
//! tests' own guests, in a directory of their own.
//!
//! A first-party plugin imports `holdfast:engine` and nothing else; one that does is refused here, before it reaches a sandbox.
//! An unchanged component is not written again, so that the binary that embeds it is not rebuilt.

use std::fs;
use std::path::Path;

use wit_component::{ComponentEncoder, DecodedWasm};

use crate::workspace::{Result, Workspace, run};

const TARGET: &str = "wasm32-unknown-unknown";

/// The only package whose interfaces our plugins may import.
const ALLOWED: &str = "holdfast:engine/";

/// Builds and encodes all plugins, which the binary embeds.
pub fn build(workspace: &Workspace) -> Result<()> {
    build_all(workspace, "plugins", "holdfast-plugin", &workspace.plugins())
}

/// Builds and encodes the guests of the tests, which nothing embeds: `target/guests/NAME.wasm`.
pub fn build_guests(workspace: &Workspace) -> Result<()> {
    build_all(workspace, "tests/guests", "holdfast-guest", &workspace.target.join("guests"))
}

/// Every folder `NAME` in `folder` is a package `PREFIX-NAME`, and becomes `NAME.wasm` in `to`.
fn build_all(workspace: &Workspace, folder: &str, prefix: &str, to: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(workspace.root.join(folder))? {
        let entry = entry?;
        if entry.path().join("Cargo.toml").is_file() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();

    let packages: Vec<String> = names.iter().map(|name| format!("--package={prefix}-{name}")).collect();
    let mut arguments = vec!["build", "--release", "--lib", "--target", TARGET];
    arguments.extend(packages.iter().map(String::as_str));
    run(workspace.cargo(&arguments))?;

    fs::create_dir_all(to)?;
    for name in names {
        let library = format!("{prefix}-{name}").replace('-', "_");
        let module = workspace.target.join(TARGET).join("release").join(format!("{library}.wasm"));
        let component = encode(&fs::read(&module)?).map_err(|error| format!("{folder}/{name}: {error}"))?;
        write_if_changed(&to.join(format!("{name}.wasm")), &component)?;
    }
    Ok(())
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    let component = ComponentEncoder::default().module(module)?.validate(true).encode()?;
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&component)? else {
        return Err("it is encoded as a WIT package, not as a component".into());
    };
    for key in resolve.worlds[world].imports.keys() {
        let import = resolve.name_world_key(key);
        if !import.starts_with(ALLOWED) {
            return Err(format!("it imports {import}; only {ALLOWED}* is allowed").into());
        }
    }
    Ok(component)
}

#[allow(clippy::disallowed_methods)] // Losing the file costs a build.
fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let temporary = path.with_extension("new");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, path)?;
    Ok(())
}
