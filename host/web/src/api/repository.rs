//! `repository`: the archive store as a whole.

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::Response;
use holdfast_control::resources::{CreateCheck, CreatePrune, RepositoryStats};
use holdfast_control::{Appliance, Principal};

use super::error::Problem;
use super::extract::OptionalBody;
use super::jobs::accepted;

pub(crate) async fn stats(State(appliance): State<Appliance>) -> Result<Json<RepositoryStats>, Problem> {
    Ok(Json(appliance.repository_stats().await?))
}

pub(crate) async fn check(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    OptionalBody(request): OptionalBody<CreateCheck>,
) -> Result<Response, Problem> {
    Ok(accepted(appliance.check_repository(&who, request).await?))
}

pub(crate) async fn prune(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    OptionalBody(request): OptionalBody<CreatePrune>,
) -> Result<Response, Problem> {
    Ok(accepted(appliance.prune_repository(&who, request).await?))
}
