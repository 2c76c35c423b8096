//! Facts about the place we run in, gathered once: the host's name and the pod's address.
//!
//! Level 2. Sends nothing and resolves no names, so it cannot hang.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::Host;

/// Gathers the facts. `pod_ip` is the value of the variable `POD_IP` (usually the field
/// `status.podIP`), which wins if it is an address; `endpoint` is the endpoint's host.
#[must_use]
pub fn gather(pod_ip: Option<&str>, endpoint: &str) -> Host {
    let given = pod_ip.and_then(address);
    let address = given
        .or_else(|| destinations(endpoint).into_iter().flatten().find_map(route_source))
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    Host {
        name: rustix::system::uname().nodename().to_bytes().to_owned(),
        address: address.to_string(),
    }
}

/// Whether this is an address, as the value of `POD_IP` should be.
#[must_use]
pub fn is_address(text: &str) -> bool {
    address(text).is_some()
}

fn address(text: &str) -> Option<IpAddr> {
    text.trim().parse().ok()
}

/// Addresses to ask the routing table about: the endpoint's, if it is an address; then one of the
/// blocks reserved for documentation (RFC 5737, RFC 3849), which take the default route.
fn destinations(endpoint: &str) -> [Option<IpAddr>; 3] {
    [
        endpoint.parse().ok(),
        Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        Some(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))),
    ]
}

/// The address that packets to `destination` would carry, unless it is loopback. Connecting a
/// datagram socket chooses it and sends nothing.
fn route_source(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(destination, 9)).ok()?;
    let source = socket.local_addr().ok()?.ip();
    (!source.is_loopback() && !source.is_unspecified()).then_some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_address_is_taken_from_its_variable() {
        assert_eq!(gather(Some(" 10.7.0.37\n"), "127.0.0.1").address, "10.7.0.37");
        assert_eq!(gather(Some("fd00::7"), "127.0.0.1").address, "fd00::7");
    }

    #[test]
    fn without_the_variable_there_is_an_address_all_the_same() {
        for pod_ip in [None, Some(""), Some("not an address")] {
            let host = gather(pod_ip, "127.0.0.1");
            assert!(host.address.parse::<IpAddr>().is_ok(), "{host:?}");
            assert!(!host.name.is_empty());
        }
        assert_eq!(route_source(Ipv4Addr::LOCALHOST.into()), None, "loopback is nobody's address");
    }
}
