//! `sheave-bench report` from its command line: what it refuses, and what it leaves alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::stand_in::bench;

fn committed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(name)
}

fn report(arguments: &[&Path]) -> Output {
    bench("report", &[]).args(arguments).output().expect("running the bench")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_report_is_never_written_over_what_it_is_made_of() {
    let directory = tempfile::tempdir().unwrap();
    let results = directory.path().join("m.json");
    fs::copy(committed("2026-11-21-memory.json"), &results).unwrap();
    let before = fs::read(&results).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&results, &link).unwrap();
    for (read, option, written) in [
        (results.as_path(), "--output", results.as_path()),
        (results.as_path(), "--markdown", link.as_path()),
        (directory.path(), "--output", results.as_path()),
    ] {
        let output = report(&[read, option.as_ref(), written]);
        let error = said(&output);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("would be written over a result") && error.contains("m.json"), "{error}");
        assert_eq!(fs::read(&results).unwrap(), before);
    }
}

#[test]
fn what_is_no_regular_file_is_refused_rather_than_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (fifo, page) = (directory.path().join("fifo"), directory.path().join("page.html"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let alone = report(&[&fifo, "--output".as_ref(), &page]);
    assert_eq!(alone.status.code(), Some(1), "{}", said(&alone));
    assert!(said(&alone).contains("no regular file") && !page.exists(), "{}", said(&alone));
    let beside = report(&[&fifo, &committed("2026-11-21-memory.json"), "--output".as_ref(), &page]);
    assert!(beside.status.success() && said(&beside).contains("no regular file"), "{}", said(&beside));
    let docs = report(&[&committed("2026-11-21-memory.json"), "--docs".as_ref(), &fifo]);
    assert!(!docs.status.success() && said(&docs).contains("no regular file"), "{}", said(&docs));
}

#[test]
fn a_file_that_says_what_cannot_be_is_named_with_its_field_and_the_others_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::copy(committed("2026-11-21-memory.json"), at("good.json")).unwrap();
    let good = fs::read_to_string(at("good.json")).unwrap();
    for (name, bad, field) in [
        ("negative.json", good.replacen("\"peak_rss_mb\": 53.74", "\"peak_rss_mb\": -1", 1), "peak_rss_mb"),
        ("nan.json", good.replacen("\"peak_rss_mb\": 53.74", "\"peak_rss_mb\": NaN", 1), "peak_rss_mb"),
        ("eternal.json", good.replacen("\"2026-11-21T", "\"zzzz-11-21T", 1), "started"),
        ("unknown.json", good.replacen("\"memory\"", "\"remember\"", 1), "benchmark"),
        ("missing.json", good.replacen("\"churned\"", "\"changed\"", 1), "measurements[0].values.churned"),
    ] {
        assert_ne!(bad, good, "{name}");
        fs::write(at(name), bad).unwrap();
        let output = report(&[directory.path(), "--markdown".as_ref(), &at("tables.md")]);
        let error = said(&output);
        let line = error.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {error}"));
        assert!(output.status.success() && line.contains(field), "{line}");
        assert!(fs::read_to_string(at("tables.md")).unwrap().contains("| good |"), "{name}");
    }
}

#[test]
fn required_budgets_are_not_kept_by_judging_none() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    for (results, judged) in [("2026-11-21-compare.json", false), ("2026-11-21-memory.json", true)] {
        let output = report(&[&committed(results), "--require-budgets".as_ref(), "--output".as_ref(), &page]);
        assert_eq!(output.status.code(), Some(if judged { 0 } else { 1 }), "{results}: {}", said(&output));
        assert_eq!(said(&output).contains("nothing was judged"), !judged, "{results}: {}", said(&output));
        assert!(page.is_file());
    }
}
