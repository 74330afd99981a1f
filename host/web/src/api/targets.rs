//! `targets`: the places that hold backups.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header::LOCATION};
use axum::response::{IntoResponse, Response};
use holdfast_control::resources::{CreateTarget, EditTarget, Page, Target};
use holdfast_control::{Appliance, Principal};

use super::answer::versioned;
use super::error::Problem;
use super::extract::{Body, Name, Query};

pub(crate) async fn list(State(appliance): State<Appliance>) -> Result<Json<Page<Target>>, Problem> {
    Ok(Json(appliance.targets().await?))
}

pub(crate) async fn create(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Body(request): Body<CreateTarget>,
) -> Result<Response, Problem> {
    let made = appliance.create_target(&who, request).await?;
    let location = format!("/api/v1/targets/{}", made.name);
    Ok((StatusCode::CREATED, [(LOCATION, location)], versioned(&made.resource_version, &made)).into_response())
}

pub(crate) async fn show(State(appliance): State<Appliance>, Name(name): Name) -> Result<Response, Problem> {
    let target = appliance.target(&name).await?;
    Ok(versioned(&target.resource_version, &target))
}

pub(crate) async fn edit(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(name): Name,
    Body(request): Body<EditTarget>,
) -> Result<Response, Problem> {
    let target = appliance.edit_target(&who, &name, request).await?;
    Ok(versioned(&target.resource_version, &target))
}

pub(crate) async fn promote(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(name): Name,
) -> Result<Response, Problem> {
    let target = appliance.promote_target(&who, &name).await?;
    Ok(versioned(&target.resource_version, &target))
}

/// What confirms a removal.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirmation {
    confirm: Option<String>,
}

pub(crate) async fn remove(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(name): Name,
    Query(confirmation): Query<Confirmation>,
) -> Result<StatusCode, Problem> {
    appliance.remove_target(&who, &name, confirmation.confirm.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn sync(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(name): Name,
) -> Result<Response, Problem> {
    let target = appliance.sync_target(&who, &name).await?;
    Ok((StatusCode::ACCEPTED, versioned(&target.resource_version, &target)).into_response())
}
