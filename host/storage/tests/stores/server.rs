//! An S3 server in the test's own process: s3s-fs behind a front that can be told to misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use holdfast_storage::Settings;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// How the store treats `If-None-Match`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// As s3s-fs does: it looks, then writes.
    AsTheyCome,
    /// One write after the other.
    Atomic,
    /// The header is ignored.
    Ignored,
    /// The header is refused.
    NotImplemented,
}

/// What a test can tell the server, and learn from it.
#[derive(Debug, Default)]
pub struct Control {
    /// So many of the next requests fail with 503.
    pub busy: AtomicU32,
    /// So many of the next PUTs are done and then answered with 500.
    pub forgetful: AtomicU32,
    /// Requests that came.
    pub requests: AtomicU32,
    /// Pages of listings among them.
    pub pages: AtomicU32,
}

/// A running server with one empty bucket, `bucket`.
pub struct Server {
    pub control: Arc<Control>,
    pub endpoint: String,
    _directory: TempDir,
    accepting: JoinHandle<()>,
}

impl Server {
    pub async fn start(conditions: Conditions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("bucket")).unwrap();
        let control = Arc::new(Control::default());
        let inner = FileSystem::new(directory.path()).unwrap();
        let front = Front { inner, conditions, control: Arc::clone(&control), turn: Mutex::new(()) };
        let mut builder = S3ServiceBuilder::new(front);
        builder.set_auth(SimpleAuth::from_single("AK", "SK"));
        let service = builder.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone()));
            }
        });
        Self { control, endpoint, _directory: directory, accepting }
    }

    pub fn url(&self, bucket_and_prefix: &str) -> String {
        format!("s3://{bucket_and_prefix}?endpoint={}", self.endpoint)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The keys that the server knows.
pub fn keys() -> Settings {
    crate::settings(&[("access-key", "AK"), ("secret-key", "SK")])
}

struct Front {
    inner: FileSystem,
    conditions: Conditions,
    control: Arc<Control>,
    turn: Mutex<()>,
}

impl Front {
    fn enter(&self) -> S3Result<()> {
        self.control.requests.fetch_add(1, Ordering::SeqCst);
        if take(&self.control.busy) { Err(s3_error!(SlowDown)) } else { Ok(()) }
    }
}

/// Whether there was one left to take.
fn take(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

#[async_trait::async_trait]
impl S3 for Front {
    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.enter()?;
        let conditional = request.input.if_none_match.is_some();
        let _turn = match self.conditions {
            Conditions::NotImplemented if conditional => return Err(s3_error!(NotImplemented)),
            Conditions::Atomic => Some(self.turn.lock().await),
            _ => None,
        };
        if self.conditions == Conditions::Ignored {
            request.input.if_none_match = None;
        }
        let answer = self.inner.put_object(request).await?;
        if take(&self.control.forgetful) { Err(s3_error!(InternalError)) } else { Ok(answer) }
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        self.enter()?;
        self.inner.get_object(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.enter()?;
        self.inner.head_object(request).await
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.enter()?;
        self.inner.delete_object(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.enter()?;
        self.control.pages.fetch_add(1, Ordering::SeqCst);
        self.inner.list_objects_v2(request).await
    }
}
