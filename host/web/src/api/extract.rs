//! What handlers take from a request: names from its path, its query, its body. What does not fit is a problem that names the field.

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Path, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use bytes::Bytes;
use holdfast_control::{COMPONENT_BYTES_MAX, InstanceName, ListQuery};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::error::Problem;

/// Longest JSON body, in bytes.
const BODY_MAX: usize = 1 << 20;
/// For a whole JSON body; it is small.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// For a whole component, which may be large and come from afar.
const COMPONENT_PATIENCE: Duration = Duration::from_secs(300);

/// A JSON body.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        parse_body(&read_body(request, state, BODY_MAX, BODY_PATIENCE).await?).map(Self)
    }
}

/// A JSON body, or none, which means the default.
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = read_body(request, state, BODY_MAX, BODY_PATIENCE).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { parse_body(&bytes).map(Self) }
    }
}

/// A plugin's component, as it is.
pub(crate) struct Component(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Component {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read_body(request, state, COMPONENT_BYTES_MAX, COMPONENT_PATIENCE).await.map(Self)
    }
}

async fn read_body<S: Send + Sync>(
    mut request: Request,
    state: &S,
    most: usize,
    patience: Duration,
) -> Result<Bytes, Problem> {
    DefaultBodyLimit::max(most).apply(&mut request);
    match tokio::time::timeout(patience, Bytes::from_request(request, state)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Problem::too_large(most)),
        Ok(Err(rejection)) => Err(Problem::bad_request("bad-body", rejection.body_text(), "Send the body whole.")),
        Err(_) => Err(Problem::too_slow()),
    }
}

fn parse_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => bad_field("the body", &error.to_string()),
        _ => Problem::bad_request("bad-json", format!("the body is not JSON: {error}"), "Send one JSON object."),
    })
}

/// serde's own words name the field and, where it is unknown, the ones that are there.
fn bad_field(place: &str, words: &str) -> Problem {
    let code = if words.contains("unknown field `") {
        "unknown-field"
    } else if words.contains("missing field `") {
        "missing-field"
    } else {
        "bad-field"
    };
    Problem::bad_request(
        code,
        format!("{place} does not fit: {words}"),
        "GET /api/v1/openapi.json says which fields there are.",
    )
}

/// The query of a request.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(query)) => Ok(Self(query)),
            Err(rejection) => {
                let words = rejection.body_text();
                Err(bad_field("the query", words.split_once("string: ").map_or(words.as_str(), |(_, words)| words)))
            }
        }
    }
}

/// The query of every list.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParameters {
    scope: Option<String>,
    state: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}

impl From<ListParameters> for ListQuery {
    fn from(query: ListParameters) -> Self {
        Self { scope: query.scope, state: query.state, limit: query.limit, after: query.after }
    }
}

/// The instance that the path names.
pub(crate) struct Instance(pub(crate) InstanceName);

impl<S: Send + Sync> FromRequestParts<S> for Instance {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (organization, project, instance) = path(parts, state).await?;
        Ok(Self(InstanceName { organization, project, instance }))
    }
}

/// The backup that the path names: by its name, its uid or `latest`.
pub(crate) struct BackupOf(pub(crate) InstanceName, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for BackupOf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let (organization, project, instance, backup) = path(parts, state).await?;
        Ok(Self(InstanceName { organization, project, instance }, backup))
    }
}

/// The one name in the path: a job's id, a target's name.
pub(crate) struct Name(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path(parts, state).await.map(Self)
    }
}

async fn path<T: DeserializeOwned + Send, S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<T, Problem> {
    match Path::from_request_parts(parts, state).await {
        Ok(Path(names)) => Ok(names),
        Err(rejection) => {
            let status = rejection.into_response().status();
            Err(Problem::bad_request(
                "bad-path",
                format!("a name in the path cannot be read ({status})"),
                "Names in a path are percent-encoded UTF-8.",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_control::resources::{CreateBackup, CreateInstance};
    use http_body_util::BodyExt;

    use super::*;

    async fn told(problem: Problem) -> serde_json::Value {
        let body = problem.respond("id").into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    async fn refused<T: DeserializeOwned>(body: &'static str) -> serde_json::Value {
        let request = Request::new(axum::body::Body::from(body));
        told(Body::<T>::from_request(request, &()).await.err().unwrap()).await
    }

    #[tokio::test]
    async fn a_body_that_does_not_fit_names_the_field() {
        let unknown = refused::<CreateBackup>(r#"{"nmae":"x"}"#).await;
        assert_eq!(unknown["code"], "unknown-field");
        assert!(unknown["detail"].as_str().unwrap().contains("`nmae`"));
        let missing = refused::<CreateInstance>(r#"{"organization":"a","project":"b","name":"c"}"#).await;
        assert_eq!(missing["code"], "missing-field");
        assert!(missing["detail"].as_str().unwrap().contains("`engine`"));
        assert_eq!(refused::<CreateBackup>("{").await["code"], "bad-json");
        assert_eq!(refused::<CreateBackup>(r#"{"name":7}"#).await["code"], "bad-field");
    }

    #[tokio::test]
    async fn an_empty_body_is_the_default() {
        let request = Request::new(axum::body::Body::empty());
        let OptionalBody(backup) = OptionalBody::<CreateBackup>::from_request(request, &()).await.ok().unwrap();
        assert!(backup.name.is_none() && backup.labels.is_empty());
    }

    #[tokio::test]
    async fn a_query_that_does_not_fit_names_the_parameter() {
        let refused = async |uri: &str| {
            let (mut parts, ()) = Request::builder().uri(uri).body(()).unwrap().into_parts();
            told(Query::<ListParameters>::from_request_parts(&mut parts, &()).await.err().unwrap()).await
        };
        let unknown = refused("/api/v1/backups?scoop=acme").await;
        assert_eq!(unknown["code"], "unknown-field");
        assert!(unknown["detail"].as_str().unwrap().contains("`scoop`"));
        assert_eq!(refused("/api/v1/backups?limit=many").await["code"], "bad-field");
    }
}
