//! From ipvs mode: its connections are carried to their end, and virtual servers of others stay.

use super::replica::run;
use crate::{
    disruption::traffic,
    fixture::{Cluster, DETECT_PODS},
};
use anyhow::{Context as _, ensure};
use sheave_lab::{FreshFlows, Protocol, Request, TcpFlow};
use sheave_tests::{
    scenario::{Scenario, patiently},
    scenarios,
};
use std::time::Duration;

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("migrate":
        from_ipvs needs ["nftables", "ipvs", "dummy", "tool:ipvsadm", "tool:ipset", "tool:ip"], within 90 s;
    )
    .to_vec()
}

const PATIENCE: Duration = Duration::from_secs(60);
/// How long somebody new waits for an answer.
const NEWCOMER: Duration = Duration::from_secs(2);
/// Somebody else's, by any chance on a NodePort's number of another protocol.
const FOREIGN: [&str; 2] = ["192.0.2.99:30080", "192.168.0.2:30080"];

fn from_ipvs() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    let tool = |line: &str| {
        let (tool, arguments) = line.split_once(' ').unwrap_or((line, ""));
        run(&cluster, tool, &arguments.split(' ').collect::<Vec<_>>())
    };
    for line in [
        "ip link add kube-ipvs0 type dummy",
        "ip address add 172.30.0.41/32 dev kube-ipvs0",
        "ipset create KUBE-CLUSTER-IP hash:ip,port",
        "ipset create KUBE-NODE-PORT-TCP bitmap:port range 0-65535",
        "ipset add KUBE-NODE-PORT-TCP 30080",
        "ipvsadm --set 2 2 2",
        "ipvsadm -A -t 172.30.0.41:80 -s rr",
        "ipvsadm -a -t 172.30.0.41:80 -r 10.180.0.1:80 -m",
        "ipvsadm -A -t 192.168.0.2:30080 -s rr",
        "ipvsadm -a -t 192.168.0.2:30080 -r 10.180.0.1:80 -m",
        "ipvsadm -A -u 192.168.0.2:30080 -s rr",
        "ipvsadm -A -u 192.0.2.99:30080 -s rr",
    ] {
        tool(line)?;
    }
    cluster.node().sysctl("net.ipv4.vs.conntrack", "1")?;
    let flows = [
        TcpFlow::start(&cluster.pod, "172.30.0.41:80", 100_000)?,
        TcpFlow::start(cluster.client(), "192.168.0.2:30080", 100_000)?,
    ];
    let go_on = || flows.iter().try_for_each(|flow| flow.await_progress(50_000, patiently(PATIENCE)).map(drop));
    go_on().context("through IPVS")?;
    let request = Request::new(Protocol::Tcp, "192.168.0.2:30080")?.timeout(patiently(NEWCOMER));
    let newcomers = FreshFlows::start(cluster.client(), &request, 10)?;
    let check = cluster.sheave(&["migrate", "check"])?;
    ensure!(FOREIGN.iter().all(|server| check.stdout.contains(&format!("{server} UDP"))), "{check:?}");
    ensure!(check.stdout.contains("IPVS carries"), "{check:?}");

    cluster.start(&[&DETECT_PODS[..], &["--adopt"]].concat())?;
    cluster.await_log("IPVS carries", patiently(PATIENCE))?;
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some(), "through ours, beside IPVS");
    go_on().context("through IPVS, beside ours")?;
    for flow in flows {
        let report = flow.stop();
        ensure!(report.is_whole() && report.by == "local", "{report:?}");
    }
    // Their connections have ended, and IPVS forgets them.
    cluster.await_log("interface (kube-ipvs0)", patiently(PATIENCE))?;
    ensure!(left(&cluster)? == ["UDP 192.0.2.99:30080", "UDP 192.168.0.2:30080"], "{:?}", left(&cluster)?);
    ensure!(run(&cluster, "ipset", &["list", "-n"])?.trim().is_empty(), "ipsets of kube-proxy's are left");
    ensure!(!run(&cluster, "ip", &["-br", "link"])?.contains("kube-ipvs0"), "kube-ipvs0 is left");
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some(), "through ours alone");
    traffic::welcomed(&newcomers.stop())?;
    Ok(())
}

/// Virtual servers, in order.
fn left(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let listed = run(cluster, "ipvsadm", &["-ln"])?;
    let servers = listed.lines().filter(|line| line.starts_with("TCP") || line.starts_with("UDP"));
    let mut servers: Vec<String> = servers.map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    servers.sort();
    Ok(servers)
}
