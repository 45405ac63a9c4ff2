//! Of which runs a promise is asked. A budget means nothing for a cluster of another size, another mix, or a handful of samples; what such
//! a run has measured is shown, and not judged.

use crate::daemon::Plane;
use crate::peer::Mode;
use crate::report::number::count;
use crate::results::{Measurement, Profile, Results, size, word};
use crate::statistics::samples_for;
use crate::sync::memory::CHURNED;

/// The shape of a run that can answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Asked {
    /// `sync` with so many Services of so many endpoints.
    Sync { services: f64, each: f64, mix: &'static str },
    /// `memory` with so many endpoints, after churn.
    Memory { endpoints: u32 },
    /// `packets` from few Services to many.
    Packets,
    /// The same beside a kube-proxy in nftables mode.
    PacketsBeside,
    /// `compare` of sheave with a kube-proxy in nftables mode, on so many Services of so many endpoints.
    Compare { services: f64, each: f64 },
}

/// Something that a run must be.
pub(super) struct Condition {
    met: bool,
    here: String,
    wanted: String,
}

/// The first condition that a run does not meet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// Conditions before it.
    pub(super) met: usize,
    /// What the run is.
    pub(crate) here: String,
    /// What the budget is for.
    pub(crate) wanted: String,
}

/// Services that are there when one is added.
const WIDE: f64 = 50_000.0;
/// Services between which a first packet must take the same: so few at the most, and so many at the least.
const FEW: f64 = 10.0;
const MANY: f64 = 30_000.0;
/// A middle ratio of fewer rounds is one of chance.
const ROUNDS: f64 = 5.0;
/// How the names of contenders begin.
const SHEAVE: &str = "sheave ";
const KUBE_PROXY: &str = "kube-proxy ";

pub(super) fn first_unmet(conditions: impl Iterator<Item = Condition>) -> Option<Unfit> {
    let unmet = |(met, condition): (usize, Condition)| {
        let Condition { met: is_met, here, wanted } = condition;
        (!is_met).then_some(Unfit { met, here, wanted })
    };
    conditions.enumerate().find_map(unmet)
}

/// What every run must be.
pub(super) fn of_any(run: &Results) -> [Condition; 2] {
    [
        Condition::new(!run.interrupted, "cut off", "a run that was not cut off"),
        Condition::new(run.profile == Profile::Release, "a debug build", "a release build"),
    ]
}

impl Asked {
    pub(super) fn benchmark(self) -> &'static str {
        match self {
            Self::Sync { .. } => "sync",
            Self::Memory { .. } => "memory",
            Self::Packets | Self::PacketsBeside => "packets",
            Self::Compare { .. } => "compare",
        }
    }

    /// In the order in which they are asked: a run that meets more of them is nearer.
    pub(super) fn conditions(self, run: &Results, figure: &str) -> Vec<Condition> {
        match self {
            Self::Sync { services, each, mix } => of_sync(run, figure, (services, each), mix),
            Self::Memory { endpoints } => of_memory(run, endpoints),
            Self::Packets => of_packets(run, figure),
            Self::PacketsBeside => {
                let mut rules = run.measurements.iter().filter_map(|row| word(row, "rules"));
                let beside = Condition::new(
                    rules.any(is_kube_proxy),
                    "not beside kube-proxy's nftables mode",
                    "kube-proxy's nftables mode",
                );
                std::iter::once(beside).chain(of_packets(run, figure)).collect()
            }
            Self::Compare { services, each } => of_compare(run, figure, (services, each)),
        }
    }
}

impl Condition {
    fn new(met: bool, here: impl Into<String>, wanted: impl Into<String>) -> Self {
        Self { met, here: here.into(), wanted: wanted.into() }
    }

    fn at_least(least: f64, what: &str, there: f64) -> Self {
        let here = format!("{what}: {} of at least {}", count(there), count(least));
        Self::new(there >= least, here, format!("at least {} {what}", count(least)))
    }

    fn of_cluster(asked: (f64, f64), there: (f64, f64)) -> Self {
        Self::new(there == asked, cluster(there), cluster(asked))
    }

    /// A percentile needs so many samples.
    fn of_samples(figure: &str, changes: f64) -> Self {
        Self::at_least(samples_for(figure).into(), "changes", changes)
    }
}

fn of_sync(run: &Results, figure: &str, asked: (f64, f64), asked_mix: &str) -> Vec<Condition> {
    let named = |name: &str| run.measurements.first().and_then(|row| word(row, name)).unwrap_or_default();
    let (plane, mix, asked_plane) = (named("plane"), named("mix"), Plane::Nftables.name());
    let told = |name: &str| run.figure(name).unwrap_or_default();
    let add_at = told("add_at");
    vec![
        Condition::new(plane == asked_plane, format!("plane {plane}"), format!("plane {asked_plane}")),
        Condition::new(mix == asked_mix, format!("{mix} mix"), format!("the {asked_mix} mix")),
        Condition::of_cluster(asked, (told("services"), told("endpoints_per_service"))),
        Condition::new(
            !figure.starts_with("service_add") || add_at == WIDE,
            format!("added at {}", count(add_at)),
            format!("a Service added at {}", count(WIDE)),
        ),
        Condition::of_samples(figure, told("changes")),
    ]
}

fn of_memory(run: &Results, asked: u32) -> Vec<Condition> {
    let asked = f64::from(asked);
    let row = run.measurements.iter().find(|row| size(row, "endpoints") == Some(asked));
    let churned = row.and_then(|row| row.values.get("churned").copied()).unwrap_or_default();
    let endpoints = format!("{} endpoints", count(asked));
    vec![
        Condition::new(row.is_some(), format!("not at {endpoints}"), endpoints),
        Condition::at_least(CHURNED.into(), "changes", churned),
    ]
}

fn of_packets(run: &Results, figure: &str) -> Vec<Condition> {
    let sizes = || run.measurements.iter().filter_map(|row| size(row, "services")).filter(|services| *services > 0.0);
    let (fewest, most) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let asked = format!("{} to {}", count(FEW), count(MANY));
    vec![
        Condition::new(
            fewest <= FEW && most >= MANY,
            format!("{} to {} Services, not {asked}", count(fewest), count(most)),
            format!("{asked} Services"),
        ),
        Condition::at_least(ROUNDS, "rounds", rounds(run, figure)),
    ]
}

/// Rounds that a ratio is the middle one of. Those of a kube-proxy may be fewer than the run had, for it may have failed.
fn rounds(run: &Results, figure: &str) -> f64 {
    let own = run.figure(&format!("{figure}_rounds"));
    // Results that do not tell have sheave's own networks in every round, or would have failed.
    let all = || run.figure("rounds").filter(|_| !figure.ends_with("_to_kube_proxy"));
    own.or_else(all).unwrap_or_default()
}

fn of_compare(run: &Results, figure: &str, asked: (f64, f64)) -> Vec<Condition> {
    const WANTED: &str = "sheave beside kube-proxy's nftables mode";
    let mut rows = run.measurements.iter().filter_map(|row| Some((word(row, "contender")?, row)));
    let Some(((own, row), (other, _))) = rows.next().zip(rows.next()) else {
        return vec![Condition::new(false, "not beside another", WANTED)];
    };
    let told = |name: &str| number(row, name);
    vec![
        Condition::new(own.starts_with(SHEAVE) && is_kube_proxy(other), format!("{own} beside {other}"), WANTED),
        Condition::of_cluster(asked, (told("services"), told("endpoints_per_service"))),
        Condition::of_samples(figure, told("changes")),
    ]
}

/// Whether a contender is a kube-proxy in the mode that it is compared in: the others are another kernel's work.
fn is_kube_proxy(name: &str) -> bool {
    name.starts_with(KUBE_PROXY) && name.rsplit(' ').next() == Some(Mode::Nftables.name())
}

fn number(row: &Measurement, name: &str) -> f64 {
    size(row, name).unwrap_or_default()
}

fn cluster((services, each): (f64, f64)) -> String {
    format!("{} Services × {} endpoints", count(services), count(each))
}
