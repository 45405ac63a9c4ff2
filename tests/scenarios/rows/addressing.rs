//! What is addressed, and what is not.

use super::everybody_meets;
use crate::fixture::{Checks, Cluster, Endpoint, Expect, Family, Lane, Service, dual};
use anyhow::ensure;
use serde_json::json;
use sheave_lab::Protocol;

/// One port, one endpoint.
fn plain() -> Service {
    Service::new("svc1", "172.30.0.41").port(80).endpoint(Endpoint::local("10.180.0.1"))
}

/// `TestClusterIPGeneral`.
pub(super) fn row_01_cluster_ip_general(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&plain()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), Expect::by(&["local"]).kept());
    }
    checks.run()
}

/// `TestClusterIPGeneral`.
pub(super) fn row_02_cluster_ip_hairpin(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&plain()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &cluster.local, ("172.30.0.41", 80), Expect::by(&["local"]).masqueraded());
    }
    checks.run()
}

/// `TestClusterIPGeneral`: one number, three protocols, two targets.
pub(super) fn row_03_one_port_in_three_protocols(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let svc2 = Service::new("svc2", "172.30.0.42")
        .only(Protocol::Tcp, 53, 5353)
        .only(Protocol::Udp, 53, 53)
        .only(Protocol::Sctp, 53, 53)
        .endpoint(Endpoint::local("10.180.0.1"));
    cluster.services(&[&svc2])?;
    for &lane in lanes {
        let target = if lane.protocol == Protocol::Tcp { 5353 } else { 53 };
        let answer = cluster.pod.ask(&lane.to("172.30.0.42", 53))?.answer()?;
        let at = (answer.at.ip(), answer.at.port());
        ensure!(at == (lane.address("10.180.0.1"), target), "{lane}: answered at {}, not at port {target}", answer.at);
    }
    Ok(())
}

/// `TestClusterIPGeneral`: a port of another protocol, and one of none.
pub(super) fn row_04_unknown_ports(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let endpoint = || Endpoint::local("10.180.0.1");
    // Ports that are there for one protocol only: for UDP clients there is one that only TCP has, and so on round.
    let service = Service::new("svc2", "172.30.0.42")
        .only(Protocol::Tcp, 80, 80)
        .only(Protocol::Udp, 81, 80)
        .only(Protocol::Sctp, 82, 80)
        .endpoint(endpoint());
    cluster.services(&[&service])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        let (own, others) = match lane.protocol {
            Protocol::Tcp => (80, [81, 82]),
            Protocol::Udp => (81, [80, 82]),
            Protocol::Sctp => (82, [80, 81]),
        };
        checks.ask(lane, &cluster.pod, ("172.30.0.42", own), Expect::by(&["local"]));
        for from in [&cluster.pod, cluster.node(), cluster.client()] {
            for port in [others[0], others[1], 443] {
                checks.ask(lane, from, ("172.30.0.42", port), Expect::Refused);
            }
        }
    }
    checks.run()
}

/// `TestClusterIPGeneral`: dropped even where somebody else answers at the address.
pub(super) fn row_05_unallocated_address(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&["172.30.0.50", "172.31.0.50"])?;
    cluster.services(&[&plain()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.node(), cluster.client()] {
            checks.ask(lane, from, ("172.30.0.50", 80), Expect::Dropped);
            // Outside of every ServiceCIDR: nobody's business.
            checks.ask(lane, from, ("172.31.0.50", 80), Expect::by(&["elsewhere"]).kept());
        }
    }
    checks.run()
}

/// `TestNoEndpointsReject`.
pub(super) fn row_06_no_endpoints_reject(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let service = Service::new("svc1", "172.30.0.41").port(80).node_port(3001).vip("1.2.3.4").external_ip("192.168.99.11");
    cluster.services(&[&service])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.node(), cluster.client()] {
            for to in [("172.30.0.41", 80), ("192.168.0.2", 3001), ("1.2.3.4", 80), ("192.168.99.11", 80)] {
                checks.ask(lane, from, to, Expect::Refused);
            }
        }
    }
    checks.run()
}

/// `TestLoadBalancerIngressRouteTypeProxy`: such an address is the balancer's, and traffic goes there.
pub(super) fn row_22_load_balancer_ingress_ip_mode_proxy(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&["1.2.3.4", "1.2.3.5", "1.2.3.6"])?;
    let entries = |service: Service, address, mode: Option<&str>| {
        dual(address).into_iter().fold(service, |service, ip| match mode {
            Some(mode) => service.ingress(json!({ "ip": ip, "ipMode": mode })),
            None => service.ingress(json!({ "ip": ip })),
        })
    };
    let service = plain();
    let service = entries(entries(entries(service, "1.2.3.4", Some("Proxy")), "1.2.3.5", Some("VIP")), "1.2.3.6", None);
    cluster.services(&[&service.ingress(json!({ "hostname": "balancer.example" }))])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.client()] {
            checks.ask(lane, from, ("1.2.3.4", 80), Expect::by(&["elsewhere"]).kept());
            checks.ask(lane, from, ("1.2.3.5", 80), Expect::by(&["local"]).masqueraded());
            checks.ask(lane, from, ("1.2.3.6", 80), Expect::by(&["local"]).masqueraded());
        }
    }
    checks.run()
}

/// e2e "should implement service.kubernetes.io/service-proxy-name". The other proxy's ClusterIP lies in a ServiceCIDR, and is
/// nevertheless left to that proxy: here, a neighbour.
pub(super) fn extra_service_proxy_name(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&["172.30.0.41"])?;
    let ours = Service::new("svc1", "172.30.0.41").port(80).node_port(30_001).endpoint(Endpoint::local("10.180.0.1"));
    let foreign = ours.clone().label("service.kubernetes.io/service-proxy-name", "foo-bar");
    for (service, expect) in
        [(&ours, Expect::by(&["local"])), (&foreign, Expect::by(&["elsewhere"]).kept()), (&ours, Expect::by(&["local"]))]
    {
        cluster.services(&[service])?;
        everybody_meets(&cluster, lanes, &expect)?;
    }
    Ok(())
}

/// e2e "should implement service.kubernetes.io/headless": a slice with the label counts for nothing.
pub(super) fn extra_headless_label_on_the_slice(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let plain = plain();
    let headless = plain.clone().slice_label("service.kubernetes.io/headless", "");
    for (service, expect) in [(&plain, Expect::by(&["local"])), (&headless, Expect::Refused), (&plain, Expect::by(&["local"]))] {
        cluster.services(&[service])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), expect.clone());
        }
        checks.run()?;
    }
    Ok(())
}

/// One address and port twice, terminating and not: the entry that is not terminating counts, whichever comes first.
pub(super) fn extra_two_entries_for_one_endpoint(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let [ready, terminating] = [Endpoint::local("10.180.0.1"), Endpoint::local("10.180.0.1").terminating()];
    let other = Endpoint::remote("10.180.2.1");
    let service = |name, ip, endpoints| Service::new(name, ip).port(80).with_endpoints(endpoints);
    let first = service("ready-first", "172.30.0.41", [ready.clone(), terminating.clone(), other.clone()]);
    let last = service("ready-last", "172.30.0.42", [terminating, ready, other]);
    cluster.services(&[&first, &last])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for address in ["172.30.0.41", "172.30.0.42"] {
            checks.ask(lane, &cluster.pod, (address, 80), Expect::by(&["local", "remote"]));
        }
    }
    checks.run()
}

/// `TestBadIPs`: leading zeros mean nothing, in any field, and what is no address spoils only itself.
pub(super) fn extra_addresses_with_leading_zeros(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let service = Service::new("svc1", "172.30.0.41")
        .spec("clusterIP", "172.030.000.041")
        .spec("clusterIPs", json!(["172.030.000.041", "fd00:172:30::41"]))
        .port(80)
        .node_port(3001)
        .ingress(json!({ "ip": "001.002.003.004" }))
        .spec("externalIPs", json!(["192.168.099.022", "no.address", "fd00:192:168::99:22"]))
        .spec("loadBalancerSourceRanges", json!(["203.000.113.000/25", "nonsense", " fd00:203::113:0/112 "]))
        .endpoint(Endpoint::local("10.180.000.001").twin("fd00:10:180::0:1"));
    cluster.services(&[&service])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), Expect::by(&["local"]).kept());
        checks.ask(lane, cluster.client(), ("192.168.99.22", 80), Expect::by(&["local"]).masqueraded());
        checks.ask(lane, cluster.client(), ("192.168.0.2", 3001), Expect::by(&["local"]).masqueraded());
        if lane.family == Family::V4 {
            checks.ask(lane, cluster.client(), ("1.2.3.4", 80), Expect::by(&["local"]).masqueraded());
            checks.ask(lane, &cluster.pod, ("1.2.3.4", 80), Expect::Dropped);
        }
    }
    checks.run()
}
