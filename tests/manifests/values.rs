//! The chart's values: each is explained, and the schema knows them all.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::chart::Chart;
use crate::manifests;

/// Values that are the user's own below this name, and not ours to list.
const FREE: [&str; 5] = ["config.kubeProxy", "config.sheave", "resources", "nodeSelector", "controller.resources"];

/// The names of all values, dotted; those that hold others included.
fn names(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if !FREE.contains(&&*name) {
            names(value, &name, found);
        }
        found.insert(name);
    }
}

/// The same names, from the schema.
fn schema_names(schema: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        schema_names(schema, &name, found);
        found.insert(name);
    }
}

#[test]
fn the_schema_knows_every_value() {
    let chart = Chart::open(&manifests("helm/sheave")).unwrap();
    let schema: Value = serde_json::from_str(&fs::read_to_string(manifests("helm/sheave/values.schema.json")).unwrap()).unwrap();
    let (mut values, mut known) = (BTreeSet::new(), BTreeSet::new());
    names(&chart.values, "", &mut values);
    schema_names(&schema, "", &mut known);
    // Helm hands it to every chart; we have no use for it.
    assert!(known.remove("global"));
    assert_eq!(values, known);
    // So that a mistyped name is told, and not ignored.
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn every_value_is_explained() {
    let text = fs::read_to_string(manifests("helm/sheave/values.yaml")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let depth = |line: &str| line.len() - line.trim_start().len();
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    // The depth of the value that the user's own ones stand below.
    let mut own: Option<usize> = None;
    for (place, line) in lines.iter().enumerate().filter(|(_, line)| !line.trim().is_empty() && !is_comment(line)) {
        if line.trim_start().starts_with('-') || own.is_some_and(|above| depth(line) > above) {
            continue;
        }
        let name = line.trim_start().split(':').next().unwrap_or_default();
        own = FREE.iter().any(|free| free.rsplit('.').next() == Some(name)).then(|| depth(line));
        // A name that only holds others may leave it to them.
        let holds_explained = lines.get(place + 1).is_some_and(|next| is_comment(next) && depth(next) > depth(line));
        assert!(is_comment(lines[place - 1]) || holds_explained, "no comment says what this is: {line}");
    }
}

#[test]
fn templates_use_only_values_that_exist() {
    let chart = Chart::open(&manifests("helm/sheave")).unwrap();
    for entry in fs::read_dir(manifests("helm/sheave/templates")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for used in text.split(".Values.").skip(1) {
            let name: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '.').collect();
            let known = name.split('.').try_fold(&chart.values, |value, part| value.get(part)).is_some();
            assert!(known || FREE.iter().any(|free| name.starts_with(free)), "{name} is not in values.yaml");
        }
    }
}
