//! How the S3 client finds addresses: the system's resolver, without the addresses that are never dialled.

use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};

use crate::addresses;

/// The system's resolver without the addresses that are never dialled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolver;

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move { addresses::resolve(name).await.map_err(ResolveDnsError::new) })
    }
}
