//! What the report says of good, bad and hostile files, and that the documentation says the same.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn committed() -> Runs {
    Runs::read(&[repository().join("bench/results")]).unwrap()
}

/// A saved run of `sync` at the size that budgets are for.
fn sync() -> Value {
    let stages = json!({"p50_ms": 400.0, "p99_ms": 410.0, "decode_ms": 100.0, "kernel_ms": 300.0, "elements": 1_000.0});
    json!({
        "schema": 1, "benchmark": "sync", "command_line": "sheave-bench sync", "started": "2026-01-01T00:00:00Z",
        "machine": {"cpus": 2, "model": "a model", "memory_mb": 1_000, "kernel": "6.1"}, "versions": {"sheave": "0.1.0"},
        "profile": "release", "load_before": 0.5, "load_after": 1.5, "interrupted": false,
        "cold_sync_ms": 250, "start_to_programmed_ms": 600, "change_p50_ms": 0.1, "change_p99_ms": 3.5, "service_add_p99_ms": 0.2,
        "peak_rss_mb": 50, "services": 5_000, "endpoints_per_service": 50, "changes": 200, "add_at": 50_000,
        "measurements": [{
            "name": "cold sync",
            "at": {"plane": "nftables", "services": 5_000, "endpoints": 250_000, "mix": "plain"},
            "values": stages
        }]
    })
}

fn runs(files: &[Value]) -> Runs {
    let directory = tempfile::tempdir().unwrap();
    for (place, file) in files.iter().enumerate() {
        fs::write(directory.path().join(format!("{place}.json")), file.to_string()).unwrap();
    }
    Runs::read(&[directory.path().to_owned()]).unwrap()
}

#[test]
fn the_documents_say_what_the_committed_results_say() {
    let runs = committed();
    assert_eq!(runs.skipped, Vec::<String>::new());
    for name in ["README.md", "docs/performance.md"] {
        let document = fs::read_to_string(repository().join(name)).unwrap();
        let renewed = blocks::renew(&document, &sections(&runs)).unwrap();
        assert!(document == renewed, "{name} says something else than bench/results: `make bench-docs` writes it anew");
    }
}

/// Numbers that these documents may name in their own words: how something is measured, or what has to be there for it.
const DEFINITIONS: [&str; 9] = ["2 GB", "1 ms", "3 ms", "1.5 s", "70 %", "20 %", "10 %", "5 %", "1 %"];
const UNITS: [&str; 9] = ["ns", "us", "µs", "ms", "s", "KB", "MB", "GB", "%"];

#[test]
fn no_measured_number_is_written_by_hand() {
    for name in ["README.md", "docs/performance.md"] {
        let document = fs::read_to_string(repository().join(name)).unwrap();
        let prose = blocks::prose(&document);
        let words: Vec<&str> =
            prose.split_whitespace().map(|word| word.trim_matches(['(', ')', ',', '.', ';', ':', '`', '|'])).collect();
        let measured =
            words.windows(2).filter(|pair| pair[0].starts_with(|first: char| first.is_ascii_digit()) && UNITS.contains(&pair[1]));
        let unknown: Vec<String> =
            measured.map(|pair| pair.join(" ")).filter(|said| !DEFINITIONS.contains(&said.as_str())).collect();
        assert!(unknown.is_empty(), "{name} names {unknown:?} outside of its results: no committed file stands behind that");
    }
}

#[test]
fn a_promise_is_answered_by_a_run_of_its_size_and_by_no_other() {
    let mut small = sync();
    small["services"] = json!(50);
    small["started"] = json!("2026-01-02T00:00:00Z");
    small["cold_sync_ms"] = json!(1);
    let text = markdown::of(&sections(&runs(&[sync(), small])));
    assert!(text.contains("| cold sync, 5,000 Services × 50 endpoints | 250 ms | ≤ 500 ms | 50 % | kept | 0 |"), "{text}");
    assert!(text.contains("| one endpoint changed, p99 | 3.50 ms | ≤ 3 ms | 117 % | MISSED | 0 |"), "{text}");
    let other = "not judged: 50 Services × 50 endpoints | 1 |";
    assert!(text.contains(&format!("| cold sync, 1,000,000 endpoints |  | ≤ 3,000 ms |  | {other}")), "{text}");
    assert!(text.contains("| first packet, most Services to fewest |  | ≤ 1.05 |  | not measured |  |"), "{text}");
    assert!(text.contains("5 of 6 budgets that could be judged are kept, 1 missed; 16 could not"), "{text}");
}

/// The verdict on the promise, and the run that it names.
fn verdict(run: &Value, promise: &str) -> String {
    let text = markdown::of(&sections(&runs(std::slice::from_ref(run))));
    let row =
        text.lines().find(|line| line.starts_with(&format!("| {promise} |"))).unwrap_or_else(|| panic!("{promise}: {text}"));
    row.split(" | ").skip(4).collect::<Vec<_>>().join(", ").trim_end_matches(" |").to_owned()
}

#[test]
fn a_run_of_another_shape_is_shown_with_the_reason_and_not_judged() {
    let with = |changed: &[(&str, Value)]| {
        let mut run = sync();
        for (pointer, value) in changed {
            *run.pointer_mut(pointer).unwrap() = value.clone();
        }
        run
    };
    let (p99, added) = ("one endpoint changed, p99", "one Service added at 50,000, p99");
    assert_eq!(verdict(&with(&[]), p99), "MISSED, 0");
    assert_eq!(verdict(&with(&[("/changes", json!(1))]), p99), "not judged: changes: 1 of at least 100, 0");
    assert_eq!(verdict(&with(&[("/changes", json!(1))]), "cold sync, 5,000 Services × 50 endpoints"), "kept, 0");
    let small = with(&[("/services", json!(5)), ("/endpoints_per_service", json!(2))]);
    assert_eq!(verdict(&small, p99), "not judged: 5 Services × 2 endpoints, 0");
    assert_eq!(verdict(&with(&[("/add_at", json!(50))]), added), "not judged: added at 50, 0");
    assert_eq!(verdict(&with(&[("/measurements/0/at/plane", json!("ebpf"))]), p99), "not judged: plane ebpf, 0");
    assert_eq!(verdict(&with(&[("/measurements/0/at/mix", json!("realistic"))]), p99), "not judged: realistic mix, 0");
}

#[test]
fn memory_is_judged_after_churn() {
    let memory = |endpoints: u32, churned: u32| {
        let mut run = sync();
        run["benchmark"] = json!("memory");
        run["million_peak_rss_mb"] = json!(500);
        let values = json!({"rss_mb": 40.0, "peak_rss_mb": 50.0, "churned": churned, "kernel_memory_mb": -1.5});
        run["measurements"] = json!([{"name": "memory", "at": {"endpoints": endpoints}, "values": values}]);
        run
    };
    let (quarter, million) = ("memory at 250,000 endpoints, after churn", "memory at 1,000,000 endpoints, after churn");
    assert_eq!(verdict(&memory(250_000, 0), quarter), "not judged: changes: 0 of at least 3,000, 0");
    assert_eq!(verdict(&memory(250_000, 3_000), quarter), "kept, 0");
    assert_eq!(verdict(&memory(250_000, 3_000), million), "not judged: not at 1,000,000 endpoints, 0");
    assert_eq!(verdict(&memory(1_000_000, 3_000), million), "MISSED, 0");
}

/// A saved run of `packets` between these numbers of Services.
fn packets(services: [u32; 2], rounds: u32) -> Value {
    let mut run = sync();
    run["benchmark"] = json!("packets");
    run["rounds"] = json!(rounds);
    run["first_packet_growth"] = json!(1.0);
    let row = |services: u32| {
        let at = json!({"rules": "sheave nftables", "subject": "ClusterIP from a pod", "services": services});
        let values =
            json!({"p50_us": 17.0, "p50_to_straight": 1.07, "per_second": 20_500.0, "rate_to_straight": 0.9, "lost": 0.0});
        json!({"name": "udp_first", "at": at, "values": values})
    };
    run["measurements"] = services.map(row).as_slice().into();
    run
}

#[test]
fn a_first_packet_is_judged_from_few_services_to_many() {
    let promise = "first packet, most Services to fewest";
    assert_eq!(verdict(&packets([10, 50], 5), promise), "not judged: 10 to 50 Services, not 10 to 30,000, 0");
    assert_eq!(verdict(&packets([10, 30_000], 1), promise), "not judged: rounds: 1 of at least 5, 0");
    assert_eq!(verdict(&packets([10, 30_000], 5), promise), "kept, 0");
}

#[test]
fn a_percentile_of_too_few_is_left_blank_and_what_it_took_stands_below() {
    let mut run = sync();
    let mut often = run["measurements"][0].clone();
    often["name"] = json!("one endpoint changed");
    often["values"]["times"] = json!(100);
    often["values"]["allocations"] = json!(61.8);
    often["values"]["cpu_ms"] = json!(0.0412);
    run["measurements"].as_array_mut().unwrap().push(often);
    let text = markdown::of(&sections(&runs(&[run])));
    assert!(
        text.contains("| cold sync | 400 |  | 100 |") && text.contains("| one endpoint changed | 400 | 410 | 100 |"),
        "{text}"
    );
    assert!(text.contains("| one endpoint changed | 100 | 0.041 | 62 |"), "{text}");
}

#[test]
fn rates_stand_beside_latencies() {
    let text = markdown::of(&sections(&runs(&[packets([10, 30_000], 5)])));
    let table = text.split("Questions and connections per second, 30,000 Services").nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(table.contains("| ClusterIP from a pod | 20,500 (0.90) |"), "{text}");
}

#[test]
fn missed_budgets_are_named_and_fail_where_they_are_required() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept.json");
    fs::write(&kept, sync().to_string()).unwrap();
    let arguments = |require_budgets| Arguments {
        results: vec![kept.clone()],
        output: Some(directory.path().join("page.html")),
        markdown: None,
        docs: Vec::new(),
        require_budgets,
    };
    write(&arguments(false)).unwrap();
    fs::remove_file(directory.path().join("page.html")).unwrap();
    assert_eq!(write(&arguments(true)).unwrap_err().to_string(), "budgets missed: 1");
    assert!(directory.path().join("page.html").is_file(), "the page is for the one who asks why");
    let named = ["one endpoint changed, p99: 3.50 ms where ≤ 3 ms was promised (0.json)"];
    assert_eq!(promises::missed(&runs(&[sync()])), named);
    let mut good = sync();
    good["change_p99_ms"] = json!(0.2);
    assert!(promises::missed(&runs(&[good])).is_empty());

    let mut small = sync();
    small["services"] = json!(5);
    fs::write(&kept, small.to_string()).unwrap();
    let nothing = write(&arguments(true)).unwrap_err().to_string();
    assert!(nothing.contains("nothing was judged"), "{nothing}");
    write(&arguments(false)).unwrap();
}

/// A saved run of `compare`.
fn compare(other: &str) -> Value {
    let row = |contender: &str, values: Value| {
        let at = json!({
            "contender": contender, "services": 5_000, "endpoints_per_service": 50, "changes": 20, "api_server": "double"
        });
        json!({"name": "start and changes", "at": at, "values": values})
    };
    let mut run = sync();
    run["benchmark"] = json!("compare");
    run["measurements"] = json!([
        row("sheave nftables", json!({"programmed_ms": 500.0, "change_p50_ms": 0.0, "rss_mb": 50.0})),
        row(other, json!({"programmed_ms": 9_000.0, "change_p50_ms": 5_000.0}))
    ]);
    run
}

#[test]
fn a_comparison_says_how_many_times_as_much_the_other_takes() {
    let mut alone = compare("nobody");
    alone["measurements"].as_array_mut().unwrap().truncate(1);
    let runs = runs(&[compare("nft -f"), compare("kube-proxy v1.36.2 nftables"), compare("nft -f"), alone]);
    let text = markdown::of(&sections(&runs));
    assert_eq!(text.matches("| start to programmed | 500 ms | 9,000 ms | 18.0 |").count(), 2, "one for each other: {text}");
    assert!(text.contains("| one endpoint changed, p50 | 0 ms | 5,000 ms |  |"), "nothing is no divisor: {text}");
    assert!(text.contains("| memory at the end | 50.0 MB |  |  |") && !text.contains("nobody"), "{text}");
    assert!(text.contains("sheave nftables beside nft -f: 5,000 Services of 50 endpoints, API server: double"), "{text}");
}

#[test]
fn a_comparison_of_another_size_or_api_server_stands_beside_the_one_before() {
    let told = |at: &str, value: Value| {
        let mut later = compare("nft -f");
        later["started"] = json!("2026-01-02T00:00:00Z");
        for row in 0..2 {
            later["measurements"][row]["at"][at] = value.clone();
        }
        markdown::of(&sections(&runs(&[compare("nft -f"), later]))).matches("sheave nftables beside nft -f").count()
    };
    assert_eq!(told("services", json!(10)), 2);
    assert_eq!(told("endpoints_per_service", json!(3)), 2);
    assert_eq!(told("api_server", json!("kube-apiserver v1.36.2")), 2);
    assert_eq!(told("services", json!(5_000)), 1, "the same again");
}

#[test]
fn kube_proxy_is_to_take_so_many_times_as_much_at_least() {
    let run = |other: &str, programmed: f64, change: f64| {
        let mut run = compare(other);
        run["programmed_ratio"] = json!(programmed);
        run["change_p50_ratio"] = json!(change);
        run
    };
    let text = |run: Value| markdown::of(&sections(&runs(&[sync(), run])));
    let kept = text(run("kube-proxy v1.36.2 nftables", 30.0, 999.0));
    assert!(kept.contains("| start to programmed, times as fast as kube-proxy | 30.0 × | ≥ 15 × | 50 % | kept | 1 |"), "{kept}");
    let what = "one endpoint changed, times as fast as kube-proxy";
    assert!(kept.contains(&format!("| {what} | 999 × | ≥ 1,000 × | 100 % | MISSED | 1 |")), "{kept}");

    let missed = promises::missed(&runs(&[run("kube-proxy v1.36.2 nftables", 15.0, 2.0)]));
    assert_eq!(missed, [format!("{what}: 2.00 × where ≥ 1,000 × was promised (0.json)")]);

    let mut small = run("kube-proxy v1.36.2 nftables", 30.0, 2_000.0);
    small["measurements"][0]["at"]["services"] = json!(10);
    assert_eq!(verdict(&run("nft -f", 30.0, 2_000.0), what), "not judged: sheave nftables beside nft -f, 0");
    for nothing in [run("nft -f", 30.0, 2_000.0), small] {
        assert!(text(nothing).contains("| start to programmed, times as fast as kube-proxy |  | ≥ 15 × |  | not judged: "));
    }
    let iptables = run("kube-proxy v1.36.2 iptables", 30.0, 2_000.0);
    assert_eq!(verdict(&iptables, what), "not judged: sheave nftables beside kube-proxy v1.36.2 iptables, 0");
    let mut few = run("kube-proxy v1.36.2 nftables", 30.0, 2_000.0);
    few["measurements"][0]["at"]["changes"] = json!(9);
    assert_eq!(verdict(&few, what), "not judged: changes: 9 of at least 10, 0");
    assert!(text(run("kube-proxy v1.36.2 nftables", 0.0, 0.0)).contains("MISSED"), "nothing is no divisor");
}

#[test]
fn a_first_packet_is_compared_with_the_nftables_mode_alone() {
    let text = |rules: &str, ratio: f64| {
        let mut run = packets([10, 30_000], 5);
        run["first_packet_to_kube_proxy"] = json!(ratio);
        run["first_packet_to_kube_proxy_rounds"] = json!(5);
        run["measurements"][0]["at"]["rules"] = json!(rules);
        markdown::of(&sections(&runs(&[sync(), run])))
    };
    let row = |rest: &str| format!("| first packet beside kube-proxy's nftables mode | {rest}");
    assert!(text("kube-proxy v1.36.2 nftables", 1.04).contains(&row("1.04 | ≤ 1.05 | 99 % | kept | 1 |")));
    assert!(text("kube-proxy v1.36.2 nftables", 1.1).contains(&row("1.10 | ≤ 1.05 | 105 % | MISSED | 1 |")));
    for other in ["kube-proxy v1.36.2 iptables", "sheave nftables"] {
        let open = " | ≤ 1.05 |  | not judged: not beside kube-proxy's nftables mode | 1 |";
        assert!(text(other, 1.0).contains(&row(open)), "{other}");
    }
}

#[test]
fn the_newest_run_speaks() {
    let mut later = sync();
    later["started"] = json!("2026-01-02T00:00:00Z");
    later["cold_sync_ms"] = json!(300);
    let text = markdown::of(&sections(&runs(&[later, sync()])));
    assert!(text.contains("| 300 ms | ≤ 500 ms |") && !text.contains("| 250 ms |"), "{text}");
}

#[test]
fn what_is_broken_foreign_cut_off_or_for_trying_out_is_named_and_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let keep = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let with = |name: &str, value: Value| {
        let mut file = sync();
        file[name] = value;
        file.to_string()
    };
    keep("good.json", &sync().to_string());
    keep("broken.json", "{\"schema\": 1,");
    keep("foreign.json", "[\"<script>\"]");
    keep("later.json", &with("schema", json!(99)));
    keep("cut.json", &with("interrupted", json!(true)));
    keep("trial.json", &with("profile", json!("debug")));
    keep("negative.json", &with("cold_sync_ms", json!(-1)));
    keep("eternal.json", &with("started", json!("zzzz")));
    keep("unknown.json", &with("benchmark", json!("synk")));
    nix::unistd::mkfifo(&directory.path().join("fifo.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    keep("note.txt", "no result");
    let runs = Runs::read(&[directory.path().to_owned(), directory.path().join("missing.json")]).unwrap();
    let bad = ["broken", "foreign", "later", "cut", "trial", "missing", "negative", "eternal", "unknown", "fifo"];
    for name in bad.map(|name| format!("{name}.json")) {
        assert!(runs.skipped.iter().any(|skipped| skipped.contains(&name)), "{name}: {:?}", runs.skipped);
    }
    assert_eq!((runs.skipped.len(), runs.iter().count()), (bad.len(), 1));
    assert!(page::of(&sections(&runs), &runs).unwrap().contains("broken.json"));

    let error = Runs::read(&[directory.path().join("cut.json")]).unwrap_err().to_string();
    assert!(error.contains("no results") && error.contains("interrupted"), "{error}");
}

#[test]
fn nothing_from_a_file_becomes_markup() {
    const MARKUP: &str = "</code></style><script>x</script>\"'><img src=x onerror=x>|`\n# head";
    let mut hostile = sync();
    hostile["command_line"] = json!(format!("sync{MARKUP}"));
    hostile["machine"]["model"] = json!(MARKUP);
    hostile["versions"]["nft"] = json!(MARKUP);
    hostile["measurements"][0]["name"] = json!(MARKUP);
    let mut other = hostile.clone();
    other["measurements"][0]["name"] = json!("cold sync");
    other["measurements"][0]["at"]["mix"] = json!(MARKUP);
    let mut packets = hostile.clone();
    packets["benchmark"] = json!("packets");
    packets["rounds"] = json!(5);
    packets["measurements"] =
        json!([{"name": "udp_first", "at": {"rules": MARKUP, "subject": MARKUP, "services": 10}, "values": {"p50_us": 1.0}}]);
    let mut beside = compare(MARKUP);
    beside["measurements"][0]["at"]["api_server"] = json!(MARKUP);
    let runs = runs(&[hostile, other, packets, beside]);
    let sections = sections(&runs);
    assert!(sections.len() >= 3, "{sections:?}");
    let page = page::of(&sections, &runs).unwrap();
    assert!(page.contains("&lt;script&gt;"), "it is told as text");
    for bad in ["<script", "<img", "</code></style>"] {
        assert!(!page.contains(bad), "{bad}");
    }
    assert_eq!(page.matches("</style>").count(), 1);
    let text = markdown::of(&sections);
    assert!(
        !text.contains("\n# head") && text.matches("<script").count() == text.matches("`sync</code></style><script").count(),
        "{text}"
    );
}

#[test]
fn a_block_must_be_whole_and_of_a_section() {
    let runs = runs(&[sync()]);
    let sections = sections(&runs);
    let renew = |document: &str| blocks::renew(document, &sections);
    let document = "before\n<!-- results: promises -->\noutdated\n<!-- end of results -->\nafter <!-- a comment -->\n";
    let once = renew(document).unwrap();
    assert!(
        once.starts_with("before\n<!-- results: promises -->\n")
            && once.ends_with("<!-- end of results -->\nafter <!-- a comment -->\n")
    );
    assert!(once.contains("| 250 ms |") && !once.contains("outdated"), "{once}");
    assert_eq!(renew(&once).unwrap(), once);
    assert_eq!(blocks::prose(document), "before\n\nafter <!-- a comment -->\n");
    for (bad, why) in [
        ("no block", "there is no"),
        ("<!-- results: promises -->\nno end", "have no"),
        ("<!-- results: wishes -->\n<!-- end of results -->", "only for promises"),
        ("<!-- results: promises", "without its"),
    ] {
        assert!(format!("{:#}", renew(bad).unwrap_err()).contains(why), "{bad}");
    }
}

#[test]
fn a_result_that_names_the_marks_of_a_document_leaves_it_whole() {
    const MARKS: &str = "<!-- end of results --><!-- results: promises -->\n";
    let mut hostile = sync();
    hostile["command_line"] = json!(format!("sheave-bench sync --save '{MARKS}'"));
    hostile["machine"]["model"] = json!(MARKS);
    hostile["left_out"] = json!([MARKS]);
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("<!-- end of results -->.json"), hostile.to_string()).unwrap();
    let runs = Runs::read(&[directory.path().to_owned()]).unwrap();
    let sections = sections(&runs);
    let document = "before\n<!-- results: promises -->\n<!-- end of results -->\nafter\n";
    let once = blocks::renew(document, &sections).unwrap();
    assert_eq!(once.matches("<!--").count(), 2, "{once}");
    assert_eq!(blocks::renew(&once, &sections).unwrap(), once);
    assert_eq!(blocks::prose(&once), blocks::prose(document));
}

#[test]
fn what_a_run_left_out_stands_below_it() {
    let mut run = sync();
    run["left_out"] = json!(["a million endpoints"]);
    let runs = runs(&[run]);
    let sections = sections(&runs);
    for text in [markdown::of(&sections), page::of(&sections, &runs).unwrap()] {
        assert!(text.contains("left out: a million endpoints"), "{text}");
    }
}

#[test]
fn numbers_without_a_place_are_left_out_of_a_plot() {
    let axis = |scale| plot::Axis { name: "x".into(), scale };
    let strange =
        vec![(0.0, -1.0), (1.0, f64::MAX), (f64::NAN, 1.0), (f64::INFINITY, 1.0), (100.0, 5.0), (1e300, 2.0), (-1e-300, 2.0)];
    for points in
        [vec![], vec![(1.0, 1.0)], vec![(1e-320, 1e-320), (2e-320, f64::MIN_POSITIVE)], vec![(0.0, 0.0), (0.0, 0.0)], strange]
    {
        for (x, y) in [
            (plot::Scale::Linear, plot::Scale::Linear),
            (plot::Scale::Logarithmic, plot::Scale::Logarithmic),
            (plot::Scale::Nines, plot::Scale::Linear),
        ] {
            let lines = vec![plot::Line { name: "a line".into(), points: points.clone() }];
            let drawing = plot::Drawing::Lines { x: axis(x), y: axis(y), lines };
            assert!(plot::Plot { caption: "c".into(), drawing }.svg().unwrap().starts_with("<svg "), "{points:?}");
        }
        let bars = vec![plot::Bar { name: "a bar".into(), parts: points.iter().map(|(_, up)| *up).collect() }];
        let drawing = plot::Drawing::Bars { parts: vec!["a part".into()], bars };
        assert!(plot::Plot { caption: "c".into(), drawing }.svg().unwrap().ends_with("</svg>\n"), "{points:?}");
    }
}
