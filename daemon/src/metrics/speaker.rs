//! Of announcing: MetalLB's speaker's metrics by their names, and ours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::book::{Book, Labelled, stage_seconds};
use crate::loadbalancer::announcer::Announcer;

/// Metrics of the VIPs that this node announces.
#[derive(Debug)]
pub struct SpeakerMetrics {
    announced: Labelled<4, Gauge>,
    requests: Labelled<1, Gauge>,
    responses: Labelled<1, Gauge>,
    gratuitous: Labelled<1, Gauge>,
    conflicts: Labelled<1, Counter>,
    announcing: Histogram,
    writes: Labelled<2, Counter>,
    /// Who counts.
    announcer: Mutex<Weak<Announcer>>,
}

impl SpeakerMetrics {
    pub(super) fn new(book: &mut Book) -> Self {
        let by_ip = |book: &mut Book, name, help| book.labelled(name, ["ip"], help, Gauge::default);
        Self {
            announced: book.labelled(
                "metallb_speaker_announced",
                ["service", "protocol", "node", "ip"],
                "1 for each Service and VIP that this node announces",
                Gauge::default,
            ),
            requests: by_ip(
                book,
                "metallb_layer2_requests_received",
                "ARP requests and neighbour solicitations for a VIP; it only grows, the name and the type are kept as alerts know them",
            ),
            responses: by_ip(book, "metallb_layer2_responses_sent", "Answers to these; it only grows"),
            gratuitous: by_ip(
                book,
                "metallb_layer2_gratuitous_sent",
                "Frames about a VIP that nobody had asked for; it only grows",
            ),
            conflicts: book.labelled(
                "sheave_vip_conflicts_total",
                ["ip"],
                "Frames of other hosts that claim a VIP which this node announces, as far as alarms have told them",
                Counter::default,
            ),
            announcing: book.one(
                "sheave_vip_announce_duration_seconds",
                "From the decision that this node announces a VIP to the first frame that says so",
                stage_seconds,
            ),
            writes: book.labelled(
                "sheave_announcer_writes_total",
                ["resource", "outcome"],
                "Attempts of an announcer to write an object: `written`, `conflict` (it had changed meanwhile) or `failed`",
                Counter::default,
            ),
            announcer: Mutex::default(),
        }
    }

    /// An attempt to write an object of a resource ended so.
    pub(crate) fn wrote(&self, resource: &str, outcome: &str) {
        self.writes.of([resource, outcome]).inc();
    }

    /// Tells from now on what this one counts.
    pub(crate) fn follow(&self, announcer: &Arc<Announcer>) {
        *self.announcer.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(announcer);
    }

    /// These Services with their VIPs are announced by a node, and those of `before` no longer.
    pub(crate) fn announced(&self, node: &str, before: &BTreeSet<(String, IpAddr)>, now: &BTreeSet<(String, IpAddr)>) {
        let labels = |ip: &IpAddr| ip.to_string();
        for (service, ip) in before.difference(now) {
            self.announced.forget([service, "layer2", node, &labels(ip)]);
        }
        for (service, ip) in now.difference(before) {
            self.announced.of([service, "layer2", node, &labels(ip)]).set(1);
        }
    }

    /// A VIP was announced for the first time since it was to be.
    pub(crate) fn took(&self, after: Duration) {
        self.announcing.observe(after.as_secs_f64());
    }

    /// Somebody else claimed a VIP so many times.
    pub(crate) fn conflict(&self, ip: IpAddr, times: u64) {
        self.conflicts.of([&ip.to_string()]).inc_by(times);
    }

    /// Brings what the announcer counts up to date.
    pub(super) fn refresh(&self) {
        let announcer = self.announcer.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        for stats in announcer.iter().flat_map(|announcer| announcer.stats()) {
            let ip = stats.address.to_string();
            for (gauge, count) in
                [(&self.requests, stats.requests), (&self.responses, stats.responses), (&self.gratuitous, stats.gratuitous)]
            {
                gauge.of([&ip]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}
