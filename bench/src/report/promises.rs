//! The promises, each beside what was measured.

use crate::results::Verdict;

use super::number::{exact_with_unit, percent, with_unit};
use super::runs::{Run, Runs};
use super::section::{Cell, Exhibit, Kind, Section, Table};

/// What sheave is held to.
struct Promise {
    what: &'static str,
    figure: &'static str,
    /// Not to be exceeded, in the figure's unit.
    budget: f64,
    asked: Asked,
}

/// Of which run: a budget means nothing at another size.
#[derive(Clone, Copy)]
enum Asked {
    /// `sync` with so many Services of so many endpoints.
    Sync { services: f64, each: f64, mix: &'static str },
    /// A subcommand that has the sizes in its figures' names, or in its defaults.
    Run(&'static str),
}

const PLAIN: Asked = Asked::Sync { services: 5_000.0, each: 50.0, mix: "plain" };
const MILLION: Asked = Asked::Sync { services: 20_000.0, each: 50.0, mix: "plain" };
const REALISTIC: Asked = Asked::Sync { services: 5_000.0, each: 50.0, mix: "realistic" };
/// Services that are there when one is added.
const WIDE: f64 = 50_000.0;
/// "Flat", as far as this bench can tell: the quartiles of its rounds' ratios are 1 to 3 per cent apart.
const FLAT: f64 = 1.05;

const PROMISES: [Promise; 15] = [
    Promise { what: "cold sync, 5,000 Services × 50 endpoints", figure: "cold_sync_ms", budget: 500.0, asked: PLAIN },
    Promise { what: "process start to first answer, same size", figure: "start_to_programmed_ms", budget: 3_000.0, asked: PLAIN },
    Promise { what: "one endpoint changed, p50", figure: "change_p50_ms", budget: 0.5, asked: PLAIN },
    Promise { what: "one endpoint changed, p99", figure: "change_p99_ms", budget: 3.0, asked: PLAIN },
    Promise { what: "one Service added at 50,000, p99", figure: "service_add_p99_ms", budget: 5.0, asked: PLAIN },
    Promise { what: "memory at 250,000 endpoints", figure: "peak_rss_mb", budget: 100.0, asked: PLAIN },
    Promise {
        what: "memory at 250,000 endpoints, after churn",
        figure: "peak_rss_mb",
        budget: 100.0,
        asked: Asked::Run("memory"),
    },
    Promise { what: "cold sync, 1,000,000 endpoints", figure: "cold_sync_ms", budget: 3_000.0, asked: MILLION },
    Promise { what: "memory at 1,000,000 endpoints", figure: "peak_rss_mb", budget: 400.0, asked: MILLION },
    Promise {
        what: "memory at 1,000,000 endpoints, after churn",
        figure: "million_peak_rss_mb",
        budget: 400.0,
        asked: Asked::Run("memory"),
    },
    Promise { what: "realistic mix, dual stack: cold sync", figure: "cold_sync_ms", budget: 1_000.0, asked: REALISTIC },
    Promise { what: "realistic mix: one endpoint changed, p99", figure: "change_p99_ms", budget: 6.0, asked: REALISTIC },
    Promise { what: "realistic mix: one Service added, p99", figure: "service_add_p99_ms", budget: 10.0, asked: REALISTIC },
    Promise { what: "realistic mix: memory", figure: "peak_rss_mb", budget: 200.0, asked: REALISTIC },
    Promise {
        what: "first packet, most Services to fewest",
        figure: "first_packet_growth",
        budget: FLAT,
        asked: Asked::Run("packets"),
    },
];

/// Promises that no run here can answer yet.
const UNMEASURED: [(&str, &str); 5] = [
    ("cold sync, times as fast as kube-proxy", "≥ 15 ×"),
    ("one endpoint changed, times as fast as kube-proxy", "≥ 1,000 ×"),
    ("first packet beside kube-proxy's nftables mode", "no slower"),
    ("eBPF: what connect() takes more", "≤ 300 ns"),
    ("VIP owner lost to first announcement", "p99 ≤ 800 ms"),
];

impl Asked {
    fn newest<'r>(self, runs: &'r Runs, figure: &str) -> Option<&'r Run> {
        let benchmark = match self {
            Self::Sync { .. } => "sync",
            Self::Run(benchmark) => benchmark,
        };
        runs.of(benchmark).find(|run| run.figure(figure).is_some() && self.fits(run, figure))
    }

    fn fits(self, run: &Run, figure: &str) -> bool {
        let Self::Sync { services, each, mix } = self else { return true };
        let sized = run.figure("services") == Some(services) && run.figure("endpoints_per_service") == Some(each);
        let wide = !figure.starts_with("service_add") || run.figure("add_at") == Some(WIDE);
        sized && wide && run.mix() == Some(mix)
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
        let Self { figure, budget, asked, .. } = self;
        let run = asked.newest(runs, figure)?;
        let value = run.figure(figure)?;
        Some(Answer { run, value, verdict: Verdict::of(value, Some(*budget)) })
    }

    fn allowed(&self) -> String {
        format!("≤ {}", exact_with_unit(self.figure, self.budget))
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
        let (Promise { what, figure, budget, .. }, allowed) = (promise, promise.allowed());
        let Some(Answer { run, value, verdict }) = promise.answer(runs) else {
            table.rows.push(unmeasured(what, &allowed));
            continue;
        };
        measured += 1;
        missed += usize::from(verdict == Verdict::Missed);
        let share = value / budget;
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
         twice the plain figures; up to {FLAT} times counts as flat.",
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
