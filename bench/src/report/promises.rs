//! The promises, each beside what was measured.

use crate::results::Verdict;

use super::compare::Pair;
use super::number::{exact_with_unit, percent, with_unit};
use super::runs::{Run, Runs, word};
use super::section::{Cell, Exhibit, Kind, Section, Table};
use Bound::{AtLeast, AtMost};

/// What sheave is held to.
struct Promise {
    what: &'static str,
    figure: &'static str,
    bound: Bound,
    asked: Asked,
}

/// In the figure's unit.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// Of which run: a budget means nothing at another size.
#[derive(Clone, Copy)]
enum Asked {
    /// `sync` with so many Services of so many endpoints.
    Sync { services: f64, each: f64, mix: &'static str },
    /// A subcommand that has the sizes in its figures' names, or in its defaults.
    Run(&'static str),
    /// `compare` of sheave with a kube-proxy, on so many Services of so many endpoints.
    Compare { services: f64, each: f64 },
    /// `packets` beside a kube-proxy in nftables mode.
    PacketsBeside,
}

const PLAIN: Asked = Asked::Sync { services: 5_000.0, each: 50.0, mix: "plain" };
const MILLION: Asked = Asked::Sync { services: 20_000.0, each: 50.0, mix: "plain" };
const REALISTIC: Asked = Asked::Sync { services: 5_000.0, each: 50.0, mix: "realistic" };
const BESIDE: Asked = Asked::Compare { services: 5_000.0, each: 50.0 };
/// Services that are there when one is added.
const WIDE: f64 = 50_000.0;
/// How the names of contenders begin.
const SHEAVE: &str = "sheave ";
const KUBE_PROXY: &str = "kube-proxy ";
/// "Flat", as far as this bench can tell: the quartiles of its rounds' ratios are 1 to 3 per cent apart.
const FLAT: f64 = 1.05;

const PROMISES: [Promise; 18] = [
    Promise { what: "cold sync, 5,000 Services × 50 endpoints", figure: "cold_sync_ms", bound: AtMost(500.0), asked: PLAIN },
    Promise {
        what: "process start to first answer, same size",
        figure: "start_to_programmed_ms",
        bound: AtMost(3_000.0),
        asked: PLAIN,
    },
    Promise { what: "one endpoint changed, p50", figure: "change_p50_ms", bound: AtMost(0.5), asked: PLAIN },
    Promise { what: "one endpoint changed, p99", figure: "change_p99_ms", bound: AtMost(3.0), asked: PLAIN },
    Promise { what: "one Service added at 50,000, p99", figure: "service_add_p99_ms", bound: AtMost(5.0), asked: PLAIN },
    Promise { what: "memory at 250,000 endpoints", figure: "peak_rss_mb", bound: AtMost(100.0), asked: PLAIN },
    Promise {
        what: "memory at 250,000 endpoints, after churn",
        figure: "peak_rss_mb",
        bound: AtMost(100.0),
        asked: Asked::Run("memory"),
    },
    Promise { what: "cold sync, 1,000,000 endpoints", figure: "cold_sync_ms", bound: AtMost(3_000.0), asked: MILLION },
    Promise { what: "memory at 1,000,000 endpoints", figure: "peak_rss_mb", bound: AtMost(400.0), asked: MILLION },
    Promise {
        what: "memory at 1,000,000 endpoints, after churn",
        figure: "million_peak_rss_mb",
        bound: AtMost(400.0),
        asked: Asked::Run("memory"),
    },
    Promise { what: "realistic mix, dual stack: cold sync", figure: "cold_sync_ms", bound: AtMost(1_000.0), asked: REALISTIC },
    Promise { what: "realistic mix: one endpoint changed, p99", figure: "change_p99_ms", bound: AtMost(6.0), asked: REALISTIC },
    Promise {
        what: "realistic mix: one Service added, p99",
        figure: "service_add_p99_ms",
        bound: AtMost(10.0),
        asked: REALISTIC,
    },
    Promise { what: "realistic mix: memory", figure: "peak_rss_mb", bound: AtMost(200.0), asked: REALISTIC },
    Promise {
        what: "first packet, most Services to fewest",
        figure: "first_packet_growth",
        bound: AtMost(FLAT),
        asked: Asked::Run("packets"),
    },
    Promise { what: "cold sync, times as fast as kube-proxy", figure: "programmed_ratio", bound: AtLeast(15.0), asked: BESIDE },
    Promise {
        what: "one endpoint changed, times as fast as kube-proxy",
        figure: "change_p50_ratio",
        bound: AtLeast(1_000.0),
        asked: BESIDE,
    },
    // "No slower", as far as this bench can tell.
    Promise {
        what: "first packet beside kube-proxy's nftables mode",
        figure: "first_packet_to_kube_proxy",
        bound: AtMost(FLAT),
        asked: Asked::PacketsBeside,
    },
];

/// Promises that no run here can answer yet.
const UNMEASURED: [(&str, &str); 2] =
    [("eBPF: what connect() takes more", "≤ 300 ns"), ("VIP owner lost to first announcement", "p99 ≤ 800 ms")];

impl Asked {
    fn newest<'r>(self, runs: &'r Runs, figure: &str) -> Option<&'r Run> {
        let benchmark = match self {
            Self::Sync { .. } => "sync",
            Self::Run(benchmark) => benchmark,
            Self::Compare { .. } => "compare",
            Self::PacketsBeside => "packets",
        };
        runs.of(benchmark).find(|run| run.figure(figure).is_some() && self.fits(run, figure))
    }

    fn fits(self, run: &Run, figure: &str) -> bool {
        match self {
            Self::Run(_) => true,
            Self::Sync { services, each, mix } => {
                let sized = run.figure("services") == Some(services) && run.figure("endpoints_per_service") == Some(each);
                let wide = !figure.starts_with("service_add") || run.figure("add_at") == Some(WIDE);
                sized && wide && run.mix() == Some(mix)
            }
            Self::Compare { services, each } => Pair::of(run).is_some_and(|pair| {
                let sized = pair.cluster.services == Some(services) && pair.cluster.each == Some(each);
                sized && pair.names[0].starts_with(SHEAVE) && pair.names[1].starts_with(KUBE_PROXY)
            }),
            Self::PacketsBeside => {
                let mut rules = run.measurements().filter_map(|row| word(row, "rules"));
                rules.any(|rules| rules.starts_with(KUBE_PROXY) && rules.ends_with(" nftables"))
            }
        }
    }
}

impl Bound {
    fn verdict(self, value: f64) -> Verdict {
        match self {
            Self::AtMost(most) => Verdict::of(value, Some(most)),
            Self::AtLeast(least) if value >= least => Verdict::Kept,
            Self::AtLeast(_) => Verdict::Missed,
        }
    }

    /// How much of the budget is used; more than all of it is missed, in either direction.
    fn share(self, value: f64) -> f64 {
        match self {
            Self::AtMost(most) => value / most,
            Self::AtLeast(least) => least / value,
        }
    }
}

/// A promise, and the run that answers it.
struct Answer<'r> {
    run: &'r Run,
    value: f64,
    verdict: Verdict,
}

impl Promise {
    /// By the newest run that it asks for.
    fn answer<'r>(&self, runs: &'r Runs) -> Option<Answer<'r>> {
        let Self { figure, bound, asked, .. } = self;
        let run = asked.newest(runs, figure)?;
        let value = run.figure(figure)?;
        Some(Answer { run, value, verdict: bound.verdict(value) })
    }

    fn allowed(&self) -> String {
        let (sign, bound) = match self.bound {
            AtMost(most) => ('≤', most),
            AtLeast(least) => ('≥', least),
        };
        format!("{sign} {}", exact_with_unit(self.figure, bound))
    }
}

/// Each promise that is not kept, as a line for people.
pub(super) fn missed(runs: &Runs) -> Vec<String> {
    let line = |promise: &Promise| {
        let Answer { run, value, verdict } = promise.answer(runs)?;
        let Promise { what, figure, .. } = promise;
        (verdict == Verdict::Missed)
            .then(|| format!("{what}: {} where {} was promised ({})", with_unit(figure, value), promise.allowed(), run.file))
    };
    PROMISES.iter().filter_map(line).collect()
}

/// `None` if no run answers any of them.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let mut table = Table::new("Budgets", ["promise", "measured", "budget", "of budget", "verdict", "run"]);
    let mut sources: Vec<&Run> = Vec::new();
    let (mut measured, mut missed) = (0, 0);
    for promise in &PROMISES {
        let (Promise { what, figure, bound, .. }, allowed) = (promise, promise.allowed());
        let Some(Answer { run, value, verdict }) = promise.answer(runs) else {
            table.rows.push(unmeasured(what, &allowed));
            continue;
        };
        measured += 1;
        missed += usize::from(verdict == Verdict::Missed);
        let share = bound.share(value);
        table.rows.push(vec![
            Cell::words(*what),
            Cell::number(with_unit(figure, value)),
            Cell::number(allowed),
            Cell { text: percent(share), kind: Kind::Share(share) },
            Cell { text: verdict.word().to_owned(), kind: Kind::Verdict(verdict) },
            Cell::words(run.file.trim_end_matches(".json")),
        ]);
        if !sources.iter().any(|source| source.file == run.file) {
            sources.push(run);
        }
    }
    if sources.is_empty() {
        return None;
    }
    table.rows.extend(UNMEASURED.iter().map(|(what, allowed)| unmeasured(what, allowed)));
    let lead = format!(
        "{} of {measured} budgets that were measured are kept, {missed} missed; {} were not measured here. The realistic mix may take \
         twice the plain figures; up to {FLAT} times counts as flat, and as no slower.",
        measured - missed,
        table.rows.len() - measured
    );
    Some(Section { id: "promises", title: "What was promised", lead, exhibits: vec![Exhibit::Table(table)], sources })
}

fn unmeasured(what: &str, budget: &str) -> Vec<Cell> {
    let nothing = || Cell { text: String::new(), kind: Kind::Number };
    let verdict = Cell { text: "not measured".to_owned(), kind: Kind::Verdict(Verdict::NoBudget) };
    vec![Cell::words(what), nothing(), Cell::number(budget), nothing(), verdict, Cell::words("")]
}
