//! Dialling a member: resolves its name here, refuses addresses that no backup has any business with, and reports failure
//! in words that name the member.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;

use crate::grants::Member;
use crate::imports::types::{CallError, refused, refused_for_now};

/// What one run may dial.
pub(crate) struct Dialler {
    members: Vec<Member>,
    denied: Vec<IpAddr>,
    patience: Duration,
}

/// A fresh connection.
pub(crate) enum Dialled {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A Unix socket never leaves the machine, so it needs no TLS.
pub(crate) fn is_local(member: &Member) -> bool {
    matches!(member, Member::Unix(_))
}

impl Dialler {
    pub(crate) fn new(members: Vec<Member>, denied: Vec<IpAddr>, patience: Duration) -> Self {
        Self { members, denied: denied.iter().map(IpAddr::to_canonical).collect(), patience }
    }

    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member at a position that a guest gave.
    pub(crate) fn member(&self, position: u32) -> Result<&Member, CallError> {
        usize::try_from(position).ok().and_then(|position| self.members.get(position)).ok_or_else(|| {
            let message = format!("no server at position {position} is granted: there are {}", self.members.len());
            refused("not-granted", message, "This is a defect of the plugin: report it to its author.")
        })
    }

    /// Connects within the patience that the limits give.
    pub(crate) async fn dial(&self, member: &Member) -> Result<Dialled, CallError> {
        let attempt = async {
            match member {
                Member::Tcp { host, port } => self.dial_tcp(member, host, *port).await.map(Dialled::Tcp),
                Member::Unix(path) => dial_unix(path).await.map(Dialled::Unix),
            }
        };
        timeout(self.patience, attempt).await.unwrap_or_else(|_| {
            let message = format!("{member} did not answer within {} s", self.patience.as_secs_f32());
            Err(refused_for_now(
                "connection-timeout",
                message,
                format!("Check that the server at {member} is up and that no firewall is in the way."),
            ))
        })
    }

    async fn dial_tcp(&self, member: &Member, host: &str, port: u16) -> Result<TcpStream, CallError> {
        let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map(Iterator::collect).unwrap_or_default();
        if addresses.is_empty() {
            let hint = format!("Check the spelling of host, and that this machine's DNS knows '{host}'.");
            return Err(refused_for_now("unknown-host", format!("the host '{host}' is not known"), hint));
        }
        let mut last = None;
        for address in addresses.into_iter().filter(|address| !self.is_denied(address.ip())) {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Requests are small and answered before the next one: waiting to fill a segment only delays them.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error) => unreachable(member, &error),
            None => refused(
                "address-denied",
                format!("'{host}' has only addresses that may not be dialled"),
                "Link-local, metadata and configured addresses are never dialled: set host to the server's own address.",
            ),
        })
    }

    fn is_denied(&self, address: IpAddr) -> bool {
        /// Where one cloud serves credentials over IPv6.
        const METADATA: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));
        // An IPv4 address in IPv6 clothes is the IPv4 address.
        let address = address.to_canonical();
        let link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        link_local || address == METADATA || self.denied.contains(&address)
    }
}

async fn dial_unix(path: &Path) -> Result<UnixStream, CallError> {
    UnixStream::connect(path).await.map_err(|error| unreachable(&Member::Unix(path.to_owned()), &error))
}

fn unreachable(member: &Member, error: &std::io::Error) -> CallError {
    let refusal = match member {
        Member::Tcp { .. } => {
            format!("Check that the server at {member} is running and listens on that address and port.")
        }
        Member::Unix(_) => format!("Check that the server is running on this machine and that its socket is {member}."),
    };
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
            refused_for_now("connection-refused", format!("nothing listens at {member}"), refusal)
        }
        ErrorKind::TimedOut => refused_for_now("connection-timeout", format!("{member} did not answer"), refusal),
        ErrorKind::PermissionDenied => {
            let hint = format!("Let the user that runs this appliance connect to {member}.");
            refused("permission-denied", format!("connecting to {member} is not permitted"), hint)
        }
        _ => refused_for_now("connection-failed", format!("cannot connect to {member}: {error}"), refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_metadata_and_configured_addresses_are_denied() {
        let denied = vec!["10.0.0.1".parse().expect("an address")];
        let dialler = Dialler::new(Vec::new(), denied, Duration::from_secs(1));
        for address in [
            "169.254.169.254",
            "::ffff:169.254.1.1",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "10.0.0.1",
            "::ffff:10.0.0.1",
        ] {
            assert!(dialler.is_denied(address.parse().expect("an address")), "{address}");
        }
        for address in ["127.0.0.1", "::1", "10.0.0.2", "192.168.1.1", "fec0::1", "fd00:ec2::253"] {
            assert!(!dialler.is_denied(address.parse().expect("an address")), "{address}");
        }
    }

    async fn code(member: Member) -> String {
        let dialler = Dialler::new(vec![member], Vec::new(), Duration::from_secs(5));
        let error = match dialler.member(0) {
            Ok(member) => dialler.dial(member).await.err(),
            Err(error) => Some(error),
        };
        error.and_then(|error| error.code().map(str::to_owned)).unwrap_or_default()
    }

    #[tokio::test]
    async fn failures_have_codes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let tcp = |host: &str, port| Member::Tcp { host: host.to_owned(), port };
        assert_eq!(code(tcp("127.0.0.1", port)).await, "connection-refused");
        assert_eq!(code(tcp("no-such-host.invalid", 1)).await, "unknown-host");
        assert_eq!(code(tcp("169.254.169.254", 80)).await, "address-denied");
        assert_eq!(code(Member::Unix("/no/such/socket".into())).await, "connection-refused");
        let none = Dialler::new(Vec::new(), Vec::new(), Duration::from_secs(1));
        assert_eq!(
            none.member(0).err().and_then(|error| error.code().map(str::to_owned)).as_deref(),
            Some("not-granted")
        );
    }
}
