//! Asking whether an address is free before it is handed out: ARP probes (RFC 5227, 2.1) or duplicate address detection (RFC 4862, 5.4).
//!
//! Both ask without saying that we have the address, so no host's neighbour table changes. RFC 5227 takes five seconds for it, for hosts
//! that boot with their switch; a Service's address is to be there sooner, and the LAN has been up for long, so the times are a
//! parameter. Nobody's answer is no proof: who is switched off does not answer.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::conflict::Claim;
use super::interface::Interface;
use super::responder::{Heard, hear};
use super::socket::{LARGEST, PacketDoor, PacketError, PacketSocket};
use super::{arp, ndp};
use crate::model::Family;
use crate::netlink::mac::Mac;
use crate::netlink::socket::wait_for;

/// Frames that are read before the clock is looked at again.
const AT_ONCE: usize = 64;

/// How long an address is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Questions; a frame may be lost.
    pub questions: u32,
    /// From one to the next, and from the last to the end.
    pub interval: Duration,
}

/// What there is to do for a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this, and ask again.
    Ask(Vec<u8>),
    /// Listen until then.
    Listen(Instant),
    /// Nobody has it.
    Free,
}

/// One address, asked for on one interface. Pure: frames and the time are arguments.
#[derive(Debug)]
pub struct Probe<'a> {
    address: IpAddr,
    interface: &'a Interface,
    timing: Timing,
    asked: u32,
    next: Instant,
}

impl Default for Timing {
    /// Two questions in 60 ms: a LAN answers within a few.
    fn default() -> Self {
        Self { questions: 2, interval: Duration::from_millis(30) }
    }
}

impl<'a> Probe<'a> {
    /// Begins.
    #[must_use]
    pub fn new(address: IpAddr, interface: &'a Interface, timing: Timing, now: Instant) -> Self {
        Self { address, interface, timing, asked: 0, next: now }
    }

    /// What is to be done now.
    pub fn step(&mut self, now: Instant) -> Step {
        if now < self.next {
            return Step::Listen(self.next);
        }
        if self.asked == self.timing.questions {
            return Step::Free;
        }
        self.asked += 1;
        self.next = now + self.timing.interval;
        Step::Ask(match self.address {
            IpAddr::V4(ip) => arp::probe(ip, self.interface.mac).to_vec(),
            IpAddr::V6(ip) => ndp::probe(ip, self.interface.mac).to_vec(),
        })
    }

    /// Whether a frame says that somebody has the address; `own` are this node's MACs.
    #[must_use]
    pub fn heard(&self, frame: &[u8], own: impl Fn(Mac) -> bool) -> Option<Claim> {
        match hear(frame, self.interface, |address| address == self.address, own)? {
            Heard::Claim(address, mac) => Some(Claim { address, mac, interface: self.interface.name.clone() }),
            Heard::Question(..) => None,
        }
    }
}

/// Asks on one interface, and waits for an answer: `None` if nobody has the address. Whoever calls owns a thread.
///
/// # Errors
/// No packet socket there, or it failed.
pub fn probe(
    address: IpAddr,
    interface: &Interface,
    timing: Timing,
    own: impl Fn(Mac) -> bool,
) -> Result<Option<Claim>, PacketError> {
    let mut door = PacketSocket::open(interface.index, Family::of(address))?;
    door.listen(&[address])?;
    let mut probe = Probe::new(address, interface, timing, Instant::now());
    let mut buffer = [0; LARGEST];
    loop {
        match probe.step(Instant::now()) {
            Step::Free => return Ok(None),
            Step::Ask(frame) => door.send(&frame)?,
            Step::Listen(until) => {
                let pause = until.saturating_duration_since(Instant::now());
                // `poll` counts in milliseconds: nothing shorter than one, or it would not wait at all.
                wait_for(door.as_fd(), pause.max(Duration::from_millis(1)))
                    .map_err(|source| PacketError::new("wait for an answer", interface.index, source))?;
            }
        }
        for _ in 0..AT_ONCE {
            let Some(frame) = door.receive(&mut buffer)? else { break };
            if let Some(claim) = probe.heard(frame, &own) {
                return Ok(Some(claim));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn interface() -> Interface {
        Interface { index: 2, name: "eth0".into(), mac: OURS, v4: true, v6: true, link_local: None, carrier_changes: 0 }
    }

    #[test]
    fn an_address_is_asked_for_and_then_waited_for() {
        let (start, interface) = (Instant::now(), interface());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        for (address, frame) in [
            ("10.0.0.240", arp::probe([10, 0, 0, 240].into(), OURS).to_vec()),
            ("2001:db8::f0", ndp::probe("2001:db8::f0".parse().unwrap(), OURS).to_vec()),
        ] {
            let mut probe = Probe::new(address.parse().unwrap(), &interface, Timing::default(), start);
            assert_eq!(probe.step(at(0)), Step::Ask(frame.clone()));
            assert_eq!(probe.step(at(0)), Step::Listen(at(30)));
            assert_eq!(probe.step(at(29)), Step::Listen(at(30)));
            assert_eq!(probe.step(at(30)), Step::Ask(frame));
            assert_eq!(probe.step(at(59)), Step::Listen(at(60)));
            assert_eq!(probe.step(at(60)), Step::Free);
        }
    }

    #[test]
    fn only_somebody_elses_answer_counts() {
        let interface = interface();
        let address = [10, 0, 0, 240].into();
        let probe = Probe::new(IpAddr::V4(address), &interface, Timing::default(), Instant::now());
        let own = |mac| mac == OURS;
        let answer = arp::Packet::parse(&arp::probe(address, OURS)).unwrap().1.answer(THEIRS);
        assert_eq!(probe.heard(&answer, own).map(|claim| claim.mac), Some(THEIRS));
        assert_eq!(probe.heard(&arp::gratuitous(address, OURS)[0], own), None, "our own");
        assert_eq!(probe.heard(&arp::probe(address, THEIRS), own), None, "another who looks");
        assert_eq!(probe.heard(&arp::gratuitous([10, 0, 0, 241].into(), THEIRS)[0], own), None);
    }
}
