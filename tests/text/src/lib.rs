//! Plugins written as WebAssembly text over the canonical ABI, encoded as components of the world `engine`.
//!
//! What Rust's bindings cannot be made to do can be written here: handles out of thin air, pointers out of memory, text that
//! is no UTF-8. A body of an export returns a pointer to a `result<json, error>`. A host call's failed result has its error
//! in the same place, so a guest hands it on by returning the call's own result.

mod imports;

use std::fmt::Write as _;
use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

pub use imports::WASI;

/// Where a host call may put its result, for a guest to return.
pub const RESULT: u32 = 64;
/// Where a guest's own text lies.
pub const TEXT: u32 = 512;
/// Where its description lies.
const DESCRIPTION: usize = 2_048;
/// Bytes of a page of memory.
const PAGE: usize = 65_536;

/// Returns the result `{}`.
pub const DONE: &str = "(i32.const 32)";

/// Returns the document that is the guest's own text, of so many bytes.
pub fn answer(length: usize) -> String {
    format!(
        "(i32.store (i32.const {RESULT}) (i32.const 0))
        (i32.store offset=4 (i32.const {RESULT}) (i32.const {TEXT}))
        (i32.store offset=8 (i32.const {RESULT}) (i32.const {length}))
        (i32.const {RESULT})"
    )
}

/// Connects to the first member, or hands the error on.
pub const CONNECT: &str = "
    (call $connect (i32.const 0) (i32.const 64))
    (if (i32.load8_u (i32.const 64)) (then (return (i32.const 64))))
    (local.set $connection (i32.load (i32.const 68)))
";

/// A plugin in the making. Its exports do nothing but trap until they are given a body, except `describe`.
pub struct Guest {
    name: String,
    description: Option<String>,
    pages: u32,
    text: Vec<u8>,
    probe: String,
    dump: String,
    realloc: String,
    items: String,
}

impl Guest {
    /// A plugin whose name and engine are `name`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            description: None,
            pages: 8,
            text: Vec::new(),
            probe: "unreachable".into(),
            dump: "unreachable".into(),
            realloc: BUMP.into(),
            items: String::new(),
        }
    }

    /// What `describe` returns, instead of a proper description.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = Some(text.into());
        self
    }

    /// Pages of memory from the beginning.
    #[must_use]
    pub fn pages(mut self, pages: u32) -> Self {
        self.pages = pages;
        self
    }

    /// Bytes at address [`TEXT`], 1,500 at most.
    #[must_use]
    pub fn text(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.text = text.into();
        self
    }

    /// What `probe` does. There are locals `$connection`, `$source` and `$sink`.
    #[must_use]
    pub fn probe(mut self, body: impl Into<String>) -> Self {
        self.probe = body.into();
        self
    }

    /// What `dump` does, with the same locals.
    #[must_use]
    pub fn dump(mut self, body: impl Into<String>) -> Self {
        self.dump = body.into();
        self
    }

    /// What `cabi_realloc` does with the old address and length, the alignment, and the new length.
    #[must_use]
    pub fn realloc(mut self, body: impl Into<String>) -> Self {
        self.realloc = body.into();
        self
    }

    /// More items of the module.
    #[must_use]
    pub fn items(mut self, items: impl Into<String>) -> Self {
        self.items = items.into();
        self
    }

    /// As a component.
    pub fn component(&self) -> Vec<u8> {
        encode(&self.module(), "", "engine")
    }

    /// As a component that imports the interfaces of [`WASI`] that it calls.
    pub fn component_with_wasi(&self) -> Vec<u8> {
        encode(&self.module(), WASI, "wasi")
    }

    /// The core module, as text. Only what a body calls is imported.
    fn module(&self) -> String {
        let Self { pages, text, probe, dump, realloc, items, .. } = self;
        let imports = imports::called_in(&[probe, dump, realloc, items]);
        let description = self.description.clone().unwrap_or_else(|| describe(&self.name));
        let free = (DESCRIPTION + description.len()).next_multiple_of(PAGE);
        let pages = (*pages as usize).max(free / PAGE + 1);
        let pointer =
            bytes([DESCRIPTION, description.len()].map(|number| (number as u32).to_le_bytes()).as_flattened());
        let (text, description) = (bytes(text), bytes(description.as_bytes()));
        format!(
            r#"(module {imports}
                (memory (export "memory") {pages})
                (global $free (mut i32) (i32.const {free}))
                (data (i32.const 16) "{pointer}")
                (data (i32.const 32) "\00\00\00\00\30\00\00\00\02\00\00\00")
                (data (i32.const 48) "{{}}")
                (data (i32.const {TEXT}) "{text}")
                (data (i32.const {DESCRIPTION}) "{description}")
                (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
                (func (export "holdfast:engine/plugin@1.0.0-rc.1#describe") (result i32) (i32.const 16))
                (func (export "holdfast:engine/plugin@1.0.0-rc.1#probe") (result i32)
                    (local $connection i32) (local $source i32) (local $sink i32)
                    {probe})
                (func (export "holdfast:engine/plugin@1.0.0-rc.1#dump") (param i32 i32) (result i32)
                    (local $connection i32) (local $source i32) (local $sink i32)
                    {dump})
                (func (export "holdfast:engine/plugin@1.0.0-rc.1#restore") (param i32 i32) (result i32) unreachable)
                (func (export "holdfast:engine/plugin@1.0.0-rc.1#verify") (param i32 i32) (result i32) unreachable)
                {items})"#
        )
    }
}

/// Gives out memory and never takes it back.
const BUMP: &str = "
    (global.get $free)
    (global.set $free (i32.and (i32.add (i32.add (global.get $free) (local.get 3)) (i32.const 7)) (i32.const -8)))
";

/// A proper description of a plugin with the settings that every guest here has.
pub fn describe(name: &str) -> String {
    format!(
        r#"{{"name":"{name}","version":"1","engine":"{name}","title":"{name}","defaultPort":1,
        "settings":[{{"key":"host","description":"d"}},{{"key":"port","description":"d"}},{{"key":"tls","description":"d"}}],
        "methods":[{{"name":"m","types":["full"],"restoresTo":"directory","description":"d"}}]}}"#
    )
}

/// Bytes as a string of the text format.
fn bytes(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\{byte:02x}");
        text
    })
}

/// A component in the text format of components, for what is not of the world `engine` at all.
///
/// # Panics
/// If the text is wrong: it is the test's own.
pub fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the guest's text is right")
}

/// A core module's text as a component of a world, given more packages in `wit`.
fn encode(module: &str, wit: &str, world: &str) -> Vec<u8> {
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
    encoder.encode().expect("a component")
}
