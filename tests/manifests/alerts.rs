//! The alert rules: about metrics that there are, with a page to turn to.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::{manifests, objects, repository};

fn rules() -> Vec<Value> {
    let object = objects(&manifests("kustomize/monitoring/prometheusrule.yaml")).unwrap().remove(0);
    let groups = object["spec"]["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

#[test]
fn every_alert_says_what_is_wrong_and_where_to_read_on() {
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let annotations = &rule["annotations"];
        assert!(annotations["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        let anchor = format!("docs/operations.md#{}", name.to_lowercase());
        assert!(annotations["runbook_url"].as_str().is_some_and(|url| url.ends_with(&anchor)), "{name}: no link to {anchor}");
        assert!(matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")), "{name}");
        assert!(rule["for"].is_string(), "{name}: a moment is no alert");
    }
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let mut alerts: Vec<_> = rules().iter().map(|rule| rule["alert"].as_str().unwrap().to_owned()).collect();
    let operations = read("docs/operations.md");
    let mut sections: Vec<_> =
        operations.lines().filter_map(|line| line.strip_prefix("### ")).filter(|title| title.starts_with("Sheave")).collect();
    alerts.sort();
    sections.sort_unstable();
    assert_eq!(alerts, sections);
}

#[test]
fn every_metric_in_a_rule_is_one_of_ours() {
    let metrics = read("docs/metrics.md");
    let documented: Vec<&str> = metrics.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    for rule in rules() {
        let expression = rule["expr"].as_str().unwrap();
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '"'));
        let names = words.filter(|word| word.starts_with("kubeproxy_") || word.starts_with("sheave_"));
        let mut count = 0;
        for name in names {
            // The parts of a histogram are documented as one.
            let histogram = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(documented.contains(&name) || documented.contains(&histogram), "{name} is not in docs/metrics.md");
            count += 1;
        }
        assert!(count > 0 || expression.contains("up{"), "{expression} is about nothing of ours");
    }
}

/// A loop that hangs writes no metric any more, so that what it wrote last differs by no more than before.
#[test]
fn what_the_loop_wrote_is_held_against_a_clock_of_others() {
    let rules = rules();
    let expressions = rules.iter().map(|rule| rule["expr"].as_str().unwrap());
    for expression in expressions.filter(|expression| expression.contains("_timestamp_seconds")) {
        assert!(expression.contains("time() - "), "{expression}");
    }
    let stuck = rules.iter().find(|rule| rule["alert"] == "SheaveSyncStuck").unwrap()["expr"].as_str().unwrap();
    assert!(stuck.contains("sheave_queue_length"), "a loop that takes nothing queues nothing: {stuck}");
}

#[test]
fn the_chart_has_the_same_rules() {
    let chart: Value = serde_saphyr::from_str(&read("manifests/helm/sheave/alerts.yaml")).unwrap();
    assert_eq!(chart["groups"][0]["rules"].as_array().unwrap(), &rules());
}

#[test]
fn what_operations_names_is_there() {
    let operations = read("docs/operations.md");
    let paths =
        operations.split(|c: char| c.is_whitespace() || "`(),;".contains(c)).filter(|word| word.starts_with("manifests/"));
    let missing: Vec<_> = paths.filter(|path| !repository().join(path.trim_end_matches('.')).exists()).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Every overlay has a line, and every line an overlay.
    for entry in fs::read_dir(manifests("kustomize/overlays")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(operations.contains(&format!("| `{name}` |")), "{name} is not in the table of overlays");
    }
}
