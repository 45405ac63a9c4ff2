//! A bad link: a relay between two wires that loses, delays and swaps frames, the same ones for the same seed.

use crate::{
    Error, Namespace, Result,
    link::links,
    packet_socket::{PacketSocket, wait},
};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How bad a link is, in each direction. Frames are numbered per direction and kind of [`Traffic`], and a frame's fate depends on
/// the seed and that number alone: not on time, and not on what neighbour discovery does in between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BadLink {
    /// The share of frames that are lost, 0 to 1.
    pub loss: f64,
    /// The share of frames that swap places with the next, 0 to 1.
    pub reorder: f64,
    /// What every frame takes.
    pub delay: Duration,
    /// What a frame takes more, at most.
    pub jitter: Duration,
    /// Whether [`Traffic::Housekeeping`] suffers too. It does not in a [`good`](Self::good) link made bad: the kernel sends it
    /// when it thinks fit, and one lost ARP request costs a second of silence.
    pub housekeeping: bool,
    /// Whatever is the same for the same seed.
    pub seed: u64,
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the host on the bad link.
    Out,
    /// To the host on the bad link.
    In,
}

/// What kinds of frame are numbered apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traffic {
    /// ARP, NDP, multicast group reports and all that is not IP: sent by the kernel when it thinks fit.
    Housekeeping,
    /// IPv4.
    Ipv4,
    /// IPv6, other than ICMPv6 about neighbours and groups.
    Ipv6,
}

/// What happens to one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// It is dropped.
    pub lost: bool,
    /// It waits for the next frame of its direction to overtake it.
    pub overtaken: bool,
    /// How long it takes.
    pub delay: Duration,
}

/// A running relay: a namespace with the host's wire and the router's wire in it, and a thread that carries frames across.
#[derive(Debug)]
pub(crate) struct Relay {
    namespace: Namespace,
    link: BadLink,
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// A frame on its way.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    due: Instant,
    /// Keeps the order of frames that are due together.
    number: u64,
    inward: bool,
    frame: Vec<u8>,
}

/// One direction's numbering, and the frame that waits to be overtaken.
#[derive(Debug, Default)]
struct Lane {
    seen: [u64; 3],
    waiting: Option<(Duration, Vec<u8>)>,
    /// When the waiting frame gives up and goes.
    patience: Option<Instant>,
}

/// How long a frame waits to be overtaken if nothing follows.
const PATIENCE: Duration = Duration::from_millis(20);

// === impl BadLink ===

impl BadLink {
    /// A perfect link, to start from: `BadLink { loss: 0.05, ..BadLink::good(7) }`.
    #[must_use]
    pub const fn good(seed: u64) -> Self {
        Self { loss: 0.0, reorder: 0.0, delay: Duration::ZERO, jitter: Duration::ZERO, housekeeping: false, seed }
    }

    /// What happens to the `number`th frame of its kind, counted from 0.
    #[must_use]
    pub fn fate(&self, direction: Direction, traffic: Traffic, number: u64) -> Fate {
        if traffic == Traffic::Housekeeping && !self.housekeeping {
            return Fate { lost: false, overtaken: false, delay: self.delay };
        }
        let lane = mix(self.seed ^ (direction as u64) << 8 ^ (traffic as u64) << 16);
        let draw = |purpose: u64| share(mix(lane ^ mix(number << 2 | purpose)));
        Fate { lost: draw(0) < self.loss, overtaken: draw(1) < self.reorder, delay: self.delay + self.jitter.mul_f64(draw(2)) }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit moves every output bit.
const fn mix(value: u64) -> u64 {
    let z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 to 1, without 1, from the upper half of the bits.
fn share(random: u64) -> f64 {
    let upper = u32::try_from(random >> 32).expect("a u64 shifted right by 32 fits");
    f64::from(upper) / (f64::from(u32::MAX) + 1.0)
}

// === impl Traffic ===

impl Traffic {
    /// The kind of an Ethernet frame.
    fn of(frame: &[u8]) -> Self {
        match frame.get(12..14) {
            Some([0x08, 0x00]) => match frame.get(23) {
                Some(2 /* IGMP */) => Self::Housekeeping,
                _ => Self::Ipv4,
            },
            Some([0x86, 0xdd]) => match (frame.get(20), frame.get(54)) {
                // Group reports come behind a hop-by-hop header (RFC 3810 section 5); types from RFC 4861 and RFC 2710.
                (Some(0), _) | (Some(58), Some(130..=137 | 143)) => Self::Housekeeping,
                _ => Self::Ipv6,
            },
            _ => Self::Housekeeping,
        }
    }
}

// === impl Relay ===

impl Relay {
    /// The interface towards the host.
    const INNER: &str = "inner";
    /// The interface towards the router.
    pub(crate) const OUTER: &str = "outer";

    /// Makes the relay's namespace and the wire to the host's interface. The caller adds [`OUTER`](Self::OUTER), then calls `run`.
    pub(crate) fn start(name: &str, host: &Namespace, interface: &str, link: BadLink) -> Result<Self> {
        let namespace = Namespace::new(&format!("{name}-link"))?;
        // Nobody lives here: no addresses, no discovery.
        namespace.sysctls(&[("net.ipv6.conf.all.disable_ipv6", "1"), ("net.ipv6.conf.default.disable_ipv6", "1")])?;
        links(&namespace, async |links| links.add_veth(Self::INNER, interface, host).await)?;
        Ok(Self { namespace, link, stop: None, thread: None })
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Begins to carry frames.
    pub(crate) fn run(&mut self) -> Result<()> {
        links(&self.namespace, async |links| links.set_up(Self::OUTER, true).await)?;
        let index = |name| links(&self.namespace, async move |links| links.index(name).await);
        let (inner, outer) = (index(Self::INNER)?, index(Self::OUTER)?);
        let open = || Ok::<_, io::Error>([PacketSocket::open(inner)?, PacketSocket::open(outer)?]);
        let sockets = self.namespace.run(open)?.map_err(Error::call("open", "packet sockets"))?;
        let (stopped, stop) = nix::unistd::pipe().map_err(Error::errno("pipe", "to stop the relay"))?;
        let link = self.link;
        let carry = move || carry(link, &sockets, &stopped).map_err(Error::call("relay", "frames"));
        let thread = std::thread::Builder::new().name("relay".to_owned()).spawn(carry);
        self.thread = Some(thread.map_err(Error::call("spawn", "the relay"))?);
        self.stop = Some(stop);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its error was the link's end: the host's interface went first.
            let _ = thread.join();
        }
    }
}

/// Carries frames until the stop pipe closes.
fn carry(link: BadLink, sockets: &[PacketSocket; 2], stopped: &OwnedFd) -> io::Result<()> {
    let [inner, outer] = sockets;
    let mut lanes = [Lane::default(), Lane::default()];
    let mut flights = BinaryHeap::<Reverse<Flight>>::new();
    let mut number = 0;
    let mut buffer = vec![0; PacketSocket::LONGEST];
    loop {
        let now = Instant::now();
        for (lane, inward) in lanes.iter_mut().zip([false, true]) {
            if lane.patience.is_some_and(|patience| patience <= now) {
                lane.release(now, inward, &mut number, &mut flights);
            }
        }
        while let Some(Reverse(flight)) = flights.peek().filter(|Reverse(flight)| flight.due <= now) {
            // An interface that is down loses frames as a cable does.
            let _ = if flight.inward { inner } else { outer }.send(&flight.frame);
            flights.pop();
        }
        let due = flights.peek().map(|Reverse(flight)| flight.due);
        let next = lanes.iter().filter_map(|lane| lane.patience).chain(due).min();
        let ready = wait([inner.as_raw_fd(), outer.as_raw_fd(), stopped.as_raw_fd()], next)?;
        if ready[2] {
            return Ok(());
        }
        for (socket, lane, inward) in [(inner, 0, false), (outer, 1, true)] {
            if !ready[lane] {
                continue;
            }
            while let Some(length) = socket.receive(&mut buffer)? {
                let frame = &buffer[..length];
                lanes[lane].take(link, frame, inward, &mut number, &mut flights);
            }
        }
    }
}

// === impl Lane ===

impl Lane {
    /// Decides a frame's fate.
    fn take(&mut self, link: BadLink, frame: &[u8], inward: bool, number: &mut u64, flights: &mut BinaryHeap<Reverse<Flight>>) {
        let traffic = Traffic::of(PacketSocket::ethernet(frame));
        let direction = if inward { Direction::In } else { Direction::Out };
        let count = &mut self.seen[traffic as usize];
        let fate = link.fate(direction, traffic, *count);
        *count += 1;
        if fate.lost {
            return;
        }
        let now = Instant::now();
        if fate.overtaken && self.waiting.is_none() {
            self.waiting = Some((fate.delay, frame.to_vec()));
            self.patience = Some(now + PATIENCE);
            return;
        }
        let due = now + fate.delay;
        *number += 1;
        flights.push(Reverse(Flight { due, number: *number, inward, frame: frame.to_vec() }));
        // The overtaken frame follows the one that overtook it, whatever its own delay would have been.
        self.release(due, inward, number, flights);
    }

    /// Sends the waiting frame on its way, at its own delay but not before `earliest`.
    fn release(&mut self, earliest: Instant, inward: bool, number: &mut u64, flights: &mut BinaryHeap<Reverse<Flight>>) {
        self.patience = None;
        if let Some((delay, frame)) = self.waiting.take() {
            *number += 1;
            flights.push(Reverse(Flight { due: earliest.max(Instant::now() + delay), number: *number, inward, frame }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fate_depends_on_seed_direction_kind_and_number_alone() {
        let link = BadLink { loss: 0.3, reorder: 0.1, jitter: Duration::from_millis(9), ..BadLink::good(7) };
        let fates = |link: BadLink, direction, traffic| (0..500).map(|n| link.fate(direction, traffic, n)).collect::<Vec<_>>();
        let these = fates(link, Direction::Out, Traffic::Ipv4);
        assert_eq!(these, fates(link, Direction::Out, Traffic::Ipv4));
        assert_ne!(these, fates(link, Direction::In, Traffic::Ipv4));
        assert_ne!(these, fates(link, Direction::Out, Traffic::Ipv6));
        assert_ne!(these, fates(BadLink { seed: 8, ..link }, Direction::Out, Traffic::Ipv4));
    }

    #[test]
    fn shares_are_kept_and_delays_bounded() {
        let link = BadLink {
            loss: 0.2,
            reorder: 0.05,
            delay: Duration::from_millis(10),
            jitter: Duration::from_millis(5),
            ..BadLink::good(1)
        };
        let fates: Vec<_> = (0..20_000).map(|n| link.fate(Direction::In, Traffic::Ipv6, n)).collect();
        let count = |of: fn(&Fate) -> bool| fates.iter().filter(|fate| of(fate)).count();
        assert!((3_800..4_200).contains(&count(|fate| fate.lost)), "{}", count(|fate| fate.lost));
        assert!((900..1_100).contains(&count(|fate| fate.overtaken)));
        assert!(fates.iter().all(|fate| (10..15).contains(&fate.delay.as_millis())));
    }

    #[test]
    fn housekeeping_is_spared_unless_asked_for() {
        let link = BadLink { loss: 1.0, ..BadLink::good(1) };
        assert!(!link.fate(Direction::In, Traffic::Housekeeping, 0).lost);
        assert!(BadLink { housekeeping: true, ..link }.fate(Direction::In, Traffic::Housekeeping, 0).lost);
        assert!(link.fate(Direction::In, Traffic::Ipv4, 0).lost);
    }

    #[test]
    fn an_overtaken_frame_leaves_right_after_the_next() {
        let link = BadLink { reorder: 1.0, housekeeping: true, ..BadLink::good(3) };
        let (mut lane, mut flights, mut number) = (Lane::default(), BinaryHeap::new(), 0);
        for name in 1..=4_u8 {
            lane.take(link, &[name; 64], false, &mut number, &mut flights);
        }
        let order: Vec<_> = std::iter::from_fn(|| flights.pop()).map(|Reverse(flight)| flight.frame[0]).collect();
        assert_eq!(order, [2, 1, 4, 3]);
    }
}
