//! Finding out whether a store keeps writers apart, as its conditional writes promise.
//!
//! Some stores ignore the condition, some look and then write: the first kind is found for certain, the second by
//! letting writers loose side by side, as often as a probe can afford. What is not seen to hold is not claimed.

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

use crate::error::Error;
use crate::{Storage, random};

/// Writers that are let loose on one new object to see whether exactly one wins.
const CONTENDERS: usize = 8;
/// How often.
const CONTESTS: usize = 3;

/// A store on trial.
#[async_trait]
pub(crate) trait Contestant: Storage {
    /// The bare conditional write, nothing looked at before it.
    async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool, Error>;
}

/// Whether a second writer is turned away, one after the other and side by side.
pub(crate) async fn keeps_writers_apart(store: &impl Contestant, scratch: &str) -> Result<bool, Error> {
    // A place of its own: what an earlier, failed try left there must not turn a writer away.
    let scratch = format!("{scratch}/{}", random::name());
    let path = format!("{scratch}/turns");
    let first = store.put_new(&path, Bytes::from_static(b"first")).await;
    let second = store.put_new(&path, Bytes::from_static(b"second")).await;
    store.delete(&path).await?;
    if (first?, second?) != (true, false) {
        return Ok(false);
    }
    for round in 0..CONTESTS {
        if !has_one_winner(store, &format!("{scratch}/contest-{round}")).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Lets writers loose on one new object.
async fn has_one_winner(store: &impl Contestant, path: &str) -> Result<bool, Error> {
    let contenders = (0..CONTENDERS).map(|number| store.put_new(path, Bytes::from(format!("writer {number}"))));
    let outcomes = join_all(contenders).await;
    let found = store.get(path, None).await;
    store.delete(path).await?;
    let won = |written: &Result<bool, Error>| matches!(written, Ok(true));
    match outcomes.iter().filter(|written| won(written)).count() {
        // Nobody got through: that says nothing about the store's rules.
        0 => outcomes.into_iter().find_map(Result::err).map_or(Ok(false), Err),
        1 => {
            let winner = outcomes.iter().position(won).unwrap_or_default();
            Ok(found? == format!("writer {winner}"))
        }
        _ => Ok(false),
    }
}
