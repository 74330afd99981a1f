//! Work at one target that is tried until it is done: either it is done now, or it waits for something.

use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::cli::{Failure, wait};
use crate::client::Client;

/// How an attempt went.
pub enum Attempted<T> {
    /// With this report.
    Done(T),
    /// It is tried again; what stood in its way.
    Waits(String),
}

/// Waits for a job's end or its first failed attempt.
pub async fn attempted<T: DeserializeOwned>(
    client: &Client,
    id: &str,
    timeout: Option<Duration>,
) -> Result<Attempted<T>, Failure> {
    let job = wait::for_attempt(client, id, timeout).await?;
    if let ("Queued", Some(error)) = (&job.state[..], &job.error) {
        return Ok(Attempted::Waits(format!("{}: {}; it is tried again", job.subject, error.message)));
    }
    if let Some(failure) = wait::failure_of(&job) {
        return Err(failure);
    }
    let report = serde_json::from_value(job.result.unwrap_or_default());
    report.map(Attempted::Done).map_err(|error| Failure::failed(format!("the job's report cannot be read: {error}")))
}
