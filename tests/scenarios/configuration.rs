//! kube-proxy's configuration, as files and as flags: what packets see of it, and what becomes of a change.

mod config_map;

use self::config_map::ConfigMap;
use crate::{
    disruption::traffic::{self, Traffic},
    fixture::{Checks, Cluster, Endpoint, Expect, Family, Lane, Pods, Service, TCP_UDP, eventually, in_lanes},
};
use anyhow::{Context as _, ensure};
use sheave_lab::{Finished, Host, Request};
use sheave_tests::{scenario::Scenario, scenarios, world::executable};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = in_lanes!("configuration":
        the_config_map_of_kubeadm_runs_unchanged;
        node_ports_at_localhost;
    );
    scenarios.extend(scenarios!("configuration":
        a_neighbour_does_not_reach_loopback needs ["nftables"];
        route_localnet_is_given_back_after_a_restart needs ["nftables"];
        a_changed_file_is_taken_over_and_no_flow_notices needs ["nftables"];
        changes_wait_for_the_least_time_between_commits needs ["nftables"];
        kernel_settings_are_made needs ["nftables"];
        init_only_fails_with_a_read_only_proc_sys needs ["nftables", "tool:unshare"];
        flags_of_kube_proxy_are_known needs ["nftables"];
        a_file_is_checked;
    ));
    scenarios
}

/// As kubeadm 1.36 writes it, with the addresses of the lab's pods.
const KUBEADM: &str = include_str!("../fixtures/kubeadm-config.conf");
/// How soon a line has to be in the log.
const SOON: Duration = Duration::from_secs(20);
const NODE_PORT: u16 = 30_001;

/// A KubeProxyConfiguration that knows the lab's pods, with further fields.
fn document(fields: &str) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8,fd00:10::/32\n{fields}\n"
    )
}

fn web() -> Service {
    Service::new("svc1", "172.30.0.41").port(80).node_port(NODE_PORT).endpoint(Endpoint::local("10.180.0.1"))
}

/// A cluster whose daemon has this configuration; its node answers on the NodePort's number, at loopback too.
fn cluster(map: &ConfigMap, lanes: &[Lane]) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::new(Pods::Routed)?;
    for loopback in ["127.0.0.1/8", "::1/128"] {
        cluster.node().add_address("lo", loopback)?;
    }
    serve_on(cluster.node(), lanes)?;
    cluster.start(&["--config", map.path()])?;
    Ok(cluster)
}

fn serve_on(host: &Host, lanes: &[Lane]) -> anyhow::Result<()> {
    let mut ports: Vec<_> = lanes.iter().map(|lane| lane.port(NODE_PORT)).collect();
    ports.dedup();
    Ok(host.serve(&ports)?)
}

fn loopback(lane: Lane) -> IpAddr {
    match lane.family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Asks the node's own loopback address from the node.
fn ask_localhost(checks: &mut Checks, cluster: &Cluster, lane: Lane, expect: Expect) {
    let request = Request::to(lane.port(NODE_PORT), loopback(lane));
    checks.add(format!("{lane}: node -> {}", loopback(lane)), cluster.node(), request, expect);
}

/// kube-proxy's defaults, which are those of iptables mode: NodePorts at every address of the node, and at 127.0.0.1.
fn the_config_map_of_kubeadm_runs_unchanged(lanes: &[Lane]) -> anyhow::Result<()> {
    let map = ConfigMap::new(KUBEADM)?;
    let cluster = cluster(&map, lanes)?;
    cluster.await_log("mode \"\" is served by the nftables plane", SOON)?;
    cluster.services(&[&web()])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), Expect::by(&["local"]).kept());
        checks.ask(lane, cluster.client(), ("172.30.0.41", 80), Expect::by(&["local"]).masqueraded());
        for address in ["192.168.0.2", "192.168.1.2"] {
            checks.ask(lane, cluster.client(), (address, NODE_PORT), Expect::by(&["local"]).masqueraded());
        }
        let at_loopback = if lane.family == Family::V4 { "local" } else { "test-node" };
        ask_localhost(&mut checks, &cluster, lane, Expect::by(&[at_loopback]));
    }
    checks.run()
}

/// A process of the node reaches backends here and elsewhere at 127.0.0.1, where iptables mode served it; refused and dropped as at any
/// other address; and nothing of the kind in IPv6 or another mode.
fn node_ports_at_localhost(lanes: &[Lane]) -> anyhow::Result<()> {
    for (fields, served) in [
        ("mode: iptables", true),
        ("mode: iptables\nnodePortAddresses: [127.0.0.0/8, 192.168.0.0/24]", true),
        ("mode: iptables\niptables: {localhostNodePorts: false}", false),
        ("mode: iptables\nnodePortAddresses: [192.168.0.0/24]", false),
        ("mode: ipvs", false),
        ("mode: nftables\nnodePortAddresses: [127.0.0.0/8, 0.0.0.0/0]", false),
    ] {
        let map = ConfigMap::new(&document(fields))?;
        let cluster = cluster(&map, lanes)?;
        let served = |lane: Lane| served && lane.family == Family::V4;
        let everywhere = web().endpoint(Endpoint::remote("10.180.2.1"));
        for (service, names) in [(everywhere, &["local", "remote"][..]), (web().external_local(), &["local"])] {
            cluster.services(&[&service])?;
            let mut checks = Checks::default();
            for &lane in lanes {
                let expect = if served(lane) { Expect::by(names).masqueraded() } else { Expect::by(&["test-node"]) };
                ask_localhost(&mut checks, &cluster, lane, expect);
            }
            checks.run().context(fields)?;
        }
        cluster.services(&[&web().with_endpoints([])])?;
        let mut checks = Checks::default();
        for &lane in lanes.iter().filter(|lane| served(**lane)) {
            ask_localhost(&mut checks, &cluster, lane, Expect::Refused);
        }
        checks.run().context(fields)?;
    }
    Ok(())
}

/// With `route_localnet` the kernel would take a packet for 127.0.0.1 from anywhere (CVE-2020-8558). That it would is shown where the
/// guard is missing; not over SCTP, whose sockets take no peer from elsewhere at a loopback address (RFC 4960 has scopes).
fn a_neighbour_does_not_reach_loopback() -> anyhow::Result<()> {
    let lanes = &TCP_UDP;
    for (mode, expect) in [("iptables", Expect::Dropped), ("nftables", Expect::by(&["test-node"]))] {
        let map = ConfigMap::new(&document(&format!("mode: {mode}")))?;
        let cluster = cluster(&map, lanes)?;
        cluster.services(&[&web()])?;
        if mode == "nftables" {
            cluster.node().sysctl("net.ipv4.conf.all.route_localnet", "1")?;
        }
        let neighbour = cluster.lan_host("neighbour", "192.168.0.9", None)?;
        neighbour.sysctl("net.ipv4.conf.all.route_localnet", "1")?;
        // Its own loopback is out of the way.
        neighbour.del_address("lo", "127.0.0.1/8")?;
        neighbour.add_route("127.0.0.1/32", Some("192.168.0.2"), "eth0")?;
        let mut checks = Checks::default();
        for &lane in lanes.iter().filter(|lane| lane.family == Family::V4) {
            let request = Request::to(lane.port(NODE_PORT), loopback(lane)).from_address(neighbour.ipv4().into());
            checks.add(format!("{lane}, mode {mode}: neighbour -> 127.0.0.1"), &neighbour, request, expect.clone());
        }
        checks.run()?;
    }
    Ok(())
}

/// A restart does not forget that the setting was off, and who removes the rules sets it back.
fn route_localnet_is_given_back_after_a_restart() -> anyhow::Result<()> {
    let map = ConfigMap::new(&document("mode: iptables"))?;
    let mut cluster = cluster(&map, &TCP_UDP)?;
    let value = |cluster: &Cluster| -> anyhow::Result<String> {
        let read = cluster.node().exec("cat", &["/proc/sys/net/ipv4/conf/all/route_localnet"])?;
        Ok(read.stdout.trim().to_owned())
    };
    cluster.services(&[&web()])?;
    eventually(|| {
        ensure!(value(&cluster)? == "1", "NodePorts are served at 127.0.0.1");
        Ok(())
    })?;
    // Who flushes everything takes the memory as well, and it is written again.
    cluster.nft("flush ruleset")?;
    eventually(|| {
        ensure!(cluster.nft("list tables")?.contains("table inet sheave-localnet\n"), "not remembered");
        Ok(())
    })?;
    cluster.kill()?;
    cluster.restart()?;
    ensure!(value(&cluster)? == "1");
    ensure!(cluster.terminate()?.success());
    ensure!(value(&cluster)? == "1", "the rules stay, and so does what they need");
    let dry = cluster.sheave(&["cleanup", "--dry-run"])?.stdout;
    for would in
        ["set to 0: net.ipv4.conf.all.route_localnet", "remove: table inet sheave\n", "remove: table inet sheave-localnet"]
    {
        ensure!(dry.contains(&format!("would {would}")), "{would}: {dry}");
    }
    ensure!(cluster.sheave(&["cleanup"])?.status.success());
    ensure!(value(&cluster)? == "0", "it was 0 before sheave");
    ensure!(!cluster.nft("list tables")?.contains("sheave"), "something is left");
    Ok(())
}

fn a_changed_file_is_taken_over_and_no_flow_notices() -> anyhow::Result<()> {
    let map = ConfigMap::new(&document("mode: nftables"))?;
    let mut cluster = traffic::cluster()?;
    cluster.start(&["--config", map.path()])?;
    let process = cluster.daemon_id();
    let traffic = Traffic::start(&cluster)?;
    let newcomers = traffic::newcomers(&cluster)?;
    let other_address = format!("192.168.1.2:{}", traffic::NODE_PORT);
    let served = |wanted: bool| {
        eventually(|| {
            let outcome = cluster.client().tcp(&other_address)?;
            ensure!(outcome.by().is_some() == wanted, "{other_address}: {outcome}");
            Ok(())
        })
    };
    served(false)?;

    map.replace(&document("mode: nftables\nnodePortAddresses: [0.0.0.0/0, '::/0']"))?;
    cluster.await_log("the configuration has changed: taken over", SOON)?;
    served(true)?;

    map.replace(&document("mode: nftables\nnodePortAddresses: [everywhere]"))?;
    let line = cluster.await_log("cannot be used, what was in force stays", SOON)?;
    ensure!(line.contains("KubeProxyConfiguration.nodePortAddresses[0]: Invalid value: \"everywhere\""), "{line}");
    served(true)?;

    // Another address of a server: from the beginning, and with what else has changed.
    map.replace(&document("mode: nftables\nmetricsBindAddress: 127.0.0.1:20249"))?;
    cluster.await_log("starting again with it", SOON)?;
    cluster.await_log("sheave starts", SOON)?;
    served(false)?;
    // It is watched on, and so are the objects.
    map.replace(&document("mode: nftables\nmetricsBindAddress: 127.0.0.1:20249\nnodePortAddresses: [0.0.0.0/0]"))?;
    served(true)?;
    let late = Service::new("late", "172.30.0.77").port(80).endpoint(Endpoint::remote("10.180.2.1"));
    cluster.objects("late.yaml", late.documents())?;
    ensure!(cluster.pod.tcp("172.30.0.77:80")?.by() == Some("remote"));
    ensure!(cluster.daemon_id() == process && cluster.count_log("sheave starts") == 2);
    traffic.finish()?;
    traffic::welcomed(&newcomers.stop())
}

fn changes_wait_for_the_least_time_between_commits() -> anyhow::Result<()> {
    let slow = "mode: nftables\nnftables: {minSyncPeriod: 1h, syncPeriod: 2h}";
    let map = ConfigMap::new(&document(slow))?;
    let mut cluster = Cluster::new(Pods::Routed)?;
    cluster.prepare(&[&web()])?;
    cluster.start(&["--config", map.path(), "--log", "debug"])?;
    let by = || Ok::<_, anyhow::Error>(cluster.pod.tcp("172.30.0.41:80")?.by().map(ToOwned::to_owned));
    ensure!(by()?.as_deref() == Some("local"), "the first load waits for nothing");
    cluster.prepare(&[&web().with_endpoints([Endpoint::remote("10.180.2.1")])])?;
    cluster.await_log("changes wait for minSyncPeriod", SOON)?;
    ensure!(by()?.as_deref() == Some("local"));
    map.replace(&document("mode: nftables\nnftables: {minSyncPeriod: 1s}"))?;
    cluster.await_sync()?;
    ensure!(by()?.as_deref() == Some("remote"));
    Ok(())
}

fn kernel_settings_are_made() -> anyhow::Result<()> {
    let setting = "conntrack: {tcpCloseWaitTimeout: 77s, tcpEstablishedTimeout: 7000s, udpTimeout: 7s, tcpBeLiberal: true}";
    let map = ConfigMap::new(&document(&format!("mode: nftables\n{setting}")))?;
    let mut cluster = Cluster::new(Pods::Routed)?;
    cluster.start(&["--config", map.path()])?;
    let value = |name: &str| -> anyhow::Result<String> {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        Ok(cluster.node().exec("cat", &[&path])?.stdout.trim().to_owned())
    };
    for (name, wanted) in
        [("tcp_timeout_close_wait", "77"), ("tcp_timeout_established", "7000"), ("udp_timeout", "7"), ("tcp_be_liberal", "1")]
    {
        ensure!(value(name)? == wanted, "nf_conntrack_{name} is {}", value(name)?);
    }
    map.replace(&document("mode: nftables\nconntrack: {tcpCloseWaitTimeout: 78s}"))?;
    eventually(|| {
        ensure!(value("tcp_timeout_close_wait")? == "78");
        Ok(())
    })
}

fn init_only_fails_with_a_read_only_proc_sys() -> anyhow::Result<()> {
    let script = "mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec \"$0\" run --init-only \
                  --conntrack-max-per-core 0 --conntrack-udp-timeout 77s";
    let cluster = Cluster::new(Pods::Routed)?;
    let program = executable()?;
    let done = cluster.node().exec("unshare", &["--mount", "sh", "-c", script, &program.to_string_lossy()])?;
    ensure!(done.status.code() == Some(1), "{done:?}");
    ensure!(done.stderr.contains("net.netfilter.nf_conntrack_udp_timeout cannot be set to 77"), "{}", done.stderr);
    Ok(())
}

/// Flags that kube-proxy's DaemonSets carry are taken, one by one and beside a file.
fn flags_of_kube_proxy_are_known() -> anyhow::Result<()> {
    let cluster = Cluster::new(Pods::Routed)?;
    let run = |arguments: &[&str]| cluster.sheave(&[&["run", "--init-only"], arguments].concat());
    let flags = [
        "--hostname-override=n",
        "--v=2",
        "--proxy-mode=iptables",
        "--cluster-cidr=10.0.0.0/8",
        "--masquerade-all=true",
        "--kubeconfig=/var/lib/kube-proxy/kubeconfig",
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=1h",
        "--iptables-min-sync-period=5s",
        "--iptables-masquerade-bit=14",
        "--ipvs-scheduler=rr",
        "--ipvs-strict-arp",
        "--oom-score-adj=-998",
        "--healthz-bind-address=0.0.0.0:10256",
        "--metrics-bind-address=127.0.0.1:10249",
        "--healthz-port=0",
        "--nodeport-addresses=192.168.0.0/16,fd00::/8",
        "--detect-local-mode=ClusterCIDR",
        "--feature-gates=AllowServiceExternalIPs=false,Other=true",
        "--profiling=false",
        "--master=https://10.0.0.1:6443",
        "--logging-format=json",
        "--log-flush-frequency=5s",
    ];
    ends_with(&run(&flags)?, 0)?;
    // The size of the connection table is not this namespace's to set.
    let map = ConfigMap::new(&document("mode: nftables\nconntrack: {maxPerCore: 0}"))?;
    let done = run(&[&["--config", map.path()], &flags[..]].concat())?;
    ends_with(&done, 0)?;
    let named = "ignored beside --config, as by kube-proxy: --kubeconfig, --cluster-cidr,";
    ensure!(done.stderr.contains(named) && !done.stderr.contains("--hostname-override"), "{}", done.stderr);
    ensure!(done.stderr.starts_with('{'), "--logging-format counts beside a file: {}", done.stderr);
    ends_with(&run(&["--conntrack-min=-1"])?, 2)?;
    let done = run(&["--metrics-port=0"])?;
    ends_with(&done, 2)?;
    ensure!(done.stderr.contains("--metrics-bind-address: Invalid value: \"\": must be IP:port"), "{}", done.stderr);
    Ok(())
}

fn a_file_is_checked() -> anyhow::Result<()> {
    let plain = sheave_lab::Namespace::new("plain")?;
    let program = executable()?;
    let sheave = |arguments: &[&str]| plain.exec(&program.to_string_lossy(), arguments);
    let done = sheave(&["config", "default"])?;
    ends_with(&done, 0)?;
    let map = ConfigMap::new(&done.stdout)?;
    let done = sheave(&["config", "check", map.path()])?;
    ends_with(&done, 0)?;
    ensure!(done.stdout.contains("everything is as it is by default"), "{}", done.stdout);
    map.replace(&document("conntrack: {min: -1, mni: 1}\nmode: userspace"))?;
    let done = sheave(&["config", "check", map.path()])?;
    ends_with(&done, 1)?;
    ensure!(
        done.stdout
            .contains("error: KubeProxyConfiguration.conntrack.min: Invalid value: -1: must be greater than or equal to 0")
    );
    ensure!(done.stdout.contains("error: KubeProxyConfiguration.mode: Unsupported value: \"userspace\""));
    let elsewhere = tempfile::tempdir()?;
    let path = elsewhere.path().join("file");
    let check = |content: &[u8]| -> anyhow::Result<Finished> {
        std::fs::write(&path, content)?;
        Ok(sheave(&["config", "check", &path.to_string_lossy()])?)
    };
    for (content, code, word) in [
        (document("mode: nftables").as_bytes(), 0, "otherwise than by default:"),
        (document("mode: nftables\nportRange: 1-2\nmni: 1").as_bytes(), 0, "warning: KubeProxyConfiguration.portRange"),
        (document("conntrack: 5\nbindAddress: here").as_bytes(), 1, "error: KubeProxyConfiguration.bindAddress"),
        (b"", 1, "error: document 1: Required value: there is none"),
        (b"a: [", 1, "not YAML at line 1"),
        (b"\xff\xfe", 1, "is not text in UTF-8"),
        (&vec![b'#'; 10 << 20], 1, "is larger than any configuration (4 MiB)"),
    ] {
        let done = check(content)?;
        ends_with(&done, code)?;
        ensure!(format!("{}{}", done.stdout, done.stderr).contains(word), "{word}: {done:?}");
    }
    for nothing in ["/nowhere", &elsewhere.path().to_string_lossy()] {
        ends_with(&sheave(&["config", "check", nothing])?, 2)?;
    }
    let done = sheave(&["run", "--config", map.path(), "--source", "manifests=/tmp"])?;
    ends_with(&done, 2)?;
    ensure!(done.stderr.contains("KubeProxyConfiguration.conntrack.min: Invalid value: -1"), "{}", done.stderr);
    a_refused_file_is_an_object_where_the_log_is_json(&map, sheave)
}

/// Every line is one, the last one as well; with a log that lets no error through, it is said all the same.
fn a_refused_file_is_an_object_where_the_log_is_json(
    map: &ConfigMap,
    sheave: impl Fn(&[&str]) -> Result<Finished, sheave_lab::Error>,
) -> anyhow::Result<()> {
    let run = |flags: &[&str]| sheave(&[&["run", "--config", map.path()], flags].concat());
    for (format, flags) in [
        ("text", &["--log-format=json"][..]),
        ("text", &["--logging-format=json"]),
        ("text", &["--log-format=json", "--log=nonsense"]),
        ("json", &[]),
    ] {
        map.replace(&document(&format!("logging: {{format: {format}}}\nconntrack: {{min: -1}}")))?;
        let done = run(flags)?;
        ends_with(&done, 2)?;
        let lines: Vec<serde_json::Value> =
            done.stderr.lines().map(serde_json::from_str).collect::<Result<_, _>>().context(done.stderr.clone())?;
        let last = lines.last().context("it says something")?;
        let message = last["message"].as_str().unwrap_or_default();
        ensure!(last["level"] == "ERROR" && message.contains("conntrack.min: Invalid value: -1"), "{flags:?}: {last}");
    }
    let done = run(&["--log-format=json", "--log=off"])?;
    ends_with(&done, 2)?;
    ensure!(done.stderr.contains("conntrack.min: Invalid value: -1"), "{}", done.stderr);
    Ok(())
}

fn ends_with(done: &Finished, code: i32) -> anyhow::Result<()> {
    ensure!(done.status.code() == Some(code), "ended with {}, not {code}: {}{}", done.status, done.stdout, done.stderr);
    Ok(())
}
