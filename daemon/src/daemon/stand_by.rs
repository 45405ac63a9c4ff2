//! Standing by: this node was given back to kube-proxy, and this process, which a DaemonSet would only start again, lives on.
//!
//! Our rules go, and come back in one case: when there is no kube-proxy any more and no rule of its own that serves. Then nobody serves this
//! node, and whoever is called at night finds a sheave that runs and does nothing. Rules of a kube-proxy that has ended still forward,
//! and it may be on its way back; those are told of and left alone (docs/decisions/standing-by.md).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Signals;
use super::adoption::blocking;
use super::localnet;
use super::report::{Reporter, with_causes};
use super::servers::{self, Listening, OpenServers};
use crate::config::{Servers, Settings};
use crate::dataplane::PlaneError;
use crate::dataplane::nftables::{self, StandBySign};
use crate::health::ProxyHealth;
use crate::log_filter::LogFilter;
use crate::metrics::Metrics;
use crate::migration::check::STANDS_BY;
use crate::migration::presence::{self, Listeners};
use crate::migration::{MigrationError, State};
use crate::netlink::nft::KernelNft;
use crate::retry::Retry;

/// How often it is looked whether kube-proxy still runs. Nothing tells.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often where it does not, and its rules, which may be many, are read.
const BESIDE_RULES: Duration = Duration::from_secs(10);
/// Nothing must be there at so many looks in a row: a kube-proxy that changes its mode removes everything before it writes.
const LOOKS: u32 = 2;

/// Failures to look in a row, after which somebody should know.
const FAILURES: u32 = 3;

/// Whose problem it is in `/healthz`.
const PROBLEM: &str = "standing by";
/// The same, of what cannot be looked at.
const BLIND: &str = "kube-proxy";

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Somebody asked for our end.
    Asked,
    /// There is no kube-proxy, and no rule of its own that serves.
    NobodyServes,
}

/// Who serves this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Serving {
    /// A kube-proxy that runs.
    KubeProxy,
    /// Rules of one that has ended.
    ItsRules,
    /// Another `sheave run`, which somebody has started since.
    Another,
    Nobody,
}

/// What was seen so far.
#[derive(Debug, Default)]
struct Looks {
    /// Nobody served, at so many looks in a row.
    nobody: u32,
    /// So many looks in a row failed.
    failures: u32,
    /// It was told that kube-proxy's rules serve alone, and they still do.
    told: bool,
}

/// Lets others know that we stand by. `None` where the kernel cannot keep a table for one process, or another one stands by.
pub(super) fn sign() -> Option<StandBySign> {
    match StandBySign::take() {
        Ok(sign) => Some(sign),
        Err(owned @ PlaneError::Owned { .. }) => {
            tracing::warn!("another `sheave run` stands by on this node, too: {owned}");
            None
        }
        Err(error) => {
            tracing::debug!(error = with_causes(&error), "others cannot see that this process stands by");
            None
        }
    }
}

/// Removes our rules, which nobody maintains any more, and waits until we are asked to end or nobody serves this node. The request
/// stays: whoever starts us again may be the kubelet.
pub(super) async fn stand_by(settings: &Settings, log: &LogFilter, sign: Option<StandBySign>, signals: &mut Signals) -> Over {
    let Signals { terminate, interrupt, restart } = signals;
    let cancel = CancellationToken::new();
    let health = Arc::new(ProxyHealth::new(settings.options.stale_after, false));
    let servers = open(settings, log, health.clone(), &cancel);
    let standing = async {
        until_removed(|| {
            let mut door = KernelNft::open()?;
            // Before the rules that guard it.
            localnet::give_back(&mut door)?;
            nftables::cleanup(&mut door)?;
            Ok(())
        })
        .await;
        tracing::info!("standing by: {STANDS_BY}");
        until_nobody_serves(&health).await;
    };
    let over = tokio::select! {
        _ = terminate.recv() => Over::Asked,
        _ = interrupt.recv() => Over::Asked,
        _ = restart.recv() => Over::Asked,
        () = standing => Over::NobodyServes,
    };
    cancel.cancel();
    if let Some(servers) = servers {
        servers.close().await;
    }
    // Last: from here on another process may serve.
    drop(sign);
    over
}

/// `/healthz` and the metrics, wherever kube-proxy does not want to be.
fn open(settings: &Settings, log: &LogFilter, health: Arc<ProxyHealth>, cancel: &CancellationToken) -> Option<OpenServers> {
    let listening = listening(settings, log, health);
    listening.open(cancel).inspect_err(|error| tracing::warn!(%error, "nobody answers while this process stands by")).ok()
}

fn listening(settings: &Settings, log: &LogFilter, health: Arc<ProxyHealth>) -> Listening {
    let free = |address: &SocketAddr| !presence::is_kube_proxys(address.port());
    let Servers { healthz, metrics, admin: _, bind_address_hard_fail: _ } = settings.options.servers;
    // Who serves nothing has nothing to tell a person.
    let servers =
        Servers { healthz: healthz.filter(free), metrics: metrics.filter(free), admin: None, bind_address_hard_fail: false };
    health.problem(PROBLEM, Some(STANDS_BY.to_owned()));
    let (_, configz) = watch::channel(settings.configz.clone());
    let metrics = Arc::new(Metrics::new());
    let (_, in_force) = watch::channel(Arc::new(settings.options.clone()));
    servers::watch_gates(&metrics, in_force);
    let account = None;
    Listening { servers, account, configz, plane: "nftables", metrics, health, reporter: Reporter::default(), log: log.clone() }
}

async fn until_nobody_serves(health: &ProxyHealth) {
    let mut looks = Looks::default();
    while looks.nobody < LOOKS {
        let serving = blocking(|| who_serves(&mut KernelNft::open()?)).await;
        tokio::time::sleep(looks.take_in(&serving, health)).await;
    }
}

impl Looks {
    /// Notes what was seen, and says how long to wait before the next look.
    fn take_in(&mut self, serving: &Result<Serving, MigrationError>, health: &ProxyHealth) -> Duration {
        let Ok(serving) = serving.as_ref().map_err(|error| self.failed(error, health)) else { return LOOK_AGAIN };
        if std::mem::take(&mut self.failures) >= FAILURES {
            health.problem(BLIND, None);
            tracing::info!("it can be told again who serves this node");
        }
        match serving {
            Serving::Nobody => {
                self.nobody += 1;
                LOOK_AGAIN
            }
            Serving::ItsRules => {
                self.nobody = 0;
                if !std::mem::replace(&mut self.told, true) {
                    tracing::warn!(
                        "kube-proxy has ended, and the rules that it left serve this node with nobody to maintain them: start it again, \
                         or return to sheave: `sheave cleanup` on the node, then restart sheave with --adopt"
                    );
                }
                BESIDE_RULES
            }
            Serving::KubeProxy | Serving::Another => {
                (self.nobody, self.told) = (0, false);
                LOOK_AGAIN
            }
        }
    }

    /// What cannot be asked may serve.
    fn failed(&mut self, error: &MigrationError, health: &ProxyHealth) {
        self.nobody = 0;
        self.failures = self.failures.saturating_add(1);
        if self.failures == FAILURES {
            let text = format!("it cannot be told who serves this node, so sheave goes on standing by: {}", with_causes(error));
            tracing::warn!("{text}");
            health.problem(BLIND, Some(text));
        }
    }
}

/// Who serves this node, as far as the kernel tells.
///
/// # Errors
/// See [`MigrationError`].
pub(super) fn who_serves(door: &mut KernelNft) -> Result<Serving, MigrationError> {
    if !presence::can_tell() || !presence::signs(Listeners::Count).is_empty() {
        return Ok(Serving::KubeProxy);
    }
    let state = State::look(door)?;
    Ok(match () {
        () if state.may_serve() => Serving::ItsRules,
        () if nftables::is_held(door)? => Serving::Another,
        () => Serving::Nobody,
    })
}

/// Tries again until it works: rules that stay decide, before kube-proxy's, and send to pods that are gone.
async fn until_removed(mut remove: impl FnMut() -> anyhow::Result<()>) {
    let mut retry = Retry::new(Duration::from_millis(100), Duration::from_secs(30));
    let mut told = false;
    while let Err(error) = remove() {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(error = with_causes(error.as_ref()), "our rules are not removed yet; trying again");
        }
        tokio::time::sleep(retry.next()).await;
    }
    tracing::info!("our rules are removed");
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::config::{Configuration, Overrides, interpret, parse};
    use crate::netlink::testns::in_namespace;

    #[test]
    fn rules_of_a_kube_proxy_that_has_ended_serve_and_nothing_of_it_is_nobody() {
        in_namespace(|| {
            let mut door = KernelNft::open().unwrap();
            assert_eq!(who_serves(&mut door).unwrap(), Serving::Nobody);
            let hold = nftables::NatHold::take().unwrap();
            assert_eq!(who_serves(&mut door).unwrap(), Serving::Another);
            drop(hold);
            let nft = |text: &str| assert!(Command::new("nft").arg(text).status().is_ok_and(|status| status.success()), "{text}");
            nft("add table ip kube-proxy; add set ip kube-proxy cluster-ips { type ipv4_addr; }");
            assert_eq!(who_serves(&mut door).unwrap(), Serving::Nobody, "its rules have not one ClusterIP");
            nft("add element ip kube-proxy cluster-ips { 10.96.0.1 }");
            assert_eq!(who_serves(&mut door).unwrap(), Serving::ItsRules);
        });
    }

    #[test]
    fn what_kube_proxy_leaves_when_it_cleans_up_serves_nobody() {
        in_namespace(|| {
            let left = "table ip mangle { chain KUBE-PROXY-CANARY { }; }
                table ip filter { chain KUBE-PROXY-CANARY { }; chain KUBE-PROXY-FIREWALL { }; }
                table ip nat { chain KUBE-PROXY-CANARY { }; chain KUBE-MARK-MASQ { meta mark set meta mark or 0x4000; }; }";
            assert!(Command::new("nft").arg(left).status().is_ok_and(|status| status.success()));
            let mut door = KernelNft::open().unwrap();
            assert!(!State::look(&mut door).unwrap().is_empty(), "chains of its names are here");
            assert_eq!(who_serves(&mut door).unwrap(), Serving::Nobody);
            let service = "add chain ip nat KUBE-SERVICES; add rule ip nat KUBE-SERVICES ip daddr 10.96.0.1 tcp dport 443 drop";
            assert!(Command::new("nft").arg(service).status().is_ok_and(|status| status.success()));
            assert_eq!(who_serves(&mut door).unwrap(), Serving::ItsRules);
        });
    }

    #[test]
    fn one_who_cannot_look_says_so_once_and_goes_on_standing_by() {
        let (log, _until) = crate::captured_log::Log::capture();
        let health = ProxyHealth::new(Duration::from_secs(60), false);
        let busy = || Err(MigrationError::Process { what: "looking", source: std::io::Error::other("busy") });
        let mut looks = Looks::default();
        looks.take_in(&Ok(Serving::Nobody), &health);
        for _ in 0..2 * FAILURES {
            looks.take_in(&busy(), &health);
        }
        assert_eq!(looks.nobody, 0, "who cannot be asked may serve");
        assert_eq!(log.lines().iter().filter(|line| line.contains("looking: busy")).count(), 1, "{:?}", log.lines());
        assert!(health.look().problems.iter().any(|problem| problem.contains("looking: busy")));
        looks.take_in(&Ok(Serving::Nobody), &health);
        assert!(looks.nobody == 1 && health.look().problems.is_empty());
    }

    #[test]
    fn a_gate_is_told_as_it_is() {
        let (log, _layer) = LogFilter::new("info").unwrap();
        let overrides = Overrides { host_name: "n".to_owned(), ..Overrides::default() };
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration";
        let settings = interpret(&Configuration::of(&parse(text).unwrap()), &overrides).unwrap();
        let listening = listening(&settings, &log, Arc::new(ProxyHealth::new(Duration::from_secs(60), false)));
        let told = "kubernetes_feature_enabled{name=\"AllowServiceExternalIPs\",stage=\"DEPRECATED\"} 1";
        assert!(listening.metrics.text().lines().any(|line| line == told));
    }

    #[tokio::test]
    async fn a_removal_that_fails_is_tried_until_it_works() {
        let mut attempts = 0;
        until_removed(|| {
            attempts += 1;
            anyhow::ensure!(attempts == 3, "the kernel is busy");
            Ok(())
        })
        .await;
        assert_eq!(attempts, 3);
    }
}
