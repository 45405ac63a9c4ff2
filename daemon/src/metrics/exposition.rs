//! The Prometheus text format 0.0.4, as kube-proxy speaks it.
//!
//! The library encodes OpenMetrics, which calls a counter's family by its name without `_total`, writes every bound with a decimal
//! point and ends with `# EOF`. A scraper that asked for 0.0.4 would take all of that for other metrics.

use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

/// `Content-Type` of [`text`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Everything in the registry.
pub(super) fn text(registry: &Registry) -> String {
    let mut open_metrics = String::new();
    // Writing into a string does not fail, and neither does any of our metrics.
    let _ = text::encode_registry(&mut open_metrics, registry);
    translated(&open_metrics)
}

fn translated(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    // The help comes before the type, and only the type says whether the name needs its suffix.
    let mut help: Option<(&str, &str)> = None;
    for line in open_metrics.lines() {
        if let Some((name, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = Some((name, words));
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, words)) = help.take().filter(|(named, _)| *named == name) {
                out.extend(["# HELP ", name, suffix, " ", words, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.push_str(&sample(line));
            out.push('\n');
        }
    }
    out
}

/// Numbers as Go prints them: `le="1"`, and a value without `.0`.
fn sample(line: &str) -> String {
    let line = line.strip_suffix(".0").unwrap_or(line);
    if let Some((name, value)) = line.split_once("{} ") {
        // A family without labels.
        return format!("{name} {value}");
    }
    match line.split_once("le=\"").and_then(|(before, rest)| Some((before, rest.split_once('"')?))) {
        Some((before, (bound, after))) if before.contains("_bucket{") => {
            format!("{before}le=\"{}\"{after}", bound.strip_suffix(".0").unwrap_or(bound))
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram;

    use super::*;
    use crate::metrics::book::Labels;

    #[test]
    fn counters_gauges_and_histograms_read_as_a_go_program_writes_them() {
        let mut registry = Registry::default();
        let counter: Family<Labels<1>, Counter> = Family::default();
        counter.get_or_create(&[("code", "200".to_owned())]).inc_by(3);
        registry.register("asked", "Questions", counter);
        // A gauge that is called like a counter, as kube-proxy has one.
        let gauge: Gauge = Gauge::default();
        gauge.set(7);
        registry.register("missing_total", "Not there", gauge);
        let histogram: Family<Labels<1>, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new([0.5, 1.0]));
        histogram.get_or_create(&[("ip_family", "IPv4".to_owned())]).observe(2.0);
        registry.register("took_seconds", "Time", histogram);
        let expected = r#"# HELP asked_total Questions.
# TYPE asked_total counter
asked_total{code="200"} 3
# HELP missing_total Not there.
# TYPE missing_total gauge
missing_total 7
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_sum{ip_family="IPv4"} 2
took_seconds_count{ip_family="IPv4"} 1
took_seconds_bucket{le="0.5",ip_family="IPv4"} 0
took_seconds_bucket{le="1",ip_family="IPv4"} 0
took_seconds_bucket{le="+Inf",ip_family="IPv4"} 1
"#;
        assert_eq!(text(&registry), expected);
    }
}
