//! `keys`: the recovery recipients. Only public halves pass here.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use holdfast_control::resources::{CreateRecipient, Page, Recipient, RecipientAdded};
use holdfast_control::{Appliance, Principal};

use super::error::Problem;
use super::extract::Body;

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
