//! `repository`: the archive store as a whole.

use axum::Json;
use axum::extract::State;
use holdfast_control::Appliance;
use holdfast_control::resources::RepositoryStats;

use super::error::Problem;

pub(crate) async fn stats(State(appliance): State<Appliance>) -> Result<Json<RepositoryStats>, Problem> {
    Ok(Json(appliance.repository_stats().await?))
}
