//! Requests to VIPs from the LAN, a hundred a second, of which none may fail.

use super::stage::SOON;
use anyhow::{Context as _, ensure};
use sheave_lab::{FreshFlows, Outcome, Port, Recorder, Request};
use sheave_tests::{
    lan::{Lan, PORT},
    scenario::patiently,
};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// Until they are [finished](Self::finish).
pub(super) struct Requests {
    began: Instant,
    /// One datagram and its answer.
    udp: Vec<(IpAddr, FreshFlows)>,
    /// A connection and its answer.
    tcp: Vec<(IpAddr, FreshFlows)>,
}

/// Of each flow.
const PER_SECOND: u32 = 100;
/// So soon after a connection's first packet its last one has been sent.
const ONE_CONNECTION: Duration = Duration::from_millis(100);

impl Requests {
    /// Begins to ask, over TCP and UDP, and returns when all are answered.
    pub(super) fn start(lan: &Lan, vips: &[IpAddr]) -> anyhow::Result<Self> {
        let began = Instant::now();
        let flows = |port: Port| {
            let flow = |&vip: &IpAddr| Ok((vip, FreshFlows::start(lan.client(), &Request::to(port, vip), PER_SECOND)?));
            vips.iter().map(flow).collect::<anyhow::Result<Vec<_>>>()
        };
        let requests = Self { began, udp: flows(Port::udp(PORT))?, tcp: flows(Port::tcp(PORT))? };
        requests.go_on()?;
        Ok(requests)
    }

    /// Waits until each flow has got more answers.
    pub(super) fn go_on(&self) -> anyhow::Result<()> {
        for (vip, flow) in self.udp.iter().chain(&self.tcp) {
            flow.await_answers(20, patiently(SOON)).with_context(|| format!("{vip}: {:?}", flow.report()))?;
        }
        Ok(())
    }

    /// Ends them: all were answered. A connection that was under way when its VIP moved belongs to the node that it began at, whatever
    /// moves; so one of each flow may be reset then, and then alone. A datagram and its answer are not concerned.
    pub(super) fn finish(self, recorder: &Recorder) -> anyhow::Result<()> {
        self.go_on()?;
        for (vip, flow) in self.udp {
            let report = flow.stop();
            ensure!(report.failed.is_empty(), "UDP to {vip}: {report:?}");
        }
        for (vip, flow) in self.tcp {
            let report = flow.stop();
            let moves: Vec<Instant> = moves(recorder, vip, self.began);
            let under_way = |asked: Duration| {
                let asked = self.began + asked;
                moves.iter().any(|&moved| (asked..asked + ONE_CONNECTION).contains(&moved))
            };
            let excused = report.failed.iter().filter(|(asked, outcome)| *outcome == Outcome::Reset && under_way(*asked)).count();
            ensure!(excused == report.failed.len() && excused <= moves.len(), "TCP to {vip}, moved at {moves:?}: {report:?}");
        }
        Ok(())
    }
}

/// When the address was announced by another one than before.
fn moves(recorder: &Recorder, vip: IpAddr, since: Instant) -> Vec<Instant> {
    let announced = recorder.announcements(vip, since);
    let other = |place: usize| place == 0 || announced[place].mac != announced[place - 1].mac;
    (0..announced.len()).filter(|&place| other(place)).map(|place| announced[place].at).collect()
}
