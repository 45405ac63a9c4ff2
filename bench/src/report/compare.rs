//! sheave beside a kube-proxy, or beside stock nft.

use std::collections::BTreeMap;

use crate::statistics::FOR_P99;

use super::number::{count, digits, with_unit};
use super::runs::{Run, Runs, size, word};
use super::section::{Cell, Exhibit, Section, Table};

/// Values, and how a reader calls them.
const FIGURES: [(&str, &str); 8] = [
    ("programmed_ms", "start to programmed"),
    ("start_cpu_ms", "processor time of the start"),
    ("change_p50_ms", "one endpoint changed, p50"),
    ("change_p99_ms", "one endpoint changed, p99"),
    ("change_cpu_ms", "processor time of one change"),
    ("peak_rss_mb", "memory, at most"),
    ("rss_mb", "memory at the end"),
    ("empty_program_ms", "an empty program, run likewise"),
];

/// One run: what was seen of sheave, and of the other.
struct Pair<'r> {
    run: &'r Run,
    cluster: Cluster<'r>,
    /// Of one endpoint, that each of them was timed at.
    changes: Option<f64>,
    /// First the one that the other is compared with.
    names: [&'r str; 2],
    values: [&'r BTreeMap<String, f64>; 2],
}

/// What both had to serve, and who served it to them.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cluster<'r> {
    services: Option<f64>,
    /// Endpoints of each of them.
    each: Option<f64>,
    api_server: Option<&'r str>,
}

impl<'r> Pair<'r> {
    /// `None` for a run that has not both.
    fn of(run: &'r Run) -> Option<Self> {
        let mut rows = run.measurements().filter_map(|row| Some((word(row, "contender")?, row)));
        let ((own, first), (other, second)) = rows.next().zip(rows.next())?;
        let cluster = Cluster {
            services: size(first, "services"),
            each: size(first, "endpoints_per_service"),
            api_server: word(first, "api_server"),
        };
        Some(Self { run, cluster, changes: size(first, "changes"), names: [own, other], values: [&first.values, &second.values] })
    }

    /// Whether the other says the same again, of another time.
    fn repeats(&self, other: &Self) -> bool {
        self.names == other.names && self.cluster == other.cluster
    }

    fn caption(&self) -> String {
        let ([own, other], Cluster { services, each, api_server }) = (self.names, self.cluster);
        let [services, each] = [services, each].map(|size| size.map(count).unwrap_or_default());
        let api_server = api_server.unwrap_or_default();
        format!("{own} beside {other}: {services} Services of {each} endpoints, API server: {api_server}")
    }

    fn table(&self) -> Table {
        let [own, other] = self.names;
        let mut table = Table::new(self.caption(), ["figure", own, other, "times as much"]);
        for (name, head) in FIGURES {
            let [own, other] = self.values.map(|values| values.get(name).copied());
            let too_few = name.contains("_p99_") && self.changes.is_none_or(|changes| changes < f64::from(FOR_P99));
            if too_few || own.or(other).is_none() {
                continue;
            }
            let cell = |value: Option<f64>| Cell::number(value.map(|value| with_unit(name, value)).unwrap_or_default());
            let times = own.zip(other).map(|(own, other)| other / own).filter(|times| times.is_finite());
            let times = Cell::number(times.map(digits).unwrap_or_default());
            table.rows.push(vec![Cell::words(head), cell(own), cell(other), times]);
        }
        table
    }
}

/// The newest run with each other, at each size and against each API server. `None` without a run of `compare`.
pub(super) fn section(runs: &Runs) -> Option<Section<'_>> {
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for pair in runs.of("compare").filter_map(Pair::of) {
        if !pairs.iter().any(|newer| newer.repeats(&pair)) {
            pairs.push(pair);
        }
    }
    if pairs.is_empty() {
        return None;
    }
    Some(Section {
        id: "compare",
        title: "Beside others",
        lead: "The same objects, each on a node of its own, seen from the kernel. `nft -f` loads the rules that sheave made: it starts no \
               daemon, asks no API server and decodes nothing, so it is what any daemon that writes its rules through nft takes at least."
            .to_owned(),
        exhibits: pairs.iter().map(|pair| Exhibit::Table(pair.table())).collect(),
        sources: pairs.iter().map(|pair| pair.run).collect(),
    })
}
