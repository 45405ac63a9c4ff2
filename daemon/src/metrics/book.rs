//! The book of metrics: what is registered is described, so that documentation and exposition cannot part.

use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets, linear_buckets};
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use super::exposition;
use crate::model::Family as IpFamily;

/// A gauge for times and other numbers with a fraction.
pub(crate) type Decimal = Gauge<f64, AtomicU64>;

/// A counter of something that comes in fractions, such as seconds.
pub(crate) type DecimalCounter = Counter<f64, AtomicU64>;

/// Registers metrics and remembers what was said of them.
#[derive(Debug, Default)]
pub(super) struct Book {
    registry: Registry,
    entries: Vec<Entry>,
}

/// One metric, as a person reads of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) labels: Vec<&'static str>,
    pub(super) help: &'static str,
}

/// Labels with their names.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];

/// A metric with labels. Where a value of them is used again and again its metric is looked up once and kept.
pub(crate) struct Labelled<const N: usize, M> {
    names: [&'static str; N],
    family: Family<Labels<N>, M, fn() -> M>,
}

/// A metric with the label `ip_family`, looked up.
#[derive(Debug)]
pub(crate) struct PerFamily<M> {
    v4: M,
    v6: M,
}

/// Powers of two from a millisecond to 16 s: kube-proxy's for everything that a sync does.
pub(super) fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// kube-proxy's for the network programming latency.
pub(super) fn programming_seconds() -> Histogram {
    Histogram::new(
        [0.25, 0.5]
            .into_iter()
            .chain(linear_buckets(1.0, 1.0, 59))
            .chain(linear_buckets(60.0, 5.0, 12))
            .chain(linear_buckets(120.0, 30.0, 7)),
    )
}

/// client-go's for requests to the API server.
pub(super) fn request_seconds() -> Histogram {
    Histogram::new([0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0])
}

/// Powers of two from 10 us to 0.3 s, for the stages of a sync.
pub(super) fn stage_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_01, 2.0, 16))
}

impl Book {
    /// A metric without labels.
    pub(super) fn one<M>(&mut self, name: &'static str, help: &'static str, new: fn() -> M) -> M
    where
        M: Clone + EncodeMetric + TypedMetric + fmt::Debug + Send + Sync + 'static,
    {
        let metric = new();
        self.enter(name, help, M::TYPE, &[], metric.clone());
        metric
    }

    /// A metric with labels.
    pub(super) fn labelled<const N: usize, M>(
        &mut self,
        name: &'static str,
        names: [&'static str; N],
        help: &'static str,
        new: fn() -> M,
    ) -> Labelled<N, M>
    where
        M: Clone + EncodeMetric + TypedMetric + fmt::Debug + Send + Sync + 'static,
    {
        let family = Family::new_with_constructor(new);
        self.enter(name, help, M::TYPE, &names, family.clone());
        Labelled { names, family }
    }

    /// A metric with the one label that most of kube-proxy's have.
    pub(super) fn per_family<M>(&mut self, name: &'static str, help: &'static str, new: fn() -> M) -> PerFamily<M>
    where
        M: Clone + EncodeMetric + TypedMetric + fmt::Debug + Send + Sync + 'static,
    {
        let labelled = self.labelled(name, ["ip_family"], help, new);
        let [v4, v6] = IpFamily::ALL.map(|family| labelled.of([&family.to_string()]));
        PerFamily { v4, v6 }
    }

    fn enter(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        labels: &[&'static str],
        metric: impl EncodeMetric + fmt::Debug + Send + Sync + 'static,
    ) {
        let kind = match kind {
            MetricType::Counter => "counter",
            MetricType::Histogram => "histogram",
            _ => "gauge",
        };
        // The encoder appends the suffix that a counter's name must have.
        let registered = if kind == "counter" { name.strip_suffix("_total").unwrap_or(name) } else { name };
        self.registry.register(registered, help, metric);
        self.entries.push(Entry { name, kind, labels: labels.to_vec(), help });
    }

    /// All entries, in the order in which they were made.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The values as of now.
    pub(super) fn text(&self) -> String {
        exposition::text(&self.registry)
    }
}

impl<const N: usize, M: Clone> Labelled<N, M> {
    /// The metric of these values, in the order of the names. It begins at zero.
    pub(crate) fn of(&self, values: [&str; N]) -> M {
        let mut values = values.into_iter();
        let labels = self.names.map(|name| (name, values.next().unwrap_or_default().to_owned()));
        self.family.get_or_create(&labels).clone()
    }

    /// Forgets the metric of these values: what it was of is gone.
    pub(crate) fn forget(&self, values: [&str; N]) {
        let mut values = values.into_iter();
        self.family.remove(&self.names.map(|name| (name, values.next().unwrap_or_default().to_owned())));
    }

    /// Forgets all values: of what is gone, none shall be told.
    pub(crate) fn clear(&self) {
        self.family.clear();
    }
}

impl<const N: usize, M> fmt::Debug for Labelled<N, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Labelled").field("names", &self.names).finish_non_exhaustive()
    }
}

impl<M> PerFamily<M> {
    /// The metric of a family.
    pub(crate) fn of(&self, family: IpFamily) -> &M {
        match family {
            IpFamily::V4 => &self.v4,
            IpFamily::V6 => &self.v6,
        }
    }

    /// Those of both families: a sync of ours is of both.
    pub(crate) fn each(&self, act: impl Fn(&M)) {
        act(&self.v4);
        act(&self.v6);
    }
}
