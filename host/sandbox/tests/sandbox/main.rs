//! The sandbox with real guests: what they may do, and what becomes of those that try more.

mod archive;
mod guest;
mod hostile;
