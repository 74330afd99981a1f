//! `plugins`: the engines that this appliance can back up.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header::LOCATION};
use axum::response::{IntoResponse, Response};
use holdfast_control::resources::{Page, PluginInfo};
use holdfast_control::{Appliance, Principal};

use super::error::Problem;
use super::extract::{Component, Name};

pub(crate) async fn list(State(appliance): State<Appliance>) -> Json<Page<PluginInfo>> {
    Json(Page { items: appliance.plugins().await, next: None })
}

pub(crate) async fn install(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Component(component): Component,
) -> Result<Response, Problem> {
    let installed = appliance.install_plugin(&who, Arc::from(&*component)).await?;
    let location = format!("/api/v1/plugins/{}", installed.plugin.name);
    let status = if installed.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, [(LOCATION, location)], Json(installed.plugin)).into_response())
}

pub(crate) async fn show(State(appliance): State<Appliance>, Name(name): Name) -> Result<Json<PluginInfo>, Problem> {
    Ok(Json(appliance.plugin(&name).await?))
}

pub(crate) async fn remove(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(name): Name,
) -> Result<StatusCode, Problem> {
    appliance.remove_plugin(&who, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
