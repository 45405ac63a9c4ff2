//! `sheave-bench compare` from its command line: what it compares with, and how it refuses.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use serde_json::Value;

use crate::stand_in::{self, daemon, error_of, kube_proxy, refusal_of, script};

/// Small, and quick even in a debug build.
const SMALL: [&str; 8] = ["--services", "10", "--endpoints-per-service", "3", "--changes", "2", "--output", "json"];

fn bench(arguments: &[&str]) -> Command {
    stand_in::bench("compare", arguments)
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

#[test]
fn without_a_kube_proxy_it_says_so_and_compares_with_stock_nft() {
    daemon();
    let mut command = bench(&SMALL);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("no --kube-proxy was given"), "{said}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let both = ["programmed_ms", "start_cpu_ms", "change_p50_ms", "peak_rss_mb"];
    ensure_positive(values(&results, "sheave nftables"), &both);
    ensure_positive(values(&results, "nft -f"), &both);
    ensure_positive(&results, &["programmed_ratio", "change_p50_ratio", "peak_rss_ratio"]);
    assert!(results["rss_ratio"].is_null(), "nft does not stay: {results:#}");
    assert!(results["change_p99_ratio"].is_null(), "of two changes there is no such percentile: {results:#}");
    let nft = values(&results, "nft -f");
    assert!(nft["empty_program_ms"].as_f64() < nft["change_p50_ms"].as_f64(), "{nft:#}");
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
    assert!(refusal_of(&bench(&["--kube-apiserver", &server]).output().unwrap()).contains("--etcd"));
    let error = refusal_of(&bench(&["--kube-apiserver", &server, "--etcd", &server]).output().unwrap());
    assert!(error.contains("is not etcd"), "{error}");
    let error = refusal_of(&bench(&["--kube-apiserver", &etcd, "--etcd", &etcd]).output().unwrap());
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
    let peer = kube_proxy(directory.path(), "iptables", "", &daemon());
    let results = result(bench(&SMALL).args(["--kube-proxy", &peer, "--kube-proxy-mode", "iptables"]));
    let all = ["programmed_ms", "start_cpu_ms", "change_p50_ms", "change_cpu_ms", "peak_rss_mb", "rss_mb"];
    ensure_positive(values(&results, "sheave nftables"), &all);
    ensure_positive(values(&results, "kube-proxy v1.36.2 iptables"), &all);
    ensure_positive(&results, &["programmed_ratio", "change_p50_ratio", "change_cpu_ratio", "rss_ratio"]);
}

#[test]
fn a_program_that_cannot_be_one_is_refused_before_anything_is_built() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let other = script(&directory.path().join("other"), "echo sheave 0.1.0");
    let silent = script(&directory.path().join("silent"), "exit 3");
    let plain = place("plain");
    fs::write(&plain, "no program").unwrap();
    fs::write(place("lost"), "#!/nowhere/interpreter\n").unwrap();
    fs::set_permissions(place("lost"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(place("garbage"), [0x7f, 1, 2, 3]).unwrap();
    fs::set_permissions(place("garbage"), fs::Permissions::from_mode(0o755)).unwrap();
    for (program, said) in [
        ("/nowhere/kube-proxy", "there is no such file"),
        (place("").as_str(), "it is a directory"),
        (plain.as_str(), "it is not executable (chmod +x)"),
        (place("lost").as_str(), "it cannot be run: the interpreter or loader that it asks for is not there"),
        (place("garbage").as_str(), "it cannot be run: it has no #! line and is no program for this kind of machine"),
        (other.as_str(), "`--version` printed \"sheave 0.1.0\" (exit status: 0)"),
        (silent.as_str(), "`--version` printed nothing (exit status: 3)"),
    ] {
        for options in [vec!["--kube-proxy", program], vec!["--kube-apiserver", program, "--etcd", program]] {
            let error = refusal_of(&bench(&options).output().unwrap());
            assert!(error.contains(&format!("{} {program}: ", options[0])) && error.contains(said), "{options:?}: {error}");
        }
    }
}

/// `--kube-proxy NAME` is a file of this directory, as `--kube-proxy ./NAME` is; what a shell would find in PATH is only pointed to.
#[test]
fn a_bare_name_is_a_file_of_this_directory() {
    let directory = tempfile::tempdir().unwrap();
    script(&directory.path().join("of-this-directory"), "echo here it is");
    let error = refusal_of(&bench(&["--kube-proxy", "of-this-directory"]).current_dir(directory.path()).output().unwrap());
    assert!(error.contains("printed \"here it is\""), "{error}");
    let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
    let error = refusal_of(&bench(&["--kube-proxy", "of-this-directory"]).env("PATH", path).output().unwrap());
    let found = directory.path().join("of-this-directory");
    assert!(error.contains(&format!("there is no such file here; did you mean {}?", found.display())), "{error}");
}

#[test]
fn without_kube_proxy_and_nft_there_is_nothing_to_compare_with() {
    let directory = tempfile::tempdir().unwrap();
    let error = refusal_of(&bench(&SMALL).env("PATH", directory.path()).output().unwrap());
    assert!(error.contains("running nft") && error.contains("no --kube-proxy"), "{error}");
}

/// For root; in a user namespace of one's own nothing takes away the right to make another one.
#[test]
fn root_without_the_capabilities_is_told_which_are_missing() {
    if !geteuid().is_root() {
        return;
    }
    for (dropped, named) in [
        ("-sys_admin", "lacks CAP_SYS_ADMIN:"),
        ("-net_admin", "lacks CAP_NET_ADMIN:"),
        ("-sys_admin,-net_admin", "lacks CAP_SYS_ADMIN and CAP_NET_ADMIN:"),
    ] {
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set={dropped}")).args([env!("CARGO_BIN_EXE_sheave-bench"), "compare"]).args(SMALL);
        let error = refusal_of(&command.stdin(Stdio::null()).output().unwrap());
        assert!(error.contains("needs namespaces of its own") && error.contains(named), "{error}");
        assert!(!error.contains("run as root"), "{error}");
    }
}

#[test]
fn a_size_that_has_no_addresses_is_refused_with_the_limit() {
    let error = refusal_of(&bench(&["--services", "1000000", "--endpoints-per-service", "9"]).output().unwrap());
    assert!(error.contains("9000000 endpoints are more than the 8000000 that the load has addresses for"), "{error}");
    for (each, limit) in [("140000", "131072"), ("131073", "131072")] {
        let error = refusal_of(&bench(&["--services", "1", "--endpoints-per-service", each]).output().unwrap());
        assert!(
            error.contains(&format!("{each} endpoints of a Service are more than the {limit} that sheave serves")),
            "{error}"
        );
    }
    let error = refusal_of(&bench(&["--services", "1000001", "--endpoints-per-service", "1"]).output().unwrap());
    assert!(error.contains("1000001 Services are more than the 1000000 that the load has ClusterIPs for"), "{error}");
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
