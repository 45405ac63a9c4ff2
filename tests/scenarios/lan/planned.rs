//! Moves that somebody wanted: a daemon that ends in good order, a node that is not to announce any more. No request is lost.

use super::{
    requests::Requests,
    stage::{VIP, await_announcement, order, own_vip, settle, start, start_configured, stays, vips},
};
use anyhow::ensure;
use serde_json::{Value, json};
use sheave_tests::{
    lan::{Lan, advertisement},
    scenario::Scenario,
    scenarios,
};
use std::time::Instant;

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("lan":
        a_daemon_that_ends_hands_over needs ["nftables"], within 90 s;
        nodes_that_must_not_announce_hand_over needs ["nftables"], within 120 s;
        cordoned_nodes_hand_over_where_that_is_wanted needs ["nftables"], within 90 s;
        a_node_that_is_deleted_gives_up needs ["nftables"], within 90 s;
    )
    .to_vec()
}

/// SIGTERM to one after the other, under requests; and no return when it is started again.
fn a_daemon_that_ends_hands_over() -> anyhow::Result<()> {
    let mut lan = start()?;
    let requests = Requests::start(&lan, &vips())?;
    // The order is a, c, b.
    for (leaver, heir) in [(0, 2), (2, 0)] {
        let ended = Instant::now();
        let status = lan.terminate(leaver)?;
        ensure!(status.success(), "{status}");
        await_announcement(&lan, VIP, heir, ended)?;
        lan.await_announced_by(VIP, heir)?;
        requests.go_on()?;
        lan.start(leaver)?;
        lan.await_announced_by(own_vip(leaver), leaver)?;
        stays(&lan, VIP, heir)?;
    }
    requests.finish(lan.recorder())
}

/// A change of an object that moves the VIP away from node-a, and one that takes it back.
fn nodes_that_must_not_announce_hand_over() -> anyhow::Result<()> {
    let lan = start()?;
    let requests = Requests::start(&lan, &vips())?;
    let unavailable = |status: &str| {
        let conditions = json!([{ "type": "NetworkUnavailable", "status": status }, { "type": "Ready", "status": "True" }]);
        ("nodes/status", json!({ "status": { "conditions": conditions } }))
    };
    let label = |value: Value| {
        let key = "node.kubernetes.io/exclude-from-external-load-balancers";
        ("nodes", json!({ "metadata": { "labels": { key: value } } }))
    };
    for (away, back) in [(unavailable("True"), unavailable("False")), (label(json!("")), label(Value::Null))] {
        for ((resource, change), announcer) in [(away, 2), (back, 0)] {
            patch(&lan, resource, change)?;
            lan.await_announced_by(VIP, announcer)?;
            requests.go_on()?;
        }
    }
    // Cordoned: its pods may go, the node announces on.
    cordon(&lan, true)?;
    stays(&lan, VIP, 0)?;

    for (selected, announcer) in [(&["node-b"][..], 1), (&["node-b", "node-c"], 2), (&["node-c", "node-a"], 0)] {
        select(&lan, selected)?;
        lan.await_announced_by(VIP, announcer)?;
        requests.go_on()?;
    }
    requests.finish(lan.recorder())?;
    select(&lan, &["node-z"])?;
    for vip in vips() {
        lan.await_silence(vip)?;
    }
    lan.apply([advertisement("lan", &json!({ "ipAddressPools": ["lan"] }))])?;
    lan.api().delete("services", "default", "web").map_err(|status| anyhow::anyhow!("the API server refused: {status:?}"))?;
    for vip in vips() {
        lan.await_silence(vip)?;
    }
    lan.publish(&vips())?;
    for vip in vips() {
        lan.await_announced_by(vip, order(&lan, vip)[0])?;
    }
    Ok(())
}

/// `kubectl delete node` while its daemon runs: to the others it is nobody any more, and it hears none of them.
fn a_node_that_is_deleted_gives_up() -> anyhow::Result<()> {
    let lan = start()?;
    let (deleted, object) = (Instant::now(), lan.api().get("nodes", "", "node-a"));
    lan.api().delete("nodes", "", "node-a").map_err(|status| anyhow::anyhow!("the API server refused: {status:?}"))?;
    await_announcement(&lan, VIP, 2, deleted)?;
    ensure!(settle(&lan, VIP, deleted)? == 2, "it is still announced by the node that is gone");
    // And back.
    let returned = Instant::now();
    lan.apply(object.into_iter().map(|mut node| {
        node["metadata"] = json!({ "name": "node-a", "labels": node["metadata"]["labels"] });
        node
    }))?;
    lan.await_announced_by(own_vip(0), 0)?;
    settle(&lan, VIP, returned).map(drop)
}

/// A drain begins so. Uncordoned, it gets back what it had: nothing has failed.
fn cordoned_nodes_hand_over_where_that_is_wanted() -> anyhow::Result<()> {
    let lan = start_configured("moveFromCordoned: true")?;
    let requests = Requests::start(&lan, &vips())?;
    for (cordoned, announcer) in [(true, 2), (false, 0)] {
        cordon(&lan, cordoned)?;
        lan.await_announced_by(VIP, announcer)?;
        requests.go_on()?;
    }
    requests.finish(lan.recorder())
}

/// Changes node-a.
fn cordon(lan: &Lan, unschedulable: bool) -> anyhow::Result<()> {
    patch(lan, "nodes", json!({ "spec": { "unschedulable": unschedulable } }))
}

fn patch(lan: &Lan, resource: &str, patch: Value) -> anyhow::Result<()> {
    let patched = lan.api().patch(resource, "", "node-a", patch);
    patched.map(drop).map_err(|status| anyhow::anyhow!("the API server refused it: {status:?}"))
}

/// Lets only these announce.
fn select(lan: &Lan, nodes: &[&str]) -> anyhow::Result<()> {
    let selectors: Vec<Value> = nodes.iter().map(|node| json!({ "matchLabels": { "kubernetes.io/hostname": node } })).collect();
    lan.apply([advertisement("lan", &json!({ "ipAddressPools": ["lan"], "nodeSelectors": selectors }))])
}
