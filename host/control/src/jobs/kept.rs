//! What jobs keep in the catalog from one attempt or turn to the next, each under a key of its own.
//!
//! It is never needed: what another version left, and this one cannot read, counts as nothing kept, and is found again.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::appliance::State;
use crate::{Error, ErrorKind};

/// What was kept last; the default where nothing was.
pub(super) async fn load<T: Default + DeserializeOwned>(state: &State, key: &str) -> Result<T, Error> {
    let kept = state.catalog.meta(key).await?;
    Ok(kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
}

/// Keeps it in the place of what was kept before.
pub(super) async fn save(state: &State, key: &str, kept: &impl Serialize) -> Result<(), Error> {
    let bytes = serde_json::to_vec(kept)
        .map_err(|error| Error::new(ErrorKind::Internal, "encoding", format!("encoding {key} failed: {error}")))?;
    Ok(state.catalog.set_meta(key, &bytes).await?)
}
