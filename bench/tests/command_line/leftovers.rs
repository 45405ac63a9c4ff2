//! What a run leaves behind, however it ends: what it has measured, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::stand_in::{bench, daemon, idle, kube_proxy, processes, script};

/// Small, and quick even in a debug build.
const SMALL: [&str; 8] = ["--services", "10", "--endpoints-per-service", "3", "--changes", "1", "--output", "json"];
const PATIENCE: Duration = Duration::from_secs(120);

/// A run in its midst: sheave was measured, and kube-proxy's stand-in never serves. Its script has started another program, which has
/// left for a session of its own.
struct Run {
    process: Child,
    /// Names of all that it started.
    programs: [String; 2],
    directory: TempDir,
}

impl Run {
    /// `name`: nobody else's, of at most 12 letters. `launcher`: what starts the bench.
    fn under_way(name: &str, launcher: &[&str]) -> Self {
        Self::printing_to(name, launcher, Stdio::null())
    }

    fn printing_to(name: &str, launcher: &[&str], printed: Stdio) -> Self {
        daemon();
        let directory = tempfile::tempdir().expect("a directory");
        let programs = [name.to_owned(), format!("{name}-2")];
        let [peer, helper] = programs.each_ref().map(|name| idle(directory.path(), name));
        let body = format!(
            "[ \"$1\" = --version ] && exec echo Kubernetes v1.36.2\nsetsid {} 600 &\nexec {} 600",
            helper.display(),
            peer.display()
        );
        let peer = script(&directory.path().join("kube-proxy"), &body);
        let files = directory.path().join("files");
        fs::create_dir(&files).expect("a directory for files");
        let run = bench("compare", &SMALL);
        let mut words = launcher.iter().map(|word| (*word).into()).chain([run.get_program().to_owned()]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).args(run.get_args()).args(["--kube-proxy", &peer, "--save"]).arg(directory.path().join("kept.json"));
        command.env("TMPDIR", &files).stdin(Stdio::null()).stdout(printed).stderr(Stdio::null());
        let mut process = command.spawn().expect("starting the bench");
        await_programs(&mut process, &programs);
        Self { process, programs, directory }
    }

    fn signal(&self, signal: Signal) {
        kill(id(&self.process), signal).expect("sending a signal");
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.process.wait().expect("waiting for its end").code()
    }

    fn running(&self) -> BTreeSet<i32> {
        self.programs.iter().flat_map(|name| processes(name)).collect()
    }

    /// What it has left in its directory for temporary files.
    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.directory.path().join("files")).expect("the directory of files");
        files.map(|file| file.expect("a file").path()).collect()
    }

    fn ensure_kept(&self) {
        let kept = fs::read_to_string(self.directory.path().join("kept.json")).expect("what was kept");
        let results: Value = serde_json::from_str(&kept).expect("JSON");
        assert_eq!(results["interrupted"], true);
        let measured = &results["measurements"][0];
        assert_eq!(measured["at"]["contender"], "sheave nftables", "{results:#}");
        assert!(measured["values"]["programmed_ms"].as_f64() > Some(0.0), "{measured:#}");
    }
}

fn id(process: &Child) -> Pid {
    Pid::from_raw(i32::try_from(process.id()).expect("a process id"))
}

fn await_programs(run: &mut Child, names: &[String]) {
    let deadline = Instant::now() + PATIENCE;
    while names.iter().any(|name| processes(name).is_empty()) {
        assert!(run.try_wait().expect("asking for its end").is_none(), "it ended by itself");
        assert!(Instant::now() < deadline, "{names:?} did not start within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Its exit code is the shells', and when it is there, all is gone already.
fn interrupt(name: &str, signal: Signal) {
    let mut run = Run::under_way(name, &[]);
    run.signal(signal);
    assert_eq!(run.exit_code(), Some(128 + signal as i32));
    assert_eq!(run.running(), BTreeSet::new(), "they outlived the bench");
    assert!(run.files().is_empty(), "{:?}", run.files());
    run.ensure_kept();
}

#[test]
fn ctrl_c_keeps_what_there_is_and_leaves_nothing() {
    interrupt("idle-int", Signal::SIGINT);
}

#[test]
fn sigterm_keeps_what_there_is_and_leaves_nothing() {
    interrupt("idle-term", Signal::SIGTERM);
}

#[test]
fn a_terminal_that_is_gone_keeps_what_there_is_and_leaves_nothing() {
    interrupt("idle-hup", Signal::SIGHUP);
}

#[test]
fn who_was_begun_by_nohup_outlives_the_terminal() {
    let mut run = Run::under_way("idle-nohup", &["nohup"]);
    // The kernel throws away what is ignored when it is sent; what is caught comes later.
    assert!(mask(&run.process, "SigIgn") & HANGUP != 0 && mask(&run.process, "SigCgt") & HANGUP == 0);
    run.signal(Signal::SIGHUP);
    assert!(run.process.try_wait().expect("asking for its end").is_none() && !run.running().is_empty(), "it lives");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.exit_code(), Some(143));
}

const HANGUP: u64 = 1;

/// Of signals, a bit for each (proc_pid_status(5)).
fn mask(process: &Child, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("its status");
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect(field);
    u64::from_str_radix(value.trim(), 16).expect("a mask")
}

/// As `| less` that nobody scrolls: everything is ended first, and another signal ends the bench.
#[test]
fn a_reader_who_does_not_read_keeps_nothing_running() {
    let (reader, writer) = std::io::pipe().unwrap();
    fill(&writer);
    let mut run = Run::printing_to("idle-less", &[], writer.into());
    run.signal(Signal::SIGINT);
    let deadline = Instant::now() + PATIENCE;
    // Neither the end of strangers nor a write that waits has an event.
    while !run.running().is_empty() || mask(&run.process, "SigCgt") & 1 << (Signal::SIGTERM as i32 - 1) != 0 {
        assert!(Instant::now() < deadline, "{:?} outlived the interrupt", run.running());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(run.process.try_wait().unwrap().is_none(), "nobody has read its results");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.process.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    run.ensure_kept();
    drop(reader);
}

/// Until not a byte more has room.
fn fill(pipe: &std::io::PipeWriter) {
    let flags = fcntl(pipe, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate).expect("its flags");
    fcntl(pipe, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).expect("setting its flags");
    while nix::unistd::write(pipe, b"x").is_ok() {}
    fcntl(pipe, FcntlArg::F_SETFL(flags)).expect("setting its flags");
}

/// SIGKILL. The kernel ends what it started; its files go with the next run, and those of a living one stay.
#[test]
fn a_killed_run_leaves_no_process_and_the_next_one_removes_its_files() {
    let mut run = Run::under_way("idle-kill", &[]);
    let networks: BTreeSet<PathBuf> = run.running().into_iter().filter_map(|id| network(&id.to_string())).collect();
    assert_eq!((networks.len(), run.files().len()), (1, 1), "one node, one directory");
    run_beside(&run);
    assert_eq!(run.files().len(), 1, "of a living run");

    run.process.kill().expect("killing the bench");
    run.process.wait().expect("waiting for its end");
    let deadline = Instant::now() + PATIENCE;
    // The kernel's signals have no event that a stranger could await.
    while !run.running().is_empty() || in_use().intersection(&networks).next().is_some() {
        assert!(Instant::now() < deadline, "{:?} or one of {networks:?} outlived the bench", run.running());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(run.files().len(), 1, "nobody was there to remove it");
    run_beside(&run);
    assert!(run.files().is_empty(), "{:?}", run.files());
}

/// A short run with the same place for files.
fn run_beside(run: &Run) {
    let mut other = bench("memory", &["--endpoints", "0", "--churn", "0"]);
    let output = other.env("TMPDIR", run.directory.path().join("files")).output().expect("running the bench");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn network(process: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/net")).ok()
}

/// Network namespaces that any process is in.
fn in_use() -> BTreeSet<PathBuf> {
    let processes = fs::read_dir("/proc").expect("a /proc").flatten();
    processes.filter_map(|process| network(process.file_name().to_str()?)).collect()
}

/// Neither what its script starts when it is asked for its version, nor what it starts before it serves.
#[test]
fn what_a_kube_proxy_starts_ends_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let helper = idle(directory.path(), "idle-helper");
    let first = format!("setsid {} 600 &", helper.display());
    let peer = kube_proxy(directory.path(), "iptables", &first, &daemon());
    let output = bench("compare", &SMALL).args(["--kube-proxy", &peer, "--kube-proxy-mode", "iptables"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(processes("idle-helper"), BTreeSet::new());
}

/// A `sync` in the midst of its changes: the daemon's start is over, and kept.
fn sync_in_its_changes(kept: &Path) -> Child {
    daemon();
    let sizes = ["--services", "10", "--endpoints-per-service", "3", "--add-at", "10", "--changes", "100000", "--save"];
    let mut run = bench("sync", &sizes);
    let mut run = run.arg(kept).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("starting the bench");
    let deadline = Instant::now() + PATIENCE;
    while read(kept).is_none_or(|results| results["kernel_elements"].is_null()) {
        let ended = run.try_wait().expect("asking for its end");
        assert!(ended.is_none() && Instant::now() < deadline, "nothing is kept");
        std::thread::sleep(Duration::from_millis(20));
    }
    run
}

fn read(kept: &Path) -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(kept).ok()?).ok()
}

#[test]
fn a_daemon_that_dies_is_told_as_that() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept.json");
    let run = sync_in_its_changes(&kept);
    let of_it = format!("PPid:\t{}\n", run.id());
    let is_its =
        |process: &i32| fs::read_to_string(format!("/proc/{process}/status")).is_ok_and(|status| status.contains(&of_it));
    for process in processes("sheave").into_iter().filter(is_its) {
        kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
    }
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the proxy ended (signal: 9 (SIGKILL))") && !said.contains("did not tell"), "{said}");
    let results = read(&kept).expect("what was kept");
    assert!(results["interrupted"] == true && results["cold_sync_ms"].as_f64() > Some(0.0), "{results:#}");
}

#[test]
fn an_interrupted_sync_keeps_what_it_knew() {
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept.json");
    let mut run = sync_in_its_changes(&kept);
    kill(id(&run), Signal::SIGINT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    let results = read(&kept).expect("what was kept");
    assert!(results["cold_sync_ms"].as_f64() > Some(0.0) && results["start_to_programmed_ms"].as_f64() > Some(0.0));
    assert!(results["interrupted"] == true && results["change_p50_ms"].is_null(), "{results:#}");
}

/// The program whose version is asked for does not tell it.
#[test]
fn an_interrupt_before_anything_is_measured_says_so_in_one_line() {
    daemon();
    let directory = tempfile::tempdir().unwrap();
    let peer = idle(directory.path(), "idle-version");
    let peer = script(&directory.path().join("kube-proxy"), &format!("exec {} 600", peer.display()));
    let mut run = bench("compare", &SMALL);
    // A place of its own: what other tests' runs have left would be told of, too.
    run.args(["--kube-proxy", &peer]).env("TMPDIR", directory.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = run.spawn().unwrap();
    await_programs(&mut run, &["idle-version".to_owned()]);
    kill(id(&run), Signal::SIGINT).unwrap();
    let output = run.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(130), 0), "{said}");
    let of_the_end: Vec<&str> =
        said.lines().filter(|line| !line.contains("DEBUG BUILD") && !line.contains("is of commit")).collect();
    assert_eq!(of_the_end, ["sheave-bench: interrupted by SIGINT, nothing measured yet"]);
}

/// The stand-in for nft takes for ever to list the rules, as the real one takes seconds of a large table.
#[test]
fn an_interrupted_list_of_rules_leaves_no_process() {
    daemon();
    let directory = tempfile::tempdir().unwrap();
    let lister = idle(directory.path(), "idle-lister");
    let body = format!("[ \"$1\" = list ] && exec {} 600\necho nftables v1.0.6", lister.display());
    script(&directory.path().join("nft"), &body);
    let mut run = bench("compare", &SMALL);
    run.env("PATH", format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap()));
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    await_programs(&mut run, &["idle-lister".to_owned()]);
    kill(id(&run), Signal::SIGINT).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(processes("idle-lister"), BTreeSet::new());
}
