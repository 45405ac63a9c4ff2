//! What the sync loop counts, where things happen. Every update is an atomic or two; nothing is looked up on the way.

use std::collections::{HashMap, HashSet};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::book::{Book, Decimal, Labelled, PerFamily, programming_seconds, seconds, stage_seconds};
use crate::dataplane::{Commit, Fill, SetFill};
use crate::model::Family;
use crate::table::{Committed, FrontendKind, ServicePort, Verdict};

/// Metrics of the sync loop.
#[derive(Debug)]
pub(crate) struct SyncMetrics {
    pub(crate) whole: PerFamily<Histogram>,
    pub(crate) full: PerFamily<Histogram>,
    pub(crate) partial: PerFamily<Histogram>,
    pub(crate) last_done: PerFamily<Decimal>,
    pub(crate) last_queued: PerFamily<Decimal>,
    pub(crate) programming: PerFamily<Histogram>,
    pub(crate) endpoint_changes: Changes,
    pub(crate) service_changes: Changes,
    no_local: PolicyGauges,
    pub(crate) failures: PerFamily<Counter>,
    pub(crate) cleanup_failures: PerFamily<Counter>,

    pub(crate) policy: Histogram,
    encode: Histogram,
    kernel: Histogram,
    pub(crate) loads: Counter,
    pub(crate) changes: Counter,
    pub(crate) retries: Counter,
    pub(crate) repairs_structure: Counter,
    pub(crate) repairs_elements: Counter,
    pub(crate) kernel_current: Gauge,
    transactions: Counter,
    elements: Counter,
    bytes: Counter,
    pub(crate) generation: Gauge,
    service_ports: PerFamily<Gauge>,
    frontends: PerFamily<Gauge>,
    backends: PerFamily<Gauge>,
    notices: Gauge,
    not_programmed: Gauge,
    set_elements: Labelled<1, Gauge>,
    set_size: Labelled<1, Gauge>,
}

/// Changes that came in, and those of them that the kernel does not have yet.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(crate) pending: Gauge,
    pub(crate) total: Counter,
}

#[derive(Debug)]
struct PolicyGauges {
    internal: [Gauge; 2],
    external: [Gauge; 2],
}

/// Whether a Service port comes into the sums or leaves them.
#[derive(Clone, Copy)]
enum Step {
    In = 1,
    Out = -1,
}

impl SyncMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        let kubeproxy = KubeProxy::new(book);
        let stages = book.labelled(
            "sheave_sync_stage_duration_seconds",
            ["stage"],
            "Time of one sync in seconds, by stage: policy (objects to table), encode (table to netlink), kernel",
            stage_seconds,
        );
        let syncs = book.labelled(
            "sheave_syncs_total",
            ["kind"],
            "Syncs whose commit the kernel took: load (everything was written) or change (only what changed)",
            Counter::default,
        );
        let repairs = book.labelled(
            "sheave_repairs_total",
            ["damage"],
            "Repairs after somebody else changed our table: elements (mended one by one) or structure (everything was written)",
            Counter::default,
        );
        Self {
            whole: kubeproxy.whole,
            full: kubeproxy.full,
            partial: kubeproxy.partial,
            last_done: kubeproxy.last_done,
            last_queued: kubeproxy.last_queued,
            programming: kubeproxy.programming,
            endpoint_changes: kubeproxy.endpoint_changes,
            service_changes: kubeproxy.service_changes,
            no_local: kubeproxy.no_local,
            failures: kubeproxy.failures,
            cleanup_failures: kubeproxy.cleanup_failures,
            policy: stages.of(["policy"]),
            encode: stages.of(["encode"]),
            kernel: stages.of(["kernel"]),
            loads: syncs.of(["load"]),
            changes: syncs.of(["change"]),
            retries: book.one(
                "sheave_sync_retries_total",
                "Commits that the kernel refused and that were tried again later",
                Counter::default,
            ),
            repairs_structure: repairs.of(["structure"]),
            repairs_elements: repairs.of(["elements"]),
            kernel_current: book.one(
                "sheave_kernel_current",
                "1 while the kernel holds what the API wants, 0 before the first load and after a commit that failed",
                Gauge::default,
            ),
            transactions: book.one("sheave_kernel_transactions_total", "Transactions that the kernel took", Counter::default),
            elements: book.one("sheave_kernel_elements_total", "Set and map elements written or deleted", Counter::default),
            bytes: book.one("sheave_kernel_bytes_total", "Bytes of netlink sent to the kernel", Counter::default),
            generation: book.one(
                "sheave_table_generation",
                "Generation of the desired state that is in the kernel; it grows by one with each change",
                Gauge::default,
            ),
            service_ports: book.per_family(
                "sheave_service_ports",
                "Service ports that are served: entries of spec.ports with at least one address that is theirs",
                Gauge::default,
            ),
            frontends: book.per_family(
                "sheave_frontends",
                "Addresses with a port, and NodePorts, at which Services answer",
                Gauge::default,
            ),
            backends: book.per_family(
                "sheave_backends",
                "Backends of all Service ports, those of scope cluster and of scope local added",
                Gauge::default,
            ),
            notices: book.one(
                "sheave_service_notices",
                "Conflicts and refused addresses in force; the log and Events on the Services name them",
                Gauge::default,
            ),
            not_programmed: book.one(
                "sheave_service_ports_not_programmed",
                "Service ports left out of the kernel because they would not fit",
                Gauge::default,
            ),
            set_elements: book.labelled(
                "sheave_set_elements",
                ["set"],
                "Elements of a set or map of our table, as far as sheave wrote them",
                Gauge::default,
            ),
            set_size: book.labelled(
                "sheave_set_size",
                ["set"],
                "Elements that the set or map was made for; it is replaced by a larger one at three quarters",
                Gauge::default,
            ),
        }
    }

    /// Keeps the sums over the table, from what a commit changed alone.
    pub(crate) fn tally(&self, committed: &Committed) {
        for change in &committed.delta.ports {
            if let Some(port) = &change.before {
                self.count(port, Step::Out);
            }
            if let Some(port) = &change.after {
                self.count(port, Step::In);
            }
        }
        let number = |list: &[_]| i64::try_from(list.len()).unwrap_or(i64::MAX);
        self.notices.inc_by(number(&committed.notices_raised) - number(&committed.notices_cleared));
    }

    fn count(&self, port: &ServicePort, step: Step) {
        let (family, sign) = (port.id.family, step as i64);
        let number = |count: usize| sign * i64::try_from(count).unwrap_or(i64::MAX);
        self.service_ports.of(family).inc_by(sign);
        self.frontends.of(family).inc_by(number(port.frontends.len()));
        self.backends.of(family).inc_by(number(port.cluster.len() + port.local.len()));
        let dropped = |internal| {
            let of_kind = |kind: FrontendKind| (kind == FrontendKind::ClusterIp) == internal;
            port.frontends.iter().any(|frontend| of_kind(frontend.kind) && port.verdict(frontend) == Verdict::Drop)
        };
        let place = usize::from(family == Family::V6);
        if dropped(true) {
            self.no_local.internal[place].inc_by(sign);
        }
        if dropped(false) {
            self.no_local.external[place].inc_by(sign);
        }
    }

    /// What a commit cost.
    pub(crate) fn account(&self, commit: &Commit) {
        if commit.transactions == 0 {
            return;
        }
        self.encode.observe(commit.encode.as_secs_f64());
        self.kernel.observe(commit.kernel.as_secs_f64());
        self.transactions.inc_by(commit.transactions.into());
        self.elements.inc_by(commit.elements);
        self.bytes.inc_by(commit.bytes);
    }

    /// How full the plane's sets are, and how full they were when this was told the last time: only differences cost something.
    pub(crate) fn fill(&self, before: &Fill, now: &Fill) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.not_programmed.set(number(now.not_programmed));
        let mut known: HashMap<&str, &SetFill> = before.sets.iter().map(|set| (set.name.as_str(), set)).collect();
        let there: HashSet<&str> = now.sets.iter().map(|set| set.name.as_str()).collect();
        if known.keys().any(|name| !there.contains(name)) {
            // Of what is gone, nothing shall be told.
            self.set_elements.clear();
            self.set_size.clear();
            known.clear();
        }
        for set in now.sets.iter().filter(|set| known.get(set.name.as_str()) != Some(set)) {
            self.set_elements.of([&set.name]).set(number(set.elements));
            if let Some(size) = set.size {
                self.set_size.of([&set.name]).set(number(size));
            }
        }
    }
}

/// The metrics of kube-proxy that a loop has, by kube-proxy's names.
struct KubeProxy {
    whole: PerFamily<Histogram>,
    full: PerFamily<Histogram>,
    partial: PerFamily<Histogram>,
    last_done: PerFamily<Decimal>,
    last_queued: PerFamily<Decimal>,
    programming: PerFamily<Histogram>,
    endpoint_changes: Changes,
    service_changes: Changes,
    no_local: PolicyGauges,
    failures: PerFamily<Counter>,
    cleanup_failures: PerFamily<Counter>,
}

impl KubeProxy {
    fn new(book: &mut Book) -> Self {
        let whole = book.per_family(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds: one sync, from the objects to the kernel's acknowledgement",
            seconds,
        );
        let full = book.per_family(
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for full resyncs: everything was written",
            seconds,
        );
        let partial = book.per_family(
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for partial resyncs: only what changed was written",
            seconds,
        );
        let last_done = book.per_family(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced, in seconds since 1970",
            Decimal::default,
        );
        let last_queued = book.per_family(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued, in seconds since 1970",
            Decimal::default,
        );
        let programming = book.per_family(
            "kubeproxy_network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds, from the endpoints.kubernetes.io/last-change-trigger-time of a slice",
            programming_seconds,
        );
        let endpoint_changes = Changes {
            pending: book.one(
                "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
                "Pending proxy rules Endpoint changes",
                Gauge::default,
            ),
            total: book.one(
                "kubeproxy_sync_proxy_rules_endpoint_changes_total",
                "Cumulative proxy rules Endpoint changes",
                Counter::default,
            ),
        };
        let service_changes = Changes {
            pending: book.one(
                "kubeproxy_sync_proxy_rules_service_changes_pending",
                "Pending proxy rules Service changes",
                Gauge::default,
            ),
            total: book.one(
                "kubeproxy_sync_proxy_rules_service_changes_total",
                "Cumulative proxy rules Service changes",
                Counter::default,
            ),
        };
        let no_local: Labelled<2, Gauge> = book.labelled(
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
            ["traffic_policy", "ip_family"],
            "Number of Service ports with a Local traffic policy and no endpoints on this node",
            Gauge::default,
        );
        let policy = |policy| Family::ALL.map(|family| no_local.of([policy, &family.to_string()]));
        let no_local = PolicyGauges { internal: policy("internal"), external: policy("external") };
        let failures = book.per_family(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
            "Cumulative proxy nftables sync failures",
            Counter::default,
        );
        let cleanup_failures = book.per_family(
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
            "Cumulative proxy nftables cleanup failures: deferred work of a plane that has to be tried again",
            Counter::default,
        );
        Self {
            whole,
            full,
            partial,
            last_done,
            last_queued,
            programming,
            endpoint_changes,
            service_changes,
            no_local,
            failures,
            cleanup_failures,
        }
    }
}
