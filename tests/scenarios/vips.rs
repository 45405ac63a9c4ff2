//! What a node does for a VIP of our pools that no interface has, beyond the ports that Services have: it answers pings, refuses other
//! ports instead of routing them, and redirects nobody. In `announcing`: that it answers for one on the LAN.

mod announcing;

use self::announcing::{
    a_vip_of_a_pool_has_one_mac_on_the_lan, a_vip_that_another_host_has_is_announced_when_it_is_free,
    an_excluded_interface_does_not_announce, another_host_with_the_address_is_an_alarm,
    nothing_is_open_without_pool_and_advertisement, the_next_daemon_announces_again,
    who_cannot_serve_does_not_answer_and_says_why,
};
use crate::fixture::{
    Checks, Cluster, Endpoint, Expect, Family, Lane, Pong, Redirects, Service, TCP_UDP, dual, eventually, in_lanes, ping,
};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sheave_lab::{Host, Protocol, Request};
use sheave_tests::{scenario::Scenario, scenarios};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = in_lanes!("vips":
        unknown_ports_are_refused_and_known_ones_served;
        an_address_on_an_interface_keeps_its_other_ports;
    );
    scenarios.extend(scenarios!("vips":
        pings_are_answered_from_the_vip needs ["nftables"];
        nobody_is_redirected needs ["nftables"];
        who_uses_a_vip_of_somebody_else_is_redirected needs ["nftables"];
        other_protocols_are_refused needs ["nftables"];
        errors_on_the_path_reach_the_pod needs ["nftables"];
        a_pool_comes_and_goes needs ["nftables"];
        a_vip_of_a_pool_has_one_mac_on_the_lan needs ["nftables", "tool:arping", "tool:ndisc6", "tool:ip"];
        nothing_is_open_without_pool_and_advertisement needs ["nftables", "tool:arping", "tool:ndisc6", "tool:ip"];
        who_cannot_serve_does_not_answer_and_says_why needs ["nftables", "tool:arping", "tool:ndisc6", "tool:ip"], within 90 s;
        the_next_daemon_announces_again needs ["nftables", "tool:arping", "tool:ndisc6", "tool:ip"];
        an_excluded_interface_does_not_announce needs ["nftables", "tool:arping", "tool:ndisc6"];
        another_host_with_the_address_is_an_alarm needs ["nftables", "tool:arping", "tool:ndisc6", "tool:ip"];
        a_vip_that_another_host_has_is_announced_when_it_is_free needs ["nftables", "tool:arping", "tool:ndisc6", "tool:ip"];
    ));
    scenarios
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// In the network of the LAN, policy Cluster.
const NEAR: &str = "192.168.0.240";
/// In no network of the node, policy Local.
const FAR: &str = "198.51.100.7";

/// A pool of these addresses and their twins, each a range of its own.
fn pool(addresses: &[&str]) -> Value {
    let addresses: Vec<String> = addresses
        .iter()
        .flat_map(|address| dual(address))
        .map(|ip| format!("{ip}/{}", if ip.contains(':') { 128 } else { 32 }))
        .collect();
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": { "namespace": "metallb-system", "name": "lan" },
        "spec": { "addresses": addresses },
    })
}

fn near() -> Service {
    Service::new("near", "172.30.0.41").port(80).vip(NEAR).endpoint(Endpoint::local("10.180.0.1"))
}

fn far() -> Service {
    Service::new("far", "172.30.0.42").port(80).vip(FAR).external_local().endpoint(Endpoint::local("10.180.0.1"))
}

/// A cluster with a pool of both VIPs, and a neighbour on the LAN.
fn start(services: &[&Service]) -> anyhow::Result<(Cluster, Host)> {
    let cluster = Cluster::start()?;
    cluster.objects("pool.yaml", [pool(&[NEAR, FAR])])?;
    cluster.services(services)?;
    let neighbour = neighbour(&cluster)?;
    Ok((cluster, neighbour))
}

/// A neighbour who sends packets for the VIPs to the node, as ARP and NDP would have it.
fn neighbour(cluster: &Cluster) -> anyhow::Result<Host> {
    let neighbour = cluster.lan_host("neighbour", "192.168.0.9", None)?;
    let node = [cluster.node().ipv4().to_string(), cluster.node().ipv6().to_string()];
    for address in [NEAR, FAR] {
        for (vip, via) in dual(address).iter().zip(&node) {
            neighbour.add_route(vip, Some(via), "eth0")?;
        }
    }
    Ok(neighbour)
}

/// Whoever asks, wherever the VIP is, and whether or not it has endpoints here or at all. Reverse path filtering is as strict as can be.
fn pings_are_answered_from_the_vip() -> anyhow::Result<()> {
    let (cluster, neighbour) = start(&[&near(), &far()])?;
    for device in ["all", "eth0"] {
        cluster.node().sysctl(&format!("net.ipv4.conf.{device}.rp_filter"), "1")?;
    }
    let elsewhere = far().with_endpoints([Endpoint::remote("10.180.2.1")]);
    for services in [[&near(), &far()], [&near().with_endpoints([]), &elsewhere]] {
        cluster.services(&services)?;
        for family in FAMILIES {
            for from in [&neighbour, cluster.client(), &cluster.pod, cluster.node()] {
                for vip in [NEAR, FAR] {
                    let pong = ping(from, family, vip)?;
                    ensure!(pong == Pong::Reply, "{family:?}: {} pings {vip}: {pong:?}", from.name());
                }
            }
        }
    }
    Ok(())
}

fn unknown_ports_are_refused_and_known_ones_served(lanes: &[Lane]) -> anyhow::Result<()> {
    let (cluster, neighbour) = start(&[&near(), &far()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&neighbour, cluster.client(), &cluster.pod, cluster.node()] {
            for vip in [NEAR, FAR] {
                checks.ask(lane, from, (vip, 80), Expect::by(&["local"]));
                checks.ask(lane, from, (vip, 53), Expect::Refused);
            }
        }
    }
    checks.run()?;

    // Without endpoints anywhere it refuses, with endpoints elsewhere only it is silent: an unknown port refuses in any case.
    let elsewhere = far().with_endpoints([Endpoint::remote("10.180.2.1")]);
    cluster.services(&[&near().with_endpoints([]), &elsewhere])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&neighbour, cluster.client()] {
            checks.ask(lane, from, (NEAR, 80), Expect::Refused);
            checks.ask(lane, from, (FAR, 80), Expect::Dropped);
            checks.ask(lane, from, (FAR, 53), Expect::Refused);
        }
        for from in [&cluster.pod, cluster.node()] {
            checks.ask(lane, from, (FAR, 80), Expect::by(&["remote"]));
        }
    }
    checks.run()
}

/// Everything that the node might route back to where it came from.
fn nobody_is_redirected() -> anyhow::Result<()> {
    let (cluster, neighbour) = start(&[])?;
    cluster.serve(cluster.remote())?;
    let mut redirects = Redirects::at(&neighbour)?;
    let mut at_backend = Redirects::at(cluster.remote())?;
    // A backend that is a neighbour, too: what goes there leaves as it came.
    let on_the_lan = near().with_endpoints([Endpoint::remote("192.168.0.3")]);
    let elsewhere = far().with_endpoints([Endpoint::remote("10.180.2.1")]);
    for service in [on_the_lan, near().with_endpoints([])] {
        cluster.services(&[&service, &elsewhere])?;
        for family in FAMILIES {
            for vip in [NEAR, FAR] {
                for _ in 0..2 {
                    ping(&neighbour, family, vip)?;
                    _ = send(&neighbour, family, vip, GRE, &[0; 8])?;
                }
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    for port in [80, 53] {
                        let lane = Lane { family, protocol };
                        neighbour.ask(&twice(lane, vip, port))?;
                    }
                }
            }
            // Neighbour unreachability detection asks the VIP itself; the announcer hears it, and the kernel would route it.
            if family == Family::V6 {
                let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &octets(family.address(NEAR))].concat();
                _ = send(&neighbour, family, NEAR, ICMPV6, &solicitation)?;
            }
        }
    }
    for (who, redirects) in [("the neighbour", &mut redirects), ("the backend", &mut at_backend)] {
        let told = redirects.told()?;
        ensure!(told.is_empty(), "{who} was told another way to {told:?}");
    }
    Ok(())
}

/// A question that takes a second packet where the first one gets no answer. Of IPv4 NAT drops a redirect that comes before the connection's
/// first packet has left (`nf_nat_icmp_reply_translation`).
fn twice(lane: Lane, to: &str, port: u16) -> Request {
    lane.to(to, port).again_after(Duration::from_millis(100)).timeout(Duration::from_millis(1300))
}

/// A VIP in no pool: the kernel does as ever. So the redirects that nobody gets in the scenario above are there to be seen.
fn who_uses_a_vip_of_somebody_else_is_redirected() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&near()])?;
    let neighbour = neighbour(&cluster)?;
    let mut redirects = Redirects::at(&neighbour)?;
    for family in FAMILIES {
        let lane = Lane { family, protocol: Protocol::Udp };
        neighbour.ask(&twice(lane, NEAR, 53))?;
        eventually(|| {
            let told = redirects.told()?;
            ensure!(told.contains(&family.address(NEAR)), "{family:?}: the neighbour was told another way to {told:?}");
            Ok(())
        })?;
    }
    Ok(())
}

const GRE: i32 = libc::IPPROTO_GRE;
const ICMP: i32 = libc::IPPROTO_ICMP;
const ICMPV6: i32 = libc::IPPROTO_ICMPV6;

/// Sends one datagram of any protocol, and waits a little for what the network says of it.
fn send(from: &Host, family: Family, to: &str, protocol: i32, payload: &[u8]) -> anyhow::Result<io::Result<()>> {
    let domain = if family == Family::V4 { Domain::IPV4 } else { Domain::IPV6 };
    let to = SockAddr::from(SocketAddr::new(family.address(to), 0));
    let exchange = || {
        let socket = Socket::new(domain, Type::RAW, Some(protocol.into()))?;
        socket.connect(&to)?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.send(payload)?;
        socket.recv(&mut [std::mem::MaybeUninit::uninit(); 64]).map(drop)
    };
    Ok(from.run(exchange)?)
}

/// GRE, say: as a host does that does not speak it.
fn other_protocols_are_refused() -> anyhow::Result<()> {
    let (cluster, neighbour) = start(&[&near(), &far()])?;
    for from in [&neighbour, cluster.client(), &cluster.pod] {
        for (family, expected) in [(Family::V4, libc::ENOPROTOOPT), (Family::V6, libc::ECONNREFUSED)] {
            for vip in [NEAR, FAR] {
                let outcome = send(from, family, vip, GRE, &[0; 8])?;
                let errno = outcome.as_ref().err().and_then(io::Error::raw_os_error);
                ensure!(errno == Some(expected), "{family:?}: GRE from {} to {vip}: {outcome:?}", from.name());
            }
        }
    }
    Ok(())
}

/// A router says "fragmentation needed", "packet too big": to the VIP, about a packet that came from it. Its pod has to hear that.
fn errors_on_the_path_reach_the_pod() -> anyhow::Result<()> {
    const PORT: u16 = 47_000;
    let (cluster, neighbour) = start(&[&far()])?;
    for family in FAMILIES {
        let lane = Lane { family, protocol: Protocol::Udp };
        let [own, pod_address] = [&neighbour, &cluster.local].map(|host| address_of(host, family));
        neighbour.ask(&lane.to(FAR, 80).from_port(PORT))?.answer().context("no connection")?;
        let (domain, protocol) = if family == Family::V4 { (Domain::IPV4, ICMP) } else { (Domain::IPV6, ICMPV6) };
        let mut pod = cluster.local.run(|| Socket::new(domain, Type::RAW, Some(protocol.into())))??;
        pod.set_read_timeout(Some(Duration::from_secs(5)))?;
        // Nobody answers an error.
        _ = send(&neighbour, family, FAR, protocol, &too_big(family.address(FAR), own, PORT))?;
        let quoted = loop {
            let mut packet = [0; 2048];
            let length = pod.read(&mut packet).with_context(|| format!("{family:?}: the pod hears nothing"))?;
            if let Some(source) = quoted_source(family, &packet[..length]) {
                break source;
            }
        };
        ensure!(quoted == pod_address, "{family:?}: the pod hears of a packet from {quoted}");
    }
    Ok(())
}

/// What a router says of a datagram from port 80 of this address that is too big for its next link (RFC 792 and 1191, RFC 4443).
fn too_big(source: IpAddr, destination: IpAddr, port: u16) -> Vec<u8> {
    const MTU: u16 = 1280;
    let addresses = [octets(source), octets(destination)].concat();
    let udp = [&80_u16.to_be_bytes()[..], &port.to_be_bytes(), &1380_u16.to_be_bytes(), &[0, 0]].concat();
    if source.is_ipv6() {
        // The kernel sums up ICMPv6 itself.
        let header = [&[0x60, 0, 0, 0][..], &1380_u16.to_be_bytes(), &[17, 64]].concat();
        return [&[2, 0, 0, 0, 0, 0][..], &MTU.to_be_bytes(), &header, &addresses, &udp].concat();
    }
    let header = [&[0x45, 0][..], &1400_u16.to_be_bytes(), &[0, 1, 0x40, 0, 64, 17, 0, 0]].concat();
    let mut message = [&[3, 4, 0, 0, 0, 0][..], &MTU.to_be_bytes(), &header, &addresses, &udp].concat();
    let sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice it fits");
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

/// The source of the packet that such a message quotes. A raw IPv4 socket hands out the IP header, too.
fn quoted_source(family: Family, packet: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => {
            let message = packet.get(usize::from(packet.first()? & 0xf) * 4..)?;
            let source: [u8; 4] = message.get(8 + 12..8 + 16)?.try_into().ok()?;
            message.starts_with(&[3, 4]).then(|| source.into())
        }
        Family::V6 => {
            let source: [u8; 16] = packet.get(8 + 8..8 + 24)?.try_into().ok()?;
            packet.starts_with(&[2, 0]).then(|| source.into())
        }
    }
}

/// Ports that no Service has may be in use where somebody put the VIP on an interface, though nobody should.
fn an_address_on_an_interface_keeps_its_other_ports(lanes: &[Lane]) -> anyhow::Result<()> {
    let (cluster, neighbour) = start(&[&near(), &far()])?;
    for own in dual(NEAR) {
        cluster.node().add_address("eth0", &format!("{own}/{}", if own.contains(':') { 128 } else { 32 }))?;
    }
    cluster.serve(cluster.node())?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&neighbour, &cluster.pod, cluster.node()] {
            checks.ask(lane, from, (NEAR, 80), Expect::by(&["local"]));
            checks.ask(lane, from, (NEAR, 53), Expect::by(&["test-node"]));
            checks.ask(lane, from, (NEAR, 54), Expect::Refused);
        }
    }
    checks.run()?;
    for family in FAMILIES {
        let pong = ping(&neighbour, family, NEAR)?;
        ensure!(pong == Pong::Reply, "{family:?}: {pong:?}");
    }
    Ok(())
}

/// A VIP that is in no pool is somebody else's: its other ports are none of our business. One that is in a pool twice is no more ours, and
/// a pool that has become unreadable is what it was.
fn a_pool_comes_and_goes() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&[NEAR])?;
    cluster.services(&[&near()])?;
    let broken = || {
        let mut pool = pool(&[NEAR]);
        pool["spec"]["addresses"] = json!(["192.168.0.250-192.168.0.240"]);
        pool
    };
    let theirs = Expect::by(&["elsewhere"]).kept();
    for (what, pools, expect) in [
        ("no pool", vec![], &theirs),
        ("another pool", vec![pool(&[FAR])], &theirs),
        ("its pool", vec![pool(&[FAR, NEAR])], &Expect::Refused),
        ("its pool, broken", vec![broken()], &Expect::Refused),
        ("its pool, mended", vec![pool(&[NEAR])], &Expect::Refused),
        ("no pool any more", vec![], &theirs),
    ] {
        cluster.objects("pool.yaml", pools)?;
        let mut checks = Checks::default();
        for lane in TCP_UDP {
            for from in [cluster.client(), &cluster.pod, cluster.node()] {
                checks.ask(lane, from, (NEAR, 80), Expect::by(&["local"]));
                checks.ask(lane, from, (NEAR, 53), expect.clone());
            }
        }
        checks.run().context(what)?;
    }
    Ok(())
}

fn address_of(host: &Host, family: Family) -> IpAddr {
    if family == Family::V4 { host.ipv4().into() } else { host.ipv6().into() }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
