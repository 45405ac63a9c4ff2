//! What is believed of a file, and what is not.

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::results::Verdict;
use crate::results::tests::example;

/// A whole run that says all that a run says.
fn whole() -> Value {
    let mut results = example();
    for figure in SAID[0].figures.iter().filter(|figure| results.figure(figure).is_none()).collect::<Vec<_>>() {
        results.add(figure, if figure.contains("p50") { 1.0 } else { 7.0 }, "");
    }
    let place = |row: Measurement| row.at("plane", "nftables").at("mix", "plain").at("services", 5_000).at("endpoints", 250_000);
    results.measurements =
        results.measurements.into_iter().map(|row| place(row).value("p50_ms", 1.0).value("p99_ms", 2.0)).collect();
    serde_json::to_value(&results).unwrap()
}

fn read(text: &str) -> Result<Results> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("results.json");
    fs::write(&path, text).unwrap();
    Results::read(&path)
}

#[test]
fn what_is_saved_is_read_back_and_strange_fields_are_kept() {
    let mut later = whole();
    let as_it_was = serde_json::from_value(later.clone()).unwrap();
    assert_eq!(read(&later.to_string()).unwrap(), as_it_was);

    later["machine"]["sockets"] = json!(2);
    later["invented"] = json!({"later": true});
    let results = read(&later.to_string()).unwrap();
    assert_eq!((results.figure("change_p99_ms"), results.figure("invented")), (Some(3.001), None));
    assert_eq!(results.verdict("change_p99_ms"), Verdict::Missed);
    assert!(results.json().unwrap().contains("invented"));

    later["schema"] = json!(SCHEMA + 1);
    assert!(format!("{:#}", read(&later.to_string()).unwrap_err()).contains("schema"));
}

#[test]
fn what_no_run_can_say_is_refused_with_its_field() {
    let refused = |pointer: &str, value: Value, field: &str| {
        let mut file = whole();
        *file.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not there")) = value.clone();
        let error = format!("{:#}", read(&file.to_string()).expect_err(pointer));
        assert!(error.contains("results.json") && error.contains(field), "{pointer} = {value}: {error}");
    };
    refused("/cold_sync_ms", json!(0), "cold_sync_ms: 0 is what no run takes");
    refused("/change_p50_ms", json!(3.5), "change_p99_ms: 3.001 is below change_p50_ms, which is 3.5");
    refused("/services", json!(100.5), "services: 100.5 is no count");
    refused("/measurements/0/values/p50_ms", json!(2.5), "values: p99_ms: 2 is below p50_ms, which is 2.5");
    refused("/measurements/0/at/services", json!(0.5), "measurements[0]: at.services: 0.5 is no count");
    refused("/benchmark", json!("synk"), "benchmark: `synk`");
    refused("/started", json!("zzzz"), "started: `zzzz` is no time");
    refused("/started", json!("2026-13-01T00:00:00Z"), "started");
    refused("/machine", json!({}), "machine.cpus");
    refused("/load_before", json!(-1), "load_before: -1");
    refused("/cold_sync_ms", json!(-1), "cold_sync_ms: -1 is below nothing");
    refused("/cold_sync_ms", json!(1e308), "cold_sync_ms: 1e308");
    refused("/cold_sync_ms", json!("fast"), "cold_sync_ms: \"fast\" is no number");
    refused("/cold_sync_ms", Value::Null, "cold_sync_ms: null is no number");
    refused("/services", json!("many"), "services");
    refused("/budgets/cold_sync_ms", json!(-500), "budgets.cold_sync_ms");
    refused("/measurements/0/values/kernel_ms", json!(-377), "measurements[0]: values.kernel_ms");
    refused("/measurements/0/values/kernel_ms", json!("long"), "measurements[0].values.kernel_ms: invalid type");
    refused("/measurements/0/at/services", json!(-1), "measurements[0]: at.services");
    refused("/measurements/0/at/services", json!("many"), "at.services: \"many\" is no number");
    refused("/measurements/0", json!({"name": "x", "samples": {"latency_us": [1.0, -1.0]}}), "samples.latency_us");
    refused("/measurements", json!([]), "measurements: there are none");
    refused("/legend/0/name", json!("not_there"), "not_there: named, and not there");
    refused("/profile", json!("fast"), "profile");
}

#[test]
fn what_is_not_written_as_a_number_is_refused_with_its_field() {
    for (text, field) in [("NaN", "cold_sync_ms"), ("1e999", "cold_sync_ms"), ("-Infinity", "cold_sync_ms")] {
        let file = whole().to_string().replace("\"cold_sync_ms\":500,", &format!("\"cold_sync_ms\":{text},"));
        let error = format!("{:#}", read(&file).expect_err(text));
        assert!(error.contains("results.json") && error.contains(field), "{text}: {error}");
    }
}

#[test]
fn what_every_run_says_must_be_there() {
    let without = |parent: &str, name: &str| {
        let mut file = whole();
        file["legend"] = json!([]);
        file.pointer_mut(parent).and_then(Value::as_object_mut).unwrap().remove(name).expect(name);
        format!("{:#}", read(&file.to_string()).expect_err(name))
    };
    for name in ["schema", "benchmark", "command_line", "started", "machine", "versions", "profile", "interrupted"] {
        let error = without("", name);
        assert!(error.contains(&format!("missing field `{name}`")), "{error}");
    }
    for name in ["services", "peak_rss_mb"] {
        let error = without("", name);
        assert!(error.ends_with(&format!("{name}: missing")), "{error}");
    }
    for (parent, name) in [("at", "mix"), ("values", "p50_ms")] {
        let error = without(&format!("/measurements/0/{parent}"), name);
        assert!(error.ends_with(&format!("measurements[0].{parent}.{name}: missing")), "{error}");
    }
}

#[test]
fn of_a_run_that_was_cut_off_there_may_be_less_and_a_difference_may_be_below_nothing() {
    let mut cut = whole();
    cut["interrupted"] = json!(true);
    cut["measurements"] = json!([]);
    assert!(read(&cut.to_string()).unwrap().interrupted);

    let mut less = whole();
    less["measurements"][0]["values"]["kernel_memory_mb"] = json!(-15.5);
    less["measurements"][0]["values"]["p50_exponent"] = json!(-0.001);
    read(&less.to_string()).unwrap();
}

#[test]
fn what_has_no_end_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [fifo.as_path(), directory.path(), Path::new("/dev/zero")] {
        let error = format!("{:#}", Results::read(path).unwrap_err());
        assert!(error.contains(&path.display().to_string()) && error.contains("no regular file"), "{error}");
    }
    assert!(read(&(whole().to_string() + "more")).unwrap_err().to_string().contains("more than results"));
}
