//! What sheave is held to: one table. A run judges itself by it, and so does a report of many.

mod asked;

use crate::results::{Held, Results, Verdict};

use Bound::{AtLeast, AtMost};
use asked::Asked;
pub(crate) use asked::Unfit;

/// A figure, and how large or small it must be in a run of one shape.
pub(crate) struct Promise {
    /// For people.
    pub(crate) what: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) bound: Bound,
    asked: Asked,
}

/// In the figure's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

const PLAIN: Asked = Asked::Sync { services: 5_000.0, each: 50.0, mix: "plain" };
const MILLION: Asked = Asked::Sync { services: 20_000.0, each: 50.0, mix: "plain" };
const REALISTIC: Asked = Asked::Sync { services: 5_000.0, each: 50.0, mix: "realistic" };
const BESIDE: Asked = Asked::Compare { services: 5_000.0, each: 50.0 };
/// "Flat", as far as this bench can tell: the quartiles of its rounds' ratios are 1 to 3 per cent apart.
pub(crate) const FLAT: f64 = 1.05;

/// In the order in which people should read them. DESIGN's budgets are for the plain mix; the realistic one may take twice as much.
pub(crate) const PROMISES: [Promise; 20] = [
    Promise::new("cold sync, 5,000 Services × 50 endpoints", "cold_sync_ms", AtMost(500.0), PLAIN),
    Promise::new("process start to first answer, same size", "start_to_programmed_ms", AtMost(3_000.0), PLAIN),
    Promise::new("one endpoint changed, p50", "change_p50_ms", AtMost(0.5), PLAIN),
    Promise::new("one endpoint changed, p99", "change_p99_ms", AtMost(3.0), PLAIN),
    Promise::new("one Service added at 50,000, p99", "service_add_p99_ms", AtMost(5.0), PLAIN),
    Promise::new("memory at 250,000 endpoints", "peak_rss_mb", AtMost(100.0), PLAIN),
    Promise::new("memory at 250,000 endpoints, after churn", "peak_rss_mb", AtMost(100.0), Asked::Memory { endpoints: 250_000 }),
    Promise::new("cold sync, 1,000,000 endpoints", "cold_sync_ms", AtMost(3_000.0), MILLION),
    Promise::new("memory at 1,000,000 endpoints", "peak_rss_mb", AtMost(400.0), MILLION),
    Promise::new(
        "memory at 1,000,000 endpoints, after churn",
        "million_peak_rss_mb",
        AtMost(400.0),
        Asked::Memory { endpoints: 1_000_000 },
    ),
    Promise::new("realistic mix, dual stack: cold sync", "cold_sync_ms", AtMost(1_000.0), REALISTIC),
    Promise::new("realistic mix: process start to first answer", "start_to_programmed_ms", AtMost(6_000.0), REALISTIC),
    Promise::new("realistic mix: one endpoint changed, p50", "change_p50_ms", AtMost(1.0), REALISTIC),
    Promise::new("realistic mix: one endpoint changed, p99", "change_p99_ms", AtMost(6.0), REALISTIC),
    Promise::new("realistic mix: one Service added, p99", "service_add_p99_ms", AtMost(10.0), REALISTIC),
    Promise::new("realistic mix: memory", "peak_rss_mb", AtMost(200.0), REALISTIC),
    Promise::new("first packet, most Services to fewest", "first_packet_growth", AtMost(FLAT), Asked::Packets),
    Promise::new("start to programmed, times as fast as kube-proxy", "programmed_ratio", AtLeast(15.0), BESIDE),
    Promise::new("one endpoint changed, times as fast as kube-proxy", "change_p50_ratio", AtLeast(1_000.0), BESIDE),
    // "No slower", as far as this bench can tell.
    Promise::new(
        "first packet beside kube-proxy's nftables mode",
        "first_packet_to_kube_proxy",
        AtMost(FLAT),
        Asked::PacketsBeside,
    ),
];

impl Bound {
    /// What is no number keeps no bound.
    pub(crate) fn verdict(self, value: f64) -> Verdict {
        let kept = match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        };
        if kept { Verdict::Kept } else { Verdict::Missed }
    }

    /// How much of the budget is used; more than all of it is missed, in either direction.
    pub(crate) fn share(self, value: f64) -> f64 {
        match self {
            Self::AtMost(most) => value / most,
            Self::AtLeast(least) => least / value,
        }
    }
}

impl Promise {
    const fn new(what: &'static str, figure: &'static str, bound: Bound, asked: Asked) -> Self {
        Self { what, figure, bound, asked }
    }

    /// The subcommand whose runs can answer.
    pub(crate) fn benchmark(&self) -> &'static str {
        self.asked.benchmark()
    }

    /// Why this run's figure is not held to it; `None` if it is.
    pub(crate) fn unfit(&self, run: &Results) -> Option<Unfit> {
        asked::first_unmet(asked::of_any(run).into_iter().chain(self.asked.conditions(run, self.figure)))
    }
}

/// What a figure of this run is held to. If it is only in runs of other shapes, those that are nearest to this one are told.
pub(crate) fn held(run: &Results, figure: &str) -> Held {
    let asked = PROMISES.iter().filter(|promise| promise.benchmark() == run.benchmark && promise.figure == figure);
    let mut nearest: Vec<Unfit> = Vec::new();
    for promise in asked {
        let Some(unfit) = promise.unfit(run) else { return Held::To(promise.bound) };
        nearest.retain(|other| other.met >= unfit.met);
        if nearest.iter().all(|other| other.met == unfit.met && other.wanted != unfit.wanted) {
            nearest.push(unfit);
        }
    }
    if nearest.is_empty() {
        return Held::Free;
    }
    let wanted: Vec<String> = nearest.into_iter().map(|unfit| unfit.wanted).collect();
    Held::Elsewhere(format!("the budget is for {}", wanted.join(", or ")))
}

/// What the memory at so many endpoints is called, where there is a budget for it.
pub(crate) fn of_memory(endpoints: u32) -> Option<&'static str> {
    PROMISES.iter().find(|promise| promise.asked == Asked::Memory { endpoints }).map(|promise| promise.figure)
}

#[cfg(test)]
mod tests;
