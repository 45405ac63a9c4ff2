//! Services that change what they are, and endpoints of unusual kinds.

use crate::fixture::{Checks, Cluster, DETECT_PODS, Endpoint, Expect, Lane, Service, in_lanes, node, node_in_zone, service_cidr};
use anyhow::{Context as _, ensure};
use sheave_tests::scenario::Scenario;

pub(crate) fn scenarios() -> Vec<Scenario> {
    in_lanes!("lifecycle":
        to_external_name_and_back;
        to_headless_and_back;
        frontends_come_and_go_one_by_one;
        policies_change_under_way;
        manual_endpoints_outside_of_the_cluster;
        not_ready_endpoints_count_for_nothing;
        an_address_passes_from_one_service_to_another;
        node_hints;
        external_ips_denied_by_gate;
        a_restart_adopts_what_is_there;
        endpoints_that_move_between_slices_are_never_gone;
    )
}

fn web() -> Service {
    Service::new("svc1", "172.30.0.41").port(80).endpoint(Endpoint::local("10.180.0.1"))
}

/// `web` is served or not: then its address is an unallocated one.
fn ask(cluster: &Cluster, lanes: &[Lane], expect: &Expect) -> anyhow::Result<()> {
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.node(), cluster.client()] {
            checks.ask(lane, from, ("172.30.0.41", 80), expect.clone());
        }
    }
    checks.run()
}

/// A ClusterIP may be left behind in the object: it means nothing.
fn to_external_name_and_back(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let external = web().spec("type", "ExternalName").spec("externalName", "example.org");
    for (what, service, expect) in [
        ("ClusterIP", web(), Expect::by(&["local"])),
        ("ExternalName", external, Expect::Dropped),
        ("ClusterIP again", web(), Expect::by(&["local"])),
    ] {
        cluster.services(&[&service])?;
        ask(&cluster, lanes, &expect).context(what)?;
    }
    Ok(())
}

fn to_headless_and_back(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let headless = web().spec("clusterIP", "None").spec("clusterIPs", vec!["None"]);
    for (what, service, expect) in [
        ("ClusterIP", web(), Expect::by(&["local"])),
        ("headless", headless, Expect::Dropped),
        ("ClusterIP again", web(), Expect::by(&["local"])),
    ] {
        cluster.services(&[&service])?;
        ask(&cluster, lanes, &expect).context(what)?;
    }
    Ok(())
}

/// Each kind of frontend is there when it is asked for, and only then.
fn frontends_come_and_go_one_by_one(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.elsewhere(&["1.2.3.4", "4.3.2.1"])?;
    let full = || web().node_port(30_001).vip("1.2.3.4").external_ip("4.3.2.1");
    let steps = [
        (web(), [false, false, false]),
        (web().external_ip("4.3.2.1"), [false, false, true]),
        (web().node_port(30_001), [true, false, false]),
        (full(), [true, true, true]),
        (web().vip("1.2.3.4"), [false, true, false]),
        (full(), [true, true, true]),
        (web(), [false, false, false]),
    ];
    for (service, served) in steps {
        cluster.services(&[&service])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, cluster.client(), ("172.30.0.41", 80), Expect::by(&["local"]));
            let otherwise = [Expect::Refused, Expect::by(&["elsewhere"]), Expect::by(&["elsewhere"])];
            let frontends = [("192.168.0.2", 30_001), ("1.2.3.4", 80), ("4.3.2.1", 80)];
            for ((to, served), otherwise) in frontends.into_iter().zip(served).zip(otherwise) {
                checks.ask(lane, cluster.client(), to, if served { Expect::by(&["local"]) } else { otherwise });
            }
        }
        checks.run()?;
    }
    Ok(())
}

fn policies_change_under_way(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let service = web().endpoint(Endpoint::remote("10.180.2.1")).node_port(30_001).vip("1.2.3.4");
    let (both, here) = (|| Expect::by(&["local", "remote"]), || Expect::by(&["local"]));
    for (service, inside, outside) in [
        (service.clone(), both(), both().masqueraded()),
        (service.clone().external_local(), both(), here().kept()),
        (service.clone().internal_local(), here(), both().masqueraded()),
        (service.clone().internal_local().external_local(), here(), here().kept()),
        (service, both(), both().masqueraded()),
    ] {
        cluster.services(&[&service])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), inside.clone().kept());
            checks.ask(lane, cluster.client(), ("172.30.0.41", 80), inside.clone().masqueraded());
            for to in [("1.2.3.4", 80), ("192.168.0.2", 30_001)] {
                checks.ask(lane, cluster.client(), to, outside.clone());
            }
        }
        checks.run()?;
    }
    Ok(())
}

/// A Service without a selector may lead anywhere. Its slices say nothing of nodes or conditions.
fn manual_endpoints_outside_of_the_cluster(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.serve(&cluster.outside("legacy", "203.0.113.50", None)?)?;
    cluster.services(&[&web().node_port(30_001).with_endpoints([Endpoint::at("203.0.113.50")])])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), Expect::by(&["legacy"]).kept());
        checks.ask(lane, cluster.node(), ("172.30.0.41", 80), Expect::by(&["legacy"]));
        checks.ask(lane, cluster.client(), ("192.168.0.2", 30_001), Expect::by(&["legacy"]).masqueraded());
    }
    checks.run()
}

/// Serving, but neither ready nor terminating: no traffic, not even as the last resort.
fn not_ready_endpoints_count_for_nothing(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let not_ready = Endpoint::remote("10.180.2.1").conditions(false, true, false);
    for (endpoints, expect) in [
        (vec![not_ready.clone()], Expect::Refused),
        (vec![not_ready.clone(), Endpoint::local("10.180.0.1").terminating()], Expect::by(&["local"])),
        (vec![Endpoint::remote("10.180.2.1"), Endpoint::local("10.180.0.1").terminating()], Expect::by(&["remote"])),
        (vec![not_ready], Expect::Refused),
    ] {
        cluster.services(&[&web().with_endpoints(endpoints)])?;
        ask(&cluster, lanes, &expect)?;
    }
    Ok(())
}

/// Within one sync: the new holder must not be undone by the end of the old one.
fn an_address_passes_from_one_service_to_another(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let one = web().node_port(30_001).vip("1.2.3.4");
    let two = Service::new("a-second", "172.30.0.41")
        .port(80)
        .endpoint(Endpoint::remote("10.180.2.1"))
        .node_port(30_001)
        .vip("1.2.3.4");
    for (service, name) in [(&one, "local"), (&two, "remote"), (&one, "local")] {
        cluster.services(&[service])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            for to in [("172.30.0.41", 80), ("192.168.0.2", 30_001), ("1.2.3.4", 80)] {
                checks.ask(lane, cluster.client(), to, Expect::by(&[name]));
            }
        }
        checks.run()?;
    }
    Ok(())
}

/// Node hints come before zone hints, and give way to them where they cannot be followed.
fn node_hints(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.objects("cluster.yaml", [node_in_zone("a"), service_cidr()])?;
    cluster.far_pod("third", "10.180.2.3")?;
    let [here, there, third] = [Endpoint::local("10.180.0.1"), Endpoint::remote("10.180.2.1"), Endpoint::remote("10.180.2.3")];
    for (endpoints, expect) in [
        (
            [here.clone().for_node("test-node"), there.clone().for_node("remote"), third.clone().for_node("remote")],
            &["local"][..],
        ),
        (
            [here.clone().for_node("remote"), there.clone().for_node("remote"), third.clone().for_node("remote")],
            &["local", "remote", "third"],
        ),
        ([here.clone().for_node("test-node"), there.clone().for_node("remote"), third.clone()], &["local", "remote", "third"]),
        ([here.for_zone("b"), there.for_zone("a"), third.for_zone("a")], &["remote", "third"]),
    ] {
        cluster.services(&[&web().with_endpoints(endpoints)])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), Expect::by(expect));
        }
        checks.run()?;
    }
    Ok(())
}

/// They are left alone, whoever's they are; everything else of the Service works.
fn external_ips_denied_by_gate(lanes: &[Lane]) -> anyhow::Result<()> {
    let arguments = [&DETECT_PODS[..], &["--feature-gates", "AllowServiceExternalIPs=false"]].concat();
    let cluster = Cluster::start_with(&arguments)?;
    cluster.elsewhere(&["4.3.2.1"])?;
    cluster.services(&[&web().node_port(30_001).external_ip("4.3.2.1")])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        for from in [&cluster.pod, cluster.client()] {
            checks.ask(lane, from, ("4.3.2.1", 80), Expect::by(&["elsewhere"]).kept());
            checks.ask(lane, from, ("172.30.0.41", 80), Expect::by(&["local"]));
            checks.ask(lane, from, ("192.168.0.2", 30_001), Expect::by(&["local"]).masqueraded());
        }
    }
    checks.run()
}

/// The rules go on without the daemon, and the next one brings them to what the objects say by then.
fn a_restart_adopts_what_is_there(lanes: &[Lane]) -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    cluster.services(&[&web()])?;
    for (name, address) in [("remote", "10.180.2.1"), ("local", "10.180.0.1")] {
        let before = if name == "remote" { "local" } else { "remote" };
        // As an update of the daemon ends it, and as a crash does.
        if name == "remote" {
            cluster.terminate()?;
        } else {
            cluster.kill()?;
        }
        ask(&cluster, lanes, &Expect::by(&[before])).context("while no daemon runs")?;
        cluster.prepare(&[&web().with_endpoints([Endpoint::local(address)])])?;
        cluster.restart()?;
        ask(&cluster, lanes, &Expect::by(&[name])).context("after the restart")?;
    }
    cluster.objects("cluster.yaml", [node(), service_cidr()])?;
    ask(&cluster, lanes, &Expect::by(&["local"]))
}

/// One edit of a file is one change, however many objects it has: what one slice loses and another gets was there all the time.
fn endpoints_that_move_between_slices_are_never_gone(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let named = |suffix: &str| {
        let mut documents = web().documents();
        for slice in &mut documents[1..] {
            slice["metadata"]["name"] = format!("{}-{suffix}", slice["addressType"]).replace('"', "").to_lowercase().into();
        }
        documents
    };
    cluster.objects("web.yaml", named("a"))?;
    let commits = cluster.count_log("synced");
    for _ in 0..10 {
        cluster.objects("web.yaml", named("b"))?;
        cluster.objects("web.yaml", named("a"))?;
    }
    ensure!(cluster.count_log("synced") == commits, "something was written for what changes nothing");
    ask(&cluster, lanes, &Expect::by(&["local"]))
}
