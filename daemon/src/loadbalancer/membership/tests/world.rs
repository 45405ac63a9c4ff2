//! A cluster in virtual time: a network that loses, delays and is cut, processes that stall and die, kernels that answer or do not.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::loadbalancer::membership::{
    Change, DEFAULT_PORT, Evidence, Facts, KEY_BYTES, Key, Member, Membership, Options, Output, State,
};

/// What the network does to a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Network {
    /// Of 1,000 datagrams, so many are lost.
    pub(super) loss: u32,
    /// Every one takes 0.1 ms, and up to so much more.
    pub(super) jitter: Duration,
}

pub(super) const QUIET: Network = Network { loss: 0, jitter: Duration::from_micros(100) };
pub(super) const BAD: Network = Network { loss: 50, jitter: Duration::from_millis(100) };

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    /// Every change that a node reported: when, which node.
    pub(super) changes: Vec<(Instant, usize, Change)>,
    /// Every datagram that was sent, if that is wanted: who to whom.
    pub(super) tap: Option<Vec<(usize, usize, Vec<u8>)>>,
    network: Network,
    random: StdRng,
    events: BinaryHeap<Reverse<(Instant, u64)>>,
    pending: std::collections::HashMap<u64, Event>,
    next: u64,
}

pub(super) struct Node {
    pub(super) name: Arc<str>,
    /// `None`: its daemon is dead.
    pub(super) daemon: Option<Membership>,
    /// Whether its kernel answers.
    pub(super) kernel: bool,
    /// Nodes of different parts do not reach each other.
    pub(super) part: u32,
    /// It receives nothing, though it sends.
    pub(super) deaf: bool,
    /// While its process is stopped: what waits in its socket.
    stopped: Option<Vec<Vec<u8>>>,
    /// Timers set before are void.
    timer: u64,
}

enum Event {
    Deliver { to: usize, datagram: Vec<u8> },
    Timer { node: usize },
    Evidence { node: usize, member: Arc<str>, evidence: Evidence },
}

pub(super) fn key() -> Key {
    Key::new(&[42; KEY_BYTES]).unwrap()
}

fn address(node: usize) -> SocketAddr {
    let [.., high, low] = u32::try_from(node).unwrap().to_be_bytes();
    (Ipv4Addr::new(10, 0, high, low), DEFAULT_PORT).into()
}

impl World {
    /// Everybody starts at the same time and knows the roster.
    pub(super) fn new(nodes: usize, network: Network, seed: u64) -> Self {
        let now = Instant::now();
        let node = |index: usize| Node {
            name: format!("node-{index}").into(),
            daemon: None,
            kernel: true,
            part: 0,
            deaf: false,
            stopped: None,
            timer: 0,
        };
        let mut world = Self {
            now,
            nodes: (0..nodes).map(node).collect(),
            changes: Vec::new(),
            tap: None,
            network,
            random: StdRng::seed_from_u64(seed),
            events: BinaryHeap::new(),
            pending: std::collections::HashMap::new(),
            next: 0,
        };
        (0..nodes).for_each(|index| world.start(index));
        world
    }

    /// A node's daemon starts, with nothing remembered, and tells that it holds nothing.
    pub(super) fn start(&mut self, index: usize) {
        self.start_silently(index);
        self.act(index, |daemon, now| daemon.set_facts(&Facts::default(), now).unwrap());
    }

    /// It starts, and tells nothing.
    pub(super) fn start_silently(&mut self, index: usize) {
        let roster: Vec<_> = self.nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), address(index))).collect();
        let seed = self.random.random();
        let now = self.now;
        let mut daemon = Membership::new(&self.nodes[index].name, vec![key()], Options::default(), seed, now).unwrap();
        daemon.set_roster(roster, now);
        self.nodes[index].daemon = Some(daemon);
        self.nodes[index].stopped = None;
        self.carry_out(index);
    }

    /// Something is done to a node's daemon.
    pub(super) fn act(&mut self, index: usize, act: impl FnOnce(&mut Membership, Instant)) {
        let now = self.now;
        act(self.nodes[index].daemon.as_mut().unwrap(), now);
        self.carry_out(index);
    }

    pub(super) fn kill(&mut self, index: usize) {
        self.nodes[index].daemon = None;
    }

    pub(super) fn stop(&mut self, index: usize) {
        self.nodes[index].stopped = Some(Vec::new());
    }

    pub(super) fn resume(&mut self, index: usize) {
        let waiting = self.nodes[index].stopped.take().unwrap();
        let now = self.now;
        let daemon = self.nodes[index].daemon.as_mut().unwrap();
        for datagram in waiting {
            let _ = daemon.receive(&datagram, now);
        }
        daemon.tick(now);
        self.carry_out(index);
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(end, |_| false);
    }

    /// Until `done`, or `limit` has passed. Says how long it took.
    pub(super) fn run_to(&mut self, limit: Duration, done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let begin = self.now;
        self.run_until(begin + limit, done).then(|| self.now - begin)
    }

    fn run_until(&mut self, end: Instant, mut done: impl FnMut(&Self) -> bool) -> bool {
        while !done(self) {
            match self.events.peek() {
                Some(Reverse((at, _))) if *at <= end => {}
                _ => {
                    self.now = end;
                    return false;
                }
            }
            let Some(Reverse((at, number))) = self.events.pop() else { return false };
            self.now = at;
            if let Some(event) = self.pending.remove(&number) {
                self.play(event, number);
            }
        }
        true
    }

    /// How one node sees another.
    pub(super) fn state(&self, of: usize, seen_by: usize) -> State {
        self.member(of, seen_by).state
    }

    pub(super) fn member(&self, of: usize, seen_by: usize) -> Member {
        let name = &self.nodes[of].name;
        self.nodes[seen_by].daemon.as_ref().unwrap().members().find(|member| member.name == *name).unwrap()
    }

    /// Whether every one of these sees every other one so.
    pub(super) fn all(&self, seen: &[usize], by: &[usize], wanted: impl Fn(State) -> bool) -> bool {
        by.iter().all(|&by| seen.iter().filter(|&&of| of != by).all(|&of| wanted(self.state(of, by))))
    }

    fn play(&mut self, event: Event, number: u64) {
        let now = self.now;
        let index = match event {
            Event::Deliver { to, datagram } => {
                let node = &mut self.nodes[to];
                match (&mut node.stopped, &mut node.daemon) {
                    (Some(waiting), _) => waiting.push(datagram),
                    (None, Some(daemon)) if !node.deaf => {
                        let _ = daemon.receive(&datagram, now);
                    }
                    _ => {}
                }
                to
            }
            Event::Timer { node } if self.nodes[node].timer != number || self.nodes[node].stopped.is_some() => return,
            Event::Timer { node } => {
                if let Some(daemon) = &mut self.nodes[node].daemon {
                    daemon.tick(now);
                }
                node
            }
            Event::Evidence { node, member, evidence } => {
                let Node { daemon, stopped, .. } = &mut self.nodes[node];
                if let (Some(daemon), None) = (daemon, stopped) {
                    daemon.evidence(&member, evidence, now);
                }
                node
            }
        };
        if self.nodes[index].stopped.is_none() {
            self.carry_out(index);
        }
    }

    fn carry_out(&mut self, index: usize) {
        let mut outputs = Vec::new();
        let Some(daemon) = &mut self.nodes[index].daemon else { return };
        outputs.extend(std::iter::from_fn(|| daemon.poll()));
        let deadline = daemon.next_deadline().max(self.now);
        let timer = self.schedule(deadline, Event::Timer { node: index });
        self.nodes[index].timer = timer;
        for output in outputs {
            match output {
                Output::Send { to, datagram } => self.send(index, to, datagram),
                Output::Probe { member, address, datagram } => {
                    self.send(index, address, datagram);
                    self.probe(index, member, address);
                }
                Output::Changed(change) => self.changes.push((self.now, index, change)),
            }
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, datagram: Vec<u8>) {
        let Some(to) = (0..self.nodes.len()).find(|&index| address(index) == to) else { return };
        if let Some(tap) = &mut self.tap {
            tap.push((from, to, datagram.clone()));
        }
        if let Some(delay) = self.path(from, to) {
            self.schedule(self.now + delay, Event::Deliver { to, datagram });
        }
    }

    fn probe(&mut self, from: usize, member: Arc<str>, address: SocketAddr) {
        let Some(to) = self.nodes.iter().position(|node| node.name == member) else { return };
        assert_eq!(address, self::address(to));
        if let (Some(there), Some(back), true) = (self.path(from, to), self.path(to, from), self.nodes[to].kernel) {
            let refuses = self.nodes[to].daemon.is_none();
            let evidence = if refuses { Evidence::Refuses } else { Evidence::KernelAnswers };
            self.schedule(self.now + there + back, Event::Evidence { node: from, member, evidence });
        }
    }

    /// How long a datagram takes, if it arrives.
    fn path(&mut self, from: usize, to: usize) -> Option<Duration> {
        let connected = self.nodes[from].part == self.nodes[to].part && self.nodes[from].kernel && self.nodes[to].kernel;
        let lost = self.random.random_range(0..1000) < self.network.loss;
        let delay = Duration::from_micros(100) + self.network.jitter.mul_f64(self.random.random());
        (connected && !lost).then_some(delay)
    }

    fn schedule(&mut self, at: Instant, event: Event) -> u64 {
        self.next += 1;
        self.events.push(Reverse((at, self.next)));
        self.pending.insert(self.next, event);
        self.next
    }
}
