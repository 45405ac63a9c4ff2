//! The promises, each beside what was measured.

use crate::promises::{Bound, FLAT, PROMISES, Promise};
use crate::results::Verdict;

use super::number::{exact_with_unit, percent, with_unit};
use super::runs::{Run, Runs};
use super::section::{Cell, Exhibit, Kind, Section, Table};

/// Promises that no run here can answer yet.
const UNMEASURED: [(&str, &str); 2] =
    [("eBPF: what connect() takes more", "≤ 300 ns"), ("VIP owner lost to first announcement", "p99 ≤ 800 ms")];

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

/// By the newest run of the shape that it asks for.
fn answer<'r>(promise: &Promise, runs: &'r Runs) -> Answer<'r> {
    let mut unjudged = None;
    for run in runs.of(promise.benchmark()) {
        let Some(value) = run.figure(promise.figure) else { continue };
        match promise.unfit(&run.results) {
            None => return Answer::Judged { run, value, verdict: promise.bound.verdict(value) },
            Some(unfit) => unjudged = unjudged.or(Some(Answer::Unjudged { run, why: unfit.here })),
        }
    }
    unjudged.unwrap_or(Answer::Unmeasured)
}

fn allowed(promise: &Promise) -> String {
    let (sign, bound) = match promise.bound {
        Bound::AtMost(most) => ('≤', most),
        Bound::AtLeast(least) => ('≥', least),
    };
    format!("{sign} {}", exact_with_unit(promise.figure, bound))
}

/// How many budgets there is a verdict on.
pub(super) fn judged(runs: &Runs) -> usize {
    PROMISES.iter().filter(|promise| matches!(answer(promise, runs), Answer::Judged { .. })).count()
}

/// Each promise that is not kept, as a line for people.
pub(super) fn missed(runs: &Runs) -> Vec<String> {
    let line = |promise: &Promise| {
        let Answer::Judged { run, value, verdict: Verdict::Missed } = answer(promise, runs) else { return None };
        let (what, value) = (promise.what, with_unit(promise.figure, value));
        Some(format!("{what}: {value} where {} was promised ({})", allowed(promise), run.file))
    };
    PROMISES.iter().filter_map(line).collect()
}

/// `None` if no run has to do with any of them.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let mut table = Table::new("Budgets", ["promise", "measured", "budget", "of budget", "verdict", "run"]);
    let mut sources: Vec<&Run> = Vec::new();
    let (mut judged, mut missed) = (0, 0);
    for promise in &PROMISES {
        let answer = answer(promise, runs);
        if let Answer::Judged { verdict, .. } = answer {
            judged += 1;
            missed += usize::from(verdict == Verdict::Missed);
        }
        if let Answer::Judged { run, .. } | Answer::Unjudged { run, .. } = answer
            && !sources.iter().any(|source| std::ptr::eq(*source, run))
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
    let (Promise { what, figure, bound, .. }, allowed) = (promise, allowed(promise));
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
