//! What `sheave migrate check` says, and how it ends.

use super::replica::{KubeProxy, Mode, namesake, ruleset, run};
use crate::{
    disruption::traffic,
    fixture::{Cluster, DETECT_PODS},
};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use sheave_tests::{scenario::Scenario, scenarios, world::executable};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("migrate":
        check_of_a_clean_node_ends_with_0 needs ["nftables", "tool:nft"];
        check_names_what_kube_proxy_has needs ["nftables", "tool:nft", "tool:iptables-nft-restore", "tool:iptables-legacy-restore", "tool:ipset"];
        check_names_what_others_have needs ["nftables", "tool:nft", "tool:iptables-nft"];
        check_says_what_it_cannot_read needs ["nftables", "tool:iptables-legacy"];
        check_says_that_it_cannot_be_told needs ["nftables", "tool:nft", "tool:unshare"];
        check_passes_by_a_kube_proxy_of_another_network needs ["nftables", "tool:setpriv"];
        check_without_permission_ends_with_3 needs ["nftables", "tool:setpriv"];
    )
    .to_vec()
}

/// The kind of a finding, and its severity.
type Finding = (String, String);

/// The report, its findings in short, and the exit code.
fn check(cluster: &Cluster) -> anyhow::Result<(Value, Vec<Finding>, Option<i32>)> {
    let before = ruleset(cluster)?;
    let done = cluster.sheave(&["migrate", "check", "-o", "json"])?;
    assert_eq!(ruleset(cluster)?, before, "it changes nothing");
    let report: Value = serde_json::from_str(&done.stdout).with_context(|| format!("{done:?}"))?;
    let word = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().context("findings")?;
    let findings = findings.iter().map(|finding| (word(finding, "kind"), word(finding, "severity"))).collect();
    Ok((report, findings, done.status.code()))
}

fn is(kind: &str, severity: &str) -> Finding {
    (kind.to_owned(), severity.to_owned())
}

fn check_of_a_clean_node_ends_with_0() -> anyhow::Result<()> {
    let mut cluster = traffic::cluster()?;
    let (report, findings, code) = check(&cluster)?;
    ensure!(findings.is_empty() && code == Some(0), "{report}");
    // Our own rules are nothing to find, and our own daemon is no kube-proxy.
    cluster.start(&DETECT_PODS)?;
    let (report, findings, code) = check(&cluster)?;
    ensure!(findings.is_empty() && code == Some(0) && report["sheaveRuns"] == true, "{report}");
    let text = cluster.sheave(&["migrate", "check"])?;
    ensure!(text.stdout.contains("nothing is in the way"), "{text:?}");
    Ok(())
}

fn check_names_what_kube_proxy_has() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    for mode in [Mode::Nftables, Mode::IptablesNft, Mode::IptablesLegacy] {
        mode.write_rules(&cluster)?;
    }
    run(&cluster, "ipset", &["create", "KUBE-CLUSTER-IP", "hash:ip,port"])?;
    let (report, findings, code) = check(&cluster)?;
    assert_eq!(findings, [is("invalidNoLongerDropped", "manual"), is("leftOver", "adopt")]);
    ensure!(code == Some(1), "{code:?}");
    let found: Vec<String> = report["found"]
        .as_array()
        .context("found")?
        .iter()
        .map(|item| format!("{} {}", item["kind"].as_str().unwrap_or_default(), item["name"].as_str().unwrap_or_default()))
        .collect();
    for expected in [
        "nftables table ip kube-proxy",
        "nftables table ip6 kube-proxy",
        "iptables-nft ip nat",
        "iptables-nft ip6 filter",
        "iptables-legacy ip nat",
        "iptables-legacy ip6 mangle",
        "ipset KUBE-CLUSTER-IP",
    ] {
        ensure!(found.iter().any(|item| item == expected), "{expected} is not in {found:?}");
    }
    // A packet that is out of its window is valid on such a node, so nothing is lost with kube-proxy's rule.
    cluster.node().sysctl("net.netfilter.nf_conntrack_tcp_be_liberal", "1")?;
    let _kube_proxy = KubeProxy::start(&cluster)?;
    let (report, findings, code) = check(&cluster)?;
    assert_eq!(findings, [is("kubeProxyRuns", "manual")]);
    ensure!(code == Some(1) && report["running"][0].as_str().is_some_and(|sign| sign.contains("process")), "{report}");
    Ok(())
}

fn check_names_what_others_have() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    let iptables = |line: &str| run(&cluster, "iptables-nft", &line.split(' ').collect::<Vec<_>>());
    iptables("-P FORWARD DROP")?;
    iptables("-t nat -A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE")?;
    cluster.nft("table ip early { chain c { type nat hook prerouting priority -150; tcp dport 9 dnat to 192.0.2.1; }; }")?;
    let (report, findings, code) = check(&cluster)?;
    assert_eq!(findings, [is("forwardPolicyDrop", "manual"), is("earlierNat", "note"), is("foreignMasquerade", "note")]);
    ensure!(code == Some(1), "{code:?}");
    let text = |at: usize| report["findings"][at]["text"].as_str().unwrap_or_default();
    ensure!(
        text(0).contains("ip filter FORWARD") && text(1).contains("ip early c") && text(2).contains("ip nat POSTROUTING"),
        "{report}"
    );
    // One that accepts everything drops nothing.
    iptables("-A FORWARD -j ACCEPT")?;
    let (report, findings, code) = check(&cluster)?;
    ensure!(findings.iter().all(|(_, severity)| severity == "note") && code == Some(0), "{report}");
    Ok(())
}

/// A container without iptables-legacy, on a node that has its tables.
fn check_says_what_it_cannot_read() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    let program = executable()?;
    let bare = ["PATH=/nowhere", &program.to_string_lossy(), "migrate", "check"];
    // Somebody else's chains are nothing to speak of.
    run(&cluster, "iptables-legacy", &["-t", "filter", "-N", "DOCKER"])?;
    let done = cluster.node().exec("env", &bare)?;
    ensure!(done.status.success(), "{done:?}");
    run(&cluster, "iptables-legacy", &["-t", "nat", "-N", "KUBE-SERVICES"])?;
    let done = cluster.node().exec("env", &bare)?;
    ensure!(done.status.code() == Some(1), "{done:?}");
    let named = ["table ip nat of iptables-legacy", "iptables-legacy-save is not installed", "kube-proxy --cleanup"];
    ensure!(named.iter().all(|words| done.stdout.contains(words)), "{done:?}");
    Ok(())
}

/// A container without the host's process namespace.
fn check_says_that_it_cannot_be_told() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    Mode::Nftables.write_rules(&cluster)?;
    let program = executable()?;
    let program = program.to_string_lossy();
    let contained = || cluster.node().exec("unshare", &["--pid", "--fork", "--mount-proc", &program, "migrate", "check"]);
    let done = contained()?;
    ensure!(done.stdout.contains("kube-proxy: cannot be told: this is a PID namespace of its own"), "{done:?}");
    ensure!(done.stdout.contains("whether it runs cannot be told") && done.status.code() == Some(1), "{done:?}");
    let _kube_proxy = KubeProxy::start(&cluster)?;
    let done = contained()?;
    ensure!(done.stdout.contains("kube-proxy: runs (a listener on port 10249"), "{done:?}");
    Ok(())
}

/// As the DaemonSet confines it, which may trace nobody: anybody's pod may call a process kube-proxy.
fn check_passes_by_a_kube_proxy_of_another_network() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    let program = executable()?;
    let confined = ["--bounding-set", "-all,+net_admin", "--no-new-privs", &*program.to_string_lossy(), "migrate", "check"];
    let (process, _program) = namesake(cluster.client())?;
    let done = cluster.node().exec("setpriv", &confined)?;
    ensure!(done.status.success(), "it is nobody here: {done:?}");
    drop(process);
    let (process, _program) = namesake(cluster.node())?;
    let done = cluster.node().exec("setpriv", &confined)?;
    let named = format!("kube-proxy: runs (process {}", process.id());
    ensure!(done.status.code() == Some(1) && done.stdout.contains(&named), "{done:?}");
    Ok(())
}

fn check_without_permission_ends_with_3() -> anyhow::Result<()> {
    let cluster = traffic::cluster()?;
    let program = executable()?;
    let program = program.to_string_lossy();
    for arguments in [&["migrate", "check"][..], &["migrate", "back"]] {
        let dropped = [&["--bounding-set", "-net_admin", &*program][..], arguments].concat();
        let ended = cluster.node().exec("setpriv", &dropped)?;
        ensure!(ended.status.code() == Some(3) && ended.stderr.contains("CAP_NET_ADMIN"), "{arguments:?}: {ended:?}");
    }
    Ok(())
}
