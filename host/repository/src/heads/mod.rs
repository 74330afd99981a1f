//! Heads (FORMAT §8): the chain of commits that makes backups exist, and what it adds up to.

mod chain;
mod commit;
mod second;
mod state;

pub(crate) use chain::read_on;
pub(crate) use commit::Change;
pub(crate) use second::SingleHeads;
pub(crate) use state::{DomainState, LiveBackup, Tip};
