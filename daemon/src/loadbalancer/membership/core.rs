//! The membership of one node, without IO: datagrams in, datagrams and changes out.

mod beats;
mod judgement;
mod reception;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::facts::{Facts, FactsError};
use super::options::{Options, PUSH_AGAIN, SETTLING};
use super::peer::Peer;
use super::ring::MemberId;
use super::seal::{Key, Sealer, Session};
use super::verdict::{Evidence, State};
use super::wire::{Departure, Report};

pub use reception::Refused;

/// One node's view of the members.
///
/// Whoever drives it calls [`Membership::receive`] for every datagram that has come in *before* it calls [`Membership::tick`], at
/// [`Membership::next_deadline`] or earlier, and carries out what [`Membership::poll`] gives.
#[derive(Debug)]
pub struct Membership {
    own: MemberId,
    session: Session,
    keys: Vec<Key>,
    sealer: Sealer,
    options: Options,
    random: StdRng,
    started: Instant,
    /// Every node of the roster but our own.
    peers: BTreeMap<MemberId, Peer>,
    /// We were told who these are.
    has_roster: bool,
    /// Whose session it is.
    sessions: HashMap<Session, MemberId>,
    /// Who gets our beats often.
    watchers: Vec<MemberId>,
    facts: Vec<u8>,
    facts_version: u32,
    /// What we told in our last life, as others remember it.
    remembered: Option<Arc<Facts>>,
    departure: Option<Departure>,
    /// What we said last, and how often it is still said to everybody.
    reports: Vec<Report>,
    repeats: u8,
    repeat_at: Instant,
    /// When we asked to be called; much later than this is a stall of ours.
    promised: Option<Instant>,
    /// When we were called last.
    ticked: Instant,
    /// Sessions that nobody has proved yet cost a key derivation each: so many may come in this second.
    strangers: (Instant, u32),
    output: VecDeque<Output>,
}

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this.
    Send {
        /// To.
        to: SocketAddr,
        /// What.
        datagram: Vec<u8>,
    },
    /// Find out whether the kernel of a silent member answers, and whether its port refuses; say it with [`Membership::evidence`].
    Probe {
        /// Name of its node.
        member: Arc<str>,
        /// Where its daemon should be.
        address: SocketAddr,
        /// What to send there: a question that a living daemon answers.
        datagram: Vec<u8>,
    },
    /// Something about a member is other than before.
    Changed(Change),
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// What is known of a member.
    State {
        /// Name of its node.
        member: Arc<str>,
        /// Now.
        state: State,
    },
    /// What it tells of itself.
    Facts {
        /// Name of its node.
        member: Arc<str>,
    },
    /// The others remember what this daemon told before it was restarted: [`Membership::remembered`].
    Remembered,
    /// It is in the roster no more.
    Removed {
        /// Name of its node.
        member: Arc<str>,
    },
}

/// One other member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of its node.
    pub name: Arc<str>,
    /// What is known of it.
    pub state: State,
    /// What it told last; `None` before it did.
    pub facts: Option<Arc<Facts>>,
}

impl Membership {
    /// Of the node `name`; `None` without a key. The first one of `keys` seals. `seed` must be random: the session comes from it.
    #[must_use]
    pub fn new(name: &str, keys: Vec<Key>, options: Options, seed: [u8; 32], now: Instant) -> Option<Self> {
        let mut random = StdRng::from_seed(seed);
        let mut session = Session([0; 16]);
        random.fill_bytes(&mut session.0);
        Some(Self {
            own: MemberId::of(name),
            session,
            sealer: Sealer::new(keys.first()?, session),
            keys,
            options,
            random,
            started: now,
            peers: BTreeMap::new(),
            has_roster: false,
            sessions: HashMap::new(),
            watchers: Vec::new(),
            facts: Vec::new(),
            facts_version: 0,
            remembered: None,
            departure: None,
            reports: Vec::new(),
            repeats: 0,
            repeat_at: now,
            promised: None,
            ticked: now,
            strangers: (now, 0),
            output: VecDeque::new(),
        })
    }

    /// Who could be a member, and where. Our own node may be among them; members that stay keep what is known of them.
    pub fn set_roster(&mut self, roster: impl IntoIterator<Item = (Arc<str>, SocketAddr)>, now: Instant) {
        let roster: BTreeMap<MemberId, (Arc<str>, SocketAddr)> =
            roster.into_iter().map(|(name, address)| (MemberId::of(&name), (name, address))).collect();
        self.has_roster = true;
        let output = &mut self.output;
        self.peers.retain(|id, peer| {
            let stays = roster.contains_key(id);
            if !stays {
                output.push_back(Output::Changed(Change::Removed { member: peer.name.clone() }));
            }
            stays
        });
        self.sessions.retain(|_, id| roster.contains_key(id));
        for (id, (name, address)) in roster.into_iter().filter(|(id, _)| *id != self.own) {
            let heartbeat = self.options.heartbeat;
            self.peers.entry(id).or_insert_with(|| Peer::new(name, address, heartbeat, now)).address = address;
        }
        self.choose_watchers();
        self.tick(now);
    }

    /// What this member tells of itself from now on. Nothing is sent if it told the same before.
    ///
    /// A daemon that starts tells nothing before [`Membership::is_settled`]: until then the others go by what it told last.
    ///
    /// # Errors
    /// More than can be told; the facts stay as they were.
    pub fn set_facts(&mut self, facts: &Facts, now: Instant) -> Result<(), FactsError> {
        let facts = facts.encode()?;
        if facts != self.facts {
            self.facts = facts;
            self.facts_version += 1;
            for peer in self.peers.values_mut() {
                peer.outgoing.again = None;
            }
            self.push_facts(now);
        }
        Ok(())
    }

    /// Keys to seal and to open with, while they are changed: the first one seals. An empty list changes nothing.
    pub fn set_keys(&mut self, keys: Vec<Key>) {
        // The same counter with another key is no nonce used twice.
        if let (Some(key), true) = (keys.first(), keys != self.keys) {
            self.sealer.rekey(key);
            self.keys = keys;
        }
    }

    /// This daemon will end. It goes on answering for its VIPs until [`super::HandOver`] says that others do.
    pub fn depart(&mut self, departure: Departure, now: Instant) {
        self.departure = Some(departure);
        self.say_to_all(now);
        self.tick(now);
    }

    /// What a probe of a silent member found.
    pub fn evidence(&mut self, member: &str, evidence: Evidence, now: Instant) {
        let Some(peer) = self.peers.get_mut(&MemberId::of(member)) else { return };
        // The port that refuses says more than the kernel that answers.
        let keeps = evidence == Evidence::KernelAnswers && matches!(peer.kernel, Some((Evidence::Refuses, _)));
        peer.kernel = Some((if keeps { Evidence::Refuses } else { evidence }, now));
        if peer.silent.is_some() {
            self.judge(now);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.notice_stall(now);
        self.ticked = now;
        self.watch(now);
        self.judge(now);
        self.push_facts(now);
        self.beat(now);
    }

    /// When to call [`Membership::tick`] next. Far too late a call is understood as a stall of this process, and nobody is accused.
    pub fn next_deadline(&mut self) -> Instant {
        let roll_call = self.options.roll_call;
        let peers = self.peers.values().flat_map(|peer| {
            let member = peer.state.is_member();
            let watching = if member && peer.silent.is_none() { peer.accuse_at() } else { None };
            let asking = if member { peer.asked_at() } else { None };
            let push = peer.outgoing.again.filter(|_| self.needs_facts(peer));
            [Some(peer.beat_at), watching, asking, self.next_judgement(peer), push].into_iter().flatten()
        });
        let repeat = (self.repeats > 0).then_some(self.repeat_at);
        let next = peers.chain(repeat).min();
        let next = next.unwrap_or_else(|| self.promised.map_or(self.started, |last| last + roll_call));
        self.promised = Some(next);
        next
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Everybody else, by hash of the name.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        self.peers.values().map(|peer| {
            let Peer { name, state, facts, .. } = peer;
            Member { name: name.clone(), state: *state, facts: facts.clone() }
        })
    }

    /// Whether enough is known to hold elections: of every node in the roster what it holds, or that it does not answer. A daemon that
    /// starts announces nothing before, so it takes nothing from those that have it.
    #[must_use]
    pub fn is_settled(&self, now: Instant) -> bool {
        let told = |peer: &Peer| peer.state.is_member() && peer.facts.is_some();
        self.has_roster && (now >= self.started + SETTLING || self.peers.values().all(told))
    }

    /// What this node told before its daemon was restarted, if others waited for it: what it held, it may take up again. `None` after
    /// a first start, or if it was gone for too long.
    #[must_use]
    pub fn remembered(&self) -> Option<&Arc<Facts>> {
        self.remembered.as_ref()
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether there is something to tell it that it does not have. Who leaves most of all has to know who has taken over.
    fn needs_facts(&self, peer: &Peer) -> bool {
        let listens = matches!(peer.state, State::Alive | State::Leaving);
        self.facts_version > 0 && listens && peer.outgoing.acknowledged != self.facts_version
    }

    fn push_facts(&mut self, now: Instant) {
        let due = |peer: &Peer| self.needs_facts(peer) && peer.outgoing.again.is_none_or(|again| again <= now);
        let due: Vec<MemberId> = self.peers.iter().filter(|(_, peer)| due(peer)).map(|(&id, _)| id).collect();
        for id in due {
            self.send_facts(id);
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.outgoing.again = Some(now + PUSH_AGAIN);
            }
        }
    }

    fn change_state(&mut self, id: MemberId, state: State) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.state == state {
            return;
        }
        let membership = (peer.state.is_member(), state.is_member());
        if matches!(peer.state, State::Gone { .. }) {
            // Others may have taken over meanwhile, and it may have given way: what it told then is no news of today.
            peer.forget_facts();
        }
        peer.state = state;
        if !state.is_member() {
            peer.accused = None;
            peer.ask_at = None;
        }
        self.output.push_back(Output::Changed(Change::State { member: peer.name.clone(), state }));
        if membership.0 != membership.1 {
            self.choose_watchers();
        }
    }

    /// Who watches us: the next ones on the ring of those that are members.
    fn choose_watchers(&mut self) {
        let ring = self.ring();
        self.watchers = super::ring::watchers(&ring, self.own, self.options.watchers).collect();
    }

    /// All members with ourselves, sorted.
    fn ring(&self) -> Vec<MemberId> {
        let members = self.peers.iter().filter(|(_, peer)| peer.state.is_member()).map(|(&id, _)| id);
        let mut ring: Vec<MemberId> = members.chain([self.own]).collect();
        ring.sort_unstable();
        ring
    }

    /// How often a peer hears of us.
    fn interval_to(&self, id: MemberId) -> Duration {
        if self.watchers.contains(&id) { self.options.heartbeat } else { self.options.roll_call }
    }
}
