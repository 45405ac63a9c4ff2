//! loadBalancerSourceRanges: whom they keep out of what (kube-proxy's sections 2 and 4.2).

use crate::fixture::{Checks, Cluster, Endpoint, Expect, Family, Lane, Service, dual, in_lanes};
use serde_json::json;
use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    in_lanes!("source_ranges":
        they_hold_for_vips_only;
        pods_and_the_node_are_sources_like_others;
        the_node_in_a_range_lets_its_vips_in;
        a_range_of_everything_switches_them_off;
        ranges_of_the_other_family_are_none;
        they_follow_the_object;
    )
}

/// A VIP that only one client outside may use.
fn ranged(ranges: &[&str]) -> Service {
    Service::new("svc1", "172.30.0.41").port(80).vip("1.2.3.4").endpoint(Endpoint::local("10.180.0.1")).source_ranges(ranges)
}

fn they_hold_for_vips_only(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.services(&[&ranged(&["198.51.100.0/24"]).node_port(30_001).external_ip("4.3.2.1").spec("type", "LoadBalancer")])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [cluster.client(), &cluster.pod] {
            checks.ask(lane, from, ("1.2.3.4", 80), Expect::Dropped);
            for to in [("172.30.0.41", 80), ("4.3.2.1", 80), ("192.168.0.2", 30_001)] {
                checks.ask(lane, from, to, Expect::by(&["local"]));
            }
        }
    }
    checks.run()
}

fn pods_and_the_node_are_sources_like_others(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for (range, open_to) in [("10.0.0.0/8", "pod"), ("192.168.0.0/24", "test-node"), ("203.0.113.0/24", "client")] {
        cluster.services(&[&ranged(&[range])])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            for from in [&cluster.pod, cluster.node(), cluster.client()] {
                let expect = if from.name() == open_to { Expect::by(&["local"]) } else { Expect::Dropped };
                checks.ask(lane, from, ("1.2.3.4", 80), expect);
            }
        }
        checks.run()?;
    }
    Ok(())
}

/// A node that has the VIP picks it as the source of its own packets to it. It is let in if the node itself is.
fn the_node_in_a_range_lets_its_vips_in(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for ip in dual("1.2.3.4") {
        cluster.node().add_address("lo", &ip)?;
    }
    for (range, expect) in [("192.168.0.0/24", Expect::by(&["local"])), ("203.0.113.0/24", Expect::Dropped)] {
        cluster.services(&[&ranged(&[range])])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            let request = lane.to("1.2.3.4", 80).from_address(lane.address("1.2.3.4"));
            checks.add(format!("{lane}: node from its VIP, {range}"), cluster.node(), request, expect.clone());
        }
        checks.run()?;
    }
    Ok(())
}

fn a_range_of_everything_switches_them_off(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let ranges = json!(["198.51.100.0/24", "0.0.0.0/0", "fd00:198:51::/48", "::/0"]);
    cluster.services(&[&ranged(&[]).spec("loadBalancerSourceRanges", ranges)])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.node(), cluster.client()] {
            checks.ask(lane, from, ("1.2.3.4", 80), Expect::by(&["local"]));
        }
    }
    checks.run()
}

fn ranges_of_the_other_family_are_none(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for (range, of) in [("198.51.100.0/24", Family::V4), ("fd00:198:51::/48", Family::V6)] {
        cluster.services(&[&ranged(&[]).spec("loadBalancerSourceRanges", json!([range]))])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            let expect = if lane.family == of { Expect::Dropped } else { Expect::by(&["local"]) };
            checks.ask(lane, cluster.client(), ("1.2.3.4", 80), expect);
        }
        checks.run()?;
    }
    Ok(())
}

/// From none to some, to overlapping ones, to others, to none.
fn they_follow_the_object(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for (ranges, client, pod) in [
        (&[][..], true, true),
        (&["203.0.113.2/32"][..], true, false),
        (&["203.0.113.0/24", "203.0.113.2/32", "10.0.0.0/8"][..], true, true),
        (&["10.180.0.0/16"][..], false, true),
        (&[][..], true, true),
    ] {
        cluster.services(&[&ranged(ranges)])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            for (from, open) in [(cluster.client(), client), (&cluster.pod, pod)] {
                let expect = if open { Expect::by(&["local"]) } else { Expect::Dropped };
                checks.ask(lane, from, ("1.2.3.4", 80), expect);
            }
        }
        checks.run()?;
    }
    Ok(())
}
