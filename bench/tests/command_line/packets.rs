//! `sheave-bench packets` from its command line: the shape of what it says, and how it refuses.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::stand_in::{self, daemon, error_of, script};

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
    let unreadable = directory.path().join("plain");
    fs::write(&unreadable, "no program").unwrap();
    for (peer, said) in [
        ("/nowhere/kube-proxy", "there is no such file"),
        (other.as_str(), "is not kube-proxy"),
        (failing.as_str(), "is not kube-proxy"),
        (unreadable.to_str().unwrap(), "it cannot be run"),
    ] {
        let error = error_of(&bench(&["--kube-proxy", peer]).output().unwrap());
        assert!(error.contains(peer) && error.contains(said), "{peer}: {error}");
    }
}

/// The peer is a stand-in: it reads the command line and the configuration that a kube-proxy gets, and serves by other means.
#[test]
fn a_peer_is_measured_on_the_same_objects() {
    let directory = tempfile::tempdir().unwrap();
    let body = format!(
        r#"[ "$1" = --version ] && exec echo Kubernetes v1.36.2
[ "$1" = --config ] && grep -q '"mode":"iptables"' "$2" && [ "$3" = --master ] && [ "$5" = --hostname-override ] || exit 1
exec {} run --source kube --api-server "$4" --node-name "$6" --cluster-cidr 10.128.0.0/9"#,
        daemon().display()
    );
    let peer = script(&directory.path().join("kube-proxy"), &body);
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
fn a_proxy_that_ends_is_told_with_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    let body = r#"[ "$1" = --version ] && exec echo Kubernetes v1.36.2
echo no such luck >&2; exit 7"#;
    let peer = script(&directory.path().join("kube-proxy"), body);
    let error = error_of(&bench(&["--services", "10", "--kube-proxy", &peer]).output().unwrap());
    assert!(error.contains("kube-proxy v1.36.2 nftables") && error.contains("no such luck"), "{error}");
}

#[test]
fn an_interrupted_run_keeps_the_rounds_it_had() {
    daemon();
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept.json");
    let long = ["--services", "10", "--rounds", "10000", "--seconds-per-round", "1", "--output", "json", "--save"];
    let mut process = bench(&long).arg(&kept).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let read = || -> Option<Value> { serde_json::from_str(&fs::read_to_string(&kept).ok()?).ok() };
    let deadline = Instant::now() + Duration::from_secs(120);
    while read().is_none_or(|results| results["measurements"].as_array().is_none_or(Vec::is_empty)) {
        assert!(process.try_wait().unwrap().is_none(), "it ended by itself");
        assert!(Instant::now() < deadline, "no round within two minutes");
        std::thread::sleep(Duration::from_millis(50));
    }
    kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(!process.wait().unwrap().success());
    let results = read().unwrap();
    assert_eq!(results["interrupted"], true);
    assert!(values(&results, "udp_first", "ClusterIP from a pod", 10)["p50_us"].as_f64().unwrap() > 0.0);
}
