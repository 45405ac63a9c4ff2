//! Who answers for a VIP on the LAN, as Debian's own tools see it from there. Nothing is asked of the daemon but what it logs.

use super::{FAMILIES, NEAR, pool};
use crate::fixture::{Checks, Cluster, DETECT_PODS, Endpoint, Expect, Family, Lane, Service, TCP_UDP, eventually};
use crate::kube::served::ApiCluster;
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sheave_lab::Host;
use sheave_tests::world::World;
use std::{collections::BTreeSet, fs, time::Duration};

/// Of type LoadBalancer, with nothing in its status: what it gets is decided by the daemon.
fn asking() -> Service {
    Service::new("web", "172.30.0.43")
        .port(80)
        .spec("type", "LoadBalancer")
        .spec("ipFamilyPolicy", "RequireDualStack")
        .endpoint(Endpoint::local("10.180.0.1"))
}

fn advertisement(spec: &Value) -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
        "metadata": { "namespace": "metallb-system", "name": "all" }, "spec": spec,
    })
}

/// A daemon that gives addresses away and announces them, a Service that asks for one, and a host of the LAN.
fn start(objects: Vec<Value>) -> anyhow::Result<(Cluster, Host)> {
    start_with(&DETECT_PODS, objects)
}

fn start_with(arguments: &[&str], objects: Vec<Value>) -> anyhow::Result<(Cluster, Host)> {
    let cluster = Cluster::start_with(&[arguments, &["--controller"]].concat())?;
    cluster.objects("lan.yaml", objects)?;
    cluster.services(&[&asking()])?;
    let neighbour = cluster.lan_host("neighbour", "192.168.0.9", None)?;
    Ok((cluster, neighbour))
}

/// The hardware addresses that answer for the VIP, asked three times; and what the tool says beside.
fn answers(from: &Host, family: Family) -> anyhow::Result<(BTreeSet<String>, String)> {
    let vip = family.address(NEAR).to_string();
    let finished = match family {
        Family::V4 => from.exec("arping", &["-c", "3", "-w", "2", "-r", "-i", "eth0", &vip])?,
        Family::V6 => from.exec("ndisc6", &["-q", "-m", "-n", "-r", "3", "-w", "300", &vip, "eth0"])?,
    };
    let macs = finished.stdout.lines().map(|line| line.trim().to_lowercase()).filter(|line| is_mac(line)).collect();
    Ok((macs, finished.stderr))
}

fn is_mac(text: &str) -> bool {
    text.split(':').count() == 6 && text.split(':').all(|byte| byte.len() == 2 && u8::from_str_radix(byte, 16).is_ok())
}

/// The hardware address of a host's interface on the LAN.
fn mac(host: &Host) -> anyhow::Result<String> {
    let finished = host.exec("ip", &["-json", "link", "show", "dev", "eth0"])?;
    let links: Value = serde_json::from_str(&finished.stdout).context("ip -json")?;
    links[0]["address"].as_str().map(str::to_owned).context("eth0 has no address")
}

/// Whoever answers is the node under test, and nobody else does.
fn await_answers(cluster: &Cluster, from: &Host) -> anyhow::Result<()> {
    let own = BTreeSet::from([mac(cluster.node())?]);
    for family in FAMILIES {
        eventually(|| {
            let (answers, said) = answers(from, family)?;
            ensure!(answers == own, "{family:?}: {answers:?} answer, not {own:?}: {said}");
            Ok(())
        })?;
    }
    Ok(())
}

fn await_silence(from: &Host) -> anyhow::Result<()> {
    for family in FAMILIES {
        eventually(|| {
            let (answers, _) = answers(from, family)?;
            ensure!(answers.is_empty(), "{family:?}: {answers:?} answer");
            Ok(())
        })?;
    }
    Ok(())
}

/// Sockets for frames that the node has open.
fn packet_sockets(cluster: &Cluster) -> anyhow::Result<usize> {
    Ok(cluster.node().exec("cat", &["/proc/net/packet"])?.stdout.lines().skip(1).count())
}

/// From the LAN, from behind the router, from a pod and from the node itself.
fn served(cluster: &Cluster, neighbour: &Host, lanes: &[Lane]) -> anyhow::Result<()> {
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [neighbour, cluster.client(), &cluster.pod, cluster.node()] {
            checks.ask(lane, from, (NEAR, 80), Expect::by(&["local"]));
        }
    }
    checks.run()
}

pub(super) fn a_vip_of_a_pool_has_one_mac_on_the_lan() -> anyhow::Result<()> {
    let (cluster, neighbour) = start(vec![pool(&[NEAR]), advertisement(&json!({}))])?;
    await_answers(&cluster, &neighbour)?;
    served(&cluster, &neighbour, &TCP_UDP)?;
    let events = cluster.count_log("announcing from node \"test-node\" with protocol \"layer2\"");
    ensure!(events == 1, "nodeAssigned was told {events} times");
    // It is on no interface: neither does the kernel answer, nor does another VIP of the pool.
    let addresses = cluster.node().exec("ip", &["-oneline", "address"])?.stdout;
    for family in FAMILIES {
        let vip = family.address(NEAR).to_string();
        ensure!(!addresses.contains(&vip), "{vip} is on an interface: {addresses}");
    }
    told_to_a_person(&cluster)
}

/// `sheave get vips`, as a person on the node has it.
fn told_to_a_person(cluster: &Cluster) -> anyhow::Result<()> {
    let socket = cluster.admin_socket();
    let get = |more: &[&str]| cluster.sheave(&[&["get", "vips", "--admin-socket", &socket.to_string_lossy()], more].concat());
    let told: Value = serde_json::from_str(&get(&["-o", "json"])?.stdout).context("as JSON")?;
    for family in FAMILIES {
        let vip = family.address(NEAR).to_string();
        let vips = told["vips"].as_array().into_iter().flatten();
        let vip = vips.clone().find(|one| one["address"] == *vip).with_context(|| format!("{vip} is not in {told}"))?;
        let announced = &vip["announced"];
        let on_the_lan = announced["interfaces"].as_array().is_some_and(|interfaces| interfaces.contains(&json!("eth0")));
        ensure!(announced["node"] == "test-node" && on_the_lan, "{vip}");
        ensure!(vip["services"] == json!(["ns/web"]) && vip["pool"] == "lan" && vip["why"] == "the only node that can", "{vip}");
    }
    let table = get(&["-n", "ns"])?.stdout;
    ensure!(table.starts_with("ADDRESS ") && table.lines().count() == 3 && !table.contains('\u{1b}'), "{table}");
    let yaml = get(&["-o", "yaml"])?.stdout;
    ensure!(yaml.lines().any(|line| line == "node: test-node"), "{yaml}");
    let nothing = get(&["-n", "elsewhere"])?;
    ensure!(nothing.stdout.is_empty() && nothing.stderr == "no VIPs in namespace elsewhere\n", "{nothing:?}");
    Ok(())
}

/// No pool, or no L2Advertisement: then nothing is open, and nobody answers.
pub(super) fn nothing_is_open_without_pool_and_advertisement() -> anyhow::Result<()> {
    let (cluster, neighbour) = start(vec![pool(&[NEAR])])?;
    cluster.await_log("no node announces its address: no L2Advertisement is for pool \"lan\"", LONG)?;
    await_silence(&neighbour)?;
    ensure!(packet_sockets(&cluster)? == 0, "there are packet sockets");

    cluster.objects("lan.yaml", vec![pool(&[NEAR]), advertisement(&json!({}))])?;
    await_answers(&cluster, &neighbour)?;
    ensure!(packet_sockets(&cluster)? > 0, "who answered?");

    cluster.objects("lan.yaml", vec![pool(&[NEAR])])?;
    await_silence(&neighbour)?;
    ensure!(packet_sockets(&cluster)? == 0, "packet sockets are left");
    Ok(())
}

/// Each reason for silence ends it as soon as it is over.
pub(super) fn who_cannot_serve_does_not_answer_and_says_why() -> anyhow::Result<()> {
    let everywhere = || vec![pool(&[NEAR]), advertisement(&json!({}))];
    let (cluster, neighbour) = start(everywhere())?;
    await_answers(&cluster, &neighbour)?;
    let elsewhere = asking().external_local().with_endpoints([Endpoint::remote("10.180.2.1")]);
    for (service, reason) in [
        (asking().with_endpoints([]), "none of its Services has a ready endpoint"),
        (elsewhere, "it hosts no ready endpoint, and externalTrafficPolicy is Local"),
    ] {
        cluster.services(&[&service])?;
        cluster.await_log(reason, LONG)?;
        await_silence(&neighbour)?;
        cluster.services(&[&asking()])?;
        await_answers(&cluster, &neighbour)?;
    }
    for (spec, reason) in [
        (json!({ "interfaces": ["eth7"] }), "doesn't exist in assigned node \"test-node\""),
        (json!({ "nodeSelectors": [{ "matchLabels": { "lan": "yes" } }] }), "no L2Advertisement that applies selects it"),
    ] {
        cluster.objects("lan.yaml", vec![pool(&[NEAR]), advertisement(&spec)])?;
        cluster.await_log(reason, LONG)?;
        await_silence(&neighbour)?;
        cluster.objects("lan.yaml", everywhere())?;
        await_answers(&cluster, &neighbour)?;
    }
    Ok(())
}

/// A daemon that ends stops answering, whether or not it could say anything; the next one says at once where the VIP is.
pub(super) fn the_next_daemon_announces_again() -> anyhow::Result<()> {
    let (mut cluster, neighbour) = start(vec![pool(&[NEAR]), advertisement(&json!({}))])?;
    await_answers(&cluster, &neighbour)?;
    let ends: [fn(&mut World) -> anyhow::Result<()>; 2] = [World::kill, |world| world.terminate().map(drop)];
    for end in ends {
        end(&mut cluster)?;
        await_silence(&neighbour)?;
        // Rules outlive the daemon: who knows the way is served.
        cluster.restart()?;
        await_answers(&cluster, &neighbour)?;
        served(&cluster, &neighbour, &TCP_UDP)?;
    }
    Ok(())
}

/// MetalLB's `excludel2.yaml`. What is left are the interfaces of pods.
pub(super) fn an_excluded_interface_does_not_announce() -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let [list, config] = ["excludel2.yaml", "sheave.yaml"].map(|name| files.path().join(name));
    fs::write(&list, "announcedInterfacesToExclude: [^eth]\n")?;
    let head = "apiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\n";
    fs::write(&config, format!("{head}loadBalancer: {{ interfacesExcluded: {} }}\n", list.display()))?;
    let config = config.to_str().context("the path of a temporary file")?;
    let (cluster, neighbour) = start_with(&["--config", config], vec![pool(&[NEAR]), advertisement(&json!({}))])?;
    let announced = cluster.await_log("announcing from node", LONG)?;
    await_silence(&neighbour).context(announced)
}

/// Another host has the address: it is told, and nothing is done about it.
pub(super) fn another_host_with_the_address_is_an_alarm() -> anyhow::Result<()> {
    let (cluster, neighbour) = start(vec![pool(&[NEAR]), advertisement(&json!({}))])?;
    await_answers(&cluster, &neighbour)?;
    neighbour.add_address("eth0", &format!("{NEAR}/32"))?;
    // Says so, as hosts do that get an address (RFC 5227).
    neighbour.exec("arping", &["-U", "-c", "1", "-i", "eth0", "-S", NEAR, NEAR])?;
    let said = cluster.await_log("says that 192.168.0.240 is its own", LONG)?;
    ensure!(said.contains(&mac(&neighbour)?), "{said}");
    Ok(())
}

/// On an API server, where the controller has given an address away without asking the LAN: not two answer for it.
pub(super) fn a_vip_that_another_host_has_is_announced_when_it_is_free() -> anyhow::Result<()> {
    let mut served = ApiCluster::new()?;
    served.api.install_metallb();
    served.delete_service("web")?;
    let neighbour = served.lan_host("neighbour", "192.168.0.9", None)?;
    let occupier = served.lan_host("occupier", "192.168.0.10", None)?;
    occupier.add_address("eth0", &format!("{NEAR}/32"))?;
    served.apply([pool(&[NEAR]), advertisement(&json!({}))])?;
    served.services([&asking().vip(NEAR)])?;
    let url = served.api.url();
    served.start_on_api(&url, &[&DETECT_PODS[..], &["--announce"]].concat())?;
    let said = served.await_log(&format!("nobody announces {NEAR}: another host has it"), LONG)?;
    ensure!(said.contains(&mac(&occupier)?), "{said}");
    let (answers, _) = answers(&neighbour, Family::V4)?;
    ensure!(answers == BTreeSet::from([mac(&occupier)?]), "{answers:?} answer");
    occupier.del_address("eth0", &format!("{NEAR}/32"))?;
    await_answers(&served, &neighbour)
}

/// Under load of other work.
const LONG: Duration = Duration::from_secs(20);
