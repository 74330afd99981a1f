//! Compiled code kept on disk, authenticated before it is loaded.
//!
//! Loading compiled code is running it in the host: so a file counts only if its MAC, under a key of this appliance's, covers
//! the engine's version and configuration, the component's digest and every byte of code. Anything else in its place is
//! compiled anew and overwritten.

use std::hash::{Hash, Hasher};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_repository::Digest;
use wasmtime::Engine as WasmEngine;
use wasmtime::component::Component;
use zeroize::Zeroizing;

use crate::{Compiler, Failure};

pub(crate) struct Cache {
    directory: PathBuf,
    key: Zeroizing<[u8; 32]>,
    compiler: Compiler,
}

const MAC: usize = blake3::OUT_LEN;

impl Cache {
    pub(crate) fn open(directory: PathBuf, key: [u8; 32], compiler: Compiler) -> Result<Self, Failure> {
        std::fs::create_dir_all(&directory).map_err(|error| {
            Failure::host("cache-unavailable", format!("cannot create {}: {error}", directory.display()))
        })?;
        Ok(Self { directory, key: Zeroizing::new(key), compiler })
    }

    /// The compiled component: from the cache if what lies there is ours, else compiled and put there.
    pub(crate) fn load(&self, engine: &WasmEngine, digest: Digest, bytes: &[u8]) -> Result<Component, Failure> {
        let file = self.directory.join(digest.to_string());
        if let Some(component) = self.read(engine, digest, &file) {
            return Ok(component);
        }
        let code = self.compiler.compile(engine, bytes)?;
        // Without a cache every start compiles again: slower, not wrong.
        if let Err(error) = self.write(engine, digest, &code, &file) {
            tracing::warn!(file = %file.display(), "cannot keep compiled code: {error:#}");
        }
        admit(engine, &code)
            .map_err(|error| Failure::host("internal", format!("compiled code cannot be loaded: {error:#}")))
    }

    /// Removes what is kept for a component, if anything is.
    pub(crate) fn remove(&self, digest: Digest) {
        let file = self.directory.join(digest.to_string());
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), "cannot remove compiled code: {error}");
        }
    }

    fn read(&self, engine: &WasmEngine, digest: Digest, file: &Path) -> Option<Component> {
        let stored = std::fs::read(file).ok()?;
        let (mac, code) = stored.split_at_checked(MAC)?;
        let mac = blake3::Hash::from_slice(mac).ok()?;
        // Comparing two `Hash` takes the same time wherever they differ.
        if self.mac(engine, digest, code) != mac {
            tracing::warn!(file = %file.display(), "compiled code is not ours or is from another version: compiling anew");
            return None;
        }
        admit(engine, code).ok()
    }

    #[allow(clippy::disallowed_methods)] // Losing the file costs a compilation.
    fn write(&self, engine: &WasmEngine, digest: Digest, code: &[u8], file: &Path) -> std::io::Result<()> {
        // Two threads may compile the same component at once; each writes a file of its own.
        static TRIES: AtomicU64 = AtomicU64::new(0);
        let number = TRIES.fetch_add(1, Ordering::Relaxed);
        let partial = file.with_extension(format!("{}-{number}.partial", std::process::id()));
        let mut out = std::fs::File::create(&partial)?;
        out.write_all(self.mac(engine, digest, code).as_bytes())?;
        out.write_all(code)?;
        // No fsync: a torn file fails its MAC and is compiled again.
        std::fs::rename(&partial, file)?;
        Ok(())
    }

    fn mac(&self, engine: &WasmEngine, digest: Digest, code: &[u8]) -> blake3::Hash {
        let mut compatibility = Compatibility(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut compatibility);
        let mut mac = blake3::Hasher::new_keyed(&self.key);
        // Both are of fixed length, so no two inputs look alike.
        mac.update(compatibility.0.finalize().as_bytes()).update(&digest.0).update(code);
        mac.finalize()
    }
}

/// Makes compiled code loadable: from here on it can be run.
#[allow(unsafe_code)]
fn admit(engine: &WasmEngine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `deserialize` must only see what `precompile_component` of a compatible engine gave. It does: the code is our
    // own compiler's, just made, or carries a MAC that only `write` makes, over this engine's compatibility hash and exactly
    // these bytes.
    unsafe { Component::deserialize(engine, code) }
}

/// Feeds wasmtime's compatibility hash to BLAKE3: 64 bits of the standard hasher would be too few to rest on.
struct Compatibility(blake3::Hasher);

impl Hasher for Compatibility {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let mut head = [0; 8];
        head.copy_from_slice(&self.0.finalize().as_bytes()[..8]);
        u64::from_le_bytes(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty component: the preamble alone.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    struct Fixture {
        directory: tempfile::TempDir,
        engine: WasmEngine,
        digest: Digest,
    }

    impl Fixture {
        fn new() -> Self {
            let directory = tempfile::tempdir().expect("a directory");
            Self { directory, engine: WasmEngine::default(), digest: Digest::of(EMPTY) }
        }
        fn cache(&self, key: u8) -> Cache {
            Cache::open(self.directory.path().to_owned(), [key; 32], Compiler::Here).expect("opens")
        }
        fn file(&self) -> PathBuf {
            self.directory.path().join(self.digest.to_string())
        }
        fn cached(&self, key: u8) -> bool {
            self.cache(key).read(&self.engine, self.digest, &self.file()).is_some()
        }
    }

    #[test]
    fn what_was_kept_is_loaded() {
        let fixture = Fixture::new();
        assert!(!fixture.cached(1));
        fixture.cache(1).load(&fixture.engine, fixture.digest, EMPTY).expect("compiles");
        assert!(fixture.cached(1));
    }

    #[test]
    fn a_tampered_entry_is_compiled_anew() {
        let fixture = Fixture::new();
        fixture.cache(1).load(&fixture.engine, fixture.digest, EMPTY).expect("compiles");
        let good = std::fs::read(fixture.file()).expect("there");
        for position in [0, MAC, good.len() - 1] {
            let mut bad = good.clone();
            bad[position] ^= 1;
            std::fs::write(fixture.file(), &bad).expect("written");
            assert!(!fixture.cached(1), "byte {position} was changed");
            fixture.cache(1).load(&fixture.engine, fixture.digest, EMPTY).expect("compiles");
            assert!(fixture.cached(1), "the good code is back");
        }
        std::fs::write(fixture.file(), b"short").expect("written");
        assert!(!fixture.cached(1));
    }

    #[test]
    fn code_of_another_key_component_or_engine_is_not_loaded() {
        let fixture = Fixture::new();
        fixture.cache(1).load(&fixture.engine, fixture.digest, EMPTY).expect("compiles");
        assert!(!fixture.cached(2), "another appliance's");
        let other = Digest::of(b"another component");
        assert!(fixture.cache(1).read(&fixture.engine, other, &fixture.file()).is_none());
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let engine = WasmEngine::new(&config).expect("an engine");
        assert!(fixture.cache(1).read(&engine, fixture.digest, &fixture.file()).is_none());
    }
}
