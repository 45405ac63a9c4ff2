//! What a NetworkPolicy engine sees at the forward hook: the client's own address, and the endpoint it was sent to
//! (kube-proxy's section 4.7). The engine here is a table of its own that denies everything but one pair.

use crate::fixture::{Checks, Cluster, Endpoint, Expect, Lane, Service, in_lanes};
use sheave_tests::scenario::Scenario;
use std::net::IpAddr;

pub(crate) fn scenarios() -> Vec<Scenario> {
    in_lanes!("network_policy":
        sees_the_client_and_the_endpoint needs "tool:nft";
        never_sees_the_frontend needs "tool:nft";
    )
}

/// Where a client asks, and what it asks.
const FRONTENDS: [(&str, u16); 3] = [("172.30.0.41", 80), ("1.2.3.4", 80), ("192.168.0.2", 30_001)];

fn service(endpoints: impl IntoIterator<Item = Endpoint>) -> Service {
    Service::new("svc1", "172.30.0.41").port_to(80, 5353).node_port(30_001).vip("1.2.3.4").with_endpoints(endpoints)
}

/// Denies all forwarding but what these rules allow.
fn policy(cluster: &Cluster, allowed: &str) -> anyhow::Result<()> {
    let script = format!(
        "table inet engine
         delete table inet engine
         table inet engine {{
             chain forward {{
                 type filter hook forward priority 10; policy drop;
                 ct state established,related accept
                 {allowed}
             }}
         }}
         "
    );
    cluster.nft(&script).map(drop)
}

fn sees_the_client_and_the_endpoint(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let here = ("local", &cluster.local, Endpoint::local("10.180.0.1"));
    let there = ("remote", &cluster.remote, Endpoint::remote("10.180.2.1"));
    for (name, pod, endpoint) in [here, there] {
        cluster.services(&[&service([endpoint])])?;
        for (from, other) in [(&cluster.pod, cluster.client()), (cluster.client(), &cluster.pod)] {
            let pair = |family, source: IpAddr, destination: IpAddr| {
                let port = "meta l4proto { tcp, udp, sctp } th dport 5353";
                format!("{family} saddr {source} {family} daddr {destination} {port} accept\n")
            };
            let v4 = pair("ip", from.ipv4().into(), pod.ipv4().into());
            policy(&cluster, &(v4 + &pair("ip6", from.ipv6().into(), pod.ipv6().into())))?;
            let mut checks = Checks::default();
            for &lane in lanes {
                for to in FRONTENDS {
                    checks.ask(lane, from, to, Expect::by(&[name]));
                    checks.ask(lane, other, to, Expect::Dropped);
                }
            }
            checks.run()?;
        }
    }
    Ok(())
}

/// Rules about Service addresses and ports match nothing there.
fn never_sees_the_frontend(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&service([Endpoint::local("10.180.0.1"), Endpoint::remote("10.180.2.1")])])?;
    policy(
        &cluster,
        "ip daddr { 172.30.0.41, 1.2.3.4, 192.168.0.2 } accept
         ip6 daddr { fd00:172:30::41, fd00:1:2::3:4, fd00:192:168::2 } accept
         meta l4proto { tcp, udp, sctp } th dport { 80, 30001 } accept",
    )?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.client()] {
            for to in FRONTENDS {
                checks.ask(lane, from, to, Expect::Dropped);
            }
        }
    }
    checks.run()
}
