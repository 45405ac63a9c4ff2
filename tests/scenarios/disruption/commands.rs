//! A kernel that says no, and the command that takes everything away.

use super::{
    ruleset::Ruleset,
    traffic::{self, Traffic},
};
use crate::fixture::DETECT_PODS;
use anyhow::{Context as _, ensure};
use sheave_lab::{Outcome, Port, Protocol, Request, UdpFlow};
use sheave_tests::{scenario::Scenario, scenarios, world::executable};
use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("disruption":
        commits_that_fail_are_tried_again needs ["nftables", "tool:nft"];
        cleanup_removes_what_is_ours_and_nothing_else needs ["nftables", "tool:nft"];
        without_the_capability_it_says_so needs ["nftables", "tool:setpriv"];
    )
    .to_vec()
}

const PATIENCE: Duration = Duration::from_secs(20);

fn commits_that_fail_are_tried_again() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    let before = Ruleset::of(&cluster)?;
    let traffic = Traffic::start(&cluster)?;
    // Somebody puts a table of his own in place of ours, and lets nobody else change it as long as he lives.
    let mut command = Command::new("nft");
    command.arg("-i").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut usurper = cluster.node().spawn(command)?;
    let mut orders = usurper.child().stdin.take().context("its standard input is a pipe")?;
    orders.write_all(b"delete table inet sheave; add table inet sheave { flags owner; }\n")?;
    cluster.await_log("the kernel keeps its last good rules", PATIENCE)?;
    // What changes meanwhile is not lost either.
    let late = crate::fixture::Service::new("late", "172.30.0.80").only(Protocol::Tcp, 80, 80);
    let late = late.endpoint(crate::fixture::Endpoint::at("10.180.2.1"));
    cluster.objects_later("late.yaml", late.documents())?;
    traffic.go_on()?;
    drop(usurper);
    drop(orders);
    cluster.await_log("the kernel takes our commits again", PATIENCE)?;
    cluster.await_sync()?;
    ensure!(cluster.pod.tcp("172.30.0.80:80")?.by() == Some("remote"), "the change of meanwhile");
    cluster.remove_file("late.yaml")?;
    before.await_again(&cluster, PATIENCE)?;
    let errors = cluster.count_log("the kernel keeps its last good rules");
    ensure!(errors == 1, "one failure is said once, not {errors} times");
    traffic.finish()
}

fn cleanup_removes_what_is_ours_and_nothing_else() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.nft("table inet other { set s { type ipv4_addr; elements = { 192.0.2.1 }; }; chain c { type filter hook forward priority 5; counter; }; }\ntable ip sheave { chain c { }; }")?;
    cluster.start(&DETECT_PODS)?;
    let stranger = cluster.lan_host("stranger", "192.168.0.77", None)?;
    stranger.serve(&[Port::udp(80)])?;
    let flow = UdpFlow::start(&cluster.pod, "192.168.0.77:80", 100)?;
    flow.await_answers(10, PATIENCE)?;
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some());
    ensure!(cluster.terminate()?.success());
    let dry = cluster.sheave(&["cleanup", "--dry-run"])?;
    ensure!(dry.status.success() && dry.stdout.contains("table inet sheave"), "{dry:?}");
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some(), "a dry run removes nothing");
    let foreign = || -> anyhow::Result<[String; 2]> {
        let list = |table| cluster.nft(&format!("list table {table}")).map(|listing| without_counters(&listing));
        Ok([list("inet other")?, list("ip sheave")?])
    };
    let (others, entries) = (foreign()?, udp_entries(&cluster)?);
    let done = cluster.sheave(&["cleanup"])?;
    ensure!(done.status.success() && done.stdout.contains("removed"), "{done:?}");
    assert_eq!(cluster.nft("list tables")?, "table inet other\ntable ip sheave\n");
    assert_eq!(foreign()?, others);
    let left = udp_entries(&cluster)?;
    ensure!(entries.iter().all(|entry| left.contains(entry)), "{entries:?} {left:?}");
    let gone = cluster.pod.ask(&Request::new(Protocol::Tcp, "172.30.0.41:80")?.timeout(Duration::from_millis(500)))?;
    ensure!(!matches!(gone, Outcome::Answered(_)), "{gone}");
    let again = cluster.sheave(&["cleanup"])?;
    ensure!(again.status.success() && again.stdout.contains("nothing"), "{again:?}");
    let report = flow.stop();
    ensure!(report.is_whole(), "sent {}, answered {}", report.sent, report.answered);
    Ok(())
}

/// Listings without what packets count.
fn without_counters(listing: &str) -> String {
    listing.lines().filter(|line| !line.contains("counter")).collect::<Vec<_>>().join("\n")
}

/// The ids of UDP flows to the stranger.
fn udp_entries(cluster: &crate::fixture::Cluster) -> anyhow::Result<Vec<Option<u32>>> {
    use sheave::netlink::conntrack::{Conntrack, Selection};
    cluster.node().run(|| {
        let mut ids = Vec::new();
        Conntrack::open()?.dump(Selection { ipv6: false, protocol: 17 }, |flow| {
            if flow.original.destination.to_string() == "192.168.0.77:80" {
                ids.push(flow.id);
            }
        })?;
        ensure!(ids.len() == 1, "one flow: {ids:?}");
        Ok(ids)
    })?
}

fn without_the_capability_it_says_so() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    let program = executable()?;
    let program = program.to_string_lossy();
    let manifests = format!("manifests={}", cluster.manifests().display());
    for arguments in [vec!["run", "--source", &manifests], vec!["cleanup"]] {
        let dropped = [&["--bounding-set", "-net_admin", &*program][..], &arguments].concat();
        let ended = cluster.node().exec("setpriv", &dropped)?;
        ensure!(ended.status.code() == Some(3), "{arguments:?}: {ended:?}");
        ensure!(ended.stderr.contains("CAP_NET_ADMIN"), "{arguments:?}: {ended:?}");
    }
    Ok(())
}
