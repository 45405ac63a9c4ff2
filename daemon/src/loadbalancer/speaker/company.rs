//! The others: who may announce, who of them lives, and what that means for us. Its IO is that of the membership and the record.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::caution::{Bearing, Caution, Claimant};
use super::field::{Entrant, entrants, nameless};
use super::members::{Members, Roster};
use super::record::Record;
use super::rivals::{Leases, Lookout};
use super::{Cluster, Rules};
use crate::loadbalancer::announcer::conflict;
use crate::loadbalancer::election::Presence;
use crate::loadbalancer::membership::fence::{Api, Quorum, Succession};
use crate::loadbalancer::membership::{self, Departure, Facts, Handle, Key, Member, State, View};
use crate::model::Family;
use crate::model::load_balancer::PeerNode;
use crate::netlink::mac::Mac;

/// A member that lives and has not told on which networks it is: for so long nobody takes what might be its own. Who starts tells within
/// a second.
const TELLS_WITHIN: Duration = Duration::from_secs(2);

/// The others, or nobody.
#[derive(Debug)]
pub(super) struct Company {
    own: Arc<str>,
    cluster: Option<Bond>,
    members: Members,
    caution: Caution,
    /// Members that live and have told nothing so far, since when.
    silent: BTreeMap<Arc<str>, Instant>,
    view: View,
}

/// What ties us to a cluster.
struct Bond {
    cluster: Cluster,
    /// Since this node may announce.
    recorded: Option<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    record: Record,
    keys: watch::Receiver<Vec<Key>>,
    api: watch::Receiver<Api>,
    ask: watch::Sender<BTreeSet<Arc<str>>>,
    leases: watch::Receiver<Arc<Leases>>,
}

/// How an election finds them.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Ourselves first.
    pub(super) field: Vec<Entrant>,
    pub(super) settled: bool,
    pub(super) bearing: Bearing,
    pub(super) first_taking: Succession,
    /// When time alone changes something.
    pub(super) next: Option<Instant>,
}

impl Company {
    /// Without a cluster this node is alone.
    pub(super) fn new(own: Arc<str>, cluster: Option<Cluster>, port: u16, options: membership::Options) -> Self {
        Self {
            members: Members::new(own.clone(), port, options),
            caution: Caution::new(own.clone()),
            own,
            cluster: cluster.map(|cluster| Bond { cluster, recorded: None }),
            silent: BTreeMap::new(),
            view: alone(),
        }
    }

    /// Brings the membership along with who may announce; says whether this node is one of them.
    pub(super) async fn follow(&mut self, rules: &Rules, now: Instant) -> bool {
        let Some(bond) = &mut self.cluster else { return rules.announce_something() };
        let peers = bond.cluster.peers.borrow_and_update().clone();
        let Some(nodes) = peers.all.as_ref().filter(|_| rules.announce_something()) else {
            self.members.follow(None, now).await;
            self.view = alone();
            return false;
        };
        let recorded = bond.recorded.get_or_insert_with(|| Recorded::begin(&bond.cluster));
        self.members.set_keys(recorded.keys.borrow_and_update().clone());
        // Looked at below, or not: it is no news any more.
        recorded.api.mark_unchanged();
        recorded.leases.mark_unchanged();
        let own = peers.own.clone().or_else(|| nodes.get(&self.own).cloned());
        self.members.follow(roster(own.as_deref(), &others(&self.own, nodes, rules)), now).await;
        self.view = match self.members.view() {
            Some(view) => view,
            // Nobody is heard, so nothing is taken.
            None if others(&self.own, nodes, rules).next().is_some() => View { settled: false, ..alone() },
            None => alone(),
        };
        true
    }

    /// Everybody, with ourselves as we are.
    pub(super) fn gather(&mut self, rules: &Rules, facts: Facts, presence: Presence, now: Instant) -> Gathering {
        let Some(bond) = &self.cluster else {
            let node = rules.node.clone().unwrap_or_else(|| nameless(&self.own));
            let field = vec![Entrant::own(node, presence, facts)];
            let (bearing, first_taking) = (Bearing::Free, Succession::AtOnce);
            return Gathering { field, settled: true, bearing, first_taking, next: None };
        };
        let peers = bond.cluster.peers.borrow().clone();
        let (api, leases) = match &bond.recorded {
            Some(recorded) => (*recorded.api.borrow(), recorded.leases.borrow().clone()),
            None => (Api::Reachable, Arc::default()),
        };
        let (bearing, until) = self.caution.weigh(&self.view, api, &leases, now);
        let nobody = BTreeMap::new();
        let nodes = peers.all.as_ref().unwrap_or(&nobody);
        // Whoever deletes our Node tells all others that they need not reckon with us. Without others there is nobody to leave it to.
        let listed = nodes.contains_key(&self.own) || others(&self.own, nodes, rules).next().is_none();
        let presence = if listed { presence } else { Presence::Unlisted };
        let candidates = others(&self.own, nodes, rules).map(|node| (node.name.clone(), node.clone())).collect();
        let node = peers.own.clone().or_else(|| nodes.get(&self.own).cloned()).unwrap_or_else(|| nameless(&self.own));
        let succession = |member: &Member| self.caution.succession(member, api, &leases, now);
        let field = entrants(Entrant::own(node, presence, facts), &candidates, &self.view.members, succession);
        let awaited = self.awaited(now);
        Gathering {
            field,
            settled: self.view.settled && awaited.is_none(),
            bearing,
            first_taking: self.caution.first_taking(&self.view.members, api, &leases, now),
            next: [until, awaited, self.members.retry_at()].into_iter().flatten().min(),
        }
    }

    /// Until when somebody is waited for who lives and has told nothing.
    fn awaited(&mut self, now: Instant) -> Option<Instant> {
        let mut known = std::mem::take(&mut self.silent);
        let silent = self.view.members.iter().filter(|member| member.state == State::Alive && member.facts.is_none());
        self.silent = silent.map(|member| (member.name.clone(), known.remove(&member.name).unwrap_or(now))).collect();
        self.silent.values().map(|since| *since + TELLS_WITHIN).filter(|until| now < *until).max()
    }

    /// Notes which VIPs of ours others say to announce, too. When to look again.
    pub(super) fn look_at_disputes(&mut self, ours: impl Fn(IpAddr) -> bool, now: Instant) -> Option<Instant> {
        let api = self.api();
        self.caution.disputed(ours, &self.view.members, api, now)
    }

    /// Somebody claims a VIP of ours on the LAN.
    pub(super) fn claimed(&mut self, claim: &conflict::Claim) -> Claimant {
        self.caution.claimed(claim.address, claim.mac, &self.view.members)
    }

    /// Whether an announcer with this hardware address is heard.
    pub(super) fn is_heard(&self, mac: Mac) -> bool {
        Caution::is_heard(mac, &self.view.members)
    }

    /// Hardware addresses of the other announcers, as they have told them.
    pub(super) fn macs(&self) -> BTreeSet<Mac> {
        let interfaces = self.view.members.iter().filter_map(|member| member.facts.as_ref()).flat_map(|facts| &facts.interfaces);
        interfaces.filter_map(|interface| interface.hardware.map(Mac)).collect()
    }

    /// Who has a VIP that was given up to it.
    pub(super) fn ceded(&self, vip: IpAddr) -> Option<Arc<str>> {
        self.caution.ceded(vip).cloned()
    }

    /// Tells the others about us.
    pub(super) async fn tell(&mut self, facts: Facts) {
        self.members.tell(facts).await;
    }

    pub(super) fn has_told(&self) -> bool {
        self.members.has_told()
    }

    /// The record learns what we hold and whom we do not hear.
    pub(super) fn note(&self, holds_any: bool) {
        let Some(recorded) = self.recorded() else { return };
        let quorum = self.quorum();
        recorded.record.holds(self.caution.claim(), holds_any);
        recorded.record.watch_closely(quorum.lost_since.is_some() || self.caution.has_disputes());
        let suspects = Caution::suspects(&self.view);
        recorded.ask.send_if_modified(|known| {
            let news = *known != suspects;
            *known = suspects;
            news
        });
    }

    pub(super) async fn depart(&self, departure: Departure) {
        self.members.depart(departure).await;
    }

    /// Waits until something is other than before.
    pub(super) async fn changed(&mut self) {
        let Self { cluster, members, .. } = self;
        let Some(Bond { cluster, recorded }) = cluster else { return std::future::pending().await };
        tokio::select! {
            Ok(()) = cluster.peers.changed() => {}
            () = members.changed() => {}
            () = news(recorded.as_mut()) => {}
            else => std::future::pending().await,
        }
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn quorum(&self) -> Quorum {
        self.caution.quorum()
    }

    pub(super) fn record(&self) -> Option<&Record> {
        self.recorded().map(|recorded| &recorded.record)
    }

    /// What the membership counts.
    pub(super) fn handle(&self) -> Option<&Handle> {
        self.members.handle()
    }

    /// What is wrong.
    pub(super) fn problem(&self) -> Option<String> {
        let deaf = self.members.problem().map(|why| format!("the other announcers are not heard: {why}"));
        let Quorum { heard, known, lost_since } = self.quorum();
        deaf.or_else(|| {
            lost_since.map(|_| format!("only {heard} of {known} announcers are heard, this one among them: what it does not hold it takes over with caution"))
        })
    }

    fn api(&self) -> Api {
        self.recorded().map_or(Api::Reachable, |recorded| *recorded.api.borrow())
    }

    fn recorded(&self) -> Option<&Recorded> {
        self.cluster.as_ref()?.recorded.as_ref()
    }
}

impl Recorded {
    /// On the runtime of the caller.
    fn begin(cluster: &Cluster) -> Self {
        let record = (cluster.record)();
        let (ask, wanted) = watch::channel(BTreeSet::new());
        let (seen, leases) = watch::channel(Arc::default());
        tokio::spawn(Lookout::new(record.clone(), wanted, seen).run());
        Self { keys: record.keys(), api: record.api(), record, ask, leases }
    }
}

async fn news(recorded: Option<&mut Recorded>) {
    let Some(Recorded { keys, api, leases, .. }) = recorded else { return std::future::pending().await };
    tokio::select! {
        Ok(()) = keys.changed() => {}
        Ok(()) = api.changed() => {}
        Ok(()) = leases.changed() => {}
        else => std::future::pending().await,
    }
}

/// Nobody else, and nothing to wait for.
fn alone() -> View {
    View { members: Arc::default(), settled: true, remembered: None }
}

/// Everybody else who may announce.
fn others<'a>(
    own: &'a str,
    nodes: &'a BTreeMap<Arc<str>, Arc<PeerNode>>,
    rules: &'a Rules,
) -> impl Iterator<Item = &'a Arc<PeerNode>> + Clone {
    nodes.values().filter(move |node| *node.name != *own && rules.may_announce(&node.labels))
}

/// Where everybody is heard; `None` if there is nobody. The family is that of our own first address.
fn roster<'a>(own: Option<&PeerNode>, others: &(impl Iterator<Item = &'a Arc<PeerNode>> + Clone)) -> Option<Roster> {
    let own = own.and_then(|own| own.addresses.first().copied());
    let address = |node: &PeerNode| {
        let same = |ip: &&IpAddr| own.is_none_or(|own| Family::of(own) == Family::of(**ip));
        node.addresses.iter().find(same).or_else(|| node.addresses.first()).copied()
    };
    let mut others = others.clone().peekable();
    others.peek()?;
    Some(Roster { own, others: others.filter_map(|node| Some((node.name.clone(), address(node)?))).collect() })
}

impl std::fmt::Debug for Bond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bond").field("recorded", &self.recorded).finish_non_exhaustive()
    }
}
