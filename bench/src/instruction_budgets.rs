//! `instruction-budgets BUDGETS`: what gungraun has counted, read from standard input, beside what was promised.
//!
//! Fails with the names of the benches above their budget, and where one of the two files has a bench that the other has not: a budget
//! that nobody measures keeps nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// The budget of one bench.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    /// Instructions, as measured when the budget was last set.
    instructions: u64,
    /// How far above it a count may be.
    margin_percent: u64,
    /// What the count is of, and what the margin is for.
    why: String,
}

/// By bench.
type Budgets = BTreeMap<String, Budget>;

/// Instructions by bench.
type Counts = BTreeMap<String, u64>;

fn main() -> ExitCode {
    match check() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "instruction-budgets: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check() -> Result<()> {
    let path = std::env::args_os().nth(1).context("usage: instruction-budgets BUDGETS < what gungraun says as JSON")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let budgets: Budgets = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let mut said = String::new();
    std::io::stdin().read_to_string(&mut said).context("reading the counts")?;
    let counts = counts(&said)?;
    let _ = std::io::stdout().write_all(table(&budgets, &counts).as_bytes());
    judge(&budgets, &counts)
}

/// One JSON document for each bench, one after the other.
fn counts(said: &str) -> Result<Counts> {
    let mut counts = Counts::new();
    for summary in serde_json::Deserializer::from_str(said).into_iter::<Value>() {
        let summary = summary.context("reading a count")?;
        let name = summary["function_name"].as_str().context("a count has no function_name")?;
        let count = instructions(&summary).with_context(|| format!("{name} has no count of instructions"))?;
        ensure!(counts.insert(name.to_owned(), count).is_none(), "{name} was counted twice");
    }
    Ok(counts)
}

/// Of this run, whatever gungraun remembers of the last one.
fn instructions(summary: &Value) -> Option<u64> {
    let profile = summary["profiles"].as_array()?.iter().find(|profile| profile["tool"] == "Callgrind")?;
    profile["data"]["total"]["metrics"]["Ir"]["values"]["new"].as_u64()
}

fn table(budgets: &Budgets, counts: &Counts) -> String {
    let mut text = format!("{:<18} {:>12} {:>12} {:>7} {:>8}  what\n", "bench", "measured", "budget", "margin", "used");
    for (name, budget) in budgets {
        let Budget { instructions, margin_percent, why } = budget;
        let measured = counts.get(name);
        let used = measured.map(|&count| format!("{:+.1} %", excess(count, *instructions))).unwrap_or_default();
        let measured = measured.map_or_else(|| "-".to_owned(), u64::to_string);
        text.push_str(&format!("{name:<18} {measured:>12} {instructions:>12} {margin_percent:>5} % {used:>8}  {why}\n"));
    }
    text
}

/// Percent above the budget; below it where negative. For people: what is judged is judged in whole numbers.
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn excess(count: u64, budget: u64) -> f64 {
    (count as f64 / budget as f64 - 1.0) * 100.0
}

fn judge(budgets: &Budgets, counts: &Counts) -> Result<()> {
    let names = |of: Vec<&String>| of.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let known: BTreeSet<&String> = budgets.keys().collect();
    let measured: BTreeSet<&String> = counts.keys().collect();
    if known != measured {
        bail!(
            "budgets and benches are not of the same names: {}",
            names(known.symmetric_difference(&measured).copied().collect())
        );
    }
    let missed = |(name, budget): &(&String, &Budget)| {
        let most = u128::from(budget.instructions) * u128::from(100 + budget.margin_percent) / 100;
        counts.get(*name).is_some_and(|&count| u128::from(count) > most)
    };
    let missed: Vec<&String> = budgets.iter().filter(missed).map(|(name, _)| name).collect();
    ensure!(missed.is_empty(), "above budget: {}", names(missed));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGETS: &str = "[encode]\ninstructions = 1000\nmargin_percent = 2\nwhy = 'w'\n";

    fn verdict(counts: &[(&str, u64)]) -> String {
        let budgets: Budgets = toml::from_str(BUDGETS).unwrap();
        let counts = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        judge(&budgets, &counts).map_or_else(|error| error.to_string(), |()| "kept".to_owned())
    }

    #[test]
    fn a_margin_is_kept_to_its_last_instruction() {
        assert_eq!(verdict(&[("encode", 1020)]), "kept");
        assert_eq!(verdict(&[("encode", 1021)]), "above budget: encode");
    }

    #[test]
    fn a_budget_without_a_bench_fails_and_a_bench_without_a_budget() {
        assert_eq!(verdict(&[]), "budgets and benches are not of the same names: encode");
        assert_eq!(verdict(&[("encode", 1), ("new", 1)]), "budgets and benches are not of the same names: new");
    }

    #[test]
    fn the_count_of_this_run_is_taken_and_not_that_of_the_last() {
        let said = |values: &str| {
            format!(
                r#"{{"function_name":"encode","profiles":[{{"tool":"Callgrind","data":{{"total":{{"metrics":{{"Ir":{{"values":{values}}}}}}}}}}}]}}"#
            )
        };
        for said in [said(r#"{"new":7}"#), said(r#"{"old":9,"new":7}"#)] {
            assert_eq!(counts(&said).unwrap(), Counts::from([("encode".to_owned(), 7)]));
        }
        assert!(counts(&said(r#"{"old":9}"#)).is_err() && counts("{}").is_err());
    }
}
