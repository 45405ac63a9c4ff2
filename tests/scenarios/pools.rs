//! Addresses of pools for Services of manifests: `sheave run --controller`.

use crate::fixture::{Checks, Cluster, DETECT_PODS, Endpoint, Expect, Family, Service, TCP_UDP, dual};
use crate::kube::served::{ApiCluster, eventually};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use sheave_lab::Host;
use sheave_tests::{scenario::Scenario, scenarios};
use std::{collections::BTreeSet, time::Duration};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("pools":
        services_are_served_at_addresses_of_their_pools needs ["nftables"];
        an_address_of_another_host_is_given_out_when_it_is_free needs ["nftables"], waiting 120 s;
        an_address_of_another_host_reaches_no_status needs ["nftables"];
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

/// What a host of the LAN has, and what is left.
const OCCUPIED: &str = "192.168.0.240";
const FREE: &str = "192.168.0.241";
/// Under load of other work; and a taken address is asked for every half minute.
const LONG: Duration = Duration::from_secs(60);

fn pool_of_both() -> Value {
    json!({
        "apiVersion": "metallb.io/v1beta1", "kind": "IPAddressPool", "metadata": { "namespace": "metallb-system", "name": "lan" },
        "spec": { "addresses": [format!("{OCCUPIED}-{FREE}"), format!("{}-{}", dual(OCCUPIED)[1], dual(FREE)[1])] },
    })
}

fn asking(name: &str, cluster_ip: &str) -> Service {
    Service::new(name, cluster_ip).port(80).spec("type", "LoadBalancer").endpoint(Endpoint::local("10.180.0.1"))
}

/// A host of the LAN that has an address of the pool.
fn occupier(cluster: &Cluster) -> anyhow::Result<Host> {
    let host = cluster.lan_host("occupier", "192.168.0.9", None)?;
    host.add_address("eth0", &format!("{OCCUPIED}/32"))?;
    Ok(host)
}

fn served(cluster: &Cluster, at: &str) -> anyhow::Result<()> {
    let mut checks = Checks::default();
    for lane in TCP_UDP.into_iter().filter(|lane| lane.family == Family::V4) {
        checks.ask(lane, cluster.client(), (at, 80), Expect::by(&["local"]));
    }
    checks.run()
}

fn an_address_of_another_host_is_given_out_when_it_is_free() -> anyhow::Result<()> {
    let cluster = Cluster::start_with(&[&DETECT_PODS[..], &["--controller"]].concat())?;
    let occupier = occupier(&cluster)?;
    cluster.objects("pools.yaml", [pool_of_both()])?;
    let (first, second) = (asking("first", "172.30.0.41"), asking("second", "172.30.0.42"));
    cluster.services(&[&first])?;
    cluster.await_log(&format!("{OCCUPIED} is not given to a Service: another host has it"), LONG)?;
    // Behind the IPv6 address, which stays.
    cluster.await_log(&format!("\"{FREE}\"]"), LONG)?;
    served(&cluster, FREE)?;
    cluster.services(&[&first, &second])?;
    cluster.await_log("no available IPs", LONG)?;
    occupier.del_address("eth0", &format!("{OCCUPIED}/32"))?;
    cluster.await_log(&format!("{OCCUPIED} can be given to a Service"), LONG)?;
    // It is asked for once more when somebody is to have it.
    crate::fixture::eventually(|| served(&cluster, OCCUPIED))?;
    served(&cluster, FREE)
}

/// On an API server: what is occupied is never written.
fn an_address_of_another_host_reaches_no_status() -> anyhow::Result<()> {
    let mut cluster = ApiCluster::new()?;
    cluster.api.install_metallb();
    // It would take what is free.
    cluster.delete_service("web")?;
    let _occupier = occupier(&cluster)?;
    cluster.apply([pool_of_both()])?;
    cluster.services([&asking("first", "172.30.0.61")])?;
    let url = cluster.api.url();
    cluster.start_on_api(&url, &[&DETECT_PODS[..], &["--controller"]].concat())?;
    let mut seen = BTreeSet::new();
    eventually("an address", || {
        let service = cluster.api.get("services", "ns", "first").context("the Service")?;
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        seen.extend(ingress.filter_map(|entry| entry["ip"].as_str().map(str::to_owned)));
        Ok(seen.contains(FREE))
    })?;
    ensure!(!seen.contains(OCCUPIED), "the status said {seen:?}");
    cluster.await_log(&format!("{OCCUPIED} is not given to a Service: another host has it"), LONG).map(drop)
}
