//! What Holdfast promises, tried from outside on real servers. Each module is a promise; each test says in its name what holds.
//!
//! Nothing here measures speed: time is looked at only where a bound on it is the promise. What cannot run on this machine says so on standard error, whether or not output is captured.

mod boundaries;
mod check;
mod clear_errors;
mod configuration;
mod corruption;
mod damaged;
mod faults;
mod full_catalog;
mod golden;
mod hostile;
mod impostors;
mod keys;
mod kills;
mod locked;
mod logins;
mod members;
mod memory;
mod obstacles;
mod offsite;
mod plugins;
mod promotion;
mod prune;
mod reader;
mod rebirth;
mod resets;
mod retention;
mod round_trip;
mod secrecy;
mod setting;
mod sources;
mod targets;
mod tls;
mod unlock;
mod versions;
mod wire;
