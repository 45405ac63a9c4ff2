use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::captured_log::Log;
use crate::config::SourceOptions;
use crate::daemon::Reporter;
use crate::daemon::told::Told;
use crate::health::{ProxyHealth, STALE_AFTER};
use crate::metrics::Metrics;
use crate::source::kube::EventSink;

fn conntrack() -> ConntrackSettings {
    ConntrackSettings {
        max_per_core: 32_768,
        min: 131_072,
        tcp_established: Duration::from_secs(86_400),
        tcp_close_wait: Duration::from_secs(3_600),
        ..ConntrackSettings::default()
    }
}

fn max(max_per_core: u32, min: u32, cpus: u64) -> Option<u64> {
    let settings = wanted(&ConntrackSettings { max_per_core, min, ..ConntrackSettings::default() }, cpus);
    settings.iter().find(|setting| setting.name == MAX).map(|setting| setting.value)
}

#[test]
fn the_size_of_the_connection_table_follows_cpus_within_bounds() {
    assert_eq!(max(32_768, 131_072, 2), Some(131_072));
    assert_eq!(max(32_768, 131_072, 16), Some(524_288));
    assert_eq!(max(32_768, 131_072, 64), Some(1_048_576));
    assert_eq!(max(32_768, 2_000_000, 64), Some(1_048_576), "above the bound min is not looked at");
    assert_eq!(max(32_768, 2_000_000, 2), Some(2_000_000));
    assert_eq!(max(0, 131_072, 2), None, "left alone");
}

#[test]
fn zero_leaves_the_kernels_timeouts_alone() {
    let names = |settings: &ConntrackSettings| wanted(settings, 1).iter().map(|setting| setting.name).collect::<Vec<_>>();
    let usual = [MAX, "net.netfilter.nf_conntrack_tcp_timeout_established", "net.netfilter.nf_conntrack_tcp_timeout_close_wait"];
    assert_eq!(names(&conntrack()), usual);
    let more = ConntrackSettings {
        udp: Duration::from_secs(30),
        udp_stream: Duration::from_secs(60),
        tcp_be_liberal: true,
        ..conntrack()
    };
    assert_eq!(
        names(&more)[3..],
        [
            "net.netfilter.nf_conntrack_udp_timeout",
            "net.netfilter.nf_conntrack_udp_timeout_stream",
            "net.netfilter.nf_conntrack_tcp_be_liberal",
        ]
    );
    assert_eq!(names(&ConntrackSettings::default()), [""; 0]);
}

/// A /proc/sys of our own.
fn sysctls(files: &[(&str, &str)]) -> (tempfile::TempDir, Sysctls) {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let sysctls = Sysctls::below(root.path());
    (root, sysctls)
}

const LIBERAL: Setting = Setting { name: "net.netfilter.nf_conntrack_tcp_be_liberal", value: 1 };

#[test]
fn what_is_as_wanted_is_not_written() {
    let (root, sysctls) = sysctls(&[("net/netfilter/nf_conntrack_tcp_be_liberal", "1\n")]);
    sysctls.make(LIBERAL).unwrap();
    let text = fs::read_to_string(root.path().join("net/netfilter/nf_conntrack_tcp_be_liberal")).unwrap();
    assert_eq!(text, "1\n", "with its newline: nobody wrote it");
}

#[test]
fn what_differs_is_written_and_what_is_missing_is_no_crash() {
    let (root, sysctls) = sysctls(&[("net/netfilter/nf_conntrack_tcp_be_liberal", "0\n")]);
    sysctls.make(LIBERAL).unwrap();
    assert_eq!(fs::read_to_string(root.path().join("net/netfilter/nf_conntrack_tcp_be_liberal")).unwrap(), "1");
    let text = sysctls.make(Setting { name: MAX, value: 7 }).expect_err("no such file").to_string();
    assert!(text.starts_with("net.netfilter.nf_conntrack_max cannot be set to 7 ("), "{text}");
}

#[test]
fn cpus_are_those_that_are_online() {
    for (list, count) in [("0", Some(1)), ("0-3", Some(4)), ("0-3,8,10-11", Some(7)), ("", None), ("3-1", None), ("x", None)] {
        assert_eq!(cpus_in(list), count, "{list}");
    }
    let (_root, sysctls) = sysctls(&[("online", "0-1023\n")]);
    assert_eq!(sysctls.cpus(), 1024);
}

#[test]
fn a_timeout_below_a_second_is_one_second() {
    let settings = ConntrackSettings { udp: Duration::from_millis(500), ..ConntrackSettings::default() };
    assert_eq!(wanted(&settings, 1), [Setting { name: "net.netfilter.nf_conntrack_udp_timeout", value: 1 }]);
}

fn plain() -> Options {
    let options = Options::new("n".into(), SourceOptions::Manifests("none".into()));
    Options { kernel: KernelSettings { oom_score_adj: -500, ..KernelSettings::default() }, ..options }
}

#[test]
fn what_cannot_be_made_is_named() {
    let (_root, sysctls) = sysctls(&[("net/netfilter/nf_conntrack_tcp_be_liberal", "0\n"), ("oom_score_adj", "0\n")]);
    let mut options = plain();
    options.kernel.conntrack.tcp_be_liberal = true;
    let missed = |options: &Options| make(options, &sysctls).iter().map(|missed| missed.name).collect::<Vec<_>>();
    assert_eq!(missed(&options), [""; 0]);
    options.kernel.conntrack.udp = Duration::from_secs(7);
    assert_eq!(missed(&options), ["net.netfilter.nf_conntrack_udp_timeout"]);
}

fn keeper(sysctls: Sysctls) -> (Keeper, Arc<ProxyHealth>, Arc<Metrics>) {
    keeper_with(sysctls, Reporter::default())
}

fn keeper_with(sysctls: Sysctls, reporter: Reporter) -> (Keeper, Arc<ProxyHealth>, Arc<Metrics>) {
    let (health, metrics) = (Arc::new(ProxyHealth::new(STALE_AFTER, false)), Arc::new(Metrics::new()));
    let keeper = Keeper::new(health.clone(), metrics.clone(), reporter, &Told::default());
    (keeper.of(sysctls), health, metrics)
}

#[test]
fn what_cannot_be_made_is_told_once_and_until_it_is_so() {
    const NAME: &str = "net/netfilter/nf_conntrack_udp_timeout";
    let (root, sysctls) = sysctls(&[("net/netfilter/other", "0\n"), ("oom_score_adj", "0\n")]);
    let mut options = plain();
    options.kernel.conntrack.udp = Duration::from_secs(7);
    let (mut keeper, health, metrics) = keeper(sysctls);
    let (log, _guard) = Log::capture();
    let text =
        "net.netfilter.nf_conntrack_udp_timeout cannot be set to 7 (No such file or directory (os error 2)): it stays as it is";
    for _ in 0..2 {
        keeper.look(&options);
        assert_eq!(health.look().problems, [format!("kernel setting net.netfilter.nf_conntrack_udp_timeout: {text}")]);
        assert_eq!(metrics.kernel_settings_missed.get(), 1);
    }
    fs::write(root.path().join(NAME), "7\n").unwrap();
    keeper.look(&options);
    assert_eq!((health.look().problems, metrics.kernel_settings_missed.get()), (Vec::new(), 0));
    assert_eq!(log.lines(), [format!("WARN {text}"), format!("INFO no longer: {text}")]);

    // One that nobody asks for any more is no problem, either.
    fs::remove_file(root.path().join(NAME)).unwrap();
    keeper.look(&options);
    assert_eq!(health.look().problems.len(), 1);
    options.kernel.conntrack.udp = Duration::ZERO;
    keeper.look(&options);
    assert_eq!(health.look().problems, Vec::<String>::new());
}

/// Another matter that begins meanwhile is no reason to say it again.
#[test]
fn an_event_is_for_settings_that_have_just_been_missed() {
    let (root, sysctls) = sysctls(&[("net/ipv4/ip_forward", "1\n"), ("oom_score_adj", "0\n")]);
    let mut options = plain();
    options.kernel.conntrack.udp = Duration::from_secs(7);
    let (events, mut said) = EventSink::recording();
    let (mut keeper, ..) = keeper_with(sysctls, Reporter::with_events(events, "n".into()));
    let mut reasons = || std::iter::from_fn(|| said.try_recv().ok()).map(|remark| remark.reason).collect::<Vec<_>>();
    keeper.look(&options);
    assert_eq!(reasons(), ["FailedToSetKernelSettings"]);
    fs::write(root.path().join("net/ipv4/ip_forward"), "0\n").unwrap();
    keeper.look(&options);
    assert_eq!(reasons(), [""; 0], "forwarding is another matter");
    options.kernel.conntrack.udp_stream = Duration::from_secs(7);
    keeper.look(&options);
    assert_eq!(reasons(), ["FailedToSetKernelSettings"]);
}

/// A line for each matter that begins, and one for each that ends; none in between. The score of this process is in the log alone.
#[test]
fn a_matter_is_a_line_when_it_begins_and_one_when_it_ends() {
    let (log, _until) = Log::capture();
    let (root, sysctls) = sysctls(&[]);
    fs::create_dir(root.path().join("oom_score_adj")).unwrap();
    let (mut keeper, health, _) = keeper(sysctls);
    keeper.look(&plain());
    keeper.look(&plain());
    assert_eq!(health.look().problems, Vec::<String>::new());
    fs::remove_dir(root.path().join("oom_score_adj")).unwrap();
    keeper.look(&plain());
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("WARN oomScoreAdj cannot be set to -500 (Is a directory"), "{lines:?}");
    assert!(lines[1].starts_with("INFO no longer: oomScoreAdj cannot be set to -500"), "{lines:?}");
}

/// A default that cannot be had is no matter; one that could be had before somebody asked for another is.
#[test]
fn a_score_that_was_raised_and_cannot_be_lowered_again_is_told() {
    let (log, _until) = Log::capture();
    let (root, _) = sysctls(&[]);
    let score = root.path().join("oom_score_adj");
    let refuse = || {
        _ = fs::remove_file(&score);
        fs::create_dir(&score).unwrap();
    };
    let allow = || {
        fs::remove_dir(&score).unwrap();
        fs::write(&score, "0\n").unwrap();
    };
    let told = Told::default();
    let look = |oom_score_adj: i32| {
        let (health, metrics) = (Arc::new(ProxyHealth::new(STALE_AFTER, false)), Arc::new(Metrics::new()));
        // Each configuration may have a keeper of its own.
        let mut keeper = Keeper::new(health, metrics, Reporter::default(), &told).of(Sysctls::below(root.path()));
        let kernel = KernelSettings { oom_score_adj, ..KernelSettings::default() };
        keeper.look(&Options { kernel, ..plain() });
    };
    refuse();
    look(KernelSettings::USUAL_OOM_SCORE);
    assert_eq!(log.lines(), [""; 0]);
    allow();
    look(500);
    refuse();
    look(KernelSettings::USUAL_OOM_SCORE);
    look(KernelSettings::USUAL_OOM_SCORE);
    let lines = log.lines();
    assert!(lines.len() == 1 && lines[0].starts_with("WARN oomScoreAdj cannot be set to -999 ("), "{lines:?}");
}

/// A path that is not there may be a mistake, and a mistake changes nothing.
#[tokio::test]
async fn nothing_is_set_before_the_manifests_are_there() {
    const NAME: &str = "net/netfilter/nf_conntrack_udp_timeout";
    let (root, sysctls) = sysctls(&[(NAME, "30\n"), ("oom_score_adj", "0\n")]);
    let manifests = root.path().join("manifests");
    let value = || fs::read_to_string(root.path().join(NAME)).unwrap();
    let (keeper, ..) = keeper(sysctls);
    let mut options = Options { source: SourceOptions::Manifests(manifests.clone()), ..plain() };
    options.kernel.conntrack.udp = Duration::from_secs(7);
    let (in_force, wanted) = tokio::sync::watch::channel(Arc::new(options.clone()));
    keeper.start(wanted, CancellationToken::new());
    tokio::task::yield_now().await;
    // Nor is another configuration a reason.
    options.kernel.conntrack.udp = Duration::from_secs(8);
    in_force.send_replace(Arc::new(options));
    tokio::task::yield_now().await;
    assert_eq!(value(), "30\n");
    fs::create_dir(&manifests).unwrap();
    while value() != "8" {
        tokio::task::yield_now().await;
    }
}

#[test]
fn buckets_only_grow() {
    for (before, after) in [("16384", "32768"), ("65536", "65536")] {
        let (root, sysctls) = sysctls(&[("hashsize", before)]);
        sysctls.make_room(131_072).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("hashsize")).unwrap(), after);
    }
}
