//! The archive store as its callers see it, over a storage in memory that fails on purpose.

#![allow(clippy::unwrap_used)]

mod bounds;
mod check;
mod copies;
mod deltas;
mod faults;
mod index;
mod keys;
mod memory;
mod model;
mod parts;
mod prune;
mod round_trip;
mod setting;
