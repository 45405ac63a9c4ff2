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
use crate::config::{ConfigFile, Options, Servers, Settings, SourceOptions};
use crate::health::ProxyHealth;
use crate::http_server;
use crate::retry::Retry;
use crate::source::kube;
use crate::source::manifests::PathWatch;

/// Under this name `/healthz` tells of a configuration that cannot be used.
const PROBLEM: &str = "configuration";

/// What is in force, for whoever follows it.
pub(super) struct InForce {
    pub(super) options: watch::Sender<Arc<Options>>,
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
    } else if (&now.node_name, &now.source, &now.servers) == (&next.node_name, &next.source, &next.servers) {
        Change::Live
    } else {
        Change::Restart
    }
}

/// Follows the file, and hands what can be taken over to the loop. Returns with a change that cannot be.
///
/// What a configuration was refused for need not lie in its file (a kubeconfig that is not there yet, a port that is taken), so it is
/// looked at again until it is good.
pub(super) async fn follow(
    file: &ConfigFile,
    in_force: &InForce,
    control: mpsc::Sender<Control>,
    health: &ProxyHealth,
) -> Settings {
    let InForce { options, configz } = in_force;
    let mut now = options.borrow().clone();
    let mut watch = PathWatch::new(file.path.clone());
    let mut refused = None;
    let mut again = Retry::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        watch.arm();
        watch.arm_links();
        let read = read(file, &now).await;
        health.problem(PROBLEM, read.as_ref().err().cloned());
        match read {
            Ok((Change::Nothing, settings)) => {
                if refused.take().is_some() {
                    tracing::info!("the configuration can be used again, and says what is in force");
                }
                configz.send_replace(settings.configz);
            }
            Ok((Change::Live, settings)) => {
                refused = None;
                tracing::info!("the configuration has changed: taken over");
                settings.tell();
                configz.send_replace(settings.configz);
                now = Arc::new(settings.options);
                options.send_replace(now.clone());
                health.stale_after(now.stale_after);
                // A loop that is gone ends the process anyway.
                _ = control.send(Control::Options(now.clone())).await;
            }
            Ok((Change::Restart, settings)) => {
                tracing::info!("the configuration has changed: starting again with it, the rules stay in place");
                return settings;
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

/// What the file says now and asks for. An API server that cannot even be tried is found here, and so is an address that is taken and
/// must not be: when the daemon has been taken down for them, it is too late.
async fn read(file: &ConfigFile, now: &Options) -> Result<(Change, Settings), String> {
    let settings = file.load().map_err(|error| with_causes(&error))?;
    let change = change(now, &settings.options);
    if change == Change::Restart {
        if let SourceOptions::Kube(kube) = &settings.options.source {
            kube::connect(kube).await.map_err(|error| with_causes(&error))?;
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
    use crate::config::{Configuration, DetectLocal, Overrides, SourceChoice, interpret, parse};

    fn options(fields: &str) -> Options {
        let text = format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}");
        let overrides = Overrides { host_name: "n".to_owned(), ..Overrides::default() };
        interpret(&Configuration::of(&parse(&text).unwrap()), &overrides).unwrap().options
    }

    fn in_force(options: Arc<Options>) -> InForce {
        InForce { options: watch::Sender::new(options), configz: watch::Sender::default() }
    }

    #[test]
    fn a_change_is_live_unless_it_moves_what_the_daemon_is_built_around() {
        let now = options("");
        for (fields, expected) in [
            ("mode: iptables", Change::Nothing),
            ("clusterCIDR: 10.0.0.0/8", Change::Live),
            ("nodePortAddresses: [primary]", Change::Live),
            ("iptables: {masqueradeAll: true}", Change::Live),
            ("conntrack: {min: 7}", Change::Live),
            ("iptables: {syncPeriod: 10s}", Change::Live),
            ("mode: nftables\nnftables: {syncPeriod: 10s}", Change::Live),
            ("hostnameOverride: other", Change::Restart),
            ("clientConnection: {kubeconfig: /etc/other}", Change::Restart),
            ("metricsBindAddress: 127.0.0.1:1", Change::Restart),
        ] {
            assert_eq!(change(&now, &options(fields)), expected, "{fields}");
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
        let following = tokio::spawn(async move { follow(&file, &in_force(now), control, &theirs).await.options });
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
        let following = tokio::spawn(async move { follow(&file, &in_force(Arc::new(now)), control, &theirs).await.options });
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
            bind_address_hard_fail,
        };
        let now = servers("0.0.0.0:1", "127.0.0.1:2", false);
        let asked = |next: &Servers| must_be_free(&now, next).collect::<Vec<_>>();
        assert_eq!(asked(&servers("127.0.0.1:2", "127.0.0.1:1", true)), []);
        assert_eq!(asked(&servers("127.0.0.1:3", "127.0.0.1:1", true)), ["127.0.0.1:3".parse().unwrap()]);
        assert_eq!(asked(&servers("127.0.0.1:3", "127.0.0.1:1", false)), [], "it will be tried again");
    }
}
