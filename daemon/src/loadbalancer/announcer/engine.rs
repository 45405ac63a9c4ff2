//! What the announcer's thread does when something happens: it brings sockets along with interfaces and addresses, answers, and
//! announces. It does not wait, and the time is an argument.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use compact_str::CompactString;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use super::conflict::{Alarm, Claim, Conflicts};
use super::exclusions::Exclusions;
use super::gratuitous::Schedule;
use super::interface::Interface;
use super::responder::{Heard, hear};
use super::socket::{Doors, LARGEST, PacketDoor, PacketError};
use super::vip::{Counters, Vip};
use super::{arp, ndp};
use crate::model::Family;
use crate::netlink::links::Links;
use crate::netlink::mac::Mac;
use crate::retry::Retry;

/// Frames taken from one socket before others, the clock and new orders have their turn.
const AT_ONCE: usize = 64;
/// Announcements made before questions have their turn: each is a frame or two on every interface.
const ANNOUNCED_AT_ONCE: usize = 16;
/// Pauses after a socket could not be opened, or failed.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const AGAIN_AT_LATEST: Duration = Duration::from_secs(10);

/// What the announcer tells of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address that was added has been announced on these interfaces.
    Announced {
        /// The address.
        address: IpAddr,
        /// Their names.
        interfaces: Vec<CompactString>,
        /// Since it was added.
        after: Duration,
    },
    /// No interface of those it may be on can announce it, any more or from the beginning: nobody hears of it from here.
    Silent(IpAddr),
    /// Somebody else says to have an address that we announce.
    Conflict(Alarm),
}

/// A socket on an interface, and for what it listens.
pub(super) type Ports<D> = BTreeMap<(u32, Family), Port<D>>;

#[derive(Debug)]
pub(super) struct Port<D> {
    pub(super) door: D,
    /// In order.
    addresses: Vec<IpAddr>,
    /// More waited than is taken at once: some may have found no room.
    flooded: bool,
}

/// An address that is to be announced.
#[derive(Debug)]
struct Announced {
    names: Vec<CompactString>,
    /// Where it is announced now, in order. Only with a port that listens for it.
    on: SmallVec<[u32; 4]>,
    counters: Arc<Counters>,
    /// When it was added; until it has been announced.
    fresh: Option<Instant>,
    /// It was told that nobody hears of it.
    silent: bool,
}

pub(super) struct Engine<D: Doors> {
    doors: D,
    exclusions: Exclusions,
    addresses: FxHashMap<IpAddr, Announced>,
    /// Those that may announce.
    interfaces: BTreeMap<u32, Interface>,
    /// The MACs of all interfaces of the node.
    own: FxHashSet<Mac>,
    ports: Ports<D::Door>,
    schedule: Schedule,
    conflicts: Conflicts,
    /// Counters outlive their address: it may come back, and a counter that falls is a restart to whoever reads it.
    counters: HashMap<IpAddr, Arc<Counters>>,
    retry: Retry,
    retry_at: Option<Instant>,
    /// What fails, said once.
    trouble: Option<String>,
    changed: bool,
    /// Not told yet.
    news: Vec<Event>,
    events: mpsc::Sender<Event>,
    buffer: Box<[u8; LARGEST]>,
    /// Frames that found no room, until somebody takes note of them.
    lost: Arc<AtomicU64>,
}

impl<D: Doors> Engine<D> {
    pub(super) fn new(doors: D, exclusions: Exclusions, period: Option<Duration>, events: mpsc::Sender<Event>) -> Self {
        Self {
            doors,
            exclusions,
            addresses: FxHashMap::default(),
            interfaces: BTreeMap::new(),
            own: FxHashSet::default(),
            ports: BTreeMap::new(),
            schedule: Schedule::new(period),
            conflicts: Conflicts::default(),
            counters: HashMap::new(),
            retry: Retry::new(AGAIN_AFTER, AGAIN_AT_LATEST),
            retry_at: None,
            trouble: None,
            changed: false,
            news: Vec::new(),
            events,
            buffer: Box::new([0; LARGEST]),
            lost: Arc::default(),
        }
    }

    /// Frames that found no room: whoever reads it sets it to zero.
    pub(super) fn lost(&self) -> Arc<AtomicU64> {
        self.lost.clone()
    }

    /// The addresses to be announced are these, since somebody `asked` for it. What stays is not announced anew.
    pub(super) fn set(&mut self, vips: Vec<Vip>, asked: Instant, now: Instant) {
        let wanted: HashSet<IpAddr> = vips.iter().map(|vip| vip.address).collect();
        let gone: Vec<IpAddr> = self.addresses.keys().filter(|address| !wanted.contains(address)).copied().collect();
        for address in gone {
            self.addresses.remove(&address);
            self.schedule.stop(address);
            self.conflicts.forget(address);
        }
        for Vip { address, interfaces: names } in vips {
            if let Some(known) = self.addresses.get_mut(&address) {
                known.names = names;
                continue;
            }
            let counters = self.counters.entry(address).or_default().clone();
            let on = SmallVec::new();
            self.addresses.insert(address, Announced { names, on, counters, fresh: Some(asked), silent: false });
        }
        self.place(now);
    }

    /// Whether [`Self::status`] or [`Self::trouble`] has changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Announces these again, from the first burst on; those that are not ours are left out.
    pub(super) fn announce(&mut self, addresses: &[IpAddr], now: Instant) {
        for address in addresses {
            if self.addresses.get(address).is_some_and(|announced| !announced.on.is_empty()) {
                self.schedule.start(*address, now);
            }
        }
    }

    /// The interfaces are these, of which some changed. What is announced on one that changed its MAC, or had lost its carrier, is
    /// announced again.
    pub(super) fn interfaces(&mut self, links: &Links, changed: &BTreeSet<u32>, now: Instant) {
        self.own = links.iter().filter_map(|link| link.mac).collect();
        let (mut moved, mut interrupted) = (false, Vec::new());
        for index in changed {
            let interface = links.get(*index).and_then(|link| Interface::new(link, &self.exclusions));
            let known = self.interfaces.get(index);
            if interface.as_ref() == known {
                continue; // most changes are those of pods
            }
            moved = true;
            if let (Some(was), Some(is)) = (known, &interface)
                && (was.mac, was.carrier_changes) != (is.mac, is.carrier_changes)
            {
                interrupted.push(*index);
            }
            match interface {
                Some(interface) => drop(self.interfaces.insert(*index, interface)),
                None => drop(self.interfaces.remove(index)),
            }
        }
        if !moved {
            return;
        }
        self.place(now);
        for (address, announced) in &self.addresses {
            if announced.on.iter().any(|index| interrupted.contains(index)) {
                self.schedule.start(*address, now);
            }
        }
    }

    /// Decides where each address is announced, opens, directs and closes sockets for it, and begins to announce what is new.
    fn place(&mut self, now: Instant) {
        let mut wanted: BTreeMap<(u32, Family), Vec<IpAddr>> = BTreeMap::new();
        for (address, announced) in &self.addresses {
            let family = Family::of(*address);
            for interface in self.interfaces.values().filter(|interface| interface.announces(family)) {
                if announced.names.is_empty() || announced.names.contains(&interface.name) {
                    wanted.entry((interface.index, family)).or_default().push(*address);
                }
            }
        }
        self.ports.retain(|key, _| wanted.contains_key(key));
        let mut failed = None;
        let mut placed: FxHashMap<IpAddr, SmallVec<[u32; 4]>> = FxHashMap::default();
        for ((index, family), mut addresses) in wanted {
            addresses.sort_unstable();
            match self.direct(index, family, addresses) {
                Ok(addresses) => addresses.iter().for_each(|address| placed.entry(*address).or_default().push(index)),
                Err(error) => failed = Some(error),
            }
        }
        self.settle(failed.as_ref(), now);
        self.changed = true;
        for (address, announced) in &mut self.addresses {
            let on = placed.remove(address).unwrap_or_default();
            if on.is_empty() {
                self.schedule.stop(*address);
            } else if on.iter().any(|index| !announced.on.contains(index)) {
                self.schedule.start(*address, now);
            }
            announced.on = on;
            let silent = announced.on.is_empty();
            if silent && !std::mem::replace(&mut announced.silent, silent) {
                self.news.push(Event::Silent(*address));
            }
            announced.silent = silent;
        }
    }

    /// Has a port listen for exactly these, and returns them. One that cannot is closed.
    fn direct(&mut self, index: u32, family: Family, addresses: Vec<IpAddr>) -> Result<&[IpAddr], PacketError> {
        let mut port = match self.ports.remove(&(index, family)) {
            Some(port) => port,
            None => Port { door: self.doors.open(index, family)?, addresses: Vec::new(), flooded: false },
        };
        if port.addresses != addresses {
            port.door.listen(&addresses)?;
            port.addresses = addresses;
        }
        Ok(&self.ports.entry((index, family)).or_insert(port).addresses)
    }

    /// Whether all ports work, or when to try again.
    fn settle(&mut self, failed: Option<&PacketError>, now: Instant) {
        let trouble = failed.map(ToString::to_string);
        if trouble == self.trouble && failed.is_none() {
            return;
        }
        match &trouble {
            None => {
                self.retry.reset();
                self.retry_at = None;
                tracing::info!("packet sockets work again");
            }
            Some(error) => {
                self.retry_at = Some(now + self.retry.next());
                if trouble != self.trouble {
                    tracing::warn!("not announced there: {error}");
                }
            }
        }
        self.trouble = trouble;
        self.changed = true;
    }

    /// Takes what waits in one socket, but not more than its share.
    pub(super) fn serve(&mut self, key: (u32, Family), now: Instant) {
        let (Some(port), Some(interface)) = (self.ports.get_mut(&key), self.interfaces.get(&key.0)) else { return };
        // In a storm every turn is a whole one; after it, once more.
        if std::mem::replace(&mut port.flooded, true) {
            self.lost.fetch_add(port.door.lost(), Ordering::Relaxed);
        }
        for _ in 0..AT_ONCE {
            let frame = match port.door.receive(self.buffer.as_mut_slice()) {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    port.flooded = false;
                    return;
                }
                Err(error) => {
                    // Closed, and opened again when it is time to.
                    self.ports.remove(&key);
                    self.settle(Some(&error), now);
                    return;
                }
            };
            let addresses = &self.addresses;
            let announced = |address| addresses.get(&address).is_some_and(|announced| announced.on.contains(&key.0));
            match hear(frame, interface, announced, |mac| self.own.contains(&mac)) {
                None => {}
                Some(Heard::Question(address, answer)) => {
                    let Some(Announced { counters, .. }) = addresses.get(&address) else { continue };
                    counters.asked();
                    match port.door.send(answer.as_ref()) {
                        Ok(()) => counters.answered(),
                        Err(error) => tracing::debug!(%address, %error, "not answered"),
                    }
                }
                Some(Heard::Claim(address, mac)) => {
                    let claim = Claim { address, mac, interface: interface.name.clone() };
                    if let Some(alarm) = self.conflicts.heard(claim, now) {
                        self.news.push(Event::Conflict(alarm));
                    }
                }
            }
        }
    }

    /// Tries again what failed, when it is time to.
    pub(super) fn try_again(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.place(now);
        }
    }

    /// Makes announcements that are due, but not more than a few: [`Self::deadline`] says that there are others.
    pub(super) fn announce_due(&mut self, now: Instant) {
        for _ in 0..ANNOUNCED_AT_ONCE {
            let Some(due) = self.schedule.next(now) else { return };
            let Some(announced) = self.addresses.get_mut(&due.address) else { continue };
            let family = Family::of(due.address);
            let mut names = Vec::new();
            for index in &announced.on {
                let (Some(port), Some(interface)) = (self.ports.get_mut(&(*index, family)), self.interfaces.get(index)) else {
                    continue;
                };
                if announce(&mut port.door, interface, due.address, &announced.counters) {
                    names.push(interface.name.clone());
                }
            }
            // Where it could not be sent, it is tried with the next burst.
            if let Some(since) = announced.fresh.take_if(|_| !names.is_empty()) {
                let after = now.saturating_duration_since(since);
                self.news.push(Event::Announced { address: due.address, interfaces: names, after });
            }
        }
    }

    /// When something will be due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.schedule.deadline(), self.retry_at].into_iter().flatten().min()
    }

    /// Tells what happened. Whoever does not read loses events, not the announcer its time: what holds now is in its statistics.
    pub(super) fn tell(&mut self) {
        for event in self.news.drain(..) {
            if let Err(error) = self.events.try_send(event) {
                tracing::debug!(%error, "event not told");
            }
        }
    }

    pub(super) fn ports(&self) -> &Ports<D::Door> {
        &self.ports
    }

    /// What cannot be announced although it should.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Of every address ever announced, where it is now, and its counters.
    pub(super) fn status(&self) -> Vec<(IpAddr, Vec<CompactString>, Arc<Counters>)> {
        let names = |address| {
            let on = self.addresses.get(address).map(|announced| announced.on.as_slice()).unwrap_or_default();
            on.iter().filter_map(|index| Some(self.interfaces.get(index)?.name.clone())).collect()
        };
        self.counters.iter().map(|(address, counters)| (*address, names(address), counters.clone())).collect()
    }
}

/// One burst on one interface; whether any of it was sent.
fn announce(door: &mut impl PacketDoor, interface: &Interface, address: IpAddr, counters: &Counters) -> bool {
    let mut send = |frame: &[u8]| match door.send(frame) {
        Ok(()) => {
            counters.announced();
            true
        }
        Err(error) => {
            tracing::debug!(%address, %error, "not announced");
            false
        }
    };
    match address {
        IpAddr::V4(ip) => {
            let [request, reply] = arp::gratuitous(ip, interface.mac).map(|frame| send(&frame));
            request || reply
        }
        IpAddr::V6(ip) => send(&ndp::unsolicited(ip, interface.mac, interface.link_local.unwrap_or(ip))),
    }
}

#[cfg(test)]
mod tests;
