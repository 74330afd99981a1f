//! Finding out whether a store keeps writers apart, as `If-None-Match` promises.
//!
//! Some stores ignore the header, some look and then write: the first kind is found for certain, the second by
//! letting writers loose side by side, as often as a probe can afford. What is not seen to hold is not claimed.

use bytes::Bytes;
use futures_util::future::join_all;

use super::S3;
use super::write::Sent;
use crate::error::{Error, Operation};
use crate::{Storage, random};

/// Writers that are let loose on one new object to see whether exactly one wins.
const CONTENDERS: usize = 8;
/// How often.
const CONTESTS: usize = 3;

impl S3 {
    /// Whether a second writer is turned away, one after the other and side by side.
    pub(super) async fn keeps_writers_apart(&self, scratch: &str) -> Result<bool, Error> {
        // A place of its own: what an earlier, failed try left there must not turn a writer away.
        let scratch = format!("{scratch}/{}", random::name());
        let path = format!("{scratch}/turns");
        let attempt = self.attempt(Operation::PutIfAbsent, &path)?;
        let first = self.send_if_absent(&attempt, Bytes::from_static(b"first")).await;
        let second = self.send_if_absent(&attempt, Bytes::from_static(b"second")).await;
        self.delete(&path).await?;
        if (first?, second?) != (Sent::Stored, Sent::Occupied) {
            return Ok(false);
        }
        for round in 0..CONTESTS {
            if !self.has_one_winner(&format!("{scratch}/contest-{round}")).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Lets writers loose on one new object.
    async fn has_one_winner(&self, path: &str) -> Result<bool, Error> {
        let attempt = &self.attempt(Operation::PutIfAbsent, path)?;
        let contenders =
            (0..CONTENDERS).map(|number| self.send_if_absent(attempt, Bytes::from(format!("writer {number}"))));
        let outcomes = join_all(contenders).await;
        let found = self.get(path, None).await;
        self.delete(path).await?;
        let won = |sent: &Result<Sent, Error>| matches!(sent, Ok(Sent::Stored));
        match outcomes.iter().filter(|sent| won(sent)).count() {
            // Nobody got through: that says nothing about the store's rules.
            0 => outcomes.into_iter().find_map(Result::err).map_or(Ok(false), Err),
            1 => {
                let winner = outcomes.iter().position(won).unwrap_or_default();
                Ok(found? == format!("writer {winner}"))
            }
            _ => Ok(false),
        }
    }
}
