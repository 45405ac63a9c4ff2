//! Giving back: kube-proxy's rules first, then ours go.

use super::replica::{KubeProxy, Mode, ruleset};
use crate::{
    disruption::traffic::{self, Traffic},
    fixture::{Cluster, DETECT_PODS, eventually},
};
use anyhow::{Context as _, ensure};
use sheave_lab::Process;
use sheave_tests::{scenario::Scenario, scenarios, world::executable};
use std::{
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let under_traffic = scenarios!("disruption":
        migrate_back_to_nftables_with_kube_proxy_first needs ["nftables", "tool:nft"], within 90 s;
        migrate_back_to_nftables_with_sheave_stopped_first needs ["nftables", "tool:nft"], within 90 s;
        migrate_back_to_nftables_with_sheave_alive needs ["nftables", "tool:nft"], within 90 s;
        migrate_back_to_iptables_nft needs ["nftables", "tool:nft", "tool:iptables-nft-restore"], within 90 s;
        migrate_back_to_iptables_legacy needs ["nftables", "tool:nft", "tool:iptables-legacy-restore"], within 90 s;
    );
    let quiet = scenarios!("migrate":
        back_without_kube_proxy_removes_nothing needs ["nftables", "tool:nft"];
        back_from_a_mode_that_serves_localhost needs ["nftables", "tool:nft"];
        back_with_sheave_alive_and_no_kube_proxy_removes_nothing needs ["nftables", "tool:nft"];
        back_to_a_kube_proxy_that_waits_for_its_ports needs ["nftables", "tool:nft"];
        back_for_a_while needs ["nftables", "tool:nft"], waiting 120 s;
        back_waits_for_every_cluster_ip needs ["nftables", "tool:nft"];
        back_waits_for_endpoints needs ["nftables", "tool:nft"];
        back_waits_for_endpoints_with_chains_of_their_own needs ["nftables", "tool:nft"];
        back_to_iptables_legacy_needs_no_tool_of_its_own needs ["nftables", "tool:nft", "tool:iptables-legacy-restore"];
        back_does_not_wait_for_what_a_stopped_sheave_left needs ["nftables", "tool:nft"], waiting 150 s;
        back_to_rules_that_nobody_vouches_for_removes_nothing needs ["nftables", "tool:nft"], waiting 210 s;
        back_waits_until_kube_proxy_has_programmed_something needs ["nftables", "tool:nft"];
        back_where_nothing_is_ours_is_done needs ["nftables"];
    );
    [&under_traffic[..], &quiet].concat()
}

const REQUEST: &str = "table inet sheave-back {\n}";
const PATIENCE: Duration = Duration::from_secs(30);

/// `sheave migrate back`, while it waits.
struct Back {
    process: Process,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Back {
    fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let mut command = Command::new(executable()?);
        command.args(["migrate", "back", "--timeout", "90s"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = cluster.node().spawn(command)?;
        let lines = BufReader::new(process.child().stdout.take().context("its standard output is a pipe")?).lines();
        Ok(Self { process, lines })
    }

    /// Reads until it says so.
    fn says(&mut self, text: &str) -> anyhow::Result<()> {
        for line in self.lines.by_ref() {
            if line?.contains(text) {
                return Ok(());
            }
        }
        anyhow::bail!("it ended without a word of {text:?}")
    }

    fn ends_well(mut self) -> anyhow::Result<()> {
        self.says("kube-proxy serves this node")?;
        let status = self.process.wait(PATIENCE)?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}

fn migrate_back_to_nftables_with_kube_proxy_first() -> anyhow::Result<()> {
    rollback(Mode::Nftables, true)
}

fn migrate_back_to_nftables_with_sheave_stopped_first() -> anyhow::Result<()> {
    rollback(Mode::Nftables, false)
}

fn migrate_back_to_iptables_nft() -> anyhow::Result<()> {
    rollback(Mode::IptablesNft, true)
}

fn migrate_back_to_iptables_legacy() -> anyhow::Result<()> {
    rollback(Mode::IptablesLegacy, false)
}

/// Flows that we translated go on, newcomers come through at every moment, and in the end nothing of ours is left.
fn rollback(mode: Mode, kube_proxy_first: bool) -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    let old = Traffic::start(&cluster).context("through our rules")?;
    let newcomers = traffic::newcomers(&cluster)?;
    let mut back;
    let _kube_proxy;
    if kube_proxy_first {
        _kube_proxy = KubeProxy::start(&cluster)?;
        back = Back::start(&cluster)?;
        back.says("kube-proxy has not written its rules")?;
        mode.write_rules(&cluster)?;
        back.says("`sheave run` serves this node")?;
        cluster.terminate()?;
    } else {
        cluster.terminate()?;
        back = Back::start(&cluster)?;
        back.says("no kube-proxy runs")?;
        mode.write_rules(&cluster)?;
        _kube_proxy = KubeProxy::start(&cluster)?;
    }
    back.ends_well()?;
    // The request may stay: a DaemonSet may start us again.
    ensure!(!ruleset(&cluster)?.replace(REQUEST, "").contains("sheave"), "something of ours is left");
    let new = Traffic::start(&cluster).context("through kube-proxy's rules")?;
    old.finish()?;
    new.finish()?;
    traffic::welcomed(&newcomers.stop())
}

/// A DaemonSet's pod that nobody has stopped: it stands down when it is asked, and stays down when it is restarted.
fn migrate_back_to_nftables_with_sheave_alive() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    let old = Traffic::start(&cluster).context("through our rules")?;
    let newcomers = traffic::newcomers(&cluster)?;
    Mode::Nftables.write_rules(&cluster)?;
    let kube_proxy = KubeProxy::start(&cluster)?;
    Back::start(&cluster)?.ends_well()?;
    no_rules(&cluster, true)?;
    cluster.kill()?;
    cluster.launch()?;
    cluster.await_log("this node was given back", PATIENCE)?;
    no_rules(&cluster, true)?;
    Traffic::start(&cluster).context("through kube-proxy's rules")?.finish()?;
    old.finish()?;
    traffic::welcomed(&newcomers.stop())?;
    // SIGTERM is how the kubelet restarts a container whose probe fails.
    ensure!(cluster.terminate()?.success());
    no_rules(&cluster, false)?;
    // Rules that a process in trouble left decide before kube-proxy's, and nobody maintains them.
    cluster.nft("table inet sheave { chain left { type nat hook prerouting priority -101; }; }")?;
    cluster.launch()?;
    cluster.await_log("this node was given back", PATIENCE)?;
    cluster.await_log("our rules are removed", PATIENCE)?;
    no_rules(&cluster, true)?;
    ensure!(cluster.terminate()?.success());
    // The rules of one that has ended serve, and it may be on its way back.
    drop(kube_proxy);
    cluster.launch()?;
    cluster.await_log("the rules that it left serve this node", PATIENCE)?;
    no_rules(&cluster, true)?;
    Traffic::start(&cluster).context("through the rules that kube-proxy left")?.finish()?;
    ensure!(cluster.terminate()?.success());
    // Without them somebody has to serve.
    cluster.nft("delete table ip kube-proxy; delete table ip6 kube-proxy")?;
    cluster.restart()?;
    cluster.await_log("sheave serves it again", PATIENCE)?;
    ensure!(!ruleset(&cluster)?.contains("sheave-back"), "the request means nothing any more");
    Ok(())
}

/// As kubeadm's configuration has it: `route_localnet` is on for NodePorts at 127.0.0.1, and goes back with the rules.
fn back_from_a_mode_that_serves_localhost() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&[&DETECT_PODS[..], &["--proxy-mode", "iptables"]].concat())?;
    Mode::Nftables.write_rules(&cluster)?;
    let _kube_proxy = KubeProxy::start(&cluster)?;
    let localnet = |cluster: &Cluster| cluster.node().exec("cat", &["/proc/sys/net/ipv4/conf/all/route_localnet"]);
    ensure!(localnet(&cluster)?.stdout.trim() == "1", "NodePorts are served at 127.0.0.1");
    Back::start(&cluster)?.ends_well()?;
    cluster.await_log("our rules are removed", PATIENCE)?;
    ensure!(localnet(&cluster)?.stdout.trim() == "0", "it was 0 before sheave");
    no_rules(&cluster, true)?;
    ensure!(cluster.terminate()?.success(), "it stands by until it is ended");
    Ok(())
}

/// Rules alone are a dead kube-proxy's, also to a daemon that is alive.
fn back_with_sheave_alive_and_no_kube_proxy_removes_nothing() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    Mode::Nftables.write_rules(&cluster)?;
    let before = ruleset(&cluster)?;
    let ended = cluster.sheave(&["migrate", "back", "--timeout", "5s"])?;
    ensure!(ended.status.code() == Some(1) && ended.stderr.contains("nothing was removed"), "{ended:?}");
    cluster.await_log("our servers close", PATIENCE)?;
    assert_eq!(ruleset(&cluster)?, before);
    let answers = || Ok(cluster.node().run(|| TcpStream::connect(("127.0.0.1", 10256)).map(drop))??);
    eventually(answers).context("the servers are open again")?;
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some());
    Ok(())
}

/// A kube-proxy whose process is out of sight cannot have its ports before sheave lets them go.
fn back_to_a_kube_proxy_that_waits_for_its_ports() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    Mode::Nftables.write_rules(&cluster)?;
    let mut back = Back::start(&cluster)?;
    back.says("`sheave run` serves this node")?;
    cluster.await_log("our servers close", PATIENCE)?;
    let mut listener = None;
    eventually(|| {
        listener = Some(cluster.node().run(|| TcpListener::bind(("0.0.0.0", 10256)))??);
        Ok(())
    })?;
    back.ends_well()?;
    no_rules(&cluster, true)
}

/// Nothing of ours is left but the request, and the sign of a daemon that stands by.
fn no_rules(cluster: &Cluster, stands_by: bool) -> anyhow::Result<()> {
    let left = ruleset(cluster)?;
    ensure!(left.contains(REQUEST), "{left}");
    let tables: Vec<&str> = left.lines().filter(|line| line.starts_with("table inet sheave")).collect();
    let signs = tables.iter().filter(|table| table.starts_with("table inet sheave-stand-by ")).count();
    ensure!(signs == usize::from(stands_by) && tables.len() == 1 + signs, "{left}");
    Ok(())
}

/// Who stands by says so wherever somebody looks, keeps others waiting, leaves rules of a dead kube-proxy alone, and serves again when
/// nobody does.
fn back_for_a_while() -> anyhow::Result<()> {
    const HEALTHZ: u16 = 20_256;
    let mut cluster = traffic::cluster()?;
    cluster.start(&[&DETECT_PODS[..], &["--healthz-bind-address", &format!("0.0.0.0:{HEALTHZ}")]].concat())?;
    Mode::Nftables.write_rules(&cluster)?;
    let kube_proxy = KubeProxy::start(&cluster)?;
    Back::start(&cluster)?.ends_well()?;
    cluster.await_log("standing by: this node was given back to kube-proxy", PATIENCE)?;
    let health = || crate::health::body(&cluster, HEALTHZ, "/healthz");
    eventually(|| {
        let health = health()?;
        ensure!(health.contains("standing by: this node was given back") && health.contains("\"healthy\":false"), "{health}");
        Ok(())
    })?;
    let check = || cluster.sheave(&["migrate", "check"]);
    let told = check()?.stdout;
    ensure!(told.contains("sheave: stands by") && told.contains("`sheave cleanup`") && told.contains("serves again"), "{told}");

    let mut second = Command::new(executable()?);
    let manifests = format!("manifests={}", cluster.manifests().display());
    second.args(["run", "--node-name", "test-node", "--source", &manifests]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut second = cluster.node().spawn(second)?;
    let mut lines = BufReader::new(second.child().stderr.take().context("its standard error is a pipe")?).lines();
    let waits = lines.any(|line| line.is_ok_and(|line| line.contains("stands by on this node")));
    ensure!(waits, "a second daemon does not wait");
    drop(second);

    drop(kube_proxy);
    cluster.await_log("the rules that it left serve this node", PATIENCE)?;
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some(), "through kube-proxy's rules");
    no_rules(&cluster, true)?;
    cluster.nft("delete table ip kube-proxy; delete table ip6 kube-proxy")?;
    cluster.await_log("sheave serves it again", PATIENCE)?;
    eventually(|| {
        ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some(), "through ours");
        Ok(())
    })?;
    ensure!(!ruleset(&cluster)?.contains("sheave-back"), "the request means nothing any more");
    let told = check()?.stdout;
    ensure!(told.contains("sheave: runs") && !told.contains("stands by"), "{told}");
    Ok(())
}

fn back_without_kube_proxy_removes_nothing() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    // Rules alone are a dead kube-proxy's.
    Mode::Nftables.write_rules(&cluster)?;
    cluster.start(&DETECT_PODS)?;
    cluster.terminate()?;
    let before = ruleset(&cluster)?;
    let ended = cluster.sheave(&["migrate", "back", "--timeout", "1s"])?;
    ensure!(ended.status.code() == Some(1), "{ended:?}");
    ensure!(ended.stderr.contains("nothing was removed") && ended.stderr.contains("no kube-proxy runs"), "{ended:?}");
    assert_eq!(ruleset(&cluster)?, before);
    Ok(())
}

/// As kube-proxy tells it: before its first sync, and after it.
const NOTHING_PROGRAMMED: &str = "kubernetes_build_info{git_version=\"v1.36.2\"} 1\n";
const PROGRAMMED: &str = "kubernetes_build_info{git_version=\"v1.36.2\"} 1\n\
     kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv4\"} 1.7637e+09\n\
     kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 1.7638e+09\n\
     kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"} 1.7638e+09\n\
     rest_client_requests_total{code=\"200\",host=\"10.0.0.1:6443\",method=\"GET\"} 12\n";

/// What a stopped sheave left, beside a kube-proxy whose rules lack one ClusterIP.
fn beside_one_that_lacks_a_cluster_ip(
    start: impl FnOnce(&Cluster) -> anyhow::Result<KubeProxy>,
) -> anyhow::Result<(Cluster, KubeProxy)> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    cluster.terminate()?;
    let kube_proxy = start(&cluster)?;
    Mode::Nftables.write_rules(&cluster)?;
    cluster.nft("delete element ip6 kube-proxy cluster-ips { fd00:172:30::99 }")?;
    Ok((cluster, kube_proxy))
}

fn back_waits_for_every_cluster_ip() -> anyhow::Result<()> {
    let (cluster, _kube_proxy) = beside_one_that_lacks_a_cluster_ip(KubeProxy::start)?;
    let mut back = Back::start(&cluster)?;
    back.says("lack 1 ClusterIPs that sheave's have: fd00:172:30::99")?;
    cluster.nft("add element ip6 kube-proxy cluster-ips { fd00:172:30::99 }")?;
    back.ends_well()
}

/// kube-proxy knows every ClusterIP, and no endpoint of one of them.
fn back_waits_for_endpoints() -> anyhow::Result<()> {
    back_waits_until(
        "add rule ip6 kube-proxy service-4P6NPVPV-ns/decoy/tcp/tcp-80 \
         meta l4proto tcp dnat ip6 to numgen random mod 1 map { 0 : fd00:10:180::9 . 80 }",
    )
}

/// As kube-proxy writes a Service with session affinity, and every Service in some of its releases.
fn back_waits_for_endpoints_with_chains_of_their_own() -> anyhow::Result<()> {
    back_waits_until(
        "table ip6 kube-proxy {
            set affinity-4P6NPVPV-9 { type ipv6_addr; flags dynamic,timeout; timeout 3h; }
            chain endpoint-4P6NPVPV-9 {
                ip6 saddr fd00:10:180::9 jump mark-for-masquerade
                update @affinity-4P6NPVPV-9 { ip6 saddr }
                meta l4proto tcp dnat ip6 to [fd00:10:180::9]:80
            }
            chain service-4P6NPVPV-ns/decoy/tcp/tcp-80 {
                ip6 saddr @affinity-4P6NPVPV-9 goto endpoint-4P6NPVPV-9
                numgen random mod 1 vmap { 0 : goto endpoint-4P6NPVPV-9 }
            }
        }",
    )?;
    back_waits_until(
        "table ip6 kube-proxy {
            chain endpoint-4P6NPVPV-9 { meta l4proto tcp dnat ip6 to [fd00:10:180::9]:80; }
            chain service-4P6NPVPV-ns/decoy/tcp/tcp-80 { numgen random mod 1 vmap { 0 : goto endpoint-4P6NPVPV-9 }; }
        }",
    )
}

fn back_waits_until(endpoint: &str) -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    cluster.terminate()?;
    let _kube_proxy = KubeProxy::start(&cluster)?;
    Mode::Nftables.write_rules(&cluster)?;
    cluster.nft("flush chain ip6 kube-proxy service-4P6NPVPV-ns/decoy/tcp/tcp-80")?;
    let mut back = Back::start(&cluster)?;
    back.says("no endpoint for 2 frontends that sheave's have some for: [fd00:172:30::99]:80/TCP, NodePort 30099 of IPv6/TCP")?;
    cluster.nft(endpoint)?;
    back.ends_well()
}

/// From sheave's image, in which there is no iptables.
fn back_to_iptables_legacy_needs_no_tool_of_its_own() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    cluster.terminate()?;
    let _kube_proxy = KubeProxy::start(&cluster)?;
    Mode::IptablesLegacy.write_rules(&cluster)?;
    let program = executable()?;
    let ended =
        cluster.node().exec("env", &["PATH=/nowhere", &program.to_string_lossy(), "migrate", "back", "--timeout", "20s"])?;
    ensure!(ended.status.success() && ended.stdout.contains("kube-proxy serves this node"), "{ended:?}");
    ensure!(cluster.pod.tcp("172.30.0.41:80")?.by().is_some(), "through kube-proxy's rules");
    Ok(())
}

/// A kube-proxy that cannot be asked, or has not listed the Services yet: its rules are last week's, and ours the only ones that work.
fn back_to_rules_that_nobody_vouches_for_removes_nothing() -> anyhow::Result<()> {
    let (cluster, kube_proxy) = beside_one_that_lacks_a_cluster_ip(KubeProxy::start)?;
    let before = ruleset(&cluster)?;
    let stays = |why: &str| -> anyhow::Result<()> {
        let ended = cluster.sheave(&["migrate", "back", "--timeout", "70s"])?;
        ensure!(ended.status.code() == Some(1) && ended.stderr.contains("nothing was removed"), "{ended:?}");
        ensure!(ended.stderr.contains("fd00:172:30::99") && ended.stderr.contains(why), "{ended:?}");
        ensure!(ended.stderr.contains("`sheave cleanup`"), "it does not say what to do: {ended:?}");
        assert_eq!(ruleset(&cluster)?, before);
        Ok(())
    };
    stays("127.0.0.1:10249/metrics: no answer")?;
    drop(kube_proxy);
    let _kube_proxy = KubeProxy::telling(&cluster, NOTHING_PROGRAMMED)?;
    stays("has not programmed yet")
}

/// All frontends are in its rules, and it has not looked at the API server since it was started: its endpoints may be gone.
fn back_waits_until_kube_proxy_has_programmed_something() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    cluster.start(&DETECT_PODS)?;
    cluster.terminate()?;
    Mode::Nftables.write_rules(&cluster)?;
    let kube_proxy = KubeProxy::telling(&cluster, NOTHING_PROGRAMMED)?;
    let mut back = Back::start(&cluster)?;
    back.says("kube-proxy has not programmed yet")?;
    drop(kube_proxy);
    let _kube_proxy = KubeProxy::telling(&cluster, PROGRAMMED)?;
    back.ends_well()
}

/// A Service that was deleted while sheave was stopped.
fn back_does_not_wait_for_what_a_stopped_sheave_left() -> anyhow::Result<()> {
    let (cluster, _kube_proxy) = beside_one_that_lacks_a_cluster_ip(|cluster| KubeProxy::telling(cluster, PROGRAMMED))?;
    let mut back = Back::start(&cluster)?;
    back.says("1 ClusterIPs are in those alone that a stopped sheave left: fd00:172:30::99")?;
    back.ends_well()
}

fn back_where_nothing_is_ours_is_done() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    let ended = cluster.sheave(&["migrate", "back", "--timeout", "0s"])?;
    ensure!(ended.status.success() && ended.stdout.contains("nothing of sheave"), "{ended:?}");
    Ok(())
}
