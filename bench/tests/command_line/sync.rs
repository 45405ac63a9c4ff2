//! `sheave-bench sync` and `memory` from their command line: the shape of what they say, and how they refuse.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::stand_in::{bench, daemon, error_of};

fn result(subcommand: &str, arguments: &[&str]) -> Value {
    let output = bench(subcommand, arguments).args(["--output", "json"]).output().expect("running the bench");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_small_cluster_has_every_figure_and_the_commit_of_the_daemon() {
    let version = Command::new(daemon()).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let arguments = ["--services", "20", "--endpoints-per-service", "3", "--changes", "3", "--add-at", "30"];
    let results = result("sync", &arguments);
    for figure in
        ["cold_sync_ms", "start_to_programmed_ms", "peak_rss_mb", "change_p99_ms", "change_wire_p99_ms", "service_add_p99_ms"]
    {
        assert!(results[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {results:#}");
    }
    let commit = version.trim().split_once(", commit ").map(|(_, commit)| commit);
    assert_eq!(results["versions"]["commit"].as_str(), commit, "{version}");
}

#[test]
fn memory_is_measured_at_each_size() {
    daemon();
    let results = result("memory", &["--endpoints", "0,100", "--churn", "2"]);
    let rows = results["measurements"].as_array().unwrap();
    let churned: Vec<_> = rows.iter().map(|row| (row["at"]["endpoints"].as_u64(), row["values"]["churned"].as_f64())).collect();
    assert_eq!(churned, [(Some(0), Some(0.0)), (Some(100), Some(2.0))]);
    assert!(rows.iter().all(|row| row["values"]["rss_mb"].as_f64() > Some(0.0)), "{rows:?}");
}

#[test]
fn a_size_that_does_not_fit_is_left_out_and_the_others_are_measured() {
    daemon();
    let arguments = ["--endpoints", "4000000000,10", "--churn", "1", "--output", "json"];
    let output = bench("memory", &arguments).output().unwrap();
    let error = error_of(&output);
    assert!(error.contains("left out: 4000000000 endpoints are more than the 8000000 that"), "{error}");
    let results: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let sizes: Vec<_> = results["measurements"].as_array().unwrap().iter().map(|row| row["at"]["endpoints"].as_u64()).collect();
    assert_eq!((sizes, results["interrupted"].as_bool()), (vec![Some(10)], Some(false)));
}

#[test]
fn what_would_be_ignored_or_cannot_be_is_wrong_usage() {
    for bad in [
        "--matrix --time-limit 0",
        "--matrix --services 10",
        "--matrix --endpoints-per-service 10",
        "--matrix --add-at 10",
        "--time-limit 5",
    ] {
        let output = bench("sync", &bad.split(' ').collect::<Vec<_>>()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{bad}: {}", error_of(&output));
    }
}

/// The bench has a `/run` of its own.
#[test]
fn files_below_run_are_refused() {
    daemon();
    let output = bench("memory", &["--endpoints", "0", "--churn", "0"]).env("TMPDIR", "/run").output().unwrap();
    let error = error_of(&output);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("TMPDIR /run: it is below /run, which is empty where the bench runs"), "{error}");
}

#[test]
fn a_place_that_results_cannot_be_kept_in_is_told_before_anything_is_begun() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "").unwrap();
    for (bad, cause) in [("missing/x.json", "No such file"), ("missing/", "No such file"), ("file/x.json", "Not a directory")] {
        let save = format!("{}/{bad}", directory.path().display());
        let output = bench("sync", &["--services", "10", "--save", &save]).output().unwrap();
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(&save) && error.contains(cause) && error.lines().count() == 1, "{error}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_small_run_is_kept_beside_what_others_have_there_and_is_not_judged() {
    daemon();
    // The bench has a `/run` of its own, which goes with it; whoever may write to the real one finds the results there.
    let directory = tempfile::tempdir_in("/run").or_else(|_| tempfile::tempdir()).unwrap();
    let (others, kept) = (directory.path().join("x.unfinished"), directory.path().join("x.txt"));
    fs::write(&others, "somebody's").unwrap();
    let arguments = ["--endpoints", "10", "--churn", "0", "--save"];
    let output = bench("memory", &arguments).arg(&kept).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
    assert_eq!((&results["interrupted"], &results["budgets"]), (&Value::from(false), &serde_json::json!({})));
    assert_eq!(fs::read_to_string(&others).unwrap(), "somebody's");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing else is left");
}
