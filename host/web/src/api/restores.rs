//! `restores`: bringing a backup back, as a job.

use axum::extract::{Extension, State};
use axum::response::Response;
use holdfast_control::resources::CreateRestore;
use holdfast_control::{Appliance, Principal};

use super::error::Problem;
use super::extract::Body;
use super::jobs::accepted;
use crate::connection::Peer;

/// The destination is a directory of the appliance's own machine, so only who is on that machine may name one.
pub(crate) async fn create(
    State(appliance): State<Appliance>,
    Extension(peer): Extension<Peer>,
    Extension(who): Extension<Principal>,
    Body(request): Body<CreateRestore>,
) -> Result<Response, Problem> {
    if peer != Peer::Local {
        return Err(Problem::forbidden(
            "local-only",
            "a restore to a directory of the appliance's machine is not possible from elsewhere",
            "Run `holdfast restore` on the appliance itself, or, where the database is to run, with --from URL --identity FILE.",
        ));
    }
    Ok(accepted(appliance.create_restore(&who, request).await?))
}
