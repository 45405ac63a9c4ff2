//! Somebody else changes the ruleset: it is as before within a second, and established flows never notice.

use super::{
    ruleset::Ruleset,
    traffic::{self, Traffic},
};
use crate::fixture::{Cluster, DETECT_PODS};
use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use sheave::netlink::conntrack::{Conntrack, Selection};
use sheave_lab::{Outcome, Protocol, Request, UdpFlow};
use sheave_tests::{scenario::Scenario, scenarios};
use std::{thread, time::Duration};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("disruption":
        a_flush_of_the_whole_ruleset_is_repaired needs ["nftables", "tool:nft"];
        a_deleted_table_is_repaired needs ["nftables", "tool:nft"];
        edits_of_single_elements_are_undone needs ["nftables", "tool:nft"];
        edits_of_rules_chains_and_sets_are_undone needs ["nftables", "tool:nft"];
        a_policy_that_was_turned_to_drop_is_turned_back needs ["nftables", "tool:nft"];
        a_burst_of_edits_is_undone_and_leaves_no_repair_loop needs ["nftables", "tool:nft"];
        tcp_connections_that_began_without_rules_come_about needs ["nftables", "tool:nft"];
        udp_flows_that_began_without_rules_are_set_right needs ["nftables", "tool:nft"];
    )
    .to_vec()
}

/// Within this the ruleset is whole again.
const REPAIR: Duration = Duration::from_secs(1);
/// How long a client may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// What the daemon says after a repair.
const REPAIRED: &str = "table repaired";

/// A cluster with a daemon, and its ruleset.
fn start() -> anyhow::Result<(Cluster, Ruleset)> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    let ruleset = Ruleset::of(&cluster)?;
    Ok((cluster, ruleset))
}

/// Does `damage` three times under traffic.
fn survives(damage: &str) -> anyhow::Result<()> {
    let (cluster, before) = start()?;
    let traffic = Traffic::start(&cluster)?;
    let newcomers = traffic::newcomers(&cluster)?;
    for _ in 0..3 {
        newcomers.await_answers(10, PATIENCE)?;
        cluster.nft(damage)?;
        before.await_again(&cluster, REPAIR)?;
    }
    newcomers.await_answers(10, PATIENCE)?;
    traffic.finish()?;
    traffic::right(&newcomers.stop())?;
    ensure!(cluster.count_log(REPAIRED) == 3, "{} repairs of 3 damages", cluster.count_log(REPAIRED));
    Ok(())
}

fn a_flush_of_the_whole_ruleset_is_repaired() -> anyhow::Result<()> {
    survives("flush ruleset")
}

fn a_deleted_table_is_repaired() -> anyhow::Result<()> {
    survives("delete table inet sheave")
}

/// Does each damage in turn under traffic, each to be undone by one repair.
fn undoes(damages: &[&str]) -> anyhow::Result<()> {
    let (cluster, before) = start()?;
    let traffic = Traffic::start(&cluster)?;
    for (done, damage) in damages.iter().enumerate() {
        let script = in_force(&cluster, damage)?;
        cluster.nft(&script).with_context(|| script.clone())?;
        before.await_again(&cluster, REPAIR).with_context(|| script.clone())?;
        cluster.await_log(REPAIRED, PATIENCE).with_context(|| script.clone())?;
        ensure!(cluster.count_log(REPAIRED) == done + 1, "{script}: repaired more than once");
    }
    traffic.finish()?;
    // What else may have been queued is done with before the next sync.
    cluster.services(&[&traffic::web()])?;
    ensure!(cluster.count_log(REPAIRED) == damages.len(), "repairs that nobody needed");
    Ok(())
}

fn edits_of_single_elements_are_undone() -> anyhow::Result<()> {
    undoes(&[
        "delete element inet sheave @service-ips-4 { 172.30.0.41 }",
        "delete element inet sheave @cluster-ips-6 { fd00:172:30::41 }",
        "add element inet sheave @service-ips-4 { 198.51.100.7 }",
        "delete element inet sheave @class-2-4 { 172.30.0.41 . tcp . 80 }",
        "add element inet sheave @class-4-6 { fd00:172:30::41 . tcp . 80 }",
        "delete element inet sheave @node-class-2-4 { udp . 30080 }",
        "add element inet sheave @reject-4 { 172.30.0.41 . tcp . 80, 172.30.0.99 . udp . 80 }",
        "delete element inet sheave @endpoints-4 { 172.30.0.41 . tcp . 80 . 1 }",
        "delete element inet sheave @endpoints-4 { 172.30.0.99 . tcp . 80 . 0 }\n\
         add element inet sheave @endpoints-4 { 172.30.0.99 . tcp . 80 . 0 : 10.180.0.1 . 80 }",
        "flush map inet sheave @endpoints-4",
        "flush set inet sheave @node-ips-4",
        "add element inet sheave @hairpin-4 { 10.180.0.66 . 10.180.0.66 }",
        "flush set inet sheave @pods-4",
        "add element inet sheave @service-cidrs-4 { 198.51.100.0/24 }",
    ])
}

fn a_policy_that_was_turned_to_drop_is_turned_back() -> anyhow::Result<()> {
    // Without traffic: what the stranger's policy drops until the repair is lost by his will.
    let (cluster, before) = start()?;
    for chain in ["filter-forward", "nat-output"] {
        cluster.nft(&format!("add chain inet sheave {chain} {{ policy drop; }}"))?;
        before.await_again(&cluster, REPAIR)?;
    }
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some());
    Ok(())
}

fn edits_of_rules_chains_and_sets_are_undone() -> anyhow::Result<()> {
    undoes(&[
        "flush chain inet sheave nat-prerouting",
        "insert rule inet sheave nat-output return",
        "add rule inet sheave @services-4 counter",
        "flush chain inet sheave @dispatch-4",
        "add chain inet sheave intruder",
        "add chain inet sheave intruder { type filter hook forward priority 0; policy accept; }",
        "add set inet sheave intruder { type ipv4_addr; elements = { 192.0.2.7 } }",
        "flush chain inet sheave nat-postrouting\ndelete chain inet sheave nat-postrouting",
        "delete table inet sheave\nadd table inet sheave\nadd chain inet sheave nat-prerouting",
        "delete table inet sheave\nadd table inet sheave\n\
         add chain inet sheave nat-output { type nat hook output priority 7; policy drop; }\n\
         add chain inet sheave services-4 { type filter hook forward priority 7; }",
        "add table inet sheave { flags dormant; }",
    ])
}

/// A script with every `@name` as the set or chain is called now.
fn in_force(cluster: &Cluster, script: &str) -> anyhow::Result<String> {
    let Some((head, rest)) = script.split_once('@') else { return Ok(script.to_owned()) };
    let (name, tail) = rest.split_at(rest.find([' ', '\n']).unwrap_or(rest.len()));
    let listing = cluster.nft("list table inet sheave")?;
    let called = listing.lines().filter_map(|line| line.trim().split(' ').nth(1)).find(|found| {
        found.strip_prefix(name).is_some_and(|instance| instance.is_empty() || (instance.len() == 2 && instance.starts_with('.')))
    });
    let called = called.with_context(|| format!("nothing is called {name}:\n{listing}"))?;
    in_force(cluster, &format!("{head}{called}{tail}"))
}

fn a_burst_of_edits_is_undone_and_leaves_no_repair_loop() -> anyhow::Result<()> {
    const EDITS: u8 = 15;
    let (cluster, before) = start()?;
    let traffic = Traffic::start(&cluster)?;
    // Two strangers with their own idea of what should be in the table, and no pause.
    let burst = |kind: &'static str, network: u8| {
        let cluster = &cluster;
        move || -> anyhow::Result<()> {
            for number in 0..EDITS {
                let element = format!("inet sheave {kind} {{ 198.51.{network}.{number} }}");
                // A table that is just being replaced has no such set for a moment.
                let _ = cluster.nft(&format!("add element {element}"));
                let _ = cluster.nft("flush set inet sheave cluster-ips-4");
            }
            Ok(())
        }
    };
    thread::scope(|scope| {
        let strangers = [scope.spawn(burst("service-ips-4", 100)), scope.spawn(burst("cluster-ips-4", 101))];
        strangers.into_iter().try_for_each(|stranger| stranger.join().map_err(|_| anyhow::anyhow!("a stranger panicked"))?)
    })?;
    before.await_again(&cluster, REPAIR)?;
    let repairs = cluster.count_log(REPAIRED);
    ensure!((1..=4 * usize::from(EDITS)).contains(&repairs), "{repairs} repairs");
    cluster.services(&[&traffic::web()])?;
    cluster.services(&[&traffic::web(), &traffic::decoy()])?;
    before.await_again(&cluster, REPAIR)?;
    ensure!(cluster.count_log(REPAIRED) == repairs, "somebody repairs what nobody broke");
    traffic.finish()
}

fn udp_flows_that_began_without_rules_are_set_right() -> anyhow::Result<()> {
    let (cluster, before) = start()?;
    let daemon = nix::unistd::Pid::from_raw(cluster.daemon_id().context("it runs")?.cast_signed());
    // The daemon is held, so that the flow really begins while there are no rules, and conntrack remembers it as untranslated.
    nix::sys::signal::kill(daemon, Signal::SIGSTOP)?;
    cluster.flush()?;
    let flow = UdpFlow::start(&cluster.pod, &format!("{}:80", traffic::CLUSTER_IP), 50)?;
    flow.await_sent(5, PATIENCE)?;
    nix::sys::signal::kill(daemon, Signal::SIGCONT)?;
    before.await_again(&cluster, REPAIR)?;
    flow.await_answers(20, PATIENCE)?;
    let report = flow.stop();
    ensure!(
        report.by.len() == 1 && traffic::BACKENDS.contains(&report.by.keys().next().map_or("", String::as_str)),
        "{report:?}"
    );
    Ok(())
}

fn tcp_connections_that_began_without_rules_come_about() -> anyhow::Result<()> {
    let (cluster, before) = start()?;
    // A way out that says nothing, as most do: the client learns nothing and goes on trying.
    let silence = "table ip silence { chain c { type filter hook prerouting priority -300; ip daddr 172.30.0.0/16 drop; }; }";
    let silenced = cluster.router().exec("nft", &[silence])?;
    ensure!(silenced.status.success(), "{silenced:?}");
    let daemon = nix::unistd::Pid::from_raw(cluster.daemon_id().context("it runs")?.cast_signed());
    nix::sys::signal::kill(daemon, Signal::SIGSTOP)?;
    cluster.flush()?;
    let request = Request::new(Protocol::Tcp, &format!("{}:80", traffic::CLUSTER_IP))?.timeout(PATIENCE);
    let outcome = thread::scope(|scope| -> anyhow::Result<Outcome> {
        let asking = scope.spawn(|| cluster.pod.ask(&request));
        while !has_tcp_entry(&cluster)? {
            thread::yield_now();
        }
        nix::sys::signal::kill(daemon, Signal::SIGCONT)?;
        Ok(asking.join().map_err(|_| anyhow::anyhow!("the client panicked"))??)
    })?;
    before.await_again(&cluster, REPAIR)?;
    ensure!(outcome.by().is_some_and(|by| traffic::BACKENDS.contains(&by)), "{outcome}");
    Ok(())
}

/// Whether connection tracking of the node knows of a TCP connection to the ClusterIP.
fn has_tcp_entry(cluster: &Cluster) -> anyhow::Result<bool> {
    let tcp = Selection { ipv6: false, protocol: sheave::model::Protocol::Tcp.number() };
    cluster.node().run(|| {
        let mut found = false;
        Conntrack::open()?.dump(tcp, |flow| found |= flow.original.destination.ip().to_string() == traffic::CLUSTER_IP)?;
        Ok(found)
    })?
}
