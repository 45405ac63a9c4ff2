//! The index against a model of plain maps, and the promises one by one.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::load_balancer::{AddressPool, AddressRange};
use crate::model::samples;
use crate::policy::arbitrary;

/// What an index holds, the slow way.
#[derive(Clone, Default)]
struct Plain {
    services: BTreeMap<ServiceKey, Service>,
    foreign: BTreeMap<ServiceKey, Service>,
    slices: BTreeMap<ObjectKey, EndpointSlice>,
    cidrs: BTreeMap<ObjectKey, ServiceCidr>,
    node: Option<Node>,
    /// Of each running list, the keys it has named.
    lists: BTreeMap<&'static str, BTreeSet<ObjectKey>>,
    listed: BTreeSet<&'static str>,
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "services",
        Kind::ForeignService => "foreign services",
        Kind::EndpointSlice => "slices",
        Kind::Node => "node",
        Kind::ServiceCidr => "cidrs",
        Kind::Peer | Kind::Namespace | Kind::AddressPool | Kind::Advertisement => "the load balancer's",
    }
}

impl Plain {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Listing(kind) => drop(self.lists.insert(name(kind), BTreeSet::new())),
            Change::Applied(Object::Service(service)) => {
                self.named(Kind::Service, &service.key);
                self.services.insert(service.key.clone(), *service);
            }
            Change::Applied(Object::ForeignService(service)) => {
                self.named(Kind::ForeignService, &service.key);
                self.foreign.insert(service.key.clone(), *service);
            }
            Change::Applied(Object::EndpointSlice(slice)) => {
                self.named(Kind::EndpointSlice, &slice.key);
                self.slices.insert(slice.key.clone(), *slice);
            }
            Change::Applied(Object::ServiceCidr(cidr)) => {
                let key = ObjectKey::new("", &cidr.name);
                self.named(Kind::ServiceCidr, &key);
                self.cidrs.insert(key, *cidr);
            }
            Change::Applied(Object::Node(node)) => self.node = Some(*node),
            Change::Deleted(kind, key) => self.retain(kind, |held| *held != key),
            Change::Listed(kind) => {
                if let Some(named) = self.lists.remove(name(kind)) {
                    self.retain(kind, |held| named.contains(held));
                }
                self.listed.insert(name(kind));
            }
            Change::Applied(Object::Peer(_) | Object::Namespace(_) | Object::AddressPool(_) | Object::Advertisement(_))
            | Change::Mark(_)
            | Change::Together(_) => {}
        }
    }

    fn named(&mut self, kind: Kind, key: &ObjectKey) {
        if let Some(list) = self.lists.get_mut(name(kind)) {
            list.insert(key.clone());
        }
    }

    fn retain(&mut self, kind: Kind, keep: impl Fn(&ObjectKey) -> bool) {
        match kind {
            Kind::Service => self.services.retain(|key, _| keep(key)),
            Kind::ForeignService => self.foreign.retain(|key, _| keep(key)),
            Kind::EndpointSlice => self.slices.retain(|key, _| keep(key)),
            Kind::ServiceCidr => self.cidrs.retain(|key, _| keep(key)),
            Kind::Node | Kind::Peer | Kind::Namespace | Kind::AddressPool | Kind::Advertisement => {}
        }
    }

    /// All that a plane can see of a Service, `None` if it is not there.
    fn view(&self, key: &ServiceKey) -> Option<(Service, Vec<EndpointSlice>)> {
        let service = Service { problems: Vec::new(), ..self.services.get(key)?.clone() };
        let slices = self.slices.values().filter(|slice| slice.service == *key);
        let bare = |slice: &EndpointSlice| EndpointSlice { problems: Vec::new(), trigger_time: None, ..slice.clone() };
        Some((service, slices.map(bare).collect()))
    }

    fn cluster_ips(&self, key: &ServiceKey) -> Option<Vec<std::net::IpAddr>> {
        self.foreign.get(key).map(|service| service.cluster_ips.to_vec())
    }
}

proptest! {
    /// After every single change the index holds what the model holds, and has marked what the change made different, no more.
    #[test]
    fn holds_and_marks_what_the_model_does(changes in arbitrary::operations(60)) {
        let (mut index, mut plain) = (Index::default(), Plain::default());
        let keys: Vec<_> = (0..arbitrary::SERVICES).map(|number| ObjectKey::new("default", &format!("service-{number}"))).collect();
        for change in changes {
            let before = plain.clone();
            plain.apply(change.clone());
            index.apply(change);

            prop_assert_eq!(index.services().len(), plain.services.len());
            prop_assert_eq!(index.foreign_services().len(), plain.foreign.len());
            prop_assert_eq!(index.slice_count(), plain.slices.len());
            prop_assert_eq!(index.node().map(|node| &**node), plain.node.as_ref());
            prop_assert_eq!(index.service_cidrs().map(|cidr| &cidr.name).collect::<BTreeSet<_>>(), plain.cidrs.values().map(|cidr| &cidr.name).collect());
            prop_assert_eq!(index.is_complete(), plain.listed.contains("services") && plain.listed.contains("slices"));
            for key in &keys {
                prop_assert_eq!(index.service(key).map(|service| &**service), plain.services.get(key));
                prop_assert_eq!(index.foreign_service(key).map(|service| &**service), plain.foreign.get(key));
                prop_assert!(index.slices(key).eq(plain.slices.values().filter(|slice| slice.service == *key)));
            }

            let dirty = index.take_dirty();
            for key in &keys {
                prop_assert_eq!(dirty.services.contains_key(key), before.view(key) != plain.view(key), "{}", key);
                prop_assert_eq!(dirty.foreign.contains(key), before.cluster_ips(key) != plain.cluster_ips(key), "{}", key);
            }
            let cidrs = |plain: &Plain| plain.cidrs.iter().map(|(key, cidr)| (key.clone(), cidr.cidrs.clone())).collect::<Vec<_>>();
            prop_assert_eq!(dirty.service_cidrs, cidrs(&before) != cidrs(&plain));
            prop_assert_eq!(dirty.node, before.node != plain.node);
            prop_assert!(index.take_dirty().is_empty());
        }
    }

    /// Marks of several changes add up, whenever they are taken.
    #[test]
    fn marks_are_kept_until_taken(changes in arbitrary::operations(30)) {
        let (mut stepwise, mut at_once) = (Index::default(), Index::default());
        let mut sum = Dirty::default();
        for change in changes {
            stepwise.apply(change.clone());
            at_once.apply(change);
            let step = stepwise.take_dirty();
            for (key, time) in &step.services {
                sum.mark(key, *time);
            }
            sum.foreign.extend(step.foreign);
            sum.node |= step.node;
            sum.service_cidrs |= step.service_cidrs;
        }
        prop_assert_eq!(at_once.take_dirty(), sum);
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn service(name: &str) -> Service {
    samples::service(key(name), [172, 30, 0, 41].into())
}

fn slice(name: &str, service: &str, trigger_time: Option<i64>, host: u8) -> EndpointSlice {
    let endpoint = samples::endpoint([10, 180, 0, host].into());
    EndpointSlice { ports: Vec::new(), trigger_time, ..samples::slice(key(name), key(service), [endpoint]) }
}

fn applied(object: impl Into<Object>) -> Change {
    Change::Applied(object.into())
}

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Self::Service(service.into())
    }
}

impl From<EndpointSlice> for Object {
    fn from(slice: EndpointSlice) -> Self {
        Self::EndpointSlice(slice.into())
    }
}

/// An index that has listed nothing of everything, and then got these.
fn listed_with(changes: impl IntoIterator<Item = Change>) -> Index {
    let mut index = Index::default();
    for kind in [Kind::Service, Kind::EndpointSlice] {
        index.apply(Change::Listing(kind));
        index.apply(Change::Listed(kind));
    }
    changes.into_iter().for_each(|change| index.apply(change));
    let _ = (index.take_dirty(), index.take_problems());
    index
}

fn dirty(index: &mut Index) -> Vec<ServiceKey> {
    let mut keys: Vec<_> = index.take_dirty().services.into_keys().collect();
    keys.sort();
    keys
}

#[test]
fn a_list_removes_only_at_its_end() {
    let mut index = listed_with([applied(service("a")), applied(service("b"))]);
    index.apply(Change::Listing(Kind::Service));
    index.apply(applied(service("b")));
    assert_eq!((dirty(&mut index), index.services().len()), (vec![], 2));
    index.apply(Change::Listed(Kind::Service));
    assert_eq!((dirty(&mut index), index.services().len()), (vec![key("a")], 1));
}

/// What the first attempt named counts for nothing: it may have gone since.
#[test]
fn a_list_that_begins_again_starts_over() {
    let mut index = listed_with([applied(service("a")), applied(service("b"))]);
    index.apply(Change::Listing(Kind::Service));
    index.apply(applied(service("a")));
    index.apply(Change::Listing(Kind::Service));
    assert_eq!(index.services().len(), 2);
    index.apply(applied(service("b")));
    index.apply(Change::Listed(Kind::Service));
    assert!(index.service(&key("a")).is_none() && index.service(&key("b")).is_some());
}

#[test]
fn an_end_without_a_beginning_removes_nothing() {
    let mut index = listed_with([applied(service("a"))]);
    index.apply(Change::Listed(Kind::Service));
    assert_eq!(index.services().len(), 1);
}

#[test]
fn complete_means_both_kinds() {
    let mut index = Index::default();
    for (kind, complete) in [(Kind::Node, false), (Kind::EndpointSlice, false), (Kind::ServiceCidr, false), (Kind::Service, true)]
    {
        index.apply(Change::Listing(kind));
        assert!(!index.is_complete());
        index.apply(Change::Listed(kind));
        assert_eq!(index.is_complete(), complete);
    }
    index.apply(Change::Listing(Kind::Service));
    assert!(index.is_complete(), "once complete, a relist does not take it back");
}

/// What is in a pool makes VIPs ours; its status, its labels and who may use it do not.
#[test]
fn pools_count_by_what_is_in_them() {
    let range = |first: &str, last: &str| AddressRange::new(first.parse().unwrap(), last.parse().unwrap()).unwrap();
    let (small, large) = (range("192.0.2.1", "192.0.2.9"), range("192.0.2.1", "192.0.2.99"));
    let pool = |ranges: &[AddressRange], auto_assign, problems: &[Problem]| {
        let key = ObjectKey::new("metallb-system", "lan");
        let pool = AddressPool {
            key,
            uid: "u".into(),
            generation: 1,
            labels: crate::model::Labels::default(),
            ranges: ranges.to_vec(),
            auto_assign,
            avoid_buggy_ips: false,
            allocation: None,
            counts: None,
            problems: problems.to_vec(),
        };
        Change::Applied(Object::AddressPool(pool.into()))
    };
    let broken = Problem { field: "spec.addresses[1]".to_owned(), reason: "it ends before it begins".to_owned() };
    let mut index = listed_with([]);
    let delete = || Change::Deleted(Kind::AddressPool, ObjectKey::new("metallb-system", "lan"));
    let relisted = |changes: Vec<Change>| {
        let (begin, end) = (Change::Listing(Kind::AddressPool), Change::Listed(Kind::AddressPool));
        Change::Together([begin].into_iter().chain(changes).chain([end]).collect())
    };
    for (change, dirty, held) in [
        (pool(&[small], true, &[]), true, vec![small]),
        (pool(&[small], false, &[]), false, vec![small]),
        (pool(&[large], true, std::slice::from_ref(&broken)), false, vec![small]),
        (relisted(vec![pool(&[large], true, &[broken])]), false, vec![small]),
        (pool(&[large], true, &[]), true, vec![large]),
        (delete(), true, vec![]),
        (pool(&[small], true, &[]), true, vec![small]),
        (relisted(vec![]), true, vec![]),
        (delete(), false, vec![]),
    ] {
        let what = format!("{change:?}");
        index.apply(change);
        assert_eq!((index.is_dirty(), index.take_dirty().pools), (dirty, dirty), "{what}");
        assert_eq!(index.pools().flat_map(|(_, ranges)| ranges.iter().copied()).collect::<Vec<_>>(), held, "{what}");
    }
    assert_eq!(index.take_problems(), [], "they are told once in a cluster, by who hands out addresses");
}

/// A directory of manifests tells them to everyone.
#[test]
fn what_is_the_load_balancers_makes_no_difference() {
    use crate::model::load_balancer::{NamespaceLabels, PeerNode};
    let mut index = listed_with([applied(service("a"))]);
    let namespace = NamespaceLabels { name: "a".into(), labels: crate::model::Labels::default() };
    let peer = PeerNode {
        name: "here".into(),
        labels: crate::model::Labels::default(),
        addresses: Vec::new(),
        network_unavailable: false,
        unschedulable: false,
    };
    for (kind, object) in [(Kind::Namespace, Object::Namespace(namespace.into())), (Kind::Peer, Object::Peer(peer.into()))] {
        index.apply(Change::Listing(kind));
        index.apply(Change::Applied(object));
        index.apply(Change::Listed(kind));
        index.apply(Change::Deleted(kind, ObjectKey::new("", "here")));
    }
    for kind in [Kind::ForeignService, Kind::ServiceCidr] {
        index.apply(Change::Listed(kind));
    }
    assert!(!index.is_dirty() && index.services().len() == 1 && index.node().is_none());
    assert!(!index.is_informed(), "our own Node has not been listed");
}

#[test]
fn a_slice_that_changes_its_label_moves() {
    let mut index = listed_with([applied(service("a")), applied(service("b")), applied(slice("s", "a", None, 1))]);
    index.apply(applied(slice("s", "b", None, 1)));
    assert_eq!((index.slices(&key("a")).len(), index.slices(&key("b")).len(), index.slice_count()), (0, 1, 1));
    assert_eq!(dirty(&mut index), [key("a"), key("b")]);
    index.apply(Change::Deleted(Kind::EndpointSlice, key("s")));
    assert_eq!((index.slices(&key("b")).len(), dirty(&mut index)), (0, vec![key("b")]));
}

#[test]
fn slices_wait_for_their_service() {
    let mut index = listed_with([]);
    index.apply(applied(slice("s", "a", None, 1)));
    assert_eq!(dirty(&mut index), []);
    index.apply(applied(service("a")));
    assert_eq!((dirty(&mut index), index.slices(&key("a")).len()), (vec![key("a")], 1));
}

#[test]
fn what_no_plane_reads_marks_nothing() {
    let mut index = listed_with([applied(service("a")), applied(slice("s", "a", Some(1), 1))]);
    let problem = Problem { field: "spec.externalIPs[0]".into(), reason: "not an IP address".into() };
    index.apply(applied(Service { problems: vec![problem.clone()], ..service("a") }));
    index.apply(applied(EndpointSlice { problems: vec![problem], ..slice("s", "a", Some(2), 1) }));
    assert_eq!(dirty(&mut index), []);
    assert_eq!(index.slices(&key("a")).next().and_then(|slice| slice.trigger_time), Some(2));
}

#[test]
fn problems_are_told_once() {
    let problem = |index: usize| Problem { field: format!("spec.externalIPs[{index}]"), reason: "not an IP address".into() };
    let with = |indices: &[usize]| Service { problems: indices.iter().map(|index| problem(*index)).collect(), ..service("a") };
    let told = |index: &mut Index| index.take_problems().into_iter().map(|found| found.problem).collect::<Vec<_>>();
    let mut index = listed_with([]);
    index.apply(applied(with(&[0])));
    assert_eq!(told(&mut index), [problem(0)]);
    index.apply(applied(with(&[0, 1])));
    assert_eq!(told(&mut index), [problem(1)]);
    index.apply(Change::Listing(Kind::Service));
    index.apply(applied(with(&[0, 1])));
    index.apply(Change::Listed(Kind::Service));
    assert_eq!(told(&mut index), []);
    // Mended and broken again, or made anew: that is news.
    index.apply(applied(with(&[])));
    index.apply(applied(with(&[0])));
    assert_eq!(told(&mut index), [problem(0)]);
    index.apply(Change::Deleted(Kind::Service, key("a")));
    index.apply(applied(with(&[0])));
    assert_eq!(told(&mut index), [problem(0)]);
}

#[test]
fn problems_of_every_kind_but_foreign() {
    let problems = vec![Problem { field: "spec".into(), reason: "odd".into() }];
    let mut index = Index::default();
    index.apply(applied(Service { problems: problems.clone(), ..service("a") }));
    index.apply(applied(EndpointSlice { problems: problems.clone(), ..slice("s", "a", None, 1) }));
    index.apply(Change::Applied(Object::ForeignService(Service { problems: problems.clone(), ..service("f") }.into())));
    index.apply(Change::Applied(Object::ServiceCidr(
        ServiceCidr { name: "kubernetes".into(), cidrs: Vec::new(), problems: problems.clone() }.into(),
    )));
    index.apply(Change::Applied(Object::Node(Node { problems, ..node() }.into())));
    let told: Vec<_> = index.take_problems().into_iter().map(|found| (found.kind, found.key.to_string())).collect();
    let expected = [
        (Kind::Service, "default/a"),
        (Kind::EndpointSlice, "default/s"),
        (Kind::ServiceCidr, "kubernetes"),
        (Kind::Node, "here"),
    ];
    assert_eq!(told, expected.map(|(kind, key)| (kind, key.to_owned())));
}

/// The network programming latency starts with the oldest change that a sync brings to the kernel.
#[test]
fn the_oldest_trigger_time_counts() {
    let mut index = Index::default();
    let time = |index: &mut Index| index.take_dirty().services.get(&key("a")).copied();
    index.apply(applied(service("a")));
    index.apply(applied(slice("s", "a", Some(1), 1)));
    assert_eq!(time(&mut index), Some(None), "the first list is news to us alone");
    index = listed_with([applied(service("a")), applied(slice("s", "a", Some(1), 1)), applied(slice("t", "a", Some(2), 2))]);
    index.apply(applied(slice("t", "a", Some(9), 3)));
    index.apply(applied(slice("s", "a", Some(7), 4)));
    index.apply(applied(service("a")));
    assert_eq!(time(&mut index), Some(Some(7)));
    index.apply(applied(slice("s", "a", Some(7), 5)));
    assert_eq!(time(&mut index), Some(None), "a change without a new time has none");
    index.apply(Change::Deleted(Kind::EndpointSlice, key("s")));
    assert_eq!(time(&mut index), Some(None));
}

fn node() -> Node {
    samples::node("here", [[192, 168, 0, 2].into()])
}

#[test]
fn the_node_stays_when_it_is_lost_from_sight() {
    let mut index = listed_with([Change::Applied(Object::Node(node().into()))]);
    index.apply(Change::Deleted(Kind::Node, ObjectKey::new("", "here")));
    index.apply(Change::Listing(Kind::Node));
    index.apply(Change::Listed(Kind::Node));
    assert!(index.node().is_some() && index.take_dirty().is_empty());
    index.apply(Change::Applied(Object::Node(Node { zone: Some("b".into()), ..node() }.into())));
    assert!(index.take_dirty().node);
}
