//! Every store under the one suite, and what each owes besides.

#![allow(clippy::unwrap_used)]

mod full_disk;
mod local;
mod minio;
mod s3;
mod server;
mod sftp;
mod syscalls;
mod wrappers;

use holdfast_storage::Settings;

/// Settings from pairs.
fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
