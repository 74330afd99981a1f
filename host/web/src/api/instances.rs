//! `instances`: the protected database services.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header::LOCATION};
use axum::response::{IntoResponse, Response};
use holdfast_control::resources::{CreateInstance, InstanceCheck, Page};
use holdfast_control::{Appliance, Principal};

use super::answer::versioned;
use super::error::Problem;
use super::extract::{Body, Instance, ListParameters, Query};

pub(crate) async fn list(
    State(appliance): State<Appliance>,
    Query(query): Query<ListParameters>,
) -> Result<Json<Page<holdfast_control::resources::Instance>>, Problem> {
    Ok(Json(appliance.instances(query.into()).await?))
}

pub(crate) async fn create(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Body(request): Body<CreateInstance>,
) -> Result<Response, Problem> {
    let made = appliance.create_instance(&who, request).await?;
    let location = format!("/api/v1/instances/{}/{}/{}", made.organization, made.project, made.name);
    Ok((StatusCode::CREATED, [(LOCATION, location)], versioned(&made.resource_version, &made)).into_response())
}

pub(crate) async fn show(State(appliance): State<Appliance>, Instance(name): Instance) -> Result<Response, Problem> {
    let instance = appliance.instance(&name).await?;
    Ok(versioned(&instance.resource_version, &instance))
}

pub(crate) async fn remove(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Instance(name): Instance,
) -> Result<StatusCode, Problem> {
    appliance.remove_instance(&who, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn check(
    State(appliance): State<Appliance>,
    Instance(name): Instance,
) -> Result<Json<InstanceCheck>, Problem> {
    Ok(Json(appliance.check_instance(&name).await?))
}
