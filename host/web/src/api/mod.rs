//! The JSON API under `/api/v1`. `router.rs` is its contents page; a file per resource; `error.rs` alone speaks of HTTP statuses that are errors.

mod access;
mod answer;
mod backups;
mod error;
mod extract;
mod instances;
mod jobs;
mod keys;
mod openapi;
mod plugins;
mod policies;
mod repository;
mod restores;
mod router;
mod status;
mod targets;

use axum::extract::FromRef;
use holdfast_control::Appliance;
use tokio_util::sync::CancellationToken;

pub(crate) use router::router;

/// What handlers share.
#[derive(Clone)]
pub(crate) struct Api {
    appliance: Appliance,
    /// Cancelled when the server ends: streams of events end with it.
    closing: CancellationToken,
}

impl FromRef<Api> for Appliance {
    fn from_ref(api: &Api) -> Self {
        api.appliance.clone()
    }
}
