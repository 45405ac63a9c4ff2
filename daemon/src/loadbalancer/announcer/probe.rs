//! Asking whether addresses are free before they are handed out: ARP probes (RFC 5227, 2.1) or duplicate address detection (RFC 4862, 5.4).
//!
//! Both ask without saying that we have the address, so no host's neighbour table changes. RFC 5227 takes five seconds for it, for hosts
//! that boot with their switch; a Service's address is to be there sooner, and the LAN has been up for long, so the times are a
//! parameter. Nobody's answer is no proof: who is switched off does not answer.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use super::conflict::Claim;
use super::interface::Interface;
use super::responder::{Heard, hear};
use super::socket::{LARGEST, PacketDoor as _, PacketError, PacketSocket};
use super::{arp, ndp};
use crate::model::Family;
use crate::netlink::mac::Mac;
use crate::netlink::socket::wait_for_any;

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
    /// Send these, and ask again.
    Ask(Vec<Vec<u8>>),
    /// Listen until then.
    Listen(Instant),
    /// Nobody has those that are left.
    Over,
}

/// Addresses, asked for on one interface. Pure: frames and the time are arguments.
#[derive(Debug)]
pub struct Probe<'a> {
    /// Those that nobody has claimed.
    addresses: BTreeSet<IpAddr>,
    interface: &'a Interface,
    timing: Timing,
    asked: u32,
    next: Instant,
}

/// What came of asking.
#[derive(Debug, Default)]
pub struct Found {
    /// Who has which of the addresses; nobody seems to have the others.
    pub claims: Vec<Claim>,
    /// Sockets on which it was asked and listened to the end.
    pub heard_out: usize,
    /// Where it could not be asked, or not to the end.
    pub failures: Vec<PacketError>,
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
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>, interface: &'a Interface, timing: Timing, now: Instant) -> Self {
        Self { addresses: addresses.into_iter().collect(), interface, timing, asked: 0, next: now }
    }

    /// What is to be done now.
    pub fn step(&mut self, now: Instant) -> Step {
        if self.addresses.is_empty() {
            return Step::Over;
        }
        if now < self.next {
            return Step::Listen(self.next);
        }
        if self.asked == self.timing.questions {
            return Step::Over;
        }
        self.asked += 1;
        self.next = now + self.timing.interval;
        let question = |address: &IpAddr| match address {
            IpAddr::V4(ip) => arp::probe(*ip, self.interface.mac).to_vec(),
            IpAddr::V6(ip) => ndp::probe(*ip, self.interface.mac).to_vec(),
        };
        Step::Ask(self.addresses.iter().map(question).collect())
    }

    /// Whether a frame says that somebody has one of the addresses; `own` are MACs that may have it. It is not asked for any more.
    pub fn heard(&mut self, frame: &[u8], own: impl Fn(Mac) -> bool) -> Option<Claim> {
        match hear(frame, self.interface, |address| self.addresses.contains(&address), own)? {
            Heard::Claim(address, mac) => {
                self.addresses.remove(&address);
                Some(Claim { address, mac, interface: self.interface.name.clone() })
            }
            Heard::Question(..) => None,
        }
    }

    /// It was heard elsewhere that somebody has it.
    pub fn settle(&mut self, address: IpAddr) {
        self.addresses.remove(&address);
    }
}

/// Asks for addresses on interfaces, those of families that are announced there, and waits for answers. Whoever calls owns a thread.
pub fn probe(asked: &[(Interface, Vec<IpAddr>)], timing: Timing, own: impl Fn(Mac) -> bool) -> Found {
    let mut found = Found::default();
    let mut inquiries: Vec<Inquiry<'_>> = Vec::new();
    for (interface, addresses) in asked {
        for family in Family::ALL.into_iter().filter(|family| interface.announces(*family)) {
            let addresses: Vec<IpAddr> = addresses.iter().copied().filter(|address| Family::of(*address) == family).collect();
            if addresses.is_empty() {
                continue;
            }
            match Inquiry::begin(interface, family, &addresses, timing) {
                Ok(inquiry) => inquiries.push(inquiry),
                Err(error) => found.failures.push(error),
            }
        }
    }
    let mut buffer = [0; LARGEST];
    loop {
        let mut until: Option<Instant> = None;
        inquiries.retain_mut(|inquiry| match inquiry.advance() {
            Ok(Some(next)) => {
                until = Some(until.map_or(next, |until| until.min(next)));
                true
            }
            Ok(None) => {
                found.heard_out += 1;
                false
            }
            Err(error) => {
                found.failures.push(error);
                false
            }
        });
        let Some(until) = until else { return found };
        let doors: Vec<_> = inquiries.iter().map(|inquiry| inquiry.door.as_fd()).collect();
        // `poll` counts in milliseconds: nothing shorter than one, or it would not wait at all.
        let pause = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        if let Err(error) = wait_for_any(&doors, pause) {
            // What is there is read all the same, and the clock ends it.
            tracing::debug!(%error, "waiting for answers to a probe");
        }
        let mut claims = Vec::new();
        inquiries.retain_mut(|inquiry| match inquiry.listen(&mut buffer, &own) {
            Ok(heard) => {
                claims.extend(heard);
                true
            }
            Err(error) => {
                found.failures.push(error);
                false
            }
        });
        for claim in claims {
            inquiries.iter_mut().for_each(|inquiry| inquiry.probe.settle(claim.address));
            found.claims.push(claim);
        }
    }
}

/// A probe and its socket.
struct Inquiry<'a> {
    probe: Probe<'a>,
    door: PacketSocket,
}

impl<'a> Inquiry<'a> {
    fn begin(interface: &'a Interface, family: Family, addresses: &[IpAddr], timing: Timing) -> Result<Self, PacketError> {
        let mut door = PacketSocket::open(interface.index, family)?;
        door.listen(addresses)?;
        Ok(Self { probe: Probe::new(addresses.iter().copied(), interface, timing, Instant::now()), door })
    }

    /// Asks if it is time to; until when is to be listened. `None`: it is over.
    fn advance(&mut self) -> Result<Option<Instant>, PacketError> {
        loop {
            match self.probe.step(Instant::now()) {
                Step::Over => return Ok(None),
                Step::Listen(until) => return Ok(Some(until)),
                Step::Ask(frames) => frames.iter().try_for_each(|frame| self.door.send(frame))?,
            }
        }
    }

    fn listen(&mut self, buffer: &mut [u8], own: impl Fn(Mac) -> bool) -> Result<Vec<Claim>, PacketError> {
        let mut claims = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(frame) = self.door.receive(buffer)? else { break };
            claims.extend(self.probe.heard(frame, &own));
        }
        Ok(claims)
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
    fn addresses_are_asked_for_and_then_waited_for() {
        let (start, interface) = (Instant::now(), interface());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let addresses = [IpAddr::from([10, 0, 0, 240]), "2001:db8::f0".parse().unwrap()];
        let frames =
            vec![arp::probe([10, 0, 0, 240].into(), OURS).to_vec(), ndp::probe("2001:db8::f0".parse().unwrap(), OURS).to_vec()];
        let mut probe = Probe::new(addresses, &interface, Timing::default(), start);
        assert_eq!(probe.step(at(0)), Step::Ask(frames.clone()));
        assert_eq!(probe.step(at(0)), Step::Listen(at(30)));
        assert_eq!(probe.step(at(29)), Step::Listen(at(30)));
        assert_eq!(probe.step(at(30)), Step::Ask(frames));
        assert_eq!(probe.step(at(59)), Step::Listen(at(60)));
        assert_eq!(probe.step(at(60)), Step::Over);
    }

    #[test]
    fn only_somebody_elses_answer_counts_and_it_ends_the_asking() {
        let (start, interface) = (Instant::now(), interface());
        let [first, second] = [[10, 0, 0, 240], [10, 0, 0, 241]].map(std::net::Ipv4Addr::from);
        let mut probe = Probe::new([first.into(), second.into()], &interface, Timing::default(), start);
        probe.step(start);
        let own = |mac| mac == OURS;
        let answer = arp::Packet::parse(&arp::probe(first, OURS)).unwrap().1.answer(THEIRS);
        assert_eq!(probe.heard(&arp::gratuitous(first, OURS)[0], own), None, "our own");
        assert_eq!(probe.heard(&arp::probe(first, THEIRS), own), None, "another who looks");
        assert_eq!(probe.heard(&arp::gratuitous([10, 0, 0, 242].into(), THEIRS)[0], own), None);
        assert_eq!(probe.heard(&answer, own).map(|claim| (claim.address, claim.mac)), Some((first.into(), THEIRS)));
        assert_eq!(probe.heard(&answer, own), None, "it is known");
        let later = start + Duration::from_millis(30);
        assert_eq!(probe.step(later), Step::Ask(vec![arp::probe(second, OURS).to_vec()]));
        probe.settle(second.into());
        assert_eq!(probe.step(later), Step::Over, "nobody waits for what is known");
    }
}
