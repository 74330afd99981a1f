//! The plugins that came with this binary (see `build.rs`).

use std::sync::Arc;

include!(concat!(env!("OUT_DIR"), "/components.rs"));

/// The embedded components.
pub fn embedded() -> Vec<Arc<[u8]>> {
    COMPONENTS.iter().map(|component| Arc::from(*component)).collect()
}
