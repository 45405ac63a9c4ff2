//! A pod that reaches itself through a Service (kube-proxy's section 4.4, rule 4): the answer comes back only if it is masqueraded,
//! whatever policy the traffic is under.

use crate::fixture::{Checks, Cluster, DETECT_PODS, Endpoint, Expect, Lane, Pods, Service, in_lanes};
use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    in_lanes!("hairpin":
        routed_pods;
        bridged_pods;
        bridged_pods_seen_by_netfilter needs "bridge_nf";
        without_a_detector;
        an_endpoint_that_moves_in;
        a_pod_among_others_is_masqueraded_to_itself_only;
    )
}

/// All four kinds of frontend.
const FRONTENDS: [(&str, u16); 4] = [("172.30.0.41", 80), ("1.2.3.4", 80), ("4.3.2.1", 80), ("192.168.0.2", 30_001)];

fn everywhere() -> Service {
    Service::new("svc1", "172.30.0.41").port(80).node_port(30_001).vip("1.2.3.4").external_ip("4.3.2.1")
}

fn routed_pods(lanes: &[Lane]) -> anyhow::Result<()> {
    through_every_frontend(lanes, Pods::Routed, &DETECT_PODS)
}

fn bridged_pods(lanes: &[Lane]) -> anyhow::Result<()> {
    through_every_frontend(lanes, Pods::BridgedApart, &DETECT_PODS)
}

fn bridged_pods_seen_by_netfilter(lanes: &[Lane]) -> anyhow::Result<()> {
    let by_bridge = ["--detect-local-mode", "BridgeInterface", "--pod-bridge-interface", "cni0"];
    through_every_frontend(lanes, Pods::Bridged, &by_bridge)
}

fn without_a_detector(lanes: &[Lane]) -> anyhow::Result<()> {
    through_every_frontend(lanes, Pods::Routed, &[])
}

fn through_every_frontend(lanes: &[Lane], pods: Pods, arguments: &[&str]) -> anyhow::Result<()> {
    let mut cluster = Cluster::new(pods)?;
    cluster.start(arguments)?;
    let service = everywhere().endpoint(Endpoint::local("10.180.0.1"));
    for service in [service.clone(), service.clone().external_local(), service.internal_local().external_local()] {
        cluster.services(&[&service])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            for to in FRONTENDS {
                checks.ask(lane, &cluster.local, to, Expect::by(&["local"]).masqueraded());
            }
        }
        checks.run()?;
    }
    Ok(())
}

/// The pod was an endpoint elsewhere, or none, before: what is masqueraded follows the slices.
fn an_endpoint_that_moves_in(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let (here, there) = (Endpoint::local("10.180.0.1"), Endpoint::remote("10.180.2.1"));
    for (endpoint, expect) in [
        (there.clone(), Expect::by(&["remote"]).kept()),
        (here.clone(), Expect::by(&["local"]).masqueraded()),
        (there, Expect::by(&["remote"]).kept()),
        (here, Expect::by(&["local"]).masqueraded()),
    ] {
        cluster.services(&[&everywhere().endpoint(endpoint)])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, &cluster.local, ("172.30.0.41", 80), expect.clone());
        }
        checks.run()?;
    }
    Ok(())
}

/// One Service, two local endpoints: each is masqueraded when it reaches itself, and not when it reaches the other.
fn a_pod_among_others_is_masqueraded_to_itself_only(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let second = cluster.local_pod("second", "10.180.0.12")?;
    let endpoints = [Endpoint::local("10.180.0.1"), Endpoint::local("10.180.0.12")];
    cluster.services(&[&everywhere().external_local().with_endpoints(endpoints)])?;
    for &lane in lanes {
        for from in [&cluster.local, &second] {
            for (address, port) in FRONTENDS {
                let (mut itself, mut other) = (0, 0);
                for _ in 0..64 {
                    let answer = from.ask(&lane.to(address, port))?.answer()?;
                    let kept = answer.source_seen.ip() == answer.source.ip();
                    let reached_itself = answer.by == from.name();
                    anyhow::ensure!(kept != reached_itself, "{lane}: {} -> {address}: {answer:?}", from.name());
                    *if reached_itself { &mut itself } else { &mut other } += 1;
                    if itself > 2 && other > 2 {
                        break;
                    }
                }
                anyhow::ensure!(
                    itself > 0 && other > 0,
                    "{lane}: {} -> {address}: {itself} of itself, {other} of the other",
                    from.name()
                );
            }
        }
    }
    Ok(())
}
