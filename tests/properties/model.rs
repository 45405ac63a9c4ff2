//! The table of a daemon that followed every event is the table filled at once from what is there now, and it says what policy's text
//! says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use sheave::model::{AffinityTimeout, EndpointSlice};
use sheave::policy::naive::{self, Client, Coverage};
use sheave::table::{
    AddressUse, Backend, Frontend, FrontendAddress, FrontendKind, NodeState, Notice, PortId, Scope, ServicePort, ServiceTable,
    Slot, SlotWrite, Verdict,
};

use crate::history::{Node, Outcome};
use crate::run::run;

/// A table without its history: no slots, no generations.
#[derive(Debug, PartialEq)]
pub(crate) struct Content {
    ports: BTreeMap<PortId, Port>,
    holders: BTreeMap<FrontendAddress, PortId>,
    addresses: BTreeMap<IpAddr, AddressUse>,
    hairpins: BTreeSet<IpAddr>,
    notices: BTreeSet<Notice>,
    node: NodeState,
}

/// A Service port, its backends by address.
#[derive(Debug, PartialEq)]
struct Port {
    frontends: Vec<Frontend>,
    cluster: Vec<Backend>,
    local: Vec<Backend>,
    any_usable: bool,
    affinity: Option<AffinityTimeout>,
    serving: Vec<SocketAddr>,
}

/// Events of the table's own that a run has to have met, beside policy's branches.
#[derive(Debug, Default)]
struct Met {
    conflicts: u32,
    restored: u32,
    refusals: u32,
    came_back: u32,
    moved_into_holes: u32,
    hairpins_lost: u32,
    vips_pooled: u32,
    vips_unpooled: u32,
    loads: u32,
}

impl Content {
    pub(crate) fn of(table: &ServiceTable, node: &Node) -> Self {
        let sorted = |port: &ServicePort, scope| port.set(scope).sorted().collect::<Vec<_>>();
        let ports: BTreeMap<PortId, Port> = table
            .ports()
            .map(|port| {
                let content = Port {
                    frontends: port.frontends.clone(),
                    cluster: sorted(port, Scope::Cluster),
                    local: sorted(port, Scope::Local),
                    any_usable: port.any_usable,
                    affinity: port.affinity,
                    serving: port.serving.to_vec(),
                };
                (port.id.clone(), content)
            })
            .collect();
        let held = ports.values().flat_map(|port| &port.frontends).map(|frontend| frontend.address);
        let holders = held.map(|address| (address, table.holder(&address).unwrap().id.clone())).collect();
        let services = node.reconciler.index().services();
        let notices = services.flat_map(|service| table.notices_of(&service.key)).cloned().collect();
        Self {
            ports,
            holders,
            addresses: table.addresses().collect(),
            hairpins: table.hairpins().collect(),
            notices,
            node: (**table.node()).clone(),
        }
    }
}

/// Backends by slot are what the sorted view says, each once.
fn assert_slots_are_sound(table: &ServiceTable) {
    for port in table.ports() {
        for scope in [Scope::Cluster, Scope::Local] {
            let set = port.set(scope);
            let by_slot: BTreeSet<SocketAddr> = set.slots().iter().map(Slot::address).collect();
            assert_eq!(by_slot.len(), set.len(), "{}: a backend has two slots: {set:?}", port.id);
            for (place, slot) in (0..).zip(set.slots()) {
                assert_eq!(set.find(slot.address()).map(|(found, _)| found), Some(place), "{}: {set:?}", port.id);
                assert!(slot.generation() <= table.generation(), "{}: from the future: {slot:?}", port.id);
            }
        }
    }
}

/// Every frontend belongs to whom the rules of precedence give it: kind, age, UID, name; and where an address is a ClusterIP, to nobody
/// who wants it as something else.
fn assert_conflicts_are_decided(node: &Node) {
    let (index, table) = (node.reconciler.index(), node.reconciler.table());
    let mut claims = BTreeMap::new();
    let mut cluster_ips: BTreeSet<IpAddr> =
        index.foreign_services().flat_map(|service| service.cluster_ips.iter().copied()).collect();
    for service in index.services() {
        let ports = naive::ports(service, &[], node.reconciler.context(), &mut Coverage::default());
        for (id, port) in ports {
            for (address, kind) in port.kinds {
                cluster_ips.extend(address.ip().filter(|_| kind == FrontendKind::ClusterIp));
                let claim = (kind, service.created.unwrap_or(i64::MAX), service.uid.clone(), id.clone());
                claims.entry(address).or_insert_with(BTreeSet::new).insert(claim);
            }
        }
    }
    let mut held = BTreeMap::new();
    for (address, claims) in claims {
        let (kind, _, _, winner) = claims.into_iter().next().unwrap();
        let refused = kind != FrontendKind::ClusterIp && address.ip().is_some_and(|ip| cluster_ips.contains(&ip));
        held.extend((!refused).then_some((address, winner)));
    }
    let found: BTreeMap<FrontendAddress, PortId> =
        table.ports().flat_map(|port| port.frontends.iter().map(|frontend| (frontend.address, port.id.clone()))).collect();
    assert_eq!(found, held);
}

/// A node has duties for the addresses at which some Service port holds a frontend because it is a VIP of a pool, and for no others.
fn assert_duties_are_for_pool_vips(table: &ServiceTable) {
    let frontends = table.ports().flat_map(|port| &port.frontends).filter(|frontend| frontend.kind == FrontendKind::PoolVip);
    let held: BTreeSet<IpAddr> = frontends.filter_map(|frontend| frontend.address.ip()).collect();
    let dutiful: BTreeSet<IpAddr> = table.addresses().filter(|(_, used)| used.pool_vip).map(|(ip, _)| ip).collect();
    assert_eq!(dutiful, held);
}

/// Whom each client of each frontend reaches, and what becomes of those that reach nobody, by the text.
fn assert_policy_is_the_text(node: &Node, seen: &mut Coverage) {
    let (index, table) = (node.reconciler.index(), node.reconciler.table());
    for service in index.services() {
        let slices: Vec<EndpointSlice> = index.slices(&service.key).cloned().collect();
        let expected = naive::ports(service, &slices, node.reconciler.context(), seen);
        for port in table.ports_of(&service.key) {
            let naive = &expected[&port.id];
            assert_eq!(port.any_usable, naive.any_usable, "{}", port.id);
            for frontend in &port.frontends {
                assert_eq!(Some(&frontend.kind), naive.kinds.get(&frontend.address), "{}", port.id);
                for client in Client::ALL {
                    let local = frontend.splits_by_source() && client == Client::Outside;
                    let set = port.set(if local { Scope::Local } else { frontend.scope() });
                    let found: BTreeSet<SocketAddr> = set.iter().map(|backend| backend.address).collect();
                    let text = naive.served(frontend.kind, client, seen);
                    assert_eq!(&found, text, "{client:?} -> {} of {}", frontend.address, port.id);
                }
                let nobody = naive.served(frontend.kind, Client::Outside, seen).is_empty();
                let verdict = match (naive.any_usable, nobody) {
                    (false, _) => Verdict::Reject,
                    (true, true) => Verdict::Drop,
                    (true, false) => Verdict::Forward,
                };
                assert_eq!(port.verdict(frontend), verdict, "{} of {}", frontend.address, port.id);
            }
        }
    }
}

impl Met {
    fn note(&mut self, outcome: &Outcome) {
        let reconciled = match outcome {
            Outcome::Waiting => return,
            Outcome::Load => {
                self.loads += 1;
                return;
            }
            Outcome::Delta(reconciled) => reconciled,
        };
        let count = |condition| u32::from(condition);
        let committed = &reconciled.committed;
        self.conflicts += count(committed.notices_raised.iter().any(|notice| notice.reason == "FrontendConflict"));
        self.refusals += count(committed.notices_raised.iter().any(|notice| notice.reason == "AddressRefused"));
        self.restored += count(committed.notices_cleared.iter().any(|notice| notice.reason == "FrontendConflict"));
        self.hairpins_lost += count(committed.delta.hairpins.iter().any(|(_, came)| !came));
        let pooled =
            |after: bool| committed.delta.addresses.iter().any(|c| (c.before.pool_vip, c.after.pool_vip) == (!after, after));
        self.vips_pooled += count(pooled(true));
        self.vips_unpooled += count(pooled(false));
        for set in committed.delta.ports.iter().flat_map(|change| [&change.cluster, &change.local]) {
            let joined = |backend: Backend| set.added.iter().any(|added| added.address == backend.address);
            let moved = |write: &SlotWrite| write.after.is_some_and(|backend| !joined(backend));
            self.moved_into_holes += count(set.writes.iter().any(moved));
        }
    }

    fn add(&mut self, other: &Self) {
        self.conflicts += other.conflicts;
        self.restored += other.restored;
        self.refusals += other.refusals;
        self.came_back += other.came_back;
        self.moved_into_holes += other.moved_into_holes;
        self.hairpins_lost += other.hairpins_lost;
        self.vips_pooled += other.vips_pooled;
        self.vips_unpooled += other.vips_unpooled;
        self.loads += other.loads;
    }
}

/// Generations at which each backend of each set joined so far, since the last restart.
#[derive(Debug, Default)]
struct Identities(HashMap<(PortId, bool, SocketAddr), Identity>);

#[derive(Clone, Copy, Debug)]
struct Identity {
    generation: u64,
    present: bool,
}

impl Identities {
    /// Who leaves and comes back is somebody else; who stays is not. Says how many came back.
    fn follow(&mut self, table: &ServiceTable) -> u32 {
        let mut came_back = 0;
        let mut present = HashSet::new();
        for port in table.ports() {
            for (is_local, set) in [(false, &port.cluster), (true, &port.local)] {
                for slot in set.slots() {
                    let key = (port.id.clone(), is_local, slot.address());
                    let now = Identity { generation: slot.generation(), present: true };
                    match self.0.insert(key.clone(), now) {
                        Some(Identity { generation, present: true }) => {
                            assert_eq!(generation, now.generation, "{}: {slot:?} stayed and has another identity", port.id);
                        }
                        Some(Identity { generation, present: false }) => {
                            assert!(generation < now.generation, "{}: {slot:?} has the identity of one that left", port.id);
                            came_back += 1;
                        }
                        None => {}
                    }
                    present.insert(key);
                }
            }
        }
        for (_, identity) in self.0.iter_mut().filter(|(key, _)| !present.contains(key)) {
            identity.present = false;
        }
        came_back
    }
}

#[test]
fn the_table_depends_on_what_is_there_and_not_on_how_it_came() {
    let (players, whole) = run("table", <(Coverage, Met)>::default, |(seen, met), _, sequence| {
        let mut node = Node::new(sequence);
        let mut identities = Identities::default();
        let mut loaded = false;
        for step in &sequence.steps {
            let outcome = node.step(step, loaded);
            met.note(&outcome);
            match outcome {
                Outcome::Waiting => continue,
                Outcome::Load => identities = Identities::default(),
                Outcome::Delta(_) => {}
            }
            loaded = true;
            met.came_back += identities.follow(node.reconciler.table());
            assert_slots_are_sound(node.reconciler.table());
            assert_eq!(Content::of(node.reconciler.table(), &node), Content::of(&node.rebuilt(), &node));
            assert_policy_is_the_text(&node, seen);
            assert_conflicts_are_decided(&node);
            assert_duties_are_for_pool_vips(node.reconciler.table());
        }
    });
    let (mut seen, mut met) = (Coverage::default(), Met::default());
    for (coverage, counts) in players {
        seen.extend(coverage);
        met.add(&counts);
    }
    eprintln!("table: {met:?}");
    if whole {
        let missed: Vec<_> = seen.missed().collect();
        assert!(missed.is_empty(), "no sequence took these branches of policy: {missed:?}\n{seen:#?}");
        let Met { conflicts, restored, refusals, came_back, moved_into_holes, hairpins_lost, vips_pooled, vips_unpooled, loads } =
            met;
        let counts =
            [conflicts, restored, refusals, came_back, moved_into_holes, hairpins_lost, vips_pooled, vips_unpooled, loads];
        let least = counts.into_iter().min();
        assert!(least > Some(0), "no sequence met one of these: {met:?}");
    }
}
