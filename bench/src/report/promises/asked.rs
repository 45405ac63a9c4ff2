//! Of which runs a promise is asked. A budget means nothing for a cluster of another size, another mix, or a handful of samples; what such
//! a run has measured is shown, and not judged.

use crate::daemon::Plane;
use crate::statistics::samples_for;
use crate::sync::memory::CHURNED;

use super::super::compare::Pair;
use super::super::number::count;
use super::super::runs::{Run, size, word};

/// The shape of a run that can answer.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    /// `sync` with so many Services of so many endpoints.
    Sync { services: f64, each: f64, mix: &'static str },
    /// `memory` with so many endpoints, after churn.
    Memory { endpoints: f64 },
    /// `packets` from few Services to many.
    Packets,
    /// The same beside a kube-proxy in nftables mode.
    PacketsBeside,
    /// `compare` of sheave with a kube-proxy, on so many Services of so many endpoints.
    Compare { services: f64, each: f64 },
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

impl Asked {
    pub(super) fn benchmark(self) -> &'static str {
        match self {
            Self::Sync { .. } => "sync",
            Self::Memory { .. } => "memory",
            Self::Packets | Self::PacketsBeside => "packets",
            Self::Compare { .. } => "compare",
        }
    }

    /// Why this run's figure is not held to a budget; `None` if it is.
    pub(super) fn unfit(self, run: &Run, figure: &str) -> Option<String> {
        match self {
            Self::Sync { services, each, mix } => unfit_sync(run, figure, (services, each), mix),
            Self::Memory { endpoints } => unfit_memory(run, endpoints),
            Self::Packets => unfit_packets(run),
            Self::PacketsBeside => {
                let mut rules = run.measurements().filter_map(|row| word(row, "rules"));
                let beside = rules.any(|rules| rules.starts_with(KUBE_PROXY) && rules.ends_with(" nftables"));
                unless(beside, || "not beside kube-proxy's nftables mode".to_owned()).or_else(|| unfit_packets(run))
            }
            Self::Compare { services, each } => unfit_compare(run, figure, (services, each)),
        }
    }
}

fn unfit_sync(run: &Run, figure: &str, asked: (f64, f64), asked_mix: &str) -> Option<String> {
    let named = |name: &str| run.measurements().next().and_then(|row| word(row, name)).unwrap_or_default();
    let (plane, mix) = (named("plane"), named("mix"));
    let told = |name: &str| run.figure(name).unwrap_or_default();
    let (services, each, changes, add_at) = (told("services"), told("endpoints_per_service"), told("changes"), told("add_at"));
    unless(plane == Plane::Nftables.name(), || format!("plane {plane}"))
        .or_else(|| unless((services, each) == asked, || clusters(services, each)))
        .or_else(|| unless(mix == asked_mix, || format!("{mix} mix")))
        .or_else(|| unless(!figure.starts_with("service_add") || add_at == WIDE, || format!("added at {}", count(add_at))))
        .or_else(|| unfit_percentile(figure, changes))
}

fn unfit_memory(run: &Run, asked: f64) -> Option<String> {
    let Some(row) = run.measurements().find(|row| size(row, "endpoints") == Some(asked)) else {
        return Some(format!("not at {} endpoints", count(asked)));
    };
    let churned = row.values.get("churned").copied().unwrap_or_default();
    unless(churned >= f64::from(CHURNED), || fewer("changes", churned, CHURNED.into()))
}

fn unfit_packets(run: &Run) -> Option<String> {
    let sizes = || run.measurements().filter_map(|row| size(row, "services")).filter(|services| *services > 0.0);
    let (fewest, most) = (sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max));
    let rounds = run.figure("rounds").unwrap_or_default();
    unless(fewest <= FEW && most >= MANY, || {
        format!("{} to {} Services, not {} to {}", count(fewest), count(most), count(FEW), count(MANY))
    })
    .or_else(|| unless(rounds >= ROUNDS, || fewer("rounds", rounds, ROUNDS)))
}

fn unfit_compare(run: &Run, figure: &str, asked: (f64, f64)) -> Option<String> {
    let Some(pair) = Pair::of(run) else { return Some("not beside another".to_owned()) };
    let [own, other] = pair.names;
    let (services, each) = (pair.cluster.services.unwrap_or_default(), pair.cluster.each.unwrap_or_default());
    unless(own.starts_with(SHEAVE) && other.starts_with(KUBE_PROXY), || format!("{own} beside {other}"))
        .or_else(|| unless((services, each) == asked, || clusters(services, each)))
        .or_else(|| unfit_percentile(figure, pair.changes.unwrap_or_default()))
}

fn unfit_percentile(figure: &str, changes: f64) -> Option<String> {
    let least = f64::from(samples_for(figure));
    unless(changes >= least, || fewer("changes", changes, least))
}

fn clusters(services: f64, each: f64) -> String {
    format!("{} Services × {} endpoints", count(services), count(each))
}

fn fewer(what: &str, there: f64, least: f64) -> String {
    format!("{what}: {} of at least {}", count(there), count(least))
}

fn unless(fits: bool, why: impl FnOnce() -> String) -> Option<String> {
    (!fits).then(why)
}
