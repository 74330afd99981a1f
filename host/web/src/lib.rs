//! The appliance's web surface: the JSON API over TLS and over a local socket. No policy, no SQL, no plugin.
//!
//! Invariant: whatever is asked here is one call of [`holdfast_control::Appliance`], and nothing is answered without knowing who asks,
//! but the description of the API itself.

mod api;
mod certificate;
mod connection;
mod error;
mod local_socket;
mod server;

pub use certificate::Fingerprint;
pub use error::Error;
pub use local_socket::socket_path;
pub use server::{ServeOptions, Server};
