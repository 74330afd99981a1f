//! The archive store as its callers see it, over a storage in memory that fails on purpose.

#![allow(clippy::unwrap_used)]

mod bounds;
mod check;
mod copies;
mod deltas;
mod elsewhere;
mod errors;
mod faults;
mod flips;
mod golden;
mod heads;
mod heal;
mod index;
mod keys;
mod kills;
mod lies;
mod memory;
mod model;
mod parts;
mod power;
mod prune;
mod round_trip;
mod setting;
mod story;
mod traced;
mod wire;
