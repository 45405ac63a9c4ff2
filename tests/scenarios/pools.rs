//! Addresses of pools for Services of manifests: `sheave run --controller`.

use crate::fixture::{Checks, Cluster, DETECT_PODS, Endpoint, Expect, Service, TCP_UDP, dual};
use anyhow::Context as _;
use serde_json::{Value, json};
use sheave_tests::{scenario::Scenario, scenarios};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("pools":
        services_are_served_at_addresses_of_their_pools needs ["nftables"];
    )
    .to_vec()
}

/// A pool of one address and its twin.
fn pool(name: &str, address: &str) -> Value {
    let [v4, v6] = [format!("{}/32", dual(address)[0]), format!("{}/128", dual(address)[1])];
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": { "namespace": "metallb-system", "name": name },
        "spec": { "addresses": [v4, v6] },
    })
}

/// Of type LoadBalancer, without a status.
fn wanting(name: &str, cluster_ip: &str, created: &str) -> Service {
    let service = Service::new(name, cluster_ip).port(80).spec("type", "LoadBalancer").spec("ipFamilyPolicy", "RequireDualStack");
    service.created(created)
}

fn services_are_served_at_addresses_of_their_pools() -> anyhow::Result<()> {
    let cluster = Cluster::start_with(&[&DETECT_PODS[..], &["--controller"]].concat())?;
    let first = wanting("first", "172.30.0.41", "2026-01-01T00:00:00Z").endpoint(Endpoint::local("10.180.0.1"));
    let second = wanting("second", "172.30.0.42", "2026-01-02T00:00:00Z").endpoint(Endpoint::remote("10.180.2.1"));
    let (a, b) = ("192.168.0.240", "192.168.0.241");
    for (what, pools, services, expected) in [
        ("an address for the older one", vec![pool("a", a)], vec![&first, &second], vec![(a, "local")]),
        ("and for the other", vec![pool("a", a), pool("b", b)], vec![&first, &second], vec![(a, "local"), (b, "remote")]),
        ("whoever has one keeps it", vec![pool("a", a), pool("b", b)], vec![&second], vec![(b, "remote")]),
        ("until its pool goes", vec![pool("a", a)], vec![&second], vec![(a, "remote")]),
    ] {
        cluster.objects("pools.yaml", pools)?;
        cluster.services(&services)?;
        let mut checks = Checks::default();
        for lane in TCP_UDP {
            for from in [cluster.client(), &cluster.pod, cluster.node()] {
                for (address, server) in &expected {
                    checks.ask(lane, from, (*address, 80), Expect::by(&[*server]));
                }
            }
        }
        checks.run().context(what)?;
    }
    Ok(())
}
