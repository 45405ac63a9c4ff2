//! What the loop tells metrics and health.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Kernel, Outputs, Reporter, SyncLoop, options, outputs};
use crate::captured_log::Log;
use crate::dataplane::{Commit, Damage, Dataplane, PlaneError};
use crate::model::{EndpointSlice, Index, ObjectKey, ObjectProblem, Problem, samples};
use crate::source::kube::{EventSink, Severity};
use crate::source::{Change, Kind, Mark, Object};
use crate::table::{Delta, Notice, ServiceTable, Subject};

/// A plane without a kernel that refuses as often as it is told.
pub(super) struct Stubborn {
    pub(super) refusals: Arc<AtomicU32>,
}

impl Stubborn {
    fn answer(&self) -> Result<Commit, PlaneError> {
        let refuses = self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let source = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let refusal = PlaneError::Kernel { call: "commit", subject: "table inet sheave".to_owned(), source };
        if refuses { Err(refusal) } else { Ok(Commit { transactions: 1, elements: 3, ..Commit::default() }) }
    }
}

impl Dataplane for Stubborn {
    fn name(&self) -> &'static str {
        "stubborn"
    }

    fn load(&mut self, _: &ServiceTable) -> Result<Commit, PlaneError> {
        self.answer()
    }

    fn apply(&mut self, _: &Delta, _: &ServiceTable) -> Result<Commit, PlaneError> {
        self.answer()
    }

    fn repair(&mut self, _: &Damage, _: &ServiceTable) -> Result<Commit, PlaneError> {
        self.answer()
    }

    fn is_whole(&mut self) -> bool {
        true
    }
}

/// A slice of `default/web`, in IPv4.
fn slice(endpoints: u8, trigger: jiff::Timestamp) -> Change {
    let endpoints = (1..=endpoints).map(|host| samples::endpoint(std::net::Ipv4Addr::new(10, 0, 0, host).into()));
    let slice = samples::slice(ObjectKey::new("default", "web-a"), ObjectKey::new("default", "web"), endpoints);
    let trigger_time = Some(i64::try_from(trigger.as_nanosecond()).unwrap());
    Change::Applied(Object::EndpointSlice(Box::new(EndpointSlice { trigger_time, ..slice })))
}

/// What a scraper reads of these series.
fn told<const N: usize>(sync_loop: &SyncLoop, series: [&str; N]) -> [f64; N] {
    let text = sync_loop.outputs.metrics.text();
    series.map(|series| {
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {series} in {text}"))
    })
}

#[test]
fn a_change_is_pending_until_the_kernel_takes_it_and_its_latency_is_counted_once() {
    const PENDING: &str = "kubeproxy_sync_proxy_rules_endpoint_changes_pending";
    const LATENCIES: &str = "kubeproxy_network_programming_duration_seconds_count{ip_family=\"IPv4\"}";
    const FAILURES: &str = "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv6\"}";
    const CURRENT: &str = "sheave_kernel_current";
    let refusals = Arc::new(AtomicU32::new(0));
    let plane = Stubborn { refusals: Arc::clone(&refusals) };
    let mut sync_loop = SyncLoop::new(Arc::new(options()), Box::new(plane), outputs());
    let before = jiff::Timestamp::now();
    sync_loop.take_one(Change::Applied(Object::Service(Box::new(samples::service(
        ObjectKey::new("default", "web"),
        std::net::Ipv4Addr::new(10, 96, 0, 1).into(),
    )))));
    // Of the past, and news to us alone.
    sync_loop.take_one(slice(1, before));
    for kind in [Kind::Node, Kind::ServiceCidr, Kind::ForeignService, Kind::Service, Kind::EndpointSlice] {
        sync_loop.take_one(Change::Listed(kind));
    }
    assert!(!sync_loop.outputs.health.look().is_healthy(), "nothing is programmed");
    sync_loop.sync();
    assert_eq!(told(&sync_loop, [PENDING, LATENCIES, FAILURES, CURRENT]), [0.0, 0.0, 0.0, 1.0]);
    assert!(sync_loop.outputs.health.look().is_healthy());

    // The change is refused, and so is the whole table.
    refusals.store(2, Ordering::Relaxed);
    sync_loop.take_one(slice(2, jiff::Timestamp::now()));
    sync_loop.sync();
    assert_eq!(told(&sync_loop, [PENDING, LATENCIES, FAILURES, CURRENT]), [1.0, 0.0, 2.0, 0.0]);
    let problems = sync_loop.outputs.health.look().problems;
    assert_eq!(problems, ["commit: commit table inet sheave: out of memory"]);

    // Its time has come again.
    sync_loop.retry_at = None;
    sync_loop.sync();
    assert_eq!(told(&sync_loop, [PENDING, LATENCIES, FAILURES, CURRENT]), [0.0, 1.0, 2.0, 1.0]);
    assert_eq!(sync_loop.outputs.health.look().problems, Vec::<String>::new());
    let [loads, changes, endpoints] = told(
        &sync_loop,
        ["sheave_syncs_total{kind=\"load\"}", "sheave_syncs_total{kind=\"change\"}", "sheave_backends{ip_family=\"IPv4\"}"],
    );
    assert_eq!((loads, changes, endpoints), (2.0, 0.0, 2.0));

    // The same change with another time is no change.
    sync_loop.take_one(slice(2, jiff::Timestamp::now()));
    sync_loop.sync();
    assert_eq!(told(&sync_loop, [PENDING, LATENCIES]), [0.0, 1.0]);
}

/// An edit of manifests that changes no rule is delivered and not worth a line.
#[test]
fn a_sync_is_a_line_only_if_it_changed_something() {
    let (log, _until) = Log::capture();
    let plane = Stubborn { refusals: Arc::default() };
    let mut sync_loop = SyncLoop::new(Arc::new(options()), Box::new(plane), outputs());
    let mut told = |changes: Vec<Change>, point: &str| {
        changes.into_iter().for_each(|change| sync_loop.take_one(change));
        sync_loop.take_one(Change::Mark(Mark { stream: "manifests", point: point.to_owned() }));
        sync_loop.sync();
        (log.lines().len(), sync_loop.outputs.marks.borrow().iter().any(|mark| mark.point == point))
    };
    let kinds = [Kind::Node, Kind::ServiceCidr, Kind::ForeignService, Kind::Service, Kind::EndpointSlice];
    assert_eq!(told(kinds.map(Change::Listed).into(), "one"), (1, true), "the first load");
    assert_eq!(told(Vec::new(), "two"), (1, true));
    let service = samples::service(ObjectKey::new("default", "web"), std::net::Ipv4Addr::new(10, 96, 0, 1).into());
    assert_eq!(told(vec![Change::Applied(Object::Service(Box::new(service)))], "three"), (2, true));
}

/// Whether there is a Node of ours is known from its list on.
#[test]
fn a_node_that_no_list_has_is_told_to_be_absent() {
    let plane = Stubborn { refusals: Arc::default() };
    let mut sync_loop = SyncLoop::new(Arc::new(options()), Box::new(plane), outputs());
    let mut there = |change: Change| {
        sync_loop.take_one(change);
        *sync_loop.outputs.health.node_there().borrow()
    };
    let node = || Change::Applied(Object::Node(Box::new(samples::node("node", []))));
    assert_eq!(there(Change::Listing(Kind::Node)), None);
    assert_eq!(there(Change::Listed(Kind::Node)), Some(false));
    assert_eq!(there(node()), Some(true));
    assert_eq!(there(Change::Deleted(Kind::Node, ObjectKey::new("", "node"))), Some(false));
    assert_eq!(there(node()), Some(true));
    // Listed again, with it and without.
    for (has_it, expected) in [(true, Some(true)), (false, Some(false))] {
        there(Change::Listing(Kind::Node));
        if has_it {
            there(node());
        }
        assert_eq!(there(Change::Listed(Kind::Node)), expected);
    }
}

/// One failure is mended at once and is no Event; an outage is one, and so is its end.
#[test]
fn commits_that_keep_failing_are_an_event_on_the_node() {
    let refusals = Arc::new(AtomicU32::new(0));
    let (events, mut remarks) = EventSink::recording();
    let plane = Stubborn { refusals: Arc::clone(&refusals) };
    let outputs = Outputs { reporter: Reporter::with_events(events, "node".into()), ..outputs() };
    let mut sync_loop = SyncLoop::new(Arc::new(options()), Box::new(plane), outputs);
    for kind in [Kind::Node, Kind::ServiceCidr, Kind::ForeignService, Kind::Service, Kind::EndpointSlice] {
        sync_loop.take_one(Change::Listed(kind));
    }
    let mut said = |sync_loop: &mut SyncLoop, failures: u32| {
        refusals.store(failures, Ordering::Relaxed);
        for _ in 0..=failures {
            sync_loop.kernel = Kernel::Doubtful;
            sync_loop.retry_at = None;
            sync_loop.sync();
        }
        let remarks = std::iter::from_fn(|| remarks.try_recv().ok());
        remarks.map(|remark| (remark.subject.kind, remark.severity, remark.reason)).collect::<Vec<_>>()
    };
    assert_eq!(said(&mut sync_loop, 2), []);
    let outage = [("Node", Severity::Warning, "FailedToSyncProxyRules"), ("Node", Severity::Normal, "SyncedProxyRules")];
    assert_eq!(said(&mut sync_loop, 40), outage, "once, however often it is tried");
    assert_eq!(said(&mut sync_loop, 3), outage, "another outage");
}

/// An externalIP that becomes a VIP as well is told as that, and nobody shall think that it is well now.
#[test]
fn a_refusal_that_only_moves_to_another_field_is_not_told_as_ended() {
    let (log, _until) = Log::capture();
    let refused = |field: &str, ip: &str| Notice {
        service: ObjectKey::new("default", "api"),
        reason: "AddressRefused",
        subject: Some(Subject::ClusterIpOf(ip.parse().unwrap(), ObjectKey::new("default", "web"))),
        message: format!("{field}: {ip} in words that nobody takes apart"),
    };
    let before = vec![refused("spec.externalIPs", "172.30.0.10"), refused("spec.externalIPs", "172.30.0.11")];
    let now = vec![refused("status.loadBalancer.ingress", "172.30.0.10")];
    Reporter::default().notices(now, before, &Index::default());
    let ended: Vec<_> = log.lines().into_iter().filter(|line| line.contains("no longer")).collect();
    assert!(ended.len() == 1 && ended[0].contains("172.30.0.11"), "{ended:?}");
}

#[test]
fn objects_are_told_by_their_kubernetes_kinds() {
    let (log, _until) = Log::capture();
    let problem = |kind| ObjectProblem {
        kind,
        key: ObjectKey::new("", "x"),
        problem: Problem { field: "spec".into(), reason: "is odd".into() },
    };
    let kinds = [Kind::ServiceCidr, Kind::ForeignService, Kind::EndpointSlice];
    Reporter::default().problems(kinds.map(problem).into(), &Index::default());
    let lines = log.lines();
    for (line, kind) in lines.iter().zip(["kind=ServiceCIDR ", "kind=Service ", "kind=EndpointSlice "]) {
        assert!(line.contains(kind), "{kind} in {line}");
    }
    assert_eq!(lines.len(), kinds.len());
}

/// Of one object only so many problems have an Event, and there each field has its first before any has its second.
#[test]
fn each_field_of_an_object_is_told_before_one_is_told_twice() {
    let (events, mut remarks) = EventSink::recording();
    let found = [
        "spec.externalIPs[0]",
        "spec.externalIPs[1]",
        "spec.externalIPs[2]",
        "spec.type",
        "spec.ports[7].port",
        "spec.ports[8].port",
    ];
    let problem = |field: &str| ObjectProblem {
        kind: Kind::Service,
        key: ObjectKey::new("default", "web"),
        problem: Problem { field: field.into(), reason: "is odd".into() },
    };
    Reporter::with_events(events, "n".into()).problems(found.map(problem).into(), &Index::default());
    let told: Vec<_> = std::iter::from_fn(|| remarks.try_recv().ok()).map(|remark| remark.note).collect();
    let expected = [0, 3, 4, 1, 5, 2].map(|place| format!("{}: is odd", found[place]));
    assert_eq!(told, expected);
}
