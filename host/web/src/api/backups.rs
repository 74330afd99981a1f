//! `backups`: what is kept.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use holdfast_control::resources::{
    Backup, BackupEntry, CreateBackup, CreateHold, CreateVerification, Job, Page, ReleaseHold,
};
use holdfast_control::{Appliance, ListQuery, Principal};
use serde::Deserialize;

use super::answer::versioned;
use super::error::Problem;
use super::extract::{BackupOf, Body, Instance, ListParameters, OptionalBody, Query};
use super::jobs::accepted;

pub(crate) async fn list(
    State(appliance): State<Appliance>,
    Query(query): Query<ListParameters>,
) -> Result<Json<Page<Backup>>, Problem> {
    Ok(Json(appliance.backups(query.into()).await?))
}

/// As [`list`], its scope from the path.
pub(crate) async fn list_of_instance(
    State(appliance): State<Appliance>,
    Instance(name): Instance,
    Query(query): Query<ListParameters>,
) -> Result<Json<Page<Backup>>, Problem> {
    let query = ListQuery { scope: Some(name.to_string()), ..query.into() };
    Ok(Json(appliance.backups(query).await?))
}

pub(crate) async fn create(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Instance(name): Instance,
    headers: HeaderMap,
    OptionalBody(request): OptionalBody<CreateBackup>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let made = appliance.create_backup(&who, &name, request, key).await?;
    let location = format!("/api/v1/backups/{}/{}/{}/{}", made.organization, made.project, made.instance, made.name);
    Ok((StatusCode::CREATED, [(LOCATION, location)], versioned(&made.resource_version, &made)).into_response())
}

/// 1 to 200 visible characters: it is kept as it is.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if (1..=200).contains(&key.len()) => Ok(Some(key)),
        _ => Err(Problem::bad_request(
            "bad-idempotency-key",
            "the Idempotency-Key is not usable",
            "It has 1 to 200 visible ASCII characters, such as a random UUID.",
        )),
    }
}

pub(crate) async fn show(
    State(appliance): State<Appliance>,
    BackupOf(name, backup): BackupOf,
) -> Result<Response, Problem> {
    let backup = appliance.backup(&name, &backup).await?;
    Ok(versioned(&backup.resource_version, &backup))
}

pub(crate) async fn remove(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    BackupOf(name, backup): BackupOf,
) -> Result<StatusCode, Problem> {
    appliance.delete_backup(&who, &name, &backup).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which entries to list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntryParameters {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    limit: Option<u32>,
}

pub(crate) async fn entries(
    State(appliance): State<Appliance>,
    BackupOf(name, backup): BackupOf,
    Query(query): Query<EntryParameters>,
) -> Result<Json<Page<BackupEntry>>, Problem> {
    let limit = query.limit.unwrap_or(100);
    Ok(Json(appliance.backup_entries(&name, &backup, &query.prefix, &query.after, limit).await?))
}

pub(crate) async fn verify(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    BackupOf(name, backup): BackupOf,
    Body(request): Body<CreateVerification>,
) -> Result<Response, Problem> {
    let job: Job = appliance.verify_backup(&who, &name, &backup, request).await?;
    Ok(accepted(job))
}

pub(crate) async fn hold(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    BackupOf(name, backup): BackupOf,
    Body(request): Body<CreateHold>,
) -> Result<Response, Problem> {
    let backup = appliance.hold_backup(&who, &name, &backup, request).await?;
    Ok(versioned(&backup.resource_version, &backup))
}

pub(crate) async fn release(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    BackupOf(name, backup): BackupOf,
    OptionalBody(request): OptionalBody<ReleaseHold>,
) -> Result<Response, Problem> {
    let backup = appliance.release_backup(&who, &name, &backup, request).await?;
    Ok(versioned(&backup.resource_version, &backup))
}
