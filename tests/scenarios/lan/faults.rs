//! The three faults and a fourth: a node that is gone, a daemon that is dead or stuck while its node forwards, a cable that is pulled.

use super::{
    requests::Requests,
    stage::{VIP, await_announcement, no_other, order, own_vip, start, stays, vips},
};
use anyhow::{Context as _, ensure};
use sheave_lab::{Port, Request};
use sheave_tests::{
    lan::{Lan, LanOptions, PORT},
    scenario::Scenario,
    scenarios,
};
use std::{
    fs,
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("lan":
        a_node_that_is_cut_off_is_replaced needs ["nftables"], within 90 s;
        a_daemon_that_is_back_soon_moves_nothing needs ["nftables"], within 90 s;
        a_daemon_that_stays_away_is_replaced_and_loses_no_request needs ["nftables"], within 90 s;
        a_stuck_daemon_is_replaced_and_loses_no_request needs ["nftables"], within 90 s;
        a_pulled_cable_moves_what_it_carried needs ["nftables"], within 90 s;
    )
    .to_vec()
}

/// `daemonRestartGrace`, unless the configuration says otherwise.
const GRACE: Duration = Duration::from_secs(3);

/// The client's requests are answered, through whoever announces now.
fn is_served(lan: &Lan) -> anyhow::Result<()> {
    for vip in vips() {
        let outcome = lan.client().ask(&Request::to(Port::tcp(PORT), vip))?;
        ensure!(outcome.by() == Some("echo"), "{vip}: {outcome}");
    }
    Ok(())
}

/// Silently, as by a switch that dies. Two nodes in a row, so that in the end fewer than half are left, with the API. One that comes back
/// finds its VIP elsewhere, where it stays.
fn a_node_that_is_cut_off_is_replaced() -> anyhow::Result<()> {
    let lan = start()?;
    is_served(&lan)?;
    let cut = Instant::now();
    let order_of_both = vips().map(|vip| order(&lan, vip));
    lan.cut_off(0)?;
    for (vip, order) in vips().into_iter().zip(&order_of_both) {
        let next = *order.iter().find(|&&node| node != 0).context("three nodes")?;
        if order[0] == 0 {
            await_announcement(&lan, vip, next, cut)?;
        }
        lan.await_announced_by(vip, next)?;
    }
    is_served(&lan)?;
    lan.await_silence(own_vip(0))?;

    let back = Instant::now();
    lan.reconnect(0)?;
    lan.await_announced_by(own_vip(0), 0)?;
    stays(&lan, VIP, 2)?;
    let dispute = lan.recorder().longest_dispute(VIP, back);
    ensure!(dispute <= Duration::from_secs(5), "two answered for {dispute:?}");

    lan.cut_off(0)?;
    lan.cut_off(2)?;
    await_announcement(&lan, VIP, 1, back)?;
    lan.await_announced_by(VIP, 1)?;
    is_served(&lan)
}

/// Killed while requests come in, and started again within the grace. Its rules stay in the kernel, so the node forwards; and who knows its
/// hardware address goes on using it.
fn a_daemon_that_is_back_soon_moves_nothing() -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let config = files.path().join("sheave.yaml");
    // On a busy machine an unoptimised daemon needs longer than usual to start.
    let head = "apiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\n";
    fs::write(&config, format!("{head}loadBalancer: {{ daemonRestartGrace: 15s }}\n"))?;
    let arguments = vec!["--config".to_owned(), config.display().to_string()];
    let mut lan = super::stage::start_with(&LanOptions { arguments, ..LanOptions::default() })?;
    let requests = Requests::start(&lan, &vips())?;
    let (since, mac) = (Instant::now(), lan.mac(0)?);
    for _ in 0..2 {
        lan.kill(0)?;
        requests.go_on()?;
        lan.start(0)?;
        lan.await_announced_by(own_vip(0), 0)?;
        lan.await_announced_by(VIP, 0)?;
    }
    stays(&lan, VIP, 0)?;
    no_other(&lan, VIP, mac, since)?;
    requests.finish(lan.recorder())
}

fn a_daemon_that_stays_away_is_replaced_and_loses_no_request() -> anyhow::Result<()> {
    let mut lan = start()?;
    let requests = Requests::start(&lan, &vips())?;
    let killed = Instant::now();
    lan.kill(0)?;
    await_announcement(&lan, VIP, 2, killed)?;
    ensure!(killed.elapsed() >= GRACE, "it was replaced after {:?}", killed.elapsed());
    lan.await_announced_by(VIP, 2)?;
    requests.finish(lan.recorder())?;
    // It comes back, and its VIP does not.
    lan.start(0)?;
    lan.await_announced_by(own_vip(0), 0)?;
    stays(&lan, VIP, 2)
}

fn a_stuck_daemon_is_replaced_and_loses_no_request() -> anyhow::Result<()> {
    let mut lan = start()?;
    let requests = Requests::start(&lan, &vips())?;
    let stalled = Instant::now();
    lan.stall(0)?;
    await_announcement(&lan, VIP, 2, stalled)?;
    ensure!(stalled.elapsed() >= GRACE, "it was replaced after {:?}", stalled.elapsed());
    lan.await_announced_by(VIP, 2)?;
    let awake = Instant::now();
    let questions = lan.recorder().keep_asking(VIP, Duration::from_millis(50))?;
    lan.resume(0)?;
    lan.await_announced_by(own_vip(0), 0)?;
    stays(&lan, VIP, 2)?;
    drop(questions);
    let dispute = lan.recorder().longest_dispute(VIP, awake);
    ensure!(dispute <= Duration::from_secs(5), "two answered for {dispute:?}");
    requests.finish(lan.recorder())?;
    // Who took over can fail in turn.
    let killed = Instant::now();
    lan.kill(2)?;
    await_announcement(&lan, VIP, 0, killed)?;
    lan.await_announced_by(VIP, 0)
}

/// The API and the other members are reached all the while: by another network.
fn a_pulled_cable_moves_what_it_carried() -> anyhow::Result<()> {
    let lan = start()?;
    let pulled = Instant::now();
    lan.unplug(0)?;
    await_announcement(&lan, VIP, 2, pulled)?;
    lan.await_announced_by(VIP, 2)?;
    lan.await_silence(own_vip(0))?;
    is_served(&lan)?;
    let plugged = Instant::now();
    lan.plug_in(0)?;
    await_announcement(&lan, own_vip(0), 0, plugged)?;
    lan.await_announced_by(own_vip(0), 0)?;
    // Wherever it is now, one node answers for it.
    lan.await_announcer(VIP)?;
    is_served(&lan)
}
