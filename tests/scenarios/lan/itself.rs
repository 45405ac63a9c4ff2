//! The LAN itself, without a daemon: what is recorded of it, and what its cables do.

use anyhow::ensure;
use sheave_lab::{Outcome, Request, Word, twin};
use sheave_tests::{
    lan::{Lan, LanOptions, Network, PORT},
    scenario::Scenario,
    scenarios,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

pub(crate) fn scenarios() -> Vec<Scenario> {
    scenarios!("lan":
        frames_are_recorded_with_their_times needs ["tool:arping"];
        cables_are_cut_pulled_and_parted;
    )
    .to_vec()
}

const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 240);
const SOON: Duration = Duration::from_secs(5);

/// The kernels of two nodes answer for one address here, as no daemon does.
fn frames_are_recorded_with_their_times() -> anyhow::Result<()> {
    let lan = Lan::new(&LanOptions::default())?;
    let (start, vips) = (Instant::now(), [IpAddr::from(VIP), twin(VIP).into()]);
    lan.node(0).add_address("eth0", &format!("{VIP}/32"))?;
    lan.node(0).add_address("eth0", &format!("{}/128", twin(VIP)))?;
    for vip in vips {
        lan.await_announced_by(vip, 0)?;
    }
    let before = Instant::now();
    lan.node(0).exec("arping", &["-U", "-c", "1", "-i", "eth0", "-S", "192.168.1.240", "192.168.1.240"])?;
    let heard = lan.recorder().await_announcement(vips[0], start, SOON, |_| true)?;
    ensure!(heard.mac == lan.mac(0)? && heard.word == Word::Announced, "{heard:?}");
    ensure!((before..=Instant::now()).contains(&heard.at), "it was {:?} after the frame's time", heard.at.elapsed());

    ensure!(lan.recorder().longest_dispute(vips[0], start) == Duration::ZERO);
    lan.node(2).add_address("eth0", &format!("{VIP}/32"))?;
    let questions = lan.recorder().keep_asking(vips[0], Duration::from_millis(20))?;
    let deadline = Instant::now() + SOON;
    while lan.recorder().longest_dispute(vips[0], start) < Duration::from_millis(100) {
        ensure!(Instant::now() < deadline, "two that answer are no dispute: {:?}", lan.answering(vips[0])?);
    }
    drop(questions);
    ensure!(lan.answering(vips[0])? == [0, 2]);
    Ok(())
}

fn cables_are_cut_pulled_and_parted() -> anyhow::Result<()> {
    let lan = Lan::new(&LanOptions::default())?;
    let ask = |from: usize, to: Ipv4Addr| -> anyhow::Result<Outcome> {
        let request = Request::to(sheave_lab::Port::tcp(PORT), to.into()).timeout(Duration::from_millis(700));
        Ok(lan.node(from).ask(&request)?)
    };
    // Nobody listens on a node, so its kernel refuses: it is there.
    let reaches = |from, to| -> anyhow::Result<bool> { Ok(ask(from, to)? == Outcome::Refused) };
    let at = |network: u8, node: u8| Ipv4Addr::new(192, 168, network, 11 + node);
    let pod = lan.pod(lan.node(1), "own", "10.180.1.1")?;
    for from in [0, 2] {
        ensure!(ask(from, lan.echo().ipv4())?.by() == Some("echo"));
        ensure!(ask(from, pod.ipv4())?.by() == Some("own"));
    }

    lan.cut(1, Network::Members)?;
    ensure!(
        !reaches(0, at(2, 1))? && reaches(0, at(1, 1))? && reaches(0, at(2, 2))?,
        "the members' network is cut, and nothing else"
    );
    lan.mend(1, Network::Members)?;
    ensure!(reaches(0, at(2, 1))?);

    lan.cut_off(1)?;
    ensure!(!reaches(0, at(1, 1))? && !reaches(0, at(2, 1))? && !reaches(0, at(3, 1))?);
    ensure!(carrier(&lan, 1)?, "it does not notice");
    lan.reconnect(1)?;
    ensure!(reaches(0, at(1, 1))? && reaches(0, at(3, 1))?);

    lan.part(Network::Members, &[1, 2])?;
    ensure!(reaches(2, at(2, 1))? && !reaches(0, at(2, 1))? && reaches(0, at(1, 1))?);
    ensure!(ask(0, lan.echo().ipv4())?.by().is_some() && ask(1, lan.echo().ipv4())?.by().is_none());
    lan.join(Network::Members, &[1, 2])?;
    ensure!(reaches(0, at(2, 1))?);

    lan.unplug(1)?;
    let deadline = Instant::now() + SOON;
    while carrier(&lan, 1)? {
        ensure!(Instant::now() < deadline, "its carrier stays");
    }
    lan.plug_in(1)?;
    while !reaches(0, at(1, 1))? {
        ensure!(Instant::now() < deadline + SOON, "it does not come back");
    }
    Ok(())
}

/// Whether a node's interface on the LAN has a carrier.
fn carrier(lan: &Lan, node: usize) -> anyhow::Result<bool> {
    Ok(lan.node(node).exec("ip", &["link", "show", "dev", "eth0"])?.stdout.contains("LOWER_UP"))
}
