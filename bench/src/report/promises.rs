//! The promises, each beside what was measured.

mod asked;

use crate::results::Verdict;

use super::number::{exact_with_unit, percent, with_unit};
use super::runs::{Run, Runs};
use super::section::{Cell, Exhibit, Kind, Section, Table};
use Bound::{AtLeast, AtMost};
use asked::Asked;

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

const PLAIN: Asked = Asked::Sync { services: 5_000.0, each: 50.0, mix: "plain" };
const MILLION: Asked = Asked::Sync { services: 20_000.0, each: 50.0, mix: "plain" };
const REALISTIC: Asked = Asked::Sync { services: 5_000.0, each: 50.0, mix: "realistic" };
const BESIDE: Asked = Asked::Compare { services: 5_000.0, each: 50.0 };
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
        asked: Asked::Memory { endpoints: 250_000.0 },
    },
    Promise { what: "cold sync, 1,000,000 endpoints", figure: "cold_sync_ms", bound: AtMost(3_000.0), asked: MILLION },
    Promise { what: "memory at 1,000,000 endpoints", figure: "peak_rss_mb", bound: AtMost(400.0), asked: MILLION },
    Promise {
        what: "memory at 1,000,000 endpoints, after churn",
        figure: "million_peak_rss_mb",
        bound: AtMost(400.0),
        asked: Asked::Memory { endpoints: 1_000_000.0 },
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
        asked: Asked::Packets,
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

/// What the runs say to a promise.
enum Answer<'r> {
    Judged {
        run: &'r Run,
        value: f64,
        verdict: Verdict,
    },
    /// Measured by runs of another shape only; the newest one's is told.
    Unjudged {
        run: &'r Run,
        why: String,
    },
    Unmeasured,
}

impl Promise {
    /// By the newest run of the shape that it asks for.
    fn answer<'r>(&self, runs: &'r Runs) -> Answer<'r> {
        let Self { figure, bound, asked, .. } = self;
        let mut unjudged = None;
        for run in runs.of(asked.benchmark()) {
            let Some(value) = run.figure(figure) else { continue };
            match asked.unfit(run, figure) {
                None => return Answer::Judged { run, value, verdict: bound.verdict(value) },
                Some(why) => unjudged = unjudged.or(Some(Answer::Unjudged { run, why })),
            }
        }
        unjudged.unwrap_or(Answer::Unmeasured)
    }

    fn allowed(&self) -> String {
        let (sign, bound) = match self.bound {
            AtMost(most) => ('≤', most),
            AtLeast(least) => ('≥', least),
        };
        format!("{sign} {}", exact_with_unit(self.figure, bound))
    }
}

/// How many budgets there is a verdict on.
pub(super) fn judged(runs: &Runs) -> usize {
    PROMISES.iter().filter(|promise| matches!(promise.answer(runs), Answer::Judged { .. })).count()
}

/// Each promise that is not kept, as a line for people.
pub(super) fn missed(runs: &Runs) -> Vec<String> {
    let line = |promise: &Promise| {
        let Answer::Judged { run, value, verdict: Verdict::Missed } = promise.answer(runs) else { return None };
        let (what, value) = (promise.what, with_unit(promise.figure, value));
        Some(format!("{what}: {value} where {} was promised ({})", promise.allowed(), run.file))
    };
    PROMISES.iter().filter_map(line).collect()
}

/// `None` if no run has to do with any of them.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let mut table = Table::new("Budgets", ["promise", "measured", "budget", "of budget", "verdict", "run"]);
    let mut sources: Vec<&Run> = Vec::new();
    let (mut judged, mut missed) = (0, 0);
    for promise in &PROMISES {
        let answer = promise.answer(runs);
        if let Answer::Judged { verdict, .. } = answer {
            judged += 1;
            missed += usize::from(verdict == Verdict::Missed);
        }
        if let Answer::Judged { run, .. } | Answer::Unjudged { run, .. } = answer
            && !sources.iter().any(|source| source.file == run.file)
        {
            sources.push(run);
        }
        table.rows.push(row(promise, &answer));
    }
    if sources.is_empty() {
        return None;
    }
    table.rows.extend(UNMEASURED.iter().map(|(what, allowed)| without_verdict(what, allowed, "not measured", "")));
    let lead = format!(
        "{} of {judged} budgets that could be judged are kept, {missed} missed; {} could not: a budget is for one size, one mix and \
         enough samples. The realistic mix may take twice the plain figures; up to {FLAT} times counts as flat, and as no slower.",
        judged - missed,
        table.rows.len() - judged
    );
    Some(Section { id: "promises", title: "What was promised", lead, exhibits: vec![Exhibit::Table(table)], sources })
}

fn row(promise: &Promise, answer: &Answer<'_>) -> Vec<Cell> {
    let (Promise { what, figure, bound, .. }, allowed) = (promise, promise.allowed());
    let name = |run: &Run| run.file.trim_end_matches(".json").to_owned();
    match answer {
        Answer::Judged { run, value, verdict } => {
            let share = bound.share(*value);
            vec![
                Cell::words(*what),
                Cell::number(with_unit(figure, *value)),
                Cell::number(allowed),
                Cell { text: percent(share), kind: Kind::Share(share) },
                Cell { text: verdict.word().to_owned(), kind: Kind::Verdict(*verdict) },
                Cell::words(name(run)),
            ]
        }
        Answer::Unjudged { run, why } => without_verdict(what, &allowed, &format!("not judged: {why}"), &name(run)),
        Answer::Unmeasured => without_verdict(what, &allowed, "not measured", ""),
    }
}

fn without_verdict(what: &str, budget: &str, why: &str, run: &str) -> Vec<Cell> {
    let nothing = || Cell::number("");
    let verdict = Cell { text: why.to_owned(), kind: Kind::Verdict(Verdict::NoBudget) };
    vec![Cell::words(what), nothing(), Cell::number(budget), nothing(), verdict, Cell::words(run)]
}
