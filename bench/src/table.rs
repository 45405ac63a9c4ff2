//! Results for people, on a terminal.

mod columns;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::promises::Bound;
use crate::results::{Legend, Results, Verdict};

/// Of a terminal that is not narrow.
const WIDTH: usize = 120;
/// Least room for what a figure is.
const MEANING: usize = 30;

/// Everything: what it was run on, the measurements, and the figures beside their budgets.
pub(crate) fn of(results: &Results) -> String {
    let Results { command_line, machine, versions, profile, interrupted, left_out, .. } = results;
    let mut text = format!(
        "{command_line}\n{}, {}\n{}, {}\n",
        versions.describe(),
        profile.describe(),
        machine.describe(),
        results.surroundings()
    );
    columns::write(&mut text, &results.measurements);
    figures(&mut text, results);
    for what in left_out {
        text.push_str(&wrapped(&format!("left out: {what}"), WIDTH).iter().map(|line| format!("\n{line}")).collect::<String>());
    }
    if *interrupted {
        text.push_str("\ncut off: this is what had been measured by then");
    }
    text
}

fn figures(text: &mut String, results: &Results) {
    if results.legend.is_empty() {
        return;
    }
    let longest = results.legend.iter().map(|told| told.name.chars().count()).max().unwrap_or(0);
    let _ = writeln!(text, "\n{:<longest$} {:>10} {:>10}  {:<7} what it is", "figure", "measured", "budget", "verdict");
    let mut missed = 0;
    for Legend { name, meaning, .. } in &results.legend {
        let Some(value) = results.figure(name) else { continue };
        let verdict = results.verdict(name);
        missed += usize::from(verdict == Verdict::Missed);
        let budget = match results.bound(name) {
            None => String::new(),
            Some(Bound::AtMost(most)) => number(name, most),
            Some(Bound::AtLeast(least)) => format!("≥ {}", number(name, least)),
        };
        let line = format!("{name:<longest$} {:>10} {budget:>10}  {:<7} ", number(name, value), verdict.word());
        let before = line.chars().count();
        let meaning = wrapped(meaning, WIDTH.saturating_sub(before).max(MEANING)).join(&format!("\n{}", " ".repeat(before)));
        let _ = writeln!(text, "{}", (line + &meaning).trim_end());
    }
    without_verdict(text, &results.legend);
    text.push_str(&match missed {
        _ if results.legend.iter().all(|told| results.bound(&told.name).is_none()) => {
            "\nno figure of this run is held to a budget".to_owned()
        }
        0 if results.legend.iter().any(|told| told.unjudged.is_some()) => "\nevery other budget is kept".to_owned(),
        0 => "\nevery budget is kept".to_owned(),
        1 => "\n1 budget is missed".to_owned(),
        _ => format!("\n{missed} budgets are missed"),
    });
}

/// Why there is no verdict where another run would get one: each reason once.
fn without_verdict(text: &mut String, legend: &[Legend]) {
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Legend { name, unjudged, .. } in legend {
        let Some(why) = unjudged else { continue };
        reasons.entry(why).or_default().push(name);
    }
    let lines = |(why, names): (&str, Vec<&str>)| wrapped(&format!("no verdict on {}: {why}", names.join(", ")), WIDTH);
    for (nth, line) in reasons.into_iter().flat_map(lines).enumerate() {
        let _ = writeln!(text, "{}{line}", if nth == 0 { "\n" } else { "" });
    }
}

/// Lines of so many characters at most, words being whole.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A number as its name's unit wants it.
fn number(name: &str, value: f64) -> String {
    let measured = ["_ns", "_us", "_ms", "_mb", "_per_second"].iter().any(|unit| name.ends_with(unit));
    if measured || value.fract() != 0.0 { significant(value) } else { format!("{value:.0}") }
}

/// Three digits that mean something.
pub(crate) fn significant(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::example;

    #[test]
    fn the_table_has_budget_and_verdict_of_each_figure() {
        let table = of(&example());
        let row = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(row("cold_sync_ms").contains("kept ") && row("change_p99_ms").contains("MISSED"), "{table}");
        assert!(row("kernel_elements").contains("265000"), "{table}");
        assert!(table.ends_with("\n1 budget is missed"), "{table}");
    }

    #[test]
    fn what_has_no_verdict_says_why_and_lines_fit_a_terminal() {
        let mut results = Results { command_line: "sheave-bench sync".into(), ..Results::begin("sync") };
        let long = "meaning ".repeat(30);
        for (figure, why) in [("a_ms", "for so many"), ("b_ms", "of such a mix"), ("c_ms", "for so many")] {
            results.add(figure, 1.0, &long);
            results.legend.last_mut().unwrap().unjudged = Some(format!("the budget is {why}"));
        }
        let table = of(&results);
        assert!(table.contains("\nno verdict on a_ms, c_ms: the budget is for so many\n"), "{table}");
        assert!(table.contains("\nno verdict on b_ms: the budget is of such a mix\n"), "{table}");
        assert!(table.ends_with("\nno figure of this run is held to a budget"), "{table}");
        // What the machine calls itself is as long as it is.
        assert!(table.lines().skip(3).all(|line| line.chars().count() <= WIDTH), "{table}");
        assert_eq!(table.matches("meaning").count(), 90, "{table}");
    }

    #[test]
    fn what_must_be_reached_is_marked_and_what_was_left_out_named() {
        let mut results = example();
        results.add("programmed_ratio", 14.0, "");
        results.floors.insert("programmed_ratio".into(), 15.0);
        results.left_out.push("a million".into());
        let table = of(&results);
        let row = table.lines().find(|line| line.starts_with("programmed_ratio")).unwrap();
        assert!(row.contains("≥ 15") && row.contains("MISSED"), "{table}");
        assert!(table.ends_with("\n2 budgets are missed\nleft out: a million"), "{table}");
    }

    #[test]
    fn an_interrupted_run_says_so() {
        let interrupted = Results { interrupted: true, ..Results::begin("sync") };
        assert!(of(&interrupted).ends_with("by then"));
    }

    #[test]
    fn three_digits_that_mean_something() {
        assert_eq!([0.012_34, 1.5, 42.0, 471.6].map(significant), ["0.012", "1.50", "42.0", "472"]);
    }
}
