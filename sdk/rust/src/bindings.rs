//! What wit-bindgen makes of `wit/v1`. Nothing here is written by hand; use the modules that the crate's root names.
#![allow(missing_docs, unsafe_code, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit/v1",
    world: "engine",
    pub_export_macro: true,
    export_macro_name: "export_engine",
    default_bindings_module: "holdfast_sdk::bindings",
});
