//! The API as clients meet it: a real appliance, behind its real sockets.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test, in helpers too")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_control::{Appliance, Compiler, Limits, Options};
use holdfast_web::{ServeOptions, Server, socket_path};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// An appliance that serves until it is told to stop.
struct Served {
    data: tempfile::TempDir,
    address: SocketAddr,
    appliance: Appliance,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Served {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let data_dir = data.path().to_owned();
        let options = Options {
            data_dir: data_dir.clone(),
            unlocking: Default::default(),
            components: Vec::new(),
            primary_url: None,
            primary_site: None,
            workers: 1,
            compression: Default::default(),
            scrub: Default::default(),
            limits: Limits::default(),
            compiler: Compiler::Here,
        };
        let appliance = Appliance::start(options).await.unwrap();
        let server = Server::bind(&ServeOptions { listen: "127.0.0.1:0".parse().unwrap(), data_dir }).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(appliance.clone(), async {
            let _ = stopped.await;
        }));
        Self { data, address, appliance, stop, running }
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.data.path().join("admin-token")).unwrap().trim().to_owned()
    }

    async fn local(&self) -> Client {
        Client::over(UnixStream::connect(socket_path(self.data.path())).await.unwrap(), None).await
    }

    /// Over TLS, trusting exactly what lies in the data directory.
    async fn remote(&self, token: Option<String>) -> Client {
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(trusting(self.data.path())).connect(name, tcp).await.unwrap();
        Client::over(tls, token).await
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap();
        self.appliance.stop().await;
    }
}

fn trusting(data_dir: &Path) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(data_dir.join("tls/certificate.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

struct Client {
    connection: SendRequest<Full<Bytes>>,
    token: Option<String>,
}

impl Client {
    async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, token: Option<String>) -> Self {
        let (connection, driver) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(driver);
        Self { connection, token }
    }

    async fn send(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        let mut request = Request::builder().method(method).uri(format!("/api/v1/{path}")).header("host", "localhost");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.connection.ready().await.unwrap();
        self.connection.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    async fn ask(&mut self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let response = self.send(method, path, body).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    async fn get(&mut self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, &Value::Null).await
    }
}

#[tokio::test]
async fn nobody_is_answered_without_a_token_but_whoever_owns_the_socket() {
    let served = Served::start().await;
    for token in [None, Some("hf_wrong".to_owned())] {
        let (status, problem) = served.remote(token).await.get("status").await;
        assert_eq!((status, &problem["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));
    }
    // What the API consists of is no secret.
    assert_eq!(served.remote(None).await.get("openapi.json").await.0, StatusCode::OK);
    assert_eq!(served.remote(Some(served.token())).await.get("status").await.0, StatusCode::OK);
    assert_eq!(served.local().await.get("status").await.0, StatusCode::OK);
    served.stop().await;
}

#[tokio::test]
async fn problems_are_told_with_code_hint_and_the_requests_id() {
    let served = Served::start().await;
    let mut client = served.local().await;
    let response = client.send(Method::GET, "instances/acme/shop/pg", "").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let problem: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(problem["instance"], json!(id));
    assert_eq!(problem["code"], "instance-not-found");
    assert!(problem["hint"].is_string());

    assert_eq!(client.get("nothing").await.1["code"], "no-such-path");
    assert_eq!(client.ask(Method::DELETE, "status", &Value::Null).await.1["code"], "no-such-method");
    assert_eq!(client.ask(Method::POST, "targets", &json!({ "nmae": "x" })).await.1["code"], "unknown-field");
    assert_eq!(client.get("backups?limit=0").await.0, StatusCode::BAD_REQUEST);
    let response = client.send(Method::POST, "instances", vec![b' '; 1024 * 1024 + 1]).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    served.stop().await;
}

#[tokio::test]
async fn a_directory_of_the_appliances_machine_is_named_on_that_machine_only() {
    let served = Served::start().await;
    let restore = json!({ "backup": "acme/shop/pg", "toDirectory": "/nonexistent/restored" });
    let mut remote = served.remote(Some(served.token())).await;
    let (status, problem) = remote.ask(Method::POST, "restores", &restore).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("local-only")));
    let (status, problem) = served.local().await.ask(Method::POST, "restores", &restore).await;
    assert_eq!((status, &problem["code"]), (StatusCode::NOT_FOUND, &json!("instance-not-found")));
    served.stop().await;
}

#[tokio::test]
async fn a_target_is_added_listed_and_versioned() {
    let served = Served::start().await;
    let place = tempfile::tempdir().unwrap();
    let mut client = served.remote(Some(served.token())).await;
    let url = format!("file://{}", place.path().join("vault").display());
    let (status, made) =
        client.ask(Method::POST, "targets", &json!({ "name": "vault", "url": url, "site": "local" })).await;
    assert_eq!((status, &made["role"]), (StatusCode::CREATED, &json!("secondary")), "{made}");

    let response = client.send(Method::GET, "targets/vault", "").await;
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let target: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(format!("\"{}\"", target["resourceVersion"].as_str().unwrap()), tag);

    let (_, list) = client.get("targets").await;
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|target| &target["name"]).collect();
    assert_eq!(names, ["primary", "vault"]);
    assert_eq!(list["next"], Value::Null);
    served.stop().await;
}

#[tokio::test]
async fn a_policy_is_added_changed_and_removed_and_must_keep_something() {
    let served = Served::start().await;
    let mut client = served.local().await;
    let nothing = json!({ "name": "standard", "rules": {} });
    let (status, problem) = client.ask(Method::POST, "policies", &nothing).await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("bad-rule")));
    let policy = json!({ "name": "standard", "scope": "acme", "targets": ["primary"], "rules": { "daily": 7 } });
    let (status, made) = client.ask(Method::POST, "policies", &policy).await;
    assert_eq!(
        (status, &made["targets"], &made["rules"]["daily"]),
        (StatusCode::CREATED, &json!(["primary"]), &json!(7))
    );
    assert!(made["actsAt"].is_string(), "it takes nothing for a day: {made}");
    assert_eq!(client.ask(Method::POST, "policies", &policy).await.1["code"], "policy-exists");

    let edit = json!({ "resourceVersion": made["resourceVersion"], "targets": [], "rules": { "last": 3 } });
    let (status, edited) = client.ask(Method::PATCH, "policies/standard", &edit).await;
    assert_eq!((status, &edited["targets"], &edited["rules"]["daily"]), (StatusCode::OK, &json!([]), &Value::Null));
    assert_eq!((&edited["scope"], &edited["rules"]["last"]), (&json!("acme"), &json!(3)));
    assert_eq!(client.ask(Method::PATCH, "policies/standard", &edit).await.1["code"], "changed-meanwhile");
    assert_eq!(client.get("policies/standard").await.1, edited);
    let ahead = client.get("retention?scope=acme&afterChanges=true").await;
    assert_eq!(ahead, (StatusCode::OK, json!({ "items": [], "next": null })));

    let response = client.send(Method::DELETE, "policies/standard", "").await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(client.get("policies").await.1["items"], json!([]));
    assert_eq!(client.get("policies/standard").await.1["code"], "policy-not-found");
    served.stop().await;
}

#[tokio::test]
async fn changes_are_told_and_a_listener_does_not_hold_up_the_end() {
    let served = Served::start().await;
    let mut listener = served.local().await;
    let mut events = listener.send(Method::GET, "events", "").await;
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let first = events.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"event: change\n"), "{first:?}");

    let place = tempfile::tempdir().unwrap();
    let target = json!({ "name": "vault", "url": format!("file://{}", place.path().display()), "site": "local" });
    assert_eq!(served.local().await.ask(Method::POST, "targets", &target).await.0, StatusCode::CREATED);
    let next = events.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(next.starts_with(b"event: change\n"), "{next:?}");

    served.stop().await;
    while let Some(Ok(_)) = events.body_mut().frame().await {}
}
