//! What the black-box scenarios and the demo stand on: real servers, the real binary, and content compared by SQL.
//!
//! Nothing here knows a room of the product from inside: it runs `holdfast` as an operator would. Every server that is
//! started here ends with its value, and with the process if that is killed.

pub mod appliance;
pub mod certificates;
pub mod cluster;
pub mod content;
mod daemon;
pub mod disk;
mod failure;
pub mod golden;
pub mod impostor;
pub mod interceptor;
pub mod meddler;
pub mod minio;
pub mod needles;
mod places;
mod programs;
pub mod proxy;
pub mod reader;
pub mod s3;
pub mod sshd;
mod standby;
mod steps;
pub mod wire;

pub use daemon::{Daemon, let_daemons_outlive_us, wait_until};
pub use failure::{Failure, Result, ensure};
pub use places::{Account, Workdir, free_port, guest, program};
pub use steps::{Attempt, PASSWORD, ROLE, number};
