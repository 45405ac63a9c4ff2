//! IP addresses and CIDRs as kube-proxy reads them: Go's old lenient parser (`k8s.io/utils/net.ParseIPSloppy`, `ParseCIDRSloppy`).
//!
//! Objects written before Kubernetes became strict still carry leading zeros, and a proxy that refused them would cut a Service that
//! works everywhere else. Results are canonical: an IPv4-mapped IPv6 address *is* the IPv4 address, as in Go, whose `net.IP` holds
//! both as the same sixteen bytes; the host bits of a CIDR are cleared.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How an address is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As the API server takes it.
    Strict,
    /// With leading zeros, or IPv4 as IPv6: refused since it became strict (`IsValidIP` of `k8s.io/apimachinery`, KEP-4858).
    Sloppy,
}

/// An IP address: leading zeros are dropped (`172.30.0.041` is `172.30.0.41`, never octal), IPv4-mapped IPv6 is IPv4.
/// No zone, no white space.
pub(crate) fn ip(text: &str) -> Option<IpAddr> {
    spelt_ip(text).map(|(address, _)| address)
}

/// The same, and how it is written.
pub(crate) fn spelt_ip(text: &str) -> Option<(IpAddr, Spelling)> {
    spelt(text).map(|(address, spelling)| (address.to_canonical(), spelling))
}

/// The same, but that IPv4-mapped IPv6 stays as it is.
fn spelt(text: &str) -> Option<(IpAddr, Spelling)> {
    // Nearly all are IPv4 and without leading zeros, and the standard library is quick with those.
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Some((IpAddr::V4(address), Spelling::Strict));
    }
    if !text.contains(':') {
        return v4(text).map(|address| (IpAddr::V4(address), Spelling::Sloppy));
    }
    let address = v6(text)?;
    let is_strict = address.to_ipv4_mapped().is_none() && text.parse::<Ipv6Addr>().is_ok();
    Some((IpAddr::V6(address), if is_strict { Spelling::Strict } else { Spelling::Sloppy }))
}

/// A CIDR with its host bits cleared. A mapped IPv6 network of /96 or longer is the IPv4 network it covers.
pub(crate) fn cidr(text: &str) -> Option<IpNet> {
    spelt_cidr(text).map(|(network, _)| network)
}

/// The same, and how it is written. Host bits are sloppy as well (`IsValidCIDR`).
pub(crate) fn spelt_cidr(text: &str) -> Option<(IpNet, Spelling)> {
    let (address, digits) = text.split_once('/')?;
    let length = decimal(digits)?;
    let (address, mut spelling) = spelt(address)?;
    let network = match (address, length.checked_sub(96)) {
        (IpAddr::V6(six), Some(length)) if six.to_ipv4_mapped().is_some() => IpNet::new(six.to_canonical(), length).ok()?,
        _ => IpNet::new(address, length).ok()?,
    };
    if network.addr() != network.trunc().addr() || (digits.len() > 1 && digits.starts_with('0')) {
        spelling = Spelling::Sloppy;
    }
    Some((network.trunc(), spelling))
}

/// What is wrong with an address as an endpoint's, in the words that follow "is"; `None` if the API server takes it (`ValidateNonSpecialIP`
/// of `pkg/apis/core/validation`): traffic of pods and of the outside must not be led to what only the node itself can reach.
pub(crate) fn special(ip: IpAddr) -> Option<&'static str> {
    let (link_local, to_the_link) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), matches!(ip.octets(), [224, 0, 0, _])),
        // The scope is in the last four bits of the second byte (RFC 4291 2.7); Go looks at them alone.
        IpAddr::V6(ip) => (ip.is_unicast_link_local(), ip.is_multicast() && ip.segments()[0] & 0xf == 2),
    };
    if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_loopback() {
        Some("a loopback address")
    } else if link_local {
        Some("a link-local address")
    } else if to_the_link {
        Some("a link-local multicast address")
    } else {
        None
    }
}

/// What is odd about an address that is not [`special`] as an endpoint's, in the words that follow "is": nobody's own.
pub(crate) fn unanswered(ip: IpAddr) -> Option<&'static str> {
    if ip == Ipv4Addr::BROADCAST { Some("the broadcast address") } else { ip.is_multicast().then_some("a multicast address") }
}

/// What is wrong with an address as a Service's own, in the words that follow "is".
pub(crate) fn unfit(ip: IpAddr) -> Option<&'static str> {
    special(ip).or_else(|| unanswered(ip))
}

/// Whether a network holds addresses that no Service can have, as the network of everything does: packets to what is unallocated in
/// it are dropped, and a node's to itself would be among them.
pub(crate) fn holds_unfit(network: IpNet) -> bool {
    const UNFIT_V4: [IpNet; 4] = [
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
        IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)),
    ];
    const UNFIT_V6: [IpNet; 3] = [
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
        IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    ];
    let overlaps = |other: &IpNet| network.contains(other) || other.contains(&network);
    UNFIT_V4.iter().chain(&UNFIT_V6).any(overlaps)
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?)?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn v6(text: &str) -> Option<Ipv6Addr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    // Only leading zeros are left to forgive: write each group again without them.
    let mut clean = String::with_capacity(text.len());
    for (place, group) in text.split(':').enumerate() {
        if place > 0 {
            clean.push(':');
        }
        if group.contains('.') {
            clean.push_str(&v4(group)?.to_string());
        } else {
            let digits = group.trim_start_matches('0');
            clean.push_str(if digits.is_empty() && !group.is_empty() { "0" } else { digits });
        }
    }
    clean.parse().ok()
}

/// Digits and nothing else; `u8::from_str` would take a sign.
fn decimal(digits: &str) -> Option<u8> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_leniently_and_written_canonically() {
        for (text, canonical) in [
            ("172.30.0.041", "172.30.0.41"),
            ("010.000.0.008", "10.0.0.8"),
            ("fd00:0000:0:0::00001", "fd00::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:010.0.0.01", "10.0.0.1"),
            ("::ffff:a00:1", "10.0.0.1"),
            ("::1", "::1"),
            ("0.0.0.0", "0.0.0.0"),
        ] {
            assert_eq!(ip(text).map(|address| address.to_string()).as_deref(), Some(canonical), "{text}");
        }
        let spelling = |text| spelt_ip(text).map(|(_, spelling)| spelling);
        for text in ["10.0.0.8", "0.0.0.0", "fd00::1", "fd00:0000::0001", "FD00::a", "::1", "::"] {
            assert_eq!(spelling(text), Some(Spelling::Strict), "{text}");
        }
        for text in ["010.0.0.1", "172.30.006.4", "::ffff:10.0.0.1", "::ffff:a00:1", "fd00::00001"] {
            assert_eq!(spelling(text), Some(Spelling::Sloppy), "{text}");
        }
        for text in [
            "",
            "10.0.0",
            "10.0.0.0.1",
            "10.0.0.256",
            "10.0.0.+1",
            " 10.0.0.1",
            "fe80::1%eth0",
            "10.0.0.1/32",
            ":",
            "1::2::3",
            "None",
        ] {
            assert_eq!(ip(text), None, "{text}");
        }
    }

    #[test]
    fn what_the_api_server_takes_for_an_endpoint_is_not_special() {
        for text in
            ["0.0.0.0", "::", "127.0.0.1", "127.9.9.9", "::1", "169.254.169.254", "fe80::1", "febf::1", "224.0.0.251", "ff02::fb"]
        {
            assert!(ip(text).and_then(special).is_some(), "{text}");
        }
        for text in
            ["0.0.0.1", "10.0.0.1", "169.253.0.1", "224.0.1.1", "239.0.0.1", "255.255.255.255", "fd00::1", "fec0::1", "ff05::1"]
        {
            assert_eq!(ip(text).and_then(special), None, "{text}");
        }
    }

    #[test]
    fn a_service_has_nobodys_address() {
        // A node that refuses the broadcast address gets no lease by DHCP.
        for text in ["0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.1.1", "255.255.255.255", "ff05::1"] {
            assert!(ip(text).and_then(unfit).is_some(), "{text}");
        }
        for text in ["10.96.0.1", "255.255.255.254", "fd00::1"] {
            assert_eq!(ip(text).and_then(unfit), None, "{text}");
        }
        assert!(holds_unfit("255.255.255.0/24".parse().unwrap()) && !holds_unfit("240.0.0.0/8".parse().unwrap()));
    }

    #[test]
    fn networks_lose_their_host_bits() {
        for (text, canonical) in [
            ("192.168.1.77/24", "192.168.1.0/24"),
            ("010.0.0.1/08", "10.0.0.0/8"),
            ("fd00::1:2/64", "fd00::/64"),
            ("::ffff:10.1.2.3/112", "10.1.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(cidr(text).map(|net| net.to_string()).as_deref(), Some(canonical), "{text}");
        }
        let spelling = |text| spelt_cidr(text).map(|(_, spelling)| spelling);
        for text in ["192.168.1.0/24", "0.0.0.0/0", "fd00::/64", "fd00:0000::/8", "10.0.0.1/32", "::/0"] {
            assert_eq!(spelling(text), Some(Spelling::Strict), "{text}");
        }
        for text in ["010.0.0.0/8", "10.0.0.0/08", "10.0.0.1/8", "fd00::1/64", "::ffff:10.0.0.0/104", "fd00::00000/64"] {
            assert_eq!(spelling(text), Some(Spelling::Sloppy), "{text}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "::/129", "10.0.0.0/8/8", "::ffff:10.0.0.0/129"] {
            assert_eq!(cidr(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_address_survives_being_written_and_read(bits: u128, short: u32) {
            let six = IpAddr::V6(bits.into());
            prop_assert_eq!(ip(&six.to_string()), Some(six.to_canonical()));
            let four = IpAddr::V4(short.into());
            prop_assert_eq!(ip(&four.to_string()), Some(four));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            ip(&text);
            cidr(&text);
        }

        #[test]
        fn no_text_of_the_alphabet_panics(text in "[0-9a-f:./]{0,24}") {
            ip(&text);
            cidr(&text);
        }
    }
}
