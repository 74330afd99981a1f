//! Write a Holdfast engine plugin: implement [`Engine`], [`register!`] it, build for `wasm32-unknown-unknown`.
//!
//! A plugin is one blocking program on one thread. It reaches nothing but what its job was given: servers through
//! [`endpoint`], the backup through [`archive`], files through [`destination`], settings, log and clocks through [`job`].
//! Bulk bytes go from stream to stream by [`io::transfer`] and never enter the plugin's memory. What a plugin does not use
//! is not imported by its component.
//!
//! ```ignore
//! struct Demo;
//!
//! impl holdfast_sdk::Engine for Demo { /* describe, probe, dump, restore, verify */ }
//!
//! holdfast_sdk::register!(Demo);
//! ```
//!
//! The crate also compiles for the host, so that a plugin's own rules can be tested natively; a call to the host panics
//! there.

pub mod archive;
pub mod document;
pub mod io;

#[doc(hidden)]
pub mod bindings;
mod engine;
mod error;
#[cfg(target_family = "wasm")]
mod random;

pub use bindings::holdfast::engine::{destination, endpoint, job};
pub use engine::Engine;
#[doc(hidden)]
pub use engine::Exported;
pub use error::{Error, Result};
