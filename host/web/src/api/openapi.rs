//! The description of the API. `openapi.json` is kept by hand; a test compares it with the router.

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

/// The document.
pub(crate) const TEXT: &str = include_str!("openapi.json");

pub(crate) async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], TEXT)
}
