//! Of announcing: MetalLB's speaker's metrics by their names, and ours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use super::book::{Book, Labelled, stage_seconds};
use crate::loadbalancer::announcer::Announcer;
use crate::loadbalancer::membership::{self, Member, State};

/// Metrics of the VIPs that this node announces.
#[derive(Debug)]
pub struct SpeakerMetrics {
    announced: Labelled<4, Gauge>,
    requests: Labelled<1, Gauge>,
    responses: Labelled<1, Gauge>,
    gratuitous: Labelled<1, Gauge>,
    conflicts: Labelled<1, Counter>,
    lost: Counter,
    announcing: Histogram,
    writes: Labelled<2, Counter>,
    arrivals: Labelled<1, Counter>,
    taking_over: Histogram,
    members: Labelled<1, Gauge>,
    datagrams: Labelled<1, Counter>,
    refused: Labelled<1, Counter>,
    /// Who counts.
    announcer: Mutex<Weak<Announcer>>,
    membership: Mutex<Option<membership::Handle>>,
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
            lost: book.one(
                "sheave_vip_frames_lost_total",
                "ARP and neighbour discovery frames about VIPs that found no room in the announcer's queue, as in a storm; whoever asked asks again",
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
            arrivals: book.labelled(
                "sheave_vip_arrivals_total",
                ["why"],
                "VIPs that came to this node: `elected`, or `inherited` from a node or daemon that failed or ended",
                Counter::default,
            ),
            taking_over: book.one(
                "sheave_vip_takeover_duration_seconds",
                "From the verdict that the node of a VIP, or its daemon, is gone to the first frame from here",
                stage_seconds,
            ),
            members: book.labelled(
                "sheave_membership_members",
                ["state"],
                "Other announcers by state: unheard, alive, daemon_down, leaving, gone",
                Gauge::default,
            ),
            datagrams: book.labelled(
                "sheave_membership_datagrams_total",
                ["outcome"],
                "Datagrams between announcers: received, sent, or unsent, which the kernel did not take",
                Counter::default,
            ),
            refused: book.labelled(
                "sheave_membership_refused_total",
                ["reason"],
                "Datagrams that did nothing, by reason: foreign, forged, looped, replayed, misdirected, stranger, unproven, flood, malformed",
                Counter::default,
            ),
            announcer: Mutex::default(),
            membership: Mutex::default(),
        }
    }

    /// A VIP has come here; and since when it was known that its holder was gone.
    pub(crate) fn arrived(&self, inherited: bool, gone: Option<Duration>) {
        self.arrivals.of([if inherited { "inherited" } else { "elected" }]).inc();
        if let Some(gone) = gone {
            self.taking_over.observe(gone.as_secs_f64());
        }
    }

    /// The members are these, and somebody counts what they say.
    pub(crate) fn members(&self, handle: Option<&membership::Handle>, members: &[Member]) {
        *self.membership.lock().unwrap_or_else(PoisonError::into_inner) = handle.cloned();
        let count = |wanted: &str| members.iter().filter(|member| name_of(member.state) == wanted).count();
        for state in STATES {
            self.members.of([state]).set(i64::try_from(count(state)).unwrap_or(i64::MAX));
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

    /// Brings what announcer and membership count up to date.
    pub(super) fn refresh(&self) {
        let membership = self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(counts) = membership.as_ref().map(membership::Handle::counts) {
            let each = [("received", &counts.received), ("sent", &counts.sent), ("unsent", &counts.unsent)];
            for (outcome, count) in each {
                self.datagrams.of([outcome]).inner().store(count.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            for (reason, count) in counts.refused() {
                self.refused.of([reason]).inner().store(count, Ordering::Relaxed);
            }
        }
        let announcer = self.announcer.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
        self.lost.inc_by(announcer.as_ref().map_or(0, |announcer| announcer.take_lost()));
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

/// The states of a member, as metrics name them.
const STATES: [&str; 5] = ["unheard", "alive", "daemon_down", "leaving", "gone"];

fn name_of(state: State) -> &'static str {
    match state {
        State::Unheard => "unheard",
        State::Alive => "alive",
        State::DaemonDown { .. } => "daemon_down",
        State::Leaving => "leaving",
        State::Gone { .. } => "gone",
    }
}
