//! What happens to a node, and the part of the daemon that has to follow it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sheave::model::load_balancer::AddressRange;
use sheave::model::{EndpointSlice, Index, Protocol, Service, ServiceCidr, SlicePort};
use sheave::policy::{self, Context, Seniority, arbitrary};
use sheave::reconciler::{Purpose, Reconciled, Reconciler};
use sheave::source::{Change, Kind, Object};
use sheave::table::{Detector, LOCALHOST, NodePortAddresses, NodeState, ServiceTable};

/// What a node lives through.
#[derive(Clone, Debug)]
pub(crate) struct Sequence {
    /// What policy is told of the node, but for what its Node object says.
    pub(crate) context: Context,
    pub(crate) facts: Facts,
    /// Empty lists of everything come first, so that the first event is in the kernel at once.
    pub(crate) listed: bool,
    pub(crate) steps: Vec<Step>,
}

/// What happens between two syncs.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A source says something.
    Event(Vec<Change>),
    /// The machine or its configuration is another.
    Facts(Facts),
    /// The daemon starts anew beside what it left in the kernel, and hears of all objects at once.
    Restart,
}

/// What is true of the machine or said of the cluster, and no Service's affair.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    detector: Detector,
    masquerade_all: bool,
    match_all: [bool; 2],
    addresses: BTreeSet<IpAddr>,
    pools: Vec<AddressRange>,
}

/// One daemon without its IO.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) reconciler: Reconciler,
    base: Context,
    facts: Facts,
}

/// What a step asks of a plane.
pub(crate) enum Outcome {
    /// Not everything is listed yet: the kernel is not touched.
    Waiting,
    /// The plane follows.
    Delta(Reconciled),
    /// The plane loads: its first time, or a restart.
    Load,
}

impl fmt::Display for Sequence {
    /// One line for each step: in full it is longer than anybody reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { context, facts, listed, steps } = self;
        writeln!(f, "{context:?}\n{facts:?}\nlisted: {listed}")?;
        steps.iter().try_for_each(|step| writeln!(f, "{step:?}"))
    }
}

/// Steps of one sequence.
pub(crate) const STEPS: usize = 30;

pub(crate) fn sequence() -> impl Strategy<Value = Sequence> {
    (arbitrary::context(), facts(), prop::bool::weighted(0.9), vec(step(), STEPS))
        .prop_map(|(context, facts, listed, steps)| Sequence { context, facts, listed, steps })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => arbitrary::operation().prop_map(Step::Event),
        12 => busy_slice().prop_map(|slice| Step::Event(vec![Change::Applied(Object::EndpointSlice(slice.into()))])),
        2 => facts().prop_map(Step::Facts),
        1 => Just(Step::Restart),
    ]
}

/// A slice that fits every port of its Service. Those of [`arbitrary`] name ports as they like and often miss; backend sets would
/// hardly ever grow beyond a few.
fn busy_slice() -> impl Strategy<Value = EndpointSlice> {
    arbitrary::slice().prop_map(|mut slice| {
        let all = ["", "http", "dns"].into_iter().flat_map(|name| Protocol::ALL.map(|protocol| (name, protocol)));
        slice.ports = all.map(|(name, protocol)| SlicePort { name: name.into(), protocol, port: 8080 }).collect();
        slice
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let detector = select(vec![
        Detector::Off,
        Detector::Cidrs(["10.180.0.0/16", "fd00:180::/32"].map(|net| net.parse().unwrap()).into()),
        Detector::Cidrs(["10.180.0.0/17", "10.180.128.0/17"].map(|net| net.parse().unwrap()).into()),
        Detector::Interface("cni0".into()),
        Detector::InterfacePrefix("veth".into()),
    ]);
    let mut addresses = arbitrary::NODE_IPS.to_vec();
    addresses.extend([IpAddr::from([192, 0, 2, 7]), IpAddr::from([203, 0, 113, 2]), LOCALHOST]);
    let addresses = subsequence(addresses, 0..=5).prop_map(|list| list.into_iter().collect());
    (detector, prop::bool::weighted(0.2), any::<[bool; 2]>(), addresses, arbitrary::pools()).prop_map(
        |(detector, masquerade_all, match_all, addresses, pools)| Facts { detector, masquerade_all, match_all, addresses, pools },
    )
}

impl Node {
    pub(crate) fn new(sequence: &Sequence) -> Self {
        let Sequence { context, facts, listed, steps: _ } = sequence;
        let mut node = Self { reconciler: Reconciler::new(context.clone()), base: context.clone(), facts: facts.clone() };
        for kind in [Kind::Service, Kind::ForeignService, Kind::EndpointSlice, Kind::ServiceCidr].into_iter().filter(|_| *listed)
        {
            node.reconciler.apply(Change::Listing(kind));
            node.reconciler.apply(Change::Listed(kind));
        }
        node.tell_of_the_node();
        node
    }

    /// One step and the sync after it. `loaded`: the plane has the table of the sync before.
    pub(crate) fn step(&mut self, step: &Step, loaded: bool) -> Outcome {
        match step {
            Step::Event(changes) => changes.iter().for_each(|change| self.reconciler.apply(change.clone())),
            Step::Facts(facts) => {
                self.facts = facts.clone();
                self.tell_of_the_node();
            }
            Step::Restart if !self.reconciler.index().is_complete() => {}
            Step::Restart => self.restart(),
        }
        if !self.reconciler.index().is_complete() {
            return Outcome::Waiting;
        }
        let dirty = self.reconciler.take_dirty();
        if dirty.node || dirty.service_cidrs {
            self.tell_of_the_node();
        }
        if loaded && !matches!(step, Step::Restart) {
            Outcome::Delta(self.reconciler.reconcile(dirty, Purpose::Delta, |_, _| {}))
        } else {
            self.reconciler.reconcile(dirty, Purpose::Load, |_, _| {});
            Outcome::Load
        }
    }

    fn restart(&mut self) {
        let objects = objects(self.reconciler.index());
        self.reconciler = Reconciler::new(self.base.clone());
        let kinds = [Kind::Service, Kind::ForeignService, Kind::EndpointSlice, Kind::ServiceCidr];
        let (begin, end) = (kinds.map(Change::Listing), kinds.map(Change::Listed));
        for change in begin.into_iter().chain(objects).chain(end) {
            self.reconciler.apply(change);
        }
        self.tell_of_the_node();
    }

    fn tell_of_the_node(&mut self) {
        let index = self.reconciler.index();
        let zone = index.node().map_or_else(|| self.base.zone.clone(), |node| node.zone.clone());
        let context = Context { zone, pools: self.facts.pools.clone(), ..self.base.clone() };
        let node_ports = |v4: bool| NodePortAddresses {
            match_all: self.facts.match_all[usize::from(v4)],
            addresses: self.facts.addresses.iter().copied().filter(|ip| ip.is_ipv4() == v4).collect(),
        };
        let state = NodeState {
            detector: self.facts.detector.clone(),
            masquerade_all: self.facts.masquerade_all,
            node_ports_v4: node_ports(true),
            node_ports_v6: node_ports(false),
            service_cidrs: index.service_cidrs().flat_map(|object| object.cidrs.iter().copied()).collect(),
            echo_v4: self.echo(true),
            echo_v6: self.echo(false),
        };
        self.reconciler.set_node(context, state);
    }

    /// As the daemon chooses it, near enough: an address that changes with the machine.
    fn echo(&self, v4: bool) -> Option<IpAddr> {
        self.facts.addresses.iter().copied().find(|ip| ip.is_ipv4() == v4 && !ip.is_loopback())
    }

    /// The table filled at once from what the index holds.
    pub(crate) fn rebuilt(&self) -> ServiceTable {
        let (index, context) = (self.reconciler.index(), self.reconciler.context());
        let mut table = ServiceTable::default();
        for service in index.services() {
            let desired = policy::desired(service, index.slices(&service.key), context);
            table.set_service(service.key.clone(), Some((desired, Seniority::of(service))));
        }
        for service in index.foreign_services() {
            table.set_foreign(service.key.clone(), service.cluster_ips.to_vec());
        }
        table.set_node((**self.reconciler.table().node()).clone());
        table.commit();
        table
    }
}

/// Everything an index holds, as a source would tell it; but slices without a Service, which nobody has seen yet. In an order that does
/// not depend on how the index keeps it, so that a seed always means the same run.
fn objects(index: &Index) -> Vec<Change> {
    let sorted = |services: Vec<&Arc<Service>>| {
        let mut services: Vec<Service> = services.into_iter().map(|service| (**service).clone()).collect();
        services.sort_by(|a, b| b.key.cmp(&a.key));
        services
    };
    let services = sorted(index.services().collect());
    let slices: Vec<EndpointSlice> = services.iter().flat_map(|service| index.slices(&service.key)).cloned().collect();
    let mut cidrs: Vec<ServiceCidr> = index.service_cidrs().cloned().collect();
    cidrs.sort_by(|a, b| a.name.cmp(&b.name));

    let services = services.into_iter().map(|service| Object::Service(service.into()));
    let foreign = sorted(index.foreign_services().collect()).into_iter().map(|service| Object::ForeignService(service.into()));
    let slices = slices.into_iter().map(|slice| Object::EndpointSlice(slice.into()));
    let node = index.node().map(|node| Object::Node((**node).clone().into()));
    let cidrs = cidrs.into_iter().map(|cidr| Object::ServiceCidr(cidr.into()));
    services.chain(foreign).chain(slices).chain(node).chain(cidrs).map(Change::Applied).collect()
}
