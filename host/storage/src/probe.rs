//! Tries a store out before anything is trusted to it.
//!
//! It works below `probe/<random>` only and removes what it made. Invariant: a store that passes was seen to keep,
//! show, replace and remove objects, and not to replace where it must not.

use std::time::Duration;

use bytes::Bytes;

use crate::error::Error;
use crate::{Storage, Traits, random};

/// How often a listing is asked for an object that was just written.
const LISTINGS: u32 = 10;
/// Wait between two of them.
const LISTING_WAIT: Duration = Duration::from_millis(500);

/// One thing that was tried at a place, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was tried, `kebab-case`.
    pub what: &'static str,
    /// Whether the place does it. Where it must, the probe fails instead.
    pub works: bool,
    /// What that means, in words.
    pub detail: String,
}

impl Finding {
    pub(crate) fn new(what: &'static str, works: bool, detail: impl Into<String>) -> Self {
        Self { what, works, detail: detail.into() }
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What the store remembers of it.
    pub traits: Traits,
    /// All of it, for people.
    pub findings: Vec<Finding>,
}

/// Tries write, read, list, replace, conditional write and delete under `probe/`, and what the store has besides, and says
/// what was found; the store remembers it for [`Storage::traits`].
///
/// Errors: those of the operations, and [`Error::Misbehaves`] where one was acknowledged and not done.
pub async fn probe(storage: &dyn Storage) -> Result<Found, Error> {
    let scratch = format!("probe/{}", random::name());
    let path = format!("{scratch}/object");
    let outcome = Trial { storage, path: &path }.run(&scratch).await;
    if outcome.is_err() {
        // The first error is the one to tell.
        let _ = storage.delete(&path).await;
    }
    outcome
}

/// One object's life in the store on trial.
struct Trial<'a> {
    storage: &'a dyn Storage,
    path: &'a str,
}

impl Trial<'_> {
    async fn run(&self, scratch: &str) -> Result<Found, Error> {
        let (first, second) =
            (Bytes::from_static(b"holdfast probe, first"), Bytes::from_static(b"holdfast probe, second"));
        self.storage.put(self.path, first.clone()).await?;
        self.holds(&first).await?;
        self.is_listed(first.len() as u64).await?;
        self.storage.put(self.path, second.clone()).await?;
        self.holds(&second).await?;
        let replaced = self.storage.put_if_absent(self.path, first).await?;
        self.expect(!replaced, "a write that must not replace claims to have written where an object was")?;
        self.holds(&second).await?;
        let conditional_writes = self.storage.try_conditional_writes(scratch).await?;
        self.storage.delete(self.path).await?;
        self.is_gone().await?;
        let mut findings = vec![
            Finding::new("write", true, "an object that was written is there"),
            Finding::new("read", true, "whole objects and ranges of them come back as they were written"),
            Finding::new("list", true, "a new object is listed"),
            Finding::new("replace", true, "a write replaces what was there"),
            Finding::new("delete", true, "a deleted object is gone"),
            conditional(conditional_writes),
        ];
        findings.extend(self.storage.examine(scratch).await?);
        Ok(Found { traits: Traits { conditional_writes }, findings })
    }

    fn expect(&self, holds: bool, otherwise: &str) -> Result<(), Error> {
        if holds {
            return Ok(());
        }
        Err(Error::Misbehaves { location: self.storage.location(), detail: otherwise.to_owned() })
    }

    async fn holds(&self, bytes: &Bytes) -> Result<(), Error> {
        let length = self.storage.head(self.path).await?;
        self.expect(
            length == Some(bytes.len() as u64),
            "an object that was just written has another length, or is missing",
        )?;
        let whole = self.storage.get(self.path, None).await?;
        self.expect(whole == *bytes, "an object that was just written has other bytes")?;
        let range = self.storage.get(self.path, Some(9..14)).await?;
        self.expect(range == bytes[9..14], "a range of an object has other bytes than the object")
    }

    /// A listing may lag a little, but not for ever: recovery finds the newest state by it.
    async fn is_listed(&self, length: u64) -> Result<(), Error> {
        for attempt in 0..LISTINGS {
            if attempt > 0 {
                tokio::time::sleep(LISTING_WAIT).await;
            }
            let listed = self.storage.list(self.path).await?;
            if listed.iter().any(|object| object.path == self.path && object.length == length) {
                return Ok(());
            }
        }
        self.expect(false, "an object that was written does not appear in the listing")
    }

    async fn is_gone(&self) -> Result<(), Error> {
        self.expect(self.storage.head(self.path).await?.is_none(), "an object that was just deleted is still there")?;
        let absent = matches!(self.storage.get(self.path, None).await, Err(Error::NotFound { .. }));
        self.expect(absent, "an object that was just deleted can still be read")
    }
}

fn conditional(works: bool) -> Finding {
    let detail = match works {
        true => "of several writers of one object exactly one wins, so several appliances may write here",
        false => "the place does not keep writers apart: only one appliance may ever write here",
    };
    Finding::new("conditional-writes", works, detail)
}
