//! Embeds the plugins: every `*.wasm` in the directory that `HOLDFAST_PLUGINS` names; without it none, and the binary says so.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HOLDFAST_PLUGINS");
    let components = match env::var_os("HOLDFAST_PLUGINS") {
        Some(directory) => {
            println!("cargo::rerun-if-changed={}", Path::new(&directory).display());
            components(Path::new(&directory))?
        }
        None => Vec::new(),
    };
    let mut source = "/// Components that came with this binary.\npub const COMPONENTS: &[&[u8]] = &[\n".to_owned();
    for path in components {
        println!("cargo::rerun-if-changed={}", path.display());
        writeln!(source, "    include_bytes!({:?}),", path.display().to_string())?;
    }
    source.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("components.rs"), source)?;
    Ok(())
}

/// In a fixed order, so that the same plugins make the same binary.
fn components(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let entries =
        fs::read_dir(directory).map_err(|error| format!("HOLDFAST_PLUGINS: {}: {error}", directory.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            paths.push(path.canonicalize()?);
        }
    }
    paths.sort();
    Ok(paths)
}
