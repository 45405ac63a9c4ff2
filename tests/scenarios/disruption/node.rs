//! The node itself changes, or its sets become too small: nobody notices but those it concerns.

use super::{
    ruleset::Ruleset,
    traffic::{self, Traffic},
};
use crate::fixture::{DETECT_PODS, Endpoint, Service};
use anyhow::{Context as _, ensure};
use sheave_lab::{Protocol, Request};
use sheave_tests::{
    scenario::{Scenario, patiently},
    scenarios,
};
use std::time::{Duration, Instant};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("disruption":
        new_node_addresses_serve_node_ports_and_old_ones_stop needs ["nftables", "tool:nft"];
        a_node_without_ipv6_serves_ipv4_only needs ["nftables", "tool:nft"];
        sets_grow_under_traffic needs ["nftables", "tool:nft"], within 120 s;
    )
    .to_vec()
}

/// Within this a new address serves NodePorts.
const NOTICED: Duration = Duration::from_secs(1);

fn new_node_addresses_serve_node_ports_and_old_ones_stop() -> anyhow::Result<()> {
    for selection in ["0.0.0.0/0,::/0", "192.168.0.0/16,fd00:192:168::/48"] {
        let mut cluster = traffic::cluster()?;
        cluster.start(&[&DETECT_PODS[..], &["--nodeport-addresses", selection]].concat())?;
        let before = Ruleset::of(&cluster)?;
        for (address, at) in [("192.168.0.222/24", "192.168.0.222"), ("fd00:192:168::222/112", "[fd00:192:168::222]")] {
            let ask = |timeout| -> anyhow::Result<Request> {
                Ok(Request::new(Protocol::Tcp, &format!("{at}:{}", traffic::NODE_PORT))?.timeout(timeout))
            };
            cluster.node().add_address("eth0", address)?;
            let start = Instant::now();
            while cluster.client().ask(&ask(Duration::from_millis(100))?)?.by().is_none() {
                ensure!(start.elapsed() < patiently(NOTICED), "{at} does not serve NodePorts with {selection}");
            }
            cluster.node().del_address("eth0", address)?;
            before.await_again(&cluster, NOTICED).with_context(|| format!("{at} still serves with {selection}"))?;
            let gone = cluster.client().ask(&ask(Duration::from_millis(300))?)?;
            ensure!(gone.by().is_none(), "{gone}");
        }
        // One that the selection does not cover is no NodePort address.
        if !selection.starts_with('0') {
            cluster.node().add_address("eth0", "198.51.100.2/32")?;
            cluster.services(&[&traffic::web(), &traffic::decoy()])?;
            ensure!(Ruleset::of(&cluster)? == before, "an address outside of {selection}");
        }
    }
    Ok(())
}

fn a_node_without_ipv6_serves_ipv4_only() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    let off = || -> std::io::Result<()> { std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1") };
    cluster.node().run(off)?.context("IPv6 cannot be switched off in the node's namespace")?;
    cluster.start(&DETECT_PODS)?;
    ensure!(cluster.count_log("only IPv4 is served") == 1, "it is said once");
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some());
    let listing = cluster_listing(&cluster)?;
    let found = |address: &str| listing.iter().any(|line| line.contains(address));
    ensure!(found("172.30.0.41") && !found("fd00:172:30::41"), "the ClusterIP of one family only");
    Ok(())
}

fn sets_grow_under_traffic() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    let size = |set: &str| -> anyhow::Result<u32> {
        let listing = cluster_listing(&cluster)?;
        let at = listing.iter().position(|line| {
            let name = line.split(' ').nth(1).unwrap_or_default();
            (line.starts_with("set ") || line.starts_with("map ")) && name.split('.').next() == Some(set)
        });
        let block = listing[at.with_context(|| format!("no set {set}"))?..].iter();
        let size = block.take_while(|line| *line != "}").find_map(|line| line.strip_prefix("size ")).context("it is sized")?;
        Ok(size.split_whitespace().next().unwrap_or_default().parse()?)
    };
    let sets = ["service-ips-4", "cluster-ips-6", "class-1-4", "endpoints-6"];
    let small: Vec<u32> = sets.iter().map(|set| size(set)).collect::<anyhow::Result<_>>()?;
    let traffic = Traffic::start(&cluster)?;
    let newcomers = traffic::newcomers(&cluster)?;
    for step in 1..=5 {
        let services = (0..400).map(|number| {
            let name = format!("many-{step}-{number}");
            let service = Service::new(&name, &format!("172.30.{}.{}", 100 + step * 2 + number / 250, number % 250 + 1));
            service.only(Protocol::Tcp, 80, 80).endpoint(Endpoint::at("10.180.0.9"))
        });
        cluster.objects(&format!("many-{step}.yaml"), services.flat_map(|service| service.documents()))?;
        ensure!(cluster.pod.tcp(&format!("172.30.{}.7:80", 100 + step * 2))?.by() == Some("decoy"), "step {step}");
    }
    for (set, small) in sets.iter().zip(small) {
        let large = size(set)?;
        ensure!(large > small, "{set} is for {large} elements, as before");
    }
    traffic.finish()?;
    traffic::welcomed(&newcomers.stop())?;

    // The same again with the daemon killed while it grows the sets: the twins that were being filled do not stay.
    let (grown, unused) = (Ruleset::of(&cluster)?, Ruleset::unused_sets(&cluster)?);
    cluster.terminate()?;
    ensure!(cluster.sheave(&["cleanup"])?.status.success());
    cluster.restart()?;
    for life in [40, 80, 120, 160, 200] {
        cluster.kill()?;
        cluster.launch()?;
        // Somewhere in the load; no event is meant.
        std::thread::sleep(Duration::from_millis(life));
    }
    cluster.await_sync()?;
    assert_eq!(Ruleset::unused_sets(&cluster)?, unused);
    ensure!(Ruleset::of(&cluster)? == grown, "not what it was before the kills");
    Ok(())
}

/// The lines of our table, without indentation.
fn cluster_listing(cluster: &crate::fixture::Cluster) -> anyhow::Result<Vec<String>> {
    Ok(cluster.nft("list table inet sheave")?.lines().map(|line| line.trim().to_owned()).collect())
}
