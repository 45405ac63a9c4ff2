//! Measurements as tables that fit a terminal, with columns in the order in which people ask.

use std::fmt::Write as _;

use serde_json::Value;

use super::{WIDTH, number};
use crate::results::Measurement;

/// Where something was measured.
const AT: &[&str] =
    &["plane", "mix", "sweep", "growth", "subject", "rules", "contender", "services", "endpoints_per_service", "endpoints"];
/// What was asked: times, their stages as they follow each other, rates, memory.
const ANSWERS: &[&str] = &[
    "p50_ms",
    "p99_ms",
    "decode_ms",
    "index_ms",
    "policy_ms",
    "diff_ms",
    "publish_ms",
    "encode_ms",
    "kernel_ms",
    "p50_us",
    "p99_us",
    "p50_to_straight",
    "per_second",
    "rate_to_straight",
    "lost",
    "programmed_ms",
    "start_cpu_ms",
    "change_p50_ms",
    "change_p99_ms",
    "change_cpu_ms",
    "rss_mb",
    "rss_after_churn_mb",
    "peak_rss_mb",
    "p50_exponent",
    "cpu_exponent",
    "kernel_exponent",
];
/// And what it took besides. What has no place in either list comes last.
const BESIDES: &[&str] = &[
    "times",
    "cpu_ms",
    "allocations",
    "allocated_mb",
    "transactions",
    "elements",
    "sent_bytes",
    "churned",
    "kernel_elements",
    "rss_per_endpoint_bytes",
    "kernel_memory_mb",
    "kernel_per_endpoint_bytes",
    "p50_to_straight_iqr",
    "rate_to_straight_iqr",
    "p50_to_bare",
    "p50_to_bare_iqr",
];
/// Units that are said once where a whole table has them.
const UNITS: [(&str, &str); 4] = [("_ms", "milliseconds"), ("_us", "microseconds"), ("_mb", "MB"), ("_exponent", "exponents")];
/// Between two columns.
const GAP: usize = 2;

/// Measurements made in the same space of questions, and the columns that say where in it.
struct Block<'m> {
    rows: &'m [Measurement],
    /// The same for all of them, the name among it: said once, above.
    same: Vec<String>,
    /// Whether the name is a column, too.
    named: bool,
    differing: Vec<&'m str>,
}

/// Measurements that follow each other and were made in the same space of questions are one table, or several of the same rows if it
/// would be too wide.
pub(super) fn write(text: &mut String, measurements: &[Measurement]) {
    for block in measurements.chunk_by(|one, next| one.at.keys().eq(next.at.keys())) {
        // Names that have several rows each stand above them.
        let by_name = || block.chunk_by(|one, next| one.name == next.name);
        let tables: Vec<&[Measurement]> = if by_name().all(|rows| rows.len() > 1) { by_name().collect() } else { vec![block] };
        for block in tables.into_iter().map(Block::of) {
            let mut above = block.same.clone();
            for columns in block.tables() {
                let unit = unit(&columns);
                above.extend(unit.map(|(_, said)| format!("in {said}")));
                text.push('\n');
                if !above.is_empty() {
                    let _ = writeln!(text, "{}", above.join(", "));
                }
                block.align(text, &block.cells(&columns, unit));
                above.clear();
            }
        }
    }
}

impl<'m> Block<'m> {
    fn of(rows: &'m [Measurement]) -> Self {
        let first = rows.first();
        let mut names: Vec<&str> = first.into_iter().flat_map(|row| row.at.keys()).map(String::as_str).collect();
        names.sort_by_key(|name| place(AT, name));
        let at = |name: &str| first.and_then(|row| row.at.get(name));
        let (same, differing): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| rows.iter().all(|row| row.at.get(*name) == at(name)));
        let name =
            first.filter(|first| rows.len() > 1 && rows.iter().all(|row| row.name == first.name)).map(|first| first.name.clone());
        let named = name.is_none();
        let same = same.into_iter().filter_map(|name| Some(format!("{name} {}", plain(at(name)?))));
        Self { rows, same: name.into_iter().chain(same).collect(), named, differing }
    }

    /// Columns before the values.
    fn leading(&self) -> usize {
        usize::from(self.named) + self.differing.len()
    }

    /// The columns of each table: all in one if they fit, or else answers first.
    fn tables(&self) -> Vec<Vec<&'m str>> {
        let mut names: Vec<&str> = self.rows.iter().flat_map(|row| row.values.keys()).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        let (mut answers, mut besides): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| ANSWERS.contains(name));
        answers.sort_by_key(|name| place(ANSWERS, name));
        besides.sort_by_key(|name| place(BESIDES, name));
        let all = [answers.as_slice(), besides.as_slice()].concat();
        if self.width(&all) <= WIDTH {
            return vec![all];
        }
        [answers, besides].into_iter().filter(|columns| !columns.is_empty()).flat_map(|columns| self.split(columns)).collect()
    }

    /// As few tables as these columns need, one column in each at the least.
    fn split(&self, columns: Vec<&'m str>) -> Vec<Vec<&'m str>> {
        let mut tables: Vec<Vec<&str>> = vec![Vec::new()];
        for name in columns {
            match tables.last_mut() {
                Some(table) if table.is_empty() || self.width(&[table.as_slice(), &[name]].concat()) <= WIDTH => table.push(name),
                _ => tables.push(vec![name]),
            }
        }
        tables
    }

    fn width(&self, columns: &[&str]) -> usize {
        let widths = widths(&self.cells(columns, unit(columns)));
        widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1)
    }

    /// With a head; without the rows that have none of these values.
    fn cells(&self, columns: &[&str], unit: Option<(&str, &str)>) -> Vec<Vec<String>> {
        let short = |name: &&str| name.strip_suffix(unit.map_or("", |(ending, _)| ending)).unwrap_or(name).to_owned();
        let head = self.named.then(|| "what".to_owned()).into_iter().chain(self.differing.iter().map(|name| (*name).to_owned()));
        let mut cells: Vec<Vec<String>> = vec![head.chain(columns.iter().map(short)).collect()];
        for row in self.rows.iter().filter(|row| columns.iter().any(|name| row.values.contains_key(*name))) {
            let at = self.differing.iter().map(|name| row.at.get(*name).map(plain).unwrap_or_default());
            let values = columns.iter().map(|name| row.values.get(*name).map(|value| number(name, *value)).unwrap_or_default());
            cells.push(self.named.then(|| row.name.clone()).into_iter().chain(at).chain(values).collect());
        }
        cells
    }

    /// Words to the left, numbers to the right.
    fn align(&self, text: &mut String, rows: &[Vec<String>]) {
        let widths = widths(rows);
        let number = |cell: &String| cell.parse::<f64>().is_ok();
        let words = |column: usize| column < self.leading() && !rows.iter().skip(1).any(|row| number(&row[column]));
        let left: Vec<bool> = (0..widths.len()).map(words).collect();
        for row in rows {
            let cells = row.iter().zip(widths.iter().zip(&left));
            let cells =
                cells.map(|(cell, (width, left))| if *left { format!("{cell:<width$}") } else { format!("{cell:>width$}") });
            let line = cells.collect::<Vec<_>>().join(&" ".repeat(GAP));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
}

/// What all of them are in, if there are several.
fn unit(columns: &[&str]) -> Option<(&'static str, &'static str)> {
    UNITS.into_iter().find(|(ending, _)| columns.len() > 1 && columns.iter().all(|name| name.ends_with(ending)))
}

fn place(order: &[&str], name: &str) -> usize {
    order.iter().position(|other| *other == name).unwrap_or(order.len())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(measurements: &[Measurement]) -> String {
        let mut text = String::new();
        write(&mut text, measurements);
        text
    }

    #[test]
    fn what_is_the_same_is_said_once_and_words_stand_to_the_left() {
        let cold = |name: &str, services: u32| {
            Measurement::new(name).at("plane", "nftables").at("services", services).value("kernel_ms", f64::from(services))
        };
        let text = written(&[cold("cold sync", 10), cold("removed", 50_000)]);
        assert_eq!(
            text,
            "\nplane nftables\nwhat       services  kernel_ms\ncold sync        10       10.0\nremoved       50000      50000\n"
        );
        let text = written(&[cold("cold sync", 10), cold("cold sync", 50_000)]);
        assert_eq!(text, "\ncold sync, plane nftables\nservices  kernel_ms\n      10       10.0\n   50000      50000\n");
    }

    #[test]
    fn names_with_several_rows_each_have_tables_of_their_own() {
        let packet = |name: &str, subject: &str| Measurement::new(name).at("subject", subject).value("p50_us", 17.0);
        let text = written(&[
            packet("first", "a pod"),
            packet("first", "the node"),
            packet("later", "a pod"),
            packet("later", "the node"),
        ]);
        let table = |name: &str| format!("\n{name}\nsubject   p50_us\na pod       17.0\nthe node    17.0\n");
        assert_eq!(text, table("first") + &table("later"));
    }

    /// Every name that an operation has, in no order.
    fn operation(name: &str) -> Measurement {
        let row =
            Measurement::new(name).at("mix", "plain").at("plane", "nftables").at("services", 20_000).at("endpoints", 1_000_000);
        let names = ANSWERS[..9].iter().chain(&BESIDES[..7]);
        names.rev().fold(row, |row, name| row.value(name, 1_234.5))
    }

    #[test]
    fn what_is_too_wide_is_told_in_several_tables_of_the_same_rows_and_the_answer_first() {
        let rows = [operation("cold sync").value("kernel_memory_mb", -15.5), operation("rolling update, a step")];
        let text = written(&rows);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        let first = text.lines().nth(2).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(first, ["what", "p50", "p99", "decode", "index", "policy", "diff", "publish", "encode", "kernel"], "{text}");
        assert!(text.starts_with("\nplane nftables, mix plain, services 20000, endpoints 1000000, in milliseconds\n"), "{text}");
        let second = text.lines().filter(|line| line.starts_with("what")).nth(1).unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(second[1..5], ["times", "cpu_ms", "allocations", "allocated_mb"], "{text}");
        assert_eq!(text.matches("rolling update, a step").count(), 2, "{text}");
        assert_eq!(text.matches("-15.5").count(), 1, "and what one of them has not is left blank: {text}");
    }

    #[test]
    fn names_without_a_place_come_last_and_are_told_however_wide() {
        let row = Measurement::new("x").value("zeta", 1.0).value("a".repeat(200).as_str(), 2.0).value("p50_ms", 3.0);
        let text = written(&[row]);
        assert!(text.find("p50_ms") < text.find("aaa") && text.find("aaa") < text.find("zeta"), "{text}");
    }
}
