//! Taking over: ours first, then kube-proxy's go, and nobody else's.

use super::replica::{KubeProxy, Mode, foreign, ruleset, run};
use crate::{
    disruption::traffic::{self, Traffic},
    fixture::{Cluster, DETECT_PODS},
};
use anyhow::{Context as _, ensure};
use sheave_lab::{Port, Protocol, Request};
use sheave_tests::{scenario::Scenario, scenarios};
use std::{net::TcpListener, time::Duration};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let under_traffic = scenarios!("disruption":
        migrate_from_nftables_with_kube_proxy_running needs ["nftables", "tool:nft"], within 90 s;
        migrate_from_nftables_with_kube_proxy_stopped needs ["nftables", "tool:nft"], within 90 s;
        migrate_from_iptables_nft_with_kube_proxy_running needs ["nftables", "tool:nft", "tool:iptables-nft-restore"], within 90 s;
        migrate_from_iptables_nft_with_kube_proxy_stopped needs ["nftables", "tool:nft", "tool:iptables-nft-restore"], within 90 s;
        migrate_from_iptables_legacy needs ["nftables", "tool:nft", "tool:iptables-legacy-restore"], within 90 s;
        migrate_where_iptables_nft_forwards_by_kube_proxy needs ["nftables", "tool:nft", "tool:iptables-nft-restore"], within 120 s;
        migrate_where_iptables_legacy_forwards_by_kube_proxy needs ["nftables", "tool:nft", "tool:iptables-legacy-restore"], within 120 s;
    );
    let quiet = scenarios!("migrate":
        ours_decide_while_both_exist needs ["nftables", "tool:nft"];
        beside_a_running_kube_proxy_it_refuses needs ["nftables", "tool:nft"];
        where_our_rules_decide_it_serves_beside_a_running_kube_proxy needs ["nftables", "tool:nft"];
        beside_what_kube_proxy_left_it_warns needs ["nftables", "tool:nft"];
        a_forward_chain_that_begins_to_drop_is_told_and_keeps_kube_forward needs ["nftables", "tool:nft", "tool:iptables-nft-restore"], waiting 180 s;
        rules_that_come_back_have_a_writer needs ["nftables", "tool:nft"], waiting 240 s;
        ports_that_must_be_had_are_awaited_beside_kube_proxy needs ["nftables", "tool:nft"], within 90 s;
        what_is_not_kube_proxys_stays needs ["nftables", "tool:nft", "tool:iptables-nft", "tool:ipset"], waiting 90 s;
    );
    [&under_traffic[..], &quiet].concat()
}

const PATIENCE: Duration = Duration::from_secs(30);
/// Where the pods of the lab are.
const PODS: [&str; 2] = ["10.180.0.0/16", "fd00:10:180::/48"];
const REMOVED: &str = "kube-proxy's rules are removed";

fn migrate_from_nftables_with_kube_proxy_running() -> anyhow::Result<()> {
    migration(Mode::Nftables, true)
}

fn migrate_from_nftables_with_kube_proxy_stopped() -> anyhow::Result<()> {
    migration(Mode::Nftables, false)
}

fn migrate_from_iptables_nft_with_kube_proxy_running() -> anyhow::Result<()> {
    migration(Mode::IptablesNft, true)
}

fn migrate_from_iptables_nft_with_kube_proxy_stopped() -> anyhow::Result<()> {
    migration(Mode::IptablesNft, false)
}

fn migrate_from_iptables_legacy() -> anyhow::Result<()> {
    migration(Mode::IptablesLegacy, true)
}

/// Flows that kube-proxy translated go on, newcomers come through at every moment, and in the end nothing of kube-proxy's is left.
fn migration(mode: Mode, running: bool) -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    let before = foreign(&cluster)?;
    mode.write_rules(&cluster)?;
    let mut kube_proxy = Some(KubeProxy::start(&cluster)?);
    let old = Traffic::start(&cluster).context("through kube-proxy's rules")?;
    let newcomers = traffic::newcomers(&cluster)?;
    if !running {
        kube_proxy = None;
    }
    cluster.start(&[&DETECT_PODS[..], &["--adopt"]].concat())?;
    let new = Traffic::start(&cluster).context("through both")?;
    if kube_proxy.take().is_some() {
        ensure!(cluster.count_log(REMOVED) == 0, "kube-proxy runs, and would write its rules again");
    }
    cluster.await_log(REMOVED, PATIENCE)?;
    old.go_on()?;
    assert_eq!(foreign(&cluster)?, before, "something of kube-proxy's is left, or something else is gone");
    if mode == Mode::IptablesLegacy {
        for tool in ["iptables-legacy-save", "ip6tables-legacy-save"] {
            let left = run(&cluster, tool, &[])?;
            ensure!(!left.lines().any(|line| line.contains("KUBE-") && !line.contains("KUBE-FIREWALL")), "{left}");
        }
    }
    new.finish()?;
    old.finish()?;
    traffic::welcomed(&newcomers.stop())?;
    Traffic::start(&cluster).context("through ours alone")?.finish()
}

fn migrate_where_iptables_nft_forwards_by_kube_proxy() -> anyhow::Result<()> {
    forwarded_by_kube_proxy(Mode::IptablesNft, ["iptables-nft", "ip6tables-nft"], "-P FORWARD DROP")
}

fn migrate_where_iptables_legacy_forwards_by_kube_proxy() -> anyhow::Result<()> {
    forwarded_by_kube_proxy(Mode::IptablesLegacy, ["iptables-legacy", "ip6tables-legacy"], "-A FORWARD -j REJECT")
}

/// Docker makes FORWARD drop, some distributions refuse at its end, and a plugin accepts what comes from pods and nothing else: outside clients come through by KUBE-FORWARD
/// alone. Nothing is begun until somebody else lets them in, and at no moment does traffic stop.
fn forwarded_by_kube_proxy(mode: Mode, tools: [&str; 2], the_rest: &str) -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    mode.write_rules(&cluster)?;
    let at = |networks: [&str; 2], rule: &dyn Fn(&str) -> String| -> anyhow::Result<()> {
        for (tool, network) in tools.into_iter().zip(networks) {
            run(&cluster, tool, &rule(network).split(' ').collect::<Vec<_>>())?;
        }
        Ok(())
    };
    let everywhere = |rule: &dyn Fn(&str) -> String| at(PODS, rule);
    everywhere(&|pods| format!("-A FORWARD -s {pods} -j ACCEPT"))?;
    // A bridge of somebody's, both ways, where no pod is.
    for way in ["-s", "-d"] {
        at(["172.17.0.0/16", "fd00:17::/64"], &|bridge| format!("-A FORWARD {way} {bridge} -j ACCEPT"))?;
    }
    everywhere(&|_| the_rest.to_owned())?;
    let kube_proxy = KubeProxy::start(&cluster)?;
    let old = Traffic::start(&cluster).context("through kube-proxy's rules")?;
    let newcomers = traffic::newcomers(&cluster)?;
    let in_the_way = || -> anyhow::Result<bool> {
        Ok(cluster.sheave(&["migrate", "check", "--cluster-cidr", &PODS.join(",")])?.stdout.contains("drops forwarded"))
    };
    ensure!(in_the_way()?, "`migrate check` does not say so");
    let before = ruleset(&cluster)?;
    let manifests = format!("manifests={}", cluster.manifests().display());
    let ended = cluster.sheave(&[
        "run",
        "--node-name",
        "test-node",
        "--source",
        &manifests,
        "--adopt",
        "--cluster-cidr",
        &PODS.join(","),
    ])?;
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains("KUBE-FORWARD"), "{ended:?}");
    ensure!(ended.stderr.contains(PODS[0]) && ended.stderr.contains(PODS[1]), "{ended:?}");
    ensure!(ended.stderr.contains("nothing was begun") && ended.stderr.contains("-j ACCEPT"), "{ended:?}");
    assert_eq!(ruleset(&cluster)?, before, "it has begun something");
    old.go_on()?;

    everywhere(&|pods| format!("-I FORWARD -d {pods} -j ACCEPT"))?;
    ensure!(!in_the_way()?, "what was asked for is done");
    cluster.start(&["--adopt", "--cluster-cidr", &PODS.join(",")])?;
    let new = Traffic::start(&cluster).context("through both")?;
    drop(kube_proxy);
    cluster.await_log(REMOVED, PATIENCE)?;
    old.finish()?;
    new.finish()?;
    traffic::welcomed(&newcomers.stop())?;
    Traffic::start(&cluster).context("through ours alone")?.finish()
}

/// Docker is installed in the middle of a migration. It was looked at the chain before; it is looked again, and before kube-proxy's
/// rules go.
fn a_forward_chain_that_begins_to_drop_is_told_and_keeps_kube_forward() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    Mode::IptablesNft.write_rules(&cluster)?;
    let kube_proxy = KubeProxy::start(&cluster)?;
    cluster.start(&["--adopt", "--cluster-cidr", &PODS.join(",")])?;
    ensure!(cluster.count_log("drops forwarded") == 0, "nothing drops yet");
    run(&cluster, "iptables-nft", &["-P", "FORWARD", "DROP"])?;
    drop(kube_proxy);
    cluster.await_log("not removed: chain FORWARD of iptables-nft ip filter drops forwarded packets", 2 * PATIENCE)?;
    ensure!(cluster.count_log(REMOVED) == 0, "connections that kube-proxy began pass by KUBE-FORWARD");
    cluster.await_log("chain ip filter FORWARD drops forwarded packets", 3 * PATIENCE)?;
    let health = crate::health::body(&cluster, 10256, "/healthz")?;
    ensure!(health.contains("forwarding: chain ip filter FORWARD drops") && health.contains(PODS[0]), "{health}");
    let metrics = crate::health::body(&cluster, 10249, "/metrics")?;
    ensure!(metrics.contains("\nsheave_forward_chains_dropping 1\n"), "{metrics}");
    for way in ["-s", "-d"] {
        run(&cluster, "iptables-nft", &["-I", "FORWARD", way, PODS[0], "-j", "ACCEPT"])?;
    }
    cluster.await_log(REMOVED, 2 * PATIENCE)?;
    Ok(())
}

/// A kube-proxy in a container of its own, whose ports we hold: neither its process nor a listener can be seen.
fn rules_that_come_back_have_a_writer() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    Mode::Nftables.write_rules(&cluster)?;
    cluster.start(&[&DETECT_PODS[..], &["--adopt"]].concat())?;
    cluster.await_log(REMOVED, PATIENCE)?;
    // Once may be the last word of one that was about to end.
    Mode::Nftables.write_rules(&cluster)?;
    cluster.await_log("they are removed once more", 3 * PATIENCE)?;
    cluster.await_log(REMOVED, 3 * PATIENCE)?;
    Mode::Nftables.write_rules(&cluster)?;
    let written = foreign(&cluster)?;
    cluster.await_log("removed twice and are there again", 3 * PATIENCE)?;
    let health = || crate::health::body(&cluster, 10256, "/healthz");
    ensure!(health()?.contains("kube-proxy runs out of sight"), "{}", health()?);
    ensure!(cluster.count_log(REMOVED) == 2, "it removes without end what is written without end");
    assert_eq!(foreign(&cluster)?, written);
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some());
    Ok(())
}

fn ports_that_must_be_had_are_awaited_beside_kube_proxy() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    Mode::Nftables.write_rules(&cluster)?;
    let kube_proxy = KubeProxy::start(&cluster)?;
    cluster.start(&[&DETECT_PODS[..], &["--adopt", "--bind-address-hard-fail=true"]].concat())?;
    ensure!(cluster.count_log("bindAddressHardFail waits") == 1);
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some());
    drop(kube_proxy);
    cluster.await_log("server listens on", PATIENCE)?;
    Ok(())
}

/// kube-proxy's rules say `remote` alone, ours say `local` alone: whoever comes while both are there is answered by `local`, also after
/// kube-proxy has written its rules once more, behind ours.
fn ours_decide_while_both_exist() -> anyhow::Result<()> {
    let mut cluster = Cluster::new(crate::fixture::Pods::Routed)?;
    let web = crate::fixture::Service::new("web", traffic::CLUSTER_IP).only(Protocol::Tcp, 80, 80).node_port(traffic::NODE_PORT);
    cluster.prepare(&[&web.endpoint(crate::fixture::Endpoint::local("10.180.0.1"))])?;
    let theirs = "table ip kube-proxy {
        chain nat-prerouting { type nat hook prerouting priority -100; policy accept; jump services; }
        chain nat-output { type nat hook output priority -100; policy accept; jump services; }
        chain nat-postrouting { type nat hook postrouting priority 100; policy accept; meta mark & 0x4000 != 0 masquerade; }
        chain services {
            ip daddr 172.30.0.41 tcp dport 80 meta mark set meta mark or 0x4000 dnat to 10.180.2.1:80
            ip daddr 192.168.0.2 tcp dport 30080 meta mark set meta mark or 0x4000 dnat to 10.180.2.1:80
        }
    }";
    cluster.nft(theirs)?;
    let answers = |cluster: &Cluster, by: &str, masqueraded: bool| -> anyhow::Result<()> {
        for (from, to) in [(&cluster.pod, "172.30.0.41:80"), (cluster.client(), "192.168.0.2:30080")] {
            let tally = from.sample(&Request::new(Protocol::Tcp, to)?, 16)?;
            ensure!(tally.answered.keys().eq([by]) && tally.failed.is_empty(), "{to}: {tally:?}");
        }
        // A pod that asks for a ClusterIP keeps its address: kube-proxy's mark is not set on what it did not translate.
        let answer = cluster.pod.tcp("172.30.0.41:80")?.answer()?;
        ensure!(answer.source_kept() != masqueraded, "{answer:?}");
        Ok(())
    };
    answers(&cluster, "remote", true)?;
    let _kube_proxy = KubeProxy::start(&cluster)?;
    cluster.start(&[&DETECT_PODS[..], &["--adopt"]].concat())?;
    answers(&cluster, "local", false)?;
    cluster.nft(&format!("delete table ip kube-proxy; {theirs}"))?;
    answers(&cluster, "local", false)
}

fn beside_a_running_kube_proxy_it_refuses() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    Mode::Nftables.write_rules(&cluster)?;
    let before = ruleset(&cluster)?;
    let manifests = format!("manifests={}", cluster.manifests().display());
    let run = || cluster.sheave(&["run", "--node-name", "test-node", "--source", &manifests]);
    let refused = |sign: &str| -> anyhow::Result<()> {
        let ended = run()?;
        ensure!(ended.status.code() == Some(1), "{ended:?}");
        ensure!(ended.stderr.contains("kube-proxy runs") && ended.stderr.contains(sign), "{}", ended.stderr);
        ensure!(ended.stderr.contains("--adopt"), "it does not say what to do: {}", ended.stderr);
        assert_eq!(ruleset(&cluster)?, before, "it has begun something");
        Ok(())
    };
    // By its process; and in a container, where processes cannot be seen, by its ports.
    let kube_proxy = KubeProxy::start(&cluster)?;
    refused(&format!("process {}", kube_proxy.id()))?;
    drop(kube_proxy);
    let listener = cluster.node().run(|| TcpListener::bind(("0.0.0.0", 10256)))??;
    refused("port 10256")?;
    // The same listener without kube-proxy's rules is somebody's health check.
    cluster.nft("delete table ip kube-proxy; delete table ip6 kube-proxy")?;
    let mut cluster = cluster;
    cluster.start(&DETECT_PODS)?;
    drop(listener);
    Ok(())
}

/// After a crash or an upgrade: rules that nobody maintains would go on deciding.
fn where_our_rules_decide_it_serves_beside_a_running_kube_proxy() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    cluster.kill()?;
    Mode::Nftables.write_rules(&cluster)?;
    let _kube_proxy = KubeProxy::start(&cluster)?;
    cluster.restart()?;
    cluster.await_log("our rules decide already", PATIENCE)?;
    Ok(())
}

fn beside_what_kube_proxy_left_it_warns() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    Mode::Nftables.write_rules(&cluster)?;
    let before = foreign(&cluster)?;
    cluster.launch()?;
    let warning = cluster.await_log("kube-proxy has left rules", PATIENCE)?;
    ensure!(warning.contains("table ip6 kube-proxy") && warning.contains("--adopt"), "{warning}");
    cluster.await_sync()?;
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some());
    assert_eq!(foreign(&cluster)?, before);
    Ok(())
}

fn what_is_not_kube_proxys_stays() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    // A table of somebody's, a table of kube-proxy's name in a family that it does not use, and kube-router's chains and sets.
    cluster.nft(
        "table inet other { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { type nat hook prerouting priority -100; tcp dport 9 dnat ip to 192.0.2.1; }; }
         table inet kube-proxy { chain c { }; }",
    )?;
    let iptables = |line: &str| run(&cluster, "iptables-nft", &line.split(' ').collect::<Vec<_>>());
    for line in [
        "-t nat -N CNI-HOSTPORT-DNAT",
        "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT",
        "-t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 8081 -j DNAT --to-destination 10.180.0.1:80",
        "-t nat -A POSTROUTING -s 198.18.0.0/15 -j MASQUERADE",
        "-t filter -N KUBE-ROUTER-FORWARD",
        "-t filter -A FORWARD -s 198.18.0.0/15 -j KUBE-ROUTER-FORWARD",
        "-t filter -A KUBE-ROUTER-FORWARD -j ACCEPT",
        "-t mangle -N KUBE-KUBELET-CANARY",
    ] {
        iptables(line)?;
    }
    for set in ["KUBE-SRC-ABCDEFGHIJKLMNOP", "cali40masq-ipam-pools", "KUBE-6-CLUSTER-IPS"] {
        run(&cluster, "ipset", &["create", set, "hash:ip"])?;
    }
    run(&cluster, "ipset", &["create", "KUBE-CLUSTER-IP", "hash:ip,port"])?;
    run(&cluster, "ipset", &["create", "KUBE-LOOP-BACK", "hash:ip,port,ip"])?;
    run(&cluster, "ipset", &["create", "KUBE-NODE-PORT-TCP", "bitmap:port", "range", "0-65535"])?;
    // A set of kube-proxy's that somebody else has come to use.
    iptables("-t filter -A INPUT -m set --match-set KUBE-LOOP-BACK dst,dst,src -j ACCEPT")?;
    let before = (foreign(&cluster)?, sets(&cluster)?);
    Mode::IptablesNft.write_rules(&cluster)?;
    Mode::Nftables.write_rules(&cluster)?;
    // A rule of kube-proxy's that refers to a set, which the kernel lets go of a little later.
    iptables("-t nat -A KUBE-SERVICES -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT")?;
    // And a chain of a plugin's that marks for masquerading with kube-proxy's chain.
    iptables("-t nat -N CNI-HOSTPORT-SETMARK")?;
    iptables("-t nat -A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ")?;
    cluster.start(&[&DETECT_PODS[..], &["--adopt"]].concat())?;
    cluster.await_log(REMOVED, PATIENCE)?;
    cluster.await_log("not removed: chain KUBE-MARK-MASQ of iptables-nft ip nat", PATIENCE)?;
    cluster.await_log("not removed: ipset KUBE-LOOP-BACK", PATIENCE)?;

    let left = run(&cluster, "iptables-nft-save", &["-t", "nat"])?;
    for kept in ["-A CNI-HOSTPORT-SETMARK -j KUBE-MARK-MASQ", "-j KUBE-POSTROUTING", "MASQUERADE --random-fully"] {
        ensure!(left.contains(kept), "{kept} is gone:\n{left}");
    }
    ensure!(!left.contains("KUBE-SERVICES") && !left.contains("KUBE-SVC-"), "{left}");
    // Once the plugin has let go, another start leaves nothing.
    let iptables = |line: &str| run(&cluster, "iptables-nft", &line.split(' ').collect::<Vec<_>>());
    iptables("-t nat -F CNI-HOSTPORT-SETMARK")?;
    iptables("-t nat -X CNI-HOSTPORT-SETMARK")?;
    cluster.terminate()?;
    cluster.restart()?;
    cluster.await_log(REMOVED, PATIENCE)?;
    assert_eq!(foreign(&cluster)?, before.0);
    let expected: Vec<_> = before.1.into_iter().filter(|set| set != "KUBE-CLUSTER-IP" && set != "KUBE-NODE-PORT-TCP").collect();
    assert_eq!(sets(&cluster)?, expected);
    // The plugin's host port works as before.
    cluster.local.serve(&[Port::tcp(8081)])?;
    ensure!(cluster.client().tcp("192.168.0.2:8081")?.by() == Some("local"));
    Ok(())
}

fn sets(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = run(cluster, "ipset", &["list", "-n"])?.lines().map(str::to_owned).collect();
    names.sort();
    Ok(names)
}
