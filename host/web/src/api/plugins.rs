//! `plugins`: the engines that this appliance can back up.

use axum::Json;
use axum::extract::State;
use holdfast_control::Appliance;
use holdfast_control::resources::{Page, PluginInfo};

pub(crate) async fn list(State(appliance): State<Appliance>) -> Json<Page<PluginInfo>> {
    Json(Page { items: appliance.plugins().await, next: None })
}
