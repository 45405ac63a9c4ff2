//! Manifests that are broken, wrong or huge: what is wrong spoils only itself, and a line in the log names it.

use crate::fixture::{Checks, Cluster, Endpoint, Expect, Lane, Service, TCP_UDP, dual, in_lanes};
use anyhow::Context as _;
use serde_json::{Value, json};
use sheave_lab::Protocol;
use sheave_tests::{scenario::Scenario, scenarios};
use std::time::Duration;

pub(crate) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = in_lanes!("bad_input":
        a_broken_file_keeps_its_last_good_version;
        a_file_that_is_emptied_or_unreadable_keeps_its_last_good_version;
        fields_that_make_no_sense_are_left_out;
        slips_of_the_hand_are_named_and_what_is_meant_is_served;
        names_of_maximal_length;
    );
    // Sizes do not depend on the protocol.
    scenarios.extend(scenarios!("bad_input":
        ten_thousand_ports needs ["nftables"], within 180 s;
        a_hundred_thousand_endpoints needs ["nftables", "tool:nft"], within 180 s;
    ));
    scenarios
}

/// How soon a line has to be in the log.
const SOON: Duration = Duration::from_secs(10);

fn web() -> Service {
    Service::new("svc1", "172.30.0.41").port(80).endpoint(Endpoint::local("10.180.0.1"))
}

fn ask(cluster: &Cluster, lanes: &[Lane], address: &str, port: u16, expect: &Expect) -> anyhow::Result<()> {
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &cluster.pod, (address, port), expect.clone());
    }
    checks.run()
}

fn a_broken_file_keeps_its_last_good_version(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let served = |name| ask(&cluster, lanes, "172.30.0.41", 80, &Expect::by(&[name]));
    cluster.services(&[&web()])?;
    served("local")?;
    // The third line ends in the middle of a flow sequence; the file beside it is taken in all the same.
    cluster.write("world.yaml", "kind: Service\nmetadata:\n  name: [svc1\nspec: {}\n")?;
    let beside = Service::new("svc2", "172.30.0.42").port(80).endpoint(Endpoint::remote("10.180.2.1"));
    cluster.objects("beside.yaml", beside.documents())?;
    let line = cluster.await_log("world.yaml:", SOON)?;
    let place = line.split("world.yaml:").nth(1).unwrap_or_default().split(':').take(2);
    let numbers: Vec<u32> = place.map_while(|number| number.trim().parse().ok()).collect();
    anyhow::ensure!(matches!(numbers[..], [3 | 4, _]), "no line and column where the file breaks off: {line}");
    anyhow::ensure!(line.contains("its last good version stays in force"), "{line}");
    served("local")?;
    ask(&cluster, lanes, "172.30.0.42", 80, &Expect::by(&["remote"]))?;
    // Repaired, with another content.
    cluster.services(&[&web().with_endpoints([Endpoint::remote("10.180.2.1")])])?;
    served("remote")
}

/// Another apiVersion, a key twice, a word that is none, and a nodePort at which the daemon answers itself.
fn slips_of_the_hand_are_named_and_what_is_meant_is_served(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let meant = Service::new("svc2", "172.30.0.42").port(80).node_port(10_256).endpoint(Endpoint::remote("10.180.2.1"));
    let written = meant.documents().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n");
    let twice = r#""spec":{"clusterIP":"172.30.0.43","trafficDistribution":"PreferNear","#;
    let slipped = written.replacen(r#""apiVersion":"v1""#, r#""apiVersion":"v2""#, 1).replacen(r#""spec":{"#, twice, 1);
    cluster.write("slips.yaml", &slipped)?;
    cluster.services(&[&web()])?;
    ask(&cluster, lanes, "172.30.0.41", 80, &Expect::by(&["local"]))?;
    ask(&cluster, lanes, "172.30.0.42", 80, &Expect::by(&["remote"]))?;
    let twice = cluster.await_log("said twice, the last one counts: spec.clusterIP of document 1 (Service svc2)", SOON)?;
    anyhow::ensure!(twice.contains("line 1, column "), "no place: {twice}");
    for said in [
        "is neither PreferSameZone (or PreferClose) nor PreferSameNode",
        "is not v1, which an API server demands; it is read as that",
        "10256 is where this daemon answers /healthz: who asks there gets this Service",
    ] {
        cluster.await_log(said, SOON)?;
    }
    Ok(())
}

/// Truncated, as editors and `cp` do before they write; then a link to nowhere. What is meant to go has its file removed.
fn a_file_that_is_emptied_or_unreadable_keeps_its_last_good_version(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&web()])?;
    let served = || ask(&cluster, lanes, "172.30.0.41", 80, &Expect::by(&["local"]));
    served()?;
    let file = cluster.manifests().join("world.yaml");
    std::fs::write(&file, "")?;
    cluster.await_sync()?;
    cluster.await_log("world.yaml: is empty now (to remove its objects, remove the file): its last good version stays", SOON)?;
    served()?;
    std::fs::remove_file(&file)?;
    std::os::unix::fs::symlink("nowhere.yaml", cluster.manifests().join(".link"))?;
    cluster.await_sync()?;
    ask(&cluster, lanes, "172.30.0.41", 80, &Expect::Dropped)?;
    cluster.services(&[&web()])?;
    std::fs::rename(cluster.manifests().join(".link"), &file)?;
    cluster.await_sync()?;
    cluster.await_log("world.yaml: cannot be read (a link to nowhere.yaml: ", SOON)?;
    served()?;
    cluster.remove_file("world.yaml")?;
    ask(&cluster, lanes, "172.30.0.41", 80, &Expect::Dropped)
}

fn fields_that_make_no_sense_are_left_out(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let [v4, v6] = dual("4.3.2.1");
    let mut service = web()
        .spec("type", "LoadBalancer")
        .spec("externalIPs", json!(["no-address", "300.1.1.1", 17, null, v4, v6]))
        .spec("loadBalancerSourceRanges", json!(["10.0.0.0/99", "elsewhere", {}, "10.0.0.0/8", "fd00:10::/32"]))
        .spec("sessionAffinity", "Sometimes")
        .spec("internalTrafficPolicy", 7)
        .vip("1.2.3.4")
        .documents();
    let ports = service[0]["spec"]["ports"].as_array_mut().context("a Service has ports")?;
    ports.extend([
        json!({ "name": "none", "protocol": "TCP" }),
        json!({ "name": "zero", "protocol": "TCP", "port": 0 }),
        json!({ "name": "large", "protocol": "TCP", "port": 70_000 }),
        json!({ "name": "text", "protocol": "TCP", "port": "http" }),
        json!({ "name": "dccp", "protocol": "DCCP", "port": 90 }),
        json!({ "name": "node", "protocol": "TCP", "port": 91, "nodePort": -1 }),
        json!("what?"),
    ]);
    let endpoints = service[1]["endpoints"].as_array_mut().context("a slice has endpoints")?;
    endpoints.extend([json!({ "addresses": ["nowhere"] }), json!({ "addresses": [] }), json!(null), json!({ "addresses": 4 })]);
    // Neither a Service nor anything else that is known, and one without a name.
    service.extend([
        json!({ "kind": "Pod", "metadata": { "name": "x" } }),
        json!({ "apiVersion": "v1", "kind": "Service", "spec": {} }),
    ]);
    cluster.objects("world.yaml", service)?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for to in [("172.30.0.41", 80), ("4.3.2.1", 80), ("1.2.3.4", 80)] {
            checks.ask(lane, &cluster.pod, to, Expect::by(&["local"]));
        }
        checks.ask(lane, cluster.client(), ("1.2.3.4", 80), Expect::Dropped);
    }
    checks.run()?;
    cluster.await_log("\"no-address\" is not an IP address", SOON)?;
    cluster.await_log("no address: this endpoint is left out", SOON)?;
    Ok(())
}

/// The last of them is reached like the first, and so is the Service beside.
fn ten_thousand_ports() -> anyhow::Result<()> {
    const COUNT: u16 = 10_000;
    let cluster = Cluster::start()?;
    let large = (0..COUNT).fold(Service::new("large", "172.30.0.42"), |service, n| {
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][usize::from(n % 3)];
        service.only(protocol, 1000 + n, 80)
    });
    cluster.services(&[&web(), &large.endpoint(Endpoint::remote("10.180.2.1"))])?;
    let mut checks = Checks::default();
    for lane in TCP_UDP {
        checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), Expect::by(&["local"]));
        let remainder = lane.protocol as u16;
        for n in [remainder, COUNT / 2 / 3 * 3 + remainder, COUNT / 3 * 3 - 3 + remainder] {
            checks.ask(lane, &cluster.pod, ("172.30.0.42", 1000 + n), Expect::by(&["remote"]));
        }
        checks.ask(lane, &cluster.pod, ("172.30.0.42", 1000 + COUNT), Expect::Refused);
    }
    checks.run()?;
    cluster.services(&[&web()])?;
    ask(&cluster, &TCP_UDP, "172.30.0.42", 1000, &Expect::Dropped)
}

/// 253 bytes are what an object's name may have (RFC 1123); port names are shorter in Kubernetes, and here not limited.
fn names_of_maximal_length(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let long = |letter: &str| letter.repeat(253);
    let mut documents = web().documents();
    for document in &mut documents {
        document["metadata"]["namespace"] = long("n").into();
        match document["kind"].as_str() {
            Some("Service") => document["metadata"]["name"] = long("s").into(),
            _ => {
                document["metadata"]["name"] =
                    format!("{}{}", &long("e")[4..], document["addressType"].as_str().unwrap_or("")).into();
                document["metadata"]["labels"]["kubernetes.io/service-name"] = long("s").into();
            }
        }
        let ports = if document["kind"] == "Service" { &mut document["spec"]["ports"] } else { &mut document["ports"] };
        for port in ports.as_array_mut().into_iter().flatten() {
            port["name"] = long("p").into();
        }
    }
    cluster.objects("world.yaml", documents)?;
    ask(&cluster, lanes, "172.30.0.41", 80, &Expect::by(&["local"]))
}

/// Far beyond what Kubernetes is tested for (250 a Service). They are loaded, one neighbour answering for all of them, and the
/// Service beside is served before, meanwhile and after.
fn a_hundred_thousand_endpoints() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let crowd = cluster.elsewhere(&[])?;
    for (family, prefix, own) in
        [("ip", "10.64.0.0/12", crowd.ipv4().to_string()), ("ip6", "fd00:10:64::/48", crowd.ipv6().to_string())]
    {
        cluster.node().add_route(prefix, Some(&own), "eth0")?;
        // Whoever of them is asked, this one answers.
        let chain = "type nat hook prerouting priority -100;";
        let script =
            format!("table {family} crowd {{\n chain crowd {{\n {chain}\n {family} daddr {prefix} dnat to {own}\n }}\n}}\n");
        let path = cluster.manifests().join("crowd.nft");
        std::fs::write(&path, script)?;
        let done = crowd.exec("nft", &["-f", &path.to_string_lossy()])?;
        anyhow::ensure!(done.status.success(), "{}", done.stderr);
    }
    cluster.services(&[&web()])?;
    let crowded = Service::new("crowded", "172.30.0.42").port(80);
    let mut documents = vec![crowded.documents().remove(0)];
    for slice in 0..1000_u32 {
        for (place, address_type) in ["IPv4", "IPv6"].into_iter().enumerate() {
            documents.push(crowd_slice(&crowded, slice, place, address_type));
        }
    }
    cluster.objects("crowded.yaml", documents)?;
    let both = |crowded: &Expect| {
        ask(&cluster, &TCP_UDP, "172.30.0.41", 80, &Expect::by(&["local"]))?;
        ask(&cluster, &TCP_UDP, "172.30.0.42", 80, crowded)
    };
    both(&Expect::by(&["elsewhere"]))?;
    cluster.remove_file("crowded.yaml")?;
    both(&Expect::Dropped)
}

/// One of a thousand slices of a hundred endpoints each, as the EndpointSlice controller makes them.
fn crowd_slice(service: &Service, number: u32, family: usize, address_type: &str) -> Value {
    let mut slice = service.documents().remove(1 + family);
    slice["metadata"]["name"] = format!("crowded-{address_type}-{number}").to_lowercase().into();
    let addresses = (number * 100..).take(100).map(|n| match family {
        0 => format!("10.{}.{}.{}", 64 + (n >> 16), n >> 8 & 255, n & 255),
        _ => format!("fd00:10:64::{:x}:{:x}", n >> 16, n & 0xffff),
    });
    slice["endpoints"] = addresses.map(|address| json!({ "addresses": [address] })).collect();
    slice
}
