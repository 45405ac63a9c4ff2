//! `sheave-bench packets` from its command line: the shape of what it says, and how it refuses.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::stand_in::{self, daemon, error_of, kube_proxy, processes, refusal_of, script};

fn bench(arguments: &[&str]) -> Command {
    stand_in::bench("packets", arguments)
}

/// The measurements of one kind, one subject and one number of Services.
fn values<'a>(results: &'a Value, name: &str, subject: &str, services: u32) -> &'a Value {
    let all = results["measurements"].as_array().expect("a list of measurements");
    let found = all.iter().find(|measurement| {
        let at = &measurement["at"];
        measurement["name"] == name && at["subject"] == subject && at["services"] == services
    });
    &found.expect(subject)["values"]
}

#[test]
fn a_short_run_measures_every_subject_beside_the_straight_one() {
    daemon();
    let arguments = ["--services", "10", "--rounds", "1", "--seconds-per-round", "2", "--output", "json"];
    let output = bench(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&results["benchmark"], &results["interrupted"]), (&Value::from("packets"), &Value::from(false)));
    for measure in ["udp_first", "udp_established", "tcp_one", "tcp_many"] {
        for place in ["a pod", "the node", "outside"] {
            let straight = values(&results, measure, &format!("straight from {place}"), 0);
            assert_eq!(straight["p50_to_bare"], 1.0, "{measure}: the straight one is what it is compared with");
        }
        for subject in ["ClusterIP from a pod", "ClusterIP from the node", "NodePort from outside", "VIP from outside"] {
            let values = values(&results, measure, subject, 10);
            let number = |name: &str| values[name].as_f64().unwrap_or_else(|| panic!("{measure}, {subject}: no {name}"));
            assert!(0.0 < number("p50_us") && number("p50_us") <= number("p99_us"), "{measure}, {subject}: {values}");
            assert!(number("per_second") > 0.0 && number("p50_to_straight") > 0.0 && number("rate_to_straight") > 0.0);
        }
    }
    assert_eq!(results["rounds"], 1);
    assert!(results["first_packet_p50_us"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_peer_that_is_no_kube_proxy_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let other = script(&directory.path().join("other"), "echo sheave 0.1.0");
    let failing = script(&directory.path().join("failing"), "echo Kubernetes v1.36.2; exit 3");
    for (peer, said) in [
        ("/nowhere/kube-proxy", "there is no such file"),
        (other.as_str(), "is not kube-proxy"),
        (failing.as_str(), "is not kube-proxy"),
    ] {
        let error = refusal_of(&bench(&["--kube-proxy", peer]).output().unwrap());
        assert!(error.contains(peer) && error.contains(said), "{peer}: {error}");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused_with_the_numbers() {
    let many = (500_000..502_000).map(|services| services.to_string()).collect::<Vec<_>>().join(",");
    let error = refusal_of(&bench(&["--services", &many]).output().unwrap());
    assert!(error.contains("of memory, and") && error.contains("MB are available"), "{error}");
    let error = refusal_of(&bench(&["--services", "10,100000", "--endpoints-per-service", "100"]).output().unwrap());
    assert!(error.contains("10000000 endpoints are more than the 8000000 that"), "{error}");
}

/// The peer is a stand-in: it reads the command line and the configuration that a kube-proxy gets, and serves by other means.
#[test]
fn a_peer_is_measured_on_the_same_objects() {
    let directory = tempfile::tempdir().unwrap();
    let peer = kube_proxy(directory.path(), "iptables", "", &daemon());
    let arguments = ["--services", "10", "--rounds", "1", "--seconds-per-round", "2", "--output", "json"];
    let output = bench(&arguments).args(["--kube-proxy", &peer, "--kube-proxy-mode", "iptables"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let measurements = results["measurements"].as_array().unwrap();
    for rules in ["none", "sheave nftables", "kube-proxy v1.36.2 iptables"] {
        assert!(measurements.iter().any(|measurement| measurement["at"]["rules"] == rules), "{rules}: {results:#}");
    }
}

#[test]
fn a_proxy_that_never_serves_ends_the_run_with_its_last_words() {
    daemon();
    let directory = tempfile::tempdir().unwrap();
    for (last, told) in [
        ("echo no such luck >&2; exit 7", "and said:\nno such luck"),
        ("echo 'no such \u{1b}luck'; exit 7", "said:\nno such \\u{1b}luck"),
        ("exit 7", "and said nothing"),
    ] {
        let body = format!("[ \"$1\" = --version ] && exec echo Kubernetes v1.36.2\n{last}");
        let peer = script(&directory.path().join("kube-proxy"), &body);
        let error = error_of(&bench(&["--services", "10", "--kube-proxy", &peer]).output().unwrap());
        assert!(error.contains("10 Services, kube-proxy v1.36.2 nftables: the proxy ended") && error.contains(told), "{error}");
    }
}

/// It serves ten Services and not twenty: its network of ten is measured, and sheave's two.
#[test]
fn a_kube_proxy_that_fails_at_a_larger_size_is_left_out_from_there_on() {
    let directory = tempfile::tempdir().unwrap();
    let served = directory.path().join("served");
    let first = format!(
        "[ \"$1\" = --version ] || {{ [ -e {0} ] && {{ echo no such luck >&2; exit 7; }}; touch {0}; }}",
        served.display()
    );
    let peer = kube_proxy(directory.path(), "iptables", &first, &daemon());
    let arguments = ["--services", "20,10,10,30", "--rounds", "1", "--seconds-per-round", "1", "--output", "json"];
    let output = bench(&arguments).args(["--kube-proxy", &peer, "--kube-proxy-mode", "iptables"]).output().unwrap();
    let error = error_of(&output);
    let name = "kube-proxy v1.36.2 iptables";
    assert!(error.contains(&format!("left out: 20 Services, {name}: the proxy ended")) && error.contains("luck"), "{error}");
    assert!(error.contains(&format!("left out: 30 Services, {name}\n")), "{error}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((networks(&results, name), results["interrupted"].as_bool()), ([10].into(), Some(false)));
    assert_eq!(networks(&results, "sheave nftables"), [10, 20, 30].into());
}

/// Numbers of Services that were measured with these rules.
fn networks(results: &Value, rules: &str) -> BTreeSet<u64> {
    let all = results["measurements"].as_array().expect("a list of measurements");
    let of_it = all.iter().filter(|measurement| measurement["at"]["rules"] == rules);
    of_it.map(|measurement| measurement["at"]["services"].as_u64().expect("a number")).collect()
}

#[test]
fn a_kube_proxy_that_ends_between_rounds_keeps_what_it_had_and_the_others_go_on() {
    // A link, so that it can be told from all others; of the same file system, so that there can be one.
    let directory = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let server = directory.path().join("served-rounds");
    fs::hard_link(daemon(), &server).unwrap();
    let peer = kube_proxy(directory.path(), "iptables", "", &server);
    let kept = directory.path().join("kept.json");
    let arguments = ["--services", "10", "--rounds", "6", "--seconds-per-round", "1", "--output", "json", "--kube-proxy", &peer];
    let mut run = bench(&arguments);
    run.args(["--kube-proxy-mode", "iptables", "--save"]).arg(&kept).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = run.spawn().unwrap();
    await_measurements(&mut run, &kept);
    for process in processes("served-rounds") {
        kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
    }
    let output = run.wait_with_output().unwrap();
    let error = error_of(&output);
    let name = "kube-proxy v1.36.2 iptables";
    assert!(
        error.contains(&format!("left out: the rest of 10 Services, {name}: the proxy ended (signal: 9 (SIGKILL))")),
        "{error}"
    );
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&results["rounds"], &results["interrupted"]), (&Value::from(6), &Value::from(false)));
    assert_eq!(networks(&results, name), [10].into());
    assert!(results["first_packet_to_kube_proxy"].as_f64() > Some(0.0), "of the rounds that both had: {results:#}");
    assert!(results["first_packet_to_kube_proxy_rounds"].as_f64() < Some(5.0), "too few for a verdict: {results:#}");
    assert_eq!(results["first_packet_growth_rounds"], 6);
    assert!(results["left_out"][0].as_str().is_some_and(|what| what.contains(name)), "{results:#}");
}

/// Waits until the first round is in the file.
fn await_measurements(run: &mut Child, kept: &Path) {
    let read = || -> Option<Value> { serde_json::from_str(&fs::read_to_string(kept).ok()?).ok() };
    let deadline = Instant::now() + Duration::from_secs(120);
    while read().is_none_or(|results| results["measurements"].as_array().is_none_or(Vec::is_empty)) {
        assert!(run.try_wait().expect("asking for its end").is_none(), "it ended by itself");
        assert!(Instant::now() < deadline, "no round within two minutes");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_interrupted_run_keeps_the_rounds_it_had() {
    daemon();
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept.json");
    let long = ["--services", "10", "--rounds", "1000", "--seconds-per-round", "1", "--output", "json", "--save"];
    let mut process = bench(&long).arg(&kept).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    await_measurements(&mut process, &kept);
    kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(143));
    let results: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
    assert_eq!(results["interrupted"], true);
    assert!(values(&results, "udp_first", "ClusterIP from a pod", 10)["p50_us"].as_f64().unwrap() > 0.0);
}
