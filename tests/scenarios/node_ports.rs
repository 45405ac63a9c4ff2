//! Where NodePorts are served, and where they are not (kube-proxy's section 4.5).

use crate::fixture::{Checks, Cluster, DETECT_PODS, Endpoint, Expect, Family, Lane, Service, dual, eventually, in_lanes};
use sheave_lab::{
    Host,
    Protocol::{Sctp, Tcp, Udp},
    Request,
};
use sheave_tests::scenario::Scenario;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) fn scenarios() -> Vec<Scenario> {
    in_lanes!("node_ports":
        never_on_loopback;
        a_family_without_cidrs_is_open_everywhere;
        addresses_come_and_go;
        every_address_where_all_are_asked_for;
        a_node_port_is_moved;
        the_same_number_in_other_protocols_is_somebody_elses;
    )
}

fn web() -> Service {
    Service::new("svc1", "172.30.0.41").port(80).node_port(30_001).endpoint(Endpoint::local("10.180.0.1"))
}

/// A daemon that serves NodePorts at these addresses and itself answers on the number, loopback included.
fn cluster_with(addresses: &str, lanes: &[Lane]) -> anyhow::Result<Cluster> {
    let cluster = Cluster::start_with(&[&DETECT_PODS[..], &["--nodeport-addresses", addresses]].concat())?;
    for loopback in ["127.0.0.1/8", "::1/128"] {
        cluster.node().add_address("lo", loopback)?;
    }
    serve_on(cluster.node(), lanes)?;
    Ok(cluster)
}

/// Makes a host answer on the NodePort's number.
fn serve_on(host: &Host, lanes: &[Lane]) -> anyhow::Result<()> {
    let mut ports: Vec<_> = lanes.iter().map(|lane| lane.port(30_001)).collect();
    ports.dedup();
    Ok(host.serve(&ports)?)
}

/// Where every address of the node serves, loopback does not: a DNAT from there would need `route_localnet`.
fn never_on_loopback(lanes: &[Lane]) -> anyhow::Result<()> {
    for addresses in ["primary", "0.0.0.0/0,::/0", "127.0.0.0/8,::1/128"] {
        let cluster = cluster_with(addresses, lanes)?;
        cluster.services(&[&web()])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            let loopback = match lane.family {
                Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
                Family::V6 => Ipv6Addr::LOCALHOST.into(),
            };
            let request = Request::to(lane.port(30_001), loopback);
            checks.add(format!("{lane}, {addresses}: node -> {loopback}"), cluster.node(), request, Expect::by(&["test-node"]));
        }
        checks.run()?;
    }
    Ok(())
}

fn a_family_without_cidrs_is_open_everywhere(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = cluster_with("192.168.1.0/24", lanes)?;
    cluster.services(&[&web()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        let other = if lane.family == Family::V4 { Expect::by(&["test-node"]) } else { Expect::by(&["local"]) };
        checks.ask(lane, cluster.client(), ("192.168.0.2", 30_001), other);
        checks.ask(lane, cluster.client(), ("192.168.1.2", 30_001), Expect::by(&["local"]));
    }
    checks.run()
}

/// kube-proxy sees a new address at its next full sync, up to an hour later, and forgets one as late.
fn addresses_come_and_go(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = cluster_with("192.168.0.0/24,fd00:192:168::/112", lanes)?;
    cluster.services(&[&web()])?;
    // Whose address it is while the node does not have it.
    serve_on(&cluster.elsewhere(&["192.168.0.50"])?, lanes)?;
    let ask = |expect: &Expect| {
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, cluster.client(), ("192.168.0.50", 30_001), expect.clone());
        }
        checks.run()
    };
    for _ in 0..2 {
        ask(&Expect::by(&["elsewhere"]).kept())?;
        for address in dual("192.168.0.50") {
            cluster.node().add_address("lo", &address)?;
        }
        eventually(|| ask(&Expect::by(&["local"]).masqueraded()))?;
        for address in dual("192.168.0.50") {
            cluster.node().del_address("lo", &address)?;
        }
        eventually(|| ask(&Expect::by(&["elsewhere"]).kept()))?;
    }
    Ok(())
}

fn every_address_where_all_are_asked_for(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = cluster_with("0.0.0.0/0,::/0", lanes)?;
    for address in ["10.9.9.9/32", "fd00:10:9::9:9/128"] {
        cluster.node().add_address("lo", address)?;
    }
    cluster.services(&[&web()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for address in ["192.168.0.2", "192.168.1.2", "10.9.9.9"] {
            checks.ask(lane, cluster.client(), (address, 30_001), Expect::by(&["local"]).masqueraded());
            checks.ask(lane, &cluster.pod, (address, 30_001), Expect::by(&["local"]).masqueraded());
        }
    }
    checks.run()
}

/// Another number, and back again: nothing of the old one is left.
fn a_node_port_is_moved(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = cluster_with("primary", lanes)?;
    for number in [30_001, 30_002, 30_001] {
        cluster.services(&[&web().node_port(number)])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            let (old, new) = if number == 30_001 {
                (Expect::by(&["local"]), Expect::Refused)
            } else {
                (Expect::by(&["test-node"]), Expect::by(&["local"]))
            };
            checks.ask(lane, cluster.client(), ("192.168.0.2", 30_001), old);
            checks.ask(lane, cluster.client(), ("192.168.0.2", 30_002), new);
        }
        checks.run()?;
    }
    Ok(())
}

/// Three Services share a number, a protocol each; and a NodePort is no port of a ClusterIP or a VIP.
fn the_same_number_in_other_protocols_is_somebody_elses(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let pods = [
        ("one", "10.180.0.11", "172.30.0.41", Tcp),
        ("two", "10.180.0.12", "172.30.0.42", Udp),
        ("three", "10.180.0.13", "172.30.0.43", Sctp),
    ];
    let mut services = Vec::new();
    for (name, pod, address, protocol) in pods {
        cluster.local_pod(name, pod)?;
        services.push(Service::new(name, address).only(protocol, 80, 80).node_port(30_001).endpoint(Endpoint::local(pod)));
    }
    cluster.services(&services.iter().collect::<Vec<_>>())?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for (name, _, address, protocol) in pods {
            if protocol == lane.protocol {
                checks.ask(lane, cluster.client(), ("192.168.0.2", 30_001), Expect::by(&[name]));
            }
            checks.ask(lane, cluster.client(), (address, 30_001), Expect::Refused);
        }
    }
    checks.run()
}
