//! Addresses that no Service may take as a VIP or an externalIP, whoever asks.
//!
//! Anybody who may write a Service could otherwise catch the traffic of every pod and of the node itself to such an address
//! (CVE-2020-8554). Addresses that are another Service's ClusterIP are the table's to refuse: only it knows them all.

use std::net::IpAddr;

use super::Context;
use crate::model::{Family, Service};
use crate::table::{Notice, Subject};

/// The addresses of `family` in `asked` that may be served, in the order given. Each refused one becomes a notice that names
/// `field` and the value.
pub(super) fn accepted(
    service: &Service,
    field: &str,
    asked: &[IpAddr],
    family: Family,
    context: &Context,
    notices: &mut Vec<Notice>,
) -> Vec<IpAddr> {
    let mut accepted = Vec::new();
    for ip in asked.iter().copied().filter(|ip| Family::of(*ip) == family) {
        match refusal(ip, context) {
            None => accepted.push(ip),
            Some(why) => notices.push(refused(service, field, ip, why)),
        }
    }
    accepted
}

/// Addresses of a family in which the Service has no ClusterIP, and so does not exist: each becomes a notice, with kube-proxy's reason
/// for the same. One that no Service may take is refused as such.
pub(super) fn note_strangers(
    service: &Service,
    field: &str,
    asked: &[IpAddr],
    family: Family,
    context: &Context,
    notices: &mut Vec<Notice>,
) {
    let strangers = accepted(service, field, asked, family, context, notices);
    notices.extend(strangers.into_iter().map(|ip| Notice {
        service: service.key.clone(),
        reason: "KubeProxyIncorrectIPVersion",
        subject: Some(Subject::Stranger(ip)),
        message: format!(
            "{field}: {ip} is {family}, of which the Service has no ClusterIP, and is not served; give it one, or remove {ip}"
        ),
    }));
}

fn refused(service: &Service, field: &str, ip: IpAddr, why: &'static str) -> Notice {
    Notice {
        service: service.key.clone(),
        reason: "AddressRefused",
        subject: Some(Subject::Unfit(ip, why)),
        message: format!("{field}: {ip} is {why} and is not served; give the Service another address"),
    }
}

/// What is wrong with an address, `None` if nothing is.
fn refusal(ip: IpAddr, context: &Context) -> Option<&'static str> {
    // ::ffff:127.0.0.1 is loopback as well.
    let plain = ip.to_canonical();
    if is_unspecified(plain) {
        Some("the unspecified address")
    } else if plain.is_loopback() {
        Some("a loopback address")
    } else if is_link_local(plain) {
        Some("a link-local address")
    } else if is_to_many(plain) {
        Some("a multicast or broadcast address")
    } else if context.api_servers.contains(&plain) {
        Some("the address of an API server")
    } else {
        None
    }
}

/// All of 0.0.0.0/8 means "this host" (RFC 1122 3.2.1.3) and never appears as a destination.
fn is_unspecified(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[0] == 0,
        IpAddr::V6(ip) => ip.is_unspecified(),
    }
}

/// 169.254.0.0/16, home of the clouds' metadata services, and fe80::/10.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_to_many(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}
