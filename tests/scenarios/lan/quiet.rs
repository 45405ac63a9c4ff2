//! What must not happen: a VIP that moves for no reason, a server that is written to for nothing.

use super::{
    requests::Requests,
    stage::{A_WHILE, VIP, await_announcement, own_vip, start, start_with, stays, stays_for, vips},
};
use anyhow::ensure;
use k8s_openapi::ByteString;
use serde_json::json;
use sheave_lab::BadLink;
use sheave_tests::{
    lan::{Lan, LanOptions, advertisement, pool},
    scenario::{Scenario, patiently},
    scenarios,
};
use std::{
    thread,
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("lan":
        without_the_api_nothing_is_withdrawn_and_others_take_over needs ["nftables"], within 90 s;
        a_bad_network_moves_nothing needs ["nftables"], waiting 90 s;
        at_rest_nothing_is_written needs ["nftables"], waiting 90 s;
        another_key_moves_nothing needs ["nftables"], waiting 90 s;
    )
    .to_vec()
}

fn without_the_api_nothing_is_withdrawn_and_others_take_over() -> anyhow::Result<()> {
    let lan = start()?;
    let requests = Requests::start(&lan, &vips())?;
    lan.stop_api()?;
    stays_for(&lan, VIP, 0, 2 * A_WHILE)?;
    requests.finish(lan.recorder())?;

    let cut = Instant::now();
    lan.cut_off(0)?;
    await_announcement(&lan, VIP, 2, cut)?;
    lan.await_announced_by(VIP, 2)?;
    Requests::start(&lan, &[VIP])?.finish(lan.recorder())?;

    // Its return makes no noise: who announces has been heard, and says nothing once more.
    stays(&lan, VIP, 2)?;
    let resumed = Instant::now();
    lan.resume_api()?;
    stays(&lan, VIP, 2)?;
    let said = lan.recorder().announcements(VIP, resumed + Duration::from_secs(1));
    ensure!(said.is_empty(), "announced again: {said:?}");
    lan.reconnect(0)?;
    lan.await_announced_by(own_vip(0), 0)?;
    stays(&lan, VIP, 2)
}

/// Between any two members 5 % are lost, and the others take up to 100 ms: two links of half of that each.
fn a_bad_network_moves_nothing() -> anyhow::Result<()> {
    let link = BadLink { loss: 0.025, jitter: Duration::from_millis(50), ..BadLink::good(7) };
    let lan = start_with(&LanOptions { members_link: Some(link), ..LanOptions::default() })?;
    stays_for(&lan, VIP, 0, Duration::from_secs(20))
}

fn at_rest_nothing_is_written() -> anyhow::Result<()> {
    const PAUSE: Duration = Duration::from_secs(11);
    let mut lan = Lan::new(&LanOptions::default())?;
    lan.apply([pool("lan", &vips()), advertisement("lan", &json!({}))])?;
    lan.start_all()?;
    let deadline = Instant::now() + patiently(Duration::from_secs(30));
    while lan.api().open_watches("l2advertisements") < lan.size() {
        ensure!(Instant::now() < deadline, "not every node watches L2Advertisements");
        thread::sleep(Duration::from_millis(20));
    }
    // Each has said that it starts.
    thread::sleep(A_WHILE);
    let before = lan.api().writes();
    thread::sleep(PAUSE);
    let writes = lan.api().writes() - before;
    ensure!(writes == 0, "{writes} writes without a VIP: {:?}, {:?}", lan.api().asked_for(), lan.api().list("events"));

    // With VIPs, those that announce renew a Lease every five seconds, and that is all, whatever the number of VIPs.
    lan.publish(&vips())?;
    for vip in vips() {
        lan.await_announcer(vip)?;
    }
    thread::sleep(A_WHILE);
    let before = lan.api().writes();
    thread::sleep(PAUSE);
    let writes = lan.api().writes() - before;
    ensure!((1..=6).contains(&writes), "{writes} writes in {PAUSE:?} by two announcers");
    Ok(())
}

/// The Secret that the announcers share gets another key: all go over to it, each in its own time, and one that starts afterwards is heard.
fn another_key_moves_nothing() -> anyhow::Result<()> {
    let mut lan = start()?;
    let key = ByteString(vec![7; 32]);
    lan.api()
        .patch("secrets", "kube-system", "sheave-gossip", json!({ "data": { "key": key } }))
        .map_err(|status| anyhow::anyhow!("the API server refused it: {status:?}"))?;
    // Ten seconds until it is used, and as many until the old one is forgotten.
    stays_for(&lan, VIP, 0, Duration::from_secs(24))?;
    let killed = Instant::now();
    lan.kill(2)?;
    lan.start(2)?;
    lan.await_announced_by(own_vip(2), 2)?;
    lan.kill(0)?;
    await_announcement(&lan, VIP, 2, killed)?;
    lan.await_announced_by(VIP, 2)
}
