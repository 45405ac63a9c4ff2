//! The traffic that no disruption may be noticed by: long flows over every kind of frontend, checked to the last byte, and a client
//! that keeps connecting.

use crate::fixture::{Cluster, Endpoint, Service, dual};
use anyhow::{Context as _, ensure};
use sheave_lab::{FreshFlows, FreshReport, Host, Port, Protocol, Request, TcpFlow, UdpFlow};
use std::time::Duration;

/// Flows that run until they are [finished](Traffic::finish).
pub(super) struct Traffic {
    tcp: Vec<(String, TcpFlow)>,
    udp: Vec<(String, UdpFlow)>,
}

/// Its ClusterIP, NodePort and VIP.
pub(super) const CLUSTER_IP: &str = "172.30.0.41";
pub(super) const NODE_PORT: u16 = 30_080;
pub(super) const VIP: &str = "192.0.2.41";
/// The backends of the Service that is watched. Nobody else may answer for it.
pub(super) const BACKENDS: [&str; 2] = ["local", "remote"];
/// A megabyte each, as of ten clients.
const TCP_FLOWS: usize = 10;
const BYTES_PER_SECOND: u32 = 1_000_000;
/// A thousand datagrams per second in all.
const UDP_FLOWS: usize = 5;
const DATAGRAMS_PER_SECOND: u32 = 200;
/// How long flows may take to make progress on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The Service that is watched.
pub(super) fn web() -> Service {
    Service::new("web", CLUSTER_IP)
        .only(Protocol::Tcp, 80, 80)
        .only(Protocol::Udp, 80, 80)
        .node_port(NODE_PORT)
        .vip(VIP)
        .endpoint(Endpoint::local("10.180.0.1"))
        .endpoint(Endpoint::remote("10.180.2.1"))
}

/// Another Service on the same target port, whose backend would answer if anything pointed at the wrong one.
pub(super) fn decoy() -> Service {
    Service::new("decoy", "172.30.0.99")
        .only(Protocol::Tcp, 80, 80)
        .only(Protocol::Udp, 80, 80)
        .node_port(30_099)
        .endpoint(Endpoint::local("10.180.0.9"))
}

/// A cluster with both Services, without a daemon.
pub(super) fn cluster() -> anyhow::Result<Cluster> {
    let cluster = Cluster::new(crate::fixture::Pods::Routed)?;
    cluster.pod("decoy", "10.180.0.9")?.serve(&[Port::tcp(80), Port::udp(80)])?;
    cluster.objects_later("world.yaml", web().documents().into_iter().chain(decoy().documents()))?;
    Ok(cluster)
}

/// The ways to the Service: who asks, and where. Pods by ClusterIP; from outside by NodePort and VIP; each family.
fn ways(cluster: &Cluster) -> Vec<(Host, String)> {
    let pod = cluster.pod.clone();
    let node: Host = (**cluster.node()).clone();
    let outside = cluster.client().clone();
    let [node_v4, node_v6] = dual("192.168.0.2");
    let [ip_v4, ip_v6] = dual(CLUSTER_IP);
    let [vip_v4, vip_v6] = dual(VIP);
    vec![
        (pod.clone(), format!("{ip_v4}:80")),
        (outside.clone(), format!("{node_v4}:{NODE_PORT}")),
        (outside.clone(), format!("{vip_v4}:80")),
        (pod, format!("[{ip_v6}]:80")),
        (node, format!("{ip_v4}:80")),
        (outside.clone(), format!("[{node_v6}]:{NODE_PORT}")),
        (outside, format!("[{vip_v6}]:80")),
    ]
}

impl Traffic {
    /// Starts ten TCP flows of 1 MB/s and UDP flows of 1,000 datagrams per second, and waits until all are established.
    pub(super) fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let ways = ways(cluster);
        let name = |host: &Host, to: &str| format!("{} -> {to}", host.name());
        let tcp = ways.iter().cycle().take(TCP_FLOWS).map(|(host, to)| {
            let flow = TcpFlow::start(host, to, BYTES_PER_SECOND).with_context(|| name(host, to))?;
            Ok((name(host, to), flow))
        });
        let tcp = tcp.collect::<anyhow::Result<_>>()?;
        let udp = ways.iter().take(UDP_FLOWS).map(|(host, to)| {
            let flow = UdpFlow::start(host, to, DATAGRAMS_PER_SECOND).with_context(|| name(host, to))?;
            Ok((name(host, to), flow))
        });
        let traffic = Self { tcp, udp: udp.collect::<anyhow::Result<_>>()? };
        traffic.go_on()?;
        Ok(traffic)
    }

    /// Waits until every flow has got further than it is now.
    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        for (name, flow) in &self.tcp {
            let seen = || format!("{name}: {:?}", flow.report());
            flow.await_progress(50_000, PATIENCE).with_context(seen)?;
        }
        for (name, flow) in &self.udp {
            let seen = || format!("{name}: {:?}", flow.report());
            flow.await_answers(20, PATIENCE).with_context(seen)?;
        }
        Ok(())
    }

    /// Ends the flows: every byte and every datagram came back, from the one backend that each began with.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.go_on()?;
        for (name, flow) in self.tcp {
            let report = flow.stop();
            ensure!(report.is_whole() && BACKENDS.contains(&report.by.as_str()), "TCP {name}: {report:?}");
        }
        for (name, flow) in self.udp {
            let report = flow.stop();
            ensure!(report.is_whole() && report.by.keys().all(|by| BACKENDS.contains(&by.as_str())), "UDP {name}: {report:?}");
        }
        Ok(())
    }
}

/// A client outside that keeps connecting to the VIP.
pub(super) fn newcomers(cluster: &Cluster) -> anyhow::Result<FreshFlows> {
    let request = Request::new(Protocol::Tcp, &format!("{VIP}:80"))?.timeout(Duration::from_millis(900));
    Ok(FreshFlows::start(cluster.client(), &request, 50)?)
}

/// Nobody was turned away, and nobody was answered by a stranger.
pub(super) fn welcomed(report: &FreshReport) -> anyhow::Result<()> {
    ensure!(report.failed.is_empty() && report.answered > 0, "{report:?}");
    right(report)
}

/// Nobody was answered by a stranger.
pub(super) fn right(report: &FreshReport) -> anyhow::Result<()> {
    ensure!(report.by.keys().all(|by| BACKENDS.contains(&by.as_str())), "a wrong backend answered: {report:?}");
    Ok(())
}
