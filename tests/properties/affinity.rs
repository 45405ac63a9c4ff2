//! Clients stay with their backends: a sync takes away the affinity entries of backends that left, nobody else's, and until it has done
//! so packets do not use them. A restart changes nothing for anybody.
//!
//! Before every event each sticky frontend is given an entry for each client it may have and each backend, as packets would write them;
//! afterwards the maps are read back. In memory for every sequence, in the kernel, written and read by `nft`, for some.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use serde_json::Value;
use sheave::dataplane::Dataplane as _;
use sheave::dataplane::nftables::{NftablesPlane, TABLE};
use sheave::model::{Family, Protocol};
use sheave::netlink::nft::{Batch, FakeNft, NftDoor, OwnedElement};
use sheave::source::{Change, Object};
use sheave::table::{Detector, Frontend, FrontendAddress, NodeState, Scope, ServicePort, ServiceTable};
use sheave_lab::Namespace;

use crate::fake::base;
use crate::history::{Node, Outcome, Sequence, Step};
use crate::kernel::{clear, door};
use crate::run::run;

/// What a client did: it connected to an address, and so an entry says where it goes from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    client: IpAddr,
    at: At,
}

/// An address as affinity entries and suspensions name it. A NodePort has one for each address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct At {
    ip: IpAddr,
    protocol: Protocol,
    port: u16,
}

type Entries = BTreeMap<Key, SocketAddr>;

/// A kernel with affinity maps that a test may write and read.
trait Maps {
    fn door(&self) -> Box<dyn NftDoor>;

    /// The name of a set of one family now.
    fn set_name(&self, set: &str, family: Family) -> String {
        let wanted = format!("{set}-{}", if family == Family::V4 { 4 } else { 6 });
        self.door().sets(TABLE).unwrap().into_iter().map(|set| set.name).find(|name| base(name) == wanted).unwrap()
    }

    /// Makes these the only entries.
    fn write(&self, entries: &Entries);

    fn read(&self) -> Entries;

    /// Addresses whose entries are not to be used now.
    fn suspended(&self) -> BTreeSet<At> {
        let mut found = BTreeSet::new();
        for family in Family::ALL {
            let name = self.set_name("sticky-suspended", family);
            found.extend(self.door().dump(TABLE, &name).unwrap().iter().map(|element| parse_at(family, &element.key)));
        }
        found
    }

    fn forget(&self) {
        let mut batch = Batch::new();
        Family::ALL.iter().for_each(|family| batch.flush_set(TABLE, &self.set_name("affinity", *family)));
        self.door().commit(batch).unwrap();
    }
}

impl Maps for FakeNft {
    fn door(&self) -> Box<dyn NftDoor> {
        Box::new(self.another())
    }

    fn write(&self, entries: &Entries) {
        self.forget();
        let maps = Family::ALL.map(|family| self.set_name("affinity", family));
        for (key, backend) in entries {
            let map = &maps[usize::from(key.client.is_ipv6())];
            let element = OwnedElement {
                key: [address(key.client), at_bytes(key.at)].concat(),
                data: Some([address(backend.ip()), port(backend.port())].concat()),
                ..OwnedElement::default()
            };
            assert!(self.learn(TABLE, map, &element), "no room for {key:?}");
        }
    }

    fn read(&self) -> Entries {
        let mut entries = Entries::new();
        for family in Family::ALL {
            for element in self.door().dump(TABLE, &self.set_name("affinity", family)).unwrap() {
                let (client, at) = element.key.split_at(if family == Family::V4 { 4 } else { 16 });
                let (ip, rest) = parse_address(family, element.data.as_deref().unwrap());
                let key = Key { client: parse_address(family, client).0, at: parse_at(family, at) };
                entries.insert(key, SocketAddr::new(ip, parse_port(rest)));
            }
        }
        entries
    }
}

impl Maps for Namespace {
    fn door(&self) -> Box<dyn NftDoor> {
        Box::new(door(self))
    }

    fn write(&self, entries: &Entries) {
        self.forget();
        for family in Family::ALL {
            let of_family = entries.iter().filter(|(key, _)| Family::of(key.client) == family);
            let elements: Vec<String> = of_family
                .map(|(Key { client, at }, backend)| {
                    let protocol = at.protocol.to_string().to_lowercase();
                    format!("{client} . {} . {protocol} . {} timeout 1h : {} . {}", at.ip, at.port, backend.ip(), backend.port())
                })
                .collect();
            if elements.is_empty() {
                continue;
            }
            let text = format!("add element inet {TABLE} {} {{ {} }}", self.set_name("affinity", family), elements.join(", "));
            let outcome = self.exec("nft", &[&text]).unwrap();
            assert!(outcome.status.success(), "nft {text}: {}", outcome.stderr);
        }
    }

    fn read(&self) -> Entries {
        let mut entries = Entries::new();
        for family in Family::ALL {
            let listed = self.exec("nft", &["-j", "list", "map", "inet", TABLE, &self.set_name("affinity", family)]).unwrap();
            assert!(listed.status.success(), "nft: {}", listed.stderr);
            let json: Value = serde_json::from_str(&listed.stdout).unwrap();
            let map = json["nftables"].as_array().unwrap().iter().find_map(|object| object.get("map")).unwrap();
            for element in map["elem"].as_array().into_iter().flatten() {
                let (key, data) = (&element[0]["elem"]["val"]["concat"], &element[1]["concat"]);
                let ip = |value: &Value| value.as_str().unwrap().parse::<IpAddr>().unwrap();
                let port = |value: &Value| u16::try_from(value.as_u64().unwrap()).unwrap();
                let protocol = Protocol::parse(&key[2].as_str().unwrap().to_uppercase()).unwrap();
                let at = At { ip: ip(&key[1]), protocol, port: port(&key[3]) };
                entries.insert(Key { client: ip(&key[0]), at }, SocketAddr::new(ip(&data[0]), port(&data[1])));
            }
        }
        entries
    }
}

// === Who may be where ===

/// An address of the node at which NodePorts are served at times, and that no Service ever has.
const NODE_ADDRESS: [u8; 4] = [192, 0, 2, 7];

/// How a client is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Pod,
    Outside,
    /// It depends on the interface that it came in by, which no entry tells.
    Unknown,
}

/// Clients in two places.
fn clients(family: Family) -> [IpAddr; 2] {
    match family {
        Family::V4 => [IpAddr::from([10, 180, 77, 1]), IpAddr::from([198, 18, 0, 1])],
        Family::V6 => ["fd00:180::77:1", "2001:db8:ffff::1"].map(|text| text.parse().unwrap()),
    }
}

fn seen(client: IpAddr, node: &NodeState) -> Seen {
    match &node.detector {
        Detector::Off => Seen::Outside,
        Detector::Cidrs(pods) if pods.iter().any(|net| net.contains(&client)) => Seen::Pod,
        Detector::Cidrs(_) => Seen::Outside,
        Detector::Interface(_) | Detector::InterfacePrefix(_) => Seen::Unknown,
    }
}

/// The sticky Service port and the frontend that an entry is of.
fn sticky(table: &ServiceTable, at: At) -> Option<(&ServicePort, &Frontend)> {
    let At { ip, protocol, port } = at;
    let own = FrontendAddress::Ip { ip, protocol, port };
    let node = FrontendAddress::NodePort { family: Family::of(ip), protocol, port };
    let address = if ip == IpAddr::from(NODE_ADDRESS) { node } else { own };
    let holder = table.holder(&address).filter(|port| port.affinity.is_some())?;
    Some((holder, holder.frontends.iter().find(|frontend| frontend.address == address)?))
}

/// Whether an entry is right: the first, for sure; the second, perhaps.
fn right(table: &ServiceTable, key: &Key, backend: SocketAddr) -> (bool, bool) {
    let Some((port, frontend)) = sticky(table, key.at) else { return (false, false) };
    let has = |scope| port.set(scope).find(backend).is_some();
    let (general, local) = (has(frontend.scope()), has(Scope::Local));
    if !frontend.splits_by_source() {
        return (general, general);
    }
    let sure = match seen(key.client, table.node()) {
        Seen::Pod => general,
        Seen::Outside => local,
        Seen::Unknown => general && local,
    };
    (sure, general || local)
}

/// An entry for every client at every sticky frontend, backend after backend.
fn entries(table: &ServiceTable) -> Entries {
    let mut entries = Entries::new();
    for port in table.ports().filter(|port| port.affinity.is_some()) {
        for frontend in &port.frontends {
            let ip = frontend.address.ip().or_else(|| (port.id.family == Family::V4).then(|| NODE_ADDRESS.into()));
            let Some(ip) = ip else { continue };
            let at = At { ip, protocol: frontend.address.protocol(), port: frontend.address.port() };
            for client in clients(port.id.family) {
                let backends = [Scope::Cluster, Scope::Local].into_iter().flat_map(|scope| port.set(scope).iter());
                let mut backends: Vec<SocketAddr> = backends.map(|backend| backend.address).collect();
                backends.sort_unstable();
                backends.dedup();
                for (place, backend) in (0..).zip(backends) {
                    let key = Key { client: numbered(client, place), at };
                    if right(table, &key, backend).0 {
                        entries.insert(key, backend);
                    }
                }
            }
        }
    }
    entries
}

/// One of many clients in the same place.
fn numbered(client: IpAddr, place: u16) -> IpAddr {
    match client {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) + u32::from(place)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) + u128::from(place)).into()),
    }
}

// === The property ===

/// The same event, in which every Service is sticky.
fn all_sticky(step: &Step) -> Step {
    let Step::Event(changes) = step else { return step.clone() };
    let sticky = changes.iter().cloned().map(|change| match change {
        Change::Applied(Object::Service(mut service)) => {
            service.affinity = service.affinity.or(NonZeroU32::new(600));
            Change::Applied(Object::Service(service))
        }
        other => other,
    });
    Step::Event(sticky.collect())
}

/// How often what happened, so that a run proves something.
#[derive(Debug, Default)]
struct Met {
    stayed: usize,
    went: usize,
    stayed_over_restarts: usize,
}

fn play(maps: &(impl Maps + ?Sized), sequence: &Sequence, met: &mut Met) {
    let mut node = Node::new(sequence);
    let mut plane: Option<NftablesPlane> = None;
    for step in &sequence.steps {
        let before = plane.as_ref().map(|_| entries(node.reconciler.table())).unwrap_or_default();
        if plane.is_some() {
            maps.write(&before);
        }
        let outcome = node.step(&all_sticky(step), plane.is_some());
        let table = node.reconciler.table();
        match &outcome {
            Outcome::Waiting => continue,
            Outcome::Load => {
                let restarted = plane.insert(NftablesPlane::new(maps.door()));
                restarted.load(table).unwrap();
            }
            Outcome::Delta(reconciled) => {
                plane.as_mut().unwrap().apply(&reconciled.committed.delta, table).unwrap();
            }
        }
        let is_dead = |key: &Key, backend: SocketAddr| !right(table, key, backend).1;
        let suspended = maps.suspended();
        for (key, backend) in maps.read().into_iter().filter(|(key, backend)| is_dead(key, *backend)) {
            let used = sticky(table, key.at).is_some() && !suspended.contains(&key.at);
            // A NodePort at an address that is not one now is reached by nobody.
            let reached = key.at.ip != IpAddr::from(NODE_ADDRESS) || table.node().node_ports_v4.addresses.contains(&key.at.ip);
            assert!(!used || !reached, "{key:?} goes on to {backend}, which left");
        }
        plane.as_mut().unwrap().finish().unwrap();
        assert_eq!(maps.suspended(), BTreeSet::new(), "suspended for ever");

        let after = maps.read();
        for (key, backend) in &after {
            assert_eq!(before.get(key), Some(backend), "{key:?} was moved");
            assert!(!is_dead(key, *backend), "{key:?} is still bound to {backend}, which left");
        }
        for (key, backend) in before.iter().filter(|(key, backend)| right(table, key, **backend).0) {
            assert!(after.contains_key(key), "{key:?} lost {backend}, which is still there");
        }
        met.stayed += after.len();
        met.went += before.len() - after.len();
        met.stayed_over_restarts += if matches!(outcome, Outcome::Load) { after.len() } else { 0 };
    }
}

fn assert_met(name: &str, players: impl Iterator<Item = Met>, whole: bool) {
    let met = players.fold(Met::default(), |sum, met| Met {
        stayed: sum.stayed + met.stayed,
        went: sum.went + met.went,
        stayed_over_restarts: sum.stayed_over_restarts + met.stayed_over_restarts,
    });
    eprintln!("{name}: {met:?}");
    assert!(!whole || (met.stayed > 0 && met.went > 0 && met.stayed_over_restarts > 0), "nothing was put to the test: {met:?}");
}

#[test]
fn only_clients_of_a_backend_that_left_are_moved() {
    let (players, whole) = run("affinity", Met::default, |met, _, sequence| play(&FakeNft::new(), sequence, met));
    assert_met("affinity", players.into_iter(), whole);
}

/// Of so many sequences one is played in the kernel: nft is called four times for every event.
const IN_THE_KERNEL: u32 = 20;

#[test]
fn only_clients_of_a_backend_that_left_are_moved_in_the_kernel() {
    let player = || (Namespace::new("affinity").unwrap(), Met::default());
    let (players, whole) = run("affinity in the kernel", player, |(namespace, met), number, sequence| {
        if number.is_multiple_of(IN_THE_KERNEL) {
            clear(namespace);
            play(namespace, sequence, met);
        }
    });
    assert_met("affinity in the kernel", players.into_iter().map(|(_, met)| met), whole);
}

// === Bytes of keys and data, as the kernel has them: every field padded to four ===

fn address(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn port(port: u16) -> Vec<u8> {
    [port.to_be_bytes(), [0, 0]].concat()
}

fn at_bytes(at: At) -> Vec<u8> {
    [address(at.ip), vec![at.protocol.number(), 0, 0, 0], port(at.port)].concat()
}

fn parse_address(family: Family, bytes: &[u8]) -> (IpAddr, &[u8]) {
    match family {
        Family::V4 => bytes.split_first_chunk::<4>().map(|(ip, rest)| ((*ip).into(), rest)).unwrap(),
        Family::V6 => bytes.split_first_chunk::<16>().map(|(ip, rest)| ((*ip).into(), rest)).unwrap(),
    }
}

fn parse_port(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn parse_at(family: Family, bytes: &[u8]) -> At {
    let (ip, rest) = parse_address(family, bytes);
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == rest[0]).unwrap();
    At { ip, protocol, port: parse_port(&rest[4..]) }
}
