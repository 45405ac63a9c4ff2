//! Moves that somebody wanted: a daemon that ends in good order, a node that is not to announce any more. No request is lost.

use super::{
    requests::Requests,
    stage::{VIP, await_announcement, order, own_vip, start, stays, vips},
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
    )
    .to_vec()
}

/// SIGTERM to one after the other, under requests; and no return when it is started again.
fn a_daemon_that_ends_hands_over() -> anyhow::Result<()> {
    let mut lan = start()?;
    let requests = Requests::start(&lan, &vips())?;
    for (leaver, heir) in [(0, 2), (2, 1)] {
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
        for ((resource, patch), announcer) in [(away, 2), (back, 0)] {
            lan.api()
                .patch(resource, "", "node-a", patch)
                .map_err(|status| anyhow::anyhow!("the API server refused it: {status:?}"))?;
            lan.await_announced_by(VIP, announcer)?;
            requests.go_on()?;
        }
    }
    // Cordoned: its pods may go, the node announces on.
    lan.api()
        .patch("nodes", "", "node-a", json!({ "spec": { "unschedulable": true } }))
        .map_err(|status| anyhow::anyhow!("the API server refused it: {status:?}"))?;
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
    for vip in vips() {
        lan.await_announced_by(vip, order(&lan, vip)[0])?;
    }
    Ok(())
}

/// Lets only these announce.
fn select(lan: &Lan, nodes: &[&str]) -> anyhow::Result<()> {
    let selectors: Vec<Value> = nodes.iter().map(|node| json!({ "matchLabels": { "kubernetes.io/hostname": node } })).collect();
    lan.apply([advertisement("lan", &json!({ "ipAddressPools": ["lan"], "nodeSelectors": selectors }))])
}
