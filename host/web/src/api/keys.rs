//! `keys`: the recovery recipients, rotation, shredding. Only public halves pass here.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use holdfast_control::resources::{
    CreateRecipient, Page, Recipient, RecipientAdded, RecipientRemoved, RotateKeys, Rotation, Shred, ShredBegun,
};
use holdfast_control::{Appliance, Principal};
use serde::Deserialize;

use super::error::Problem;
use super::extract::{Body, Name, OptionalBody, Query};

pub(crate) async fn list(State(appliance): State<Appliance>) -> Result<Json<Page<Recipient>>, Problem> {
    Ok(Json(appliance.recipients().await?))
}

pub(crate) async fn add(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Body(request): Body<CreateRecipient>,
) -> Result<(StatusCode, Json<RecipientAdded>), Problem> {
    Ok((StatusCode::CREATED, Json(appliance.add_recipient(&who, request).await?)))
}

/// Whose recipient.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecipientOf {
    /// Of this organization's own; without it a recovery recipient.
    organization: Option<String>,
}

pub(crate) async fn remove(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(name): Name,
    Query(of): Query<RecipientOf>,
) -> Result<Json<RecipientRemoved>, Problem> {
    Ok(Json(appliance.remove_recipient(&who, &name, of.organization.as_deref()).await?))
}

pub(crate) async fn rotate(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    OptionalBody(request): OptionalBody<RotateKeys>,
) -> Result<(StatusCode, Json<Rotation>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(appliance.rotate_keys(&who, request).await?)))
}

pub(crate) async fn shred(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Body(request): Body<Shred>,
) -> Result<(StatusCode, Json<ShredBegun>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(appliance.shred(&who, request).await?)))
}
