//! Around every request: an id, which the response carries as `x-request-id` and the log names, and problems in their final form.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Serialize;

use super::error::Problem;

/// Gives the request its id and completes the response.
pub(crate) async fn complete(request: Request, next: Next) -> Response {
    let id = request_id();
    let (method, path, began) = (request.method().clone(), request.uri().path().to_owned(), Instant::now());
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Arc<Problem>>() {
        response = problem.respond(&id);
    }
    tracing::debug!(request = id, %method, path, status = response.status().as_u16(), milliseconds = began.elapsed().as_millis() as u64, "request");
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    // Answers name customers' systems: no cache on the way keeps them.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A single resource, its version as `ETag`.
pub(crate) fn versioned(resource_version: &str, resource: impl Serialize) -> Response {
    let mut response = Json(resource).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{resource_version}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// 64 random bits: enough to find a request in a log.
fn request_id() -> String {
    let mut bits = [0; 8];
    match SystemRandom::new().fill(&mut bits) {
        Ok(()) => format!("{:016x}", u64::from_be_bytes(bits)),
        Err(_) => "unknown".to_owned(),
    }
}
