//! Three nodes that announce, and a Service on two VIPs, one of each family.

use anyhow::ensure;
use serde_json::{Value, json};
use sheave::loadbalancer::election::rank_digest;
use sheave_lab::{Mac, twin};
use sheave_tests::{
    lan::{Lan, LanOptions, Service, advertisement, pool},
    scenario::patiently,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

/// Of MetalLB's test vectors: node-a comes first, then node-c, then node-b.
pub(super) const VIP: IpAddr = IpAddr::V4(V4);
const V4: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 240);
/// Something that is bound to happen does within this, whatever else the machine does.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// Something that would happen does within this: the five bursts of an announcement are over, and every patience of the daemon's.
pub(super) const A_WHILE: Duration = Duration::from_secs(4);

/// Who does not answer for so long has withdrawn; a busy machine is not so slow.
const WITHDRAWN: Duration = Duration::from_secs(2);
/// The longest for which two may answer while either side reaches the API.
const DISPUTE: Duration = Duration::from_secs(5);
/// How long one and the same has to answer alone before that is taken for the end of it.
const SETTLED: Duration = Duration::from_millis(2500);
/// By when that is.
const AT_LAST: Duration = Duration::from_secs(20);

/// [`VIP`] and its twin.
pub(super) fn vips() -> [IpAddr; 2] {
    [VIP, twin(V4).into()]
}

/// Nodes by MetalLB's order for an address.
pub(super) fn order(lan: &Lan, vip: IpAddr) -> Vec<usize> {
    let mut nodes: Vec<usize> = (0..lan.size()).collect();
    nodes.sort_by_key(|&node| rank_digest(lan.node(node).name(), vip));
    nodes
}

/// [`start_with`] the usual network.
pub(super) fn start() -> anyhow::Result<Lan> {
    start_with(&LanOptions::default())
}

/// A LAN with [`Lan::publish`]ed VIPs and every daemon running, of which every other one knows: each answers for an address of its own.
pub(super) fn start_with(options: &LanOptions) -> anyhow::Result<Lan> {
    let mut lan = Lan::new(options)?;
    lan.publish(&vips())?;
    for node in 0..lan.size() {
        lan.apply(own_address(&lan, node))?;
    }
    lan.start_all()?;
    for node in 0..lan.size() {
        lan.await_announced_by(own_vip(node), node)?;
    }
    for vip in vips() {
        lan.await_announced_by(vip, order(&lan, vip)[0])?;
    }
    Ok(lan)
}

/// The usual network, with daemons that are told this of `loadBalancer`.
pub(super) fn start_configured(load_balancer: &str) -> anyhow::Result<Lan> {
    let head = "apiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration";
    let configuration = Some(format!("{head}\nloadBalancer: {{ {load_balancer} }}\n"));
    start_with(&LanOptions { configuration, ..LanOptions::default() })
}

/// The VIP that only this node may announce.
pub(super) fn own_vip(node: usize) -> IpAddr {
    Ipv4Addr::new(192, 168, 1, 200 + u8::try_from(node).unwrap_or_default()).into()
}

fn own_address(lan: &Lan, node: usize) -> Vec<Value> {
    let (name, vip) = (lan.node(node).name(), own_vip(node));
    let spec = json!({
        "ipAddressPools": [name], "nodeSelectors": [{ "matchLabels": { "kubernetes.io/hostname": name } }],
    });
    let service = Service::new(name).vip(vip).endpoint(lan.echo(), None);
    [pool(name, &[vip]), advertisement(name, &spec)].into_iter().chain(service.documents()).collect()
}

/// Waits until this node announces the address to everybody.
pub(super) fn await_announcement(lan: &Lan, vip: IpAddr, by: usize, since: Instant) -> anyhow::Result<()> {
    let mac = lan.mac(by)?;
    lan.recorder().await_announcement(vip, since, patiently(SOON), |seen| seen == mac)?;
    Ok(())
}

/// For a while nobody but this node announces the address or answers for it.
pub(super) fn stays(lan: &Lan, vip: IpAddr, at: usize) -> anyhow::Result<()> {
    stays_for(lan, vip, at, A_WHILE)
}

/// For so long.
pub(super) fn stays_for(lan: &Lan, vip: IpAddr, at: usize, time: Duration) -> anyhow::Result<()> {
    let (since, mac) = (Instant::now(), lan.mac(at)?);
    let questions = lan.recorder().keep_asking(vip, Duration::from_millis(100))?;
    thread::sleep(time);
    drop(questions);
    no_other(lan, vip, mac, since)?;
    let silence = lan.recorder().longest_silence(vip, since);
    ensure!(silence < patiently(WITHDRAWN), "nobody answered for {vip} for {silence:?}");
    Ok(())
}

/// Nobody with another hardware address has answered for the address or announced it.
pub(super) fn no_other(lan: &Lan, vip: IpAddr, mac: Mac, since: Instant) -> anyhow::Result<()> {
    let own = lan.client().mac("eth0")?;
    let seen = lan.recorder().sightings();
    let other = seen.iter().find(|it| it.address == vip && it.at >= since && it.mac != mac && it.mac != own);
    ensure!(other.is_none(), "somebody else has {vip}, which {mac} had: {other:?}");
    Ok(())
}

/// Waits until one node alone has answered for long enough: after `since` there were two answers for a few seconds at most.
pub(super) fn settle(lan: &Lan, vip: IpAddr, since: Instant) -> anyhow::Result<usize> {
    let deadline = Instant::now() + patiently(AT_LAST);
    let mut alone: Option<(usize, Instant)> = None;
    loop {
        let answering = lan.answering(vip)?;
        match (answering.as_slice(), alone) {
            (&[node], Some((same, since))) if node == same => {
                if since.elapsed() >= SETTLED {
                    break;
                }
            }
            (&[node], _) => alone = Some((node, Instant::now())),
            _ => alone = None,
        }
        ensure!(Instant::now() < deadline, "{:?} after the change {answering:?} answer", since.elapsed());
    }
    let dispute = lan.recorder().longest_dispute(vip, since);
    ensure!(dispute <= patiently(DISPUTE), "two answered for {dispute:?}");
    Ok(alone.map_or(0, |(node, _)| node))
}
