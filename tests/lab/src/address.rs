//! The address plan's second family: every IPv4 address of the lab has one IPv6 twin.

use crate::{Error, Result};
use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv6 address that belongs to an IPv4 address of the plan: `a.b.c.d` is `fd00:a:b::c:d`, each number written with the
/// same digits, as in kube-proxy's tests: `172.30.0.41` and `fd00:172:30::41`, `203.0.113.2` and `fd00:203::113:2`.
#[must_use]
pub fn twin(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(same_digits);
    Ipv6Addr::new(0xfd00, a, b, 0, 0, 0, c, d)
}

/// The twin of a network whose prefix ends at an octet: `10.0.0.0/8` is `fd00:10::/32`, `192.168.0.0/24` is `fd00:192:168::/112`.
/// A prefix within an octet is widened to the octet's start: digits read as hexadecimal do not keep finer borders.
#[must_use]
pub fn twin_net(net: Ipv4Net) -> Ipv6Net {
    let length = match net.prefix_len() {
        0..8 => 16,
        8..16 => 32,
        16..24 => 48,
        24..32 => 112,
        _ => 128,
    };
    Ipv6Net::new_assert(twin(net.network()), length).trunc()
}

/// An octet's decimal digits read as hexadecimal: 172 is 0x172.
fn same_digits(octet: u8) -> u16 {
    let octet = u16::from(octet);
    (octet / 100) << 8 | (octet / 10 % 10) << 4 | (octet % 10)
}

/// Reads an IPv4 address of the plan.
pub(crate) fn ipv4(text: &str) -> Result<Ipv4Addr> {
    text.parse().map_err(|_| Error::Address { text: text.to_owned(), expected: "an IPv4 address such as 10.180.0.1" })
}

/// The length of a prefix that holds just this address.
pub(crate) const fn host_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_keep_their_digits() {
        for (four, six) in [
            ("172.30.0.41", "fd00:172:30::41"),
            ("10.180.2.1", "fd00:10:180::2:1"),
            ("192.168.1.2", "fd00:192:168::1:2"),
            ("203.0.113.255", "fd00:203::113:255"),
        ] {
            assert_eq!(twin(four.parse().unwrap()).to_string(), six);
        }
    }

    #[test]
    fn twins_of_networks_hold_the_twins_of_their_addresses() {
        for net in ["10.0.0.0/8", "172.30.0.0/16", "192.168.0.0/24", "203.0.113.0/25", "1.2.3.4/32"] {
            let net: Ipv4Net = net.parse().unwrap();
            for address in [net.network(), net.broadcast()] {
                assert!(twin_net(net).contains(&twin(address)), "{net}: {address}");
            }
        }
    }
}
