//! `status`, `events`, `takeover`: the appliance as a whole.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, StreamExt, stream};
use holdfast_control::resources::Status;
use holdfast_control::{Appliance, Principal};
use serde::Deserialize;
use tokio::sync::watch;

use super::Api;
use super::error::Problem;
use super::extract::Body;

/// Changes that come closer together are told as one.
const PACE: Duration = Duration::from_millis(100);
/// A comment this often tells a client that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(crate) async fn show(State(appliance): State<Appliance>) -> Result<Json<Status>, Problem> {
    Ok(Json(appliance.status().await?))
}

/// `POST takeover`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TakeOver {
    /// The repository's id, typed by a person who means it.
    repository: String,
}

pub(crate) async fn take_over(
    State(appliance): State<Appliance>,
    Extension(who): Extension<Principal>,
    Body(request): Body<TakeOver>,
) -> Result<Json<Status>, Problem> {
    Ok(Json(appliance.take_over(&who, &request.repository).await?))
}

/// Server-sent `change` events: one at once, then one after each change of a job or a backup. What changed is asked for elsewhere.
pub(crate) async fn events(State(api): State<Api>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = changes(api.appliance.changes()).take_until(api.closing.cancelled_owned());
    let events = changes.map(|change| Ok(Event::default().event("change").data(format!("{{\"change\":{change}}}"))));
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// The current value at once, then each newer one, no faster than [`PACE`]; ends with its sender.
fn changes(receiver: watch::Receiver<u64>) -> impl Stream<Item = u64> {
    stream::unfold((receiver, true), |(mut receiver, first)| async move {
        if !first {
            tokio::time::sleep(PACE).await;
            receiver.changed().await.ok()?;
        }
        let change = *receiver.borrow_and_update();
        Some((change, (receiver, false)))
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_listener_hears_the_state_at_once_and_the_newest_change_then() {
        let (sender, receiver) = watch::channel(7);
        let mut changes = pin!(changes(receiver));
        assert_eq!(changes.next().await, Some(7));
        sender.send_replace(8);
        sender.send_replace(9);
        assert_eq!(changes.next().await, Some(9));
        drop(sender);
        assert_eq!(changes.next().await, None);
    }
}
