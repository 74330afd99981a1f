//! The only place where errors become HTTP: problem details (RFC 9457) with a stable code and a hint.
//!
//! A handler's problem travels as an extension of its response to `answer.rs`, which knows the request's id: causes go to the log under
//! it and never to the client.

use std::error::Error as _;
use std::sync::Arc;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use holdfast_control::{Error, ErrorKind};
use serde::Serialize;

/// A request that was not granted.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    error: Error,
}

/// The JSON form.
#[derive(Serialize)]
struct Details<'a> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    /// The request's id, as it stands in the log.
    instance: &'a str,
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: ErrorKind,
        code: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let error =
            Error { kind, code: code.to_owned(), message: message.into(), hint: Some(hint.into()), source: None };
        Self { status, error }
    }

    /// The request itself is wrong.
    pub(crate) fn bad_request(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorKind::Invalid, code, message, hint)
    }

    /// The body is longer than `most` bytes.
    pub(crate) fn too_large(most: usize) -> Self {
        let hint = format!("The body of this request has at most {} MiB.", most >> 20);
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Invalid,
            "body-too-large",
            "the request's body is too large",
            hint,
        )
    }

    /// The body did not come in time.
    pub(crate) fn too_slow() -> Self {
        let hint = "Send the whole body at once.";
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            ErrorKind::Invalid,
            "body-too-slow",
            "the request's body did not come in time",
            hint,
        )
    }

    /// Nobody is known by what the request carries.
    pub(crate) fn unauthorized(message: &str) -> Self {
        let hint = "Send `Authorization: Bearer TOKEN`; the first token lies in the data directory as `admin-token`.";
        Self::new(StatusCode::UNAUTHORIZED, ErrorKind::Denied, "unauthorized", message, hint)
    }

    /// Known, and not allowed.
    pub(crate) fn forbidden(code: &str, message: &str, hint: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, ErrorKind::Denied, code, message, hint)
    }

    /// No operation lies there.
    pub(crate) fn no_such_path() -> Self {
        let hint = "GET /api/v1/openapi.json lists what there is.";
        Self::new(StatusCode::NOT_FOUND, ErrorKind::NotFound, "no-such-path", "there is no such path", hint)
    }

    /// The path has other operations.
    pub(crate) fn no_such_method() -> Self {
        let hint = "GET /api/v1/openapi.json lists the methods of each path.";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::Invalid,
            "no-such-method",
            "the path does not have this method",
            hint,
        )
    }

    /// The response for a client, under the request's id. Logs the causes.
    pub(crate) fn respond(&self, request: &str) -> Response {
        self.log(request);
        let details = Details {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.error.message,
            code: &self.error.code,
            hint: self.error.hint.as_deref(),
            instance: request,
        };
        let mut response = (self.status, Json(details)).into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// Our own failures loudly; what a client did wrong only for those who look for it.
    fn log(&self, request: &str) {
        let mut causes = Vec::new();
        let mut next = self.error.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        let (code, detail, causes) = (&self.error.code, &self.error.message, causes.join(": "));
        if self.status.is_server_error() {
            tracing::error!(request, code, causes, "{detail}");
        } else {
            tracing::debug!(request, code, causes, "{detail}");
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Unprocessable => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_problem_has_all_members_and_no_cause() {
        let error = Error {
            kind: ErrorKind::Unprocessable,
            code: "backup-running".to_owned(),
            message: "a backup of acme/shop/pg is running".to_owned(),
            hint: Some("Wait for it.".to_owned()),
            source: Some("the cause".into()),
        };
        let response = Problem::from(error).respond("0011");
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank", "title": "Unprocessable Entity", "status": 422, "detail": "a backup of acme/shop/pg is running",
            "code": "backup-running", "hint": "Wait for it.", "instance": "0011",
        });
        assert_eq!(body, expected);
    }
}
