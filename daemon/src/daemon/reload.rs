//! A configuration file that changes while the daemon runs.
//!
//! kube-proxy ends with an error and waits to be started again. Here most of a change is taken over by the loop as it runs; the rest
//! takes the daemon's inside down and builds it anew in the same process. Rules stay in force meanwhile, as with any restart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::report::with_causes;
use super::sync::Control;
use super::told::Told;
use crate::config::{ConfigFile, LogDefaults, LogFormat, Options, Servers, Settings, SourceOptions, changed_fields};
use crate::health::ProxyHealth;
use crate::http_server;
use crate::log_filter::LogFilter;
use crate::retry::Retry;
use crate::source::kube;
use crate::source::manifests::PathWatch;

/// Under this name `/healthz` tells of a configuration that cannot be used.
const PROBLEM: &str = "configuration";

/// Fields that a line names, at most.
const MOST_NAMED: usize = 8;

/// What is in force, for whoever follows it.
pub(super) struct InForce {
    pub(super) options: watch::Sender<Arc<Options>>,
    pub(super) log: LogDefaults,
    /// As `/configz` tells it.
    pub(super) configz: watch::Sender<serde_json::Value>,
}

/// What a change asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    /// The loop and what answers for it can take it over.
    Live,
    /// Other sources, another name or other servers: from the beginning.
    Restart,
}

fn change(now: &Options, next: &Options) -> Change {
    if now == next {
        Change::Nothing
    } else if built_with(now) == built_with(next) {
        Change::Live
    } else {
        Change::Restart
    }
}

/// What the daemon's inside is built with.
fn built_with(options: &Options) -> impl PartialEq {
    (&options.node_name, &options.source, &options.servers, &options.announcing)
}

/// Follows a file, and hands what can be taken over to the loop.
pub(super) struct Follower<'a> {
    pub(super) file: &'a ConfigFile,
    pub(super) in_force: InForce,
    pub(super) control: mpsc::Sender<Control>,
    pub(super) health: &'a ProxyHealth,
    pub(super) log: LogFilter,
    pub(super) told: &'a mut Told,
}

impl Follower<'_> {
    /// Returns with a change that cannot be taken over.
    ///
    /// What a configuration was refused for need not lie in its file (a kubeconfig that is not there yet, a port that is taken), so it
    /// is looked at again until it is good.
    pub(super) async fn run(mut self) -> Settings {
        let mut watch = PathWatch::new(self.file.path.clone());
        let mut refused = None;
        let mut again = Retry::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            watch.arm();
            watch.arm_links();
            let mut read = read(self.file, &self.now()).await;
            if let Ok((_, settings)) = &mut read {
                settings.warnings.extend(self.format_that_waits(settings.log.format));
            }
            self.health.problem(PROBLEM, read.as_ref().err().cloned());
            match read {
                Ok((Change::Restart, settings)) => {
                    let fields = self.fields(&settings);
                    tracing::info!("the configuration has changed: starting again with it{fields}, the rules stay in place");
                    self.follow_log(settings.log);
                    return settings;
                }
                Ok((change, settings)) => {
                    if refused.take().is_some() && change == Change::Nothing {
                        tracing::info!("the configuration can be used again, and says what is in force");
                    }
                    self.take_over(change, settings).await;
                }
                // The same mistake is told once, however often the file is touched.
                Err(text) if refused.as_ref() == Some(&text) => {}
                Err(text) => {
                    tracing::error!("the configuration has changed and cannot be used, what was in force stays: {text}");
                    refused = Some(text);
                    again.reset();
                }
            }
            if refused.is_some() {
                tokio::select! {
                    () = watch.changed() => {}
                    () = sleep(again.next()) => {}
                }
            } else {
                watch.changed().await;
            }
        }
    }

    fn now(&self) -> Arc<Options> {
        self.in_force.options.borrow().clone()
    }

    async fn take_over(&mut self, change: Change, settings: Settings) {
        if change == Change::Live {
            tracing::info!("the configuration has changed: taken over{}", self.fields(&settings));
        }
        settings.tell(&mut self.told.configuration);
        self.follow_log(settings.log);
        self.in_force.configz.send_replace(settings.configz);
        if change == Change::Nothing {
            return;
        }
        let next = Arc::new(settings.options);
        self.in_force.options.send_replace(next.clone());
        self.health.stale_after(next.stale_after);
        // A loop that is gone ends the process anyway.
        _ = self.control.send(Control::Options(next)).await;
    }

    /// Which of its fields, in parentheses.
    fn fields(&self, next: &Settings) -> String {
        let fields = changed_fields(&self.in_force.configz.borrow(), &next.configz);
        let (named, beyond) = fields.split_at(fields.len().min(MOST_NAMED));
        match (named, beyond.len()) {
            ([], _) => String::new(),
            (named, 0) => format!(" ({})", named.join(", ")),
            (named, more) => format!(" ({} and {more} more)", named.join(", ")),
        }
    }

    /// How lines look is settled when the process starts.
    fn format_that_waits(&self, next: LogFormat) -> Option<String> {
        let now = self.told.log_format.filter(|now| *now != next)?;
        let (next, now) = (next.word(), now.word());
        Some(format!(
            "KubeProxyConfiguration.logging.format: {next:?} waits for the next start of this process, lines stay {now}"
        ))
    }

    /// What is logged changes at once; a filter that was set over `/debug/flags/v` stays until the file has another verbosity.
    fn follow_log(&mut self, next: LogDefaults) {
        let before = std::mem::replace(&mut self.in_force.log, next);
        self.told.verbosity = Some(next.verbosity);
        if next.verbosity != before.verbosity
            && !self.file.overrides.log_filter
            && let Err(error) = self.log.set(&next.filter())
        {
            tracing::warn!("logging.verbosity is not taken over: {error}");
        }
    }
}

/// What the file says now and asks for. An API server that cannot even be tried is found here, and so is an address that is taken and
/// must not be: when the daemon has been taken down for them, it is too late.
async fn read(file: &ConfigFile, now: &Options) -> Result<(Change, Settings), String> {
    let settings = file.load().map_err(|error| with_causes(&error))?;
    let change = change(now, &settings.options);
    if change == Change::Restart {
        if let SourceOptions::Kube(kube) = &settings.options.source {
            kube::try_connect(kube).await.map_err(|error| with_causes(&error))?;
        }
        for address in must_be_free(&now.servers, &settings.options.servers) {
            http_server::bind(address, true).map_err(|error| format!("{error}; bindAddressHardFail is set"))?;
        }
    }
    Ok((change, settings))
}

/// Addresses that end the process if they are taken. Of a port that we listen on ourselves nothing can be known yet.
fn must_be_free(now: &Servers, next: &Servers) -> impl Iterator<Item = SocketAddr> {
    let ours = [now.healthz, now.metrics].map(|address| address.map(|address| address.port()));
    let wanted = if next.bind_address_hard_fail { [next.healthz, next.metrics] } else { [None, None] };
    wanted.into_iter().flatten().filter(move |address| !ours.contains(&Some(address.port())))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::{self, Configuration, DetectLocal, Overrides, SourceChoice, interpret, parse};

    fn options(fields: &str) -> Options {
        let text = format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}");
        let overrides = Overrides { host_name: "n".to_owned(), ..Overrides::default() };
        interpret(&Configuration::of(&parse(&text).unwrap()), &overrides).unwrap().options
    }

    fn in_force(options: Arc<Options>) -> InForce {
        let log = LogDefaults { format: LogFormat::Text, verbosity: 0 };
        InForce { options: watch::Sender::new(options), log, configz: watch::Sender::default() }
    }

    async fn follow(file: &ConfigFile, now: Arc<Options>, control: mpsc::Sender<Control>, health: &ProxyHealth) -> Options {
        let (log, _layer) = LogFilter::new("info").unwrap();
        Follower { file, in_force: in_force(now), control, health, log, told: &mut Told::default() }.run().await.options
    }

    /// The documentation says of each field what becomes of a change; so it is.
    #[test]
    fn every_field_is_taken_over_as_the_catalogue_says() {
        for (entry, before, after) in config::samples::changes() {
            let judged = |text: &str| {
                let overrides = Overrides { host_name: "n".to_owned(), ..Overrides::default() };
                parse(text).unwrap().judge(&overrides).unwrap()
            };
            let (before, after) = (judged(&before), judged(&after));
            let expected = match (entry.path, entry.change) {
                // The log's are taken over beside the options.
                ("logging.format" | "logging.verbosity", _) => Change::Nothing,
                (_, config::catalogue::Change::Live) => Change::Live,
                (_, config::catalogue::Change::Restart) => Change::Restart,
                (path, other) => panic!("{path}: {other:?}"),
            };
            assert_eq!(change(&before.options, &after.options), expected, "{}", entry.path);
        }
        assert_eq!(change(&options(""), &options("mode: iptables")), Change::Nothing);
    }

    /// Names alone: what a field says may be long, and is in the file.
    #[tokio::test]
    async fn a_change_is_told_with_the_fields_that_have_changed() {
        let (log, _until) = crate::captured_log::Log::capture();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.conf");
        let write = |fields: &str| std::fs::write(&path, config::samples::document(fields)).unwrap();
        write("clusterCIDR: 10.0.0.0/8");
        let source = Some(SourceChoice::Manifests(directory.path().join("none")));
        let overrides = Overrides { host_name: "n".to_owned(), source, ..Overrides::default() };
        let file = ConfigFile { path: path.clone(), overrides };
        let now = file.load().unwrap();
        let (control, mut heard) = mpsc::channel(4);
        let following = tokio::spawn(async move {
            let health = ProxyHealth::new(Duration::from_secs(60), false);
            let (log, _layer) = LogFilter::new("info").unwrap();
            let in_force = in_force(Arc::new(now.options));
            in_force.configz.send_replace(now.configz);
            let mut told = Told::default();
            Follower { file: &file, in_force, control, health: &health, log, told: &mut told }.run().await
        });
        let told = || log.lines().into_iter().filter(|line| line.contains("has changed")).collect::<Vec<_>>();
        write(
            "clusterCIDR: 10.0.0.0/8\nmode: nftables\nportRange: 1-2\nlogging: {format: json}\nconntrack: {min: 7, udpTimeout: 7s}",
        );
        assert!(matches!(heard.recv().await, Some(Control::Options(_))));
        assert_eq!(
            told(),
            ["INFO the configuration has changed: taken over (conntrack.min, conntrack.udpTimeout, mode)"],
            "portRange has no effect, and logging.format waits for the next start"
        );
        write(
            "hostnameOverride: other\nbindAddress: 10.0.0.1\noomScoreAdj: 7\nbindAddressHardFail: true\n\
             iptables: {masqueradeAll: true, minSyncPeriod: 7s, syncPeriod: 8s}",
        );
        following.await.unwrap();
        assert_eq!(
            told()[1..],
            ["INFO the configuration has changed: starting again with it (bindAddress, bindAddressHardFail, clusterCIDR, \
              conntrack.min, conntrack.udpTimeout, hostnameOverride, iptables.masqueradeAll, iptables.minSyncPeriod and 3 more), the \
              rules stay in place"]
        );
    }

    #[tokio::test]
    async fn what_is_logged_follows_the_file_unless_the_command_line_says() {
        let (log, layer) = LogFilter::new("info").unwrap();
        let _subscriber = tracing_subscriber::layer::SubscriberExt::with(tracing_subscriber::registry(), layer);
        for (log_filter, expected) in [(true, "info"), (false, "debug")] {
            let overrides = Overrides { log_filter, ..Overrides::default() };
            let (control, _told) = mpsc::channel(1);
            let mut follower = Follower {
                file: &ConfigFile { path: "none".into(), overrides },
                in_force: in_force(Arc::new(options(""))),
                control,
                health: &ProxyHealth::new(Duration::from_secs(60), false),
                log: log.clone(),
                told: &mut Told::default(),
            };
            follower.follow_log(LogDefaults { format: LogFormat::Text, verbosity: 4 });
            assert_eq!((log.current().as_str(), follower.told.verbosity), (expected, Some(4)));
        }
    }

    /// Told once while it lasts; changed back, nothing waits.
    #[tokio::test]
    async fn a_format_waits_as_long_as_it_is_another_than_that_of_the_lines() {
        let (log, _until) = crate::captured_log::Log::capture();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.conf");
        // With each another field, which the loop hears of when all is told.
        let write = |fields: &str, step: usize| {
            let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.0.0.0/8\n";
            std::fs::write(&path, format!("{text}conntrack: {{min: {step}}}\n{fields}\n")).unwrap();
        };
        write("", 1000);
        let source = Some(SourceChoice::Manifests(directory.path().join("none")));
        let overrides = Overrides { host_name: "n".to_owned(), source, ..Overrides::default() };
        let file = ConfigFile { path: path.clone(), overrides };
        let now = Arc::new(file.load().unwrap().options);
        let (control, mut heard) = mpsc::channel(4);
        let following = tokio::spawn(async move {
            let health = ProxyHealth::new(Duration::from_secs(60), false);
            let mut told = Told { log_format: Some(LogFormat::Text), ..Told::default() };
            let (log, _layer) = LogFilter::new("info").unwrap();
            let follower = Follower { file: &file, in_force: in_force(now), control, health: &health, log, told: &mut told };
            follower.run().await
        });
        let waits = || log.lines().iter().filter(|line| line.contains("waits for the next start")).count();
        let (text, json) = ("logging: {format: text}", "logging: {format: json}");
        for (step, (fields, expected)) in [(json, 1), (json, 1), (text, 1), ("", 1), (json, 2)].into_iter().enumerate() {
            write(fields, step);
            assert!(matches!(heard.recv().await, Some(Control::Options(_))));
            assert_eq!(waits(), expected, "{fields} at {step}: {:?}", log.lines());
        }
        write(&format!("{json}\nhostnameOverride: other"), 7);
        let next = following.await.unwrap();
        assert!(next.warnings.iter().any(|warning| warning.contains("waits for the next start")), "{:?}", next.warnings);
    }

    /// What the command line says decides, whatever the file says of the same.
    #[tokio::test]
    async fn a_field_under_a_flag_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.conf");
        let overrides = Overrides {
            node_name: Some("Flag".to_owned()),
            host_name: "n".to_owned(),
            source: Some(SourceChoice::Kube),
            api_servers: vec!["http://127.0.0.1:1".to_owned()],
            plane: Some("nftables".to_owned()),
            ..Overrides::default()
        };
        let file = ConfigFile { path: path.clone(), overrides };
        let theirs = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let ours = "---\napiVersion: config.sheave.dev/v1alpha1\nkind: SheaveConfiguration\n";
        std::fs::write(&path, format!("{theirs}{ours}")).unwrap();
        let now = file.load().unwrap().options;
        for text in [
            format!("{theirs}hostnameOverride: other\n{ours}"),
            format!("{theirs}hostnameOverride: flag\n{ours}"),
            format!("{theirs}hostnameOverride: not a name\n{ours}"),
            format!("{theirs}{ours}apiServers: [http://127.0.0.1:2]\n"),
            format!("{theirs}{ours}apiServers: [nowhere]\n"),
            format!("{theirs}{ours}manifests: /m\nplane: auto\n"),
        ] {
            std::fs::write(&path, &text).unwrap();
            let (change, _) = read(&file, &now).await.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(change, Change::Nothing, "{text}");
        }
    }

    #[tokio::test]
    async fn a_plain_file_is_followed_written_in_place_or_renamed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.conf");
        let text =
            |fields: &str| format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}\n");
        std::fs::write(&path, text("")).unwrap();
        let source = Some(SourceChoice::Manifests(directory.path().join("none")));
        let overrides = Overrides { host_name: "n".to_owned(), source, ..Overrides::default() };
        let file = ConfigFile { path: path.clone(), overrides };
        let now = Arc::new(file.load().unwrap().options);
        let (control, mut told) = mpsc::channel(4);
        let health = Arc::new(ProxyHealth::new(now.stale_after, false));
        let theirs = health.clone();
        let following = tokio::spawn(async move { follow(&file, now, control, &theirs).await });
        let mut next = async || match told.recv().await {
            Some(Control::Options(options)) => options.detect_local.clone(),
            other => panic!("{other:?}"),
        };

        std::fs::write(&path, text("detectLocalMode: NodeCIDR")).unwrap();
        assert_eq!(next().await, DetectLocal::NodeCidr);
        let other = directory.path().join("other");
        std::fs::write(&other, text("detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}")).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_eq!(next().await, DetectLocal::BridgeInterface("cni0".into()));
        health.queued(Instant::now().checked_sub(Duration::from_secs(30)).unwrap());
        assert!(health.look().is_alive());
        std::fs::write(&path, text("iptables: {syncPeriod: 10s}")).unwrap();
        next().await;
        assert!(!health.look().is_alive(), "twice syncPeriod");
        std::fs::write(&path, text("hostnameOverride: other")).unwrap();
        assert_eq!(&*following.await.unwrap().node_name, "other");
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.conf");
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                    clientConnection: {kubeconfig: /no/such/kubeconfig}\n";
        std::fs::write(&path, text).unwrap();
        let overrides = Overrides { host_name: "n".to_owned(), ..Overrides::default() };
        let error = read(&ConfigFile { path, overrides }, &options("")).await.expect_err("it cannot be read");
        assert!(error.starts_with("kubeconfig /no/such/kubeconfig: "), "{error}");
    }

    #[tokio::test]
    async fn a_restart_waits_for_an_address_that_must_be_free_and_begins_without_another_change_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.conf");
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = holder.local_addr().unwrap();
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
             bindAddressHardFail: true\nmetricsBindAddress: {taken}\n"
        );
        std::fs::write(&path, text).unwrap();
        let source = Some(SourceChoice::Manifests(directory.path().join("none")));
        let overrides = Overrides { host_name: "n".to_owned(), source, ..Overrides::default() };
        let file = ConfigFile { path, overrides };
        let mut now = file.load().unwrap().options;
        now.servers = Servers::default();
        let health = Arc::new(ProxyHealth::new(now.stale_after, false));
        let theirs = health.clone();
        let (control, _told) = mpsc::channel(1);
        let following = tokio::spawn(async move { follow(&file, Arc::new(now), control, &theirs).await });
        while health.look().problems.is_empty() {
            tokio::task::yield_now().await;
        }
        let problem = health.look().problems.remove(0);
        assert!(problem.starts_with(&format!("configuration: listen on {taken}: ")), "{problem}");
        assert!(problem.ends_with("bindAddressHardFail is set"), "{problem}");
        drop(holder);
        assert_eq!(following.await.unwrap().servers.metrics, Some(taken));
        assert_eq!(health.look().problems, [""; 0]);
    }

    #[test]
    fn our_own_ports_are_no_obstacle() {
        let servers = |healthz: &str, metrics: &str, bind_address_hard_fail| Servers {
            healthz: Some(healthz.parse().unwrap()),
            metrics: Some(metrics.parse().unwrap()),
            admin: None,
            bind_address_hard_fail,
        };
        let now = servers("0.0.0.0:1", "127.0.0.1:2", false);
        let asked = |next: &Servers| must_be_free(&now, next).collect::<Vec<_>>();
        assert_eq!(asked(&servers("127.0.0.1:2", "127.0.0.1:1", true)), []);
        assert_eq!(asked(&servers("127.0.0.1:3", "127.0.0.1:1", true)), ["127.0.0.1:3".parse().unwrap()]);
        assert_eq!(asked(&servers("127.0.0.1:3", "127.0.0.1:1", false)), [], "it will be tried again");
    }
}
