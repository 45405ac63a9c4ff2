//! Members that do not hear each other, on one LAN of clients: nobody can know whether the other side lives. There may be two answers for
//! a few seconds, and there is one in the end.

use super::stage::{VIP, settle, start, vips};
use anyhow::ensure;
use sheave_tests::{
    lan::{Lan, LanOptions, Network},
    scenario::Scenario,
    scenarios,
};
use std::time::Instant;

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("lan":
        a_partition_around_the_announcer_leaves_one needs ["nftables"], waiting 120 s;
        a_partition_around_somebody_else_leaves_one needs ["nftables"], waiting 120 s;
        two_halves_leave_one needs ["nftables"], waiting 120 s;
        nodes_that_never_heard_each_other_leave_one needs ["nftables"], waiting 90 s;
    )
    .to_vec()
}

/// The members' network is parted around these nodes, and those have no API server; then all is mended.
fn part(lan: &Lan, side: &[usize], without_api: &[usize]) -> anyhow::Result<usize> {
    let parted = Instant::now();
    lan.part(Network::Members, side)?;
    without_api.iter().try_for_each(|&node| lan.cut(node, Network::Api))?;
    let announcer = settle(lan, VIP, parted)?;
    let joined = Instant::now();
    lan.join(Network::Members, side)?;
    without_api.iter().try_for_each(|&node| lan.mend(node, Network::Api))?;
    settle(lan, VIP, joined)?;
    Ok(announcer)
}

/// Wherever the VIP is when it begins: fewer than half on its side. With the API on both sides, on either, on none.
fn a_partition_around_the_announcer_leaves_one() -> anyhow::Result<()> {
    let lan = start()?;
    for api in [[true, true], [true, false], [false, true], [false, false]] {
        let announcer = lan.await_announcer(VIP)?;
        let others: Vec<usize> = (0..lan.size()).filter(|&node| node != announcer).collect();
        part(&lan, &[announcer], &without(api, &[announcer], &others))?;
    }
    Ok(())
}

/// The announcer is with the greater half, and has no reason to move.
fn a_partition_around_somebody_else_leaves_one() -> anyhow::Result<()> {
    let lan = start()?;
    for api in [[true, true], [true, false], [false, false]] {
        let announcer = lan.await_announcer(VIP)?;
        let lone = (announcer + 1) % lan.size();
        let others: Vec<usize> = (0..lan.size()).filter(|&node| node != lone).collect();
        let left = part(&lan, &[lone], &without(api, &[lone], &others))?;
        ensure!(left == announcer, "it moved to {} of {api:?}", lan.node(left).name());
    }
    Ok(())
}

/// Of two members each is half, and goes on without the API.
fn two_halves_leave_one() -> anyhow::Result<()> {
    let mut lan = start()?;
    lan.terminate(1)?;
    for api in [[true, true], [true, false], [false, true], [false, false]] {
        part(&lan, &[0], &without(api, &[0], &[2]))?;
    }
    Ok(())
}

/// As where a firewall has the membership's port closed: nobody was ever heard who could be missed, and the Leases say who lives.
fn nodes_that_never_heard_each_other_leave_one() -> anyhow::Result<()> {
    let mut lan = Lan::new(&LanOptions::default())?;
    lan.publish(&vips())?;
    lan.part(Network::Members, &[0])?;
    let started = Instant::now();
    lan.start_all()?;
    // Either: the LAN is asked before a VIP is taken that nobody is known to hold, so whoever comes first has it.
    settle(&lan, VIP, started)?;
    let joined = Instant::now();
    lan.join(Network::Members, &[0])?;
    settle(&lan, VIP, joined).map(drop)
}

/// Those who have no API.
fn without([side, rest]: [bool; 2], inside: &[usize], outside: &[usize]) -> Vec<usize> {
    let lost = |api: bool, nodes: &[usize]| if api { Vec::new() } else { nodes.to_vec() };
    [lost(side, inside), lost(rest, outside)].concat()
}
