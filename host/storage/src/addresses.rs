//! Addresses that are never dialled: link-local ones, behind which clouds keep their metadata services.
//!
//! A URL, or a name's owner, could otherwise make us send signed requests there.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

/// The metadata service's address in AWS's IPv6 networks; it is not link-local.
const AWS_METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// The addresses of a name, without those that are never dialled; at least one.
pub(crate) async fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await?;
    let allowed: Vec<IpAddr> = found.map(|address| address.ip()).filter(|address| !is_forbidden(*address)).collect();
    if allowed.is_empty() {
        return Err(io::Error::other(format!("{name} has no address that may be dialled")));
    }
    Ok(allowed)
}

/// Whether an address is never dialled.
pub(crate) fn is_forbidden(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_unspecified() || address.is_broadcast(),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_forbidden(IpAddr::V4(mapped)),
            None => address.is_unicast_link_local() || address.is_unspecified() || address == AWS_METADATA_V6,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_never_dialled() {
        for bad in
            ["169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "fe80::1", "fd00:ec2::254", "0.0.0.0", "::"]
        {
            assert!(is_forbidden(bad.parse().unwrap()), "{bad}");
        }
        for good in ["127.0.0.1", "10.0.0.1", "::1", "2001:db8::1"] {
            assert!(!is_forbidden(good.parse().unwrap()), "{good}");
        }
    }

    #[tokio::test]
    async fn names_of_this_machine_resolve() {
        assert!(!resolve("localhost").await.unwrap().is_empty());
    }
}
