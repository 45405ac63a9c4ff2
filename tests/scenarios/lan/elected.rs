//! Who is elected, on which addresses.

use super::stage::{SOON, VIP, order, own_vip, start, vips};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sheave_lab::{Host, Outcome, Port, Request, twin};
use sheave_tests::{
    lan::{Lan, LanOptions, PORT, Service, advertisement, pool},
    scenario::{Scenario, patiently},
    scenarios,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("lan":
        a_service_gets_an_address_and_one_node_answers needs ["nftables", "tool:arping", "tool:ndisc6"], within 90 s;
        metallbs_order_decides_and_services_share_an_address needs ["nftables"], within 90 s;
        local_policy_follows_the_endpoints needs ["nftables"], within 90 s;
    )
    .to_vec()
}

/// The hardware addresses that answer, by Debian's own tools.
fn by_tools(from: &Host, vip: IpAddr) -> anyhow::Result<BTreeSet<String>> {
    let finished = match vip {
        IpAddr::V4(vip) => from.exec("arping", &["-c", "2", "-w", "2", "-r", "-i", "eth0", &vip.to_string()])?,
        IpAddr::V6(vip) => from.exec("ndisc6", &["-q", "-m", "-n", "-r", "3", "-w", "300", &vip.to_string(), "eth0"])?,
    };
    let is_mac = |line: &&str| line.len() == 17 && line.matches(':').count() == 5;
    Ok(finished.stdout.lines().map(str::trim).filter(is_mac).map(str::to_lowercase).collect())
}

/// From the pool to the client: two controllers, of which one decides, and three nodes. Every word of it is MetalLB's.
fn a_service_gets_an_address_and_one_node_answers() -> anyhow::Result<()> {
    let mut lan = Lan::new(&LanOptions { controller: true, ..LanOptions::default() })?;
    lan.start_controller()?;
    lan.start_controller()?;
    lan.start_all()?;
    let mut addresses = pool("lan", &[]);
    addresses["spec"]["addresses"] = json!(["192.168.1.240-192.168.1.250", "fd00:192:168::1:240/124"]);
    lan.apply([addresses, advertisement("all", &json!({}))])?;
    lan.apply(Service::new("web").endpoint(lan.echo(), None).documents())?;
    for vip in vips() {
        let announcer = order(&lan, vip)[0];
        lan.await_announced_by(vip, announcer)?;
        ensure!(by_tools(lan.client(), vip)? == BTreeSet::from([lan.mac(announcer)?.to_string()]), "{vip}");
        for port in [Port::tcp(PORT), Port::udp(PORT)] {
            let outcome = lan.client().ask(&Request::to(port, vip))?;
            ensure!(outcome.by() == Some("echo"), "{port} of {vip}: {outcome}");
        }
        // It is on no interface.
        let interfaces = lan.node(announcer).exec("ip", &["-oneline", "address"])?.stdout;
        ensure!(!interfaces.contains(&vip.to_string()), "{interfaces}");
    }
    let names = vips().map(|vip| lan.node(order(&lan, vip)[0]).name().to_owned());
    let said = || -> BTreeSet<String> {
        let node = |status: Value| status["status"]["node"].as_str().map(str::to_owned);
        lan.api().list("servicel2statuses").into_iter().filter_map(node).collect()
    };
    eventually("ServiceL2Status names who announces", || said() == names.iter().cloned().collect())
}

/// `192.168.1.240` and `fc00::1` are MetalLB's own vectors; the second one is in no network of the LAN.
fn metallbs_order_decides_and_services_share_an_address() -> anyhow::Result<()> {
    let mut lan = start()?;
    let routed: IpAddr = "fc00::1".parse()?;
    lan.client().add_route("fc00::1", None, "eth0")?;
    lan.apply([pool("routed", &[routed]), advertisement("routed", &json!({ "ipAddressPools": ["routed"] }))])?;
    lan.apply(Service::new("routed").vip(routed).endpoint(lan.echo(), None).documents())?;
    lan.await_announced_by(VIP, 0)?;
    lan.await_announced_by(routed, 1)?;

    let second = Service::new("second").port(81).vip(VIP).annotation("metallb.io/allow-shared-ip", "key");
    lan.apply(second.endpoint(lan.echo(), None).documents())?;
    eventually("both Services of the address answer", || {
        let answers = |port| lan.client().ask(&Request::to(Port::tcp(port), VIP)).is_ok_and(|it| it.by() == Some("echo"));
        answers(PORT) && answers(81)
    })?;
    ensure!(lan.answering(VIP)? == [0]);

    // Who is gone by its own will is left out, and the next in the order comes: a, c, b; and b, c, a.
    let gone = Instant::now();
    lan.terminate(0)?;
    super::stage::await_announcement(&lan, VIP, 2, gone)?;
    lan.await_announced_by(VIP, 2)?;
    lan.await_silence(own_vip(0))?;
    lan.await_announced_by(routed, 1)?;
    lan.terminate(1)?;
    lan.await_announced_by(routed, 2)?;
    lan.await_announced_by(VIP, 2)?;
    lan.terminate(2)?;
    lan.await_silence(VIP)
}

/// The announcer hosts a ready endpoint, its pods see the client itself, and nobody announces where nobody could serve.
fn local_policy_follows_the_endpoints() -> anyhow::Result<()> {
    let lan = start()?;
    let vip: Ipv4Addr = "192.168.1.241".parse()?;
    let both: [IpAddr; 2] = [vip.into(), twin(vip).into()];
    let pods = [lan.pod(lan.node(1), "pod-b", "10.180.2.1")?, lan.pod(lan.node(2), "pod-c", "10.180.3.1")?];
    let local = both.iter().fold(Service::new("local").local(), |service, &vip| service.vip(vip));
    let with = |nodes: &[usize]| {
        let on = |service: Service, &node: &usize| service.endpoint(&pods[node - 1], Some(lan.node(node).name()));
        nodes.iter().fold(local.clone(), on).documents()
    };
    lan.apply([pool("local", &both), advertisement("local", &json!({ "ipAddressPools": ["local"] }))])?;
    for hosts in [&[1, 2][..], &[1], &[2], &[], &[2, 1]] {
        lan.apply(with(hosts))?;
        for vip in both {
            let Some(&announcer) = order(&lan, vip).iter().find(|node| hosts.contains(node)) else {
                lan.await_silence(vip)?;
                continue;
            };
            lan.await_announced_by(vip, announcer)?;
            let name = if announcer == 1 { "pod-b" } else { "pod-c" };
            eventually("the announcer's own pod answers", || {
                let outcome = lan.client().ask(&Request::to(Port::tcp(PORT), vip));
                matches!(outcome, Ok(Outcome::Answered(answer)) if answer.by == name && answer.source_kept())
            })
            .with_context(|| format!("{vip} with endpoints on {hosts:?}"))?;
        }
    }
    Ok(())
}

/// Looks until it is so.
fn eventually(what: &str, is_so: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + patiently(SOON);
    while !is_so() {
        ensure!(Instant::now() < deadline, "not within {SOON:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
