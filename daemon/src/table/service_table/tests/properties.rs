//! Random histories over few names, addresses and backends, so that everything collides with everything.
//!
//! Three models: the table filled anew from the same inputs, the rules of precedence applied naively to all claims at once, and a
//! mirror that knows nothing but the deltas.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use crate::model::{Family, Protocol, ServiceKey, TrafficPolicy};
use crate::policy::{Desired, DesiredPort, Seniority};
use crate::table::fixtures::{id, key};
use crate::table::{
    AddressUse, Backend, BackendId, BackendSet, Committed, Delta, Frontend, FrontendAddress, FrontendKind, NodeState, Notice,
    PortId, Scope, ServiceTable, Slot,
};

const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
const FOREIGN: [&str; 2] = ["x", "y"];

/// One call of the staging interface, or a commit.
#[derive(Clone, Debug)]
enum Operation {
    Service(&'static str, Option<(Desired, Seniority)>),
    Foreign(&'static str, Vec<IpAddr>),
    Node(NodeState),
    Commit,
}

/// What is in force after all operations so far.
#[derive(Clone, Default)]
struct Inputs {
    services: BTreeMap<ServiceKey, (Desired, Seniority)>,
    foreign: BTreeMap<ServiceKey, Vec<IpAddr>>,
    node: NodeState,
}

/// The table without slots and generations.
#[derive(Debug, Default, PartialEq)]
struct Content {
    ports: BTreeMap<PortId, DesiredPort>,
    addresses: BTreeMap<IpAddr, AddressUse>,
    hairpins: BTreeSet<IpAddr>,
    holders: BTreeMap<FrontendAddress, PortId>,
    notices: BTreeSet<Notice>,
    node: NodeState,
}

/// What a plane without memory of its own would have in the kernel.
#[derive(Debug, Default, PartialEq)]
struct Mirror {
    frontends: BTreeMap<FrontendAddress, PortId>,
    arrays: BTreeMap<(PortId, bool), Vec<Option<SocketAddr>>>,
    addresses: BTreeMap<IpAddr, AddressUse>,
    hairpins: BTreeSet<IpAddr>,
    notices: BTreeSet<Notice>,
    node: NodeState,
}

// === Generators ===

fn address() -> impl Strategy<Value = IpAddr> {
    (1..5u8).prop_map(|last| IpAddr::from([192, 0, 2, last]))
}

fn frontend_address() -> impl Strategy<Value = (FrontendAddress, FrontendKind)> {
    use FrontendKind::{ClusterIp, ExternalIp, LoadBalancer, NodePort, PoolVip};
    let kind = prop::sample::select(vec![ClusterIp, PoolVip, LoadBalancer, ExternalIp, ExternalIp]);
    let at_ip = (address(), 80..82u16, kind)
        .prop_map(|(ip, port, kind)| (FrontendAddress::Ip { ip, protocol: Protocol::Tcp, port }, kind));
    let node_port = (30000..30002u16)
        .prop_map(|port| (FrontendAddress::NodePort { family: Family::V4, protocol: Protocol::Tcp, port }, NodePort));
    prop_oneof![4 => at_ip, 1 => node_port]
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![Just(TrafficPolicy::Cluster), Just(TrafficPolicy::Local)]
}

fn frontends() -> impl Strategy<Value = Vec<Frontend>> {
    btree_map(frontend_address().prop_map(|(address, _)| address), (frontend_address(), policy(), policy()), 0..4).prop_map(
        |frontends| {
            let frontend = |(address, ((_, kind), internal, external)): (FrontendAddress, _)| {
                let kind = match (address, kind) {
                    (FrontendAddress::NodePort { .. }, _) => FrontendKind::NodePort,
                    (_, FrontendKind::NodePort) => FrontendKind::ExternalIp,
                    (_, kind) => kind,
                };
                let policy = if kind == FrontendKind::ClusterIp { internal } else { external };
                Frontend { address, kind, policy, source_ranges: None }
            };
            frontends.into_iter().map(frontend).collect()
        },
    )
}

/// Backends by address; whether one is local is a matter of its address and of `moved`, as with a pod that comes back elsewhere.
fn backends() -> impl Strategy<Value = (Vec<Backend>, Vec<Backend>)> {
    (btree_set((0..4u8, 0..2u16), 0..7), any::<bool>()).prop_map(|(list, moved)| {
        let backend = |&(last, port): &(u8, u16)| Backend {
            address: SocketAddr::from(([10, 0, 0, last], 8080 + port)),
            local: last == 0 || (last == 1 && moved),
        };
        let all: Vec<Backend> = list.iter().map(backend).collect();
        let local = all.iter().copied().filter(|backend| backend.local).collect();
        (all, local)
    })
}

/// As policy does, backends only for the scopes that its own frontends use.
fn port(service: &'static str, name: &'static str) -> impl Strategy<Value = DesiredPort> {
    (frontends(), backends(), any::<bool>()).prop_map(move |(frontends, (mut cluster, mut local), any_usable)| {
        if !frontends.iter().any(|frontend| frontend.uses(Scope::Cluster)) {
            cluster.clear();
        }
        if !frontends.iter().any(|frontend| frontend.uses(Scope::Local)) {
            local.clear();
        }
        DesiredPort { id: id(service, name), frontends, cluster, local, any_usable, affinity: None, serving: [].into() }
    })
}

fn operation() -> impl Strategy<Value = Operation> {
    let service = prop::sample::select(&SERVICES[..]).prop_flat_map(|service| {
        let ports = (prop::option::of(port(service, "p")), prop::option::of(port(service, "q")));
        let desired = (ports, any::<bool>()).prop_map(move |((p, q), refused)| Desired {
            ports: p.into_iter().chain(q).collect(),
            notices: refused
                .then(|| Notice {
                    service: key(service),
                    reason: "AddressRefused",
                    subject: None,
                    message: "loopback".to_owned(),
                })
                .into_iter()
                .collect(),
        });
        let seniority = (0..3i64, 0..2u8).prop_map(|(created, uid)| Seniority { created, uid: format!("{uid}").into() });
        prop::option::weighted(0.8, (desired, seniority)).prop_map(move |value| Operation::Service(service, value))
    });
    let foreign =
        (prop::sample::select(&FOREIGN[..]), vec(address(), 0..2)).prop_map(|(name, ips)| Operation::Foreign(name, ips));
    let node = any::<bool>().prop_map(|masquerade_all| Operation::Node(NodeState { masquerade_all, ..NodeState::default() }));
    prop_oneof![10 => service, 2 => foreign, 1 => node, 6 => Just(Operation::Commit)]
}

// === Models ===

impl Inputs {
    fn apply(&mut self, operation: &Operation) {
        match operation.clone() {
            Operation::Service(name, Some(service)) => drop(self.services.insert(key(name), service)),
            Operation::Service(name, None) => drop(self.services.remove(&key(name))),
            Operation::Foreign(name, ips) => drop(self.foreign.insert(key(name), ips)),
            Operation::Node(node) => self.node = node,
            Operation::Commit => {}
        }
    }

    /// A table that never knew anything else, filled from the last to the first.
    fn rebuilt(&self) -> ServiceTable {
        let mut table = ServiceTable::default();
        table.set_node(self.node.clone());
        for (key, service) in self.services.iter().rev() {
            table.set_service(key.clone(), Some(service.clone()));
        }
        for (key, ips) in &self.foreign {
            table.set_foreign(key.clone(), ips.clone());
        }
        table.commit();
        table
    }

    /// The rules, applied to everybody at once.
    fn holders(&self) -> BTreeMap<FrontendAddress, PortId> {
        let claims = || {
            self.services.values().flat_map(|(desired, seniority)| {
                desired
                    .ports
                    .iter()
                    .flat_map(move |port| port.frontends.iter().map(move |frontend| (frontend, seniority, &port.id)))
            })
        };
        let own = claims().filter(|(frontend, ..)| frontend.kind == FrontendKind::ClusterIp);
        let own = own.filter_map(|(frontend, ..)| frontend.address.ip());
        let cluster_ips: HashSet<IpAddr> = own.chain(self.foreign.values().flatten().copied()).collect();
        let refused = |frontend: &Frontend| {
            frontend.kind != FrontendKind::ClusterIp && frontend.address.ip().is_some_and(|ip| cluster_ips.contains(&ip))
        };
        let mut best = BTreeMap::new();
        for (frontend, seniority, id) in claims().filter(|(frontend, ..)| !refused(frontend)) {
            let rank = (frontend.kind, seniority, id);
            best.entry(frontend.address).and_modify(|holder| *holder = rank.min(*holder)).or_insert(rank);
        }
        best.into_iter().map(|(address, (.., id))| (address, id.clone())).collect()
    }
}

/// A set holds what its port wants, if a frontend that the port has uses it; else nothing.
fn assert_sets(table: &ServiceTable, inputs: &Inputs) {
    for port in table.ports() {
        let (desired, _) = &inputs.services[&port.id.service];
        let desired = desired.ports.iter().find(|desired| desired.id == port.id).unwrap();
        for (scope, wanted) in [(Scope::Cluster, &desired.cluster), (Scope::Local, &desired.local)] {
            let used = port.frontends.iter().any(|frontend| frontend.uses(scope));
            let wanted = if used { &wanted[..] } else { &[] };
            assert_eq!(port.set(scope).sorted().collect::<Vec<_>>(), wanted, "{} {scope:?}", port.id);
        }
    }
}

impl Content {
    fn of(table: &ServiceTable) -> Self {
        let port = |port: &std::sync::Arc<crate::table::ServicePort>| {
            let desired = DesiredPort {
                id: port.id.clone(),
                frontends: port.frontends.clone(),
                cluster: port.cluster.sorted().collect(),
                local: port.local.sorted().collect(),
                any_usable: port.any_usable,
                affinity: port.affinity,
                serving: port.serving.clone(),
            };
            (port.id.clone(), desired)
        };
        let addresses: Vec<_> = table.ports().flat_map(|port| &port.frontends).map(|frontend| frontend.address).collect();
        let holder = |address: FrontendAddress| (address, table.holder(&address).unwrap().id.clone());
        Self {
            ports: table.ports().map(port).collect(),
            addresses: table.addresses().collect(),
            hairpins: table.hairpins().collect(),
            holders: addresses.into_iter().map(holder).collect(),
            notices: SERVICES.iter().flat_map(|name| table.notices_of(&key(name))).cloned().collect(),
            node: (**table.node()).clone(),
        }
    }
}

impl Mirror {
    /// Applies a delta, and fails on one that speaks of anything but a change.
    fn apply(&mut self, committed: &Committed) {
        let Committed { delta, notices_raised, notices_cleared, health_checks: _, tenancies: _ } = committed;
        let Delta { generation, ports, addresses, hairpins, node } = delta;
        for change in ports {
            assert_ne!(change.before, change.after);
            for frontend in change.before.iter().flat_map(|port| &port.frontends) {
                assert!(self.frontends.remove(&frontend.address).is_some());
            }
        }
        for change in ports {
            if let Some(port) = &change.after {
                for frontend in &port.frontends {
                    assert_eq!(self.frontends.insert(frontend.address, port.id.clone()), None);
                }
            }
            let empty = BackendSet::default();
            for (scope, writes) in [(Scope::Cluster, &change.cluster), (Scope::Local, &change.local)] {
                let before = change.before.as_ref().map_or(&empty, |port| port.set(scope));
                let after = change.after.as_ref().map_or(&empty, |port| port.set(scope));
                assert_identities(before, after, writes, *generation);
                let id = &change.after.as_ref().or(change.before.as_ref()).unwrap().id;
                let array = self.arrays.entry((id.clone(), scope == Scope::Cluster)).or_default();
                array.resize(before.len().max(after.len()), None);
                for write in &writes.writes {
                    let place = &mut array[write.slot as usize];
                    assert_eq!(*place, write.before.map(|backend| backend.address));
                    *place = write.after.map(|backend| backend.address);
                }
                array.truncate(after.len());
            }
        }
        self.arrays.retain(|_, array| !array.is_empty());
        for change in addresses {
            assert_ne!(change.before, change.after);
            let before = self.addresses.insert(change.ip, change.after).unwrap_or_default();
            assert_eq!(before, change.before);
        }
        self.addresses.retain(|_, used| *used != AddressUse::default());
        for (ip, present) in hairpins {
            assert!(if *present { self.hairpins.insert(*ip) } else { self.hairpins.remove(ip) });
        }
        for notice in notices_cleared {
            assert!(self.notices.remove(notice));
        }
        for notice in notices_raised {
            assert!(self.notices.insert(notice.clone()));
        }
        if let Some((before, after)) = node {
            assert_eq!(self.node, **before);
            self.node = (**after).clone();
        }
    }

    /// What the mirror has to be.
    fn of(table: &ServiceTable) -> Self {
        let content = Content::of(table);
        let sets = table.ports().flat_map(|port| [(port.id.clone(), true, &port.cluster), (port.id.clone(), false, &port.local)]);
        let array = |(id, cluster, set): (PortId, bool, &BackendSet)| {
            ((id, cluster), set.iter().map(|backend| Some(backend.address)).collect::<Vec<_>>())
        };
        let hairpins = table.ports().flat_map(|port| port.cluster.iter().chain(port.local.iter()).collect::<Vec<_>>());
        let hairpins = hairpins.filter(|backend| backend.local).map(|backend| backend.address.ip());
        Self {
            frontends: content.holders,
            arrays: sets.filter(|(_, _, set)| !set.is_empty()).map(array).collect(),
            addresses: content.addresses,
            hairpins: hairpins.collect(),
            notices: content.notices,
            node: content.node,
        }
    }
}

/// An identity is kept if and only if its backend stayed, and writes are few.
fn assert_identities(before: &BackendSet, after: &BackendSet, change: &crate::table::SetDelta, generation: u64) {
    let ids = |set: &BackendSet| set.slots().iter().map(Slot::id).collect::<HashSet<BackendId>>();
    let (old, new) = (ids(before), ids(after));
    let stayed: HashMap<SocketAddr, u64> = old.iter().map(|id| (id.address, id.generation)).collect();
    for id in &new {
        assert_eq!(id.generation, stayed.get(&id.address).copied().unwrap_or(generation));
    }
    assert_eq!(new.len(), after.len(), "a backend has two slots");
    assert_eq!(change.added.iter().copied().collect::<HashSet<_>>(), &new - &old);
    assert_eq!(change.removed.iter().copied().collect::<HashSet<_>>(), &old - &new);
    assert!(change.writes.len() <= 2 * change.removed.len() + change.added.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_history_ends_as_if_it_had_never_been(operations in vec(operation(), 30)) {
        let (mut table, mut inputs, mut mirror) = (ServiceTable::default(), Inputs::default(), Mirror::default());
        for operation in operations.iter().chain([&Operation::Commit]) {
            inputs.apply(operation);
            match operation.clone() {
                Operation::Service(name, service) => table.set_service(key(name), service),
                Operation::Foreign(name, ips) => table.set_foreign(key(name), ips),
                Operation::Node(node) => table.set_node(node),
                Operation::Commit => {
                    let before = table.generation();
                    let committed = table.commit();
                    prop_assert_eq!(committed.delta.generation, table.generation());
                    prop_assert_eq!(table.generation(), before + u64::from(!committed.delta.is_empty()));
                    mirror.apply(&committed);
                    prop_assert_eq!(&mirror, &Mirror::of(&table));
                    prop_assert_eq!(Content::of(&table), Content::of(&inputs.rebuilt()));
                    prop_assert_eq!(Content::of(&table).holders, inputs.holders());
                    assert_sets(&table, &inputs);
                }
            }
        }
    }

    #[test]
    fn what_is_already_so_changes_nothing(operations in vec(operation(), 12)) {
        let mut inputs = Inputs::default();
        operations.iter().for_each(|operation| inputs.apply(operation));
        let mut table = inputs.rebuilt();
        let before = table.generation();
        table.set_node(inputs.node.clone());
        for (key, service) in &inputs.services {
            table.set_service(key.clone(), Some(service.clone()));
        }
        for (key, ips) in &inputs.foreign {
            table.set_foreign(key.clone(), ips.clone());
        }
        let committed = table.commit();
        prop_assert!(committed.delta.is_empty(), "{:?}", committed);
        prop_assert_eq!((committed.notices_raised.len(), committed.notices_cleared.len()), (0, 0));
        prop_assert_eq!(table.generation(), before);
    }
}
