//! `jobs`: queued work, its log, and stopping it.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::{StatusCode, header::LOCATION};
use axum::response::{IntoResponse, Response};
use holdfast_control::resources::{Job, LogLine, Page};
use holdfast_control::{Appliance, Principal};
use serde::Deserialize;

use super::error::Problem;
use super::extract::{ListParameters, Name, Query};

/// The response for work that was queued.
pub(crate) fn accepted(job: Job) -> Response {
    let location = format!("/api/v1/jobs/{}", job.id);
    (StatusCode::ACCEPTED, [(LOCATION, location)], Json(job)).into_response()
}

pub(crate) async fn list(
    State(appliance): State<Appliance>,
    Query(query): Query<ListParameters>,
) -> Result<Json<Page<Job>>, Problem> {
    Ok(Json(appliance.jobs(query.into()).await?))
}

pub(crate) async fn show(State(appliance): State<Appliance>, Name(id): Name) -> Result<Json<Job>, Problem> {
    Ok(Json(appliance.job(&id).await?))
}

/// From where to read on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogParameters {
    #[serde(default)]
    after: u64,
}

pub(crate) async fn log(
    State(appliance): State<Appliance>,
    Name(id): Name,
    Query(query): Query<LogParameters>,
) -> Result<Json<Page<LogLine>>, Problem> {
    Ok(Json(appliance.job_log(&id, query.after).await?))
}

pub(crate) async fn cancel(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Name(id): Name,
) -> Result<Json<Job>, Problem> {
    Ok(Json(appliance.cancel_job(&who, &id).await?))
}
