//! Which endpoints count: conditions and hints.

use crate::fixture::{Checks, Cluster, Endpoint, Expect, Lane, Service, node_in_zone};

/// `TestTerminatingEndpointsTrafficPolicyLocal`, with the step in which all local endpoints are on their way out.
pub(super) fn row_16_terminating_endpoints_local(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for (name, address) in [("two", "10.180.0.12"), ("three", "10.180.0.13"), ("four", "10.180.0.14")] {
        cluster.local_pod(name, address)?;
    }
    let service = Service::new("svc1", "172.30.0.41").port(80).vip("1.2.3.4").external_local();
    let [one, two, three, four] = ["10.180.0.1", "10.180.0.12", "10.180.0.13", "10.180.0.14"].map(Endpoint::local);
    let five = Endpoint::remote("10.180.2.1");
    let some_ready = [one.clone(), two.clone(), three.clone().terminating(), four.clone().dying(), five.clone()];
    let none_ready_here = [one.terminating(), two.terminating(), three.dying(), four.conditions(false, true, false), five];
    for (endpoints, inside, outside) in [
        (some_ready, Expect::by(&["local", "two", "remote"]), Expect::by(&["local", "two"]).kept()),
        // A ready endpoint elsewhere serves the inside alone; for outside clients, those on their way out are the last resort.
        (none_ready_here, Expect::by(&["remote"]), Expect::by(&["local", "two"]).kept()),
    ] {
        cluster.services(&[&service.clone().with_endpoints(endpoints)])?;
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), inside.clone());
            checks.ask(lane, cluster.client(), ("1.2.3.4", 80), outside.clone());
        }
        checks.run()?;
    }
    Ok(())
}

/// `TestTerminatingEndpointsTrafficPolicyCluster`: when nobody is ready anywhere, those on their way out serve, and only those who still can.
pub(super) fn row_19_terminating_endpoints_cluster(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for (name, address) in [("three", "10.180.0.13"), ("four", "10.180.0.14")] {
        cluster.local_pod(name, address)?;
    }
    let service = Service::new("svc1", "172.30.0.41").port(80).vip("1.2.3.4");
    let endpoints = [
        Endpoint::local("10.180.0.1").terminating(),
        Endpoint::local("10.180.0.13").terminating(),
        Endpoint::local("10.180.0.14").dying(),
        Endpoint::remote("10.180.2.1").terminating(),
    ];
    let everybody = Expect::by(&["local", "three", "remote"]);
    cluster.services(&[&service.clone().with_endpoints(endpoints.clone())])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), everybody.clone());
        checks.ask(lane, cluster.client(), ("1.2.3.4", 80), everybody.clone().masqueraded());
    }
    checks.run()?;

    // One that is ready, anywhere, and they are out of it.
    cluster.far_pod("six", "10.180.2.6")?;
    cluster.services(&[&service.with_endpoints(endpoints).endpoint(Endpoint::remote("10.180.2.6"))])?;
    let mut checks = Checks::default();
    for &lane in lanes {
        checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), Expect::by(&["six"]));
        checks.ask(lane, cluster.client(), ("1.2.3.4", 80), Expect::by(&["six"]).masqueraded());
    }
    checks.run()
}

/// `TestCategorizeEndpoints`: zone hints count if every ready endpoint has one and one of them is for our zone.
pub(super) fn row_20_zone_hints(lanes: &[Lane]) -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for (name, address) in [("two", "10.180.2.2"), ("three", "10.180.2.3"), ("four", "10.180.2.4")] {
        cluster.far_pod(name, address)?;
    }
    let [two, three, four] = ["10.180.2.2", "10.180.2.3", "10.180.2.4"].map(Endpoint::remote);
    let one = Endpoint::remote("10.180.2.1");
    let hinted = [one.for_zone("a"), two.clone().for_zone("b"), three.for_zone("c"), four.for_zone("a")];
    let mut lacking = hinted.clone();
    lacking[1] = two;
    let service = |name, ip, endpoints| Service::new(name, ip).port(80).with_endpoints(endpoints);
    let services = [service("hinted", "172.30.0.41", hinted), service("lacking", "172.30.0.42", lacking)];
    cluster.services(&[&services[0], &services[1]])?;
    let everybody = Expect::by(&["remote", "two", "three", "four"]);
    // The zone is a label of the Node, and followed while the daemon runs; the first time, the Node has none.
    for (zone, hinted) in
        [(None, everybody.clone()), (Some("a"), Expect::by(&["remote", "four"])), (Some("d"), everybody.clone())]
    {
        if let Some(zone) = zone {
            cluster.objects("cluster.yaml", [node_in_zone(zone), crate::fixture::service_cidr()])?;
        }
        let mut checks = Checks::default();
        for &lane in lanes {
            checks.ask(lane, &cluster.pod, ("172.30.0.41", 80), hinted.clone());
            checks.ask(lane, &cluster.pod, ("172.30.0.42", 80), everybody.clone());
        }
        checks.run()?;
    }
    Ok(())
}
