//! `sheave-bench compare` from its command line: what it compares with, how it refuses, and what it leaves behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

use crate::stand_in::{self, daemon, error_of, script};

/// Small, and quick even in a debug build.
const SMALL: [&str; 8] = ["--services", "10", "--endpoints-per-service", "3", "--changes", "2", "--output", "json"];

fn bench(arguments: &[&str]) -> Command {
    stand_in::bench("compare", arguments)
}

/// A kube-proxy that reads the command line and the configuration which one gets, and serves by other means.
fn kube_proxy(directory: &Path, mode: &str) -> String {
    let body = format!(
        r#"[ "$1" = --version ] && exec echo Kubernetes v1.36.2
[ "$1" = --config ] && grep -q '"mode":"{mode}"' "$2" && [ "$3" = --master ] && [ "$5" = --hostname-override ] || exit 1
exec {} run --source kube --api-server "$4" --node-name "$6" --cluster-cidr 10.128.0.0/9"#,
        daemon().display()
    );
    script(&directory.join("kube-proxy"), &body)
}

fn result(command: &mut Command) -> Value {
    let output = command.output().expect("running the bench");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What was measured of a contender.
fn values<'a>(results: &'a Value, contender: &str) -> &'a Value {
    let all = results["measurements"].as_array().expect("a list of measurements");
    let found = all.iter().find(|measurement| measurement["at"]["contender"] == contender);
    &found.expect(contender)["values"]
}

fn ensure_positive(of: &Value, names: &[&str]) {
    for name in names {
        assert!(of[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {of:#}");
    }
}

/// Processes of this name in all of the machine.
fn processes(name: &str) -> BTreeSet<i32> {
    let all = fs::read_dir("/proc").expect("a /proc").flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let called = |process: &i32| fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|comm| comm.trim() == name);
    all.filter(called).collect()
}

#[test]
fn without_a_kube_proxy_it_says_so_and_compares_with_stock_nft() {
    daemon();
    let mut command = bench(&SMALL);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("no --kube-proxy was given"), "{said}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let both = ["programmed_ms", "start_cpu_ms", "change_p50_ms", "change_p99_ms", "peak_rss_mb"];
    ensure_positive(values(&results, "sheave nftables"), &both);
    ensure_positive(values(&results, "nft -f"), &both);
    ensure_positive(&results, &["programmed_ratio", "change_p50_ratio", "peak_rss_ratio"]);
    assert!(results["rss_ratio"].is_null(), "nft does not stay: {results:#}");
}

/// kube-apiserver and etcd, by what is documented of them: the flags, the files they name, TLS and a token. Behind is the double.
fn control_plane(directory: &Path) -> [String; 2] {
    let double = daemon().with_file_name("apiserver");
    assert!(double.is_file(), "{} is not there: build it first with `cargo build -p sheave-tests`", double.display());
    let server = include_str!("stand_in/kube-apiserver.sh").replace("APISERVER_DOUBLE", &double.to_string_lossy());
    let etcd =
        "[ \"$1\" = --version ] && exec echo 'etcd Version: 3.6.5'\n[ \"$1\" = --data-dir ] && mkdir \"$2\" && exec sleep 600";
    [script(&directory.join("kube-apiserver"), &server), script(&directory.join("etcd"), etcd)]
}

#[test]
fn a_real_api_server_takes_the_place_of_the_double() {
    let directory = tempfile::tempdir().unwrap();
    let [server, etcd] = control_plane(directory.path());
    let results = result(bench(&SMALL).args(["--kube-apiserver", &server, "--etcd", &etcd]));
    let measured = &results["measurements"][0];
    assert_eq!(measured["at"]["api_server"], "kube-apiserver v1.36.2");
    ensure_positive(values(&results, "sheave nftables"), &["programmed_ms", "change_p50_ms", "rss_mb"]);
}

#[test]
fn an_api_server_needs_its_etcd_and_both_must_be_what_they_say() {
    let directory = tempfile::tempdir().unwrap();
    let [server, etcd] = control_plane(directory.path());
    assert!(error_of(&bench(&["--kube-apiserver", &server]).output().unwrap()).contains("--etcd"));
    let error = error_of(&bench(&["--kube-apiserver", &server, "--etcd", &server]).output().unwrap());
    assert!(error.contains("is not etcd"), "{error}");
    let error = error_of(&bench(&["--kube-apiserver", &etcd, "--etcd", &etcd]).output().unwrap());
    assert!(error.contains("is not kube-apiserver"), "{error}");
}

#[test]
fn an_api_server_that_ends_is_told_with_its_last_words() {
    let directory = tempfile::tempdir().unwrap();
    let [_, etcd] = control_plane(directory.path());
    let body = "[ \"$1\" = --version ] && exec echo Kubernetes v1.36.2\necho unknown flag: --such >&2; exit 1";
    let server = script(&directory.path().join("ending"), body);
    let error = error_of(&bench(&SMALL).args(["--kube-apiserver", &server, "--etcd", &etcd]).output().unwrap());
    assert!(error.contains("kube-apiserver ended") && error.contains("unknown flag: --such"), "{error}");
}

/// With iptables, the kernel tells of no commit of an ordinary kube-proxy; the bench does not rely on it.
#[test]
fn a_kube_proxy_is_compared_on_the_same_objects() {
    let directory = tempfile::tempdir().unwrap();
    let peer = kube_proxy(directory.path(), "iptables");
    let results = result(bench(&SMALL).args(["--kube-proxy", &peer, "--kube-proxy-mode", "iptables"]));
    let all = ["programmed_ms", "start_cpu_ms", "change_p50_ms", "change_p99_ms", "change_cpu_ms", "peak_rss_mb", "rss_mb"];
    ensure_positive(values(&results, "sheave nftables"), &all);
    ensure_positive(values(&results, "kube-proxy v1.36.2 iptables"), &all);
    ensure_positive(&results, &["programmed_ratio", "change_p50_ratio", "change_cpu_ratio", "rss_ratio"]);
}

#[test]
fn a_peer_that_is_no_kube_proxy_is_refused_before_anything_is_built() {
    let directory = tempfile::tempdir().unwrap();
    let other = script(&directory.path().join("other"), "echo sheave 0.1.0");
    for (peer, said) in [("/nowhere/kube-proxy", "there is no such file"), (other.as_str(), "is not kube-proxy")] {
        let error = error_of(&bench(&["--kube-proxy", peer]).output().unwrap());
        assert!(error.contains(peer) && error.contains(said), "{peer}: {error}");
    }
}

#[test]
fn without_kube_proxy_and_nft_there_is_nothing_to_compare_with() {
    let directory = tempfile::tempdir().unwrap();
    let error = error_of(&bench(&SMALL).env("PATH", directory.path()).output().unwrap());
    assert!(error.contains("running nft") && error.contains("no --kube-proxy"), "{error}");
}

/// For root; in a user namespace of one's own nothing takes away the right to make another one.
#[test]
fn without_the_right_to_make_namespaces_it_says_which_are_missing() {
    if !geteuid().is_root() {
        return;
    }
    daemon();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_admin", env!("CARGO_BIN_EXE_sheave-bench"), "compare"]).args(SMALL).stdin(Stdio::null());
    let error = error_of(&command.output().unwrap());
    assert!(error.contains("needs namespaces of its own") && error.contains("run as root"), "{error}");
}

#[test]
fn a_size_that_does_not_fit_is_refused_with_the_numbers() {
    let error = error_of(&bench(&["--services", "1000000", "--endpoints-per-service", "1000000"]).output().unwrap());
    assert!(error.contains("MB are available"), "{error}");
}

/// The stand-in for kube-proxy ends at once; what was measured of sheave before is kept.
#[test]
fn a_kube_proxy_that_ends_is_told_with_its_last_words_and_the_rest_is_kept() {
    daemon();
    let directory = tempfile::tempdir().unwrap();
    let body = "[ \"$1\" = --version ] && exec echo Kubernetes v1.36.2\necho no such luck >&2; exit 7";
    let (peer, kept) = (script(&directory.path().join("kube-proxy"), body), directory.path().join("kept.json"));
    let error = error_of(&bench(&SMALL).args(["--kube-proxy", &peer, "--save"]).arg(&kept).output().unwrap());
    assert!(error.contains("kube-proxy v1.36.2 nftables") && error.contains("no such luck"), "{error}");
    let results: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
    assert_eq!(results["interrupted"], true);
    ensure_positive(values(&results, "sheave nftables"), &["programmed_ms"]);
}

/// The stand-in for kube-proxy never serves, so that the run is in its midst when it is interrupted.
#[test]
fn an_interrupted_run_keeps_what_it_had_and_leaves_no_process() {
    daemon();
    let directory = tempfile::tempdir().unwrap();
    let body = format!(
        "[ \"$1\" = --version ] && exec echo Kubernetes v1.36.2\nexec {} 600",
        idle(directory.path(), "idle-peer").display()
    );
    let (peer, kept) = (script(&directory.path().join("kube-proxy"), &body), directory.path().join("kept.json"));
    let mut run = bench(&SMALL);
    run.args(["--kube-proxy", &peer, "--save"]).arg(&kept);
    interrupt_during("idle-peer", directory.path(), run);
    let results: Value = serde_json::from_str(&fs::read_to_string(&kept).unwrap()).unwrap();
    assert_eq!(results["interrupted"], true);
    ensure_positive(values(&results, "sheave nftables"), &["programmed_ms", "change_p50_ms"]);
}

/// The stand-in for nft takes for ever to list the rules, as the real one takes seconds of a large table.
#[test]
fn an_interrupted_list_of_rules_leaves_no_process() {
    daemon();
    let directory = tempfile::tempdir().unwrap();
    let lister = idle(directory.path(), "idle-lister");
    let body = format!("[ \"$1\" = list ] && exec {} 600\necho nftables v1.0.6", lister.display());
    script(&directory.path().join("nft"), &body);
    let mut run = bench(&SMALL);
    run.env("PATH", format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap()));
    interrupt_during("idle-lister", directory.path(), run);
}

/// A program that does nothing, under a name of its own.
fn idle(directory: &Path, name: &str) -> PathBuf {
    let program = directory.join(name);
    fs::copy("/bin/sleep", &program).expect("copying sleep");
    program
}

/// Interrupts a run once this program runs, and sees that neither it nor a file outlives the run.
fn interrupt_during(program: &str, directory: &Path, mut run: Command) {
    let files = directory.join("files");
    fs::create_dir(&files).expect("a directory for files");
    let mut run = run.env("TMPDIR", &files).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starting the bench");
    let deadline = Instant::now() + Duration::from_secs(120);
    while processes(program).is_empty() {
        assert!(run.try_wait().expect("asking for its end").is_none(), "it ended by itself");
        assert!(Instant::now() < deadline, "{program} did not start within two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
    let process = Pid::from_raw(i32::try_from(run.id()).expect("a process id"));
    kill(process, Signal::SIGINT).expect("interrupting");
    assert_eq!(run.wait().expect("waiting for its end").code(), Some(130));
    while !processes(program).is_empty() {
        assert!(Instant::now() < deadline, "{program} outlived the bench");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(fs::read_dir(&files).expect("the directory").count(), 0, "a file was left");
}
