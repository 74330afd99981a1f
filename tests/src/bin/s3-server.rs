//! An S3 service over a directory, for tests and the demo: `s3-server ADDRESS ROOT CONTROL ACCESS-KEY SECRET-KEY`.
//!
//! Path-style requests signed with the one key; conditional writes hold against each other. Files in the control directory make
//! faults (see `holdfast_tests::s3`). It prints the address that it listens on, then serves until it is ended.

use std::convert::Infallible;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use holdfast_tests::s3::{HELD, HOLD, UNAVAILABLE};
use hyper::body::Incoming;
use hyper::header::IF_NONE_MATCH;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

const SLOW_DOWN: &str =
    "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>a fault on demand</Message></Error>";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, root, control, access_key, secret_key] = &arguments[..] else {
        return Err("usage: s3-server ADDRESS ROOT CONTROL ACCESS-KEY SECRET-KEY".into());
    };
    let files = s3s_fs::FileSystem::new(root).map_err(|error| format!("{root}: {error:?}"))?;
    let mut builder = S3ServiceBuilder::new(files);
    builder.set_auth(SimpleAuth::from_single(access_key.as_str(), secret_key.as_str()));
    let front = Arc::new(Front { service: builder.build(), control: control.into(), lock: Mutex::new(()) });

    let listener = TcpListener::bind(address).await?;
    writeln!(std::io::stdout(), "listening on {}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let front = front.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let front = front.clone();
                async move { Ok::<_, Infallible>(front.answer(request).await) }
            });
            // A client that goes away is its own affair.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// What stands before the service: faults, and one conditional write at a time.
struct Front {
    service: S3Service,
    control: PathBuf,
    lock: Mutex<()>,
}

impl Front {
    async fn answer(&self, request: Request<Incoming>) -> Response<s3s::Body> {
        if self.is_unavailable().await {
            return refused(StatusCode::SERVICE_UNAVAILABLE);
        }
        if request.method() == Method::PUT {
            self.wait_while_held().await;
        }
        // The file system service looks whether the object exists, then writes: two such requests must not interleave.
        let _turn = match request.headers().contains_key(IF_NONE_MATCH) {
            true => Some(self.lock.lock().await),
            false => None,
        };
        self.service
            .call(request.map(s3s::Body::from))
            .await
            .unwrap_or_else(|_| refused(StatusCode::INTERNAL_SERVER_ERROR))
    }

    /// Takes one from the number of requests to refuse, if there is one left.
    async fn is_unavailable(&self) -> bool {
        let path = self.control.join(UNAVAILABLE);
        if !path.exists() {
            return false;
        }
        let _turn = self.lock.lock().await;
        let left = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(0);
        left > 0 && fs::write(&path, (left - 1).to_string()).is_ok()
    }

    async fn wait_while_held(&self) {
        while self.control.join(HOLD).exists() {
            // Failing to say so would only let a test wait in vain.
            let _ = fs::write(self.control.join(HELD), "");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn refused(status: StatusCode) -> Response<s3s::Body> {
    let mut response = Response::new(s3s::Body::from(SLOW_DOWN.to_owned()));
    *response.status_mut() = status;
    response
}
