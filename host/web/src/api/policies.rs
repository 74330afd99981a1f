//! `policies`: what keeps backups, and `retention`: what becomes of each.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header::LOCATION};
use axum::response::{IntoResponse, Response};
use holdfast_control::resources::{CreatePolicy, EditPolicy, Page, Policy, PreviewedBackup, Status};
use holdfast_control::{Appliance, Principal};

use super::answer::versioned;
use super::error::Problem;
use super::extract::{Body, Name, Query};

pub(crate) async fn list(State(appliance): State<Appliance>) -> Result<Json<Page<Policy>>, Problem> {
    Ok(Json(appliance.policies().await?))
}

pub(crate) async fn create(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Body(request): Body<CreatePolicy>,
) -> Result<Response, Problem> {
    let made = appliance.create_policy(&who, request).await?;
    let location = format!("/api/v1/policies/{}", made.name);
    Ok((StatusCode::CREATED, [(LOCATION, location)], versioned(&made.resource_version, &made)).into_response())
}

pub(crate) async fn show(State(appliance): State<Appliance>, Name(name): Name) -> Result<Response, Problem> {
    let policy = appliance.policy(&name).await?;
    Ok(versioned(&policy.resource_version, &policy))
}

pub(crate) async fn edit(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(name): Name,
    Body(request): Body<EditPolicy>,
) -> Result<Response, Problem> {
    let policy = appliance.edit_policy(&who, &name, request).await?;
    Ok(versioned(&policy.resource_version, &policy))
}

pub(crate) async fn remove(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    appliance.remove_policy(&who, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is looked at ahead.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PreviewParameters {
    scope: Option<String>,
    /// As if every change of policies acted already.
    #[serde(default)]
    after_changes: bool,
}

pub(crate) async fn preview(
    State(appliance): State<Appliance>,
    Query(query): Query<PreviewParameters>,
) -> Result<Json<Page<PreviewedBackup>>, Problem> {
    Ok(Json(appliance.preview_retention(query.scope.as_deref(), query.after_changes).await?))
}

pub(crate) async fn confirm(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(appliance.confirm_retention(&who).await?))
}
