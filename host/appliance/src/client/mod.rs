//! A client of the API: JSON over one kept connection, through the local socket or TLS. It knows problem details, pages and the change stream.

mod connect;
mod login;
mod trust;

use std::time::Duration;

use bytes::Bytes;
use holdfast_control::resources::Page;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::form_urlencoded;

pub use connect::{Endpoint, Token};
pub use login::Login;
pub use trust::Trust;

use crate::cli::{Exit, Failure};

/// For a whole answer. Checks of servers and targets behind it take their time.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);
/// Without a sign of life on the stream of changes; the server sends one every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(60);

type Connection = SendRequest<Full<Bytes>>;

/// What a request carries, and as what. Without bytes it carries nothing.
struct Body {
    kind: &'static str,
    bytes: Bytes,
}

impl Body {
    const NONE: Self = Self::json(Bytes::new());

    const fn json(bytes: Bytes) -> Self {
        Self { kind: "application/json", bytes }
    }

    /// A JSON document; `()` is none.
    fn of(document: &impl Serialize) -> Result<Self, Failure> {
        let bytes = serde_json::to_vec(document)
            .map_err(|error| Failure::failed(format!("the request cannot be written: {error}")))?;
        Ok(if bytes == b"null" { Self::NONE } else { Self::json(bytes.into()) })
    }
}

/// Speaks with one appliance.
pub struct Client {
    endpoint: Endpoint,
    kept: Mutex<Option<Connection>>,
}

/// What the server says when it does not do what it was asked for.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    hint: Option<String>,
}

impl Client {
    /// Connects at the first request.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, kept: Mutex::new(None) }
    }

    /// `GET`, beneath `/api/v1/`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        parse(&self.ask(Method::GET, path, Body::NONE).await?)
    }

    /// `POST` of a JSON document; `()` sends none.
    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        parse(&self.ask(Method::POST, path, Body::of(body)?).await?)
    }

    /// `PATCH` of a JSON document.
    pub async fn patch<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, Failure> {
        parse(&self.ask(Method::PATCH, path, Body::of(body)?).await?)
    }

    /// `POST` of bytes as they are.
    pub async fn post_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: &'static str,
        bytes: Vec<u8>,
    ) -> Result<T, Failure> {
        parse(&self.ask(Method::POST, path, Body { kind, bytes: bytes.into() }).await?)
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<(), Failure> {
        self.ask(Method::DELETE, path, Body::NONE).await.map(drop)
    }

    /// `DELETE` whose answer says what it means.
    pub async fn remove<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        parse(&self.ask(Method::DELETE, path, Body::NONE).await?)
    }

    /// All pages of a list, as one.
    pub async fn pages<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<String>)],
    ) -> Result<Page<T>, Failure> {
        let mut all = Page { items: Vec::new(), next: None };
        loop {
            let page: Page<T> = self.get(&format!("{path}?{}", page_query(query, all.next.as_deref()))).await?;
            all.items.extend(page.items);
            all.next = page.next;
            if all.next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Listens for changes, on a connection of its own.
    pub async fn changes(&self) -> Result<Changes, Failure> {
        let mut connection = self.endpoint.connect().await?;
        let response = self.send(&mut connection, Method::GET, "events", Body::NONE).await?;
        if response.status() == StatusCode::OK {
            Ok(Changes { body: response.into_body(), _connection: connection })
        } else {
            Err(refused(response.status(), &self.collect(response).await?))
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Body) -> Result<Bytes, Failure> {
        let mut kept = self.kept.lock().await;
        // A kept connection takes another request once it is ready; one that was closed meanwhile never is.
        let ready = match kept.take() {
            Some(mut connection) => connection.ready().await.is_ok().then_some(connection),
            None => None,
        };
        let mut connection = match ready {
            Some(connection) => connection,
            None => self.endpoint.connect().await?,
        };
        let answered = timeout(ANSWER_PATIENCE, async {
            let response = self.send(&mut connection, method, path, body).await?;
            let status = response.status();
            Ok((status, self.collect(response).await?))
        });
        let (status, body) =
            answered.await.unwrap_or_else(|_| Err(self.endpoint.lost("it took too long to answer")))?;
        *kept = Some(connection);
        if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
    }

    async fn send(
        &self,
        connection: &mut Connection,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request =
            Request::builder().method(method).uri(format!("/api/v1/{path}")).header(HOST, self.endpoint.host());
        if let Some(authorization) = self.endpoint.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !body.bytes.is_empty() {
            request = request.header(CONTENT_TYPE, body.kind);
        }
        let request = request
            .body(Full::new(body.bytes))
            .map_err(|error| Failure::usage(format!("'{path}' cannot be asked for: {error}")))?;
        connection.send_request(request).await.map_err(|error| self.endpoint.lost(&error.to_string()))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Bytes, Failure> {
        match response.into_body().collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(self.endpoint.lost(&error.to_string())),
        }
    }
}

/// The appliance's stream of changes.
pub struct Changes {
    body: Incoming,
    /// The stream ends with it.
    _connection: Connection,
}

impl Changes {
    /// Returns when something may have changed: at every event, and at every sign of life, so that a lost event costs seconds only.
    pub async fn next(&mut self) -> Result<(), Failure> {
        match timeout(SILENCE_MAX, self.body.frame()).await {
            Ok(Some(Ok(_))) => Ok(()),
            _ => Err(Failure::lost("the appliance's stream of changes ended")
                .hint("Look whether the appliance still runs: holdfast status")),
        }
    }
}

fn page_query(query: &[(&str, Option<String>)], after: Option<&str>) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    for (key, value) in query {
        if let Some(value) = value {
            text.append_pair(key, value);
        }
    }
    if let Some(after) = after {
        text.append_pair("after", after);
    }
    text.append_pair("limit", "1000").finish()
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        Failure::failed(format!("the answer is not understood: {error}"))
            .hint("The appliance may be of another version than this command; `holdfast status` and `holdfast --version` tell.")
    })
}

fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let exit = if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        Exit::Unreachable
    } else {
        Exit::Failed
    };
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Failure { hint: problem.hint, ..Failure::new(exit, problem.detail) },
        Err(_) => Failure::new(exit, format!("the appliance answered {status}"))
            .hint("Perhaps something else than an appliance listens there."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_encoded() {
        let query = page_query(
            &[("scope", Some("a/b".to_owned())), ("state", None), ("prefix", Some("x y&z".to_owned()))],
            Some("c=1"),
        );
        assert_eq!(query, "scope=a%2Fb&prefix=x+y%26z&after=c%3D1&limit=1000");
    }

    #[test]
    fn a_denial_is_told_from_a_failure() {
        let denied = refused(StatusCode::FORBIDDEN, br#"{"detail":"no","hint":"Ask."}"#);
        assert_eq!(
            (denied.exit, denied.message.as_str(), denied.hint.as_deref()),
            (Exit::Unreachable, "no", Some("Ask."))
        );
        assert_eq!(refused(StatusCode::CONFLICT, br#"{"detail":"twice"}"#).exit, Exit::Failed);
        assert!(refused(StatusCode::BAD_GATEWAY, b"<html>").message.contains("502"));
    }
}
